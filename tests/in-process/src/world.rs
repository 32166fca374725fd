//! Starts the real services on a [`Cloud`], and invokes their functions with
//! events as AWS does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use axum::body::Body;
use chassis::{
    aws::Aws,
    clock::Clock,
    config::{ConfigError, Configuration},
    deadline::Deadline,
    dynamo::Table,
    function::FunctionConfig,
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
    reconciliation::{ReconciliationReport, ReconciliationRequest},
    saga::steps::{SAGAS, Saga},
    worker::WorkSummary,
    worker_event::{WorkerEvent, WorkerFunction},
};
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing_subscriber::EnvFilter;

use crate::{
    answer::Answer,
    caller::Caller,
    cloud::Cloud,
    keys::Key,
    running_function::RunningFunction,
    template::{ACCOUNT, Template, entries, list},
};

/// The time for which a confirmed order can be cancelled in a [`World`].
pub const CANCELLATION_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The time at which a token is issued unless a test sets another time, in
/// seconds since 1970. It is earlier than the clock of every test.
pub const ISSUED_AT: i64 = 1_700_000_000;

/// The environment variables of all functions, as the template sets them. The
/// name of each table is the table's logical id.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("AUTH_AUDIENCE", CLIENT),
    ("AUTH_ISSUER", ISSUER),
    ("AUTH_JWKS_URL", "http://pool.test/keys"),
    ("CANCELLATION_WINDOW_HOURS", "24"),
    ("EMAIL_CONFIGURATION_SET", "holdfast-email"),
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

/// The variable whose value differs between the functions.
const CALLERS: &str = "INTERNAL_CALLERS";

/// What EventBridge puts into the queue of order events when SES reports that `mail`, a
/// request to SES, has bounced permanently or has brought a complaint. The e-mail has an
/// id that no stored message has.
pub fn email_feedback(kind: &str, mail: &Value) -> Value {
    let tags = list(&mail["EmailTags"]).map(|tag| {
        let name = tag["Name"].as_str().expect("a tag's name");
        (name.to_owned(), json!([tag["Value"]]))
    });
    json!({
        "version": "0", "id": uuid::Uuid::new_v4(), "detail-type": kind, "source": "aws.ses",
        "account": "000000000000", "time": "2026-11-23T08:00:00Z", "region": "us-east-1", "resources": [],
        "detail": {
            "mail": {
                "messageId": uuid::Uuid::new_v4(), "destination": mail["Destination"]["ToAddresses"],
                "tags": tags.collect::<serde_json::Map<_, _>>(),
            },
            "bounce": { "bounceType": "Permanent", "bounceSubType": "General" },
            "complaint": { "complaintFeedbackType": "abuse" },
        },
    })
}

/// The environment variables that the template gives to a function. The variables that may
/// be missing or empty are left out.
pub fn environment(function: &str) -> BTreeMap<&'static str, String> {
    let template = Template::read();
    let declared = template.functions().find(|declared| declared.name == function);
    let properties = declared.unwrap_or_else(|| panic!("the template has no function {function}")).properties;
    let ignores_globals = list(&properties["IgnoreGlobals"]).any(|ignored| ignored == "Environment");
    let globals = (!ignores_globals).then(|| template.get("Globals.Function.Environment.Variables"));
    let variables = globals.into_iter().chain([&properties["Environment"]["Variables"]]);
    let names: BTreeSet<_> = variables.flat_map(entries).map(|(name, _)| name).collect();
    let known = ENVIRONMENT.iter().map(|(name, _)| *name).chain([CALLERS]);
    let given = known.filter(|name| names.contains(name));
    given.filter_map(|name| Some((name, variable(function, name)?))).collect()
}

/// The value of a function's variable: from [`ENVIRONMENT`], or from the
/// template, which lists the callers of each service.
pub fn variable(function: &str, name: &str) -> Option<String> {
    static CALLERS_OF: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
        let template = Template::read();
        let of = |name: &str| Some((name.to_owned(), template.internal_callers(name)?));
        template.functions().filter_map(|function| of(function.name)).collect()
    });
    if name == CALLERS {
        return CALLERS_OF.get(function).cloned();
    }
    ENVIRONMENT.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

/// Reads a function's configuration from its variables.
pub fn configuration<C: Configuration>(function: &str) -> C {
    C::from_variables(&|name| variable(function, name)).expect("the environment is complete")
}

fn start<C: Configuration>(value_of: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    <(FunctionConfig, C)>::from_variables(value_of).map(drop)
}

