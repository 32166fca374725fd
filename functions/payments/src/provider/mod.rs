//! The interface to the payment provider.
//!
//! The provider is another company's system: it may not answer, it may answer late,
//! and its records may differ from ours. The interface relies on one promise, which
//! payment providers commonly make: an operation with an idempotency key takes effect
//! once, and a repeat with the same key returns the first result.

pub mod sandbox;

use std::error::Error;

use async_trait::async_trait;
use chassis::money::Money;

pub use self::sandbox::SandboxProvider;
use crate::domain::{PaymentId, PaymentMethod};

/// The idempotency key of a charge at the provider: the payment's id, for all
/// operations and all repeats.
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

/// The provider's answer to an authorisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthoriseOutcome {
    /// The provider holds the amount, or held it until it was captured or voided.
    Authorised {
        /// The provider's id of the charge.
        reference: String,
    },
    /// The provider declined, and would decline every repeat.
    Declined {
        /// A code for programs, such as `card_declined`.
        reason: String,
    },
}

/// The provider's answer to a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureOutcome {
    Captured,
    /// The provider refused, and would refuse every repeat. The hold stays.
    Refused {
        /// A code for programs.
        reason: String,
    },
    /// The hold no longer exists: it was voided, or captured and refunded.
    Released,
}

/// The provider's answer to a void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidOutcome {
    /// The hold has ended; every later capture is refused.
    Voided,
    /// The amount was captured before, and perhaps refunded since.
    AlreadyCaptured,
    /// The provider holds nothing under the key.
    NothingToVoid,
}

/// The provider's answer to a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundOutcome {
    Refunded,
    /// Nothing was captured under the key.
    NothingToRefund,
}

/// The reason why the provider's outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider works, but has concurrent requests for the same charge, or too many
    /// requests. A repeat with the same key may succeed in a moment.
    #[error("the payment provider reports contention")]
    Contended(#[source] Box<dyn Error + Send + Sync>),
    /// The provider gave no answer, or a meaningless answer: the operation may or may
    /// not have taken effect. A repeat with the same key finds out.
    #[error("the payment provider does not answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The key was used with another amount before: an error in this service.
    #[error("the payment provider knows the key with another amount")]
    KeyConflict,
}

/// A payment provider. Each operation is about the whole amount of a payment.
///
/// Each operation can be repeated with its key without a second effect.
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
}
