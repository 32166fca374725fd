//! The notifications function: wiring only.

use chassis::{
    aws::Aws, caller::Authenticator, clock::Clock, config::Configuration, dynamo::Table, telemetry,
    token::TokenVerifier,
};
use lambda_runtime::service_fn;
use notifications::{
    channels::Channels,
    config::Config,
    handlers::{Function, router},
    repository::DynamoRepository,
    service::Notifications,
};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::from_env()?;
    telemetry::init(config.function.log);
    let aws = Aws::from_env().await;
    let table = Table::open(&aws.config, config.table);
    let verifier = TokenVerifier::new(config.http.tokens, aws.connector.clone(), Clock::System);
    let router = config.http.cors.around(router(table.clone(), Authenticator::public_only(verifier)));
    let channels = Channels::new(&aws.config, config.sender);
    let notifications = Notifications::new(DynamoRepository::new(table), channels, Clock::System);
    let function = Function::new(notifications, router);
    lambda_runtime::run(service_fn(|event| function.handle(event))).await
}
