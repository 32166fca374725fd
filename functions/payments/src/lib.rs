//! The payments service: one payment an order, authorised, captured, voided or
//! refunded at a payment provider.
//!
//! - [`domain`]: what a payment is, and what may become of it
//! - [`service`]: what can be done with payments
//! - [`provider`]: whoever moves the money; a sandbox is built in
//! - [`repository`]: where payments are kept
//! - [`handlers`]: the HTTP routes; `openapi`: how they are described
//! - [`config`]: what can be set

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
pub mod provider;
pub mod repository;
pub mod service;

use axum::Router;
use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher};

use crate::{config::Config, provider::SandboxProvider, repository::DynamoRepository, service::Payments};

/// Builds the whole service from its configuration: all its routes.
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
