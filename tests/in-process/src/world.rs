//! A running shop, and the people who use it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use axum::body::Body;
use chassis::{
    aws::Aws,
    clock::Clock,
    config::{ConfigError, Configuration},
    deadline::Deadline,
    dynamo::Table,
    id::UserId,
    invocation::Invocation,
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use lambda_http::{
    Context, LambdaEvent, aws_lambda_events::apigw::ApiGatewayProxyRequestContext, request::RequestContext,
};
use orders::{
    domain::OrderId,
    saga::steps::{SAGAS, Saga},
    trigger::{self, Trigger},
    worker::{Outcome, Worker},
};
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing_subscriber::EnvFilter;

use crate::{cloud::Cloud, keys::Key, template::Template};

/// How long orders can be cancelled for in a [`World`].
pub const CANCELLATION_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// When the tokens of all people are issued, unless a test says otherwise. In
/// seconds since 1970, and before any test begins.
pub const ISSUED_AT: i64 = 1_700_000_000;

/// The environment of all functions, as the template would set it. A table is
/// called by its logical id.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("AUTH_AUDIENCE", CLIENT),
    ("AUTH_ISSUER", ISSUER),
    ("AUTH_JWKS_URL", "http://pool.test/keys"),
    ("CANCELLATION_WINDOW_HOURS", "24"),
    ("EMAIL_SENDER", "orders@holdfast.example"),
    ("INTERNAL_AUTH", "iam"),
    ("NOTIFICATIONS_TABLE", "NotificationsTable"),
    ("ORDERS_TABLE", "OrdersTable"),
    ("ORDER_EVENTS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/order-events"),
    ("PAYMENTS_TABLE", "PaymentsTable"),
    ("PAYMENTS_URL", "http://payments.internal"),
    ("PRODUCTS_TABLE", "ProductsTable"),
    ("PRODUCTS_URL", "http://products.internal"),
    ("SANDBOX_LEDGER_TABLE", "SandboxLedgerTable"),
    ("USERS_TABLE", "UsersTable"),
    ("USER_EVENTS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/user-events"),
    ("USERS_URL", "http://users.internal"),
];

/// The configuration that a function reads from [`ENVIRONMENT`].
fn configuration<C: Configuration>() -> C {
    let value_of =
        |name: &str| ENVIRONMENT.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    C::from_variables(&value_of).expect("the environment is complete")
}

/// Starts a function's configuration with some variables changed; one that is
/// `None` is not set.
///
/// # Errors
///
/// If the function would not start.
pub fn configured(function: &str, changed: &[(&str, Option<String>)]) -> Result<(), ConfigError> {
    let value_of = |name: &str| match changed.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => value.clone(),
        None => ENVIRONMENT.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
    };
    match function {
        "notifications" => notifications::config::Config::from_variables(&value_of).map(drop),
        "order-worker" => orders::config::OrderWorkerConfig::from_variables(&value_of).map(drop),
        "orders" => orders::config::OrdersConfig::from_variables(&value_of).map(drop),
        "payments" => payments::config::Config::from_variables(&value_of).map(drop),
        "products" => products::config::Config::from_variables(&value_of).map(drop),
        "users" => users::config::Config::from_variables(&value_of).map(drop),
        other => panic!("there is no function {other}"),
    }
}

/// The host that has the keys of the user pool.
pub const POOL: &str = "pool.test";
/// The issuer of the pool's tokens, as the payloads in `events/` have it.
pub const ISSUER: &str = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE01";
/// The app client that tokens are for, as the payloads in `events/` have it.
pub const CLIENT: &str = "1example23456789abcdefghij";

/// The pool's key. All worlds of a process share it, since it takes a while to
/// make one.
static POOL_KEY: LazyLock<Key> = LazyLock::new(|| Key::generate("pool"));

/// The shop.
pub struct World {
    /// Everything outside the services.
    pub cloud: Cloud,
    worker: Worker,
    /// The notifications function itself.
    pub notifications: notifications::handlers::Function,
    /// Which images of orders the stream has delivered already.
    streamed: Mutex<BTreeSet<String>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cloud.close();
    }
}

impl World {
    /// A shop without users, products or orders.
    pub async fn start() -> Self {
        Self::start_at(Clock::System).await
    }

    /// As [`World::start`], with another clock.
    pub async fn start_at(clock: Clock) -> Self {
        Self::start_with(clock, SAGAS).await
    }

