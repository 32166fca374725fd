//! A wrong input at every door: each gets a clear answer, none gets through,
//! and none leaves half of its work behind.

use axum::body::Body;
use http::Request;
use in_process_tests::{Answer, Caller, World};
use serde_json::{Value, json};

/// A route that takes a body, who may use it, and a body that it accepts.
#[derive(Clone)]
struct Door {
    method: &'static str,
    path: String,
    caller: Caller,
    body: Value,
    /// The members that can't be left out.
    needs: &'static [&'static str],
}

impl Door {
    /// Whether it is for other services, not for clients.
    fn is_internal(&self) -> bool {
        ["/products/reserve", "/payments"].contains(&self.path.as_str())
    }
}

/// Refusals that are about the request itself, before anything is done.
const ABOUT_THE_REQUEST: [&str; 8] = [
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

struct House {
    world: World,
    doors: Vec<Door>,
}

impl House {
    async fn open() -> Self {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let newcomer = Caller::named("Grace");
        let details = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 500 });
        let product = world.post(&Caller::admin(), "/products", details.clone()).await.json();
        let product = product["id"].as_str().unwrap().to_owned();
        let order = format!("ord_{}", uuid::Uuid::now_v7());
        let recipient = json!({ "name": "Ada", "email": ada.email(), "phone": ada.phone() });
        let door = |method, path: &str, caller: &Caller, body, needs| Door {
            method,
            path: path.to_owned(),
            caller: caller.clone(),
            body,
            needs,
        };
        let items = json!([{ "product_id": product, "quantity": 1 }]);
        let doors = vec![
            door(
                "POST",
                "/users",
                &newcomer,
                json!({ "name": "Grace", "email": newcomer.email() }),
                &["email", "name"],
            ),
            door(
                "PATCH",
                &format!("/users/{}", ada.id()),
                &ada,
                json!({ "name": "Countess", "email": ada.email() }),
                &[],
            ),
            door("POST", "/products", &Caller::admin(), details, &["description", "name", "price", "stock"]),
            door(
                "PATCH",
                &format!("/products/{product}"),
                &Caller::admin(),
                json!({ "name": "Pot", "description": "Stout.", "price": 5 }),
                &[],
            ),
            door(
                "POST",
                &format!("/products/{product}/stock-adjustments"),
                &Caller::admin(),
                json!({ "adjustment_id": "count-1", "delta": 1, "reason": "Counted" }),
                &["adjustment_id", "delta", "reason"],
            ),
            door(
                "POST",
                "/orders",
                &ada,
                json!({ "user_id": ada.id(), "items": items, "payment_method": "tok_accepted" }),
                &["items"],
            ),
            door(
                "POST",
                "/products/reserve",
                &Caller::service(),
                json!({ "order_id": order, "items": items }),
                &["items", "order_id"],
            ),
            door(
                "POST",
                "/payments",
                &Caller::service(),
                json!({
                    "order_id": order, "user_id": ada.id(), "amount": 19.99, "currency": "USD",
                    "payment_method": "tok_accepted", "recipient": recipient, "capture": false,
                }),
                &["amount", "order_id", "recipient", "user_id"],
            ),
        ];
        Self { world, doors }
    }

    async fn send(&self, door: &Door, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(door.method).uri(&door.path).header("if-match", "*");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        self.world.send_raw(&door.caller, request.body(body.into()).unwrap()).await
    }

    fn contents(&self) -> Vec<Value> {
        TABLES.iter().flat_map(|table| self.world.cloud.scan(table)).collect()
    }

    /// Sends what must be refused as a request; nothing may be left of it.
    async fn expect_refused(&self, door: &Door, content_type: Option<&str>, body: Vec<u8>) {
        let before = self.contents();
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let answer = self.send(door, content_type, body).await;
        let what = format!("{} {} {shown}: {} {}", door.method, door.path, answer.status, answer.text);
        assert!(answer.status.is_client_error(), "{what}");
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        assert!(ABOUT_THE_REQUEST.contains(&code.as_str()), "{what}");
        answer.expect_problem(answer.status.as_u16(), &code);
        assert_eq!(self.contents(), before, "something was done: {what}");
    }
}

/// Texts that are no request for any of the routes.
fn nonsense() -> Vec<Vec<u8>> {
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

/// What may stand where something else should.
fn oddities() -> Vec<Value> {
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

/// The places in a document, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, inner)| places(inner, format!("{at}/{name}"), found));
        }
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(n, inner)| places(inner, format!("{at}/{n}"), found));
        }
        _ => {}
    }
    if !at.is_empty() {
        found.push(at);
    }
}

#[tokio::test]
async fn what_is_no_request_at_all_is_refused_at_every_door() {
    let house = House::open().await;
    for door in &house.doors {
        for body in nonsense() {
            // A change of nothing is one.
            if door.method == "PATCH" && body == b"{}" {
                continue;
            }
            house.expect_refused(door, Some("application/json"), body).await;
        }
        let good = || door.body.to_string().into_bytes();
        for content_type in [None, Some(""), Some("text/plain"), Some("application/xml"), Some("application/jsonx")] {
            house.expect_refused(door, content_type, good()).await;
        }
        let mut large = good();
        large.extend(vec![b' '; 70_000]);
        house.expect_refused(door, Some("application/json"), large).await;
    }
}

