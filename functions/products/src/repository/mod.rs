//! The storage of products, their stock, adjustments and reservations.

mod dynamo;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chassis::{
    audit::Author,
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;

pub use self::dynamo::DynamoRepository;
use crate::domain::{
    Adjustment, AdjustmentId, AllocatedLine, Allocation, Move, NewProduct, OrderId, Product, ProductId, ProductVersion,
    Quote, Reservation, ReservationAccount, Shard, ShardCount, StockAccount, StockedProduct,
};

/// The maximum number of shards from which one reservation can take units: DynamoDB limits a transaction to 100 writes,
/// and one of them is the reservation.
pub const MAX_SHARES: usize = 99;

/// The stock of products, sorted by shard.
pub type Stocks = BTreeMap<ProductId, Vec<Shard>>;

/// The outcome of writing a reservation.
#[derive(Debug)]
#[must_use]
pub enum ReserveOutcome {
    Saved,
    /// Nothing is written, because the order already has this reservation.
    Exists(Reservation),
    /// Nothing is written: for the lines at these positions, a shard has too few units, or the quoted price is
    /// outdated.
    Stale(Vec<usize>),
    /// Nothing is written: for the lines at these positions, other requests are writing the same shards. There are no
    /// positions if another request is writing the same reservation.
    Contended {
        lines: Vec<usize>,
        /// The error to return if the request is not tried again.
        error: StoreError,
    },
}

/// What was stored at one moment.
#[derive(Debug)]
pub struct Snapshot<R> {
    /// The reservation or the adjustment.
    pub record: Option<R>,
    /// The stock of the products that have several shards.
    pub stocks: Stocks,
    /// The products that have got more shards. Their stock is not in `stocks`.
    pub grown: BTreeSet<ProductId>,
}

/// Stores products. Each write is atomic, and succeeds only if the stored state is still the state that the service has
/// read. Therefore the stock of no shard falls below zero, no stock is released twice, and the sum of the stock never
/// changes without an adjustment or a reservation.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Writes a new product, with the record of its first version.
    async fn create(&self, product: &Product, author: &Author) -> Result<(), StoreError>;

    /// Writes a new product together with the administrator's idempotency key, unless the key was used before.
    async fn create_once(
        &self,
        product: &Product,
        new: &NewProduct,
        author: &Author,
        key: &KeyUse,
    ) -> Result<InsertOutcome<Product>, StoreError>;

    async fn find(&self, id: ProductId) -> Result<Option<StockedProduct>, StoreError>;

    /// Reads several products without their stock, in any order. Products that don't exist are left out.
    async fn find_all(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError>;

    /// Reads a page of all products. The oldest product comes first.
    async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<StockedProduct>, ListError>;

    /// Writes the details and the number of shards of `after` if the stored version is the version of `before`, together
    /// with the record of the new version.
    async fn change(&self, before: &Product, after: &Product, author: &Author) -> Result<SaveOutcome, StoreError>;

    /// Reads a page of the versions of a product, the oldest first.
    async fn versions(
        &self,
        of: ProductId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<ProductVersion>, ListError>;

    /// Reads a page of the adjustments of a product, sorted by their ids.
    async fn adjustments(
        &self,
        of: ProductId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Adjustment>, ListError>;

    /// Makes sure that no reservation is stored any more with an older version of `product` than this version.
    async fn refuse_older_versions(&self, product: &Product) -> Result<(), StoreError>;

    /// Stores the shards that `product` lacks to have `count` shards. The new shards have no units. They are used only
    /// after the product was changed to have this number of shards.
    async fn add_shards(&self, product: &Product, count: ShardCount) -> Result<(), StoreError>;

    /// Reads all shards of products. Each shard is read by itself: units that a concurrent request moves from one shard
    /// to another may be missing from both.
    async fn stocks(&self, products: &[(ProductId, ShardCount)]) -> Result<Stocks, StoreError>;

    /// Moves available units from one shard of a product to another, if the first shard has enough.
    async fn move_units(&self, of: ProductId, units: &Move) -> Result<SaveOutcome, StoreError>;

    /// Reads an adjustment of a product. If a transaction is writing the adjustment, waits for the transaction:
    /// otherwise a reader could see the changed stock, but not yet the adjustment.
    async fn transact_get_adjustment(&self, of: ProductId, id: &AdjustmentId)
    -> Result<Option<Adjustment>, StoreError>;

    /// Reads, at one moment, an adjustment of a product, and the shards of the product.
    async fn adjustment_snapshot(
        &self,
        id: &AdjustmentId,
        of: (ProductId, ShardCount),
    ) -> Result<Snapshot<Adjustment>, StoreError>;

    /// Stores a new adjustment, and changes the available units of these shards.
    async fn adjust(&self, adjustment: &Adjustment, shares: &Allocation) -> Result<SaveOutcome, StoreError>;

    /// Reads the reservation of an order.
    async fn find_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError>;

    /// Reads the reservation of an order. If a transaction is writing the reservation, waits for the transaction:
    /// otherwise a reader could see the changed stock, but not yet the reservation.
    async fn transact_get_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError>;

    /// Reads the reservation of an order, and the shards of products. The shards of one product are all read at one
    /// moment, at which the order had this reservation.
    async fn reservation_snapshot(
        &self,
        order: OrderId,
        products: &[(ProductId, ShardCount)],
    ) -> Result<Snapshot<Reservation>, StoreError>;

    /// Stores a new reservation and reserves the units of these shards, if each shard has enough units and each price
    /// is still the quoted price. Tries only once. `allocated` has one entry for each line of the quote, in the same
    /// order.
    async fn reserve(
        &self,
        order: OrderId,
        quote: &Quote,
        allocated: &[AllocatedLine],
        now: Timestamp,
    ) -> Result<ReserveOutcome, StoreError>;

    /// Releases a held reservation, and makes its units available again, in the shards from which they came.
    async fn release(
        &self,
        order: OrderId,
        allocated: &[AllocatedLine],
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError>;

    /// Reads the accounts of the reservations of these orders, at most 100, in any order. Orders without a reservation
    /// are left out.
    async fn reservation_accounts(&self, orders: &[OrderId]) -> Result<Vec<ReservationAccount>, StoreError>;

    /// Reads a page of the stock accounts of all products. The parts of an account are read one after another: an
    /// adjustment or a move of units meanwhile may be in one part, and not in another.
    async fn stock_accounts(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<StockAccount>, ListError>;

    /// Stores a tombstone, which is a released reservation, for an order that has no reservation. The service refuses a
    /// reserve request if it finds the tombstone.
    async fn put_tombstone(&self, order: OrderId, now: Timestamp) -> Result<SaveOutcome, StoreError>;
}
