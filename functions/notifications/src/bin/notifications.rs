//! The notifications function: wiring only.

use chassis::{
    aws::Aws,
    caller::Authenticator,
    clock::Clock,
    cors::Cors,
    dynamo::Table,
    telemetry,
    token::{TokenConfig, TokenVerifier},
};
use lambda_runtime::service_fn;
use notifications::{
    channels::Channels,
    handlers::{Function, router},
    repository::DynamoRepository,
    service::Notifications,
};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let aws = Aws::from_env().await;
    let table = Table::from_env(&aws.config, "NOTIFICATIONS_TABLE")?;
    let verifier = TokenVerifier::new(TokenConfig::from_env()?, aws.connector.clone());
    let router = Cors::from_env()?.around(router(table.clone(), Authenticator::public_only(verifier)));
    let notifications =
        Notifications::new(DynamoRepository::new(table), Channels::from_env(&aws.config)?, Clock::System);
    let function = Function::new(notifications, router);
    lambda_runtime::run(service_fn(|event| function.handle(event))).await
}