/// Reads a function's configuration from [`ENVIRONMENT`] with some variables
/// changed. A variable whose new value is `None` is not set.
///
/// # Errors
///
/// The error that would prevent the function from starting.
pub fn configured(function: &str, changed: &[(&str, Option<String>)]) -> Result<(), ConfigError> {
    let value_of = |name: &str| match changed.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => value.clone(),
        None => variable(function, name),
    };
    match function {
        "notifications" => start::<notifications::config::Config>(&value_of),
        "order-worker" => start::<orders::config::OrderWorkerConfig>(&value_of),
        "orders" => start::<orders::config::OrdersConfig>(&value_of),
        "payments" => start::<payments::config::Config>(&value_of),
        "products" => start::<products::config::Config>(&value_of),
        "users" => start::<users::config::Config>(&value_of),
        other => panic!("there is no function {other}"),
    }
}

/// The host that serves the keys of the user pool.
pub const POOL: &str = "pool.test";
/// The issuer of the user pool's tokens. The payloads in `events/` have the
/// same issuer.
pub const ISSUER: &str = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE01";
/// The app client for which tokens are issued. The payloads in `events/` have
/// the same app client.
pub const CLIENT: &str = "1example23456789abcdefghij";

/// The key with which the user pool signs tokens. All worlds of a process share
/// the key, because generating a key is slow.
pub(crate) static POOL_KEY: LazyLock<Key> = LazyLock::new(|| Key::generate("pool"));

/// All services, and the cloud that they run on.
pub struct World {
    pub cloud: Cloud,
    worker: WorkerFunction,
    pub notifications: notifications::handlers::Function,
    /// The versions of order items that the stream has delivered, as JSON.
    streamed: Mutex<BTreeSet<String>>,
}

impl Drop for World {
    /// Every event that a service has sent in a test must be as the AsyncAPI document describes it.
    fn drop(&mut self) {
        self.cloud.close();
        let undocumented = self.cloud.undocumented_events();
        assert!(undocumented.is_empty() || std::thread::panicking(), "{undocumented:#?}");
    }
}

impl World {
    /// Starts the services with empty tables.
    pub async fn start() -> Self {
        Self::start_at(Clock::System).await
    }

    /// Starts the services on Tokio's clock, which a test can stop and advance.
    pub async fn start_in_test_time() -> Self {
        Self::start_at(Clock::tokio(Timestamp::now())).await
    }

    /// Starts the services on this clock, with empty tables.
    pub async fn start_at(clock: Clock) -> Self {
        Self::start_with(clock, SAGAS).await
    }

