//! The HTTP server of the page.

mod api;
mod assets;
mod events;
mod guard;
mod passthrough;
mod problem;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, delete, get, post},
};
use tokio::net::TcpListener;

pub use self::assets::viewer_in;
use self::guard::Guard;
use crate::{order_view::OrderReader, shop::Shop, storm::Storm, watch::Watch, weather::control::Control};

/// No request of the page is larger.
const LARGEST: usize = 1 << 20;

#[derive(Clone)]
pub struct Console {
    pub shop: Shop,
    pub orders: OrderReader,
    pub control: Control,
    pub watch: Watch,
    pub storm: Storm,
    /// The folder of the page's files.
    pub web: Arc<PathBuf>,
    /// The folder of Swagger UI, the viewer of the OpenAPI document.
    pub viewer: Arc<PathBuf>,
    /// The OpenAPI document.
    pub openapi: Arc<PathBuf>,
}

pub async fn serve(listener: TcpListener, console: Console) -> Result<()> {
    let address = listener.local_addr().context("the console has no address")?;
    axum::serve(listener, router(console, address)).await.context("the console has ended")
}

fn router(console: Console, address: SocketAddr) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/{page}", get(assets::page))
        .route("/assets/{*path}", get(assets::asset))
        .route("/vendor/swagger-ui/{file}", get(assets::viewer))
        .route("/mail/{id}", get(api::mail))
        .route("/api/stack", get(api::stack))
        .route("/api/products", get(api::products))
        .route("/api/orders", get(api::orders).post(api::place))
        .route("/api/orders/{id}", get(api::order))
        .route("/api/books", get(api::books))
        .route("/api/weather", get(api::weather).post(api::begin_weather).delete(api::clear_all_weather))
        .route("/api/weather/{id}", delete(api::clear_weather))
        .route("/api/storm", post(api::start_storm).delete(api::stop_storm))
        .route("/api/events", get(events::events))
        .route("/api/openapi.yaml", get(api::openapi))
        .route("/as/{person}/{*path}", any(passthrough::pass))
        .fallback(problem::unknown_address)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn_with_state(Guard::of(address.port()), guard::check))
        .with_state(console)
}
