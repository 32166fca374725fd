//! Calls the emulator's AWS services in AWS's JSON protocol, and reads what the emulator
//! stores instead of sending: e-mails and text messages.
//!
//! The requests have no valid signature: the emulator accepts the access key `test`
//! without one.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::stack::Stack;

const TIMEOUT: Duration = Duration::from_secs(60);
/// The emulator closes a connection that is idle for some seconds. A request over a closed
/// connection would fail.
const IDLE: Duration = Duration::from_secs(1);

/// A service of AWS.
#[derive(Clone, Copy)]
pub struct Service {
    /// The service's name in the scope of a signature.
    name: &'static str,
    /// The text before the action's name in the header `X-Amz-Target`.
    target: &'static str,
    content_type: &'static str,
}

const JSON_1_0: &str = "application/x-amz-json-1.0";
const JSON_1_1: &str = "application/x-amz-json-1.1";

pub const COGNITO: Service =
    Service { name: "cognito-idp", target: "AWSCognitoIdentityProviderService", content_type: JSON_1_1 };
pub const DYNAMODB: Service = Service { name: "dynamodb", target: "DynamoDB_20120810", content_type: JSON_1_0 };
pub const LOGS: Service = Service { name: "logs", target: "Logs_20140328", content_type: JSON_1_1 };
pub const SQS: Service = Service { name: "sqs", target: "AmazonSQS", content_type: JSON_1_0 };

#[derive(Clone)]
pub struct Emulator {
    pub http: reqwest::Client,
    pub stack: Arc<Stack>,
}

/// An e-mail or a text message that a function has sent.
#[derive(Clone, Debug)]
pub enum Message {
    Email { id: String, to: Vec<String>, subject: String, text: String, html: String },
    Text { to: String, text: String },
}

impl Message {
    /// Returns whether the message is about an order: each message names its order.
    pub fn is_about(&self, order: &str) -> bool {
        match self {
            Self::Email { subject, text, .. } => subject.contains(order) || text.contains(order),
            Self::Text { text, .. } => text.contains(order),
        }
    }
}

impl Emulator {
    pub fn new(stack: Stack) -> Result<Self> {
        // A proxy of the user's cannot reach servers of this machine.
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .pool_idle_timeout(IDLE)
            .build()
            .context("no HTTP client")?;
        Ok(Self { http, stack: Arc::new(stack) })
    }

    pub async fn call(&self, service: Service, action: &str, request: &Value) -> Result<Value> {
        let request = self
            .http
            .post(&self.stack.emulator_url)
            .header("content-type", service.content_type)
            .header("x-amz-target", format!("{}.{action}", service.target))
            .header("authorization", self.credential(service.name))
            .body(request.to_string());
        answer(request, action).await
    }

    fn credential(&self, service: &str) -> String {
        let scope = format!("test/20200101/{}/{service}/aws4_request", self.stack.region);
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
    }

    /// Reads all items of a table, which is named by its short name.
    pub async fn scan(&self, table: &str) -> Result<Vec<Value>> {
        let mut request = json!({ "TableName": self.stack.table(table)?, "ConsistentRead": true });
        let mut items = Vec::new();
        loop {
            let mut page = self.call(DYNAMODB, "Scan", &request).await?;
            if let Value::Array(found) = page["Items"].take() {
                for item in found {
                    items.push(plain(item)?);
                }
            }
            match page["LastEvaluatedKey"].take() {
                Value::Null => return Ok(items),
                key => request["ExclusiveStartKey"] = key,
            }
        }
    }

    /// Reads one item of a table.
    pub async fn item(&self, table: &str, pk: &str, sk: &str) -> Result<Option<Value>> {
        let key = json!({ "pk": { "S": pk }, "sk": { "S": sk } });
        let request = json!({ "TableName": self.stack.table(table)?, "Key": key, "ConsistentRead": true });
        let mut answer = self.call(DYNAMODB, "GetItem", &request).await?;
        match answer["Item"].take() {
            Value::Null => Ok(None),
            item => plain(item).map(Some),
        }
    }

