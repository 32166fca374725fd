//! The orders function.

use chassis::{clock::Clock, function, http};
use orders::saga::steps::SAGAS;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    let (config, aws) = function::start(env!("CARGO_BIN_NAME"), option_env!("HOLDFAST_COMMIT")).await?;
    http::run(orders::build(config, &aws, Clock::System, SAGAS)).await
}
