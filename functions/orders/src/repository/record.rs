//! The items of the orders table. A write costs one unit for each KB of the item, so an item stores nothing twice: what
//! can be computed from another attribute is computed when the item is read.

use std::collections::BTreeMap;

use chassis::{
    contact::VerifiedContact,
    dynamo::{self, Item, Key},
    id::UserId,
    idempotency::KeyUse,
    money::{Currency, Money, MoneyError},
    store::StoreError,
    trace::TraceContext,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DueOrder, FoundBy, SHARDS};
use crate::domain::{
    CancellationReason, History, Lease, Order, OrderId, OrderLine, OrderLines, OrderState, PaymentMethod, PricedLine,
    ProductId, Quantity, Quote, Recipient, RecordedAnswer, Resend, ShownPrices, UnknownMembers,
};

const ORDER_PREFIX: &str = "ORDER#";

/// The value of the attribute `wake`. In `template.yaml`, the filter of the table's stream selects writes with this
/// value.
pub(super) const WAKE: &str = "now";

pub(super) fn order_key(id: OrderId) -> Key {
    Key::new(format!("{ORDER_PREFIX}{id}"), "ORDER")
}

/// Returns the order's id, which the item stores only in its key.
pub(super) fn order_id(key: &Key) -> Result<OrderId, StoreError> {
    let id = key.pk.strip_prefix(ORDER_PREFIX).and_then(|id| id.parse().ok());
    id.ok_or_else(|| StoreError::corrupt("orders", "a key has no order id"))
}

/// A stored order, with the attributes of the indexes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    key: Key,
    user_id: UserId,
    /// The state of the last history entry. The conditions of the writes compare it.
    state: OrderState,
    /// Absent while the order is open. The index `by_user` contains this attribute, so that a list of orders in one
    /// state reads few other orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    final_state: Option<OrderState>,
    saga_version: u32,
    /// Absent if the quote has the same lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lines: Option<BTreeMap<ProductId, Quantity>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment_method: Option<PaymentMethod>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown_prices: Option<ShownPrices>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact: Option<VerifiedContact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_erased: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quote: Option<StoredQuote>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancellation_reason: Option<CancellationReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<RecordedAnswer>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_refusal_answered: bool,
    history: History,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "jiff::fmt::serde::timestamp::millisecond::optional"
    )]
    next_check: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    trace: TraceContext,
    /// Absent if the order is in a final state, so that the index `open_orders` contains only open orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check_shard: Option<String>,
    /// The partition of the index `by_age`, in which each order is from the beginning to the end: its keys never change, so
    /// only the first write of an order writes the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    age_shard: Option<String>,
    /// Present if the write of this record must wake the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake: Option<String>,
    #[serde(flatten)]
    unknown_members: UnknownMembers,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Record {
    pub(super) fn of(order: &Order) -> Self {
        let order = order.clone();
        let open = order.next_check.is_some();
        let shard = order.id.uuid().as_bytes()[15] % SHARDS;
        let has_quoted_lines = order.quote.as_ref().and_then(Quote::order_lines).as_ref() == Some(&order.lines);
        let lines = order.lines.as_slice().iter().map(|line| (line.product_id, line.quantity)).collect();
        Self {
            key: order_key(order.id),
            user_id: order.user_id,
            state: order.state,
            final_state: (!order.state.is_open()).then_some(order.state),
            saga_version: order.saga_version,
            lines: (!has_quoted_lines).then_some(lines),
            payment_method: order.payment_method,
            shown_prices: order.shown_prices,
            contact: order.contact,
            recipient: order.recipient,
            is_erased: order.is_erased,
            quote: order.quote.as_ref().map(StoredQuote::of),
            cancellation_reason: order.cancellation_reason,
            answer: order.answer,
            is_refusal_answered: order.is_refusal_answered,
            history: order.history,
            wake: (open && (order.lease.is_none() || order.is_handed_over)).then(|| WAKE.to_owned()),
            lease: order.lease,
            next_check: order.next_check,
            failures: order.failures,
            trace: order.trace,
            check_shard: open.then(|| shard.to_string()),
            age_shard: Some(shard.to_string()),
            unknown_members: order.unknown_members,
        }
    }

    pub(super) fn read(item: Item) -> Result<Order, StoreError> {
        dynamo::from_item::<Self>(item)?.order()
    }

    pub(super) fn order(self) -> Result<Order, StoreError> {
        let corrupt = |reason: &'static str| StoreError::corrupt("orders", reason);
        let quote = self.quote.map(StoredQuote::quote).transpose();
        let quote = quote.map_err(|error| StoreError::corrupt("orders", error))?;
        let lines = match self.lines {
            Some(lines) => {
                let line = |(product_id, quantity)| Some(OrderLine { product_id, quantity });
                OrderLines::merge(lines.into_iter().map(line)).ok()
            }
            None => quote.as_ref().and_then(Quote::order_lines),
        };
        Ok(Order {
            id: order_id(&self.key)?,
            user_id: self.user_id,
            lines: lines.ok_or_else(|| corrupt("an order without lines"))?,
            state: self.state,
            saga_version: self.saga_version,
            payment_method: self.payment_method,
            shown_prices: self.shown_prices,
            contact: self.contact,
            recipient: self.recipient,
            is_erased: self.is_erased,
            quote,
            cancellation_reason: self.cancellation_reason,
            answer: self.answer,
            is_refusal_answered: self.is_refusal_answered,
            history: self.history,
            is_handed_over: self.wake.is_some() && self.lease.is_some(),
            lease: self.lease,
            next_check: self.next_check,
            failures: self.failures,
            trace: self.trace,
            unknown_members: self.unknown_members,
        })
    }
}

