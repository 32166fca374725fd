//! The products service: what is sold, at which price, and how much of it is
//! there.
//!
//! - [`domain`]: products, stock and reservations, without any technology
//! - [`service`]: what can be done with them
//! - [`repository`]: where they are kept
//! - [`handlers`]: the HTTP routes; `openapi`: how they are described
//! - [`config`]: what can be set

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
pub mod repository;
pub mod service;

use axum::Router;
use chassis::{aws::Aws, clock::Clock, dynamo::Table};

use crate::{config::Config, repository::DynamoRepository, service::Products};

/// Builds the whole service from its configuration: all its routes.
pub fn build(config: Config, aws: &Aws, clock: Clock) -> Router {
    let authenticator = config.service.authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let products = Products::new(DynamoRepository::new(table.clone()), clock);
    config.service.http.cors.around(handlers::router(products, table, authenticator))
}
