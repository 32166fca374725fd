//! No log line names anybody, or carries what opens an account or a purse.
//!
//! Every route is driven, with good requests and bad ones, in good weather and
//! in bad, at the most talkative level that the services' own code has.

use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use in_process_tests::{Caller, World, world::sqs_record};
use serde_json::{Value, json};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Own code says everything; the SDK what it says by default.
const LEVELS: &str = "info,chassis=trace,users=trace,products=trace,orders=trace,payments=trace,notifications=trace";

/// Where all log lines go.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Logs as the functions do, but into memory.
    fn start() -> Self {
        let log = Self::default();
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_env_filter(EnvFilter::new(LEVELS))
            .with_writer(log.clone())
            .init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const BEARER: &str = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LWNsYWltcw.c2VjcmV0LXNpZ25hdHVyZQ";
const NAME: &str = "Ada Quillfeather";
const TOKENS: [&str; 5] = ["tok_accepted", "tok_declined", "tok_capture_refused", "tok_flaky", "tok_unheard_of_4711"];

struct Drive {
    world: World,
    ada: Caller,
}

impl Drive {
    /// A request with everything in it that must not be seen.
    async fn send(&self, person: &Caller, method: &str, path: &str, body: Option<Value>) -> Value {
        let headers = [("authorization", format!("Bearer {BEARER}")), ("idempotency-key", uuid::Uuid::new_v4().into())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.world.send_with(person, method.parse::<Method>().unwrap(), path, body, &headers).await.json()
    }

    async fn order(&self, product: &str, token: &str) -> Value {
        let body = json!({ "items": [{ "product_id": product, "quantity": 1 }], "payment_method": token });
        self.send(&self.ada, "POST", "/orders", Some(body)).await
    }

    async fn settle(&self) {
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
        let heard = json!({ "email": ada.email(), "phone": ada.phone(), "as_of": ada.issued_at() });
        self.send(&Caller::service(), "POST", &format!("{path}/validate"), Some(heard)).await;
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
            self.settle().await;
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
            self.settle().await;
        }
        let bad = json!({ "items": TOKENS, "payment_method": [TOKENS[0]], "email": self.ada.email() });
        self.send(&self.ada, "POST", "/orders", Some(bad)).await;
    }

    async fn payments(&self) {
        let order = format!("ord_{}", uuid::Uuid::now_v7());
        let recipient = json!({ "name": NAME, "email": self.ada.email(), "phone": self.ada.phone() });
        let request = json!({
            "order_id": order, "user_id": self.ada.id(), "amount": 19.99, "currency": "USD",
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
}

#[tokio::test]
async fn no_log_line_has_a_name_an_address_a_number_a_token_or_a_means_of_payment() {
    let log = Log::start();
    let drive = Drive { world: World::start().await, ada: Caller::named("Ada Quillfeather") };
    let details = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 50 });
    // An administrator's token is looked at, so it must be a good one.
    let (admin, token) = (Caller::admin(), Caller::admin().token());
    let genuine = [("authorization", admin.token())];
    let genuine = genuine.each_ref().map(|(name, value)| (*name, value.as_str()));
    let product =
        drive.world.send_with(&admin, Method::POST, "/products", Some(details.clone()), &genuine).await.json();
    let product = product["id"].as_str().unwrap();
    let swapped = [("authorization", token.as_str())];
    let refused = drive.world.send_with(&admin, Method::POST, "/products", Some(details), &swapped).await;
    refused.expect_problem(401, "unauthenticated");

    drive.users().await;
    drive.orders(product).await;
    drive.payments().await;
    drive.messages().await;
    // Everything once more, and everything that it needs fails.
    for trouble in ["payments", "products", "users", "sqs", "email", "sns", "dynamodb"] {
        drive.world.cloud.take_down(trouble);
        drive.order(product, "tok_accepted").await;
        drive.settle().await;
        drive.users().await;
        drive.payments().await;
        drive.world.cloud.bring_back();
    }
    drive.world.cloud.answer_mail(|mail| {
        Some((400, json!({ "__type": "MessageRejected", "message": format!("Address is not verified: {mail}") })))
    });
    drive.order(product, "tok_accepted").await;
    drive.settle().await;
    let gone = Request::delete(format!("/users/{}", drive.ada.id())).body(Body::empty()).unwrap();
    drive.world.send_raw(&drive.ada, gone).await.expect(StatusCode::NO_CONTENT);

    let text = log.text();
    for line in ["answered", "order moved", "request refused", "request failed", "not sent", "left to the worker"] {
        assert!(text.contains(line), "the log has no \"{line}\": was everything driven?");
    }
    let secrets = [NAME, "Quillfeather", drive.ada.email(), drive.ada.phone(), "mallory@example.org", BEARER];
    let tokens = [genuine[0].1, swapped[0].1];
    for secret in secrets.into_iter().chain(TOKENS).chain(tokens) {
        let found = text.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "\"{secret}\" is in the log: {found:?}");
    }
}
