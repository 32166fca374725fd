//! POST /payments: writes the payment, asks the sandbox provider (which reads and writes
//! the charge), and writes the payment's new status.

use std::env;

use aws_sdk_dynamodb::Client;
use baselines::{key, number, string};
use lambda_http::{Error, Request, run, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (payments, ledger) = (&env::var("PAYMENTS_TABLE")?, &env::var("SANDBOX_LEDGER_TABLE")?);
    let dynamodb = &Client::new(&baselines::aws().await);
    run(service_fn(|request: Request| async move {
        let body = baselines::body(&request)?;
        let order = body["order_id"].as_str().ok_or("no order")?;
        let (payment, charge) = (key(format!("PAYMENT#{order}"), "PAYMENT"), key(format!("CHARGE#{order}"), "CHARGE"));
        let new = "attribute_not_exists(pk)";

        let mut item = payment.clone();
        item.insert("status".into(), string("INTENT"));
        item.insert("payment_request".into(), serde_dynamo::to_attribute_value(&body)?);
        dynamodb.put_item().table_name(payments).set_item(Some(item)).condition_expression(new).send().await?;

        dynamodb.get_item().table_name(ledger).set_key(Some(charge.clone())).consistent_read(true).send().await?;
        let mut item = charge;
        item.insert("status".into(), string("AUTHORISED"));
        item.insert("amount_minor".into(), number(&body["amount"]["minor"]));
        dynamodb.put_item().table_name(ledger).set_item(Some(item)).condition_expression(new).send().await?;

        let update = dynamodb
            .update_item()
            .table_name(payments)
            .set_key(Some(payment))
            .update_expression("SET #status = :authorised")
            .condition_expression("#status = :intent")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":authorised", string("AUTHORISED"))
            .expression_attribute_values(":intent", string("INTENT"));
        update.send().await?;
        baselines::json(201, &body)
    }))
    .await
}
