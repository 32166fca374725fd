//! The orders function: wiring only.

use std::time::Duration;

use chassis::{
    aws::Aws,
    caller::Authenticator,
    clock::Clock,
    config::required,
    cors::Cors,
    dynamo::Table,
    events::EventPublisher,
    telemetry,
    token::{TokenConfig, TokenVerifier},
};
use orders::{
    clients::{Addresses, Services},
    documents::write_answer,
    handlers::router,
    repository::DynamoRepository,
    saga::{engine::Engine, steps::SAGAS},
    service::Orders,
};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let aws = Aws::from_env().await;
    let table = Table::from_env(&aws.config, "ORDERS_TABLE")?;
    let services = Services::new(Addresses::from_env()?, EventPublisher::from_env(&aws.config)?, &aws);
    let repository = DynamoRepository::new(table.clone());
    let engine = Engine::new(repository, services, SAGAS, write_answer, Clock::System);
    let window: u64 = required("CANCELLATION_WINDOW_HOURS", "how many hours an order can be cancelled for")?;
    let orders = Orders::new(engine, Duration::from_secs(window * 3600));
    let verifier = TokenVerifier::new(TokenConfig::from_env()?, aws.connector.clone());
    lambda_http::run(Cors::from_env()?.around(router(orders, table, Authenticator::public_only(verifier)))).await
}