/// A quote with its currency stored once.
#[derive(Debug, Serialize, Deserialize)]
struct StoredQuote {
    currency: Currency,
    /// In minor units, as all prices of the quote.
    total: u64,
    lines: Vec<StoredLine>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLine {
    product_id: ProductId,
    name: String,
    quantity: Quantity,
    unit_price: u64,
    line_total: u64,
}

impl StoredQuote {
    fn of(quote: &Quote) -> Self {
        let line = |line: &PricedLine| StoredLine {
            product_id: line.product_id,
            name: line.name.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price.minor(),
            line_total: line.line_total.minor(),
        };
        Self {
            currency: quote.total.currency(),
            total: quote.total.minor(),
            lines: quote.lines.iter().map(line).collect(),
        }
    }

    fn quote(self) -> Result<Quote, MoneyError> {
        let money = |minor| Money::from_minor(minor, self.currency);
        let line = |line: StoredLine| {
            Ok(PricedLine {
                product_id: line.product_id,
                name: line.name,
                quantity: line.quantity,
                unit_price: money(line.unit_price)?,
                line_total: money(line.line_total)?,
            })
        };
        Ok(Quote { lines: self.lines.into_iter().map(line).collect::<Result<_, _>>()?, total: money(self.total)? })
    }
}

/// An entry in the index of a customer's orders.
#[derive(Debug, Deserialize)]
pub(super) struct ListedRecord {
    #[serde(flatten)]
    pub(super) key: Key,
}

/// An entry in the index of open orders.
#[derive(Debug, Deserialize)]
pub(super) struct DueRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    next_check: Timestamp,
}

impl DueRecord {
    pub(super) fn read(item: Item) -> Result<DueOrder, StoreError> {
        let Self { key, next_check: since } = dynamo::from_item(item)?;
        Ok(DueOrder { id: order_id(&key)?, since, found: FoundBy::Sweep })
    }
}

/// How far the scheduled reconciliation has come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProgressRecord {
    #[serde(flatten)]
    key: Key,
    pub(super) progress: String,
}

impl ProgressRecord {
    pub(super) fn key() -> Key {
        Key::new("RECONCILIATION", "PROGRESS")
    }

    pub(super) fn of(progress: &str) -> Self {
        Self { key: Self::key(), progress: progress.to_owned() }
    }
}

pub(super) const RESEND_PREFIX: &str = "RESEND#";

/// The record of a resend, beside the order. It is never changed or deleted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResendRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    pub(super) resend: Resend,
}

impl ResendRecord {
    pub(super) fn of(order: OrderId, resend: &Resend) -> Self {
        let key = Key::new(order_key(order).pk, format!("{RESEND_PREFIX}{}", resend.resend_id));
        Self { key, resend: resend.clone() }
    }
}

/// An idempotency key that was used. The item's `pk` contains the caller and the route, so different callers can use
/// the same idempotency key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    #[serde(flatten)]
    key: Key,
    pub(super) fingerprint: String,
    pub(super) order_id: OrderId,
    /// The time of expiry in epoch seconds, as DynamoDB's TTL requires.
    pub(super) expires_at: i64,
}

impl KeyRecord {
    pub(super) fn of(order: &Order, used: &KeyUse) -> Self {
        Self {
            key: Self::key_of(order.user_id, used),
            fingerprint: used.fingerprint.clone(),
            order_id: order.id,
            expires_at: used.expires_at.as_second(),
        }
    }

    pub(super) fn key_of(user: UserId, used: &KeyUse) -> Key {
        Key::new(format!("KEY#{user}#POST/orders#{}", used.key.as_str()), "KEY")
    }
}
