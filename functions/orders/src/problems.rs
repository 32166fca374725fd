//! The problem documents of the orders API, and the list of problems of each route.

use axum::http::{HeaderValue, StatusCode, header};
use chassis::{
    fields::FieldError,
    idempotency,
    openapi::{Problems, SAMPLE_ID},
    page::{InvalidCursor, ListError},
    problem::Problem,
    problems,
};
use serde_json::json;

use crate::{
    domain::{CancellationReason, InvalidQuantity, Message, OrderId, PricedLine},
    saga::StepError,
    schemas::sample_of_each_reason,
    service::OrderError,
};

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::NotFound => Problem::not_found("order"),
            OrderError::InFlight => Problem::new(
                StatusCode::CONFLICT,
                "idempotency_in_flight",
                "The same request is being worked on at this moment. Repeat it in a second.",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
            OrderError::Paused => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "orders_paused",
                "The shop takes no new orders at this moment. Nothing was placed. Repeat the request later.",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("60")),
            OrderError::KeyMismatch => idempotency::mismatch(),
            OrderError::CancellationClosed => {
                Problem::new(StatusCode::CONFLICT, "cancellation_closed", "It is too late to cancel this order.")
            }
            OrderError::Explanation(detail) => Problem::invalid_field("reason", detail),
            OrderError::MessageOutdated { current } => {
                let problem = Problem::new(
                    StatusCode::CONFLICT,
                    "message_outdated",
                    "Only the message about the order's present state can be sent again; an open order has none.",
                );
                match current {
                    Some(current) => problem.with("current", current.to_string()),
                    None => problem,
                }
            }
            OrderError::CustomerErased => Problem::new(
                StatusCode::CONFLICT,
                "customer_erased",
                "The customer's data was erased, or the customer never had a profile: nobody can get a message.",
            ),
            OrderError::ResendMismatch => {
                Problem::new(StatusCode::CONFLICT, "resend_mismatch", "Another resend of this order has this id.")
            }
            OrderError::Participant(StepError::Contended(_)) => Problem::contended(error),
            OrderError::Participant(_) => Problem::unavailable(error),
            OrderError::KeepsChanging => Problem::contended(error),
            OrderError::Illegal(_) | OrderError::Fingerprint(_) => Problem::internal(error),
            OrderError::List(error) => error.into(),
            OrderError::Store(error) => error.into(),
        }
    }
}

/// Returns the response to a request that placed an order which was refused.
pub(crate) fn refusal(reason: &CancellationReason, order: OrderId) -> Problem {
    let problem = match reason {
        CancellationReason::UserNotFound => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "user_not_found", "Create your profile first: POST /users.")
        }
        CancellationReason::UserInactive => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "user_inactive", "This user was deactivated.")
        }
        CancellationReason::UnknownProduct { products } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_product", "Some of these products do not exist.")
                .with("products", json!(products))
        }
        CancellationReason::MixedCurrencies => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "mixed_currencies",
            "The products of one order must be priced in one currency.",
        ),
        CancellationReason::OutOfStock { lines } => {
            Problem::new(StatusCode::CONFLICT, "out_of_stock", "There is not enough of some products.")
                .with("lines", json!(lines))
        }
        CancellationReason::PriceChanged { quote } => {
            let price =
                |line: &PricedLine| json!({ "product_id": line.product_id, "unit_price": line.unit_price.amount() });
            Problem::new(StatusCode::CONFLICT, "price_changed", "The prices are not the ones that you were shown.")
                .with("prices", quote.lines.iter().map(price).collect::<Vec<_>>())
                .with("total", json!(quote.total.amount()))
                .with("currency", json!(quote.total.currency()))
        }
        CancellationReason::PaymentDeclined { reason } => {
            Problem::new(StatusCode::PAYMENT_REQUIRED, "payment_declined", "The payment was declined.")
                .with("reason", reason.as_str())
        }
        CancellationReason::CaptureRefused => {
            Problem::new(StatusCode::PAYMENT_REQUIRED, "capture_refused", "The payment could not be captured.")
        }
        CancellationReason::TimedOut => Problem::new(
            StatusCode::CONFLICT,
            "order_timed_out",
            "The order could not be decided in time and was cancelled. Nothing was charged.",
        ),
        CancellationReason::CustomerRequest | CancellationReason::CancelledByShop { .. } => {
            Problem::new(StatusCode::CONFLICT, "order_cancelled", "The order was cancelled before it was decided.")
        }
    };
    problem.with("order_id", order.to_string())
}

/// The problems with which `POST /orders` responds.
pub(crate) struct Placing;

impl Problems for Placing {
    fn problems() -> Vec<Problem> {
        let invalid = Problem::invalid(vec![FieldError::new("items[0].quantity", InvalidQuantity)]);
        // The payment is captured after the response to `POST /orders`, so the response is never `capture_refused`.
        let reasons =
            sample_of_each_reason().into_iter().filter(|reason| *reason != CancellationReason::CaptureRefused);
        let refusals = reasons.map(|reason| refusal(&reason, OrderId::from_uuid(SAMPLE_ID)));
        [invalid].into_iter().chain(refusals).chain([OrderError::InFlight.into(), OrderError::Paused.into()]).collect()
    }
}

problems! {
    /// The problems with which `GET /orders/{id}` responds.
    Reading: [OrderError::NotFound];
    /// The problems with which `GET /orders` responds.
    Listing: [ListError::Cursor(InvalidCursor), Problem::not_found("user")];
    /// The problems with which `GET /open-orders` and `GET /orders/{id}/resends` respond.
    ListingForSupport: [ListError::Cursor(InvalidCursor)];
    /// The problems with which `POST /orders/{id}/resends` responds.
    Resending: [
        OrderError::NotFound, OrderError::MessageOutdated { current: Some(Message::OrderCancelled) },
        OrderError::CustomerErased, OrderError::ResendMismatch, Problem::contended("a sample"),
    ];
    /// The problems with which `POST /orders/{id}/cancel` responds.
    Cancelling: [OrderError::NotFound, OrderError::CancellationClosed, OrderError::KeepsChanging];
}
