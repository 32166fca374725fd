//! Stores payments, and tombstones of payments that were cancelled before they were
//! authorised.

mod dynamo;

use async_trait::async_trait;
use chassis::store::{SaveOutcome, StoreError};

pub use self::dynamo::DynamoRepository;
use crate::domain::{Payment, PaymentId, PaymentRecord};

#[async_trait]
pub trait Repository: Send + Sync {
    /// Stores an intent or a tombstone on the condition that no record with its id is
    /// stored.
    async fn create(&self, record: &PaymentRecord) -> Result<SaveOutcome, StoreError>;

    async fn find(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError>;

    /// Stores the state and the update time of `after` on the condition that the stored
    /// payment is still in the state of `before`. Removes the payment token, unless the
    /// payment is still an intent.
    async fn advance(&self, before: &Payment, after: &Payment) -> Result<SaveOutcome, StoreError>;

    /// Removes the recipient from a payment. No later write stores the recipient again.
    /// Succeeds without an effect if no payment with the id is stored.
    async fn erase_recipient(&self, id: PaymentId) -> Result<(), StoreError>;
}
