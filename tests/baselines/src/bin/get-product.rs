//! GET /products/{id}: reads the product's item and answers it as JSON.

use std::env;

use aws_sdk_dynamodb::Client;
use lambda_http::{Error, Request, run, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let table = &env::var("PRODUCTS_TABLE")?;
    let dynamodb = &Client::new(&baselines::aws().await);
    run(service_fn(|request: Request| async move {
        let key = baselines::key(format!("PRODUCT#{}", baselines::id(&request)), "PRODUCT");
        let found = dynamodb.get_item().table_name(table).set_key(Some(key)).consistent_read(true).send().await?;
        match found.item {
            Some(item) => baselines::json(200, &serde_dynamo::from_item(item)?),
            None => baselines::json(404, &"not found".into()),
        }
    }))
    .await
}
