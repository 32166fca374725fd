//! The services give only responses that the OpenAPI document describes, and some
//! request causes each response that the document describes.

use std::time::Duration;

use axum::body::Body;
use chassis::{clock::Clock, http::MAX_BODY};
use http::{Request, StatusCode};
use in_process_tests::{Answer, Caller, World, shop::order_request, world::CANCELLATION_WINDOW};
use serde_json::{Value, json};

use crate::checker::{Checker, Operation};

/// The codes of problems that no request of this test can cause.
const NOT_PROVOKED: [&str; 4] = [
    // Caused by a mistake in the code.
    "internal_error",
    // Caused by the gateway's limits.
    "too_many_requests",
    // Caused by a path that is invalid after the gateway has decoded it.
    "no_such_route",
    // Caused by other requests that change a user three times within one request.
    "changed_meanwhile",
];

const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// A world in which each response is compared with the OpenAPI document.
struct CheckedWorld {
    world: World,
    checker: Checker,
}

impl CheckedWorld {
    async fn start() -> Self {
        let clock = Clock::tokio(jiff::Timestamp::now());
        Self { world: World::start_at(clock).await, checker: Checker::new() }
    }

    async fn send(
        &self,
        id: &str,
        person: &Caller,
        path: &str,
        body: impl Into<Body>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(self.checker.operation(id).method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        self.checker.send(&self.world, id, person, request).await
    }

    async fn call(&self, id: &str, person: &Caller, path: &str, body: Value) -> Answer {
        self.call_with(id, person, path, body, &[]).await
    }

    async fn call_with(&self, id: &str, person: &Caller, path: &str, body: Value, header: &[(&str, &str)]) -> Answer {
        match body {
            Value::Null => self.send(id, person, path, Body::empty(), header).await,
            body => {
                let headers = [header, &[("content-type", "application/json")]].concat();
                self.send(id, person, path, body.to_string(), &headers).await
            }
        }
    }

    async fn product(&self, price: f64, currency: &str, stock: u32) -> String {
        let body =
            json!({ "name": "Mug", "description": "Blue.", "price": price, "currency": currency, "stock": stock });
        let product = self.call("createProduct", &Caller::admin(), "/products", body).await;
        id(&product.expect(StatusCode::CREATED))
    }

    async fn customer(&self, name: &str) -> Caller {
        let person = Caller::named(name);
        let body = json!({ "name": name, "email": person.email() });
        self.call("createUser", &person, "/users", body).await.expect(StatusCode::CREATED);
        person
    }

    async fn place(&self, person: &Caller, lines: &[(&str, u32)], token: &str, key: &str) -> Answer {
        self.call_with("placeOrder", person, "/orders", order_request(lines, token), &[("idempotency-key", key)]).await
    }
}

fn id(document: &Value) -> String {
    document["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_services_give_every_documented_answer_and_no_other_answers() {
    let checked = CheckedWorld::start().await;
    users(&checked).await;
    products(&checked).await;
    orders(&checked).await;
    delayed_orders(&checked).await;
    health(&checked).await;
    bad_requests(&checked).await;
    failing_tables(&checked).await;
    let unseen = checked.checker.unseen();
    // A health check reports a table that does not answer. Only the gateway answers it with 503.
    let by_gateway = |id: &str, status: u16| is_health(id) && status == 503;
    let unseen: Vec<_> = unseen
        .iter()
        .filter(|(id, status, code)| !NOT_PROVOKED.contains(&code.as_str()) && !by_gateway(id, *status))
        .collect();
    assert!(unseen.is_empty(), "documented, but never given: {unseen:?}");
}

fn is_health(operation: &str) -> bool {
    operation.ends_with("Health")
}

async fn users(checked: &CheckedWorld) {
    let ada = checked.customer("Ada").await;
    let (path, nobody) = (format!("/users/{}", ada.id()), Value::Null);
    let body = json!({ "name": "Ada", "email": ada.email() });
    checked.call("createUser", &ada, "/users", body.clone()).await.expect_problem(409, "user_exists");
    let twin = Caller::named("Twin").with_claim("email", ada.email());
    checked.call("createUser", &twin, "/users", body.clone()).await.expect_problem(409, "email_taken");
    let search = "/users?email=ada@example.com";
    checked.call("findUser", &Caller::admin(), search, nobody.clone()).await.expect(StatusCode::OK);
    checked.call("getUser", &ada, &path, nobody.clone()).await.expect(StatusCode::OK);
    checked.call("changeUser", &ada, &path, json!({ "name": "A." })).await.expect(StatusCode::OK);
    let bob = checked.customer("Bob").await;
    let moved = bob.with_claim("email", ada.email());
    let taken =
        checked.call("changeUser", &moved, &format!("/users/{}", bob.id()), json!({ "email": ada.email() })).await;
    taken.expect_problem(409, "email_taken");
    for id in ["getUser", "deactivateUser"] {
        checked.call(id, &bob, &path, nobody.clone()).await.expect_problem(404, "not_found");
    }
    checked.call("changeUser", &bob, &path, json!({})).await.expect_problem(404, "not_found");
    let actions = format!("{path}/actions");
    checked.call("listUserActions", &Caller::admin(), &actions, nobody.clone()).await.expect(StatusCode::OK);
    let answer =
        checked.call("listUserActions", &Caller::admin(), &format!("{actions}?cursor=AAAA"), nobody.clone()).await;
    answer.expect_problem(400, "invalid_cursor");
    checked.call("deactivateUser", &ada, &path, nobody.clone()).await.expect(StatusCode::NO_CONTENT);
    checked.call("getUser", &ada, &path, nobody).await.expect(StatusCode::OK);
    checked.call("changeUser", &ada, &path, json!({})).await.expect_problem(409, "user_inactive");
    checked.call("createUser", &ada, "/users", body).await.expect_problem(409, "user_inactive");
}

async fn products(checked: &CheckedWorld) {
    let (admin, nobody) = (Caller::admin(), Caller::anonymous());
    let mug = checked.product(19.99, "USD", 5).await;
    checked.product(2000.0, "JPY", 5).await;
    let cup = |stock: u32| json!({ "name": "Cup", "description": "Small.", "price": 5, "stock": stock });
    for (stock, status) in [(1, 201), (1, 201), (2, 422)] {
        let answer =
            checked.call_with("createProduct", &admin, "/products", cup(stock), &[("idempotency-key", "k")]).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    }
    let path = format!("/products/{mug}");
    checked.call("getProduct", &nobody, &path, Value::Null).await.expect(StatusCode::OK);
    let none = format!("/products/{}", products::domain::ProductId::generate());
    checked.call("getProduct", &nobody, &none, Value::Null).await.expect_problem(404, "not_found");

    let page = checked.call("listProducts", &nobody, "/products?limit=1", Value::Null).await.expect(StatusCode::OK);
    let next = format!("/products?cursor={}", page["next_cursor"].as_str().unwrap());
    checked.call("listProducts", &nobody, &next, Value::Null).await.expect(StatusCode::OK);
    let answer = checked.call("listProducts", &nobody, "/products?cursor=AAAA", Value::Null).await;
    answer.expect_problem(400, "invalid_cursor");
    checked.call("listProducts", &nobody, "/products?limit=0", Value::Null).await.expect_bad_fields(&["limit"]);

    let change = json!({ "price": 17.5 });
    for (path, etag, status) in [(&path, "\"1\"", 200), (&path, "\"1\"", 412), (&none, "*", 404)] {
        let answer = checked.call_with("changeProduct", &admin, path, change.clone(), &[("if-match", etag)]).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    }
    checked.call("changeProduct", &admin, &path, change).await.expect_problem(428, "precondition_required");

    let adjustment = |id: &str, delta: i64| json!({ "adjustment_id": id, "delta": delta, "reason": "Count" });
    let adjust =
        async |path: &str, body| checked.call("adjustStock", &admin, &format!("{path}/stock-adjustments"), body).await;
    adjust(&path, adjustment("a", 1)).await.expect(StatusCode::OK);
    for (id, list) in [("listStockAdjustments", "stock-adjustments"), ("listProductVersions", "versions")] {
        checked.call(id, &admin, &format!("{path}/{list}"), Value::Null).await.expect(StatusCode::OK);
        let answer = checked.call(id, &admin, &format!("{path}/{list}?cursor=AAAA"), Value::Null).await;
        answer.expect_problem(400, "invalid_cursor");
    }
    adjust(&path, adjustment("a", 2)).await.expect_problem(409, "adjustment_mismatch");
    adjust(&path, adjustment("b", -100)).await.expect_problem(409, "insufficient_stock");
    adjust(&none, adjustment("c", 1)).await.expect_problem(404, "not_found");
}

async fn orders(checked: &CheckedWorld) {
    let (ada, bob, nobody) = (checked.customer("Ada Byron").await, checked.customer("Bob Byron").await, Value::Null);
    let (mug, rope) = (checked.product(19.99, "USD", 5).await, checked.product(5.0, "EUR", 5).await);
    let placed = checked.place(&ada, &[(&mug, 1)], "tok_accepted", "k1").await.expect(StatusCode::CREATED);
    checked.place(&ada, &[(&mug, 2)], "tok_accepted", "k1").await.expect_problem(422, "idempotency_mismatch");
    checked.place(&ada, &[(&mug, 1)], "tok_declined", "k2").await.expect_problem(402, "payment_declined");
    checked.place(&ada, &[(&mug, 9)], "tok_accepted", "k3").await.expect_problem(409, "out_of_stock");
    let shown = json!({ "items": [{ "product_id": mug, "quantity": 1 }], "total": 0.01 });
    let headers = [("idempotency-key", "k3b")];
    checked.call_with("placeOrder", &ada, "/orders", shown, &headers).await.expect_problem(409, "price_changed");
    checked.place(&ada, &[(&mug, 1), (&rope, 1)], "tok_accepted", "k4").await.expect_problem(422, "mixed_currencies");
    let unknown = products::domain::ProductId::generate().to_string();
    checked.place(&ada, &[(&unknown, 1)], "tok_accepted", "k5").await.expect_problem(422, "unknown_product");
    let unregistered = Caller::named("Unregistered");
    checked.place(&unregistered, &[(&mug, 1)], "tok_accepted", "k1").await.expect_problem(422, "user_not_found");
    let inactive = checked.customer("Inactive").await;
    checked.call("deactivateUser", &inactive, &format!("/users/{}", inactive.id()), nobody.clone()).await;
    checked.place(&inactive, &[(&mug, 1)], "tok_accepted", "k1").await.expect_problem(422, "user_inactive");

    let path = format!("/orders/{}", id(&placed));
    checked.call("getOrder", &ada, &path, nobody.clone()).await.expect(StatusCode::OK);
    checked.call("getOrder", &bob, &path, nobody.clone()).await.expect_problem(404, "not_found");
    let payment = format!("/payments/{}", placed["payment_id"].as_str().unwrap());
    checked.call("getPayment", &ada, &payment, nobody.clone()).await.expect(StatusCode::OK);
    checked.call("getPayment", &bob, &payment, nobody.clone()).await.expect_problem(404, "not_found");
    checked.call("listOrders", &ada, "/orders?limit=2", nobody.clone()).await.expect(StatusCode::OK);
    let answer = checked.call("listOrders", &ada, "/orders?cursor=AAAA", nobody.clone()).await;
    answer.expect_problem(400, "invalid_cursor");
    let admin = Caller::admin();
    checked.call("getOrder", &admin, &path, nobody.clone()).await.expect(StatusCode::OK);
    checked.call("listOpenOrders", &admin, "/open-orders?limit=1", nobody.clone()).await.expect(StatusCode::OK);
    let answer = checked.call("listOpenOrders", &admin, "/open-orders?cursor=AAAA", nobody.clone()).await;
    answer.expect_problem(400, "invalid_cursor");
    let messages = format!("/messages?order_id={}", id(&placed));
    checked.call("listMessages", &admin, &messages, nobody.clone()).await.expect(StatusCode::OK);
    resends(checked, &mug).await;
    pauses(checked, &mug).await;
    checked.call("listOrders", &ada, "/orders?status=LOST", nobody.clone()).await.expect_bad_fields(&["status"]);
    let others = format!("/orders?user_id={}", ada.id());
    checked.call("listOrders", &bob, &others, nobody.clone()).await.expect_problem(404, "not_found");

    let cancel = format!("{path}/cancel");
    checked.call("cancelOrder", &bob, &cancel, nobody.clone()).await.expect_problem(404, "not_found");
    checked.call("cancelOrder", &ada, &cancel, nobody.clone()).await.expect(StatusCode::OK);
    checked.call("getOrder", &ada, &path, nobody).await.expect(StatusCode::OK);
}

async fn pauses(checked: &CheckedWorld, mug: &str) {
    let (admin, zoe) = (Caller::admin(), checked.customer("Zoe").await);
    for part in ["Orders", "Messages"] {
        let path = format!("/pauses/{}", part.to_lowercase());
        let turn = async |paused| {
            let body = json!({ "paused": paused, "reason": "A trial." });
            checked.call(&format!("set{part}Pause"), &admin, &path, body).await.expect(StatusCode::OK);
        };
        turn(true).await;
        checked.call(&format!("get{part}Pause"), &admin, &path, Value::Null).await.expect(StatusCode::OK);
        if part == "Orders" {
            let refused = checked.place(&zoe, &[(mug, 1)], "tok_accepted", "paused").await;
            refused.expect_problem(503, "orders_paused");
        }
        turn(false).await;
        let (list, changes) = (format!("list{part}PauseChanges"), format!("{path}/changes"));
        checked.call(&list, &admin, &changes, Value::Null).await.expect(StatusCode::OK);
        let answer = checked.call(&list, &admin, &format!("{changes}?cursor=AAAA"), Value::Null).await;
        answer.expect_problem(400, "invalid_cursor");
    }
}

async fn resends(checked: &CheckedWorld, mug: &str) {
    let (admin, eve) = (Caller::admin(), checked.customer("Eve").await);
    let body = |message: &str, reason: &str| json!({ "resend_id": "a", "message": message, "reason": reason });
    let placed = checked.place(&eve, &[(mug, 1)], "tok_accepted", "k").await.expect(StatusCode::CREATED);
    checked.world.settle().await;
    let path = format!("/orders/{}/resends", id(&placed));
    let resend = async |path: &str, body| checked.call("resendMessage", &admin, path, body).await;
    resend(&path, body("OrderCreated", "Lost.")).await.expect(StatusCode::ACCEPTED);
    resend(&path, body("OrderCreated", "Again.")).await.expect_problem(409, "resend_mismatch");
    resend(&path, body("OrderCancelled", "Lost.")).await.expect_problem(409, "message_outdated");
    let none = format!("/orders/{}/resends", orders::domain::OrderId::generate());
    resend(&none, body("OrderCreated", "Lost.")).await.expect_problem(404, "not_found");
    checked.call("listResends", &admin, &path, Value::Null).await.expect(StatusCode::OK);
    let answer = checked.call("listResends", &admin, &format!("{path}?cursor=AAAA"), Value::Null).await;
    answer.expect_problem(400, "invalid_cursor");
    checked.call("deactivateUser", &eve, &format!("/users/{}", eve.id()), Value::Null).await;
    resend(&path, body("OrderCreated", "Lost.")).await.expect_problem(409, "customer_erased");
}

async fn delayed_orders(checked: &CheckedWorld) {
    let ada = checked.customer("Patient Ada").await;
    let mug = checked.product(19.99, "USD", 9).await;
    let lines = [(mug.as_str(), 1)];
    let place = |token: &'static str, key: &'static str| checked.place(&ada, &lines, token, key);
    let cancel = |order: &Value| format!("/orders/{}/cancel", order["id"].as_str().unwrap());

    let timed_out = tokio::time::timeout(Duration::from_secs(1), place("tok_slow", "slow")).await;
    assert!(timed_out.is_err());
    place("tok_slow", "slow").await.expect_problem(409, "idempotency_in_flight");

    let late = place("tok_accepted", "late").await.expect(StatusCode::CREATED);
    let confirmed = place("tok_accepted", "confirmed").await.expect(StatusCode::CREATED);
    checked.world.cloud.take_down("payments");
    checked.call("cancelOrder", &ada, &cancel(&confirmed), Value::Null).await.expect(StatusCode::ACCEPTED);
    place("tok_accepted", "undecided").await.expect(StatusCode::ACCEPTED);
    let cancelled = place("tok_accepted", "cancelled").await.expect(StatusCode::ACCEPTED);
    checked.call("cancelOrder", &ada, &cancel(&cancelled), Value::Null).await.expect(StatusCode::ACCEPTED);
    place("tok_accepted", "cancelled").await.expect_problem_of_first_request(409, "order_cancelled");
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(60)).await;
        checked.world.sweep().await;
    }
    place("tok_accepted", "undecided").await.expect_problem_of_first_request(409, "order_timed_out");
    checked.world.cloud.bring_back();
    checked.world.sweep().await;
    tokio::time::advance(CANCELLATION_WINDOW).await;
    let answer = checked.call("cancelOrder", &ada, &cancel(&late), Value::Null).await;
    answer.expect_problem(409, "cancellation_closed");
}

