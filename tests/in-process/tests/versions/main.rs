//! Compatibility of versions: during a deployment, services of two successive
//! versions call each other, and read each other's events and items.
//!
//! The files in `recorded/` contain a sample of each request, response, event and item
//! of every version. The tests show that the current code reads every sample, also with
//! members that a later version may add, and that the current code still writes every
//! member that a recorded version has written.

mod recording;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use axum::{Json, Router, body::Body, response::IntoResponse};
use chassis::clock::Clock;
use http::{Method, Request, StatusCode};
use in_process_tests::{
    Answer, Caller, World,
    cloud::HostFault,
    event_document::EventChecker,
    permissions::{self, GRANTED},
    shop::order_id,
    tables,
    world::{CLIENT, ISSUER, sqs_record},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::recording::{EVENT_DOCUMENT, Recording, kind_of, shape, with_later_attributes, with_later_members};

/// The problem codes in a service's response to a request that the service cannot read or
/// cannot handle.
const UNREAD: [&str; 5] =
    ["invalid_request", "malformed_json", "unsupported_media_type", "unreadable_body", "internal_error"];

async fn start() -> World {
    fastrand::seed(7);
    World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await
}

/// A signed-in person whose claims are the same in every run.
fn person(name: &str, sub: u128, phone: Option<&str>) -> Caller {
    let mut claims = json!({
        "sub": uuid::Uuid::from_u128(sub),
        "token_use": "id",
        "iss": ISSUER,
        "aud": CLIENT,
        "email": format!("{}@example.com", name.to_lowercase()),
        "email_verified": "true",
        "iat": "1800000000",
    });
    if let Some(phone) = phone {
        claims["phone_number"] = phone.into();
        claims["phone_number_verified"] = "true".into();
    }
    Caller::signed_in(claims)
}

fn ada() -> Caller {
    person("Ada", 0xada, Some("+15550000001"))
}

fn admin() -> Caller {
    person("Grace", 0x9, None).in_groups(&["admin"], "admin")
}

async fn create_profile(world: &World, caller: &Caller, name: &str) {
    let body = json!({ "name": name, "email": caller.email() });
    world.post(caller, "/users", body).await.expect(StatusCode::CREATED);
}

async fn product(world: &World, name: &str, currency: &str, stock: u32, key: Option<&str>) -> String {
    let body = json!({ "name": name, "description": "For sale.", "price": 20, "currency": currency, "stock": stock });
    let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    let answer = world.send_with(&admin(), Method::POST, "/products", Some(body), &headers).await;
    answer.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned()
}

async fn place(world: &World, caller: &Caller, items: &[(&str, u32)], token: Option<&str>, key: &str) -> Answer {
    let line = |(product, quantity): &(&str, u32)| json!({ "product_id": product, "quantity": quantity });
    let mut body = json!({ "items": items.iter().map(line).collect::<Vec<_>>() });
    if let Some(token) = token {
        body["payment_method"] = token.into();
    }
    world.place(caller, body, key).await
}

/// Delivers the messages of the stream and of both queues three times, because a delivery
/// can cause further messages.
async fn settle(world: &World) {
    for _ in 0..3 {
        world.deliver_stream().await;
        world.deliver_user_events().await;
        world.deliver_messages().await;
    }
}

async fn cancel(world: &World, caller: &Caller, placed: &Answer) {
    assert!(world.cancel(caller, &placed.json()).await.status.is_success());
    settle(world).await;
}

/// Runs a scenario in which the current code produces every kind of request, response, event
/// and item, and records all of them.
async fn record_current() -> Recording {
    let world = start().await;
    world.cloud.record_items();
    let (ada, bob) = (ada(), person("Bob", 0xb0b, None));
    create_profile(&world, &ada, "Ada").await;
    create_profile(&world, &bob, "Bob").await;
    let rope = product(&world, "Rope", "USD", 9, Some("the-rope")).await;
    let lamp = product(&world, "Lamp", "USD", 9, None).await;
    let krone = product(&world, "Krone", "SEK", 9, None).await;
    let adjustment = json!({ "adjustment_id": "count-1", "delta": 3, "reason": "Count" });
    world.post(&admin(), &format!("/products/{rope}/stock-adjustments"), adjustment).await.expect(StatusCode::OK);
    let change = Some(json!({ "description": "Stays lit." }));
    let path = format!("/products/{lamp}");
    world.send_with(&admin(), Method::PATCH, &path, change, &[("if-match", "*")]).await.expect(StatusCode::OK);

    let done = place(&world, &ada, &[(&rope, 2), (&lamp, 1)], Some("tok_accepted"), "done").await;
    done.expect(StatusCode::CREATED);
    settle(&world).await;
    // While there is one order, one request of each kind tells of all orders. The orders are in random shards of the
    // index, so of several orders the requests would differ in each run.
    assert_eq!(world.reconcile().await, []);
    cancel(&world, &ada, &done).await;
    let confirmed = place(&world, &bob, &[(&rope, 1)], None, "confirmed").await;
    let confirmed = confirmed.expect(StatusCode::CREATED);
    world.cancel_for_shop(&admin(), &confirmed, "Recalled.").await.expect(StatusCode::OK);
    settle(&world).await;
    // An administrator has the message of the cancellation sent again.
    let body = json!({ "resend_id": "ticket-1", "message": "OrderCancelled", "reason": "It did not arrive." });
    let path = format!("/orders/{}/resends", confirmed["id"].as_str().unwrap());
    world.post(&admin(), &path, body).await.expect(StatusCode::ACCEPTED);
    settle(&world).await;
    // The provider refuses to capture, answers slowly, and fails once.
    for token in ["tok_capture_refused", "tok_slow", "tok_flaky"] {
        place(&world, &ada, &[(&rope, 1)], Some(token), token).await.expect(StatusCode::CREATED);
        settle(&world).await;
    }
    let unknown = "prod_00000000-0000-7000-8000-00000000abcd";
    for (items, token, code) in [
        (vec![(rope.as_str(), 1)], "tok_declined", "payment_declined"),
        (vec![(rope.as_str(), 999), (lamp.as_str(), 1)], "tok_accepted", "out_of_stock"),
        (vec![(rope.as_str(), 1), (krone.as_str(), 1)], "tok_accepted", "mixed_currencies"),
        (vec![(unknown, 1)], "tok_accepted", "unknown_product"),
    ] {
        let refused = place(&world, &bob, &items, Some(token), code).await;
        assert_eq!(refused.json()["code"], code, "{}", refused.text);
        settle(&world).await;
    }
    // The price in the first request is outdated. The price in the second request is the
    // current price.
    for (price, status) in [(19, StatusCode::CONFLICT), (20, StatusCode::CREATED)] {
        let line = json!({ "product_id": rope, "quantity": 1, "unit_price": price });
        let body = json!({ "items": [line], "total": price, "currency": "USD" });
        world.place(&bob, body, &format!("shown-{price}")).await.expect(status);
        settle(&world).await;
    }
    // The reservation of an order meets contention. Then a customer cancels an order that is
    // not decided yet.
    world.cloud.contend(&format!("STOCK#{rope}#0"), Duration::from_secs(1));
    place(&world, &bob, &[(&rope, 1)], None, "busy").await.expect(StatusCode::CREATED);
    let one = [(rope.as_str(), 1)];
    let undecided = place(&world, &bob, &one, Some("tok_slow"), "undecided");
    let (placed, ()) = tokio::join!(undecided, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let orders = world.cloud.scan("OrdersTable");
        let pending = orders.iter().find(|item| item["state"]["S"] == "PENDING").expect("an undecided order");
        let path = format!("/orders/{}/cancel", order_id(pending));
        world.send(&bob, Method::POST, &path, None).await;
    });
    placed.expect(StatusCode::CONFLICT);
    settle(&world).await;
    place(&world, &person("Stranger", 0x57, None), &[(&rope, 1)], None, "stranger").await;
    settle(&world).await;
    // SES refuses one e-mail permanently and another e-mail temporarily.
    for (status, error) in [(400, "BadRequestException"), (429, "TooManyRequestsException")] {
        world.cloud.answer_mail(move |_| Some((status, json!({ "__type": error, "message": "No." }))));
        place(&world, &bob, &[(&lamp, 1)], None, error).await.expect(StatusCode::CREATED);
        settle(&world).await;
    }
    world.cloud.answer_mail(|_| None);
    settle(&world).await;
    // An order is not decided in time, because the payments service is down.
    world.cloud.inject_fault("payments.internal", HostFault::Down);
    place(&world, &ada, &[(&lamp, 1)], Some("tok_accepted"), "late").await.expect(StatusCode::ACCEPTED);
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(60)).await;
        world.sweep().await;
        settle(&world).await;
    }
    world.cloud.bring_back();
    for _ in 0..6 {
        tokio::time::advance(Duration::from_secs(60)).await;
        world.sweep().await;
        settle(&world).await;
    }
    // A reservation is released before it exists, and a payment is cancelled before it
    // exists.
    let ended = "ord_00000000-0000-7000-8000-00000000dead";
    let service = Caller::service();
    world.post(&service, &format!("/reservations/{ended}/release"), json!({})).await.expect(StatusCode::OK);
    world.post(&service, &format!("/payments/{}/cancel", ended.replace("ord", "pay")), json!({})).await;
    // An administrator corrects the name of a customer.
    let body = json!({ "name": "Bobby", "reason": "A typing error." });
    world.patch(&admin(), &format!("/users/{}", bob.id()), body).await.expect(StatusCode::OK);
    // One customer changes their e-mail address and name, and another customer is erased.
    world
        .patch(
            &bob.with_claim("email", "robert@example.com"),
            &format!("/users/{}", bob.id()),
            json!({ "name": "Robert" }),
        )
        .await;
    world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
    place(&world, &ada, &[(&rope, 1)], None, "erased").await;
    settle(&world).await;
    Recording::of(&world)
}

