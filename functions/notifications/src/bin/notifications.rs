//! The notifications function.

use chassis::{clock::Clock, function};
use lambda_runtime::service_fn;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let (config, aws) = function::start(env!("CARGO_BIN_NAME"), option_env!("HOLDFAST_COMMIT")).await?;
    let notifications = notifications::build(config, &aws, Clock::System);
    lambda_runtime::run(service_fn(|event| notifications.handle(event))).await
}
