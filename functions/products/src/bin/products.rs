//! The products function: wiring only.

use chassis::{
    aws::Aws,
    caller::{Authenticator, InternalAuth},
    clock::Clock,
    cors::Cors,
    dynamo::Table,
    telemetry,
    token::{TokenConfig, TokenVerifier},
};
use products::{handlers::router, repository::DynamoRepository, service::Products};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let aws = Aws::from_env().await;
    let table = Table::from_env(&aws.config, "PRODUCTS_TABLE")?;
    let verifier = TokenVerifier::new(TokenConfig::from_env()?, aws.connector.clone());
    let authenticator = Authenticator::new(verifier, InternalAuth::from_env()?);
    let products = Products::new(DynamoRepository::new(table.clone()), Clock::System);
    lambda_http::run(Cors::from_env()?.around(router(products, table, authenticator))).await
}
