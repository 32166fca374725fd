//! How far a reconciliation has come. A walk is carried from one invocation to the next, so that no invocation needs
//! more time than it has.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::comparison::{CLOCKS_DIFFER_BY, Held, ReadTime};
use crate::{
    domain::{OrderId, PaymentId, ProductId},
    repository::SHARDS,
};

/// A walk through the stock of all products, through the orders that were placed in a period, and through the charges of
/// these orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// The orders that were placed from this time on.
    from: Timestamp,
    /// The orders that were placed before this time.
    to: Timestamp,
    place: Place,
    /// Only a walk through all orders can add up what their reservations hold.
    sums: Option<Sums>,
}

/// What the walk looks at next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    Stock { cursor: Option<String> },
    Orders { shard: u8, next: OrderId },
    Charges { next: PaymentId },
    End,
}

/// The sums of what reservations hold, by product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub read: ReadTime,
    pub held: BTreeMap<ProductId, Held>,
    /// The units that could not be explained when the walk was at its end for the first time. The walk then adds up once
    /// more, because the index of orders may be a moment behind the table.
    pub unexplained: Option<BTreeMap<ProductId, i64>>,
}

impl Sums {
    pub fn begin(now: Timestamp, unexplained: Option<BTreeMap<ProductId, i64>>) -> Self {
        Self { read: ReadTime { from: now, to: now }, held: BTreeMap::new(), unexplained }
    }
}

impl Walk {
    /// A walk through the stock and all orders.
    pub fn of_everything(now: Timestamp) -> Self {
        Self { sums: Some(Sums::begin(now, None)), ..Self::since(Timestamp::UNIX_EPOCH, now) }
    }

    /// A walk through the stock and the orders that were placed from `from` on.
    pub fn since(from: Timestamp, now: Timestamp) -> Self {
        Self { from, to: now, place: Place::Stock { cursor: None }, sums: None }
    }

    /// A walk through the stock, and through the orders of a period that is over.
    pub fn of_stock_and_orders(from: Timestamp, to: Timestamp) -> Self {
        Self { place: Place::Stock { cursor: None }, ..Self::of_orders(from, to) }
    }

    /// A walk through the orders of a period, without the stock.
    pub fn of_orders(from: Timestamp, to: Timestamp) -> Self {
        Self { from, to, place: Place::Orders { shard: 0, next: OrderId::first_at(from) }, sums: None }
    }

    pub fn to(&self) -> Timestamp {
        self.to
    }

    pub fn has_ended(&self) -> bool {
        self.place == Place::End
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn sums(&mut self) -> Option<&mut Sums> {
        self.sums.as_mut()
    }

    /// Returns whether this is the second time that the walk adds up. What else it finds, it has reported before.
    pub(super) fn only_adds_up(&self) -> bool {
        self.sums.as_ref().is_some_and(|sums| sums.unexplained.is_some())
    }

    /// The last id of an order that belongs to the walk.
    pub(super) fn last_order(&self) -> OrderId {
        OrderId::first_at(self.to).before()
    }

    pub(super) fn after_stock(&mut self, next_cursor: Option<String>, now: Timestamp) {
        self.place = match next_cursor {
            Some(cursor) => Place::Stock { cursor: Some(cursor) },
            None => Place::Orders { shard: 0, next: OrderId::first_at(self.from) },
        };
        if self.sums.is_some() {
            // Stock that is read now may be reserved for an order that was placed after the walk began.
            self.to = self.to.max(now + CLOCKS_DIFFER_BY);
        }
    }

    /// `last` is the last order of the page, if more orders of the shard follow.
    pub(super) fn after_orders(&mut self, shard: u8, last: Option<OrderId>) {
        self.place = match last {
            Some(last) => Place::Orders { shard, next: last.after() },
            None if shard + 1 < SHARDS => Place::Orders { shard: shard + 1, next: OrderId::first_at(self.from) },
            None if self.only_adds_up() => Place::End,
            None => Place::Charges { next: OrderId::first_at(self.from).payment() },
        };
    }

    /// `last` is the last charge of the page, if more charges follow.
    pub(super) fn after_charges(&mut self, last: Option<OrderId>) {
        self.place = match last {
            Some(last) => Place::Charges { next: last.after().payment() },
            None => Place::End,
        };
    }

    /// Begins to add up once more.
    pub(super) fn add_up_again(&mut self, unexplained: BTreeMap<ProductId, i64>, now: Timestamp) {
        self.place = Place::Stock { cursor: None };
        self.sums = Some(Sums::begin(now, Some(unexplained)));
    }

    /// Forgets the sums, which are needed no more.
    pub(super) fn end_sums(&mut self) -> Option<Sums> {
        self.sums.take()
    }
}
