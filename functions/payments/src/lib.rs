//! The payments service: authorises, captures, voids and refunds the payment of each
//! order at a payment provider. Each order has one payment.
//!
//! - [`domain`]: payments and their state machine, without any technology
//! - [`service`]: the use cases: authorise, capture, cancel, read and erase
//! - [`provider`]: the interface to the payment provider, and the built-in sandbox
//! - [`repository`]: stores payments, and tombstones of payments that were cancelled before
//!   they were authorised
//! - [`handlers`]: the HTTP routes
//! - `reconciliation`: the routes that tell the orders service what is stored of payments
//!   and charges
//! - `openapi`: the schemas and problem responses in the OpenAPI document
//! - [`config`]: reads the configuration

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
pub mod provider;
mod reconciliation;
pub mod repository;
pub mod service;

use axum::Router;
use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher};

use crate::{config::Config, provider::SandboxProvider, repository::DynamoRepository, service::Payments};

/// Builds the payments service from its configuration. The returned router has all its routes.
pub fn build(config: Config, aws: &Aws, clock: Clock) -> Router {
    let authenticator = config.service.authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let payments = Payments::new(
        DynamoRepository::new(table.clone()),
        SandboxProvider::new(Table::open(&aws.config, config.ledger), clock.clone()),
        EventPublisher::open(&aws.config, config.events),
        clock,
    );
    config.service.http.cors.around(handlers::router(payments, table, authenticator))
}
