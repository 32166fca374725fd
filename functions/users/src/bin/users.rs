//! The users function.

use chassis::{clock::Clock, function, http};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    let (config, aws) = function::start(env!("CARGO_BIN_NAME"), option_env!("HOLDFAST_COMMIT")).await?;
    http::run(users::build(config, &aws, Clock::System)).await
}
