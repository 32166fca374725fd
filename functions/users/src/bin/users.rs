//! The users function: wiring only.

use chassis::{
    aws::Aws, caller::Authenticator, clock::Clock, config::Configuration, dynamo::Table, function::ServiceConfig,
    telemetry, token::TokenVerifier,
};
use users::{config::Config, handlers::router, repository::DynamoRepository, service::Users};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let config = Config::from_env()?;
    let ServiceConfig { function, http, internal_auth } = config.service;
    telemetry::init(function.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, config.table);
    let verifier = TokenVerifier::new(http.tokens, aws.connector.clone(), Clock::System);
    let authenticator = Authenticator::new(verifier, internal_auth);
    let users = Users::new(DynamoRepository::new(table.clone()), Clock::System);
    chassis::http::run(http.cors.around(router(users, table, authenticator))).await
}
