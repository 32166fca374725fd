//! The JSON of orders in HTTP responses and in events. Amounts of money are decimal numbers in this JSON, and minor
//! units in the rest of the code.

use axum::http::StatusCode;
use chassis::{
    audit::{Reason, ResendId},
    id::UserId,
    money::{Amount, Currency},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{ToSchema, openapi::Ref};

use crate::{
    domain::{
        Answer, CancellationReason, HistoryEntry, Message, Order, OrderId, OrderLine, OrderState, PaymentId,
        PricedLine, ProductId, Quantity, RecordedAnswer, Resend,
    },
    problems::refusal,
    schemas::ReasonCode,
};

/// A line of an order. The name and the prices are present once the stock was reserved.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OrderLine)]
pub struct OrderLineDocument {
    product_id: ProductId,
    /// The product's name at the time of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    quantity: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unit_price: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    line_total: Option<Amount>,
}

impl From<&PricedLine> for OrderLineDocument {
    fn from(line: &PricedLine) -> Self {
        Self {
            product_id: line.product_id,
            name: Some(line.name.clone()),
            quantity: line.quantity,
            unit_price: Some(line.unit_price.amount()),
            line_total: Some(line.line_total.amount()),
        }
    }
}

impl From<&OrderLine> for OrderLineDocument {
    fn from(line: &OrderLine) -> Self {
        let OrderLine { product_id, quantity } = *line;
        Self { product_id, name: None, quantity, unit_price: None, line_total: None }
    }
}

/// A change of the order's status.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OrderEvent)]
struct HistoryDocument {
    status: OrderState,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReasonCode, nullable = false)]
    reason: Option<String>,
}

impl From<&HistoryEntry> for HistoryDocument {
    fn from(entry: &HistoryEntry) -> Self {
        let HistoryEntry { status, at, reason } = entry.clone();
        Self { status, at, reason }
    }
}

/// What only administrators see of an order.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OrderSupport)]
struct SupportDocument {
    /// The trace of the request that placed the order. The lines of all services about the order have this id.
    trace_id: String,
    /// The order's payment. If the payment was never begun, there is none with this id.
    payment_id: PaymentId,
    /// The time since which the order has been open: the time at which it was placed or, if it was `DONE`, the time of
    /// its cancellation. Absent if the order is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    open_since: Option<Timestamp>,
    /// The time from which the worker continues the order, if nothing wakes it before. Absent if the order is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_check: Option<Timestamp>,
    /// The number of times since the last change of the status that the worker failed to finish the order.
    failures: u32,
    /// The person who cancelled the order: the customer or an administrator. Absent if nobody has, so also if a service
    /// refused the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cancelled_by: Option<UserId>,
    /// Why an administrator cancelled the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    explanation: Option<Reason>,
    /// The response to the request that placed the order, if it was refused: which card was declined for which reason, or
    /// which products are short.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = problem)]
    refusal: Option<Box<RawValue>>,
    /// Whether the customer's personal data was erased, so that no message can be sent any more.
    customer_erased: bool,
}

fn problem() -> Ref {
    Ref::from_schema_name("Problem")
}

impl From<&Order> for SupportDocument {
    fn from(order: &Order) -> Self {
        let (cancelled_by, explanation) = match &order.cancellation_reason {
            Some(CancellationReason::CustomerRequest) => (Some(order.user_id), None),
            Some(CancellationReason::CancelledByShop { administrator, explanation }) => {
                (Some(*administrator), Some(explanation.clone()))
            }
            _ => (None, None),
        };
        Self {
            cancelled_by,
            explanation,
            refusal: match &order.answer {
                // The body is the problem that this service wrote itself.
                Some(RecordedAnswer::Refusal(answer)) => RawValue::from_string(answer.body.clone()).ok(),
                _ => None,
            },
            trace_id: order.trace.trace_id().to_string(),
            payment_id: order.id.payment(),
            open_since: order.state.is_open().then(|| order.open_since()),
            next_check: order.next_check,
            failures: order.failures,
            customer_erased: order.is_erased,
        }
    }
}

/// An order.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderDocument {
    id: OrderId,
    user_id: UserId,
    status: OrderState,
    items: Vec<OrderLineDocument>,
    /// The sum of the lines. Present once the stock was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total: Option<Amount>,
    /// The currency of all amounts of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    currency: Option<Currency>,
    /// The order's payment. Present once the order was confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payment_id: Option<PaymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReasonCode, nullable = false)]
    cancellation_reason: Option<&'static str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// All changes of the status, the oldest first.
    history: Vec<HistoryDocument>,
    /// Present if an administrator reads one order, or the open orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    support: Option<SupportDocument>,
}

