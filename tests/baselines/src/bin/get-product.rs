//! GET /products/{id}: reads the product's item and the item of its stock, and answers them
//! as one JSON document.

use std::env;

use aws_sdk_dynamodb::{Client, types::KeysAndAttributes};
use lambda_http::{Error, Request, run, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let table = &env::var("PRODUCTS_TABLE")?;
    let dynamodb = &Client::new(&baselines::aws().await);
    run(service_fn(|request: Request| async move {
        let id = baselines::id(&request);
        let keys =
            vec![baselines::key(format!("PRODUCT#{id}"), "PRODUCT"), baselines::key(format!("STOCK#{id}#0"), "STOCK")];
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build()?;
        let found = dynamodb.batch_get_item().request_items(table, keys).send().await?;
        let items = found.responses.and_then(|mut found| found.remove(table)).unwrap_or_default();
        if items.is_empty() {
            return baselines::json(404, &"not found".into());
        }
        let document = items.into_iter().flatten().collect::<std::collections::HashMap<_, _>>();
        baselines::json(200, &serde_dynamo::from_item(document)?)
    }))
    .await
}
