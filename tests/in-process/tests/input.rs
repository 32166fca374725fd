//! Tests of invalid input: a request with an invalid body, path, query or header is
//! refused with a problem document and changes nothing.

use axum::body::Body;
use http::Request;
use in_process_tests::{Answer, Caller, World};
use serde_json::{Value, json};

/// A route that reads a body, a caller who may use the route, and a body that the
/// route accepts.
#[derive(Clone)]
struct Route {
    method: &'static str,
    path: String,
    caller: Caller,
    body: Value,
    /// The members that are required, in alphabetical order.
    required: &'static [&'static str],
}

impl Route {
    /// Returns whether the route is for other services, not for clients.
    fn is_internal(&self) -> bool {
        ["/products/reserve", "/payments"].contains(&self.path.as_str())
    }
}

/// The problem codes of requests that are refused before they have any effect.
const REQUEST_ERRORS: [&str; 8] = [
    "invalid_request",
    "malformed_json",
    "unsupported_media_type",
    "unsupported_content_encoding",
    "payload_too_large",
    "unreadable_body",
    "no_such_route",
    "method_not_allowed",
];

const TABLES: [&str; 6] =
    ["UsersTable", "ProductsTable", "OrdersTable", "PaymentsTable", "NotificationsTable", "SandboxLedgerTable"];

/// A `World` with a customer and a product, and the routes that read a body.
struct Api {
    world: World,
    routes: Vec<Route>,
}

impl Api {
    async fn start() -> Self {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let newcomer = Caller::named("Grace");
        let details = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 500 });
        let product = world.post(&Caller::admin(), "/products", details.clone()).await.json();
        let product = product["id"].as_str().unwrap().to_owned();
        let order = format!("ord_{}", uuid::Uuid::now_v7());
        let recipient = json!({ "name": "Ada", "email": ada.email(), "phone": ada.phone() });
        let route = |method, path: &str, caller: &Caller, body, required| Route {
            method,
            path: path.to_owned(),
            caller: caller.clone(),
            body,
            required,
        };
        let items = json!([{ "product_id": product, "quantity": 1 }]);
        let routes = vec![
            route(
                "POST",
                "/users",
                &newcomer,
                json!({ "name": "Grace", "email": newcomer.email() }),
                &["email", "name"],
            ),
            route(
                "PATCH",
                &format!("/users/{}", ada.id()),
                &ada,
                json!({ "name": "Countess", "email": ada.email() }),
                &[],
            ),
            route("POST", "/products", &Caller::admin(), details, &["description", "name", "price", "stock"]),
            route(
                "PATCH",
                &format!("/products/{product}"),
                &Caller::admin(),
                json!({ "name": "Pot", "description": "Stout.", "price": 5 }),
                &[],
            ),
            route(
                "POST",
                &format!("/products/{product}/stock-adjustments"),
                &Caller::admin(),
                json!({ "adjustment_id": "count-1", "delta": 1, "reason": "Counted" }),
                &["adjustment_id", "delta", "reason"],
            ),
            route(
                "POST",
                "/orders",
                &ada,
                json!({ "user_id": ada.id(), "items": items, "payment_method": "tok_accepted" }),
                &["items"],
            ),
            route(
                "POST",
                "/products/reserve",
                &Caller::service(),
                json!({ "order_id": order, "lines": items }),
                &["lines", "order_id"],
            ),
            route(
                "POST",
                "/payments",
                &Caller::service(),
                json!({
                    "order_id": order, "user_id": ada.id(), "amount": { "minor": 1999, "currency": "USD" },
                    "payment_method": "tok_accepted", "recipient": recipient, "capture": false,
                }),
                &["amount", "order_id", "recipient", "user_id"],
            ),
        ];
        Self { world, routes }
    }

    async fn send(&self, route: &Route, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(route.method).uri(&route.path).header("if-match", "*");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        self.world.send_raw(&route.caller, request.body(body.into()).unwrap()).await
    }

    /// All items of all tables.
    fn stored_items(&self) -> Vec<Value> {
        TABLES.iter().flat_map(|table| self.world.cloud.scan(table)).collect()
    }

    /// Sends a request, and asserts that it is refused and changes nothing.
    async fn expect_refused(&self, route: &Route, content_type: Option<&str>, body: Vec<u8>) {
        let before = self.stored_items();
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let answer = self.send(route, content_type, body).await;
        let what = format!("{} {} {shown}: {} {}", route.method, route.path, answer.status, answer.text);
        assert!(answer.status.is_client_error(), "{what}");
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        assert!(REQUEST_ERRORS.contains(&code.as_str()), "{what}");
        answer.expect_problem(answer.status.as_u16(), &code);
        assert_eq!(self.stored_items(), before, "the request changed something: {what}");
    }
}

