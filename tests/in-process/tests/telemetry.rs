//! What the functions write about their work: log lines in one format, and spans that
//! form one trace from the request to the customer's e-mail.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body};
use chassis::id::UserId;
use http::{Method, Request, StatusCode};
use in_process_tests::{Caller, World, shop::order_request};
use serde_json::{Value, json};

const SPANS: [(&str, &str); 1] = [("TRACE_SPANS", "log")];
const EVERYTHING: [(&str, &str); 2] = [("TRACE_SPANS", "log"), ("LOG_DEBUG_SHARE", "1")];
const FUNCTIONS: [&str; 6] = ["notifications", "order-worker", "orders", "payments", "products", "users"];

/// A shop with one customer and one product, whose functions' lines are recorded.
async fn recorded_shop(settings: &[(&str, &str)]) -> (World, Caller, String) {
    let world = World::start().await;
    let customer = world.customer("Ada").await;
    let product = world.product("19.99", 5).await;
    world.cloud.record_lines(settings);
    (world, customer, product)
}

/// Places an order, and lets the worker and the notifier finish it. Returns the response.
async fn play(world: &World, customer: &Caller, product: &str, token: &str) -> Value {
    let placed = world.place(customer, order_request(&[(product, 1)], token), "the-key").await.json();
    world.deliver_stream().await;
    world.deliver_messages().await;
    placed
}

/// A span, from the two lines about it.
#[derive(Clone, Debug)]
struct Span {
    begin: Value,
    end: Value,
}

impl Span {
    fn name(&self) -> &str {
        self.begin["name"].as_str().unwrap()
    }

    fn service(&self) -> &str {
        self.begin["service"].as_str().unwrap()
    }

    fn outcome(&self) -> &str {
        self.end["outcome"].as_str().unwrap_or("none")
    }

    fn links(&self) -> Vec<&str> {
        self.begin["links"].as_array().into_iter().flatten().map(|link| link.as_str().unwrap()).collect()
    }

    fn context(&self) -> String {
        format!("00-{}-{}-01", self.begin["trace_id"].as_str().unwrap(), self.begin["span_id"].as_str().unwrap())
    }
}

/// All spans, by their ids. Asserts that each of them has ended.
fn spans(lines: &[Value]) -> HashMap<String, Span> {
    let id = |line: &Value| line["span_id"].as_str().unwrap().to_owned();
    let of = |phase: &'static str| lines.iter().filter(move |line| line["span"] == phase);
    let ends: HashMap<_, _> = of("end").map(|line| (id(line), line.clone())).collect();
    let span = |line: &Value| Span { begin: line.clone(), end: ends.get(&id(line)).expect("the span's end").clone() };
    of("begin").map(|line| (id(line), span(line))).collect()
}

/// The names of the steps, sorted, each once.
fn steps(spans: &HashMap<String, Span>) -> Vec<&str> {
    let steps = spans.values().filter(|span| span.name() == "step").map(|span| span.begin["step"].as_str().unwrap());
    steps.collect::<BTreeSet<_>>().into_iter().collect()
}

fn named<'a>(spans: &'a HashMap<String, Span>, service: &str, name: &str) -> Vec<&'a Span> {
    let mut found: Vec<_> = spans.values().filter(|span| (span.service(), span.name()) == (service, name)).collect();
    found.sort_by_key(|span| span.begin["at"].as_i64());
    found
}

