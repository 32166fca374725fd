//! The data of the events that the orders service publishes.

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
    /// The recipient is absent once the customer's data is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<&'a Recipient>,
    pub(crate) lines: Vec<OrderLineDocument>,
    pub(crate) total: Amount,
    pub(crate) currency: Currency,
    /// `true` if the payment is captured. `false` if a confirmed order is being cancelled: then this event is published
    /// only because `OrderCreated` must precede `OrderCancelled`.
    pub(crate) paid: bool,
}

#[derive(Serialize)]
pub(crate) struct OrderCancelled<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    /// The recipient is absent once the customer's data is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<&'a Recipient>,
    pub(crate) reason: &'static str,
    /// `true` if the order was confirmed, and so `OrderCreated` was published before this event.
    pub(crate) confirmed: bool,
    /// `true` if the response to the request that placed the order reports the refusal, so that the customer needs no
    /// message.
    pub(crate) customer_told: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) currency: Option<Currency>,
}
