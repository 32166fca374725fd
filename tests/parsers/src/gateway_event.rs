//! An event of API Gateway or of a function URL: every request gets a response in
//! a form that the gateway accepts.

use std::sync::LazyLock;

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use chassis::{aws::Aws, clock::Clock, config::Configuration, http::answer};
use orders::saga::steps::SAGAS;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

const ENVIRONMENT: &[(&str, &str)] = &[
    ("AUTH_AUDIENCE", "1example23456789abcdefghij"),
    ("AUTH_ISSUER", "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE01"),
    ("AUTH_JWKS_URL", "https://pool.example/keys"),
    ("CANCELLATION_WINDOW_HOURS", "24"),
    ("ORDERS_TABLE", "orders"),
    ("ORDER_EVENTS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/order-events"),
    ("PAYMENTS_URL", "https://payments.example"),
    ("PRODUCTS_URL", "https://products.example"),
    ("USERS_URL", "https://users.example"),
];

/// A network in which the user pool returns its key set and all tables are empty. All
/// other requests are refused.
#[derive(Debug)]
struct EmptyTables;

impl HttpConnector for EmptyTables {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = match request.uri() {
            uri if uri.contains("pool.example") => (200, include_str!("key_set.json")),
            uri if uri.contains("dynamodb") => (200, "{}"),
            _ => (400, "{}"),
        };
        let status = StatusCode::try_from(status).expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

/// The orders service with the deployed configuration.
static SERVICE: LazyLock<(Runtime, axum::Router)> = LazyLock::new(|| {
    // With a paused clock, the service doesn't wait before it repeats a request.
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let region = Some(Region::from_static("us-east-1"));
    let aws = Aws::new(region, None, Credentials::for_tests(), SharedHttpConnector::new(EmptyTables));
    let variable =
        |name: &str| ENVIRONMENT.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = Configuration::from_variables(&variable).expect("a complete environment");
    (runtime, orders::build(config, &aws, Clock::System, SAGAS))
});

pub(crate) fn check(bytes: &[u8]) {
    let Ok(event) = std::str::from_utf8(bytes) else { return };
    let (runtime, service) = &*SERVICE;
    let answered = runtime.block_on(answer(service.clone(), event, lambda_http::Context::default()));
    let request: Value = serde_json::from_str(event).unwrap_or_default();
    let context = &request["requestContext"];
    let is_request =
        context["http"]["method"].is_string() || (!context["http"].is_object() && request["httpMethod"].is_string());
    let answer = match answered {
        Ok(answer) => serde_json::to_value(answer).expect("an answer in JSON"),
        Err(error) => {
            assert!(!is_request, "the request got no answer: {error}");
            return;
        }
    };
    assert_accepted_form(&answer);
    let path = if context["http"].is_object() { &request["rawPath"] } else { &request["path"] };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if path.as_str().is_some_and(|path| !path.chars().all(plain)) {
        let status = answer["statusCode"].as_u64().unwrap_or_default();
        assert!((400..500).contains(&status), "{path} reaches a resource: {answer}");
    }
}

/// Asserts that a response has the members that the gateways' documentation requires,
/// in both formats of responses.
fn assert_accepted_form(answer: &Value) {
    let status = answer["statusCode"].as_u64().expect("a status");
    assert!((200..600).contains(&status), "{answer}");
    assert_eq!(answer["isBase64Encoded"], false);
    let body = answer["body"].as_str().expect("a body");
    let mut headers = Vec::new();
    for (name, value) in answer["headers"].as_object().expect("headers") {
        headers.push((name, value.as_str().expect("one value")));
    }
    for (name, values) in answer["multiValueHeaders"].as_object().into_iter().flatten() {
        for value in values.as_array().expect("a list of values") {
            headers.push((name, value.as_str().expect("a value")));
        }
    }
    assert!(headers.iter().all(|(_, value)| !value.contains(char::is_control)), "{headers:?}");
    let header = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    assert!(header("x-request-id").is_some(), "{answer}");
    if header("content-type") == Some("application/problem+json") {
        let problem: Value = serde_json::from_str(body).expect("a problem in JSON");
        assert_eq!(problem["status"], status);
    } else {
        assert!(status < 400, "{answer}");
    }
}
