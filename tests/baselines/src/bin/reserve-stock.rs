//! POST /products/reserve: reads the products of all lines, and writes the new stocks and
//! the reservation in one transaction.

use std::env;

use aws_sdk_dynamodb::{
    Client,
    types::{KeysAndAttributes, Put, TransactWriteItem, Update},
};
use baselines::{key, number, string};
use lambda_http::{Error, Request, run, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let table = &env::var("PRODUCTS_TABLE")?;
    let dynamodb = &Client::new(&baselines::aws().await);
    run(service_fn(|request: Request| async move {
        let body = baselines::body(&request)?;
        let order = body["order_id"].as_str().ok_or("no order")?;
        let lines = body["lines"].as_array().ok_or("no lines")?;
        let id = |line: &serde_json::Value| line["product_id"].as_str().unwrap_or_default().to_owned();
        let product = |line: &serde_json::Value| key(format!("PRODUCT#{}", id(line)), "PRODUCT");
        let stock = |line: &serde_json::Value| key(format!("STOCK#{}#0", id(line)), "STOCK");
        let keys =
            KeysAndAttributes::builder().set_keys(Some(lines.iter().map(product).collect())).consistent_read(true);
        let products = dynamodb.batch_get_item().request_items(table, keys.build()?).send().await?;
        let products: Vec<serde_json::Value> =
            serde_dynamo::from_items(products.responses.and_then(|mut found| found.remove(table)).unwrap_or_default())?;

        let mut reservation = key(format!("RESERVATION#{order}"), "RESERVATION");
        reservation.insert("status".into(), string("HELD"));
        reservation.insert("quote".into(), serde_dynamo::to_attribute_value(&products)?);
        let put = Put::builder().table_name(table).set_item(Some(reservation));
        let put = put.condition_expression("attribute_not_exists(pk)").build()?;
        let mut writes = vec![TransactWriteItem::builder().put(put).build()];
        for line in lines {
            let update = Update::builder()
                .table_name(table)
                .set_key(Some(stock(line)))
                .update_expression("SET available = available - :quantity, reserved = reserved + :quantity")
                .condition_expression("available >= :quantity")
                .expression_attribute_values(":quantity", number(&line["quantity"]))
                .build()?;
            writes.push(TransactWriteItem::builder().update(update).build());
        }
        dynamodb.transact_write_items().set_transact_items(Some(writes)).send().await?;
        baselines::json(200, &products.into())
    }))
    .await
}
