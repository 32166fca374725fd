//! Where payments are kept.

mod dynamo;

use async_trait::async_trait;
use chassis::store::{SaveOutcome, StoreError};

pub use self::dynamo::DynamoRepository;
use crate::domain::{Payment, PaymentId, PaymentRecord};

/// Keeps payments, and what must never become one.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Writes an intent or a tombstone where nothing stands.
    async fn create(&self, record: &PaymentRecord) -> Result<SaveOutcome, StoreError>;

    /// Reads what stands under an id.
    async fn find(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError>;

    /// Writes what is new in `after` where the state of `before` still stands.
    /// The payment token goes with the intent.
    async fn advance(&self, before: &Payment, after: &Payment) -> Result<SaveOutcome, StoreError>;

    /// Erases the recipient of a payment, for good: no later write brings it
    /// back. Where there is no payment, there is nothing to erase.
    async fn erase_recipient(&self, id: PaymentId) -> Result<(), StoreError>;
}