    /// As [`World::start_at`], with other step tables.
    pub async fn start_with(clock: Clock, sagas: &'static [&'static Saga]) -> Self {
        // Silent unless asked: RUST_LOG=info cargo test … -- --nocapture
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
        tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init().ok();
        let cloud = Cloud::start();
        cloud.publish_keys(json!({ "keys": [POOL_KEY.published()] }));
        let aws = aws(cloud.clone()).await;
        cloud.serve("users", users::build(configuration(), &aws, clock.clone()));
        cloud.serve("products", products::build(configuration(), &aws, clock.clone()));
        cloud.serve("payments", payments::build(configuration(), &aws, clock.clone()));
        cloud.serve("orders", orders::build(configuration(), &aws, clock.clone(), sagas));
        let worker = orders::build_worker(configuration(), &aws, clock.clone(), sagas);
        let notifications = notifications::build(configuration(), &aws, clock);
        cloud.serve("notifications", notifications.router());
        Self { cloud, worker, notifications, streamed: Mutex::default() }
    }

    /// What the orders table's stream does: it tells the worker, once, of every
    /// write that wants it. How many there were. The worker always
    /// acknowledges; one that dies has the same from the schedule only.
    pub async fn stream(&self) -> usize {
        let woken = self.cloud.scan("OrdersTable").into_iter().filter(|item| item["wake"]["S"] == "now");
        let new: Vec<_> = {
            let mut streamed = self.streamed.lock().expect("no test panicked meanwhile");
            woken.filter(|item| streamed.insert(item.to_string())).collect()
        };
        if new.is_empty() {
            return 0;
        }
        let records: Vec<_> =
            new.iter().map(|item| json!({ "dynamodb": { "Keys": { "pk": item["pk"], "sk": item["sk"] } } })).collect();
        let trigger: Trigger = serde_json::from_value(json!({ "Records": records })).expect("a stream's event");
        let worker = self.worker.clone();
        let event = LambdaEvent::new(trigger, lambda_context("order-worker"));
        let handled = self.cloud.invocation("order-worker").run(async move { trigger::handle(&worker, event).await });
        if let Ok(answer) = handled.await {
            answer.expect("the worker acknowledges whatever the stream brings");
        }
        new.len()
    }

    /// What the schedule does each minute. A sweep that fails is followed by
    /// the next.
    pub async fn sweep(&self) -> Outcome {
        self.sweep_within(Duration::from_secs(60)).await
    }

    /// What the worker makes of these orders when the stream names them.
    pub async fn work(&self, ids: Vec<OrderId>) -> Outcome {
        let worker = self.worker.clone();
        let invocation = Invocation::new("worker", Deadline::after(Duration::from_secs(60)));
        let run = async move { worker.work(ids, &invocation).await };
        self.cloud.invocation("order-worker").run(run).await.unwrap_or_default()
    }

    /// A sweep in an invocation that has only so much time.
    pub async fn sweep_within(&self, time: Duration) -> Outcome {
        let worker = self.worker.clone();
        let invocation = Invocation::new("worker", Deadline::after(time));
        let run =
            async move { tokio::time::timeout_at(invocation.deadline.instant(), worker.sweep(&invocation)).await };
        match self.cloud.invocation("order-worker").run(run).await {
            Ok(Ok(Ok(outcome))) => outcome,
            // Failed, out of time, or killed.
            _ => Outcome::default(),
        }
    }

    /// Invokes the notifications function with a payload, as Lambda does.
    pub async fn invoke_notifications(&self, payload: &Value) -> Result<Value, lambda_http::Error> {
        self.invoke("notifications", &payload.to_string()).await
    }

    /// Invokes a function with the text of an event, as Lambda does: the event
    /// is read, and the answer written, by the same code as there.
    pub async fn invoke(&self, function: &'static str, event: &str) -> Result<Value, lambda_http::Error> {
        let context = lambda_context(function);
        let event = event.to_owned();
        let invocation = self.cloud.invocation(function);
        let answer = match function {
            "order-worker" => {
                let trigger: Trigger = serde_json::from_str(&event)?;
                let worker = self.worker.clone();
                invocation
                    .run(async move {
                        let answer = trigger::handle(&worker, LambdaEvent::new(trigger, context)).await?;
                        Ok(serde_json::to_value(answer)?)
                    })
                    .await
            }
            "notifications" => {
                let payload = serde_json::value::RawValue::from_string(event)?;
                let notifications = self.notifications.clone();
                invocation.run(async move { notifications.handle(LambdaEvent::new(payload, context)).await }).await
            }
            service => {
                let routes = self.cloud.service(service);
                let answer = async move { chassis::http::answer(routes, &event, context).await };
                invocation.run(async move { Ok(serde_json::to_value(answer.await?)?) }).await
            }
        };
        answer.unwrap_or_else(|_| Err("the invocation was killed".into()))
    }

    /// What the queue does: it delivers its messages in one batch, `m-0`,
    /// `m-1` and so on, and keeps those that are to be delivered again. Returns
    /// the function's answer.
    pub async fn deliver_messages(&self) -> Value {
        let messages = self.cloud.receive();
        if messages.is_empty() {
            return json!({ "batchItemFailures": [] });
        }
        let records = messages.iter().enumerate().map(|(n, message)| sqs_record(&format!("m-{n}"), &message.body));
        let payload = json!({ "Records": records.collect::<Vec<_>>() });
        let payload = serde_json::value::to_raw_value(&payload).expect("a payload in JSON");
        let function = self.notifications.clone();
        let context = lambda_context("notifications");
        let run = async move { function.handle(LambdaEvent::new(payload, context)).await };
        let answer = self.cloud.invocation("notifications").run(run).await;
        // An invocation that fails or dies acknowledges nothing.
        let Ok(Ok(answer)) = answer else {
            messages.into_iter().for_each(|message| self.cloud.give_back(message));
            return Value::Null;
        };
        let failures = answer["batchItemFailures"].as_array().expect("a list of failures");
        for (n, message) in messages.into_iter().enumerate() {
            if failures.iter().any(|failure| failure["itemIdentifier"] == format!("m-{n}")) {
                self.cloud.give_back(message);
            }
        }
        answer
    }

    /// What the queue of events about users does: it delivers its messages to
    /// the order worker in one batch, and keeps those that are to be delivered
    /// again. Returns how many those are.
    pub async fn deliver_user_events(&self) -> usize {
        let messages = self.cloud.receive_user_events();
        if messages.is_empty() {
            return 0;
        }
        let records = messages.iter().enumerate().map(|(n, message)| sqs_record(&format!("m-{n}"), &message.body));
        let payload = json!({ "Records": records.collect::<Vec<_>>() });
        let answer = self.invoke("order-worker", &payload.to_string()).await.unwrap_or_default();
        let failed = |n: usize| match answer["batchItemFailures"].as_array() {
            Some(failures) => failures.iter().any(|failure| failure["itemIdentifier"] == format!("m-{n}")),
            // An invocation that fails or dies acknowledges nothing.
            None => true,
        };
        let again: Vec<_> = messages.into_iter().enumerate().filter(|(n, _)| failed(*n)).map(|(_, m)| m).collect();
        let count = again.len();
        again.into_iter().for_each(|message| self.cloud.give_back_user_event(message));
        count
    }

    /// Sends a request as `person` through the public API.
    pub async fn send(&self, person: &Person, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send_with(person, method, path, body, &[]).await
    }

    /// As [`World::send`], with headers.
    pub async fn send_with(
        &self,
        person: &Person,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send_raw(person, request.body(body).expect("a request")).await
    }

    /// Sends a request as it is.
    pub async fn send_raw(&self, person: &Person, mut request: Request<Body>) -> Answer {
        if let Some(context) = person.context() {
            request.extensions_mut().insert(context);
        }
        // Of other people's tokens, the services read only what the gateway says.
        if person.has_groups() && !request.headers().contains_key(header::AUTHORIZATION) {
            let token = format!("Bearer {}", person.token()).parse().expect("a header's value");
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let service = service_of(request.uri().path());
        if request.extensions().get::<Context>().is_none() {
            request.extensions_mut().insert(lambda_context(service));
        }
        let router = self.cloud.service(service);
        let Ok(response) = self.cloud.invocation(service).run(router.oneshot(request)).await else {
            // What the gateway says of a function that died.
            return Answer { status: StatusCode::BAD_GATEWAY, headers: HeaderMap::new(), text: String::new() };
        };
        let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// GET as `person`.
    pub async fn get(&self, person: &Person, path: &str) -> Answer {
        self.send(person, Method::GET, path, None).await
    }

    /// POST as `person`.
    pub async fn post(&self, person: &Person, path: &str, body: Value) -> Answer {
        self.send(person, Method::POST, path, Some(body)).await
    }

    /// PATCH as `person`.
    pub async fn patch(&self, person: &Person, path: &str, body: Value) -> Answer {
        self.send(person, Method::PATCH, path, Some(body)).await
    }

    /// DELETE as `person`.
    pub async fn delete(&self, person: &Person, path: &str) -> Answer {
        self.send(person, Method::DELETE, path, None).await
    }

    /// A customer with a profile.
    pub async fn customer(&self, name: &str) -> Person {
        let person = Person::named(name);
        let body = json!({ "name": name, "email": person.email() });
        self.post(&person, "/users", body).await.expect(StatusCode::CREATED);
        person
    }
}

/// AWS as a function loads it, with `connector` in place of the network.
pub async fn aws(connector: impl HttpConnector + 'static) -> Aws {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::for_tests());
    Aws::load(loader, SharedHttpConnector::new(connector)).await
}

/// A table that is reached through `connector`.
pub async fn table(connector: impl HttpConnector + 'static, name: &str) -> Table {
    Table::new(aws_sdk_dynamodb::Client::new(&aws(connector).await.config), name)
}

/// What Lambda gives with an invocation of a function that may take as long as
/// the template says.
pub fn lambda_context(function: &str) -> Context {
    static TIMEOUTS: LazyLock<BTreeMap<String, Duration>> = LazyLock::new(|| {
        let template = Template::read();
        template.functions().map(|function| (function.name.to_owned(), template.timeout(&function))).collect()
    });
    let timeout = TIMEOUTS.get(function).unwrap_or_else(|| panic!("the template has no function {function}"));
    let end = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970") + *timeout;
    let mut context = Context::default();
    context.request_id = uuid::Uuid::new_v4().to_string();
    context.deadline = end.as_millis().try_into().expect("a moment");
    context
}

/// A message as it stands in a batch.
pub fn sqs_record(message_id: &str, body: &str) -> Value {
    json!({
        "messageId": message_id,
        "receiptHandle": format!("receipt-{message_id}"),
        "body": body,
        "attributes": { "ApproximateReceiveCount": "1" },
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:order-events",
        "awsRegion": "us-east-1",
    })
}

/// The service that serves a path, as the gateway's routes say.
fn service_of(path: &str) -> &'static str {
    let path = path.trim_start_matches('/');
    let path = path.strip_prefix("health/").unwrap_or(path);
    match path.split(['/', '?']).next().unwrap_or_default() {
        "users" => "users",
        "products" | "reservations" => "products",
        "orders" => "orders",
        "payments" => "payments",
        "notifications" => "notifications",
        other => panic!("the gateway knows no /{other}"),
    }
}

