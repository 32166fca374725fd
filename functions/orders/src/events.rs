//! The data of the events that the orders service publishes.

use chassis::{
    events::{EventType, RESEND_REQUESTED},
    id::UserId,
    money::{Amount, Currency},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{Message, OrderId, Recipient},
    responses::OrderLineDocument,
    schemas::PublishedReason,
};

/// The attribute `source` of all events of the orders service.
pub(crate) const SOURCE: &str = "/orders";

/// The types of events that the orders service publishes.
pub fn published() -> [EventType; 3] {
    [
        EventType::of::<OrderCreated<'_>>(SOURCE, "OrderCreated", "An order was confirmed."),
        EventType::of::<OrderCancelled<'_>>(SOURCE, "OrderCancelled", "An order was cancelled or refused."),
        EventType::of::<ResendRequested<'_>>(
            SOURCE,
            RESEND_REQUESTED,
            "An administrator has the message of an earlier event sent again; `resendof` is the id of that event.",
        ),
    ]
}

/// The order that was confirmed.
#[derive(Serialize, ToSchema)]
pub(crate) struct OrderCreated<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    /// The recipient is absent once the customer's data is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) recipient: Option<&'a Recipient>,
    pub(crate) lines: Vec<OrderLineDocument>,
    pub(crate) total: Amount,
    pub(crate) currency: Currency,
    /// `true` if the payment is captured. `false` if a confirmed order is being cancelled: then this event is published
    /// only because `OrderCreated` must precede `OrderCancelled`.
    pub(crate) paid: bool,
}

/// The order that was cancelled or refused.
#[derive(Serialize, ToSchema)]
pub(crate) struct OrderCancelled<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) user_id: UserId,
    /// The recipient is absent once the customer's data is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) recipient: Option<&'a Recipient>,
    #[schema(value_type = PublishedReason)]
    pub(crate) reason: &'static str,
    /// `true` if the order was confirmed, and so `OrderCreated` was published before this event.
    pub(crate) confirmed: bool,
    /// `true` if the response to the request that placed the order reports the refusal, so that the customer needs no
    /// message.
    pub(crate) customer_told: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) total: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) currency: Option<Currency>,
}

/// The message that is to be sent again.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResendRequested<'a> {
    /// The type of the event whose message is sent again.
    pub(crate) original_type: Message,
    /// What that event says, from what is known now.
    pub(crate) original_data: OriginalData<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OriginalData<'a> {
    Created(OrderCreated<'a>),
    Cancelled(OrderCancelled<'a>),
}
