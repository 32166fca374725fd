//! Tests of unusual requests that a client can send through a gateway. A function
//! must send an HTTP response to each of them, because a failed invocation raises
//! an alarm.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use in_process_tests::{Caller, World};
use lambda_http::aws_lambda_events::apigw::{ApiGatewayProxyResponse, ApiGatewayV2httpResponse};
use serde_json::{Value, json};

const CUSTOMER: &str = "5f0b7a52-6c1e-4f0e-9a37-0d6b8f0c2a11";

/// A world in which Charles, the customer of the payloads in `events/`, has a
/// profile.
struct Api {
    world: World,
    id: String,
}

/// The Lambda event of a request, in format 1.0 (REST API) or 2.0 (HTTP API).
#[derive(Clone, Debug)]
struct Event(Value);

/// The response that a gateway sends to the client.
#[derive(Debug)]
struct Answer {
    status: u64,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Api {
    async fn start() -> Self {
        let world = World::start().await;
        let charles = Caller::named("Charles").with_claim("sub", CUSTOMER);
        let body = json!({ "name": "Charles", "email": charles.email() });
        world.post(&charles, "/users", body).await.expect(StatusCode::CREATED);
        Self { world, id: format!("user_{CUSTOMER}") }
    }

    fn path(&self) -> String {
        format!("/users/{}", self.id)
    }

    /// The events of a request that reads the profile of Charles, in both formats.
    fn read_events(&self) -> [Event; 2] {
        [Event::v1("GET", "/users/{id}", &self.path()), Event::v2("GET", "/users/{id}", &self.path())]
    }

    async fn answer(&self, function: &'static str, event: &Event) -> Answer {
        self.answer_to_text(function, &event.0.to_string()).await
    }

    async fn answer_to_text(&self, function: &'static str, event: &str) -> Answer {
        let answer = self.world.invoke(function, event).await.unwrap_or_else(|error| panic!("{error}: {event}"));
        let headers = answer["headers"].as_object().expect("headers").iter();
        let mut headers: Vec<_> = headers.map(|(name, value)| (name.clone(), as_text(value))).collect();
        for (name, values) in answer["multiValueHeaders"].as_object().into_iter().flatten() {
            let values = values.as_array().expect("all values of a header");
            headers.extend(values.iter().map(|value| (name.clone(), as_text(value))));
        }
        let answer = Answer {
            status: answer["statusCode"].as_u64().expect("a status"),
            headers,
            body: serde_json::from_str(&as_text(&answer["body"])).unwrap_or_default(),
        };
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
        answer
    }

    async fn expect_refusal(&self, function: &'static str, event: &Event, status: u64, code: &str) -> Answer {
        let answer = self.answer(function, event).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{event:?}");
        answer
    }

    async fn expect_served(&self, event: &Event) {
        let answer = self.answer("users", event).await;
        assert_eq!((answer.status, &answer.body["name"]), (200, &json!("Charles")), "{event:?}");
    }
}

fn as_text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Event {
    /// The event of a REST API.
    fn v1(method: &str, resource: &str, path: &str) -> Self {
        let mut event: Value =
            serde_json::from_str(include_str!("../../../events/users/http-v1-create-profile.json")).unwrap();
        (event["httpMethod"], event["requestContext"]["httpMethod"]) = (method.into(), method.into());
        (event["resource"], event["requestContext"]["resourcePath"]) = (resource.into(), resource.into());
        event["path"] = path.into();
        event["body"] = Value::Null;
        Self(event)
    }

    /// The event of an HTTP API.
    fn v2(method: &str, resource: &str, path: &str) -> Self {
        let mut event: Value =
            serde_json::from_str(include_str!("../../../events/users/http-v2-read-profile.json")).unwrap();
        let key = format!("{method} {resource}");
        (event["routeKey"], event["requestContext"]["routeKey"]) = (key.as_str().into(), key.into());
        (event["rawPath"], event["requestContext"]["http"]["path"]) = (path.into(), path.into());
        event["requestContext"]["http"]["method"] = method.into();
        Self(event)
    }

    fn is_v1(&self) -> bool {
        self.0["httpMethod"].is_string()
    }

    fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.0.pointer_mut(parent).unwrap()[name] = value.into();
        self
    }

