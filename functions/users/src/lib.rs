//! The users service: profiles of the people who order.
//!
//! - [`domain`]: what a user is, without any technology
//! - [`service`]: what can be done with users
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
use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher};

use crate::{config::Config, repository::DynamoRepository, service::Users};

/// Builds the whole service from its configuration: all its routes.
pub fn build(config: Config, aws: &Aws, clock: Clock) -> Router {
    let authenticator = config.service.authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let queues = [config.order_events, config.user_events].map(|queue| EventPublisher::open(&aws.config, queue));
    let users = Users::new(DynamoRepository::new(table.clone()), queues, clock);
    config.service.http.cors.around(handlers::router(users, table, authenticator))
}
