//! The orders function: wiring only.

use chassis::{
    aws::Aws, caller::Authenticator, clock::Clock, config::Configuration, dynamo::Table, events::EventPublisher,
    telemetry, token::TokenVerifier,
};
use orders::{
    clients::Services,
    config::{OrdersConfig, SagaConfig},
    documents::write_answer,
    handlers::router,
    repository::DynamoRepository,
    saga::{engine::Engine, steps::SAGAS},
    service::Orders,
};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let config = OrdersConfig::from_env()?;
    let SagaConfig { function, table, services, events } = config.saga;
    telemetry::init(function.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, table);
    let services = Services::new(services, EventPublisher::open(&aws.config, events), &aws, Clock::System);
    let repository = DynamoRepository::new(table.clone());
    let engine = Engine::new(repository, services, SAGAS, write_answer, Clock::System);
    let orders = Orders::new(engine, config.cancellation_window);
    let verifier = TokenVerifier::new(config.http.tokens, aws.connector.clone(), Clock::System);
    chassis::http::run(config.http.cors.around(router(orders, table, Authenticator::public_only(verifier)))).await
}
