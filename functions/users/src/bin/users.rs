//! The users function: wiring only.

use chassis::{
    aws::Aws,
    caller::{Authenticator, InternalAuth},
    clock::Clock,
    cors::Cors,
    dynamo::Table,
    telemetry,
    token::{TokenConfig, TokenVerifier},
};
use users::{handlers::router, repository::DynamoRepository, service::Users};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let aws = Aws::from_env().await;
    let table = Table::from_env(&aws.config, "USERS_TABLE")?;
    let verifier = TokenVerifier::new(TokenConfig::from_env()?, aws.connector.clone());
    let authenticator = Authenticator::new(verifier, InternalAuth::from_env()?);
    let users = Users::new(DynamoRepository::new(table.clone()), Clock::System);
    lambda_http::run(Cors::from_env()?.around(router(users, table, authenticator))).await
}
