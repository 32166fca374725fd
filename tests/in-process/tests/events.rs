//! Tests of the payloads in `events/`. Developers invoke the functions by hand with these
//! payloads. The tests read each payload as the Lambda runtime does, and check that the
//! payload has the effect that its name states.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use http::StatusCode;
use in_process_tests::{Caller, World, permissions, template::Template};
use serde_json::{Value, json};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events");

/// The ids that all payloads use.
const PRODUCT: &str = "prod_019ab0a1-0c55-7d21-8a4e-6b1b7f1f3c01";
const ORDER: &str = "ord_019ab0c4-5b1e-7c3a-9f10-2f6f1c9d4e21";
const CUSTOMER: &str = "5f0b7a52-6c1e-4f0e-9a37-0d6b8f0c2a11";

/// The kind of a payload: the AWS service that sends it. There are two kinds of SQS
/// batches: a batch of valid records, and a batch with one bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    RestApi,
    HttpApi,
    FunctionUrl,
    Queue,
    QueueWithBadRecord,
    Stream,
    Schedule,
}

/// Returns the kinds of payloads that a function needs for a type of event source in the
/// template. `Api` is a REST API, which sends version 1.0 of its payload format. HTTP APIs
/// and `cargo lambda watch` send version 2.0, so a function needs a payload of each version.
/// A function URL sends version 2.0, too, but names no route.
fn kinds_of(source: &str) -> &'static [Kind] {
    match source {
        "Api" => &[Kind::RestApi, Kind::HttpApi],
        "SQS" => &[Kind::Queue, Kind::QueueWithBadRecord],
        "DynamoDB" => &[Kind::Stream],
        "ScheduleV2" => &[Kind::Schedule],
        other => panic!("the payloads of an event source of type {other} are unknown to this test"),
    }
}

/// Returns the kind of a payload according to its content. Panics if the payload's name
/// states another kind.
fn kind(name: &str, payload: &Value) -> Kind {
    let source = payload["Records"][0]["eventSource"].as_str();
    let context = &payload["requestContext"];
    let by_content = match source {
        Some("aws:sqs") if name.contains("bad-record") => Kind::QueueWithBadRecord,
        Some("aws:sqs") => Kind::Queue,
        Some("aws:dynamodb") => Kind::Stream,
        Some(other) => panic!("{name}: {other}"),
        None if payload["version"] == "2.0" && payload["routeKey"] == "$default" => Kind::FunctionUrl,
        None if payload["version"] == "2.0" && context["http"]["method"].is_string() => Kind::HttpApi,
        None if payload["resource"].is_string() && context["resourcePath"] == payload["resource"] => Kind::RestApi,
        None => Kind::Schedule,
    };
    let by_name = match name.split('-').take(2).collect::<Vec<_>>()[..] {
        ["http", "v1"] => vec![Kind::RestApi],
        ["http", "v2"] => vec![Kind::HttpApi, Kind::FunctionUrl],
        ["sqs", _] => vec![Kind::Queue, Kind::QueueWithBadRecord],
        ["stream", _] => vec![Kind::Stream],
        ["schedule", _] => vec![Kind::Schedule],
        _ => panic!("the name {name} states no kind"),
    };
    assert!(by_name.contains(&by_content), "{name}: the name says {by_name:?}, the content {by_content:?}");
    by_content
}

