//! A repeated request is recognised by an idempotency key or an id. If any member of
//! the repeat has another value, the repeat is refused as a different request.
//!
//! The OpenAPI document lists the members of each request body. If a member is added
//! there, a test fails until the test's own request contains the member.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use in_process_tests::{Caller, World, shop::order_request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::checker::Checker;

/// Members that may have another value in a repeat: an operation, and a JSON pointer
/// into its body.
const IGNORED: [(&str, &str); 1] = [
    // `user_id` must be the caller's own id, and each caller has separate idempotency
    // keys. So two valid requests with one key never differ in `user_id`.
    ("placeOrder", "/user_id"),
];

#[tokio::test]
async fn a_repeat_under_a_key_is_refused_if_any_member_differs() {
    let (checker, world) = (Checker::new(), World::start().await);
    let (admin, ada) = (Caller::admin(), world.customer("Ada").await);
    let mug = world.product("19.99", 9).await;
    let mut operations = 0;
    for operation in checker.operations() {
        let parameters = operation.details["parameters"].as_array();
        if !parameters.into_iter().flatten().any(|parameter| parameter["name"] == "Idempotency-Key") {
            continue;
        }
        operations += 1;
        let (person, whole) = match operation.id {
            "createProduct" => (
                &admin,
                json!({
                    "name": "Mug", "description": "Blue.", "price": 19.99, "currency": "USD", "stock": 5,
                    "reason": "New",
                }),
            ),
            "placeOrder" => (
                &ada,
                json!({
                    "user_id": ada.id(),
                    "items": [{ "product_id": mug, "quantity": 2, "unit_price": 19.99 }],
                    "total": 39.98,
                    "currency": "USD",
                    "payment_method": "tok_accepted",
                }),
            ),
            other => panic!("{other} accepts a key: write a request with every member here"),
        };
        let schema = operation.body().expect("a body");
        let known = members_of_schema(schema, checker.document(), "");
        assert_eq!(members(&whole, ""), known, "{}: give each member a value here", operation.id);

        let send = async |body: &Value| {
            let key = [("idempotency-key", "the-key")];
            world.send_with(person, operation.method.clone(), operation.path, Some(body.clone()), &key).await
        };
        let first = send(&whole).await;
        first.expect(StatusCode::CREATED);
        assert_eq!(send(&whole).await.text, first.text, "{}", operation.id);
        for member in leaves(&whole, "") {
            let answer = send(&with_other_value(&whole, &member)).await;
            if IGNORED.contains(&(operation.id, &member)) {
                assert_ne!(answer.json()["code"], "idempotency_mismatch", "{} {member}", operation.id);
            } else {
                answer.expect_problem(422, "idempotency_mismatch");
            }
        }
    }
    assert_eq!(operations, 2, "the operations that accept a key were not found");
}

#[tokio::test]
async fn a_repeated_stock_adjustment_is_refused_if_any_member_differs() {
    let (checker, world) = (Checker::new(), World::start().await);
    let mug = world.product("19.99", 5).await;
    let operation = checker.operation("adjustStock");
    let path = operation.path.replace("{id}", &mug);
    let whole = json!({ "adjustment_id": "count-1", "delta": 3, "reason": "Count" });
    let known = members_of_schema(operation.body().expect("a body"), checker.document(), "");
    assert_eq!(members(&whole, ""), known, "give each member a value here");
    let first = world.post(&Caller::admin(), &path, whole.clone()).await;
    first.expect(StatusCode::OK);
    for member in leaves(&whole, "").into_iter().filter(|member| member != "/adjustment_id") {
        let answer = world.post(&Caller::admin(), &path, with_other_value(&whole, &member)).await;
        answer.expect_problem(409, "adjustment_mismatch");
    }
}