trait RepeatedProblem {
    fn expect_problem_of_first_request(&self, status: u16, code: &str);
}

impl RepeatedProblem for Answer {
    /// Asserts the status and the code. Doesn't assert that `instance` names this
    /// request: if a request is repeated, the problem document names the first request.
    #[track_caller]
    fn expect_problem_of_first_request(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.json()["code"].as_str()), (status, Some(code)), "{}", self.text);
    }
}

async fn health(checked: &CheckedWorld) {
    let (admin, ada, nobody) = (Caller::admin(), Caller::named("Ada"), Caller::anonymous());
    for operation in checked.checker.operations().iter().filter(|operation| operation.path.starts_with("/health")) {
        let (id, deep) = (operation.id, format!("{}?deep=true", operation.path));
        checked.call(id, &nobody, operation.path, Value::Null).await.expect(StatusCode::OK);
        checked.call(id, &admin, &deep, Value::Null).await.expect(StatusCode::OK);
        checked.call(id, &nobody, &deep, Value::Null).await.expect_problem(401, "unauthenticated");
        checked.call(id, &ada, &deep, Value::Null).await.expect_problem(403, "forbidden");
        let answer = checked.call(id, &nobody, &format!("{}?deep=1", operation.path), Value::Null).await;
        answer.expect_bad_fields(&["deep"]);
    }
}

