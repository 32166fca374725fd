//! Builds a client of DynamoDB and a client of SQS, which most of the functions use, and
//! answers each event with a constant.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let aws = baselines::aws().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let sqs = aws_sdk_sqs::Client::new(&aws);
    run(service_fn(|_: LambdaEvent<Value>| async {
        // The answer reads both clients, so that the compiler keeps them.
        let regions = [dynamodb.config().region(), sqs.config().region()];
        Ok::<_, Error>(json!({ "regions": regions.map(|region| region.map(ToString::to_string)) }))
    }))
    .await
}
