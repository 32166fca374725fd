//! The order worker: wiring only. Takes orders that requests left open to an
//! end.

use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher, telemetry};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use orders::{
    clients::{Addresses, Services},
    documents::write_answer,
    repository::DynamoRepository,
    saga::{engine::Engine, steps::SAGAS},
    trigger::{Trigger, handle},
    worker::Worker,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let aws = Aws::from_env().await;
    let table = Table::from_env(&aws.config, "ORDERS_TABLE")?;
    let services = Services::new(Addresses::from_env()?, EventPublisher::from_env(&aws.config)?, &aws);
    let engine = Engine::new(DynamoRepository::new(table), services, SAGAS, write_answer, Clock::System);
    let worker = Worker::new(engine);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Trigger>| handle(&worker, event))).await
}
