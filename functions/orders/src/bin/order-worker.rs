//! The order worker: wiring only. Takes orders that requests left open to an
//! end.

use chassis::{aws::Aws, clock::Clock, config::Configuration, dynamo::Table, events::EventPublisher, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use orders::{
    clients::Services,
    config::OrderWorkerConfig,
    documents::write_answer,
    repository::DynamoRepository,
    saga::{engine::Engine, steps::SAGAS},
    trigger::{Trigger, handle},
    worker::Worker,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let config = OrderWorkerConfig::from_env()?;
    telemetry::init(config.function.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, config.table);
    let services =
        Services::new(config.services, EventPublisher::open(&aws.config, config.events), &aws, Clock::System);
    let engine = Engine::new(DynamoRepository::new(table), services, SAGAS, write_answer, Clock::System);
    let worker = Worker::new(engine);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Trigger>| handle(&worker, event))).await
}
