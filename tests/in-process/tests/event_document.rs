//! Tests of the AsyncAPI document, `docs/asyncapi.yaml`: the document is generated from the
//! code, and describes exactly the events that the services publish and the notifier knows.

use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use chassis::{
    deadline::Deadline,
    events::{Event, EventPublisher, QueueUrl},
    trace::TraceContext,
};
use http::StatusCode;
use in_process_tests::{
    World,
    event_document::{self, EventChecker},
    shop::order_request,
    world,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The path of the committed document.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/asyncapi.yaml");

#[test]
fn the_committed_document_of_events_is_the_one_that_the_code_generates() {
    let generated = event_document::yaml();
    if std::env::var("HOLDFAST_UPDATE").as_deref() == Ok("asyncapi") {
        fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        generated == committed,
        "docs/asyncapi.yaml differs from the generated document. `make asyncapi` writes the generated document; \
         review the differences."
    );
}

/// Calls `visit` with each value in `value`, and with the value's path.
fn walk(path: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, value);
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| walk(&format!("{path}/{name}"), value, visit))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| walk(&format!("{path}/{n}"), value, visit));
        }
        _ => {}
    }
}

#[test]
fn each_reference_in_the_document_has_a_target_and_each_schema_is_used() {
    let document = event_document::document();
    let mut targets = BTreeSet::new();
    walk("#", &document, &mut |path, value| {
        if let Some(target) = value["$ref"].as_str() {
            assert!(document.pointer(&target[1..]).is_some(), "{path} refers to {target}");
            targets.insert(target.to_owned());
        }
    });
    for part in ["schemas", "messages"] {
        for name in document["components"][part].as_object().unwrap().keys() {
            assert!(targets.contains(&format!("#/components/{part}/{name}")), "{name}");
        }
    }
}

/// AsyncAPI 3.0: an operation sends or receives messages of its channel, and refers to them by
/// the channel. <https://www.asyncapi.com/docs/reference/specification/v3.0.0#operationObject>
#[test]
fn each_event_has_a_sender_and_a_receiver_on_each_of_its_channels() {
    let document = event_document::document();
    let operations: Vec<_> = document["operations"].as_object().unwrap().values().collect();
    for operation in &operations {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        for message in operation["messages"].as_array().unwrap() {
            assert!(message["$ref"].as_str().unwrap().starts_with(&format!("{channel}/messages/")), "{operation}");
        }
    }
    let mut documented = BTreeSet::new();
    for (channel, described) in document["channels"].as_object().unwrap() {
        for kind in described["messages"].as_object().unwrap().keys() {
            documented.insert(kind.as_str());
            let message = json!({ "$ref": format!("#/channels/{channel}/messages/{kind}") });
            for action in ["send", "receive"] {
                let of_action = operations.iter().filter(|operation| operation["action"] == action);
                let count = of_action.filter(|it| it["messages"].as_array().unwrap().contains(&message)).count();
                assert_eq!(count, 1, "{kind} on {channel}: {action}");
            }
        }
    }
    let types = event_document::event_types();
    assert_eq!(documented, types.iter().map(|event| event.kind).collect());
}

/// A published event of a shop in which an order was placed.
async fn published() -> Value {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let teapot = world.product("19.99", 5).await;
    world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "k").await.expect(StatusCode::CREATED);
    world.deliver_stream().await;
    let events = world.cloud.sent_messages().into_iter().map(|event| serde_json::from_str::<Value>(&event).unwrap());
    events.into_iter().find(|event| event["type"] == "OrderCreated").unwrap()
}

#[tokio::test]
async fn an_event_that_is_not_as_documented_is_noticed() {
    let event = published().await;
    let checker = EventChecker::current();
    assert_eq!(checker.errors(&event), [""; 0]);
    for (path, value) in [
        ("/id", Value::Null),
        ("/type", json!("OrderPlaced")),
        ("/source", json!("/payments")),
        ("/specversion", json!("2.0")),
        ("/time", json!("yesterday")),
        ("/traceparent", json!("none")),
        ("/subject", json!(7)),
        ("/data", json!([])),
        ("/data/order_id", json!("prod_0195a8e0-0000-7000-8000-000000000001")),
        ("/data/total", json!("19.99")),
        ("/data/currency", json!("XXX")),
        ("/data/paid", json!(1)),
        ("/data/recipient/email", json!("nobody")),
        ("/data/recipient", Value::Null),
        ("/data/lines/0/quantity", json!(0)),
    ] {
        let mut changed = event.clone();
        *changed.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        assert!(!checker.errors(&changed).is_empty(), "{path}");
    }
    for (parent, member) in [("", "id"), ("", "data"), ("/data", "user_id"), ("/data", "lines"), ("/data", "paid")] {
        let mut lacking = event.clone();
        lacking.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(member).unwrap();
        assert!(!checker.errors(&lacking).is_empty(), "{member}");
    }
}

#[tokio::test]
async fn a_test_fails_if_a_service_publishes_an_undocumented_event() {
    let world = World::start().await;
    let aws = world::aws(world.cloud.clone()).await;
    let queue = world::variable("orders", QueueUrl::OF_ORDER_EVENTS).unwrap().parse().unwrap();
    let event = Event::new("/orders", "OrderLost", "ord_1", Timestamp::now(), TraceContext::start(), json!({}));
    let deadline = Deadline::after(Duration::from_secs(5));
    EventPublisher::open(&aws.config, queue).publish(&event, deadline).await.unwrap();
    assert_eq!(world.cloud.undocumented_events(), [r#"the document has no type of event "OrderLost""#]);
    let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(world)));
    assert!(dropped.is_err());
}
