//! The HTTP routes of products: the catalogue and the stock.

mod catalogue;
mod price_schema;
mod reconciliation;
mod stock;

use axum::{
    Router,
    routing::{get, post},
};
use chassis::{caller::Authenticator, dynamo::Table, health, http::edge, openapi::OnlyKnownMembers};
use utoipa::{OpenApi, openapi};

use self::price_schema::PriceFitsCurrency;
use crate::service::Products;

/// Returns all public and internal routes, with the middleware that each service has ([`edge`]).
pub fn router(products: Products, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/products", get(catalogue::list).post(catalogue::create))
        .route("/products/{id}", get(catalogue::read).patch(catalogue::change))
        .route("/products/{id}/stock-adjustments", get(stock::adjustments).post(stock::adjust))
        .route("/products/{id}/versions", get(catalogue::versions))
        .route("/products/reserve", post(stock::reserve))
        .route("/reservations/{id}/release", post(stock::release))
        .route("/reservations/accounts", post(reconciliation::reservations))
        .route("/stock/accounts", post(reconciliation::stock))
        .with_state(products)
        .merge(health::routes("products", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(
    paths(
        catalogue::list, catalogue::read, catalogue::create, catalogue::change, catalogue::versions, stock::adjust,
        stock::adjustments,
    ),
    modifiers(&PriceFitsCurrency, &OnlyKnownMembers),
)]
struct Api;

/// The part of the OpenAPI document that describes the public routes of products.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("products"))
}