#[tokio::test(start_paused = true)]
async fn the_current_version_is_recorded() {
    let current = record_current().await;
    let version = env!("CARGO_PKG_VERSION");
    if std::env::var("HOLDFAST_UPDATE").as_deref() == Ok("recorded") {
        current.write(version);
    }
    let all = Recording::all();
    let recorded = all.get(version).unwrap_or_else(|| panic!("{version} is not recorded: make record"));
    for kind in recorded.0.keys() {
        assert!(current.0.contains_key(kind), "the current code produced nothing of the kind {kind}");
    }
    // Each table, each route between services, and each type of event is recorded.
    for table in tables::from_template().iter().filter_map(|request| request["TableName"].as_str()) {
        assert!(recorded.samples(&format!("items/{table} ")).next().is_some(), "{table}");
    }
    let exchanges = recorded.samples("exchanges/");
    let text = |sample: &Value, name: &str| sample[name].as_str().unwrap().to_owned();
    let asked: BTreeSet<_> =
        exchanges.map(|(_, sample)| permissions::route(&text(sample, "method"), &text(sample, "path"))).collect();
    let routes = GRANTED.iter().filter(|right| right.action == permissions::CALL).map(|right| right.resource.clone());
    assert_eq!(asked, routes.collect());
    for event in
        ["OrderCreated", "OrderCancelled", "PaymentCaptured", "PaymentRefunded", "ResendRequested", "UserErased"]
    {
        assert!(recorded.samples(&format!("events/{event}")).next().is_some(), "{event}");
    }
}

