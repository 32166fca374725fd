//! The data of the events that orders publishes.

use chassis::{
    id::UserId,
    money::{Amount, Currency},
};
use serde::Serialize;

use crate::{
    domain::{OrderId, Recipient},
    responses::OrderLineDocument,
};

#[derive(Serialize)]
pub(crate) struct OrderCreated<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    /// Absent once the customer's data is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<&'a Recipient>,
    pub(crate) lines: Vec<OrderLineDocument>,
    pub(crate) total: Amount,
    pub(crate) currency: Currency,
    /// The payment is captured. That is false if the order is cancelled after its confirmation and is announced only
    /// because `OrderCancelled` follows.
    pub(crate) paid: bool,
}

#[derive(Serialize)]
pub(crate) struct OrderCancelled<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    /// Absent once the customer's data is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<&'a Recipient>,
    pub(crate) reason: &'static str,
    /// `OrderCreated` was published before.
    pub(crate) confirmed: bool,
    /// The request that placed the order has answered with the refusal.
    pub(crate) customer_told: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) currency: Option<Currency>,
}
