//! The conversion of the service's errors into problem documents (RFC 9457).

use axum::http::StatusCode;
use chassis::{idempotency, money::MoneyError, problem::Problem};
use serde_json::json;

use crate::{
    domain::{ReservationRefusal, Shortage},
    service::ProductError,
};

impl From<ProductError> for Problem {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::NotFound => Problem::not_found("product"),
            ProductError::Stale => Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "The product was changed since you read it. Read it again, and send its new ETag as If-Match.",
            ),
            ProductError::KeyMismatch => idempotency::mismatch(),
            ProductError::Fingerprint(_) => Problem::internal(error),
            ProductError::Price(error) => Problem::invalid_field("price", error),
            ProductError::FewerShards { present } => Problem::invalid_field(
                "stock_shards",
                format!("must be at least {present}, because a product keeps the stock shards that it has"),
            ),
            ProductError::AdjustmentMismatch => {
                conflict("adjustment_mismatch", "Another adjustment of this product has this adjustment_id.")
            }
            ProductError::InsufficientStock { available } => {
                conflict("insufficient_stock", "The adjustment would remove more units than are available.")
                    .with("available", available)
            }
            ProductError::Refused(refusal) => refusal.into(),
            ProductError::Store(error) => error.into(),
        }
    }
}

impl From<ReservationRefusal> for Problem {
    fn from(refusal: ReservationRefusal) -> Self {
        match refusal {
            ReservationRefusal::UnknownProducts(products) => {
                unprocessable("unknown_product", "Some of the products do not exist.").with("products", json!(products))
            }
            ReservationRefusal::NoTotal(MoneyError::MixedCurrencies(..)) => {
                unprocessable("mixed_currencies", "The products of one order must have one currency.")
            }
            // Other errors are impossible: with the maximum price, the total of the largest order is still valid money.
            ReservationRefusal::NoTotal(error) => Problem::internal(error),
            ReservationRefusal::OutOfStock(shortages) => {
                conflict("out_of_stock", "Some of the products have too little stock; nothing was reserved.")
                    .with("lines", shortages.iter().map(shortage).collect::<Vec<_>>())
            }
            ReservationRefusal::Released => {
                conflict("reservation_released", "The order's reservation was released for good.")
            }
            ReservationRefusal::Mismatch => {
                conflict("reservation_mismatch", "The order has a reservation with other lines.")
            }
        }
    }
}

fn shortage(shortage: &Shortage) -> serde_json::Value {
    let Shortage { line, available } = shortage;
    json!({ "product_id": line.product_id, "requested": line.quantity, "available": available })
}

fn conflict(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, detail)
}

fn unprocessable(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
}
