//! A shop with data, and the events of each measured operation.
//!
//! The shop's own functions, in one process with the measurement, write the data. The
//! programs that are measured read the same tables.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use in_process_tests::{
    Caller, World,
    shop::order_request,
    world::{self, sqs_record},
};
use lambda_http::request::RequestContext;
use serde_json::{Map, Value, json};

/// The stock of each product. No measurement uses it up.
const STOCK: u32 = 1_000_000;
/// The numbers of lines of the measured reservations.
pub const LINES: [usize; 3] = [1, 10, 50];

/// An operation of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    GetProduct,
    GetOrder,
    Validate,
    /// Reserves this number of lines.
    Reserve(usize),
    Authorise,
    /// Sends the messages about this number of events.
    SendMessages(usize),
    /// A sweep of the order worker that finds no order.
    Sweep,
}

impl Operation {
    /// The operation's name in the report.
    pub fn name(self) -> String {
        match self {
            Self::GetProduct => "GET product".into(),
            Self::GetOrder => "GET order".into(),
            Self::Validate => "validate".into(),
            Self::Reserve(1) => "reserve, 1 line".into(),
            Self::Reserve(lines) => format!("reserve, {lines} lines"),
            Self::Authorise => "authorise".into(),
            Self::SendMessages(1) => "1 event".into(),
            Self::SendMessages(events) => format!("{events} events"),
            Self::Sweep => "sweep".into(),
        }
    }

    /// The function that has this operation.
    pub fn function(self) -> &'static str {
        match self {
            Self::GetProduct | Self::Reserve(_) => "products",
            Self::GetOrder => "orders",
            Self::Validate => "users",
            Self::Authorise => "payments",
            Self::SendMessages(_) => "notifications",
            Self::Sweep => "order-worker",
        }
    }

    /// The bare handler that makes the same calls.
    pub fn baseline(self) -> &'static str {
        match self {
            Self::GetProduct => "get-product",
            Self::GetOrder => "get-order",
            Self::Validate => "validate-user",
            Self::Reserve(_) => "reserve-stock",
            Self::Authorise => "authorise-payment",
            Self::SendMessages(_) => "send-messages",
            Self::Sweep => "sdk-clients",
        }
    }

    /// The operation with which a function is measured as a whole.
    pub fn of_function(function: &str) -> Self {
        match function {
            "products" => Self::GetProduct,
            "orders" => Self::GetOrder,
            "users" => Self::Validate,
            "payments" => Self::Authorise,
            "notifications" => Self::SendMessages(1),
            _ => Self::Sweep,
        }
    }
}

/// The shop, and the requests and events that its functions have sent each other.
pub struct Fixture {
    pub world: World,
    customer: Caller,
    product: String,
    order: String,
    validate: (String, Value),
    reserve: Vec<Value>,
    authorise: Value,
    order_created: Value,
}

impl Fixture {
    /// Starts the shop, and places an order for each number of lines.
    ///
    /// # Errors
    ///
    /// If the shop's functions do not send each other what they are known to send.
    pub async fn start() -> Result<Self> {
        let world = World::start().await;
        let customer = world.customer("Ada").await;
        let mut products = Vec::new();
        for _ in 0..LINES[LINES.len() - 1] {
            products.push(world.product("19.99", STOCK).await);
        }
        let mut order = Value::Null;
        for count in LINES.into_iter().rev() {
            let lines: Vec<_> = products[..count].iter().map(|product| (product.as_str(), 1)).collect();
            let body = order_request(&lines, "tok_accepted");
            order = world.place(&customer, body, &format!("key-{count}")).await.expect(StatusCode::CREATED);
            world.settle().await;
        }
        let exchanges = world.cloud.exchanges();
        let sent = |end: &'static str| exchanges.iter().filter(move |sent| sent.path.ends_with(end));
        let validate = sent("/validate").next_back().context("orders validates the customer")?;
        let reserve = LINES.into_iter().map(|count| {
            let mut bodies = sent("/reserve").map(|sent| &sent.request);
            bodies.find(|body| body["lines"].as_array().map_or(1, Vec::len) == count).cloned()
        });
        let events = world.take_events();
        let order_created = events.into_iter().rfind(|event| event["type"] == "OrderCreated");
        Ok(Self {
            product: products.swap_remove(0),
            order: order["id"].as_str().context("an order has an id")?.to_owned(),
            validate: (validate.path.clone(), validate.request.clone()),
            reserve: reserve.collect::<Option<_>>().context("orders reserves the lines of each order")?,
            authorise: sent("/payments").next_back().context("orders authorises the payment")?.request.clone(),
            order_created: order_created.context("orders publishes the order")?,
            customer,
            world,
        })
    }