/// A service of a recorded version may read the requests, responses, events and items of the
/// current code. Every member of a recorded sample must therefore still exist and have the
/// same type.
#[tokio::test(start_paused = true)]
async fn every_recorded_member_is_still_written_with_its_type() {
    let current = record_current().await;
    for (version, recorded) in Recording::all() {
        for (kind, sample) in recorded.samples("").filter(|(kind, _)| *kind != EVENT_DOCUMENT) {
            let shapes: Vec<_> =
                current.samples(kind).filter(|(of, _)| *of == kind).map(|(_, now)| shape(now)).collect();
            assert!(!shapes.is_empty(), "{version}: {kind}: this kind is no longer written");
            let wanted = shape(sample);
            let missing =
                shapes.iter().map(|now| wanted.difference(now).collect::<Vec<_>>()).min_by_key(Vec::len).unwrap();
            assert!(missing.is_empty(), "{version}: {kind}: {missing:?} are no longer written");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_of_another_version_is_understood() {
    for (version, recorded) in Recording::all() {
        for (kind, sample) in recorded.samples("exchanges/") {
            let mut answers = Vec::new();
            for request in [sample["request"].clone(), with_later_members(&sample["request"])] {
                let world = start().await;
                let mut ask = Request::builder().method(sample["method"].as_str().unwrap());
                ask = ask.uri(sample["path"].as_str().unwrap()).header("content-type", "application/json");
                let body = if request.is_null() { Body::empty() } else { Body::from(request.to_string()) };
                let answer = world.send_raw(&Caller::service(), ask.body(body).unwrap()).await;
                let as_then = answer.status.as_u16() == sample["status"];
                assert!(!answer.status.is_server_error() || as_then, "{version}: {kind}: {}", answer.text);
                let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
                assert!(!UNREAD.contains(&code.as_str()), "{version}: {kind}: {}", answer.text);
                answers.push((answer.status, code));
            }
            assert_eq!(answers[0], answers[1], "{version}: {kind}");
        }
    }
}

/// The result of a request that placed an order and of a request that cancelled the order.
#[derive(Debug, PartialEq)]
struct OrderResult {
    /// The HTTP status of the response to the request that placed the order.
    status: u16,
    states: Vec<String>,
    is_open: bool,
}

/// Places and cancels an order while the other services return recorded responses. The route
/// of `sample` returns the response of `sample`, and every other route returns a recorded
/// successful response. If `later` is true, the responses have additional members, since a
/// later version may add members.
async fn order_result(recorded: &Recording, sample: &Value, later: bool) -> OrderResult {
    let world = start().await;
    let route = |method: &str, path: &str| {
        format!("{method} {}", path.split('/').filter(|part| !part.contains('_')).collect::<Vec<_>>().join("/"))
    };
    let of = |sample: &Value| route(sample["method"].as_str().unwrap(), sample["path"].as_str().unwrap());
    let mut answers = HashMap::new();
    for (_, well) in recorded.samples("exchanges/").filter(|(_, well)| well["status"].as_u64().unwrap() < 300) {
        answers.entry(of(well)).or_insert_with(|| well.clone());
    }
    answers.insert(of(sample), sample.clone());
    for service in ["users", "products", "payments"] {
        let answers = answers.clone();
        world.cloud.serve(
            service,
            Router::new().fallback(move |request: Request<Body>| {
                let asked = route(request.method().as_str(), request.uri().path());
                let sample = answers.get(&asked).cloned().unwrap_or_else(|| panic!("no answer to {asked} is recorded"));
                async move {
                    let status =
                        StatusCode::from_u16(u16::try_from(sample["status"].as_u64().unwrap()).unwrap()).unwrap();
                    let answer = if later { with_later_members(&sample["answer"]) } else { sample["answer"].clone() };
                    (status, Json(answer)).into_response()
                }
            }),
        );
    }
    let ada = ada();
    let placed =
        place(&world, &ada, &[("prod_00000000-0000-7000-8000-000000000001", 2)], Some("tok_accepted"), "k").await;
    world.deliver_stream().await;
    let order = placed.json();
    let id =
        order["id"].as_str().or(order["order_id"].as_str()).unwrap_or_else(|| panic!("{}", placed.text)).to_owned();
    world.cancel(&ada, &order).await;
    world.deliver_stream().await;
    let order = world.get(&ada, &format!("/orders/{id}")).await.expect(StatusCode::OK);
    let states = order["history"].as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap().to_owned());
    let items = world.cloud.scan("OrdersTable");
    let is_open = items.iter().any(|item| item["check_shard"].is_object());
    OrderResult { status: placed.status.as_u16(), states: states.collect(), is_open }
}

#[tokio::test(start_paused = true)]
async fn a_response_of_another_version_is_understood() {
    for (version, recorded) in Recording::all() {
        for (kind, sample) in recorded.samples("exchanges/") {
            let (plain, later) =
                (order_result(&recorded, sample, false).await, order_result(&recorded, sample, true).await);
            assert_eq!(plain, later, "{version}: {kind}");
            // If the orders service does not understand a response, the order stays undecided
            // or open.
            let status = sample["status"].as_u64().unwrap();
            let path = sample["path"].as_str().unwrap();
            if status < 300 {
                assert!(plain.status != 202 && !plain.is_open, "{version}: {kind}: {plain:?}");
            } else if status < 500 && ["/payments", "/products/reserve"].contains(&path) {
                // With these three codes the other service does not refuse the order.
                let is_refusal =
                    |code: &&str| !["reservation_released", "payment_cancelled", "contended"].contains(code);
                let refusal = sample["answer"]["code"].as_str().filter(is_refusal);
                assert!(refusal.is_none() || u64::from(plain.status) == status, "{version}: {kind}: {plain:?}");
            }
        }
    }
}

/// A consumer that was built for a recorded version expects what the document of that version
/// says.
#[tokio::test(start_paused = true)]
async fn an_event_of_this_version_is_valid_for_a_consumer_of_each_recorded_version() {
    let current = record_current().await;
    for (version, recorded) in Recording::all() {
        let (_, document) = recorded.samples(EVENT_DOCUMENT).next().unwrap_or_else(|| panic!("{version}: no document"));
        let consumer = EventChecker::new(document);
        for (kind, event) in current.samples("events/") {
            // A consumer is deployed before any service publishes an event of a new type.
            if consumer.knows(event["type"].as_str().unwrap()) {
                assert_eq!(consumer.errors(event), [""; 0], "{version}: {kind}");
                assert_eq!(consumer.errors(&with_later_members(event)), [""; 0], "{version}: {kind}");
            }
        }
    }
}

/// Events of an earlier version can wait in a queue, or in a dead-letter queue, while this version
/// is deployed.
#[test]
fn an_event_of_each_recorded_version_is_valid_for_a_consumer_of_this_version() {
    for (version, recorded) in Recording::all() {
        for (kind, event) in recorded.samples("events/") {
            assert_eq!(EventChecker::current().errors(event), [""; 0], "{version}: {kind}");
        }
        let (_, document) = recorded.samples(EVENT_DOCUMENT).next().unwrap_or_else(|| panic!("{version}: no document"));
        for kind in document["components"]["messages"].as_object().unwrap().keys() {
            assert!(EventChecker::current().knows(kind), "{version}: {kind} is no longer described");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_customer_is_notified_of_an_event_of_another_version() {
    for (version, recorded) in Recording::all() {
        for (kind, event) in recorded.samples("events/") {
            let mut messages = Vec::new();
            for event in [event.clone(), with_later_members(event)] {
                let world = start().await;
                world.cloud.put_message(event.to_string());
                let answer = world.deliver_messages().await;
                assert_eq!(answer["batchItemFailures"], json!([]), "{version}: {kind}");
                if event["type"] == "UserErased" {
                    let payload = json!({ "Records": [sqs_record("m-0", &event.to_string())] });
                    let answer = world.invoke("order-worker", &payload.to_string()).await.unwrap();
                    assert_eq!(answer["batchItemFailures"], json!([]), "{version}: {kind}");
                }
                let texts = world.cloud.texts().iter().map(|text| text["Message"].clone()).collect::<Vec<_>>();
                messages.push((world.cloud.mails(), texts));
            }
            assert_eq!(messages[0], messages[1], "{version}: {kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_of_another_version_is_understood() {
    for (version, recorded) in Recording::all() {
        for (kind, item) in recorded.samples("items/") {
            let mut found = Vec::new();
            for item in [item.clone(), with_later_attributes(item)] {
                let world = start().await;
                // The item may refer to other items, so all recorded items are stored first.
                for (kind, other) in recorded.samples("items/") {
                    world.cloud.put_item(table_of(kind), other.clone());
                }
                world.cloud.put_item(table_of(kind), item.clone());
                let answer = read_through_service(&world, &recorded, table_of(kind), &item).await;
                assert!(!answer.0.is_server_error(), "{version}: {kind}: {answer:?}");
                found.push(answer);
            }
            assert_eq!(found[0], found[1], "{version}: {kind}");
        }
    }
}

/// A later version may store attributes that the current code does not know. The current
/// code must not remove these attributes when it changes the order.
#[tokio::test(start_paused = true)]
async fn unknown_attributes_of_an_order_are_kept_at_each_transition() {
    let world = start().await;
    let ada = ada();
    create_profile(&world, &ada, "Ada").await;
    let rope = product(&world, "Rope", "USD", 9, None).await;
    let placed = place(&world, &ada, &[(&rope, 2)], Some("tok_accepted"), "k").await;
    let order = || world.stored_order();
    let later = with_later_attributes(&order());
    world.cloud.put_item("OrdersTable", later.clone());
    settle(&world).await;
    cancel(&world, &ada, &placed).await;
    let cancelled = order();
    assert_eq!(cancelled["state"]["S"], "CANCELLED");
    assert_eq!(cancelled["added_later"], later["added_later"]);
}

fn table_of(kind: &str) -> &str {
    kind.trim_start_matches("items/").split(' ').next().unwrap()
}

/// Sends a request that a service can answer only after it has read the item.
async fn read_through_service(world: &World, recorded: &Recording, table: &str, item: &Value) -> (StatusCode, Value) {
    let text = |name: &str| item[name]["S"].as_str().unwrap_or_default().to_owned();
    let (pk, sk) = (text("pk"), text("sk"));
    let id = pk.split('#').nth(1).unwrap_or_default().to_owned();
    // The person with this user id, who is also an administrator.
    let owner = |id: &str| admin().with_claim("sub", id.trim_start_matches("user_"));
    let service = Caller::service();
    let kind = kind_of(item);
    let what = kind.split(' ').take(2).collect::<Vec<_>>();
    let answer = match (table, what.as_slice()) {
        ("OrdersTable", ["ORDER", "RESEND"]) => world.get(&admin(), &format!("/orders/{id}/resends")).await,
        ("OrdersTable", ["ORDER", ..]) => world.get(&owner(&text("user_id")), &format!("/orders/{id}")).await,
        ("OrdersTable", ["KEY", ..]) => {
            let key = pk.rsplit('#').next().unwrap();
            place(world, &owner(&id), &[("prod_00000000-0000-7000-8000-000000000001", 7)], None, key).await
        }
        ("ProductsTable", ["KEY", ..]) => {
            let body = json!({ "name": "Another", "description": "One.", "price": 1, "stock": 1 });
            let key = [("idempotency-key", pk.rsplit('#').next().unwrap())];
            world.send_with(&owner(&id), Method::POST, "/products", Some(body), &key).await
        }
        ("ProductsTable", ["PRODUCT", "ADJUSTMENT"]) => {
            let name = sk.split('#').nth(1).unwrap();
            let body = json!({ "adjustment_id": name, "delta": 1000, "reason": "Another" });
            world.post(&admin(), &format!("/products/{id}/stock-adjustments"), body).await
        }
        ("ProductsTable", ["PRODUCT", "VERSION"]) => world.get(&admin(), &format!("/products/{id}/versions")).await,
        ("ProductsTable", ["PRODUCT" | "STOCK"]) => world.get(&service, &format!("/products/{id}")).await,
        ("ProductsTable", ["RESERVATION", ..]) => {
            let unknown = "prod_00000000-0000-7000-8000-00000000ffff";
            let body = json!({ "order_id": id, "product_id": unknown, "quantity": 1 });
            world.post(&service, "/products/reserve", body).await
        }
        ("PaymentsTable", ["PAYMENT", ..]) => world.get(&service, &format!("/payments/{id}")).await,
        ("SandboxLedgerTable", ["CHARGE", ..]) => {
            world.post(&service, &format!("/payments/{id}/cancel"), json!({})).await
        }
        ("UsersTable", ["USER", "ACTION"]) => world.get(&admin(), &format!("/users/{id}/actions")).await,
        ("UsersTable", ["USER"]) => world.get(&owner(&id), &format!("/users/{id}")).await,
        ("UsersTable", ["EMAIL"]) => {
            let body = json!({ "name": "Another", "email": id });
            world.post(&person("Another", 0xa0, None).with_claim("email", id.as_str()), "/users", body).await
        }
        ("NotificationsTable", ["ERASED"]) => {
            let (_, event) = recorded.samples("events/PaymentCaptured").next().unwrap();
            let mut event = event.clone();
            event["id"] = "of-somebody-erased".into();
            event["data"]["user_id"] = id.into();
            world.cloud.put_message(event.to_string());
            let answer = world.deliver_messages().await;
            assert!(world.cloud.mails().is_empty());
            return (StatusCode::OK, answer);
        }
        ("NotificationsTable", ["ORDER", "EVENT"]) => {
            let name = sk.trim_start_matches("EVENT#").rsplit_once('#').unwrap().0;
            let (_, event) = recorded.samples("events/").find(|(_, event)| event["id"] == name).unwrap_or_else(|| {
                recorded
                    .samples("events/")
                    .find(|(kind, _)| name.ends_with(kind.split(['/', ' ']).nth(1).unwrap()))
                    .unwrap()
            });
            let mut event = event.clone();
            event["id"] = name.into();
            event["data"]["order_id"] = id.clone().into();
            world.cloud.put_message(event.to_string());
            let answer = world.deliver_messages().await;
            let messages = world.get(&admin(), &format!("/messages?order_id={id}")).await;
            messages.expect(StatusCode::OK);
            return (StatusCode::OK, json!([answer, world.cloud.mails(), world.cloud.texts().len()]));
        }
        other => panic!("no request is known that reads an item of the kind {other:?}"),
    };
    let mut body = answer.json();
    for random in ["instance", "id", "created_at", "updated_at"] {
        if answer.status == StatusCode::CREATED || random == "instance" {
            body.as_object_mut().map(|body| body.remove(random));
        }
    }
    (answer.status, body)
}
