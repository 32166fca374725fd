//! Where orders are kept.

#[cfg(feature = "lambda")]
mod dynamo;

use async_trait::async_trait;
use chassis::{
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;

#[cfg(feature = "lambda")]
pub use self::dynamo::DynamoRepository;
use crate::domain::{Lease, Order, OrderId, OrderState};

/// When an order that could not be taken further is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postponed {
    /// At once, through the stream: nothing has failed, but there was no time.
    AtOnce {
        /// The time.
        now: Timestamp,
    },
    /// A little later: somebody was busy.
    Busy {
        /// When to look at it again.
        next_check: Timestamp,
    },
    /// After a failure, which is counted: the pauses grow with their number.
    Failed {
        /// When to look at it again.
        next_check: Timestamp,
    },
}

/// What a list of orders shows.
#[derive(Clone, Debug)]
pub struct OrderList {
    /// Whose orders.
    pub user_id: UserId,
    /// In which state; all if not given.
    pub status: Option<OrderState>,
    /// How many a page.
    pub limit: Limit,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// An open order whose time to be looked at has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub id: OrderId,
    /// Since when.
    pub since: Timestamp,
}

/// What a look at one of [`SHARDS`] finds.
#[derive(Debug, Default)]
pub struct Look {
    /// Open orders whose time has come, the longest waiting first.
    pub due: Vec<Due>,
    /// How many more there are that no order's key can be read from.
    pub unreadable: u64,
    /// There are more than were looked for.
    pub has_more: bool,
}

/// Keeps orders.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Records a new order, together with the use of its key.
    async fn begin(
        &self,
        order: &Order,
        key: Option<&KeyUse>,
        now: Timestamp,
    ) -> Result<InsertOutcome<Order>, StoreError>;

    /// Reads an order.
    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// One page of a customer's orders, newest first.
    async fn list(&self, list: &OrderList) -> Result<Page<Order>, ListError>;

    /// Writes `next` where the order is still in the state `from`, and the
    /// customer's data was not erased since it was read. An order that is open
    /// and leased to nobody wakes the worker.
    async fn transition(&self, from: OrderState, next: &Order) -> Result<SaveOutcome, StoreError>;

    /// Records that the customer was told of the refusal of this order, which
    /// is being cancelled and leased.
    async fn record_told(&self, order: &Order) -> Result<(), StoreError>;

    /// Erases the customer's personal data in an order, for good: no later
    /// transition writes it again. Returns the order as it is now.
    async fn erase_customer(&self, id: OrderId) -> Result<Option<Order>, StoreError>;

    /// Leases an open order that nobody has; `None` if somebody does, or it
    /// is at an end.
    async fn acquire(&self, id: OrderId, lease: Lease, now: Timestamp) -> Result<Option<Order>, StoreError>;

    /// Gives up the lease of an order that could not be taken further, if it is
    /// still the one that `order` has.
    async fn postpone(&self, order: &Order, until: Postponed) -> Result<(), StoreError>;

    /// At most `limit` open orders of a shard whose time to be looked at has
    /// come.
    async fn due(&self, shard: u8, now: Timestamp, limit: u32) -> Result<Look, StoreError>;
}

/// Over how many partitions of the index the open orders are spread, so that
/// no single one of them bounds how many orders a second can be taken.
pub const SHARDS: u8 = 8;
