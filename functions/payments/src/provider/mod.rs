//! Whoever moves the money.
//!
//! A provider is a stranger's system: it may not answer, answer late, or know
//! something else than our own records. What it promises is what every serious
//! one does: under one idempotency key an operation happens once, and a repeat
//! returns the first one's result.

pub mod sandbox;

use async_trait::async_trait;
use chassis::money::Money;

pub use self::sandbox::SandboxProvider;
use crate::domain::{PaymentId, PaymentMethod};

/// Under which the provider knows a charge, however often it is asked: the
/// payment's id, for all operations and for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProviderKey(String);

impl From<PaymentId> for ProviderKey {
    fn from(id: PaymentId) -> Self {
        Self(id.to_string())
    }
}

impl ProviderKey {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How an authorisation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthoriseOutcome {
    /// The money is held, or was until somebody took it or gave it up.
    Authorised {
        /// The provider's own name for the charge.
        reference: String,
    },
    /// No, and no again.
    Declined {
        /// For programs: `card_declined`, say.
        reason: String,
    },
}

/// How a capture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureOutcome {
    /// The money is ours.
    Captured,
    /// No, and no again. The hold stays.
    Refused {
        /// For programs.
        reason: String,
    },
    /// There is no hold any more: it was voided, or captured and refunded.
    Released,
}

/// How a void ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidOutcome {
    /// The hold is given up; a capture is refused from now on.
    Voided,
    /// Too late: it was captured (and perhaps refunded since).
    AlreadyCaptured,
    /// Nothing is held under that key.
    NothingToVoid,
}

/// How a refund ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundOutcome {
    /// The customer has the money back.
    Refunded,
    /// Nothing was captured under that key.
    NothingToRefund,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The provider is well, and busy with others' requests for the same charge,
    /// or with too many requests. A repeat under the same key is welcome.
    #[error("the payment provider is busy: {0}")]
    Contended(String),
    /// No answer, or none that means anything: what was asked for may or may
    /// not have happened. A repeat under the same key finds out.
    #[error("the payment provider does not answer: {0}")]
    Unavailable(String),
    /// The key was used for something else before: a mistake on our side.
    #[error("the payment provider knows the key with another amount")]
    KeyConflict,
}

/// Moves money: all of a payment's amount, or nothing of it.
///
/// Each operation may be repeated under its key without happening twice.
#[async_trait]
pub trait PaymentProvider: Send + Sync {
    /// Holds `amount`. A repeat returns the first one's outcome, even if the
    /// hold was given up since.
    async fn authorise(
        &self,
        key: &ProviderKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<AuthoriseOutcome, ProviderError>;

    /// Takes what is held.
    async fn capture(&self, key: &ProviderKey) -> Result<CaptureOutcome, ProviderError>;

    /// Gives up what is held.
    async fn void(&self, key: &ProviderKey) -> Result<VoidOutcome, ProviderError>;

    /// Gives back what was taken.
    async fn refund(&self, key: &ProviderKey) -> Result<RefundOutcome, ProviderError>;
}