/// Returns the function, the file's name without `.json`, and the text of each payload.
fn payloads() -> Vec<(String, String, String)> {
    let entries = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let files = entries(FOLDER.into()).flat_map(|folder| {
        let function = name(&folder);
        entries(folder).map(move |file| (function.clone(), name(&file), fs::read_to_string(file).unwrap()))
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

fn text(function: &str, name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{function}/{name}.json")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A test world with one product and one customer.
struct Shop {
    world: World,
    customer: Caller,
    product: String,
}

impl Shop {
    async fn open() -> Self {
        let world = World::start().await;
        let body = json!({ "name": "Climbing rope, 60 m", "description": "Dry-treated.", "price": 19.99, "stock": 10 });
        let product = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        let customer = Caller::named("Charles").with_claim("sub", CUSTOMER);
        Self { world, customer, product: product["id"].as_str().unwrap().to_owned() }
    }

    /// Invokes a function with a payload, after replacing the id of the payload's product by
    /// the id of the shop's product.
    async fn invoke(&self, function: &'static str, payload: &str) -> Value {
        let payload = payload.replace(PRODUCT, &self.product);
        self.world.invoke(function, &payload).await.unwrap_or_else(|error| panic!("{function}: {error}"))
    }

    /// Invokes a function with a payload that is an HTTP request. Returns the body of the
    /// response.
    async fn request(&self, function: &'static str, name: &str, status: u16) -> Value {
        let answer = self.invoke(function, &text(function, name)).await;
        assert_eq!(answer["statusCode"], status, "{answer}");
        // The response to an HTTP API has its headers in `headers`, the response to a REST
        // API in `multiValueHeaders`.
        let header = [&answer["headers"]["x-request-id"], &answer["multiValueHeaders"]["x-request-id"][0]];
        assert!(header.iter().any(|id| id.is_string()), "{answer}");
        serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
    }

    async fn profile(&self) -> Value {
        self.request("users", "http-v1-create-profile", 201).await
    }

    async fn order(&self) -> Value {
        self.profile().await;
        self.request("orders", "http-v1-place-order", 201).await
    }

    async fn status(&self, order: &Value) -> Value {
        let path = format!("/orders/{}", order["id"].as_str().unwrap());
        self.world.get(&self.customer, &path).await.expect(StatusCode::OK)["status"].clone()
    }

    fn mails(&self) -> Vec<String> {
        let mails = self.world.cloud.mails();
        let to = |mail: &Value| mail["Destination"]["ToAddresses"][0].as_str().unwrap().to_owned();
        mails.iter().map(to).collect()
    }
}

/// Invokes the function with the payload, and asserts the payload's effect. A payload whose
/// effect is missing here fails the test, so that no payload becomes outdated unnoticed.
async fn assert_effect(function: &str, name: &str) {
    let shop = Shop::open().await;
    match (function, name) {
        ("users", "http-v1-create-profile") => {
            let profile = shop.profile().await;
            assert_eq!(profile["id"], format!("user_{CUSTOMER}"));
            assert_eq!((&profile["email"], &profile["phone"]), (&json!("charles@example.com"), &json!("+15555550102")));
        }
        ("users", "http-v2-validate-for-orders") => {
            let validation = shop.request("users", name, 200).await;
            assert_eq!((&validation["valid"], &validation["reason"]), (&json!(false), &json!("user_not_found")));
            shop.profile().await;
            let validation = shop.request("users", name, 200).await;
            assert_eq!(validation["recipient"]["email"], "charles@example.com");
        }
        ("users", "http-v2-read-profile") => {
            shop.profile().await;
            assert_eq!(shop.request("users", name, 200).await["name"], "Charles Babbage");
        }
        ("products", "http-v1-list") => {
            let list = shop.request("products", name, 200).await;
            assert_eq!(list["items"][0]["id"], shop.product);
        }
        ("products", "http-v2-reserve-for-orders") => {
            let reservation = shop.request("products", name, 200).await;
            assert_eq!(
                (&reservation["order_id"], &reservation["total"]),
                (&json!(ORDER), &json!({ "minor": 5997, "currency": "USD" }))
            );
            // A second reservation of the same order gets the same response.
            assert_eq!(shop.request("products", name, 200).await, reservation);
            let path = format!("/products/{}", shop.product);
            assert_eq!(shop.world.get(&shop.customer, &path).await.expect(StatusCode::OK)["stock"], 7);
        }
        ("products", "http-v2-read-product") => {
            assert_eq!(shop.request("products", name, 200).await["price"], 19.99);
        }
        ("orders", "http-v1-place-order") => {
            let order = shop.order().await;
            assert_eq!((&order["status"], &order["total"]), (&json!("CONFIRMED"), &json!(59.97)));
            // The request has an idempotency key, so a repeat gets the same response.
            assert_eq!(shop.request("orders", name, 201).await, order);
        }
        ("orders", "http-v2-list-orders") => {
            let order = shop.order().await;
            let list = shop.request("orders", name, 200).await;
            assert_eq!(list["items"].as_array().unwrap().len(), 1);
            assert_eq!(list["items"][0]["id"], order["id"]);
        }
        ("order-worker", "stream-order-confirmed") => {
            let order = shop.order().await;
            let payload = text("order-worker", name).replace(ORDER, order["id"].as_str().unwrap());
            assert_eq!(shop.invoke("order-worker", &payload).await, json!({ "batchItemFailures": [] }));
            assert_eq!(shop.status(&order).await, "DONE");
        }
        ("order-worker", "schedule-sweep") => {
            let order = shop.order().await;
            // The stream has not delivered the order to the worker that has its lease.
            shop.world.cloud.expire_leases();
            let answer = shop.invoke("order-worker", &text("order-worker", name)).await;
            assert_eq!(answer, json!({ "batchItemFailures": [] }));
            assert_eq!(shop.status(&order).await, "DONE");
        }
        ("order-worker", "schedule-reconcile") => {
            let report = shop.invoke("order-worker", &text("order-worker", name)).await;
            assert_eq!((&report["mismatches"], &report["products"]), (&json!([]), &json!(1)));
        }
        ("order-worker", "sqs-user-erased") => {
            let order = shop.order().await;
            shop.world.deliver_stream().await;
            let stored = |shop: &Shop| Value::from(shop.world.cloud.scan("OrdersTable")).to_string();
            assert!(stored(&shop).contains("charles@example.com"));
            let answer = shop.invoke("order-worker", &text("order-worker", name)).await;
            assert_eq!(answer, json!({ "batchItemFailures": [] }));
            assert!(!stored(&shop).contains("charles@example.com"));
            assert_eq!(shop.status(&order).await, "DONE");
        }
        ("order-worker", "sqs-batch-with-one-bad-record") => {
            let payload = text("order-worker", name);
            let answer = shop.invoke("order-worker", &payload).await;
            let batch: Value = serde_json::from_str(&payload).unwrap();
            let bad = &batch["Records"][1]["messageId"];
            assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": bad }] }));
        }
        ("payments", "http-v2-authorise-for-orders") => {
            let payment = shop.request("payments", name, 201).await;
            assert_eq!((&payment["order_id"], &payment["status"]), (&json!(ORDER), &json!("AUTHORISED")));
        }
        ("payments", "http-v1-read-payment" | "http-v2-read-payment") => {
            shop.request("payments", "http-v2-authorise-for-orders", 201).await;
            assert_eq!(shop.request("payments", name, 200).await["amount"], 59.97);
        }
        ("notifications", "http-v1-health" | "http-v2-health") => {
            let health = shop.request("notifications", name, 200).await;
            assert_eq!((&health["service"], &health["status"]), (&json!("notifications"), &json!("ok")));
        }
        ("notifications", "sqs-order-created") => {
            let answer = shop.invoke("notifications", &text("notifications", name)).await;
            assert_eq!(answer, json!({ "batchItemFailures": [] }));
            assert_eq!((shop.mails(), shop.world.cloud.texts().len()), (vec!["ada@example.com".to_owned()], 1));
            let mail = shop.world.cloud.mails()[0]["Content"]["Simple"]["Body"]["Text"]["Data"].to_string();
            assert!(mail.contains("4.50 USD each") && mail.contains("Order total: 64.47 USD"), "{mail}");
        }
        ("notifications", "sqs-batch-with-one-bad-record") => {
            let payload = text("notifications", name);
            let answer = shop.invoke("notifications", &payload).await;
            let batch: Value = serde_json::from_str(&payload).unwrap();
            let bad = &batch["Records"][1]["messageId"];
            assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": bad }] }));
            // One of the two valid records is about a captured payment, which gets no
            // message.
            assert_eq!(shop.mails().len(), 1);
        }
        _ => panic!("this test does not know the effect of events/{function}/{name}.json"),
    }
}

#[tokio::test]
async fn every_payload_has_the_effect_that_its_name_states() {
    for (function, name, _) in payloads() {
        assert_effect(&function, &name).await;
    }
}

#[test]
fn every_function_has_a_payload_of_each_kind_that_it_receives() {
    let mut existing = BTreeMap::<String, BTreeSet<Kind>>::new();
    for (function, name, text) in payloads() {
        let payload = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{function}/{name}: {error}"));
        existing.entry(function).or_default().insert(kind(&name, &payload));
    }
    let template = Template::read();
    let received = template.functions().map(|function| {
        let sources = function.sources();
        let has_url = !function.properties["FunctionUrlConfig"].is_null();
        let kinds = sources.into_iter().flat_map(kinds_of).copied().chain(has_url.then_some(Kind::FunctionUrl));
        (function.name.to_owned(), kinds.collect())
    });
    assert_eq!(existing, received.collect::<BTreeMap<_, _>>());
}

#[test]
fn each_request_is_for_a_route_of_its_function() {
    let template = Template::read();
    let mut checked = 0;
    for (function, name, text) in payloads() {
        let payload: Value = serde_json::from_str(&text).unwrap();
        let (method, route) = match kind(&name, &payload) {
            Kind::RestApi => (payload["httpMethod"].as_str(), payload["resource"].as_str()),
            Kind::HttpApi => payload["routeKey"].as_str().and_then(|key| key.split_once(' ')).unzip(),
            Kind::FunctionUrl => {
                let path = payload["rawPath"].as_str().unwrap();
                let mut listed = template.internal_routes().filter(|listed| listed.method == "POST");
                assert!(
                    listed.any(|listed| permissions::route("", listed.path) == permissions::route("", path)),
                    "{name}"
                );
                continue;
            }
            _ => continue,
        };
        let (method, route) = (method.unwrap(), route.unwrap());
        let functions = template.functions().filter(|declared| declared.name == function);
        let ids: Vec<_> = functions.map(|declared| declared.id).collect();
        let exists = template
            .routes()
            .any(|declared| ids.contains(&declared.function) && (declared.method, declared.path) == (method, route));
        assert!(exists, "{function}/{name}: {method} {route}");
        checked += 1;
    }
    assert!(checked > 8, "{checked}");
}

#[tokio::test]
async fn a_payload_without_the_gateways_authorizer_claims_is_refused() {
    let shop = Shop::open().await;
    shop.world.cloud.publish_keys(json!({ "keys": [] }));
    for (function, name) in [("users", "http-v2-read-profile"), ("orders", "http-v1-place-order")] {
        let mut payload: Value = serde_json::from_str(&text(function, name)).unwrap();
        let context = payload["requestContext"].as_object_mut().unwrap();
        assert!(context.remove("authorizer").is_some(), "{name}");
        // Without the claims the function checks the token in the payload itself, and the
        // token has no valid signature.
        let answer = shop.invoke(if function == "users" { "users" } else { "orders" }, &payload.to_string()).await;
        assert_eq!(answer["statusCode"], 401, "{answer}");
    }
}