impl From<&Order> for OrderDocument {
    fn from(order: &Order) -> Self {
        let items = match &order.quote {
            Some(quote) => quote.lines.iter().map(OrderLineDocument::from).collect(),
            None => order.lines.as_slice().iter().map(OrderLineDocument::from).collect(),
        };
        Self {
            id: order.id,
            user_id: order.user_id,
            status: order.state,
            items,
            total: order.quote.as_ref().map(|quote| quote.total.amount()),
            currency: order.quote.as_ref().map(|quote| quote.total.currency()),
            // Before the order is confirmed, it is unknown whether the payment was authorised.
            payment_id: order.confirmed_at().map(|_| order.id.payment()),
            cancellation_reason: order.cancellation_reason.as_ref().map(CancellationReason::code),
            created_at: order.created_at(),
            updated_at: order.updated_at(),
            history: order.history.iter().map(HistoryDocument::from).collect(),
            support: None,
        }
    }
}

impl OrderDocument {
    /// The order as administrators see it.
    pub(crate) fn for_support(order: &Order) -> Self {
        Self { support: Some(order.into()), ..Self::from(order) }
    }

    /// The order as it was when it was confirmed, or `None` if it was never confirmed. Nothing that has happened since
    /// changes this document.
    fn at_confirmation(order: &Order) -> Option<Self> {
        let history = order.history.up_to_confirmation()?;
        Some(Self {
            status: OrderState::Confirmed,
            cancellation_reason: None,
            updated_at: history.updated_at(),
            history: history.iter().map(HistoryDocument::from).collect(),
            ..Self::from(order)
        })
    }
}

/// A message that an administrator has sent again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resend)]
pub(crate) struct ResendDocument {
    resend_id: ResendId,
    order_id: OrderId,
    message: Message,
    /// The event whose message is sent again.
    resend_of: String,
    reason: Reason,
    /// The administrator who has requested it.
    requested_by: UserId,
    /// The time of the first request. A repeated request does not change this time.
    requested_at: Timestamp,
}

impl ResendDocument {
    pub(crate) fn of(order_id: OrderId, resend: Resend) -> Self {
        let resend_of = resend.original_event(order_id);
        let Resend { resend_id, message, reason, requested_by, requested_at } = resend;
        Self { resend_id, order_id, message, resend_of, reason, requested_by, requested_at }
    }
}

/// The version of the bytes that [`read_answer`] writes for a confirmed order. Whoever changes these bytes must add a
/// version, and must keep the code of the earlier version for as long as idempotency keys are stored: a repeat of an
/// earlier request still gets the earlier bytes.
const CONFIRMATION_VERSION: u32 = 1;

/// The stored answer was written by a later version of the code, which was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be written again: version {0} is not known here")]
pub struct UnknownAnswer(u32);

/// Returns what a decided order stores of the response to the request that placed it.
pub fn record_answer(order: &Order, request_id: &str) -> RecordedAnswer {
    match &order.cancellation_reason {
        None => RecordedAnswer::Confirmation { version: CONFIRMATION_VERSION },
        Some(reason) => {
            let problem = refusal(reason, order.id);
            RecordedAnswer::Refusal(Answer { status: problem.status().as_u16(), body: problem.render(request_id) })
        }
    }
}

/// Writes the response to the request that placed the order: always the same bytes, whatever has happened to the order
/// since its decision. Returns `None` if the order is not decided yet.
///
/// # Errors
///
/// If the answer has a version that is not known here.
pub fn read_answer(order: &Order) -> Result<Option<Answer>, UnknownAnswer> {
    match &order.answer {
        None => Ok(None),
        Some(RecordedAnswer::Refusal(answer)) => Ok(Some(answer.clone())),
        Some(RecordedAnswer::Confirmation { version: CONFIRMATION_VERSION }) => {
            Ok(OrderDocument::at_confirmation(order).map(|document| {
                let body = serde_json::to_string(&document);
                Answer {
                    status: StatusCode::CREATED.as_u16(),
                    body: body.expect("a document of strings and numbers can be written"),
                }
            }))
        }
        Some(RecordedAnswer::Confirmation { version }) => Err(UnknownAnswer(*version)),
    }
}
