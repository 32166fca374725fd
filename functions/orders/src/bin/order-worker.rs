//! The order worker.

use chassis::clock::Clock;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use orders::{saga::steps::SAGAS, worker_event::WorkerEvent};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (config, aws) = chassis::function::start(env!("CARGO_BIN_NAME"), option_env!("HOLDFAST_COMMIT")).await?;
    let function = orders::build_worker(config, &aws, Clock::System, SAGAS);
    lambda_runtime::run(service_fn(|event: LambdaEvent<WorkerEvent>| function.handle(event))).await
}
