//! A test that logs contain no personal data, no tokens and no payment methods.
//!
//! The test sends valid and invalid requests to every route, while all dependencies
//! work and while one of them fails. The services' own code logs at the most
//! detailed level.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use chassis::{
    config::Configuration,
    telemetry::{self, TelemetryConfig},
};
use http::{Method, Request, StatusCode};
use in_process_tests::{
    Caller, World,
    shop::order_request,
    world::{email_feedback, sqs_record},
};
use serde_json::{Value, json};

/// The services' own code logs at all levels. All other code, such as the SDK, logs at
/// the level `info` and above.
const LEVELS: &str = "info,chassis=trace,users=trace,products=trace,orders=trace,payments=trace,notifications=trace";

/// Collects all log lines and the lines about spans.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    /// Starts to write as the functions do, but into memory.
    fn start() -> Self {
        let log = Self::default();
        let config = TelemetryConfig::from_variables(&|name| match name {
            "RUST_LOG" => Some(LEVELS.to_owned()),
            "TRACE_SPANS" => Some("log".to_owned()),
            _ => None,
        });
        let lines = log.clone();
        let sink = move |line: &str| lines.0.lock().unwrap().push_str(line);
        tracing::dispatcher::set_global_default(telemetry::dispatch("users", config.unwrap(), sink)).unwrap();
        log
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

const BEARER: &str = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LWNsYWltcw.c2VjcmV0LXNpZ25hdHVyZQ";
const NAME: &str = "Ada Quillfeather";
const TOKENS: [&str; 5] = ["tok_accepted", "tok_declined", "tok_capture_refused", "tok_flaky", "tok_unheard_of_4711"];

/// Sends requests and events with data that must not be logged.
struct Exercise {
    world: World,
    ada: Caller,
}

impl Exercise {
    /// Sends a request with a token and an idempotency key.
    async fn send(&self, caller: &Caller, method: &str, path: &str, body: Option<Value>) -> Value {
        let headers = [("authorization", format!("Bearer {BEARER}")), ("idempotency-key", uuid::Uuid::new_v4().into())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.world.send_with(caller, method.parse::<Method>().unwrap(), path, body, &headers).await.json()
    }

    async fn order(&self, product: &str, token: &str) -> Value {
        self.send(&self.ada, "POST", "/orders", Some(order_request(&[(product, 1)], token))).await
    }

    async fn run_background_work(&self) {
        self.world.deliver_stream().await;
        self.world.sweep().await;
        self.world.deliver_messages().await;
    }

    async fn users(&self) {
        let (ada, path) = (&self.ada, format!("/users/{}", self.ada.id()));
        let profile = json!({ "name": NAME, "email": ada.email() });
        for body in [profile.clone(), profile.clone(), json!({ "name": NAME, "email": "mallory@example.org" })] {
            self.send(ada, "POST", "/users", Some(body)).await;
        }
        self.send(ada, "POST", "/users", Some(json!({ "name": [ada.email()], "email": { "at": ada.phone() } }))).await;
        self.send(ada, "POST", "/users", Some(json!({ ada.email(): ada.phone() }))).await;
        self.send(ada, "PATCH", &path, Some(json!({ "name": format!("{NAME}\u{202e}") }))).await;
        self.send(ada, "PATCH", &path, Some(json!({ "email": ada.email() }))).await;
        self.send(ada, "GET", &path, None).await;
        self.send(&Caller::named("Mallory"), "GET", &path, None).await;
        self.send(&Caller::anonymous(), "GET", &path, None).await;
        let contact = json!({ "email": ada.email(), "phone": ada.phone(), "as_of": ada.issued_at() });
        self.send(&Caller::service(), "POST", &format!("{path}/validate"), Some(contact)).await;
        for collection in ["users", "products", "orders", "payments"] {
            self.send(ada, "GET", &format!("/{collection}/{}", ada.email()), None).await;
        }
        let broken = format!("{{\"email\": \"{}\", \"phone\": \"{}\" ", ada.email(), ada.phone());
        for content_type in ["application/json", "text/plain"] {
            let request = Request::post("/users").header("content-type", content_type);
            self.world.send_raw(ada, request.body(Body::from(broken.clone())).unwrap()).await;
        }
    }

    async fn orders(&self, product: &str) {
        for token in TOKENS {
            let placed = self.order(product, token).await;
            self.run_background_work().await;
            let id = placed["id"].as_str().or(placed["order_id"].as_str()).unwrap_or("ord_none").to_owned();
            for (method, path) in [
                ("GET", format!("/orders/{id}")),
                ("GET", "/orders?status=DONE".to_owned()),
                ("POST", format!("/orders/{id}/cancel")),
                ("GET", format!("/payments/{}", id.replace("ord_", "pay_"))),
            ] {
                self.send(&self.ada, method, &path, None).await;
                self.send(&Caller::named("Mallory"), method, &path, None).await;
            }
            self.run_background_work().await;
        }
        let bad = json!({ "items": TOKENS, "payment_method": [TOKENS[0]], "email": self.ada.email() });
        self.send(&self.ada, "POST", "/orders", Some(bad)).await;
    }

    async fn payments(&self) {
        let order = format!("ord_{}", uuid::Uuid::now_v7());
        let recipient = json!({ "name": NAME, "email": self.ada.email(), "phone": self.ada.phone() });
        let request = json!({
            "order_id": order, "user_id": self.ada.id(), "amount": { "minor": 1999, "currency": "USD" },
            "payment_method": TOKENS[4], "recipient": recipient,
        });
        self.send(&Caller::service(), "POST", "/payments", Some(request.clone())).await;
        let mut bad = request;
        bad["amount"] = json!(self.ada.email());
        bad["recipient"]["email"] = json!(format!("<{}>", self.ada.email()));
        self.send(&Caller::service(), "POST", "/payments", Some(bad)).await;
    }

    async fn messages(&self) {
        let person = json!({ "name": NAME, "email": self.ada.email(), "phone": self.ada.phone() });
        for body in [
            person.to_string(),
            format!("not JSON at all: {person}"),
            json!({ "specversion": "1.0", "type": "OrderCreated", "data": { "recipient": person } }).to_string(),
            json!({ "specversion": "1.0", "type": self.ada.email(), "id": self.ada.phone(), "data": person })
                .to_string(),
        ] {
            let payload = json!({ "Records": [sqs_record("m-1", &body)] });
            self.world.invoke_notifications(&payload).await.unwrap();
        }
    }

    /// SES reports a bounce, once with and once without what identifies the customer.
    async fn bounces(&self) {
        let report = email_feedback("Email Bounced", self.world.cloud.mails().first().expect("an e-mail"));
        let mut broken = report.clone();
        broken["detail"]["mail"]["tags"] = json!({ "user": [self.ada.email()], "order": self.ada.email() });
        for report in [report, broken] {
            let payload = json!({ "Records": [sqs_record("m-1", &report.to_string())] });
            self.world.invoke_notifications(&payload).await.unwrap();
        }
    }
}

#[tokio::test]
async fn no_log_line_contains_a_name_an_email_a_phone_number_a_token_or_a_payment_method() {
    let log = Log::start();
    let exercise = Exercise { world: World::start().await, ada: Caller::named("Ada Quillfeather") };
    let details = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 50 });
    // The services verify an administrator's token themselves, so the token must be
    // genuine.
    let (admin, token) = (Caller::admin(), Caller::admin().token());
    let genuine = [("authorization", admin.token())];
    let genuine = genuine.each_ref().map(|(name, value)| (*name, value.as_str()));
    let product =
        exercise.world.send_with(&admin, Method::POST, "/products", Some(details.clone()), &genuine).await.json();
    let product = product["id"].as_str().unwrap();
    let swapped = [("authorization", token.as_str())];
    let refused = exercise.world.send_with(&admin, Method::POST, "/products", Some(details), &swapped).await;
    refused.expect_problem(401, "unauthenticated");

    exercise.users().await;
    exercise.orders(product).await;
    exercise.payments().await;
    exercise.messages().await;
    // The requests are repeated while one dependency after another is down.
    for host in ["payments", "products", "users", "sqs", "email", "sns", "dynamodb"] {
        exercise.world.cloud.take_down(host);
        exercise.order(product, "tok_accepted").await;
        exercise.run_background_work().await;
        exercise.users().await;
        exercise.payments().await;
        exercise.world.cloud.bring_back();
    }
    exercise.world.cloud.answer_mail(|mail| {
        Some((400, json!({ "__type": "MessageRejected", "message": format!("Address is not verified: {mail}") })))
    });
    exercise.order(product, "tok_accepted").await;
    exercise.run_background_work().await;
    exercise.bounces().await;
    let gone = Request::delete(format!("/users/{}", exercise.ada.id())).body(Body::empty()).unwrap();
    exercise.world.send_raw(&exercise.ada, gone).await.expect(StatusCode::NO_CONTENT);

    let text = log.text();
    for line in [
        "answered",
        "order transition",
        "begin",
        "PutItem",
        "request refused",
        "request failed",
        "not sent",
        "not welcome",
        "left to the worker",
    ] {
        assert!(text.contains(line), "no log line contains \"{line}\": not every route was called");
    }
    let secrets = [NAME, "Quillfeather", exercise.ada.email(), exercise.ada.phone(), "mallory@example.org", BEARER];
    let tokens = [genuine[0].1, swapped[0].1];
    for secret in secrets.into_iter().chain(TOKENS).chain(tokens) {
        let found = text.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "\"{secret}\" is in the log: {found:?}");
    }
}
