//! The interface to the store of orders. [`dynamo`] implements it with DynamoDB.

#[cfg(feature = "lambda")]
pub mod dynamo;

use async_trait::async_trait;
use chassis::{
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;

use crate::domain::{Lease, Order, OrderId, OrderState};

/// The time at which the worker continues with an order that it could not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postponed {
    /// At once, through the table's stream: nothing has failed, but the invocation had no time left.
    AtOnce { now: Timestamp },
    /// After a short pause, because a participant or the table reported contention.
    Contended { next_check: Timestamp },
    /// After a failure. The failure is counted, because the pauses grow with the number of failures.
    Failed { next_check: Timestamp },
}

/// The parameters of a list of orders.
#[derive(Clone, Debug)]
pub struct OrderList {
    pub user_id: UserId,
    /// If absent, orders in all states are listed.
    pub status: Option<OrderState>,
    pub limit: Limit,
    /// The end of the previous page.
    pub cursor: Option<Cursor>,
}

/// An open order whose `next_check` has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueOrder {
    pub id: OrderId,
    /// The order's `next_check`.
    pub since: Timestamp,
}

/// A page of due orders of one shard.
#[derive(Debug, Default)]
pub struct DuePage {
    /// Sorted by the time since which the orders are due.
    pub orders: Vec<DueOrder>,
    /// The number of entries in the index from which no order's id can be read.
    pub unreadable: u64,
    /// The shard has more due orders than the page.
    pub has_more: bool,
}

#[async_trait]
pub trait Repository: Send + Sync {
    /// Inserts a new order together with the use of its key.
    async fn insert(
        &self,
        order: &Order,
        key: Option<&KeyUse>,
        now: Timestamp,
    ) -> Result<InsertOutcome<Order>, StoreError>;

    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// Reads a page of a customer's orders, newest first.
    async fn list(&self, list: &OrderList) -> Result<Page<Order>, ListError>;

    /// Writes `next` if the stored order is still in the state `from`, and if the customer's data was not erased since the
    /// order was read. If `next` is open and has no lease, the write wakes the worker.
    async fn transition(&self, from: OrderState, next: &Order) -> Result<SaveOutcome, StoreError>;

    /// Records that the request which placed the order answers with the refusal. The order is `CANCELLING` and leased.
    ///
    /// # Errors
    ///
    /// Also if another request or worker has the lease.
    async fn record_refusal_answered(&self, order: &Order) -> Result<(), StoreError>;

    /// Erases the customer's personal data in an order, for good: no later transition writes the data again. Returns the
    /// order after the write.
    async fn erase_customer(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// Leases an open order that has no lease. Returns `None` if the order has a lease or is in a final state.
    async fn acquire(&self, id: OrderId, lease: Lease, now: Timestamp) -> Result<Option<Order>, StoreError>;

    /// Ends the lease of an order that could not be finished, if the stored order still has the lease of `order`.
    async fn postpone(&self, order: &Order, until: Postponed) -> Result<(), StoreError>;

    /// Reads at most `limit` due orders of a shard.
    async fn due(&self, shard: u8, now: Timestamp, limit: u32) -> Result<DuePage, StoreError>;
}

/// The number of partitions of the index of open orders. With a single partition, the partition's write limit would limit
/// the number of orders per second.
pub const SHARDS: u8 = 8;