/// Somebody who calls: signed in, an administrator, another service, or
/// nobody.
#[derive(Clone, Debug)]
pub struct Person(Kind);

#[derive(Clone, Debug)]
enum Kind {
    SignedIn {
        /// As a gateway passes them on.
        claims: Value,
        /// The list of groups in the token itself.
        groups: Vec<String>,
    },
    Service,
    Nobody,
}

impl Person {
    /// A signed-in customer with a verified e-mail address and phone number.
    pub fn named(name: &str) -> Self {
        let digits = uuid::Uuid::new_v4().as_u128() % 10_000_000_000;
        Self::with_claims(json!({
            "sub": uuid::Uuid::new_v4(),
            "token_use": "id",
            "iss": ISSUER,
            "aud": CLIENT,
            "iat": ISSUED_AT.to_string(),
            "email": format!("{}@example.com", name.to_lowercase().replace(' ', ".")),
            "email_verified": "true",
            "phone_number": format!("+1{digits:010}"),
            "phone_number_verified": "true",
        }))
    }

    /// A signed-in person of whom the token says just this.
    pub fn with_claims(claims: Value) -> Self {
        Self(Kind::SignedIn { claims, groups: Vec::new() })
    }

    /// A signed-in administrator.
    pub fn admin() -> Self {
        Self::named("Grace").in_groups(&["admin"], "admin")
    }