/// A service recognises a repeated request of another service by the order's id.
#[tokio::test]
async fn a_repeat_between_services_for_the_same_order_is_refused_if_any_member_differs() {
    // The customer may change the name in the profile between two attempts to charge
    // for an order. The second attempt is still a repeat, so the customer pays once.
    const IGNORED: [(&str, &str); 1] = [("/payments", "/recipient/")];
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let mug = world.product("19.99", 5).await;
    world.post(&ada, "/orders", order_request(&[(&mug, 2)], "tok_accepted")).await.expect(StatusCode::CREATED);
    let mut paths = BTreeSet::new();
    // A request to validate a user does not name an order.
    let belongs_to_order = |path: &str| !path.ends_with("/validate");
    let exchanges = world.cloud.exchanges().into_iter();
    for exchange in exchanges.filter(|exchange| exchange.method == Method::POST && belongs_to_order(&exchange.path)) {
        let (service, path, request) = (Caller::service(), &exchange.path, &exchange.request);
        assert_eq!(world.post(&service, path, request.clone()).await.json(), exchange.answer);
        paths.insert(path.clone());
        for member in leaves(request, "").into_iter().filter(|member| member != "/order_id") {
            let answer = world.post(&service, path, with_other_value(request, &member)).await;
            if IGNORED.iter().any(|(of, prefix)| of == path && member.starts_with(prefix)) {
                assert!(answer.status.is_success(), "{path} {member}: {}", answer.text);
                continue;
            }
            let code = answer.expect(StatusCode::CONFLICT)["code"].clone();
            assert!(code.as_str().is_some_and(|code| code.ends_with("_mismatch")), "{path} {member}: {code}");
        }
    }
    assert_eq!(paths, BTreeSet::from(["/payments".to_owned(), "/products/reserve".to_owned()]));
}

/// The paths of all members of a value, at every level, without array indexes.
fn members(value: &Value, at: &str) -> BTreeSet<String> {
    match value {
        Value::Object(object) => object
            .iter()
            .flat_map(|(name, value)| {
                let at = format!("{at}/{name}");
                let below = members(value, &at);
                below.into_iter().chain([at])
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| members(item, at)).collect(),
        _ => BTreeSet::new(),
    }
}

/// The paths of all members that a schema describes, in the form of [`members`].
fn members_of_schema(schema: &Value, document: &Value, at: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if let Some(name) = schema["$ref"].as_str() {
        let named = document.pointer(name.trim_start_matches('#')).expect("the target of a reference");
        found.extend(members_of_schema(named, document, at));
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        found.extend(members_of_schema(schema, document, &at));
        found.insert(at);
    }
    if !schema["items"].is_null() {
        found.extend(members_of_schema(&schema["items"], document, at));
    }
    for alternative in ["allOf", "oneOf", "anyOf"].iter().filter_map(|name| schema[*name].as_array()).flatten() {
        found.extend(members_of_schema(alternative, document, at));
    }
    found
}

/// The JSON pointers to all values that are neither objects nor arrays.
fn leaves(value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Object(object) => {
            object.iter().flat_map(|(name, value)| leaves(value, &format!("{at}/{name}"))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(n, item)| leaves(item, &format!("{at}/{n}"))).collect()
        }
        _ => vec![at.to_owned()],
    }
}

/// A copy of `whole` with another valid value at the JSON pointer `at`.
fn with_other_value(whole: &Value, at: &str) -> Value {
    let mut changed = whole.clone();
    let place = changed.pointer_mut(at).expect("a place");
    let id = |text: &str| text.rsplit_once('_').is_some_and(|(_, id)| id.parse::<Uuid>().is_ok());
    *place = match &*place {
        Value::Bool(value) => json!(!value),
        Value::Number(number) if number.is_f64() => json!(number.as_f64().expect("a number") + 1.0),
        Value::Number(number) => json!(number.as_i64().expect("a whole number") + 1),
        Value::String(text) if text == "USD" => "EUR".into(),
        Value::String(text) if id(text) => {
            let (prefix, _) = text.rsplit_once('_').expect("a prefix");
            format!("{prefix}_{}", Uuid::now_v7()).into()
        }
        Value::String(text) if text.starts_with('+') => format!("{}0", &text[..text.len() - 1]).into(),
        Value::String(text) => format!("{text}x").into(),
        other => panic!("{at}: this test knows no other value for {other}"),
    };
    changed
}