    /// New events for an operation. Each event can be handled once.
    pub fn events(&self, operation: Operation, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event(operation).to_string()).collect()
    }

    fn event(&self, operation: Operation) -> Value {
        let new_order = format!("ord_{}", uuid::Uuid::now_v7());
        let service = Caller::service();
        let ordered = |body: &Value| {
            let mut body = body.clone();
            body["order_id"] = new_order.as_str().into();
            body
        };
        match operation {
            Operation::GetProduct => {
                http_event(&Caller::anonymous(), &Method::GET, &format!("/products/{}", self.product), &Value::Null)
            }
            Operation::GetOrder => {
                http_event(&self.customer, &Method::GET, &format!("/orders/{}", self.order), &Value::Null)
            }
            Operation::Validate => http_event(&service, &Method::POST, &self.validate.0, &self.validate.1),
            Operation::Reserve(lines) => {
                let body = LINES.iter().position(|known| *known == lines).map(|n| &self.reserve[n]);
                http_event(&service, &Method::POST, "/products/reserve", &ordered(body.unwrap_or(&Value::Null)))
            }
            Operation::Authorise => http_event(&service, &Method::POST, "/payments", &ordered(&self.authorise)),
            Operation::SendMessages(count) => {
                let records = (0..count).map(|_| {
                    let id = format!("ord_{}", uuid::Uuid::now_v7());
                    let mut event = self.order_created.clone();
                    event["id"] = format!("{id}:OrderCreated").into();
                    event["subject"] = id.as_str().into();
                    event["data"]["order_id"] = id.into();
                    sqs_record(&uuid::Uuid::new_v4().to_string(), &event.to_string())
                });
                json!({ "Records": records.collect::<Vec<_>>() })
            }
            Operation::Sweep => json!({ "sweep": true }),
        }
    }
}

/// The event for a request of `caller`, in the format of the gateway through which this
/// caller's requests arrive.
fn http_event(caller: &Caller, method: &Method, path: &str, body: &Value) -> Value {
    let headers: Map<String, Value> = [
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("content-type", "application/json"),
        ("host", "abc123defg.execute-api.us-east-1.amazonaws.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"),
        ("x-amzn-trace-id", "Root=1-6742f1d5-5b1e7c3a9f102f6f1c9d4e21"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.into()))
    .collect();
    let body = if body.is_null() { Value::Null } else { body.to_string().into() };
    match caller.context().unwrap_or_else(|| world::context(json!({}))) {
        RequestContext::ApiGatewayV2(context) => {
            let mut context = json!(context);
            context["http"] = json!({
                "method": method.as_str(), "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7",
                "userAgent": "holdfast",
            });
            json!({
                "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": headers,
                "requestContext": context, "body": body, "isBase64Encoded": false,
            })
        }
        other => {
            let mut context = match other {
                RequestContext::ApiGatewayV1(context) => json!(context),
                _ => json!({}),
            };
            context["httpMethod"] = method.as_str().into();
            let all: Map<_, _> = headers.iter().map(|(name, value)| (name.clone(), json!([value]))).collect();
            json!({
                "resource": "/{proxy+}", "path": path, "httpMethod": method.as_str(), "headers": headers,
                "multiValueHeaders": all, "queryStringParameters": null, "multiValueQueryStringParameters": null,
                "pathParameters": { "proxy": path.trim_start_matches('/') }, "stageVariables": null,
                "requestContext": context, "body": body, "isBase64Encoded": false,
            })
        }
    }
}