#[tokio::test]
async fn the_spans_of_an_order_form_one_trace_from_the_request_to_the_message() {
    let (world, customer, product) = recorded_shop(&SPANS).await;
    let placed = play(&world, &customer, &product, "tok_accepted").await;
    assert_eq!(placed["status"], "CONFIRMED");

    let all = spans(&world.cloud.lines());
    let request = named(&all, "orders", "request")[0].clone();
    let trace = &request.begin["trace_id"];
    let spans: HashMap<_, _> = all.into_iter().filter(|(_, span)| span.begin["trace_id"] == *trace).collect();
    let services: BTreeSet<_> = spans.values().map(Span::service).collect();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), FUNCTIONS);

    // Within what one waits for, each span is in another span of the trace.
    let roots: Vec<_> = spans.values().filter(|span| span.begin["parent_id"].is_null()).collect();
    for span in spans.values().filter(|span| !span.begin["parent_id"].is_null()) {
        let parent = spans.get(span.begin["parent_id"].as_str().unwrap());
        let parent = parent.unwrap_or_else(|| panic!("{span:?} has an unknown parent"));
        assert!(parent.begin["at"].as_i64() <= span.begin["at"].as_i64());
        assert!(span.end["at"].as_i64() <= parent.end["at"].as_i64(), "{span:?} ended after {parent:?}");
    }
    // Across the stream and the queue, a link leads to the span of the producer.
    let of = |service: &str| roots.iter().filter(|root| root.service() == service).collect::<Vec<_>>();
    assert_eq!((of("orders").len(), of("order-worker").len()), (1, 1));
    let worker = of("order-worker")[0];
    assert_eq!((worker.name(), worker.links()[0]), ("order", &*request.context()));
    let published: Vec<_> = spans.values().filter(|span| span.name() == "publish").map(Span::context).collect();
    let messages = of("notifications");
    assert!(published.len() == 2 && messages.len() == 2, "{published:?} {messages:?}");
    for message in messages {
        assert!(published.iter().any(|context| context == message.links()[0]), "{message:?}");
    }
    assert_eq!(roots.len(), 4);

    // Each step and each call is a span.
    let expected = ["authorise payment", "capture payment", "publish OrderCreated", "reserve stock", "validate user"];
    assert_eq!(steps(&spans), expected);
    for name in ["request", "order", "message", "step", "call", "attempt", "publish", "provider", "send", "aws"] {
        let of_this_name: Vec<_> = spans.values().filter(|span| span.name() == name).collect();
        assert!(!of_this_name.is_empty(), "there is no span {name}");
        assert!(name == "request" || of_this_name.iter().all(|span| span.outcome() == "ok"), "{of_this_name:?}");
    }
    let operations: BTreeSet<_> =
        spans.values().filter_map(|span| span.end["operation"].as_str()).map(str::to_owned).collect();
    let expected = [
        "DynamoDB_20120810.TransactWriteItems",
        "AmazonSQS.SendMessage",
        "/v2/email/outbound-emails",
        "Action=Publish",
    ];
    for operation in expected {
        assert!(operations.contains(operation), "{operations:?}");
    }
}

#[tokio::test]
async fn each_attempt_after_a_failure_and_each_refusal_of_the_breaker_is_a_span() {
    let (world, customer, product) = recorded_shop(&SPANS).await;
    world.cloud.take_down("payments");
    for key in ["one", "two", "three"] {
        let placed = world.place(&customer, order_request(&[(&product, 1)], "tok_accepted"), key).await;
        placed.expect(StatusCode::ACCEPTED);
    }
    let spans = spans(&world.cloud.lines());
    let call = named(&spans, "orders", "call").into_iter().find(|call| call.begin["to"] == "payments").unwrap();
    assert!(call.outcome().starts_with("no usable response"), "{call:?}");
    let attempts = named(&spans, "orders", "attempt");
    let of_call: Vec<_> =
        attempts.iter().filter(|attempt| attempt.begin["parent_id"] == call.begin["span_id"]).collect();
    let numbers: Vec<_> = of_call.iter().map(|attempt| attempt.begin["attempt"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2]);
    assert!(of_call.iter().all(|attempt| attempt.outcome().starts_with("no usable response")), "{of_call:?}");
    let refused = attempts.iter().filter(|attempt| attempt.outcome().contains("circuit open")).count();
    assert!(refused > 0, "{attempts:?}");
    let step = named(&spans, "orders", "step").into_iter().find(|step| step.begin["step"] == "authorise payment");
    assert_eq!(step.unwrap().outcome(), "no usable answer");
}

