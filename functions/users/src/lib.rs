//! The users service: profiles of the people who order.
//!
//! - [`domain`]: users and their profiles, and the rules for them
//! - [`service`]: the use cases, and the errors with which the service refuses a request
//! - [`repository`]: the storage of users, with its implementation for DynamoDB
//! - [`handlers`]: the HTTP routes
//! - `problems`: the conversion of each error into a problem document
//! - `openapi`: the OpenAPI schemas of the values, and the problems with which each route can respond
//! - [`config`]: the settings of the function

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
mod problems;
pub mod repository;
pub mod service;

use axum::Router;
use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher};

use crate::{config::Config, repository::DynamoRepository, service::Users};

/// Builds the service, with all its routes, from its configuration.
pub fn build(config: Config, aws: &Aws, clock: Clock) -> Router {
    let authenticator = config.service.authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let queues = [config.order_events, config.user_events].map(|queue| EventPublisher::open(&aws.config, queue));
    let users = Users::new(DynamoRepository::new(table.clone()), queues, clock);
    config.service.http.cors.around(handlers::router(users, table, authenticator))
}
