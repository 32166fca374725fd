//! Orders and answers as JSON.

use axum::http::StatusCode;
use chassis::{
    id::UserId,
    money::{Amount, Currency},
    problem::Problem,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    domain::{
        Answer, HistoryEntry, Item, Order, OrderId, OrderState, PaymentId, PricedLine, ProductId, Quantity, Refusal,
    },
    openapi::Reason,
    saga::engine::Decision,
};

/// A line of an order. Its name and prices are there once they are known.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OrderLine)]
pub struct OrderLineDocument {
    product_id: ProductId,
    /// What the product was called when it was ordered.
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

impl From<&Item> for OrderLineDocument {
    fn from(item: &Item) -> Self {
        let Item { product_id, quantity } = *item;
        Self { product_id, name: None, quantity, unit_price: None, line_total: None }
    }
}

/// A state that the order came to.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OrderEvent)]
struct HistoryDocument {
    status: OrderState,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Reason, nullable = false)]
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
    #[schema(value_type = UserId)]
    user_id: UserId,
    status: OrderState,
    items: Vec<OrderLineDocument>,
    /// There once the prices are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total: Option<Amount>,
    /// Of all amounts of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    currency: Option<Currency>,
    /// There once the payment was authorised.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payment_id: Option<PaymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Reason, nullable = false)]
    cancellation_reason: Option<&'static str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Every state that it came to, the first one first.
    history: Vec<HistoryDocument>,
}

impl From<&Order> for OrderDocument {
    fn from(order: &Order) -> Self {
        let items = match &order.quote {
            Some(quote) => quote.lines.iter().map(OrderLineDocument::from).collect(),
            None => order.basket.items().iter().map(OrderLineDocument::from).collect(),
        };
        Self {
            id: order.id,
            user_id: order.user_id,
            status: order.state,
            items,
            total: order.quote.as_ref().map(|quote| quote.total.amount()),
            currency: order.quote.as_ref().map(|quote| quote.total.currency()),
            // There is a payment only where an authorisation succeeded.
            payment_id: order.confirmed_at.map(|_| order.id.payment()),
            cancellation_reason: order.refusal.as_ref().map(Refusal::code),
            created_at: order.created_at,
            updated_at: order.updated_at,
            history: order.history.iter().map(HistoryDocument::from).collect(),
        }
    }
}

/// Writes the answer to the request that placed the order.
pub fn write_answer(order: &Order, decision: Decision<'_>, request_id: &str) -> Answer {
    match decision {
        Decision::Confirmed => {
            let body = serde_json::to_string(&OrderDocument::from(order));
            Answer {
                status: StatusCode::CREATED.as_u16(),
                body: body.expect("a document of strings and numbers can be written"),
            }
        }
        Decision::Refused(refusal) => {
            let problem = refused(refusal, order.id);
            Answer { status: problem.status().as_u16(), body: problem.render(request_id) }
        }
    }
}

/// What is answered where `order` is refused.
pub(crate) fn refused(refusal: &Refusal, order: OrderId) -> Problem {
    let problem = match refusal {
        Refusal::UserNotFound => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "user_not_found", "Create your profile first: POST /users.")
        }
        Refusal::UserInactive => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "user_inactive", "This user was deactivated.")
        }
        Refusal::UnknownProduct { products } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_product", "Some of these products do not exist.")
                .with("products", json!(products))
        }
        Refusal::MixedCurrencies => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "mixed_currencies",
            "The products of one order must be priced in one currency.",
        ),
        Refusal::OutOfStock { lines } => {
            Problem::new(StatusCode::CONFLICT, "out_of_stock", "There is not enough of some products.")
                .with("lines", json!(lines))
        }
        Refusal::PriceChanged { quote } => {
            let price =
                |line: &PricedLine| json!({ "product_id": line.product_id, "unit_price": line.unit_price.amount() });
            let prices: Vec<_> = quote.lines.iter().map(price).collect();
            Problem::new(StatusCode::CONFLICT, "price_changed", "The prices are not the ones that you were shown.")
                .with("prices", json!(prices))
                .with("total", json!(quote.total.amount()))
                .with("currency", json!(quote.total.currency()))
        }
        Refusal::PaymentDeclined { reason } => {
            Problem::new(StatusCode::PAYMENT_REQUIRED, "payment_declined", "The payment was declined.")
                .with("reason", reason.as_str())
        }
        Refusal::CaptureRefused => {
            Problem::new(StatusCode::PAYMENT_REQUIRED, "capture_refused", "The payment could not be taken.")
        }
        Refusal::TimedOut => Problem::new(
            StatusCode::CONFLICT,
            "order_timed_out",
            "The order could not be decided in time and was cancelled. Nothing was charged.",
        ),
        Refusal::CustomerRequest | Refusal::CancelledByShop => {
            Problem::new(StatusCode::CONFLICT, "order_cancelled", "The order was cancelled before it was decided.")
        }
    };
    problem.with("order_id", order.to_string())
}