    fn without(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.0.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        self
    }

    fn with_header(self, name: &str, value: &str) -> Self {
        let values = json!([value]);
        let is_v1 = self.is_v1();
        let event = self.with(&format!("/headers/{name}"), value);
        if is_v1 { event.with(&format!("/multiValueHeaders/{name}"), values) } else { event }
    }

    fn with_body(self, body: &str) -> Self {
        self.with_header("content-type", "application/json").with("/body", body)
    }
}

#[tokio::test]
async fn an_irrelevant_header_with_control_characters_is_ignored() {
    let api = Api::start().await;
    for event in api.read_events() {
        for value in ["\u{1}", "a\0b", "a\r\nb", "\u{7f}", "\u{80}", "é", "", " "] {
            api.expect_served(&event.clone().with_header("x-thing", value)).await;
        }
        for name in ["", "a b", "ä", "\u{1}", "a:b"] {
            api.expect_served(&event.clone().with_header(name, "x")).await;
        }
    }
}

/// If the key were ignored, each repeated request would take effect again.
#[tokio::test]
async fn an_idempotency_key_with_control_characters_is_refused() {
    let api = Api::start().await;
    for event in [Event::v1("POST", "/orders", "/orders"), Event::v2("POST", "/orders", "/orders")] {
        let items = json!([{ "product_id": format!("prod_{CUSTOMER}"), "quantity": 1 }]);
        let body = json!({ "items": items, "payment_method": "tok_accepted" });
        let event = event.with_body(&body.to_string()).with_header("Idempotency-Key", "a\u{1}");
        let answer = api.expect_refusal("orders", &event, 422, "invalid_request").await;
        assert_eq!(answer.body["errors"][0]["field"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn a_malformed_host_or_protocol_header_is_ignored() {
    let api = Api::start().await;
    for event in api.read_events() {
        for host in ["", "a b", "[", "a:b:c", "ä.example", "\u{1}", "http://a/b?c#d", "%"] {
            api.expect_served(&event.clone().with_header("host", host)).await;
            api.expect_served(&event.clone().with_header("Host", host)).await;
        }
        for protocol in ["https,http", "", "h t", "\u{1}", "ws"] {
            api.expect_served(&event.clone().with_header("x-forwarded-proto", protocol)).await;
        }
    }
}

/// `cargo lambda watch` parses a function's response as one of the two types in this
/// test, and requires all members of the type.
#[tokio::test]
async fn a_response_parses_as_the_published_type_of_its_format() {
    let api = Api::start().await;
    let [v1, v2] = api.read_events();
    let answer = api.world.invoke("users", &v1.0.to_string()).await.unwrap();
    let read: ApiGatewayProxyResponse = serde_json::from_value(answer).unwrap();
    assert_eq!(read.status_code, 200);
    let answer = api.world.invoke("users", &v2.0.to_string()).await.unwrap();
    let read: ApiGatewayV2httpResponse = serde_json::from_value(answer).unwrap();
    assert_eq!(read.status_code, 200);
}

#[tokio::test]
async fn event_members_that_are_missing_null_or_of_another_type_count_as_empty() {
    let api = Api::start().await;
    let anywhere = ["/headers", "/pathParameters", "/stageVariables", "/body", "/isBase64Encoded"];
    let only_v1 = ["/multiValueHeaders", "/queryStringParameters", "/multiValueQueryStringParameters", "/resource"];
    let only_v2 = ["/version", "/routeKey", "/rawQueryString", "/cookies", "/requestContext/stage"];
    let context = ["/requestContext/identity", "/requestContext/requestTimeEpoch", "/requestContext/timeEpoch"];
    for event in api.read_events() {
        let own = if event.is_v1() { &only_v1[..] } else { &only_v2[..] };
        for member in [&anywhere[..], own, &context[..]].concat() {
            api.expect_served(&event.clone().without(member)).await;
            for value in [json!(null), json!({}), json!([]), json!([null]), json!({ "a": null, "b": {} })] {
                api.expect_served(&event.clone().with(member, value)).await;
            }
        }
    }
}

#[tokio::test]
async fn an_event_of_a_rest_api_needs_only_one_of_its_two_lists_of_headers() {
    let api = Api::start().await;
    let event = Event::v1("POST", "/orders", "/orders").with_body("{}");
    for event in [event.clone().without("/multiValueHeaders"), event.clone().without("/headers")] {
        // A body without a content type would be refused with another code. So this code
        // shows that the function has found the header.
        api.expect_refusal("orders", &event, 422, "invalid_request").await;
    }
    let two = event.with("/multiValueHeaders/Idempotency-Key", json!(["a", "b"])).with("/headers/Idempotency-Key", "b");
    let answer = api.expect_refusal("orders", &two, 422, "invalid_request").await;
    assert!(answer.body.to_string().contains("must be sent once"), "{answer:?}");
}

#[tokio::test]
async fn a_path_is_not_parsed_as_a_url() {
    let api = Api::start().await;
    for ending in
        ["?x=1", "#x", "#", "?", "%3Fx=1", "%23", "%00", "\0", "\\", "%5C", "%", "%zz", " ", "\u{1}", "ä", ";x"]
    {
        let path = format!("{}{ending}", api.path());
        for event in [Event::v1("GET", "/users/{id}", &path), Event::v2("GET", "/users/{id}", &path)] {
            let answer = api.expect_refusal("users", &event, 422, "invalid_request").await;
            assert_eq!(answer.body["errors"][0]["field"], "id");
        }
        // Function URLs and `cargo lambda watch` have no routes, so their events have the
        // route key `$default`.
        let direct = Event::v2("GET", "/users/{id}", &path).with("/routeKey", "$default");
        api.expect_refusal("users", &direct, 422, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_path_that_is_longer_than_its_route_is_not_found() {
    let api = Api::start().await;
    for ending in ["/validate", "/", "//", "/..", "/../..", "/%2e%2e"] {
        let path = format!("{}{ending}", api.path());
        for method in ["GET", "PATCH", "DELETE"] {
            for event in [Event::v1(method, "/users/{id}", &path), Event::v2(method, "/users/{id}", &path)] {
                api.expect_refusal("users", &event, 404, "no_such_route").await;
            }
        }
    }
    for path in ["", "users", "*", "http://users/x", "//", "/users//"] {
        api.expect_refusal("users", &Event::v1("GET", "/users/{id}", path), 404, "no_such_route").await;
    }
}

/// A `?` in the id must not cut off the rest of the path, such as `/cancel`.
#[tokio::test]
async fn an_id_with_a_question_mark_is_a_bad_id_and_not_the_start_of_a_query() {
    let api = Api::start().await;
    for id in ["ord_1?", "ord_1#", "?", "#"] {
        let path = format!("/orders/{id}/cancel");
        for event in [Event::v1("POST", "/orders/{id}/cancel", &path), Event::v2("POST", "/orders/{id}/cancel", &path)]
        {
            api.expect_refusal("orders", &event, 422, "invalid_request").await;
        }
    }
}

#[tokio::test]
async fn a_query_is_read_from_each_format_of_events() {
    let api = Api::start().await;
    let (v1, v2) = (Event::v1("GET", "/orders", "/orders"), Event::v2("GET", "/orders", "/orders"));
    let once = v1.clone().with("/queryStringParameters", json!({ "limit": "0" }));
    let raw = v2.clone().with("/rawQueryString", "limit=0");
    let listed = v2.clone().without("/rawQueryString").with("/queryStringParameters", json!({ "limit": "0" }));
    for event in [once, raw, listed] {
        assert_eq!(
            api.expect_refusal("orders", &event, 422, "invalid_request").await.body["errors"][0]["field"],
            "limit"
        );
    }
    let twice = v1
        .with("/queryStringParameters", json!({ "limit": "2" }))
        .with("/multiValueQueryStringParameters", json!({ "limit": ["1", "2"] }));
    for event in [twice, v2.clone().with("/rawQueryString", "limit=1&limit=2")] {
        let answer = api.expect_refusal("orders", &event, 422, "invalid_request").await;
        assert!(answer.body.to_string().contains("must be given once"), "{answer:?}");
    }
    for query in ["%", "%zz", "a b", "a\u{1}", "ä=1", "#", "%00=%00", "=", "\"<>\\^`{|}"] {
        api.expect_refusal("orders", &v2.clone().with("/rawQueryString", query), 422, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused_with_a_header_that_names_the_accepted_encoding() {
    let api = Api::start().await;
    for event in [Event::v1("POST", "/orders", "/orders"), Event::v2("POST", "/orders", "/orders")] {
        for coding in ["gzip", "br", "identity, gzip", "x", "\u{1}", "GZIP"] {
            let event = event.clone().with_body("{}").with_header("content-encoding", coding);
            let answer = api.expect_refusal("orders", &event, 415, "unsupported_content_encoding").await;
            assert_eq!(answer.header("accept-encoding"), Some("identity"));
        }
        for coding in ["identity", "Identity", ""] {
            let event = event.clone().with_body("{}").with_header("content-encoding", coding);
            api.expect_refusal("orders", &event, 422, "invalid_request").await;
        }
    }
}

#[tokio::test]
async fn a_base64_body_is_decoded_and_invalid_base64_is_refused() {
    let api = Api::start().await;
    for event in [Event::v1("POST", "/orders", "/orders"), Event::v2("POST", "/orders", "/orders")] {
        let event = event.with_body(&STANDARD.encode("{}")).with("/isBase64Encoded", true);
        api.expect_refusal("orders", &event, 422, "invalid_request").await;
        for body in ["{}", "e30", "e30=e30=", "ä", "\0"] {
            api.expect_refusal("orders", &event.clone().with("/body", body), 400, "unreadable_body").await;
        }
    }
}

#[tokio::test]
async fn an_unpaired_surrogate_in_an_event_is_replaced() {
    let api = Api::start().await;
    for event in api.read_events() {
        let event = event.with_header("x-thing", "HERE").0.to_string();
        for text in [r"\udc80", r"\ud800", r"\ud83d\ude00\udfff", r"\\\ud800\\ud800", r"\ud800\ud800"] {
            let answer = api.answer_to_text("users", &event.replace("HERE", text)).await;
            assert_eq!(answer.status, 200, "{text}");
        }
    }
}

#[tokio::test]
async fn an_unknown_method_is_answered_with_405() {
    let api = Api::start().await;
    for method in ["BREW", "get", "G T", "", "\u{1}", "GÄT", "CONNECT", "TRACE"] {
        let path = api.path();
        for event in [Event::v1(method, "/users/{id}", &path), Event::v2(method, "/users/{id}", &path)] {
            api.expect_refusal("users", &event, 405, "method_not_allowed").await;
        }
    }
}

#[tokio::test]
async fn a_path_or_headers_beyond_the_gateways_limits_are_refused() {
    let api = Api::start().await;
    for event in api.read_events() {
        let member = if event.is_v1() { "/path" } else { "/rawPath" };
        let path = format!("/users/{}", "ä".repeat(40_000));
        api.expect_refusal("users", &event.clone().with(member, path), 414, "uri_too_long").await;
        let headers: Value =
            (0..40_000).map(|n| (format!("x-{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
        api.expect_refusal("users", &event.clone().with("/headers", headers), 431, "headers_too_large").await;
    }
}

/// The notifications function consumes a queue, but also has HTTP routes.
#[tokio::test]
async fn the_notifications_function_answers_malformed_requests_too() {
    let api = Api::start().await;
    for event in [
        Event::v1("GET", "/health/notifications", "/health/notifications"),
        Event::v2("GET", "/health/notifications", "/health/notifications"),
    ] {
        let event = event.with_header("x-thing", "\u{1}").with_header("x-forwarded-proto", "https,http");
        assert_eq!(api.answer("notifications", &event).await.status, 200);
    }
}

#[tokio::test]
async fn an_event_that_no_gateway_sends_fails_the_invocation() {
    let api = Api::start().await;
    for event in
        ["", "null", "[]", "{}", "7", r#"{"Records":[]}"#, r#"{"requestContext":{"http":{}}}"#, r#"{"version":"2.0"}"#]
    {
        for function in ["users", "notifications"] {
            assert!(api.world.invoke(function, event).await.is_err(), "{event}");
        }
    }
}