/// Sends the same mistakes to every operation. All operations must refuse a mistake
/// in the same way.
async fn bad_requests(checked: &CheckedWorld) {
    let (admin, ada) = (Caller::admin(), Caller::named("Ada"));
    let json = ("content-type", "application/json");
    let matching = ("if-match", "*");
    for operation in checked.checker.operations() {
        let (id, responses) = (operation.id, &operation.details["responses"]);
        let kind = operation.path.split('/').nth(1).unwrap();
        let prefix = match kind {
            "products" => "prod",
            "orders" => "ord",
            "payments" => "pay",
            _ => "user",
        };
        let path = operation.path.replace("{id}", &format!("{prefix}_{}", uuid::Uuid::now_v7()));
        if operation.needs_token(checked.checker.document()) {
            let answer = checked.send(id, &Caller::anonymous(), &path, "{}", &[json, matching]).await;
            answer.expect_problem(401, "unauthenticated");
            if !responses["403"].is_null() {
                checked.send(id, &ada, &path, "{}", &[json, matching]).await.expect_problem(403, "forbidden");
            }
        }
        if operation.path.contains("{id}") {
            let path = operation.path.replace("{id}", "1");
            let answer = checked.send(id, &admin, &path, r#"{"no_such_member":1}"#, &[json, matching]).await;
            let bad = answer.bad_fields();
            assert!(bad.contains(&"id".to_owned()), "{bad:?}");
            assert_eq!(bad.contains(&"no_such_member".to_owned()), operation.body().is_some(), "{id}: {bad:?}");
        }
        // A request with unknown parameters is refused before it has an effect: a client
        // that sends `dry_run=true` expects that nothing is changed.
        let answer = checked.send(id, &admin, &format!("{path}?dry_run=true&no_such=1"), "{}", &[json, matching]).await;
        let bad = answer.bad_fields();
        assert!(["dry_run", "no_such"].iter().all(|name| bad.contains(&name.to_string())), "{id}: {bad:?}");
        if operation.body().is_some() {
            let long = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_BODY));
            let broken = Body::from_stream(futures::stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("broken"))]));
            for (body, headers, status, code) in [
                (Body::from("{}"), vec![matching], 415, "unsupported_media_type"),
                (
                    Body::from("{}"),
                    vec![json, matching, ("content-encoding", "gzip")],
                    415,
                    "unsupported_content_encoding",
                ),
                (Body::from("{"), vec![json, matching], 400, "malformed_json"),
                (Body::from(long), vec![json, matching], 413, "payload_too_large"),
                (broken, vec![json, matching], 400, "unreadable_body"),
                (Body::from("[]"), vec![json, matching], 422, "invalid_request"),
            ] {
                checked.send(id, &admin, &path, body, &headers).await.expect_problem(status, code);
            }
        }
    }
}

