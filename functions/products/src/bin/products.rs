//! The products function: wiring only.

use chassis::{
    aws::Aws, caller::Authenticator, clock::Clock, config::Configuration, dynamo::Table, telemetry,
    token::TokenVerifier,
};
use products::{config::Config, handlers::router, repository::DynamoRepository, service::Products};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let config = Config::from_env()?;
    telemetry::init(config.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, config.table);
    let verifier = TokenVerifier::new(config.http.tokens, aws.connector.clone());
    let authenticator = Authenticator::new(verifier, config.internal_auth);
    let products = Products::new(DynamoRepository::new(table.clone()), Clock::System);
    lambda_http::run(config.http.cors.around(router(products, table, authenticator))).await
}