#[tokio::test]
async fn whatever_is_wrong_is_named_in_one_answer() {
    let house = House::open().await;
    for door in &house.doors {
        let what = format!("{} {}", door.method, door.path);
        let names: Vec<_> = door.body.as_object().unwrap().keys().cloned().collect();
        let send = async |body: String| {
            let answer = house.send(door, Some("application/json"), body).await;
            let mut bad = answer.bad_fields();
            bad.sort();
            bad
        };
        // A kind of value that no member has.
        let wrong: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), json!([[1]]))).collect();
        let mut bad = send(Value::from(wrong).to_string()).await;
        // A list that has but wrong entries is named by them.
        bad.iter_mut().for_each(|name| name.truncate(name.find('[').unwrap_or(name.len())));
        assert_eq!(bad, names, "{what}");
        // Each twice, the other one being right.
        let text = door.body.to_string();
        let bad = send(format!("{},{}", &text[..text.len() - 1], &text[1..])).await;
        assert_eq!(bad, names, "{what}");
        // Each under another name: what has to be there is missing.
        let renamed: serde_json::Map<_, _> =
            door.body.as_object().unwrap().iter().map(|(name, value)| (format!("x_{name}"), value.clone())).collect();
        let mut expected: Vec<_> = door.needs.iter().map(|name| (*name).to_owned()).collect();
        if !door.is_internal() {
            expected.extend(names.iter().map(|name| format!("x_{name}")));
        }
        let bad = send(Value::from(renamed).to_string()).await;
        assert_eq!(bad, expected, "{what}");
    }
}

/// Two versions of the services call each other while one is deployed.
#[tokio::test]
async fn what_another_service_says_beyond_what_is_known_is_ignored() {
    let house = House::open().await;
    for door in house.doors.iter().filter(|door| door.is_internal()) {
        let mut door = door.clone();
        door.path += "?later=1";
        door.body["later"] = json!({ "a": [1, 2] });
        for inner in ["/recipient", "/items/0"] {
            if let Some(inner) = door.body.pointer_mut(inner) {
                inner["later"] = json!(1);
            }
        }
        let answer = house.send(&door, Some("application/json"), door.body.to_string()).await;
        assert!(answer.status.is_success(), "{} {}: {}", door.method, door.path, answer.text);
    }
    let order = uuid::Uuid::now_v7();
    for (path, body) in [
        (format!("/users/{}/validate", house.doors[1].caller.id()), json!({ "as_of": 0, "later": 1 })),
        (format!("/reservations/ord_{order}/release"), json!({})),
        (format!("/payments/pay_{order}/cancel"), json!({})),
        (format!("/payments/pay_{order}/erase-recipient"), json!({})),
    ] {
        let answer = house.world.post(&Caller::service(), &format!("{path}?later=1"), body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
}

/// Whatever stands anywhere, the answer is a decision: never an error of ours,
/// and a refusal of the request names a field and leaves nothing behind.
#[tokio::test]
async fn whatever_stands_in_any_place_is_accepted_or_refused_but_never_breaks_anything() {
    let house = House::open().await;
    let (mut accepted, mut refused) = (0, 0);
    for door in &house.doors {
        let mut all = Vec::new();
        places(&door.body, String::new(), &mut all);
        for place in all {
            for oddity in oddities() {
                let mut body = door.body.clone();
                *body.pointer_mut(&place).unwrap() = oddity.clone();
                let before = house.contents();
                let answer = house.send(door, Some("application/json"), body.to_string()).await;
                let shown: String = oddity.to_string().chars().take(60).collect();
                let what =
                    format!("{} {} {place} = {shown}: {} {}", door.method, door.path, answer.status, answer.text);
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
                if ABOUT_THE_REQUEST.contains(&code.as_str()) {
                    assert_eq!(house.contents(), before, "something was done: {what}");
                }
            }
        }
    }
    assert!(accepted > 20 && refused > 500, "{accepted} accepted, {refused} refused");
}

#[tokio::test]
async fn paths_queries_and_headers_are_input_too() {
    let house = House::open().await;
    let ada = &house.doors[1].caller;
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
        let answer = house.world.get(ada, path).await;
        assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.text);
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        answer.expect_problem(answer.status.as_u16(), &code);
    }
    let order = house.doors.iter().find(|door| door.path == "/orders").unwrap();
    let before = house.contents();
    for key in ["", " ", "\"\"", "a b", "\"unclosed", &"k".repeat(256), "sch\u{f6}n"] {
        let request = Request::post("/orders").header("content-type", "application/json");
        let request = request.header("idempotency-key", http::HeaderValue::from_bytes(key.as_bytes()).unwrap());
        let answer = house.world.send_raw(ada, request.body(Body::from(order.body.to_string())).unwrap()).await;
        answer.expect_bad_fields(&["Idempotency-Key"]);
    }
    for tag in ["", "1", "\"", "W/\"1\"", "\"x\"", "\"1\" \"2\"", "\u{f6}"] {
        let request = Request::patch(&house.doors[3].path).header("content-type", "application/json");
        let request = request.header("if-match", http::HeaderValue::from_bytes(tag.as_bytes()).unwrap());
        let answer = house.world.send_raw(&Caller::admin(), request.body(Body::from(r#"{"price":1}"#)).unwrap()).await;
        assert!([412, 422, 428].contains(&answer.status.as_u16()), "{tag}: {} {}", answer.status, answer.text);
    }
    assert_eq!(house.contents(), before);
}
