//! Where products, their stock and reservations of it are kept.

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
use crate::domain::{Addition, Adjustment, AdjustmentId, OrderId, Product, ProductId, Quote, Reservation};

/// The use of a key by somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedUse {
    /// Who.
    pub by: UserId,
    /// The key, and what for.
    pub key: KeyUse,
    /// What is added.
    pub addition: Addition,
}

/// Keeps products. Every write is conditional on what it was decided on, and
/// all or nothing: stock is never taken below zero, given back twice, or moved
/// without the record that says why.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Writes a new product.
    async fn create(&self, product: &Product) -> Result<(), StoreError>;

    /// Writes a new product together with the use of a key.
    async fn create_once(&self, product: &Product, key: &NamedUse) -> Result<InsertOutcome<Product>, StoreError>;

    /// Reads a product.
    async fn find(&self, id: ProductId) -> Result<Option<Product>, StoreError>;

    /// Reads several products, in any order, without those that don't exist.
    async fn find_all(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError>;

    /// Reads a page of all products, oldest first.
    async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Product>, ListError>;

    /// Writes the details of `after` where those of `before` still stand.
    /// Leaves stock alone.
    async fn change(&self, before: &Product, after: &Product) -> Result<SaveOutcome, StoreError>;

    /// Reads an adjustment of a product, and waits for whoever is writing it:
    /// the stock may show it before it is there itself.
    async fn settled_adjustment(&self, of: ProductId, id: &AdjustmentId) -> Result<Option<Adjustment>, StoreError>;

    /// Records an adjustment that isn't there yet, and applies it.
    async fn adjust(&self, adjustment: &Adjustment) -> Result<SaveOutcome, StoreError>;

    /// Reads what an order has.
    async fn find_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError>;

    /// The same, and waits for whoever is writing it: the stock may show a
    /// reservation before it is there itself.
    async fn settled_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError>;

    /// Reserves what `quote` says for an order that has nothing yet, if there
    /// is enough of everything and each price is still the quoted one.
    async fn reserve(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError>;

    /// Gives back what `quote` says, for an order that still has it.
    async fn release(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError>;

    /// Leaves a tombstone for an order that has nothing yet, so that a reserve
    /// that is still on its way comes too late.
    async fn bury(&self, order: OrderId, now: Timestamp) -> Result<SaveOutcome, StoreError>;
}