/// Sends requests while the tables don't answer, while they are throttled, and while
/// they report contention.
async fn failing_tables(checked: &CheckedWorld) {
    const TABLES: [&str; 5] = ["UsersTable", "ProductsTable", "OrdersTable", "PaymentsTable", "NotificationsTable"];
    let (admin, ada) = (Caller::admin(), checked.customer("Unlucky Ada").await);
    let mug = checked.product(19.99, "USD", 9).await;
    let order = checked.place(&ada, &[(&mug, 1)], "tok_accepted", "first").await.expect(StatusCode::CREATED);
    // Only a finished order has a message that can be sent again.
    checked.world.settle().await;
    let (json, user) = (("content-type", "application/json"), ada.id().to_string());
    let ask = async |operation: &Operation<'_>| {
        let path = match operation.path.split('/').nth(1) {
            Some("users") if operation.id == "findUser" => "/users?email=ada@example.com".to_owned(),
            Some("open-orders") => operation.path.to_owned(),
            Some("messages") => format!("/messages?order_id={}", order["id"].as_str().unwrap()),
            Some("products") => operation.path.replace("{id}", &mug),
            Some("orders") => operation.path.replace("{id}", order["id"].as_str().unwrap()),
            Some("payments") => operation.path.replace("{id}", order["payment_id"].as_str().unwrap()),
            Some("users") if operation.id == "deactivateUser" => format!("/users/{user}?reason=Asked"),
            Some("users") => operation.path.replace("{id}", &user),
            _ => operation.path.to_owned(),
        };
        let body = match operation.id {
            "createUser" => json!({ "name": "Grace", "email": admin.email() }),
            "placeOrder" => json!({ "items": [{ "product_id": mug, "quantity": 1 }] }),
            "createProduct" => json!({ "name": "Mug", "description": "Blue.", "price": 1, "stock": 1 }),
            "adjustStock" => json!({ "adjustment_id": "a", "delta": 1, "reason": "Count" }),
            "resendMessage" => json!({ "resend_id": "a", "message": "OrderCreated", "reason": "Lost." }),
            "cancelOrder" => json!({ "reason": "Recalled." }),
            "setOrdersPause" | "setMessagesPause" => json!({ "paused": true, "reason": "A trial." }),
            "changeUser" => json!({ "name": "Another", "reason": "A typing error." }),
            "changeProduct" => json!({ "name": "Another" }),
            _ => json!({}),
        };
        // A request that creates something can meet contention only if it has an
        // idempotency key.
        let headers = [json, ("if-match", "*"), ("idempotency-key", "of-its-own")];
        checked.send(operation.id, &admin, &path, body.to_string(), &headers).await
    };
    let operations = || checked.checker.operations().into_iter().filter(|operation| !is_health(operation.id));
    checked.world.cloud.take_down("dynamodb");
    for operation in operations() {
        ask(&operation).await.expect_problem(503, "unavailable");
    }
    checked.world.cloud.bring_back();
    TABLES.iter().for_each(|table| checked.world.cloud.throttle(table, A_DAY));
    for operation in operations() {
        ask(&operation).await.expect_problem(503, "throttled");
    }
    checked.world.cloud.bring_back();
    TABLES.iter().for_each(|table| checked.world.cloud.contend(table, A_DAY));
    for (operation, _, _) in checked.checker.unseen().iter().filter(|(_, _, code)| code == "contended") {
        ask(&checked.checker.operation(operation)).await.expect_problem(409, "contended");
    }
    checked.world.cloud.bring_back();
}
