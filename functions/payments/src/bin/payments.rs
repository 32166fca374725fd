//! The payments function: wiring only.

use chassis::{
    aws::Aws,
    caller::{Authenticator, InternalAuth},
    clock::Clock,
    cors::Cors,
    dynamo::Table,
    events::EventPublisher,
    telemetry,
    token::{TokenConfig, TokenVerifier},
};
use payments::{handlers::router, provider::SandboxProvider, repository::DynamoRepository, service::Payments};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let aws = Aws::from_env().await;
    let table = Table::from_env(&aws.config, "PAYMENTS_TABLE")?;
    let ledger = Table::from_env(&aws.config, "SANDBOX_LEDGER_TABLE")?;
    let verifier = TokenVerifier::new(TokenConfig::from_env()?, aws.connector.clone());
    let authenticator = Authenticator::new(verifier, InternalAuth::from_env()?);
    let payments = Payments::new(
        DynamoRepository::new(table.clone()),
        SandboxProvider::new(ledger, Clock::System),
        EventPublisher::from_env(&aws.config)?,
        Clock::System,
    );
    lambda_http::run(Cors::from_env()?.around(router(payments, table, authenticator))).await
}
