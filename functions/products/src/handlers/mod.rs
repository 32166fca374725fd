//! The HTTP routes of products: the catalogue, and the stock.

mod catalogue;
mod stock;

use axum::{
    Router,
    routing::{get, post},
};
use chassis::{
    caller::Authenticator, dynamo::Table, health, http::edge, idempotency, openapi::OnlyKnownMembers, problem::Problem,
};
use http::StatusCode;
use serde_json::json;
use utoipa::{OpenApi, openapi};

pub(crate) use self::catalogue::{NewProduct, ProductChange};
use crate::{
    domain::{Lack, Refusal},
    openapi::PriceFitsCurrency,
    service::{ProductError, Products},
};

/// All routes, public and internal, behind the HTTP edge.
pub fn router(products: Products, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/products", get(catalogue::list).post(catalogue::create))
        .route("/products/{id}", get(catalogue::read).patch(catalogue::change))
        .route("/products/{id}/stock-adjustments", post(stock::adjust))
        .route("/products/reserve", post(stock::reserve))
        .route("/reservations/{id}/release", post(stock::release))
        .with_state(products)
        .merge(health::routes("products", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(
    paths(catalogue::list, catalogue::read, catalogue::create, catalogue::change, stock::adjust),
    modifiers(&PriceFitsCurrency, &OnlyKnownMembers),
)]
struct Api;

/// What the API's document says of the public routes.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("products"))
}

impl From<ProductError> for Problem {
    fn from(error: ProductError) -> Self {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
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
            ProductError::AdjustmentMismatch => {
                conflict("adjustment_mismatch", "Another adjustment of this product has this adjustment_id.")
            }
            ProductError::InsufficientStock { available } => {
                conflict("insufficient_stock", "More would go than is available.").with("available", available)
            }
            ProductError::Refused(refusal) => refusal.into(),
            ProductError::Store(error) => error.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        let unprocessable = |code, detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        match refusal {
            Refusal::UnknownProducts(products) => {
                unprocessable("unknown_product", "There are no such products.").with("products", json!(products))
            }
            Refusal::NoTotal(chassis::money::MoneyError::MixedCurrencies(..)) => {
                unprocessable("mixed_currencies", "The products of one order must have one currency.")
            }
            // A price is bounded so that this can't be.
            Refusal::NoTotal(error) => Problem::internal(error),
            Refusal::OutOfStock(lacking) => {
                let line = |lack: &Lack| {
                    json!({
                        "product_id": lack.line.product_id,
                        "requested": lack.line.quantity,
                        "available": lack.available,
                    })
                };
                conflict("out_of_stock", "There is not enough of everything; nothing was reserved.")
                    .with("lines", lacking.iter().map(line).collect::<Vec<_>>())
            }
            Refusal::Released => conflict("reservation_released", "This order's reservation was released for good."),
            Refusal::Mismatch => conflict("reservation_mismatch", "This order has reserved something else before."),
        }
    }
}