/// Bodies that no route accepts.
fn malformed_bodies() -> Vec<Vec<u8>> {
    let texts = [
        "",
        " ",
        "null",
        "true",
        "7",
        "\"text\"",
        "[]",
        "[{}]",
        "{}",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{\"a\"}",
        "{'a':1}",
        "{\"a\":1,}",
        "NaN",
        "{\"a\":NaN}",
        "{\"a\":1e999}",
        "{\"__proto__\":{}}",
        "{\"a\":\"\\ud800\"}",
        "\u{feff}{}",
        "<a/>",
        "a=1&b=2",
        "{\"a\":\"\u{0}\"}",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.push(b"{\"name\":\"\xff\xfe\"}".to_vec());
    all.push(b"\xc3\x28".to_vec());
    all.push(["[".repeat(5_000), "]".repeat(5_000)].concat().into_bytes());
    all.push([r#"{"a":"#.repeat(5_000), "1".into(), "}".repeat(5_000)].concat().into_bytes());
    all
}

/// Unusual values, each of which a test puts in the place of each value of a body.
fn odd_values() -> Vec<Value> {
    let mut all = vec![
        Value::Null,
        json!(true),
        json!([]),
        json!({}),
        json!([[[[]]]]),
        json!(["x", 1]),
        json!({ "S": "x" }),
        json!(""),
        json!("   "),
        json!("\u{0}"),
        json!("a\r\nBcc: everybody@example.com"),
        json!("\u{202e}drow"),
        json!("Ada\u{ffff}"),
        json!("x".repeat(5_000)),
        json!("'; DROP TABLE orders; --"),
        json!("../../etc/passwd"),
        json!("${jndi:ldap://example.com}"),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(0.001),
        json!(-0.0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
    ];
    for digits in ["1e400", "123456789012345678901234567890", "0.10000000000000000000000000001", "1E+2", "-0"] {
        all.extend(serde_json::from_str(digits));
    }
    all
}

/// Collects the JSON pointers to all values in a document.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, inner)| pointers(inner, format!("{at}/{name}"), found));
        }
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(n, inner)| pointers(inner, format!("{at}/{n}"), found));
        }
        _ => {}
    }
    if !at.is_empty() {
        found.push(at);
    }
}

#[tokio::test]
async fn a_malformed_body_is_refused_on_every_route() {
    let api = Api::start().await;
    for route in &api.routes {
        for body in malformed_bodies() {
            // For PATCH, an empty object is valid: the request changes nothing.
            if route.method == "PATCH" && body == b"{}" {
                continue;
            }
            api.expect_refused(route, Some("application/json"), body).await;
        }
        let good = || route.body.to_string().into_bytes();
        for content_type in [None, Some(""), Some("text/plain"), Some("application/xml"), Some("application/jsonx")] {
            api.expect_refused(route, content_type, good()).await;
        }
        let mut large = good();
        large.extend(vec![b' '; 70_000]);
        api.expect_refused(route, Some("application/json"), large).await;
    }
}

#[tokio::test]
async fn one_response_names_every_bad_member() {
    let api = Api::start().await;
    for route in &api.routes {
        let what = format!("{} {}", route.method, route.path);
        let names: Vec<_> = route.body.as_object().unwrap().keys().cloned().collect();
        let send = async |body: String| {
            let answer = api.send(route, Some("application/json"), body).await;
            let mut bad = answer.bad_fields();
            bad.sort();
            bad
        };
        // Each member has a value whose type is wrong for every member.
        let wrong: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), json!([[1]]))).collect();
        let mut bad = send(Value::from(wrong).to_string()).await;
        // For a member that is a list, the response names the bad entries instead of the
        // list.
        bad.iter_mut().for_each(|name| name.truncate(name.find('[').unwrap_or(name.len())));
        assert_eq!(bad, names, "{what}");
        // Each member occurs twice, with a valid value.
        let text = route.body.to_string();
        let bad = send(format!("{},{}", &text[..text.len() - 1], &text[1..])).await;
        assert_eq!(bad, names, "{what}");
        // Each member has an unknown name, so that the required members are missing.
        // Internal routes ignore unknown members.
        let renamed: serde_json::Map<_, _> =
            route.body.as_object().unwrap().iter().map(|(name, value)| (format!("x_{name}"), value.clone())).collect();
        let mut expected: Vec<_> = route.required.iter().map(|name| (*name).to_owned()).collect();
        if !route.is_internal() {
            expected.extend(names.iter().map(|name| format!("x_{name}")));
        }
        let bad = send(Value::from(renamed).to_string()).await;
        assert_eq!(bad, expected, "{what}");
    }
}