    /// Starts the services on this clock and with these tables of saga steps.
    /// The database's tables are empty.
    pub async fn start_with(clock: Clock, sagas: &'static [&'static Saga]) -> Self {
        // Nothing is logged unless RUST_LOG is set:
        // RUST_LOG=info cargo test … -- --nocapture
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
        tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init().ok();
        chassis::metric::redirect(RunningFunction::keep_metrics);
        let cloud = Cloud::start();
        cloud.publish_keys(json!({ "keys": [POOL_KEY.published()] }));
        let aws = aws(cloud.clone()).await;
        cloud.serve("users", users::build(configuration("users"), &aws, clock.clone()));
        cloud.serve("products", products::build(configuration("products"), &aws, clock.clone()));
        cloud.serve("payments", payments::build(configuration("payments"), &aws, clock.clone()));
        cloud.serve("orders", orders::build(configuration("orders"), &aws, clock.clone(), sagas));
        let worker = orders::build_worker(configuration("order-worker"), &aws, clock.clone(), sagas);
        let notifications = notifications::build(configuration("notifications"), &aws, clock);
        cloud.serve("notifications", notifications.router());
        Self { cloud, worker, notifications, streamed: Mutex::default() }
    }

    /// Acts as the stream of the orders table: delivers each new record of an
    /// order that is to be processed at once (`wake` is `now`) to the worker.
    /// Returns the number of records. A record is delivered only once: if the
    /// worker crashes, only a sweep finds its order again.
    pub async fn deliver_stream(&self) -> usize {
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
        let event: WorkerEvent = serde_json::from_value(json!({ "Records": records })).expect("a stream's event");
        let worker = self.worker.clone();
        let event = LambdaEvent::new(event, lambda_context("order-worker"));
        let handled = self.cloud.start_function("order-worker").run(async move { worker.handle(event).await });
        if let Ok(answer) = handled.await {
            answer.expect("the worker acknowledges every record of the stream");
        }
        new.len()
    }

    /// Runs the worker's sweep, as the schedule does each minute. If the sweep
    /// fails, its summary is empty.
    pub async fn sweep(&self) -> WorkSummary {
        self.sweep_within(Duration::from_secs(60)).await
    }

    /// Makes the worker process these orders, as if the stream had delivered a
    /// record of each order.
    pub async fn work(&self, ids: Vec<OrderId>) -> WorkSummary {
        let worker = self.worker.worker.clone();
        let invocation = Invocation::new("worker", Deadline::after(Duration::from_secs(60)));
        let run = async move { worker.work(ids, &invocation).await };
        self.cloud.start_function("order-worker").run(run).await.unwrap_or_default()
    }

    /// Runs a sweep in an invocation that ends after `time`.
    pub async fn sweep_within(&self, time: Duration) -> WorkSummary {
        let worker = self.worker.worker.clone();
        let invocation = Invocation::new("worker", Deadline::after(time));
        let run = async move { invocation.deadline.run(worker.sweep(&invocation)).await };
        match self.cloud.start_function("order-worker").run(run).await {
            Ok(Ok(Ok(outcome))) => outcome,
            // The sweep failed, ran out of time, or was killed.
            _ => WorkSummary::default(),
        }
    }

    /// Invokes the notifications function with a payload, as Lambda does.
    pub async fn invoke_notifications(&self, payload: &Value) -> Result<Value, lambda_http::Error> {
        self.invoke("notifications", &payload.to_string()).await
    }

    /// Invokes a function with the text of an event, as Lambda does. The event
    /// is parsed and the response is serialised by the same code as on Lambda.
    pub async fn invoke(&self, function: &'static str, event: &str) -> Result<Value, lambda_http::Error> {
        let context = lambda_context(function);
        let event = event.to_owned();
        let running = self.cloud.start_function(function);
        let answer = match function {
            "order-worker" => {
                let event: WorkerEvent = serde_json::from_str(&event)?;
                let worker = self.worker.clone();
                running
                    .run(async move {
                        let answer = worker.handle(LambdaEvent::new(event, context)).await?;
                        Ok(serde_json::to_value(answer)?)
                    })
                    .await
            }
            "notifications" => {
                let payload = serde_json::value::RawValue::from_string(event)?;
                let notifications = self.notifications.clone();
                running.run(async move { notifications.handle(LambdaEvent::new(payload, context)).await }).await
            }
            service => {
                let routes = self.cloud.service(service);
                let answer = async move { chassis::http::answer(routes, &event, context).await };
                running.run(async move { Ok(serde_json::to_value(answer.await?)?) }).await
            }
        };
        answer.unwrap_or_else(|_| Err("the invocation was killed".into()))
    }

    /// Reconciles everything, as `make reconcile` does. Returns the kinds of the mismatches, and what each is about.
    pub async fn reconcile(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut request = json!("all");
        loop {
            let event = json!({ "reconcile": request }).to_string();
            let report = self.invoke("order-worker", &event).await.expect("a report");
            for mismatch in list(&report["mismatches"]) {
                let text = |name: &str| mismatch[name].as_str().expect("a text").to_owned();
                found.push((text("kind"), text("subject")));
            }
            if report["next"].is_null() {
                return found;
            }
            request = json!({ "continue": report["next"] });
        }
    }

    /// Continues or begins a reconciliation in an invocation that ends after `time`.
    pub async fn reconcile_within(&self, request: ReconciliationRequest, time: Duration) -> ReconciliationReport {
        let reconciler = self.worker.reconciler.clone();
        let run = async move { reconciler.reconcile(request, Deadline::after(time)).await };
        let report = self.cloud.start_function("order-worker").run(run).await;
        report.expect("nobody kills the invocation").expect("a report")
    }

    /// Acts as the queue of order events: delivers its messages to the
    /// notifications function in one batch, and keeps the messages that the
    /// function reports as failed. The ids of the messages are `m-0`, `m-1` and
    /// so on. Returns the function's response.
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
        let answer = self.cloud.start_function("notifications").run(run).await;
        // An invocation that fails or crashes acknowledges no message.
        let Ok(Ok(answer)) = answer else {
            messages.into_iter().for_each(|message| self.cloud.return_message(message));
            return Value::Null;
        };
        let failures = answer["batchItemFailures"].as_array().expect("a list of failures");
        for (n, message) in messages.into_iter().enumerate() {
            if failures.iter().any(|failure| failure["itemIdentifier"] == format!("m-{n}")) {
                self.cloud.return_message(message);
            }
        }
        answer
    }

    /// Acts as the queue of user events: delivers its messages to the order
    /// worker in one batch, and keeps the messages that the worker reports as
    /// failed. Returns the number of failed messages.
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
            // An invocation that fails or crashes acknowledges no message.
            None => true,
        };
        let again: Vec<_> = messages.into_iter().enumerate().filter(|(n, _)| failed(*n)).map(|(_, m)| m).collect();
        let count = again.len();
        again.into_iter().for_each(|message| self.cloud.return_user_event(message));
        count
    }

    /// Sends a request from `caller`.
    pub async fn send(&self, caller: &Caller, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send_with(caller, method, path, body, &[]).await
    }

    /// Sends a request with additional headers from `caller`.
    pub async fn send_with(
        &self,
        caller: &Caller,
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
        self.send_raw(caller, request.body(body).expect("a request")).await
    }

    /// Sends a request from `caller` whose body need not be JSON.
    pub async fn send_raw(&self, caller: &Caller, mut request: Request<Body>) -> Answer {
        if let Some(context) = caller.context() {
            request.extensions_mut().insert(context);
        }
        // Only callers with groups need a token: the services check groups in
        // the token itself.
        if caller.has_groups() && !request.headers().contains_key(header::AUTHORIZATION) {
            let token = format!("Bearer {}", caller.token()).parse().expect("a header's value");
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let service = service_of(request.uri().path());
        if request.extensions().get::<Context>().is_none() {
            request.extensions_mut().insert(lambda_context(service));
        }
        let router = self.cloud.service(service);
        let Ok(response) = self.cloud.start_function(service).run(router.oneshot(request)).await else {
            // The gateway's response if the function crashes.
            return Answer { status: StatusCode::BAD_GATEWAY, headers: HeaderMap::new(), text: String::new() };
        };
        let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    pub async fn get(&self, caller: &Caller, path: &str) -> Answer {
        self.send(caller, Method::GET, path, None).await
    }

    pub async fn post(&self, caller: &Caller, path: &str, body: Value) -> Answer {
        self.send(caller, Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, caller: &Caller, path: &str, body: Value) -> Answer {
        self.send(caller, Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, caller: &Caller, path: &str) -> Answer {
        self.send(caller, Method::DELETE, path, None).await
    }

    /// Creates a customer with a profile.
    pub async fn customer(&self, name: &str) -> Caller {
        let caller = Caller::named(name);
        let body = json!({ "name": name, "email": caller.email() });
        self.post(&caller, "/users", body).await.expect(StatusCode::CREATED);
        caller
    }
}

/// The AWS configuration that a function loads, with `connector` in place of the
/// network.
pub async fn aws(connector: impl HttpConnector + 'static) -> Aws {
    let region = Some(Region::from_static("us-east-1"));
    Aws::new(region, None, Credentials::for_tests(), SharedHttpConnector::new(connector))
}

/// A client for the table `name` that sends its requests through `connector`.
pub async fn table(connector: impl HttpConnector + 'static, name: &str) -> Table {
    Table::new(aws_sdk_dynamodb::Client::new(&aws(connector).await.config), name)
}

/// The Lambda context of an invocation whose deadline is the function's timeout
/// in the template.
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

/// The record of a message in the event with which SQS invokes a function.
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

/// The service to which the gateway routes a path.
fn service_of(path: &str) -> &'static str {
    let path = path.trim_start_matches('/');
    let path = path.strip_prefix("health/").or(path.strip_prefix("pauses/")).unwrap_or(path);
    match path.split(['/', '?']).next().unwrap_or_default() {
        "users" => "users",
        "products" | "reservations" | "stock" => "products",
        "orders" | "open-orders" => "orders",
        "payments" => "payments",
        "notifications" | "messages" => "notifications",
        other => panic!("the gateway knows no /{other}"),
    }
}

/// The ARN of the session in which a function runs. The name of its role is the
/// role's logical id in the template.
pub fn session(function: &str) -> String {
    static ROLES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
        let template = Template::read();
        template.functions().map(|function| (function.name.to_owned(), function.role().to_owned())).collect()
    });
    let role = ROLES.get(function).unwrap_or_else(|| panic!("the template has no function {function}"));
    format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{function}")
}

/// The request context that a function URL adds to a request whose signer has
/// this ARN.
pub fn url_context(arn: &str) -> RequestContext {
    let context = json!({
        "http": { "method": "POST", "path": "/" },
        "requestId": uuid::Uuid::new_v4(),
        "routeKey": "$default",
        "authorizer": { "iam": { "userArn": arn, "accessKey": "ASIATEST", "accountId": ACCOUNT } },
    });
    RequestContext::ApiGatewayV2(serde_json::from_value(context).expect("a request context"))
}

/// The context of a request through API Gateway, with these members.
pub fn context(mut parts: Value) -> RequestContext {
    parts["httpMethod"] = "GET".into();
    parts["requestId"] = uuid::Uuid::new_v4().to_string().into();
    let context: ApiGatewayProxyRequestContext = serde_json::from_value(parts).expect("a request context");
    RequestContext::ApiGatewayV1(context)
}
