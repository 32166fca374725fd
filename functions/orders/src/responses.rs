//! The JSON of orders in HTTP responses and in events. Amounts of money are decimal numbers in this JSON, and minor
//! units in the rest of the code.

use axum::http::StatusCode;
use chassis::{
    id::UserId,
    money::{Amount, Currency},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        Answer, CancellationReason, HistoryEntry, Order, OrderId, OrderLine, OrderState, PaymentId, PricedLine,
        ProductId, Quantity,
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
            payment_id: order.confirmed_at.map(|_| order.id.payment()),
            cancellation_reason: order.cancellation_reason.as_ref().map(CancellationReason::code),
            created_at: order.created_at,
            updated_at: order.updated_at,
            history: order.history.iter().map(HistoryDocument::from).collect(),
        }
    }
}

/// Builds the response to the request that placed a decided order: the order, or the problem that reports the refusal.
pub fn write_answer(order: &Order, request_id: &str) -> Answer {
    match &order.cancellation_reason {
        None => {
            let body = serde_json::to_string(&OrderDocument::from(order));
            Answer {
                status: StatusCode::CREATED.as_u16(),
                body: body.expect("a document of strings and numbers can be written"),
            }
        }
        Some(reason) => {
            let problem = refusal(reason, order.id);
            Answer { status: problem.status().as_u16(), body: problem.render(request_id) }
        }
    }
}
