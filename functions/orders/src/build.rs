//! Builds the orders function and the order worker from their configuration.

use std::time::Duration;

use axum::Router;
use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher, health::Check, pause::PauseSwitch};

use crate::{
    clients::Services,
    config::{OrdersConfig, SagaConfig},
    handlers::{PAUSED_PART, router},
    reconciliation::Reconciler,
    repository::dynamo::DynamoRepository,
    responses::record_answer,
    saga::{engine::Engine, steps::Saga},
    service::Orders,
    worker::Worker,
    worker_event::WorkerFunction,
};

/// Builds the routes of the orders function. New orders get the last saga of `sagas`.
pub fn build(config: OrdersConfig, aws: &Aws, clock: Clock, sagas: &'static [&'static Saga]) -> Router {
    let authenticator = config.http.public_authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.saga.table.clone());
    let window = Duration::from_hours(config.cancellation_window_hours.into());
    let services = services(&config.saga, aws, clock.clone());
    let checks = [Check::of_table(table.clone())].into_iter().chain(services.checks()).collect();
    let pause = PauseSwitch::new(PAUSED_PART, table.clone(), clock.clone());
    let orders = Orders::new(engine(table, services, sagas, clock), pause.clone(), window);
    config.http.cors.around(router(orders, checks, pause, authenticator))
}

pub fn build_worker(config: SagaConfig, aws: &Aws, clock: Clock, sagas: &'static [&'static Saga]) -> WorkerFunction {
    let services = services(&config, aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let reconciler = Reconciler::new(DynamoRepository::new(table.clone()), services.accounts(), clock.clone());
    WorkerFunction { worker: Worker::new(engine(table, services, sagas, clock)), reconciler }
}

fn services(config: &SagaConfig, aws: &Aws, clock: Clock) -> Services {
    let events = EventPublisher::open(&aws.config, config.events.clone());
    Services::new(config.services.clone(), events, aws, clock)
}

fn engine(table: Table, services: Services, sagas: &'static [&'static Saga], clock: Clock) -> Engine {
    Engine::new(DynamoRepository::new(table), services, sagas, record_answer, clock)
}
