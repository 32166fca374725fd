//! The interface to the payment provider.
//!
//! The provider is another company's system: the provider may not answer or may answer
//! late, and the provider's records may differ from ours. The interface relies on one
//! promise, which payment providers commonly make: an operation with an idempotency key
//! takes effect once, and a repeat with the same key returns the first result.

pub mod sandbox;

use std::error::Error;

use async_trait::async_trait;
use chassis::money::Money;
use serde::{Deserialize, Serialize};

pub use self::sandbox::SandboxProvider;
use crate::domain::{PaymentId, PaymentMethod};

/// The idempotency key of a charge at the provider. The key is the payment's id, and is the
/// same for all operations on the charge and for all their repeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProviderKey(String);

impl From<PaymentId> for ProviderKey {
    fn from(id: PaymentId) -> Self {
        Self(id.to_string())
    }
}

impl ProviderKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The provider's response to an authorisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthoriseOutcome {
    /// The provider holds the amount. In the response to a repeat, the hold may have been
    /// captured or voided since the first authorisation.
    Authorised {
        /// The provider's id of the charge.
        reference: String,
    },
    /// The provider declined the authorisation, and would decline every repeat.
    Declined {
        /// The provider's code for the reason, such as `card_declined`.
        reason: String,
    },
}

/// The provider's response to a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureOutcome {
    Captured,
    /// The provider refused the capture, and would refuse every repeat. The hold is not
    /// released.
    Refused {
        /// The provider's code for the reason, such as `refused_by_issuer`.
        reason: String,
    },
    /// The hold no longer exists: it was voided, or captured and refunded.
    Released,
}

/// The provider's response to a void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidOutcome {
    /// The provider no longer holds the amount, and refuses every later capture.
    Voided,
    /// The amount was captured before the void, and may have been refunded after the
    /// capture.
    AlreadyCaptured,
    /// The provider holds nothing under the key.
    NothingToVoid,
}

/// The provider's response to a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundOutcome {
    Refunded,
    /// Nothing was captured under the key.
    NothingToRefund,
}

/// The state of a charge at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum ChargeStatus {
    /// An authorisation failed with an unknown outcome. Nothing is held.
    Attempted,
    Authorised,
    Declined,
    Captured,
    Voided,
    Refunded,
}

/// What the provider says of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChargeReport {
    pub status: ChargeStatus,
    /// The amount that was to be held.
    pub amount: Money,
    pub captured: Money,
    pub refunded: Money,
}

/// The reason why a call to the provider returned no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider is available, but has concurrent requests for the same charge, or too
    /// many requests in total. A repeat with the same key may succeed in a moment.
    #[error("the payment provider reports contention")]
    Contended(#[source] Box<dyn Error + Send + Sync>),
    /// The provider gave no valid response, so the operation may or may not have taken
    /// effect; or no time was left for the call. A repeat with the same key returns the
    /// outcome.
    #[error("the payment provider does not answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The key was used before with another amount. Only a mistake in the code of this
    /// service can cause this error.
    #[error("the payment provider knows the key with another amount")]
    KeyConflict,
}

/// A payment provider. Each operation concerns the whole amount of a payment, and can be
/// repeated with the same key without a second effect.
#[async_trait]
pub trait PaymentProvider: Send + Sync {
    /// Holds `amount` on the customer's card or account. A repeat returns the first
    /// outcome, even if the hold was voided since.
    async fn authorise(
        &self,
        key: &ProviderKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<AuthoriseOutcome, ProviderError>;

    /// Transfers the held amount to the shop.
    async fn capture(&self, key: &ProviderKey) -> Result<CaptureOutcome, ProviderError>;

    /// Ends the hold, so that nothing is captured.
    async fn void(&self, key: &ProviderKey) -> Result<VoidOutcome, ProviderError>;

    /// Returns the captured amount to the customer.
    async fn refund(&self, key: &ProviderKey) -> Result<RefundOutcome, ProviderError>;

    /// Reads a charge.
    async fn charge(&self, key: &ProviderKey) -> Result<Option<ChargeReport>, ProviderError>;

    /// Lists the first `limit` keys from `from` to `to`, both included, that have a charge, sorted.
    async fn charges(
        &self,
        from: &ProviderKey,
        to: &ProviderKey,
        limit: usize,
    ) -> Result<Vec<ProviderKey>, ProviderError>;
}
