//! Sends an e-mail and a text message about each event of a batch. Before that, it reads
//! whether the customer was erased, and whether an e-mail to the address has bounced. For each message it stores a claim, sends the message,
//! and updates the claim.

use std::{collections::HashMap, env};

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message};
use baselines::{key, string};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

struct Clients {
    dynamodb: Client,
    ses: aws_sdk_sesv2::Client,
    sns: aws_sdk_sns::Client,
    table: String,
    sender: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let aws = baselines::aws().await;
    let clients = &Clients {
        dynamodb: Client::new(&aws),
        ses: aws_sdk_sesv2::Client::new(&aws),
        sns: aws_sdk_sns::Client::new(&aws),
        table: env::var("NOTIFICATIONS_TABLE")?,
        sender: env::var("EMAIL_SENDER")?,
    };
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let records = event.payload["Records"].as_array().ok_or("no records")?;
        futures::future::try_join_all(records.iter().map(|record| clients.handle(record))).await?;
        Ok::<_, Error>(json!({ "batchItemFailures": [] }))
    }))
    .await
}

impl Clients {
    async fn handle(&self, record: &Value) -> Result<(), Error> {
        let event: Value = serde_json::from_str(record["body"].as_str().ok_or("no body")?)?;
        let (id, data) = (event["id"].as_str().ok_or("no id")?, &event["data"]);
        let user = data["user_id"].as_str().ok_or("no user")?;
        let recipient = |channel: &str| data["recipient"][channel].as_str().ok_or("no recipient");
        let order = data["order_id"].as_str().ok_or("no order")?;
        let (email, phone) = (recipient("email")?, recipient("phone")?);
        futures::try_join!(
            self.read(key(format!("ERASED#{user}"), "ERASED")),
            self.read(key(format!("SUPPRESSED#{user}"), email)),
        )?;
        let text = format!("Your order {} is confirmed. The total is {}.", data["order_id"], data["total"]);
        futures::try_join!(
            self.send_once((order, id), "EMAIL", self.send_email(email, &text)),
            self.send_once((order, id), "SMS", self.send_sms(phone, &text)),
        )?;
        Ok(())
    }

    async fn read(&self, key: HashMap<String, AttributeValue>) -> Result<(), Error> {
        let get = self.dynamodb.get_item().table_name(&self.table).set_key(Some(key));
        get.consistent_read(true).send().await?;
        Ok(())
    }

    async fn send_once(
        &self,
        (order, event): (&str, &str),
        channel: &str,
        send: impl Future<Output = Result<Option<String>, Error>>,
    ) -> Result<(), Error> {
        let claim = key(format!("ORDER#{order}"), &format!("EVENT#{event}#{channel}"));
        let mut item = claim.clone();
        item.insert("state".into(), string("CLAIMED"));
        let put = self.dynamodb.put_item().table_name(&self.table).set_item(Some(item));
        put.condition_expression("attribute_not_exists(pk)").send().await?;
        let message = send.await?.unwrap_or_default();
        let update = self.dynamodb.update_item().table_name(&self.table).set_key(Some(claim));
        let update = update.update_expression("SET #state = :sent, message_id = :message_id");
        let update = update.expression_attribute_names("#state", "state");
        let update = update.expression_attribute_values(":sent", string("SENT"));
        update.expression_attribute_values(":message_id", string(message)).send().await?;
        Ok(())
    }

    async fn send_email(&self, to: &str, text: &str) -> Result<Option<String>, Error> {
        let content = |text: &str| Content::builder().charset("UTF-8").data(text).build();
        let body = Body::builder().text(content(text)?).html(content(text)?).build();
        let message = Message::builder().subject(content("Your order")?).body(body).build();
        let request = self.ses.send_email().from_email_address(&self.sender);
        let request = request.destination(Destination::builder().to_addresses(to).build());
        Ok(request.content(EmailContent::builder().simple(message).build()).send().await?.message_id)
    }

    async fn send_sms(&self, to: &str, text: &str) -> Result<Option<String>, Error> {
        Ok(self.sns.publish().phone_number(to).message(text).send().await?.message_id)
    }
}