#[tokio::test]
async fn a_refused_order_shows_the_refusal_in_its_spans_and_its_reason_in_its_log_lines() {
    let (world, customer, product) = recorded_shop(&SPANS).await;
    play(&world, &customer, &product, "tok_declined").await;
    let lines = world.cloud.lines();
    let all = spans(&lines);
    let step = named(&all, "orders", "step").into_iter().find(|step| step.begin["step"] == "authorise payment");
    assert_eq!(step.unwrap().outcome(), "refused: payment_declined");
    let attempt = named(&all, "orders", "attempt").into_iter().find(|attempt| attempt.begin["to"] == "payments");
    assert_eq!(attempt.unwrap().outcome(), "refused: payment_declined");
    let compensations = named(&all, "orders", "step")
        .into_iter()
        .filter(|step| ["release stock", "cancel payment"].contains(&step.begin["step"].as_str().unwrap()));
    assert_eq!(compensations.count(), 2);
    let transition = lines.iter().find(|line| line["message"] == "order transition").unwrap();
    assert_eq!((&transition["to"], &transition["reason"]), (&json!("CANCELLING"), &json!("payment_declined")));
}

#[tokio::test]
async fn a_refused_order_shows_only_the_steps_that_it_needed_and_says_why_no_message_was_sent() {
    let (world, customer, product) = recorded_shop(&SPANS).await;
    let refused = play(&world, &customer, &product, "tok_declined").await;
    assert_eq!(refused["code"], "payment_declined");

    let lines = world.cloud.lines();
    let expected = [
        "authorise payment",
        "cancel payment",
        "publish OrderCancelled",
        "release stock",
        "reserve stock",
        "validate user",
    ];
    assert_eq!(steps(&spans(&lines)), expected);
    let unsent: Vec<_> = lines.iter().filter(|line| line["message"] == "no message is sent").collect();
    let [unsent] = unsent.as_slice() else { panic!("{unsent:?}") };
    assert_eq!(unsent["reason"], "the response to the request has told the customer that the order was refused");
    assert_eq!(unsent["order_id"], refused["order_id"]);
}

/// Serves the users service by code that only records the headers of its requests.
fn record_headers(world: &World) -> Arc<Mutex<Vec<http::HeaderMap>>> {
    let headers = Arc::new(Mutex::new(Vec::new()));
    let seen = headers.clone();
    let users = Router::new().fallback(move |request: Request<Body>| async move {
        seen.lock().unwrap().push(request.headers().clone());
        StatusCode::SERVICE_UNAVAILABLE
    });
    world.cloud.serve("users", users);
    headers
}