    /// The person as a member of groups, which a gateway passes on as `claim`.
    pub fn in_groups(&self, groups: &[&str], claim: impl Into<Value>) -> Self {
        let mut person = self.but("cognito:groups", claim);
        if let Kind::SignedIn { groups: own, .. } = &mut person.0 {
            *own = groups.iter().map(ToString::to_string).collect();
        }
        person
    }

    fn has_groups(&self) -> bool {
        matches!(&self.0, Kind::SignedIn { groups, .. } if !groups.is_empty())
    }

    /// The claims, as a gateway passes them on.
    pub fn claims(&self) -> Value {
        match &self.0 {
            Kind::SignedIn { claims, .. } => claims.clone(),
            _ => panic!("only people have claims"),
        }
    }

    /// The token, signed by the pool.
    pub fn token(&self) -> String {
        let Kind::SignedIn { claims, groups } = &self.0 else { panic!("only people have tokens") };
        let mut claims = claims.clone();
        claims["iat"] = self.issued_at().into();
        claims["exp"] = (Timestamp::now().as_second() + 24 * 3600).into();
        for verified in ["email_verified", "phone_number_verified"] {
            claims[verified] = (claims[verified] == "true").into();
        }
        claims["cognito:groups"] = groups.as_slice().into();
        POOL_KEY.sign(&claims)
    }