/// During a deployment, the calling service may already be on a newer version.
#[tokio::test]
async fn unknown_members_of_a_request_from_another_service_are_ignored() {
    let api = Api::start().await;
    for route in api.routes.iter().filter(|route| route.is_internal()) {
        let mut route = route.clone();
        route.path += "?later=1";
        route.body["later"] = json!({ "a": [1, 2] });
        for inner in ["/recipient", "/lines/0"] {
            if let Some(inner) = route.body.pointer_mut(inner) {
                inner["later"] = json!(1);
            }
        }
        let answer = api.send(&route, Some("application/json"), route.body.to_string()).await;
        assert!(answer.status.is_success(), "{} {}: {}", route.method, route.path, answer.text);
    }
    let order = uuid::Uuid::now_v7();
    for (path, body) in [
        (format!("/users/{}/validate", api.routes[1].caller.id()), json!({ "as_of": 0, "later": 1 })),
        (format!("/reservations/ord_{order}/release"), json!({})),
        (format!("/payments/pay_{order}/cancel"), json!({})),
        (format!("/payments/pay_{order}/erase-recipient"), json!({})),
    ] {
        let answer = api.world.post(&Caller::service(), &format!("{path}?later=1"), body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
}

/// Whatever value a member has, the response is never a server error. If the request
/// is refused because of the value, the response names a field, and nothing changes.
#[tokio::test]
async fn any_value_of_any_member_is_accepted_or_refused_but_causes_no_server_error() {
    let api = Api::start().await;
    let (mut accepted, mut refused) = (0, 0);
    for route in &api.routes {
        let mut all = Vec::new();
        pointers(&route.body, String::new(), &mut all);
        for pointer in all {
            for odd in odd_values() {
                let mut body = route.body.clone();
                *body.pointer_mut(&pointer).unwrap() = odd.clone();
                let before = api.stored_items();
                let answer = api.send(route, Some("application/json"), body.to_string()).await;
                let shown: String = odd.to_string().chars().take(60).collect();
                let what =
                    format!("{} {} {pointer} = {shown}: {} {}", route.method, route.path, answer.status, answer.text);
                assert!(!answer.status.is_server_error(), "{what}");
                if answer.status.is_success() {
                    accepted += 1;
                    continue;
                }
                refused += 1;
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                answer.expect_problem(answer.status.as_u16(), &code);
                if code == "invalid_request" {
                    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
                    assert!(!errors.is_empty(), "no field is named: {what}");
                    assert!(
                        errors.iter().all(|error| error["detail"].as_str().is_some_and(|d| !d.is_empty())),
                        "{what}"
                    );
                }
                if REQUEST_ERRORS.contains(&code.as_str()) {
                    assert_eq!(api.stored_items(), before, "the request changed something: {what}");
                }
            }
        }
    }
    assert!(accepted > 20 && refused > 500, "{accepted} accepted, {refused} refused");
}

#[tokio::test]
async fn bad_paths_queries_and_headers_are_refused() {
    let api = Api::start().await;
    let ada = &api.routes[1].caller;
    let paths = [
        "/orders/%00",
        "/orders/%ff%fe",
        "/orders/..%2f..%2fetc",
        "/orders/%2e%2e",
        "/orders/ord_",
        "/orders/ord_x",
        "/orders/ord_00000000-0000-0000-0000-00000000000g",
        "/orders/pay_0195a8e0-0000-7000-8000-000000000001",
        "/orders?limit=0",
        "/orders?limit=101",
        "/orders?limit=-1",
        "/orders?limit=1e1",
        "/orders?limit=x",
        "/orders?limit=99999999999999999999",
        "/orders?status=EATEN",
        "/orders?status=done",
        "/orders?surprise=1",
        "/orders?limit=1&limit=2",
        "/orders?cursor=",
        "/orders?cursor=x",
        "/orders?cursor=%00",
        "/orders?user_id=ada",
        "/orders?%ff=1",
        "/orders?limit=%31%",
        "/products?limit=0",
        "/products?cursor=AAAA",
        "/products/prod_1",
        "/users/user_",
        "/users/ord_0195a8e0-0000-7000-8000-000000000001",
        "/payments/x",
    ];
    let long = format!("/orders/ord_{}", "0".repeat(5_000));
    for path in paths.into_iter().chain([long.as_str()]) {
        let answer = api.world.get(ada, path).await;
        assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.text);
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        answer.expect_problem(answer.status.as_u16(), &code);
    }
    let order = api.routes.iter().find(|route| route.path == "/orders").unwrap();
    let before = api.stored_items();
    for key in ["", " ", "\"\"", "a b", "\"unclosed", &"k".repeat(256), "sch\u{f6}n"] {
        let request = Request::post("/orders").header("content-type", "application/json");
        let request = request.header("idempotency-key", http::HeaderValue::from_bytes(key.as_bytes()).unwrap());
        let answer = api.world.send_raw(ada, request.body(Body::from(order.body.to_string())).unwrap()).await;
        answer.expect_bad_fields(&["Idempotency-Key"]);
    }
    for tag in ["", "1", "\"", "W/\"1\"", "\"x\"", "\"1\" \"2\"", "\u{f6}"] {
        let request = Request::patch(&api.routes[3].path).header("content-type", "application/json");
        let request = request.header("if-match", http::HeaderValue::from_bytes(tag.as_bytes()).unwrap());
        let answer = api.world.send_raw(&Caller::admin(), request.body(Body::from(r#"{"price":1}"#)).unwrap()).await;
        assert!([412, 422, 428].contains(&answer.status.as_u16()), "{tag}: {} {}", answer.status, answer.text);
    }
    assert_eq!(api.stored_items(), before);
}
