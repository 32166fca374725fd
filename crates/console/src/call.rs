//! What a request that passes the proxy is about: a table, a queue, or another service.

use axum::http::{HeaderMap, Method};
use serde_json::Value;

use crate::stack::Stack;

/// The writes of DynamoDB and SQS.
const WRITES: [&str; 7] =
    ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem", "SendMessage", "SendMessageBatch"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A table, by its short name.
    Table(String),
    /// A queue, by its short name.
    Queue(String),
    /// A service that another service calls, by its short name.
    Service(String),
    /// E-mails and text messages.
    Messages,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub target: Target,
    /// Whether the request changes something.
    pub is_write: bool,
    /// The trace to which the request belongs, if the request says so.
    pub trace: Option<String>,
    /// The step of the saga that the request carries out.
    pub step: Option<&'static str>,
}

impl Call {
    pub fn of(stack: &Stack, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some((service, rest)) = service(stack, path) {
            return Self {
                step: step_of_route(method, rest),
                target: Target::Service(service),
                is_write: method != Method::GET,
                trace: header("traceparent").and_then(trace_id),
            };
        }
        let other = Self { target: Target::Other, is_write: false, trace: None, step: None };
        let Some((api, action)) = header("x-amz-target").and_then(|target| target.split_once('.')) else {
            // SES has paths, and SNS sends forms.
            let is_message = path.contains("/email/") || body.starts_with(b"Action=Publish");
            let target = if is_message { Target::Messages } else { Target::Other };
            return Self { target, is_write: is_message, ..other };
        };
        let is_write = WRITES.contains(&action);
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match api {
            "DynamoDB_20120810" => {
                let table = table_in(&body).and_then(|table| short_name(&stack.tables, table));
                Self { target: table.map_or(Target::Other, Target::Table), is_write, ..other }
            }
            "AmazonSQS" => {
                let queue = body["QueueUrl"].as_str().and_then(|url| {
                    // The address of a queue may have the port of the emulator or of the proxy.
                    let name = url.rsplit('/').next()?;
                    let mut queues = stack.queues.iter();
                    queues.find(|(_, url)| url.ends_with(&format!("/{name}"))).map(|(short, _)| short.clone())
                });
                let event: Value = event_in(&body).unwrap_or_default();
                Self {
                    target: queue.map_or(Target::Other, Target::Queue),
                    is_write,
                    trace: event["traceparent"].as_str().and_then(trace_id),
                    step: match event["type"].as_str() {
                        Some("OrderCreated") => Some("publish OrderCreated"),
                        Some("OrderCancelled") => Some("publish OrderCancelled"),
                        _ => None,
                    },
                }
            }
            _ => other,
        }
    }

    /// Returns whether the request sends an event about orders.
    pub fn sends_order_event(&self) -> bool {
        self.is_write && self.target == Target::Queue("order_events".to_owned())
    }
}

/// The service whose function URL has this path, and the rest of the path.
fn service<'a>(stack: &Stack, path: &'a str) -> Option<(String, &'a str)> {
    stack.services.iter().find_map(|(name, url)| {
        let own = url.find("/_aws/lambda-url/").map(|at| &url[at..])?;
        let rest = path.strip_prefix(own)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| (name.clone(), rest))
    })
}

/// The step of the saga that a request between services carries out.
fn step_of_route(method: &Method, path: &str) -> Option<&'static str> {
    if method != Method::POST {
        return None;
    }
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["users", _, "validate"] => Some("validate user"),
        ["products", "reserve"] => Some("reserve stock"),
        ["reservations", _, "release"] => Some("release stock"),
        ["payments"] => Some("authorise payment"),
        ["payments", _, "capture"] => Some("capture payment"),
        ["payments", _, "cancel"] => Some("cancel payment"),
        _ => None,
    }
}

/// The first table that a request to DynamoDB names.
fn table_in(body: &Value) -> Option<&str> {
    let direct = body["TableName"].as_str();
    let in_batch = || body["RequestItems"].as_object()?.keys().next().map(String::as_str);
    let in_transaction = || {
        let actions = body["TransactItems"].as_array()?.iter().filter_map(Value::as_object);
        actions.flat_map(|action| action.values()).find_map(|action| action["TableName"].as_str())
    };
    direct.or_else(in_batch).or_else(in_transaction)
}

fn event_in(body: &Value) -> Option<Value> {
    let single = body["MessageBody"].as_str();
    let first = || body["Entries"][0]["MessageBody"].as_str();
    serde_json::from_str(single.or_else(first)?).ok()
}

fn short_name(names: &std::collections::BTreeMap<String, String>, physical: &str) -> Option<String> {
    let name = physical.rsplit('/').next()?;
    names.iter().find(|(_, own)| *own == name).map(|(short, _)| short.clone())
}

fn trace_id(traceparent: &str) -> Option<String> {
    traceparent.split('-').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use orders::saga::steps::PLACE_ORDER;
    use serde_json::json;

    use super::*;
    use crate::stack::sample;

    fn aws(target: &'static str, body: &Value) -> Call {
        let headers = HeaderMap::from_iter([("x-amz-target".parse().unwrap(), HeaderValue::from_static(target))]);
        Call::of(&sample(), &Method::POST, "/", &headers, body.to_string().as_bytes())
    }

    #[test]
    fn a_write_names_its_table_alone_or_within_a_transaction() {
        let put = aws("DynamoDB_20120810.PutItem", &json!({ "TableName": "shop-orders" }));
        assert_eq!((put.target, put.is_write), (Target::Table("orders".into()), true));
        let read = aws("DynamoDB_20120810.GetItem", &json!({ "TableName": "shop-sandbox_ledger" }));
        assert_eq!((read.target, read.is_write), (Target::Table("sandbox_ledger".into()), false));
        let transaction = json!({ "TransactItems": [{ "Put": { "TableName": "shop-products" } }] });
        let transaction = aws("DynamoDB_20120810.TransactWriteItems", &transaction);
        assert_eq!((transaction.target, transaction.is_write), (Target::Table("products".into()), true));
    }

    #[test]
    fn an_event_belongs_to_a_step_and_to_the_trace_of_its_order() {
        let event = json!({ "type": "OrderCreated", "traceparent": "00-abc-def-01" });
        let body = json!({ "QueueUrl": "http://localhost:9/0/order_events", "MessageBody": event.to_string() });
        let call = aws("AmazonSQS.SendMessage", &body);
        assert!(call.sends_order_event());
        assert_eq!((call.step, call.trace.as_deref()), (Some("publish OrderCreated"), Some("abc")));
    }

    #[test]
    fn each_call_between_services_is_a_step_of_the_table() {
        let paths = [
            "/usersid/users/user_1/validate",
            "/productsid/products/reserve",
            "/productsid/reservations/ord_1/release",
            "/paymentsid/payments",
            "/paymentsid/payments/pay_1/capture",
            "/paymentsid/payments/pay_1/cancel",
        ];
        let compensations = PLACE_ORDER.compensations().map(|compensation| compensation.name);
        let stages = [PLACE_ORDER.before_the_pivot, PLACE_ORDER.after_the_pivot].concat();
        let known: Vec<_> = stages.into_iter().flatten().map(|step| step.name).chain(compensations).collect();
        for path in paths {
            let path = format!("/_aws/lambda-url{path}");
            let call = Call::of(&sample(), &Method::POST, &path, &HeaderMap::new(), b"");
            assert!(matches!(call.target, Target::Service(_)) && call.is_write, "{path}");
            assert!(known.contains(&call.step.expect(&path)), "{path}");
        }
    }
}
