//! The payments function: wiring only.

use chassis::{
    aws::Aws, caller::Authenticator, clock::Clock, config::Configuration, dynamo::Table, events::EventPublisher,
    function::ServiceConfig, telemetry, token::TokenVerifier,
};
use payments::{
    config::Config, handlers::router, provider::SandboxProvider, repository::DynamoRepository, service::Payments,
};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let config = Config::from_env()?;
    let ServiceConfig { function, http, internal_auth } = config.service;
    telemetry::init(function.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, config.table);
    let ledger = Table::open(&aws.config, config.ledger);
    let verifier = TokenVerifier::new(http.tokens, aws.connector.clone(), Clock::System);
    let authenticator = Authenticator::new(verifier, internal_auth);
    let payments = Payments::new(
        DynamoRepository::new(table.clone()),
        SandboxProvider::new(ledger, Clock::System),
        EventPublisher::open(&aws.config, config.events),
        Clock::System,
    );
    chassis::http::run(http.cors.around(router(payments, table, authenticator))).await
}
