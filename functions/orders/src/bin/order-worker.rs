//! The order worker.

use chassis::{clock::Clock, function};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use orders::{
    saga::steps::SAGAS,
    worker_event::{WorkerEvent, handle},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (config, aws) = function::start(env!("CARGO_BIN_NAME"), option_env!("HOLDFAST_COMMIT")).await?;
    let worker = orders::build_worker(config, &aws, Clock::System, SAGAS);
    lambda_runtime::run(service_fn(|event: LambdaEvent<WorkerEvent>| handle(&worker, event))).await
}