    /// Starts a sweep of the worker, as the schedule does each minute, and does not wait
    /// for its end.
    pub async fn sweep(&self) -> Result<()> {
        let function = self.stack.function("order_worker")?;
        let url = format!("{}/2015-03-31/functions/{function}:live/invocations", self.stack.emulator_url);
        let request = self
            .http
            .post(url)
            .header("authorization", self.credential("lambda"))
            .header("x-amz-invocation-type", "Event")
            .body(r#"{"sweep":true}"#);
        let response = request.send().await.context("the sweep got no answer")?;
        ensure!(response.status().is_success(), "the sweep was refused with {}", response.status());
        Ok(())
    }

    /// The environment variable of a deployed function that names its endpoint.
    pub async fn endpoint_of(&self, function: &str) -> Result<String> {
        let function = self.stack.function(function)?;
        let url = format!("{}/2015-03-31/functions/{function}:live", self.stack.emulator_url);
        let request = self.http.get(url).header("authorization", self.credential("lambda"));
        let function = answer(request, "GetFunction").await?;
        let endpoint = function["Configuration"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"].as_str();
        Ok(endpoint.context("the function has no endpoint")?.to_owned())
    }

    /// All messages that functions have sent, the oldest of each channel first.
    pub async fn messages(&self) -> Result<Vec<Message>> {
        let (mails, texts) = futures::try_join!(
            self.document("/_ministack/ses/messages"),
            self.document("/_ministack/sns/sms-messages")
        )?;
        let mut messages = Vec::new();
        for mail in lists(&mails["messages"]) {
            messages.push(Message::Email {
                id: text(&mail["MessageId"]),
                to: mail["To"].as_array().into_iter().flatten().map(text).collect(),
                subject: text(&mail["Subject"]),
                text: text(&mail["BodyText"]),
                html: text(&mail["BodyHtml"]),
            });
        }
        for message in lists(&texts["sms_messages"]) {
            messages.push(Message::Text { to: text(&message["PhoneNumber"]), text: text(&message["Message"]) });
        }
        Ok(messages)
    }

    /// The messages in a queue, also those that a consumer has received and not deleted.
    pub async fn queued(&self, queue: &str) -> Result<Vec<Value>> {
        let url = self.stack.queue(queue)?;
        let all = self.document(&format!("/_ministack/sqs/messages?QueueUrl={url}")).await?;
        Ok(lists_named(&all, url).cloned().unwrap_or_default())
    }

    async fn document(&self, path: &str) -> Result<Value> {
        answer(self.http.get(format!("{}{path}", self.stack.emulator_url)), path).await
    }
}

async fn answer(request: reqwest::RequestBuilder, what: &str) -> Result<Value> {
    let response = request.send().await.with_context(|| format!("the emulator did not answer {what}"))?;
    let status = response.status();
    let text = response.text().await.with_context(|| format!("the answer of {what} is incomplete"))?;
    if !status.is_success() {
        return Err(anyhow!("{what} was refused with {status}: {text}"));
    }
    serde_json::from_str(&text).with_context(|| format!("the answer of {what} is no JSON"))
}

/// Turns an item with types, such as `{"S": "a"}`, into plain JSON.
fn plain(item: Value) -> Result<Value> {
    let item: serde_dynamo::Item = serde_json::from_value(item).context("an item has an unknown form")?;
    serde_dynamo::from_item(item).context("an item cannot be read")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn lists(grouped: &Value) -> impl Iterator<Item = &Value> {
    grouped.as_object().into_iter().flat_map(|groups| groups.values()).filter_map(Value::as_array).flatten()
}

/// The list that is called `name`, at any level of nested objects.
fn lists_named<'a>(value: &'a Value, name: &str) -> Option<&'a Vec<Value>> {
    let object = value.as_object()?;
    object.get(name).and_then(Value::as_array).or_else(|| object.values().find_map(|inner| lists_named(inner, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_with_types_becomes_plain_json() {
        let item = json!({ "a": { "M": { "b": { "L": [{ "N": "7" }, { "BOOL": true }] } } } });
        assert_eq!(plain(item).expect("an item"), json!({ "a": { "b": [7, true] } }));
    }

    #[test]
    fn a_message_is_about_the_order_that_its_text_names() {
        let message = Message::Text { to: "+1".into(), text: "your order is paid. ord_1".into() };
        assert!(message.is_about("ord_1") && !message.is_about("ord_2"));
    }
}
