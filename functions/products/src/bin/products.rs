//! The products function: wiring only.

use chassis::{
    aws::Aws, caller::Authenticator, clock::Clock, config::Configuration, dynamo::Table, function::ServiceConfig,
    telemetry, token::TokenVerifier,
};
use products::{config::Config, handlers::router, repository::DynamoRepository, service::Products};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let config = Config::from_env()?;
    let ServiceConfig { function, http, internal_auth } = config.service;
    telemetry::init(function.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, config.table);
    let verifier = TokenVerifier::new(http.tokens, aws.connector.clone(), Clock::System);
    let authenticator = Authenticator::new(verifier, internal_auth);
    let products = Products::new(DynamoRepository::new(table.clone()), Clock::System);
    chassis::http::run(http.cors.around(router(products, table, authenticator))).await
}