    /// Another service, as the internal API presents it.
    pub fn service() -> Self {
        Self(Kind::Service)
    }

    /// Not signed in.
    pub fn nobody() -> Self {
        Self(Kind::Nobody)
    }

    /// The person with one claim changed.
    pub fn but(&self, claim: &str, value: impl Into<Value>) -> Self {
        let mut person = self.clone();
        match &mut person.0 {
            Kind::SignedIn { claims, .. } => claims[claim] = value.into(),
            _ => panic!("only people have claims"),
        }
        person
    }

    /// The person with a token that is issued so many seconds later.
    pub fn later(&self, seconds: i64) -> Self {
        self.but("iat", (self.issued_at() + seconds).to_string())
    }

    /// When the person's token is issued, in seconds since 1970.
    pub fn issued_at(&self) -> i64 {
        self.claim("iat").parse().expect("a number")
    }

    /// A claim of the person's token.
    pub fn claim(&self, name: &str) -> &str {
        match &self.0 {
            Kind::SignedIn { claims, .. } => claims[name].as_str().expect("a claim"),
            _ => panic!("only people have claims"),
        }
    }

    /// The verified e-mail address.
    pub fn email(&self) -> &str {
        self.claim("email")
    }

    /// The verified phone number.
    pub fn phone(&self) -> &str {
        self.claim("phone_number")
    }

    /// The id under which services know this person.
    pub fn id(&self) -> UserId {
        UserId::from_uuid(self.claim("sub").parse().expect("a UUID"))
    }

    fn context(&self) -> Option<RequestContext> {
        match &self.0 {
            Kind::SignedIn { claims, .. } => Some(context(json!({ "authorizer": { "claims": claims } }))),
            Kind::Service => Some(iam_context()),
            Kind::Nobody => None,
        }
    }
}

/// What the gateway says of a call that another service signed.
pub fn iam_context() -> RequestContext {
    let arn = "arn:aws:sts::000000000000:assumed-role/orders/orders";
    context(json!({ "identity": { "userArn": arn, "accessKey": "ASIATEST", "caller": "AROATEST:orders" } }))
}

fn context(mut parts: Value) -> RequestContext {
    parts["httpMethod"] = "GET".into();
    parts["requestId"] = uuid::Uuid::new_v4().to_string().into();
    let context: ApiGatewayProxyRequestContext = serde_json::from_value(parts).expect("a request context");
    RequestContext::ApiGatewayV1(context)
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// Asserts that this is a well-formed problem document.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let document = self.json();
        assert_eq!(document["code"], code, "{}", self.text);
        assert_eq!(document["status"], status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(document["instance"].as_str(), self.header("x-request-id"), "{}", self.text);
        document
    }

    /// Asserts a 422 that names exactly these fields.
    #[track_caller]
    pub fn expect_bad_fields(&self, fields: &[&str]) {
        assert_eq!(self.bad_fields(), fields, "{}", self.text);
    }

    /// The fields that a 422 names.
    #[track_caller]
    pub fn bad_fields(&self) -> Vec<String> {
        let document = self.expect_problem(422, "invalid_request");
        let errors = document["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().expect("a field's name").to_owned()).collect()
    }
}
