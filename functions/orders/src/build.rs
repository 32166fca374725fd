//! Builds the orders function and the order worker from their configuration.

use std::time::Duration;

use axum::Router;
use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher};

use crate::{
    clients::Services,
    config::{OrdersConfig, SagaConfig},
    handlers::router,
    repository::dynamo::DynamoRepository,
    responses::record_answer,
    saga::{engine::Engine, steps::Saga},
    service::Orders,
    worker::Worker,
};

/// Builds the routes of the orders function. New orders get the last saga of `sagas`.
pub fn build(config: OrdersConfig, aws: &Aws, clock: Clock, sagas: &'static [&'static Saga]) -> Router {
    let authenticator = config.http.public_authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.saga.table.clone());
    let window = Duration::from_hours(config.cancellation_window_hours.into());
    let orders = Orders::new(engine(config.saga, aws, clock, sagas), window);
    config.http.cors.around(router(orders, table, authenticator))
}

pub fn build_worker(config: SagaConfig, aws: &Aws, clock: Clock, sagas: &'static [&'static Saga]) -> Worker {
    Worker::new(engine(config, aws, clock, sagas))
}

fn engine(config: SagaConfig, aws: &Aws, clock: Clock, sagas: &'static [&'static Saga]) -> Engine {
    let events = EventPublisher::open(&aws.config, config.events);
    let services = Services::new(config.services, events, aws, clock.clone());
    let repository = DynamoRepository::new(Table::open(&aws.config, config.table));
    Engine::new(repository, services, sagas, record_answer, clock)
}
