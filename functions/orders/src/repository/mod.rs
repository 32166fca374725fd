//! The interface to the store of orders. [`dynamo`] implements it with DynamoDB.

#[cfg(feature = "lambda")]
pub mod dynamo;
#[cfg(feature = "lambda")]
mod record;

use async_trait::async_trait;
use chassis::{
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;

use crate::domain::{Lease, Order, OrderId, OrderState, Resend};

/// The way in which an unfinished order is left to the worker: the reason, and the time at which the worker continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postponed {
    /// The worker continues at once, because this write wakes the worker through the table's stream. A request leaves an
    /// order to the worker in this way, and so does an invocation of the worker whose time is over.
    AtOnce { now: Timestamp },
    /// The worker continues after a short pause, because a participant or the table reported contention.
    Contended { next_check: Timestamp },
    /// The worker continues after a pause, because something failed. The failure is counted: the pause grows with the
    /// number of failures.
    Failed { next_check: Timestamp },
}

/// The parameters of a list of orders.
#[derive(Clone, Debug)]
pub struct OrderList {
    pub user_id: UserId,
    /// The state of the listed orders. If absent, orders in all states are listed.
    pub status: Option<OrderState>,
    pub limit: Limit,
    /// The `next_cursor` of the previous page. Absent for the first page.
    pub cursor: Option<Cursor>,
}

/// The way in which the worker found an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// A write has woken the worker through the table's stream.
    Stream,
    /// The order's `next_check` has passed.
    Sweep,
}

/// An open order that the worker should work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueOrder {
    pub id: OrderId,
    /// The order's `next_check`, or the current time if the worker was woken for the order.
    pub since: Timestamp,
    pub found: FoundBy,
}

/// A page of due orders of one shard.
#[derive(Debug, Default)]
pub struct DuePage {
    /// Sorted by the time since which the orders are due.
    pub orders: Vec<DueOrder>,
    /// The number of index entries from which no order id can be read.
    pub unreadable: u64,
    /// `true` if the shard has more due orders than this page.
    pub has_more: bool,
}

#[async_trait]
pub trait Repository: Send + Sync {
    /// Inserts a new order and, in the same transaction, the idempotency key of its request.
    async fn insert(
        &self,
        order: &Order,
        key: Option<&KeyUse>,
        now: Timestamp,
    ) -> Result<InsertOutcome<Order>, StoreError>;

    /// Looks for an earlier request of `user` with this idempotency key. Returns what [`Repository::insert`] would
    /// return for a repeat of that request, and stores nothing.
    async fn find_earlier(
        &self,
        user: UserId,
        key: &KeyUse,
        now: Timestamp,
    ) -> Result<Option<InsertOutcome<Order>>, StoreError>;

    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// Reads a page of a customer's orders, newest first.
    async fn list(&self, list: &OrderList) -> Result<Page<Order>, ListError>;

    /// Reads a page of the open orders of all customers, the oldest first. The page may have fewer orders than `limit`
    /// although another page follows, because some orders may have been finished meanwhile.
    async fn list_open(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Order>, ListError>;

    /// Reads a page of the ids of a customer's orders, newest first.
    async fn order_ids(&self, user: UserId, cursor: Option<&Cursor>) -> Result<Page<OrderId>, ListError>;

    /// Replaces the stored order by `next` if the stored order is still in the state `from`, and if the customer's data
    /// was not erased since the order was read. If `next` is open, and is handed over or has no lease, the write wakes the
    /// worker.
    async fn transition(&self, from: OrderState, next: &Order) -> Result<SaveOutcome, StoreError>;

    /// Sets `is_refusal_answered`, which means that the response to the request that placed the order will report the
    /// refusal. `order` is `CANCELLING` and has the request's lease.
    ///
    /// # Errors
    ///
    /// If the write fails, or if the stored order no longer has the lease of `order`.
    async fn record_refusal_answered(&self, order: &Order) -> Result<(), StoreError>;

    /// Erases the customer's personal data in an order, for good: no later transition writes the data again. Returns
    /// the order after the write.
    async fn erase_customer(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// Stores `lease` in an open order if no unexpired lease of another request or worker is stored there. Returns
    /// `None` if the order could not be leased.
    ///
    /// If the stream delivered an order that was handed over to the woken worker, the order already has the worker's
    /// lease, and nothing is written. If a sweep found the order, `next_check` becomes the end of the lease; otherwise
    /// `next_check` stays as it is, because a change would cost two writes in the index of open orders.
    async fn acquire(&self, due: DueOrder, lease: Lease, now: Timestamp) -> Result<Option<Order>, StoreError>;

    /// Ends the lease of an order that could not be finished, and stores when the worker continues. Does nothing if the
    /// stored order no longer has the lease of `order`.
    async fn postpone(&self, order: &Order, until: Postponed) -> Result<(), StoreError>;

    /// Stores the record of a resend, unless the order has a record with its id. Returns the stored record: `resend`, or
    /// the earlier record.
    async fn record_resend(&self, order: OrderId, resend: &Resend) -> Result<Resend, StoreError>;

    /// Reads a page of the resends of an order, sorted by their ids.
    async fn resends(&self, order: OrderId, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Resend>, ListError>;

    /// Reads at most `limit` due orders of a shard.
    async fn due(&self, shard: u8, now: Timestamp, limit: u32) -> Result<DuePage, StoreError>;
}

/// Orders of one shard, by their ids, which sort by the time at which the orders were placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedPage {
    /// Sorted.
    pub ids: Vec<OrderId>,
    /// `true` if more orders follow.
    pub has_more: bool,
}

/// The orders of all customers, for reconciliation.
#[async_trait]
pub trait PlacedOrders: Send + Sync {
    /// Reads the first `limit` ids of a shard's orders from one id to another, both included. An order that was placed a
    /// moment ago may be missing.
    async fn placed(&self, shard: u8, from: OrderId, to: OrderId, limit: u32) -> Result<PlacedPage, StoreError>;

    /// Reads several orders, at most 100, in any order. Orders that do not exist are left out.
    async fn read_all(&self, ids: &[OrderId]) -> Result<Vec<Order>, StoreError>;

    /// Reads how far the scheduled reconciliation has come, as `save_reconciliation_progress` has stored it.
    async fn reconciliation_progress(&self) -> Result<Option<String>, StoreError>;

    async fn save_reconciliation_progress(&self, progress: &str) -> Result<(), StoreError>;
}

/// The number of partitions of the indexes of open orders and of all orders by age. In a single partition, the partition's
/// write limit would limit the number of orders per second.
pub const SHARDS: u8 = 8;
