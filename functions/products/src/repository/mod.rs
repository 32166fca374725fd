//! The storage of products, their stock, adjustments and reservations.

mod dynamo;

use async_trait::async_trait;
use chassis::{
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;

pub use self::dynamo::DynamoRepository;
use crate::domain::{Adjustment, AdjustmentId, NewProduct, OrderId, Product, ProductId, Quote, Reservation};

/// Stores products. Each write is atomic, and succeeds only if the stored state is still the state that the service has
/// read. Therefore the stock never falls below zero, is never released twice, and never changes without an adjustment
/// or a reservation.
#[async_trait]
pub trait Repository: Send + Sync {
    async fn create(&self, product: &Product) -> Result<(), StoreError>;

    /// Writes a new product together with the administrator's idempotency key, unless the key was used before.
    async fn create_once(
        &self,
        product: &Product,
        new: &NewProduct,
        administrator: UserId,
        key: &KeyUse,
    ) -> Result<InsertOutcome<Product>, StoreError>;

    async fn find(&self, id: ProductId) -> Result<Option<Product>, StoreError>;

    /// Reads several products, in any order. Products that don't exist are left out.
    async fn find_all(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError>;

    /// Reads a page of all products. The oldest product comes first.
    async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Product>, ListError>;

    /// Writes the details of `after` if the stored version is the version of `before`. The stock stays as it is.
    async fn change(&self, before: &Product, after: &Product) -> Result<SaveOutcome, StoreError>;

    /// Reads an adjustment of a product. If a transaction is writing the adjustment, waits for the transaction:
    /// otherwise a reader could see the changed stock, but not yet the adjustment.
    async fn transact_get_adjustment(&self, of: ProductId, id: &AdjustmentId)
    -> Result<Option<Adjustment>, StoreError>;

    /// Stores a new adjustment, and changes the product's stock by the delta of the adjustment.
    async fn adjust(&self, adjustment: &Adjustment) -> Result<SaveOutcome, StoreError>;

    /// Reads the reservation of an order.
    async fn find_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError>;

    /// Reads the reservation of an order. If a transaction is writing the reservation, waits for the transaction:
    /// otherwise a reader could see the changed stock, but not yet the reservation.
    async fn transact_get_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError>;

    /// Stores a new reservation and reserves the stock of all its lines, if all stock is available and each price is
    /// still the quoted price.
    async fn reserve(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError>;

    /// Releases a held reservation, and makes the stock of its lines available again.
    async fn release(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError>;

    /// Stores a tombstone, which is a released reservation, for an order that has no reservation. The service refuses a
    /// reserve request if it finds the tombstone.
    async fn put_tombstone(&self, order: OrderId, now: Timestamp) -> Result<SaveOutcome, StoreError>;
}
