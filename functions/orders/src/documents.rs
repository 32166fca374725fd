//! Orders and answers as JSON.

use axum::http::StatusCode;
use chassis::{
    money::{Amount, Currency, Money},
    problem::Problem,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::{
    domain::{
        Answer, CustomerId, HistoryEntry, Order, OrderId, OrderState, PaymentId, PricedLine, ProductId, Quantity,
        Refusal,
    },
    saga::engine::Decision,
};

/// Money on the wire.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MoneyDocument {
    amount: Amount,
    currency: Currency,
}

impl From<Money> for MoneyDocument {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency: money.currency() }
    }
}

/// A priced line.
#[derive(Clone, Debug, Serialize)]
pub struct LineDocument {
    product_id: ProductId,
    name: String,
    quantity: Quantity,
    unit_price: Amount,
    line_total: Amount,
}

impl From<&PricedLine> for LineDocument {
    fn from(line: &PricedLine) -> Self {
        Self {
            product_id: line.product_id,
            name: line.name.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price.amount(),
            line_total: line.line_total.amount(),
        }
    }
}

/// A line of an order: priced once the price is known.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum ItemDocument {
    Priced(LineDocument),
    Unpriced { product_id: ProductId, quantity: Quantity },
}

/// An order.
#[derive(Clone, Debug, Serialize)]
pub struct OrderDocument {
    id: OrderId,
    user_id: CustomerId,
    status: OrderState,
    items: Vec<ItemDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<PaymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation_reason: Option<&'static str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    history: Vec<HistoryEntry>,
}

impl From<&Order> for OrderDocument {
    fn from(order: &Order) -> Self {
        let items = match &order.quote {
            Some(quote) => quote.lines.iter().map(|line| ItemDocument::Priced(line.into())).collect(),
            None => {
                let item = |item: &crate::domain::Item| ItemDocument::Unpriced {
                    product_id: item.product_id,
                    quantity: item.quantity,
                };
                order.basket.items().iter().map(item).collect()
            }
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
            history: order.history.clone(),
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
            let problem = problem(refusal).with("order_id", order.id.to_string());
            Answer { status: problem.status().as_u16(), body: problem.render(request_id) }
        }
    }
}

fn problem(refusal: &Refusal) -> Problem {
    match refusal {
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
        Refusal::CustomerRequest => {
            Problem::new(StatusCode::CONFLICT, "order_cancelled", "The order was cancelled before it was decided.")
        }
    }
}