#[tokio::test]
async fn an_xray_header_is_continued_and_passed_on() {
    let (world, customer, product) = recorded_shop(&SPANS).await;
    let headers = record_headers(&world);
    let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let body = order_request(&[(&product, 1)], "tok_accepted");
    world.send_with(&customer, Method::POST, "/orders", Some(body), &[("x-amzn-trace-id", xray)]).await;

    let all = spans(&world.cloud.lines());
    let request = named(&all, "orders", "request")[0];
    assert_eq!(request.begin["trace_id"], "5759e988bd862e3fe1be46a994272793");
    assert_eq!(request.begin["parent_id"], "53995c3f42cd8ad8");
    let headers = headers.lock().unwrap().clone();
    assert_eq!(headers[0]["x-amzn-trace-id"], xray);
    let attempts = named(&all, "orders", "attempt");
    let sent: Vec<_> = headers.iter().map(|headers| headers["traceparent"].to_str().unwrap().to_owned()).collect();
    let of_attempts = attempts.iter().filter(|attempt| attempt.begin["to"] == "users").map(|attempt| attempt.context());
    assert_eq!(sent, of_attempts.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_call_carries_the_span_of_the_request_when_no_spans_are_written() {
    let (world, customer, product) = recorded_shop(&[]).await;
    let headers = record_headers(&world);
    let body = order_request(&[(&product, 1)], "tok_accepted");
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.send_with(&customer, Method::POST, "/orders", Some(body), &[("traceparent", traceparent)]).await;
    let lines = world.cloud.lines();
    let answered = lines.iter().find(|line| line["message"] == "answered" && line["service"] == "orders").unwrap();
    assert_eq!(answered["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let context = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", answered["span_id"].as_str().unwrap());
    assert_eq!(headers.lock().unwrap()[0]["traceparent"].to_str().unwrap(), context);
}

fn schema(name: &str) -> jsonschema::Validator {
    let file = format!("{}/../../docs/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
    jsonschema::validator_for(&serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn each_line_of_each_function_is_as_the_schemas_say() {
    let (world, customer, product) = recorded_shop(&EVERYTHING).await;
    play(&world, &customer, &product, "tok_accepted").await;
    world.cloud.take_down("products");
    let body = order_request(&[(&product, 1)], "tok_accepted");
    world.place(&customer, body, "another-key").await.expect(StatusCode::ACCEPTED);
    world.deliver_stream().await;
    world.cloud.bring_back();
    world.sweep().await;
    world.invoke("order-worker", &json!({ "sweep": true }).to_string()).await.unwrap();
    world
        .invoke_notifications(&json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": "m", "body": "{}" }] }))
        .await
        .unwrap();
    world.get(&customer, "/users/no-id").await;

    let (log_line, span_line) = (schema("log-line"), schema("span-line"));
    let lines = world.cloud.lines();
    for line in &lines {
        let schema = if line["span"].is_null() { &log_line } else { &span_line };
        let errors: Vec<_> = schema.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
    }
    let logged: Vec<_> = lines.iter().filter(|line| line["span"].is_null()).collect();
    let services: BTreeSet<_> = logged.iter().map(|line| line["service"].as_str().unwrap()).collect();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), FUNCTIONS);
    let levels: BTreeSet<_> = logged.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert!(["DEBUG", "ERROR", "INFO", "WARN"].iter().all(|level| levels.contains(level)), "{levels:?}");
    // The only lines without a request are those of `sweep`, which the test calls itself.
    let without = logged.iter().filter(|line| line["request_id"].is_null() && line["service"] != "order-worker");
    assert_eq!(without.count(), 0);
    assert!(logged.iter().all(|line| line["trace_id"].is_string() || line["service"] == "order-worker"));
    for service in FUNCTIONS {
        let cold = logged.iter().filter(|line| line["service"] == service && line["cold_start"] == true);
        assert_eq!(cold.count(), 1, "{service}");
    }
}

#[tokio::test]
async fn all_lines_about_an_order_are_found_by_its_id_and_its_trace() {
    let (world, customer, product) = recorded_shop(&[]).await;
    let placed = play(&world, &customer, &product, "tok_accepted").await;
    let order = placed["id"].as_str().unwrap();
    let lines = world.cloud.lines();
    let traces: BTreeSet<_> =
        lines.iter().filter(|line| line["order_id"] == order).map(|line| line["trace_id"].as_str().unwrap()).collect();
    assert_eq!(traces.len(), 1, "{lines:#?}");
    let of_trace = lines.iter().filter(|line| traces.contains(line["trace_id"].as_str().unwrap_or_default()));
    let services: BTreeSet<_> = of_trace.map(|line| line["service"].as_str().unwrap()).collect();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), FUNCTIONS);
    let of_payment = lines.iter().filter(|line| line["service"] == "payments");
    assert!(of_payment.into_iter().all(|line| line["payment_id"] == order.replace("ord_", "pay_")));
}

#[tokio::test]
async fn no_span_is_written_unless_the_setting_says_so() {
    let (world, customer, product) = recorded_shop(&[]).await;
    play(&world, &customer, &product, "tok_accepted").await;
    let lines = world.cloud.lines();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line["span"].is_null() && line["level"] != "DEBUG"), "{lines:#?}");
}

#[tokio::test]
async fn an_error_is_logged_once() {
    let (world, customer, product) = recorded_shop(&[]).await;
    world.cloud.take_down("dynamodb");
    let body = order_request(&[(&product, 1)], "tok_accepted");
    world.place(&customer, body, "the-key").await.expect_problem(503, "unavailable");
    let lines = world.cloud.lines();
    assert_eq!(lines.iter().filter(|line| line["level"] == "ERROR").count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn the_erasure_of_a_customer_continues_the_trace_of_the_request() {
    let (world, customer, _) = recorded_shop(&SPANS).await;
    let id: UserId = customer.id();
    world.delete(&customer, &format!("/users/{id}")).await.expect(StatusCode::NO_CONTENT);
    world.deliver_user_events().await;
    let all = spans(&world.cloud.lines());
    let request = named(&all, "users", "request")[0];
    let message = named(&all, "order-worker", "message")[0];
    assert_eq!(message.begin["trace_id"], request.begin["trace_id"]);
    assert!(
        message.begin["parent_id"].is_null()
            && message.links()[0].contains(request.begin["trace_id"].as_str().unwrap())
    );
    assert_eq!(message.outcome(), "ok");
}
