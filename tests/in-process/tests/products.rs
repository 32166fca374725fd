//! Tests of the products service: the catalogue, the stock of products, and reservations of stock.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode as SdkStatus,
};
use aws_smithy_types::body::SdkBody;
use chassis::{
    audit::Author,
    clock::Clock,
    dynamo::{Key, Table, WriteOutcome, number},
    id::UserId,
    page::Limit,
};
use http::{Method, StatusCode};
use in_process_tests::{Answer, Caller, World, cloud::Cloud, world};
use products::{
    domain::{Delta, Line, Lines, NewProduct, OrderId, ProductId, Quantity, ReservationRefusal, Stock},
    repository::DynamoRepository,
    service::{ProductChange, ProductError, Products},
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The administrator who changes the catalogue where a test calls the service directly.
fn author() -> Author {
    Author { id: UserId::from_uuid(uuid::Uuid::nil()), reason: None }
}

fn mug() -> Value {
    json!({ "name": "Enamel mug", "description": "Survives being dropped.", "price": 19.99, "stock": 10 })
}

fn but(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

async fn create(world: &World, body: Value) -> String {
    let product = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
    product["id"].as_str().unwrap().to_owned()
}

async fn priced(world: &World, price: &str, stock: u64) -> String {
    let price: Value = serde_json::from_str(price).unwrap();
    create(world, but(but(mug(), "price", price), "stock", stock)).await
}

async fn read(world: &World, id: &str) -> Answer {
    world.get(&Caller::anonymous(), &format!("/products/{id}")).await
}

async fn stock(world: &World, id: &str) -> u64 {
    read(world, id).await.expect(StatusCode::OK)["stock"].as_u64().unwrap()
}

/// Reads a product's stock from the table, as the sum of its shards. Unlike the response of a route, the stock contains
/// the reserved units.
fn stored_stock(world: &World, id: &str) -> Stock {
    let shards = world.shards(id);
    let sum = |of: fn(&(i64, i64)) -> i64| shards.iter().map(of).sum::<i64>().try_into().unwrap();
    Stock { available: sum(|shard| shard.0), reserved: sum(|shard| shard.1) }
}

async fn patch(world: &World, id: &str, etag: &str, body: Value) -> Answer {
    let path = format!("/products/{id}");
    world.send_with(&Caller::admin(), Method::PATCH, &path, Some(body), &[("if-match", etag)]).await
}

async fn adjust(world: &World, id: &str, adjustment: &str, delta: i64) -> Answer {
    let body = json!({ "adjustment_id": adjustment, "delta": delta, "reason": "Counted" });
    world.post(&Caller::admin(), &format!("/products/{id}/stock-adjustments"), body).await
}

fn usd(minor: u32) -> Value {
    json!({ "minor": minor, "currency": "USD" })
}

async fn reserve(world: &World, order: OrderId, lines: &[(&str, u32)]) -> Answer {
    let items: Vec<_> = lines.iter().map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity })).collect();
    world.post(&Caller::service(), "/products/reserve", json!({ "order_id": order, "lines": items })).await
}

async fn release(world: &World, order: OrderId) -> Answer {
    world.send(&Caller::service(), Method::POST, &format!("/reservations/{order}/release"), None).await
}

mod the_catalogue {
    use super::*;

    #[tokio::test]
    async fn an_administrator_adds_a_product_and_everybody_can_read_it() {
        let world = World::start().await;
        let answer = world.post(&Caller::admin(), "/products", mug()).await;
        let product = answer.expect(StatusCode::CREATED);
        let id = product["id"].as_str().unwrap();
        assert!(id.parse::<ProductId>().is_ok());
        assert_eq!(answer.header("location"), Some(format!("products/{id}").as_str()));
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert!(answer.text.contains("\"price\":19.99,\"currency\":\"USD\",\"stock\":10,"), "{}", answer.text);

        let read = read(&world, id).await;
        assert_eq!(read.expect(StatusCode::OK), product);
        assert_eq!(read.header("etag"), Some("\"1\""));
        let list = world.get(&Caller::anonymous(), "/products").await.expect(StatusCode::OK);
        assert_eq!(list, json!({ "items": [product] }));
    }

    #[tokio::test]
    async fn a_product_can_have_another_currency_and_no_stock() {
        let world = World::start().await;
        let body = but(but(but(mug(), "currency", "JPY"), "price", 2500), "stock", 0);
        let product = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        assert_eq!((&product["price"], &product["currency"]), (&json!(2500), &json!("JPY")));
        let list = world.get(&Caller::anonymous(), "/products").await.expect(StatusCode::OK);
        assert_eq!(list["items"][0]["stock"], 0);
    }

    #[tokio::test]
    async fn an_invalid_product_is_refused_with_all_its_bad_fields() {
        let world = World::start().await;
        let admin = Caller::admin();
        let bad = json!({ "name": "", "description": " ", "price": 0, "stock": 1_000_000_001 });
        let answer = world.post(&admin, "/products", bad).await;
        answer.expect_bad_fields(&["name", "description", "price", "stock"]);
        let bad = but(but(mug(), "price", 0), "currency", "XAU");
        world.post(&admin, "/products", bad).await.expect_bad_fields(&["currency", "price"]);
        for (field, value) in [
            ("name", json!("two\nlines")),
            ("name", json!("x".repeat(101))),
            ("description", json!("x".repeat(2001))),
            ("price", json!("19.99")),
            ("price", json!(19.999)),
            ("price", json!(-1)),
            ("price", json!(100_000_000.01)),
            ("price", json!(null)),
            ("currency", json!("usd")),
            ("currency", json!("XAU")),
            ("stock", json!(-1)),
            ("stock", json!(1.5)),
            ("colour", json!("blue")),
        ] {
            world.post(&admin, "/products", but(mug(), field, value.clone())).await.expect_bad_fields(&[field]);
        }
        let yen = but(but(mug(), "currency", "JPY"), "price", json!(19.99));
        world.post(&admin, "/products", yen).await.expect_bad_fields(&["price"]);
        assert!(world.cloud.scan("ProductsTable").is_empty());
    }

    #[tokio::test]
    async fn only_administrators_can_change_the_catalogue() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let path = format!("/products/{id}");
        let adjustments = format!("{path}/stock-adjustments");
        let adjustment = json!({ "adjustment_id": "a", "delta": 1, "reason": "r" });
        for (person, status, code) in [
            (Caller::anonymous(), 401, "unauthenticated"),
            (Caller::service(), 403, "forbidden"),
            (Caller::named("Ada"), 403, "forbidden"),
        ] {
            world.post(&person, "/products", mug()).await.expect_problem(status, code);
            world.patch(&person, &path, json!({ "price": 1 })).await.expect_problem(status, code);
            world.post(&person, &adjustments, adjustment.clone()).await.expect_problem(status, code);
        }
    }

    #[tokio::test]
    async fn an_unknown_product_is_not_found() {
        let world = World::start().await;
        let id = ProductId::generate().to_string();
        read(&world, &id).await.expect_problem(404, "not_found");
        patch(&world, &id, "\"1\"", json!({ "price": 1 })).await.expect_problem(404, "not_found");
        adjust(&world, &id, "a", 1).await.expect_problem(404, "not_found");
        adjust(&world, &id, "a", -1).await.expect_problem(404, "not_found");
        read(&world, "42").await.expect_bad_fields(&["id"]);
        read(&world, "reserve").await.expect_problem(405, "method_not_allowed");
    }

    #[tokio::test]
    async fn pages_list_products_from_oldest_to_newest() {
        let world = World::start().await;
        let mut ids = Vec::new();
        for stock in 0..7 {
            ids.push(json!(create(&world, but(mug(), "stock", stock)).await));
        }
        let (mut path, mut found, mut pages) = ("/products?limit=3".to_owned(), Vec::new(), 0);
        loop {
            let page = world.get(&Caller::anonymous(), &path).await.expect(StatusCode::OK);
            found.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()));
            pages += 1;
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/products?limit=3&cursor={cursor}");
        }
        assert_eq!((found, pages), (ids, 3));
        for (limit, goes_on) in [(6, true), (7, false), (8, false)] {
            let page =
                world.get(&Caller::anonymous(), &format!("/products?limit={limit}")).await.expect(StatusCode::OK);
            assert_eq!(page["next_cursor"].is_string(), goes_on, "{limit}");
        }
    }

    #[tokio::test]
    async fn a_malformed_cursor_and_a_limit_out_of_bounds_are_refused() {
        let world = World::start().await;
        let nobody = Caller::anonymous();
        create(&world, mug()).await;
        create(&world, mug()).await;
        let page = world.get(&nobody, "/products?limit=1").await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap();
        for cursor in [&cursor[1..], "x"] {
            let problem = world.get(&nobody, &format!("/products?cursor={cursor}")).await;
            let problem = problem.expect_problem(400, "invalid_cursor");
            assert_eq!(problem["errors"][0]["field"], "cursor");
        }
        for (query, fields) in [
            ("limit=0", &["limit"][..]),
            ("limit=101", &["limit"]),
            ("limit=x", &["limit"]),
            ("page=2", &["page"]),
            ("cursor=", &["cursor"]),
            ("cursor=a%20b", &["cursor"]),
            ("limit=0&cursor=x&page=2&limit=1", &["limit", "page", "cursor"]),
        ] {
            world.get(&nobody, &format!("/products?{query}")).await.expect_bad_fields(fields);
        }
    }

    #[tokio::test]
    async fn requests_are_answered_with_503_while_the_table_is_down() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let deep = "/health/products?deep=true";
        assert_eq!(world.get(&Caller::admin(), deep).await.expect(StatusCode::OK)["status"], "ok");
        world.cloud.take_down("dynamodb");
        read(&world, &id).await.expect_problem(503, "unavailable");
        world.get(&Caller::anonymous(), "/products").await.expect_problem(503, "unavailable");
        reserve(&world, OrderId::generate(), &[(&id, 1)]).await.expect_problem(503, "unavailable");
        assert_eq!(world.get(&Caller::admin(), deep).await.expect(StatusCode::OK)["status"], "degraded");
        assert_eq!(world.get(&Caller::anonymous(), "/health/products").await.expect(StatusCode::OK)["status"], "ok");
    }
}

mod an_idempotency_key {
    use super::*;

    async fn add(world: &World, person: &Caller, body: Value, key: &str) -> Answer {
        world.send_with(person, Method::POST, "/products", Some(body), &[("idempotency-key", key)]).await
    }

    fn products(world: &World) -> usize {
        world.cloud.scan("ProductsTable").iter().filter(|item| item["sk"]["S"] == "PRODUCT").count()
    }

    #[tokio::test]
    async fn repeated_requests_add_one_product_and_get_the_first_response() {
        let world = World::start().await;
        let admin = Caller::admin();
        let first = add(&world, &admin, mug(), "k1").await;
        let id = first.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
        patch(&world, &id, "*", json!({ "name": "Cup", "price": 5, "currency": "EUR" })).await.expect(StatusCode::OK);
        adjust(&world, &id, "a", -3).await.expect(StatusCode::OK);
        // The second repeated request has the same values in another spelling.
        let spelled = but(but(mug(), "currency", "USD"), "name", " Enamel mug ");
        for (body, key) in [(mug(), "k1"), (spelled, "\"k1\"")] {
            let again = add(&world, &admin, body, key).await;
            assert_eq!((again.status, &again.text), (first.status, &first.text));
            for name in ["location", "etag", "content-type"] {
                assert_eq!(again.header(name), first.header(name), "{name}");
            }
        }
        assert_eq!(products(&world), 1);
    }

    /// The test reads the names of the members from the OpenAPI document, so that the test also covers members that are
    /// added to the document later.
    #[tokio::test]
    async fn a_key_is_refused_if_any_member_of_the_request_differs() {
        let world = World::start().await;
        let admin = Caller::admin();
        let full = but(but(mug(), "currency", "USD"), "reason", "New.");
        add(&world, &admin, full.clone(), "k1").await.expect(StatusCode::CREATED);
        let document = serde_json::to_value(products::handlers::api()).unwrap();
        let members = document["components"]["schemas"]["NewProduct"]["properties"].as_object().unwrap();
        for member in members.keys() {
            let other = match member.as_str() {
                "name" | "description" | "reason" => json!("Another"),
                "price" => json!(20),
                "currency" => json!("EUR"),
                "stock" => json!(11),
                other => panic!("the test needs another value of {other}"),
            };
            let answer = add(&world, &admin, but(full.clone(), member, other), "k1").await;
            answer.expect_problem(422, "idempotency_mismatch");
        }
        assert_eq!(products(&world), 1);
    }

    #[tokio::test]
    async fn another_key_another_administrator_or_no_key_adds_another_product() {
        let world = World::start().await;
        let (one, other) = (Caller::admin(), Caller::admin());
        for (person, key) in [(&one, "k1"), (&one, "k2"), (&other, "k1")] {
            add(&world, person, mug(), key).await.expect(StatusCode::CREATED);
        }
        create(&world, mug()).await;
        assert_eq!(products(&world), 4);
        let two = [("idempotency-key", "a"), ("idempotency-key", "b")];
        let answer = world.send_with(&one, Method::POST, "/products", Some(mug()), &two).await;
        answer.expect_bad_fields(&["Idempotency-Key"]);
        add(&world, &one, json!({}), "a b").await.expect_bad_fields(&[
            "Idempotency-Key",
            "name",
            "description",
            "price",
            "stock",
        ]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_expires_after_seven_days() {
        let world = World::start_at(Clock::tokio(jiff::Timestamp::now())).await;
        let admin = Caller::admin();
        let first = add(&world, &admin, mug(), "k1").await.text;
        let week = Duration::from_secs(7 * 24 * 3600);
        tokio::time::advance(week - Duration::from_secs(60)).await;
        assert_eq!(add(&world, &admin, mug(), "k1").await.text, first);
        tokio::time::advance(Duration::from_secs(120)).await;
        // The expired item of the key is still stored. The write replaces the item, because the condition of the write
        // checks the expiry.
        assert_ne!(add(&world, &admin, mug(), "k1").await.text, first);
        assert_eq!(products(&world), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_requests_with_one_key_add_one_product() {
        let (world, admin) = (Arc::new(World::start().await), Caller::admin());
        let send = async |world: Arc<World>, admin: Caller| add(&world, &admin, mug(), "k1").await;
        let answers = (0..12).map(|_| tokio::spawn(send(world.clone(), admin.clone())));
        let answers = futures::future::join_all(answers).await;
        let texts: std::collections::BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().text).collect();
        assert_eq!((texts.len(), products(&world)), (1, 1), "{texts:?}");
    }

    #[tokio::test]
    async fn retry_after_is_sent_only_if_a_repeated_request_is_safe() {
        let world = World::start().await;
        let (admin, ada) = (Caller::admin(), Caller::named("Ada"));
        let adjustment = json!({ "adjustment_id": "a", "delta": 1, "reason": "Count" });
        let profile = json!({ "name": "Ada", "email": ada.email() });
        let order = format!("/orders/ord_{}/cancel", uuid::Uuid::now_v7());
        let adjustments = format!("/products/{}/stock-adjustments", ProductId::generate());
        let order_lines = json!({ "items": [{ "product_id": ProductId::generate(), "quantity": 1 }] });
        world.cloud.take_down("dynamodb");
        for (person, path, body, key, again) in [
            (&admin, "/products", mug(), Some("k1"), true),
            (&admin, "/products", mug(), None, false),
            (&ada, "/orders", order_lines.clone(), Some("k1"), true),
            (&ada, "/orders", order_lines, None, false),
            // The following requests are idempotent without a key.
            (&admin, adjustments.as_str(), adjustment, None, true),
            (&ada, "/users", profile, None, true),
            (&ada, order.as_str(), json!({}), None, true),
        ] {
            let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
            let answer = world.send_with(person, Method::POST, path, Some(body), &headers).await;
            answer.expect_problem(503, "unavailable");
            assert_eq!(answer.header("retry-after").is_some(), again, "{path}, key: {key:?}");
        }
    }
}

mod a_change_of_details {
    use super::*;

    #[tokio::test]
    async fn a_change_needs_the_etag_of_the_stored_version() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let path = format!("/products/{id}");
        let answer = world.patch(&Caller::admin(), &path, json!({ "price": 18.5 })).await;
        answer.expect_problem(428, "precondition_required");

        let answer = patch(&world, &id, "\"1\"", json!({ "price": 18.5, "name": " Mug " })).await;
        let product = answer.expect(StatusCode::OK);
        assert_eq!((&product["price"], &product["name"]), (&json!(18.5), &json!("Mug")));
        assert_eq!(product["description"], mug()["description"]);
        assert_eq!(answer.header("etag"), Some("\"2\""));
        assert_eq!(read(&world, &id).await.expect(StatusCode::OK), product);

        for stale in ["\"1\"", "\"3\"", "2", "W/\"2\"", "\"1\", \"3\"", ", \"1\"", "\u{f6}"] {
            let answer = patch(&world, &id, stale, json!({ "price": 1 })).await;
            answer.expect_problem(412, "precondition_failed");
        }
        // A header without an entity tag counts as absent.
        for empty in ["", " ", ",", ", ,"] {
            let answer = patch(&world, &id, empty, json!({ "price": 1 })).await;
            answer.expect_problem(428, "precondition_required");
        }
        for fresh in [", \"1\",, \"2\"", "*", "\"4\""] {
            patch(&world, &id, fresh, json!({ "name": format!("Mug {fresh}") })).await.expect(StatusCode::OK);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_changes_that_accept_any_version_all_succeed() {
        let world = Arc::new(World::start().await);
        let id = create(&world, mug()).await;
        let change = async |world: Arc<World>, id: String, n: usize| {
            patch(&world, &id, "*", json!({ "name": format!("Mug {n}") })).await.status
        };
        let changes = (0..16).map(|n| tokio::spawn(change(world.clone(), id.clone(), n)));
        for answer in futures::future::join_all(changes).await {
            assert_eq!(answer.unwrap(), StatusCode::OK);
        }
        assert_eq!(read(&world, &id).await.header("etag"), Some("\"17\""));
    }

    #[tokio::test]
    async fn a_change_to_the_same_values_keeps_the_version() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let before = read(&world, &id).await.expect(StatusCode::OK);
        for same in [json!({}), json!({ "name": "Enamel mug", "price": 19.99, "currency": "USD" })] {
            let answer = patch(&world, &id, "\"1\"", same).await;
            assert_eq!(answer.expect(StatusCode::OK), before);
            assert_eq!(answer.header("etag"), Some("\"1\""));
        }
    }

    #[tokio::test]
    async fn a_refusal_names_all_bad_fields_and_a_currency_needs_a_price() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        for (body, fields) in [
            (json!({ "name": "", "description": "" }), &["name", "description"][..]),
            (json!({ "currency": "EUR" }), &["currency"]),
            (json!({ "price": 1, "currency": "euro" }), &["currency"]),
            (json!({ "price": 0 }), &["price"]),
            (json!({ "price": 19.99, "currency": "JPY" }), &["price"]),
            (json!({ "stock": 3 }), &["stock"]),
            (json!({ "price": 0, "name": 7, "colour": "blue" }), &["name", "price", "colour"]),
        ] {
            patch(&world, &id, "\"1\"", body).await.expect_bad_fields(fields);
        }
        let product = patch(&world, &id, "\"1\"", json!({ "price": 17, "currency": "EUR" })).await;
        assert_eq!(product.expect(StatusCode::OK)["currency"], "EUR");
        // A price without a currency is in the product's present currency, which is now EUR.
        let product = patch(&world, &id, "\"2\"", json!({ "price": 16.5 })).await.expect(StatusCode::OK);
        assert_eq!((&product["price"], &product["currency"]), (&json!(16.5), &json!("EUR")));
    }

    #[tokio::test]
    async fn a_sale_keeps_the_etag_and_a_change_of_details_keeps_the_stock() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let before = read(&world, &id).await;
        reserve(&world, OrderId::generate(), &[(&id, 3)]).await.expect(StatusCode::OK);
        adjust(&world, &id, "delivery", 5).await.expect(StatusCode::OK);
        let after = read(&world, &id).await;
        assert_eq!(after.header("etag"), before.header("etag"));
        assert_eq!(after.json(), but(before.json(), "stock", 12));

        let product = patch(&world, &id, "\"1\"", json!({ "price": 21 })).await.expect(StatusCode::OK);
        assert_eq!(product["stock"], 12);
        assert_eq!(stored_stock(&world, &id), Stock { available: 12, reserved: 3 });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_of_many_concurrent_changes_of_one_version_succeeds() {
        let world = Arc::new(World::start().await);
        let id = create(&world, mug()).await;
        let change = |n: u32| {
            let (world, id) = (world.clone(), id.clone());
            tokio::spawn(async move { patch(&world, &id, "\"1\"", json!({ "price": n })).await.status.as_u16() })
        };
        let mut statuses = Vec::new();
        for change in (1..=8).map(change).collect::<Vec<_>>() {
            statuses.push(change.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
        assert_eq!(read(&world, &id).await.header("etag"), Some("\"2\""));
    }
}

mod a_stock_adjustment {
    use super::*;

    #[tokio::test]
    async fn repeated_adjustments_with_one_id_are_applied_once() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let first = adjust(&world, &id, "delivery-7", 5).await.expect(StatusCode::OK);
        assert_eq!((&first["adjustment_id"], &first["product_id"]), (&json!("delivery-7"), &json!(id)));
        assert_eq!((&first["delta"], &first["reason"]), (&json!(5), &json!("Counted")));
        assert!(first["applied_at"].is_string());
        for _ in 0..3 {
            assert_eq!(adjust(&world, &id, "delivery-7", 5).await.expect(StatusCode::OK), first);
        }
        assert_eq!(stock(&world, &id).await, 15);
        adjust(&world, &id, "delivery-7", 6).await.expect_problem(409, "adjustment_mismatch");
        let body = json!({ "adjustment_id": "delivery-7", "delta": 5, "reason": "Something else" });
        let path = format!("/products/{id}/stock-adjustments");
        world.post(&Caller::admin(), &path, body).await.expect_problem(409, "adjustment_mismatch");
        assert_eq!(stock(&world, &id).await, 15);
        // Another product can have an adjustment with the same id.
        let other = create(&world, mug()).await;
        adjust(&world, &other, "delivery-7", 6).await.expect(StatusCode::OK);
        assert_eq!((stock(&world, &id).await, stock(&world, &other).await), (15, 16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_adjustment_waits_until_the_first_is_committed() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let first = adjust(&world, &id, "breakage", -10).await.expect(StatusCode::OK);
        world.cloud.delay_commit("ADJUSTMENT#breakage", Duration::from_millis(100));
        assert_eq!(adjust(&world, &id, "breakage", -10).await.expect(StatusCode::OK), first);
        world.cloud.delay_commit("ADJUSTMENT#breakage", Duration::from_secs(60));
        adjust(&world, &id, "breakage", -10).await.expect_problem(409, "contended");
    }

    #[tokio::test]
    async fn an_adjustment_can_remove_all_available_units_but_no_reserved_units() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        reserve(&world, OrderId::generate(), &[(&id, 4)]).await.expect(StatusCode::OK);
        let refusal = adjust(&world, &id, "breakage", -7).await.expect_problem(409, "insufficient_stock");
        assert_eq!(refusal["available"], 6);
        // A refused adjustment is not stored, so its id can be used again.
        let applied = adjust(&world, &id, "breakage", -6).await.expect(StatusCode::OK);
        // A repeat of the adjustment that removed all available units is not refused.
        assert_eq!(adjust(&world, &id, "breakage", -6).await.expect(StatusCode::OK), applied);
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 4 });
    }

    #[tokio::test]
    async fn an_invalid_adjustment_is_refused_with_all_its_bad_fields() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let path = format!("/products/{id}/stock-adjustments");
        let admin = Caller::admin();
        let bad = json!({ "adjustment_id": "a b", "delta": 0, "reason": "" });
        world.post(&admin, &path, bad).await.expect_bad_fields(&["adjustment_id", "delta", "reason"]);
        let good = json!({ "adjustment_id": "a", "delta": 1, "reason": "r" });
        for (field, value) in [
            ("adjustment_id", json!("")),
            ("adjustment_id", json!("x".repeat(65))),
            ("adjustment_id", json!("é")),
            ("delta", json!(1_000_000_001)),
            ("delta", json!(-1_000_000_001)),
            ("delta", json!(0.5)),
            ("reason", json!("two\nlines")),
            ("by", json!("me")),
        ] {
            world.post(&admin, &path, but(good.clone(), field, value)).await.expect_bad_fields(&[field]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_requests_with_one_adjustment_id_are_applied_once() {
        let world = Arc::new(World::start().await);
        let id = create(&world, mug()).await;
        let send = |_| {
            let (world, id) = (world.clone(), id.clone());
            tokio::spawn(async move { adjust(&world, &id, "breakage", -10).await.expect(StatusCode::OK) })
        };
        let mut answers = Vec::new();
        for answer in (0..8).map(send).collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        assert_eq!(stock(&world, &id).await, 0);
    }
}

mod a_reserve_request {
    use super::*;

    #[tokio::test]
    async fn a_reserve_request_reserves_all_lines_and_gets_exact_prices() {
        let world = World::start().await;
        let (mug, rope) = (priced(&world, "19.99", 10).await, priced(&world, "24.75", 4).await);
        let order = OrderId::generate();
        let answer = reserve(&world, order, &[(&mug, 3), (&rope, 4)]).await;
        let line = |id: &str, quantity, unit_price, line_total| {
            json!({
                "product_id": id, "name": "Enamel mug", "version": 1, "quantity": quantity,
                "unit_price": usd(unit_price), "line_total": usd(line_total),
            })
        };
        assert_eq!(
            answer.expect(StatusCode::OK),
            json!({
                "order_id": order, "total": usd(15897),
                "lines": [line(&mug, 3, 1999, 5997), line(&rope, 4, 2475, 9900)],
            })
        );
        assert_eq!(stored_stock(&world, &mug), Stock { available: 7, reserved: 3 });
        assert_eq!(stored_stock(&world, &rope), Stock { available: 0, reserved: 4 });
        assert_eq!((stock(&world, &mug).await, stock(&world, &rope).await), (7, 0));
    }

    #[tokio::test]
    async fn a_reserve_request_can_have_a_single_product_or_several_lines_of_one_product() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let body = json!({ "order_id": OrderId::generate(), "product_id": id, "quantity": 2 });
        let answer = world.post(&Caller::service(), "/products/reserve", body).await.expect(StatusCode::OK);
        assert_eq!((&answer["lines"][0]["quantity"], &answer["total"]), (&json!(2), &usd(3998)));

        let answer = reserve(&world, OrderId::generate(), &[(&id, 1), (&id, 2)]).await.expect(StatusCode::OK);
        assert_eq!(answer["lines"].as_array().unwrap().len(), 1);
        assert_eq!((&answer["lines"][0]["quantity"], &answer["total"]), (&json!(3), &usd(5997)));
        assert_eq!(stock(&world, &id).await, 5);
    }

    #[tokio::test]
    async fn a_refusal_names_every_line_with_too_little_stock_and_reserves_nothing() {
        let world = World::start().await;
        let enough = create(&world, mug()).await;
        let (few, none) = (priced(&world, "1", 2).await, priced(&world, "1", 0).await);
        let order = OrderId::generate();
        let answer = reserve(&world, order, &[(&enough, 10), (&few, 3), (&none, 1)]).await;
        assert_eq!(
            answer.expect_problem(409, "out_of_stock")["lines"],
            json!([
                { "product_id": few, "requested": 3, "available": 2 },
                { "product_id": none, "requested": 1, "available": 0 },
            ])
        );
        assert_eq!(stored_stock(&world, &enough), Stock { available: 10, reserved: 0 });
        // Each product has an item for its details, an item for its stock, and an item for its first version.
        assert_eq!(world.cloud.scan("ProductsTable").len(), 9, "a refusal writes nothing");
        // Because nothing is stored, the same order can reserve a smaller quantity.
        reserve(&world, order, &[(&enough, 10), (&few, 2)]).await.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn unknown_products_and_mixed_currencies_are_refused() {
        let world = World::start().await;
        let usd = create(&world, mug()).await;
        let eur = create(&world, but(mug(), "currency", "EUR")).await;
        let mut unknown = [ProductId::generate().to_string(), ProductId::generate().to_string()];
        unknown.sort();
        let answer = reserve(&world, OrderId::generate(), &[(&usd, 1), (&unknown[0], 1), (&unknown[1], 1)]).await;
        assert_eq!(answer.expect_problem(422, "unknown_product")["products"], json!(unknown));
        let answer = reserve(&world, OrderId::generate(), &[(&usd, 1), (&eur, 1)]).await;
        answer.expect_problem(422, "mixed_currencies");
        assert_eq!((stock(&world, &usd).await, stock(&world, &eur).await), (10, 10));
    }

    #[tokio::test]
    async fn a_reserve_request_without_valid_lines_is_refused() {
        let world = World::start().await;
        let id = ProductId::generate().to_string();
        let order = OrderId::generate();
        let send = async |body: Value| world.post(&Caller::service(), "/products/reserve", body).await;
        let with = |lines: Value| json!({ "order_id": order, "lines": lines });
        let line = |quantity: i64| json!({ "product_id": id, "quantity": quantity });
        let either = &["lines"][..];
        for (body, fields) in [
            (with(json!([])), either),
            (with(json!(vec![line(1); 51])), either),
            (with(json!([line(600), line(600)])), either),
            (json!({ "order_id": order }), either),
            (json!({ "order_id": order, "product_id": id }), either),
            (json!({ "order_id": order, "product_id": id, "quantity": 1, "lines": [line(1)] }), either),
            (json!({ "order_id": order, "product_id": id, "quantity": 0 }), &["quantity"]),
            (with(json!([line(0), line(1), line(1001)])), &["lines[0].quantity", "lines[2].quantity"]),
            (with(json!([line(-1)])), &["lines[0].quantity"]),
            (with(json!([{ "product_id": "x", "quantity": 1 }])), &["lines[0].product_id"]),
            (but(with(json!([line(1)])), "order_id", id.as_str()), &["order_id"]),
        ] {
            send(body).await.expect_bad_fields(fields);
        }
    }

    #[tokio::test]
    async fn fifty_lines_are_reserved_in_one_transaction() {
        let world = World::start().await;
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(priced(&world, "0.10", 1).await);
        }
        let lines: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
        let answer = reserve(&world, OrderId::generate(), &lines).await.expect(StatusCode::OK);
        assert_eq!(answer["total"], usd(500));
        let answer = reserve(&world, OrderId::generate(), &lines).await.expect_problem(409, "out_of_stock");
        assert_eq!(answer["lines"].as_array().unwrap().len(), 50);
    }

    #[tokio::test]
    async fn a_repeated_reserve_request_gets_the_first_quote_after_a_price_change() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let first = reserve(&world, order, &[(&id, 10)]).await;
        first.expect(StatusCode::OK);
        // When the request is repeated, no unit is available any more, and the price has changed.
        patch(&world, &id, "\"1\"", json!({ "price": 99, "name": "Dear mug" })).await.expect(StatusCode::OK);
        for lines in [&[(id.as_str(), 10)][..], &[(&id, 4), (&id, 6)]] {
            assert_eq!(reserve(&world, order, lines).await.text, first.text);
        }
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 10 });
        reserve(&world, OrderId::generate(), &[(&id, 1)]).await.expect_problem(409, "out_of_stock");
    }

    /// The items of a transaction become visible one after another. A repeated request may read the reduced stock
    /// before the reservation of the first request is visible.
    #[tokio::test(start_paused = true)]
    async fn a_repeated_reserve_request_waits_until_the_first_is_committed() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let first = reserve(&world, order, &[(&id, 10)]).await;
        first.expect(StatusCode::OK);
        let reservation = format!("RESERVATION#{order}");
        world.cloud.delay_commit(&reservation, Duration::from_millis(100));
        assert_eq!(reserve(&world, order, &[(&id, 10)]).await.text, first.text);
        world.cloud.delay_commit(&reservation, Duration::from_secs(60));
        reserve(&world, order, &[(&id, 10)]).await.expect_problem(409, "contended");
    }

    #[tokio::test]
    async fn a_second_reserve_request_of_an_order_with_other_lines_is_refused() {
        let world = World::start().await;
        let (id, other) = (create(&world, mug()).await, create(&world, mug()).await);
        let order = OrderId::generate();
        reserve(&world, order, &[(&id, 2)]).await.expect(StatusCode::OK);
        for lines in [&[(id.as_str(), 3)][..], &[(&other, 2)], &[(&id, 2), (&other, 1)], &[(&id, 11)]] {
            reserve(&world, order, lines).await.expect_problem(409, "reservation_mismatch");
        }
        assert_eq!((stock(&world, &id).await, stock(&world, &other).await), (8, 10));
    }

    #[tokio::test]
    async fn only_services_can_reserve_and_release() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let body = json!({ "order_id": order, "product_id": id, "quantity": 1 });
        for person in [Caller::anonymous(), Caller::named("Ada"), Caller::admin()] {
            world.post(&person, "/products/reserve", body.clone()).await.expect_problem(403, "forbidden");
            let path = format!("/reservations/{order}/release");
            world.post(&person, &path, json!({})).await.expect_problem(403, "forbidden");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn twenty_of_thirty_concurrent_orders_reserve_a_stock_of_twenty() {
        let world = Arc::new(World::start().await);
        let id = create(&world, but(mug(), "stock", 20)).await;
        let start = |_| {
            let (world, id) = (world.clone(), id.clone());
            tokio::spawn(async move { reserve(&world, OrderId::generate(), &[(&id, 1)]).await })
        };
        let mut outcomes = HashMap::<u16, u32>::new();
        for answer in (0..30).map(start).collect::<Vec<_>>() {
            let answer = answer.await.unwrap();
            if answer.status != StatusCode::OK {
                answer.expect_problem(409, "out_of_stock");
            }
            *outcomes.entry(answer.status.as_u16()).or_default() += 1;
        }
        assert_eq!(outcomes, HashMap::from([(200, 20), (409, 10)]));
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 20 });
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_reserve_requests_of_one_order_reserve_the_stock_once() {
        let world = Arc::new(World::start().await);
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let send = |_| {
            let (world, id) = (world.clone(), id.clone());
            // The quantity is the whole stock, so that every request after the first reads a stock of zero.
            tokio::spawn(async move { reserve(&world, order, &[(&id, 10)]).await.expect(StatusCode::OK) })
        };
        let mut answers = Vec::new();
        for answer in (0..8).map(send).collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 10 });
    }
}

mod a_release {
    use super::*;

    #[tokio::test]
    async fn repeated_releases_return_the_stock_once_and_a_later_reserve_request_is_refused() {
        let world = World::start().await;
        let (mug, rope) = (priced(&world, "19.99", 10).await, priced(&world, "24.75", 4).await);
        let order = OrderId::generate();
        reserve(&world, order, &[(&mug, 3), (&rope, 4)]).await.expect(StatusCode::OK);
        for _ in 0..3 {
            let answer = release(&world, order).await.expect(StatusCode::OK);
            assert_eq!(answer, json!({ "order_id": order, "status": "RELEASED" }));
        }
        assert_eq!(stored_stock(&world, &mug), Stock { available: 10, reserved: 0 });
        assert_eq!(stored_stock(&world, &rope), Stock { available: 4, reserved: 0 });
        let answer = reserve(&world, order, &[(&mug, 3), (&rope, 4)]).await;
        answer.expect_problem(409, "reservation_released");
    }

    #[tokio::test]
    async fn a_reserve_request_that_arrives_after_the_release_is_refused() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        // A release request may have a body, which is ignored.
        let path = format!("/reservations/{order}/release");
        world.post(&Caller::service(), &path, json!({})).await.expect(StatusCode::OK);
        release(&world, order).await.expect(StatusCode::OK);
        for quantity in [1, 11] {
            reserve(&world, order, &[(&id, quantity)]).await.expect_problem(409, "reservation_released");
        }
        let unknown = ProductId::generate().to_string();
        reserve(&world, order, &[(&unknown, 1)]).await.expect_problem(409, "reservation_released");
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
    }

    #[tokio::test]
    async fn a_release_needs_a_valid_order_id() {
        let world = World::start().await;
        let answer = world.post(&Caller::service(), "/reservations/42/release", json!({})).await;
        answer.expect_bad_fields(&["id"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_release_that_is_concurrent_with_the_reserve_request_leaves_nothing_reserved() {
        let world = Arc::new(World::start().await);
        let id = create(&world, mug()).await;
        for _ in 0..25 {
            let order = OrderId::generate();
            let reserving = {
                let (world, id) = (world.clone(), id.clone());
                tokio::spawn(async move { reserve(&world, order, &[(&id, 10)]).await })
            };
            let releases = [0, 1].map(|_| {
                let world = world.clone();
                tokio::spawn(async move { release(&world, order).await.expect(StatusCode::OK) })
            });
            let reserved = reserving.await.unwrap();
            if reserved.status != StatusCode::OK {
                reserved.expect_problem(409, "reservation_released");
            }
            for release in releases {
                release.await.unwrap();
            }
            assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
        }
    }
}

mod a_product_with_several_shards {
    use super::*;

    async fn sharded(world: &World, stock: u64, count: u8) -> String {
        let id = create(world, but(mug(), "stock", stock)).await;
        world.give_shards(&id, count).await.expect(StatusCode::OK);
        id
    }

    fn available(world: &World, id: &str) -> Vec<i64> {
        world.shards(id).iter().map(|shard| shard.0).collect()
    }

    #[tokio::test]
    async fn an_administrator_gives_a_product_shards_and_its_units_are_spread_evenly() {
        let world = World::start().await;
        let other = create(&world, mug()).await;
        let id = create(&world, mug()).await;
        assert_eq!(read(&world, &id).await.json()["stock_shards"], 1);
        let answer = patch(&world, &id, "\"1\"", json!({ "stock_shards": 4 })).await;
        let product = answer.expect(StatusCode::OK);
        assert_eq!((&product["stock_shards"], &product["stock"]), (&json!(4), &json!(10)));
        assert_eq!(answer.header("etag"), Some("\"2\""));
        assert_eq!(available(&world, &id), [3, 3, 2, 2]);
        assert_eq!(read(&world, &id).await.expect(StatusCode::OK), product);
        let list = world.get(&Caller::anonymous(), "/products").await.expect(StatusCode::OK);
        assert_eq!(list["items"][1], product);
        assert_eq!((stock(&world, &other).await, available(&world, &other)), (10, vec![10]));

        // The old ETag is outdated. A repeat with the new one changes nothing, but spreads again what is uneven.
        patch(&world, &id, "\"1\"", json!({ "stock_shards": 4 })).await.expect_problem(412, "precondition_failed");
        adjust(&world, &id, "breakage", -3).await.expect(StatusCode::OK);
        let again = patch(&world, &id, "\"2\"", json!({ "stock_shards": 4 })).await;
        again.expect(StatusCode::OK);
        assert_eq!(again.header("etag"), Some("\"2\""));
        let mut spread = available(&world, &id);
        spread.sort_unstable();
        assert_eq!(spread, [1, 2, 2, 2]);
    }

    #[tokio::test]
    async fn a_product_keeps_its_shards() {
        let world = World::start().await;
        let id = sharded(&world, 10, 3).await;
        let answer = patch(&world, &id, "*", json!({ "stock_shards": 2, "name": "Cup" })).await;
        answer.expect_bad_fields(&["stock_shards"]);
        for count in [json!(0), json!(65), json!(1.5), json!("4"), json!(-1)] {
            patch(&world, &id, "*", json!({ "stock_shards": count })).await.expect_bad_fields(&["stock_shards"]);
        }
        assert_eq!(read(&world, &id).await.json()["name"], "Enamel mug");
        patch(&world, &id, "*", json!({ "stock_shards": 64 })).await.expect(StatusCode::OK);
        assert_eq!((world.shards(&id).len(), stock(&world, &id).await), (64, 10));
    }

    #[tokio::test]
    async fn a_line_takes_its_units_from_one_shard_if_one_has_enough_and_else_the_last_units_are_sold_exactly() {
        let world = World::start().await;
        let id = sharded(&world, 10, 4).await;
        let (small, large, last) = (OrderId::generate(), OrderId::generate(), OrderId::generate());
        reserve(&world, small, &[(&id, 3)]).await.expect(StatusCode::OK);
        assert_eq!(world.shards(&id).iter().filter(|shard| shard.1 > 0).count(), 1);
        let refusal = reserve(&world, large, &[(&id, 8)]).await.expect_problem(409, "out_of_stock");
        assert_eq!(refusal["lines"], json!([{ "product_id": id, "requested": 8, "available": 7 }]));
        reserve(&world, large, &[(&id, 6)]).await.expect(StatusCode::OK);
        reserve(&world, last, &[(&id, 1)]).await.expect(StatusCode::OK);
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 10 });
        reserve(&world, OrderId::generate(), &[(&id, 1)]).await.expect_problem(409, "out_of_stock");
        // The response to a repeated request is the first response, although no unit is left.
        let again = reserve(&world, large, &[(&id, 6)]).await.expect(StatusCode::OK);
        assert_eq!(again["lines"][0]["quantity"], 6);
    }

    #[tokio::test]
    async fn a_release_returns_the_units_to_the_shards_from_which_they_came() {
        let world = World::start().await;
        let id = sharded(&world, 12, 4).await;
        let (kept, released) = (OrderId::generate(), OrderId::generate());
        reserve(&world, kept, &[(&id, 2)]).await.expect(StatusCode::OK);
        let before = world.shards(&id);
        reserve(&world, released, &[(&id, 8)]).await.expect(StatusCode::OK);
        assert!(world.shards(&id).iter().filter(|shard| shard.1 > 0).count() > 2);
        // Neither a delivery nor more shards change where the units belong.
        patch(&world, &id, "*", json!({ "stock_shards": 6 })).await.expect(StatusCode::OK);
        for _ in 0..2 {
            release(&world, released).await.expect(StatusCode::OK);
        }
        let reserved = |shards: &[(i64, i64)]| shards.iter().map(|shard| shard.1).collect::<Vec<_>>();
        assert_eq!(reserved(&world.shards(&id)), [reserved(&before), vec![0, 0]].concat());
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 2 });
    }

    /// Two orders in a row prefer the same shard. The shard is contended for both.
    #[tokio::test(start_paused = true)]
    async fn an_order_whose_shard_is_contended_takes_its_units_from_another_shard_at_once() {
        let world = World::start().await;
        let id = sharded(&world, 12, 3).await;
        let other = create(&world, mug()).await;
        world.cloud.contend(&format!("STOCK#{id}#0"), Duration::from_secs(60));
        world.cloud.throttle(&format!("STOCK#{id}#2"), Duration::from_secs(60));
        let began = tokio::time::Instant::now();
        for _ in 0..4 {
            reserve(&world, OrderId::generate(), &[(&id, 1), (&other, 1)]).await.expect(StatusCode::OK);
        }
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!(world.shards(&id), [(4, 0), (0, 4), (4, 0)]);
        // No other shard has enough units. Which of the two shards is tried last depends on the order's id.
        let refusal = reserve(&world, OrderId::generate(), &[(&id, 1)]).await;
        match refusal.json()["code"].as_str() {
            Some("throttled") => refusal.expect_problem(503, "throttled"),
            _ => refusal.expect_problem(409, "contended"),
        };
        assert_eq!(stored_stock(&world, &other), Stock { available: 6, reserved: 4 });
    }

    /// One transaction writes at most 100 items, and these lines would take their units from 150 shards.
    #[tokio::test]
    async fn an_order_whose_lines_need_too_many_shards_for_one_transaction_is_reserved_all_the_same() {
        let world = World::start().await;
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(sharded(&world, 3, 3).await);
        }
        let lines: Vec<_> = ids.iter().map(|id| (id.as_str(), 3)).collect();
        let order = OrderId::generate();
        reserve(&world, order, &lines).await.expect(StatusCode::OK);
        assert_eq!(world.stock_sums(), (0, 150));
        release(&world, order).await.expect(StatusCode::OK);
        assert_eq!(world.stock_sums(), (150, 0));
        let lines: Vec<_> = ids.iter().map(|id| (id.as_str(), 4)).collect();
        let refusal = reserve(&world, OrderId::generate(), &lines).await.expect_problem(409, "out_of_stock");
        assert_eq!(refusal["lines"].as_array().unwrap().len(), 50);
        assert_eq!(world.stock_sums(), (150, 0));
    }

    #[tokio::test]
    async fn an_adjustment_adds_to_the_emptiest_shard_and_spreads_or_removes_from_as_many_shards_as_necessary() {
        let world = World::start().await;
        let id = sharded(&world, 3, 3).await;
        adjust(&world, &id, "delivery", 9).await.expect(StatusCode::OK);
        assert_eq!(available(&world, &id), [4, 4, 4]);
        let refusal = adjust(&world, &id, "breakage", -13).await.expect_problem(409, "insufficient_stock");
        assert_eq!(refusal["available"], 12);
        for _ in 0..2 {
            adjust(&world, &id, "breakage", -10).await.expect(StatusCode::OK);
        }
        assert_eq!(stored_stock(&world, &id), Stock { available: 2, reserved: 0 });
        adjust(&world, &id, "breakage", -9).await.expect_problem(409, "adjustment_mismatch");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn twenty_of_thirty_concurrent_orders_reserve_a_stock_of_twenty_in_shards() {
        let world = Arc::new(World::start().await);
        let id = sharded(&world, 20, 8).await;
        let start = |_| {
            let (world, id) = (world.clone(), id.clone());
            tokio::spawn(async move { reserve(&world, OrderId::generate(), &[(&id, 1)]).await })
        };
        let (mut reserved, mut refused) = (0, 0);
        for answer in (0..30).map(start).collect::<Vec<_>>() {
            let answer = answer.await.unwrap();
            match answer.status {
                StatusCode::OK => reserved += 1,
                _ if answer.json()["code"] == "out_of_stock" => refused += 1,
                _ => drop(answer.expect_problem(409, "contended")),
            }
        }
        assert!(reserved <= 20 && refused <= 10, "{reserved} reserved, {refused} refused");
        // Those who met contention try again.
        for _ in reserved..20 {
            reserve(&world, OrderId::generate(), &[(&id, 1)]).await.expect(StatusCode::OK);
        }
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 20 });
        reserve(&world, OrderId::generate(), &[(&id, 1)]).await.expect_problem(409, "out_of_stock");
    }
}

/// In these tests, another write happens between the read and the write of a request, or a response of DynamoDB is
/// lost.
mod races_and_lost_responses {
    use super::*;

    /// An intervention in a call to DynamoDB.
    enum Intervention {
        /// Runs other requests before the call.
        RunFirst(Pin<Box<dyn Future<Output = ()> + Send>>),
        /// Carries out the call, but loses the response.
        LoseResponse,
        /// Does not carry out the call, and responds that another transaction is writing an item.
        TransactionConflict,
        /// Does not carry out the call, and responds that no key of the batch was processed.
        ProcessNoKey,
        /// Carries out the call for the last key of the batch, and responds that the other keys were not processed.
        ProcessLastKey,
        /// Carries out the call.
        Nothing,
        /// Carries out the call, but shows no available units in this shard: as if the call had read the shard before a
        /// concurrent request moved units to it, and the other shards after that.
        ReadBeforeMove { to: u8 },
    }

    /// The HTTP connector between a products service and the fake cloud. Each intervention has the name of a DynamoDB
    /// operation, and applies to the next call of this operation.
    #[derive(Clone)]
    struct InterveningConnector {
        cloud: Cloud,
        interventions: Arc<Mutex<Vec<(&'static str, Intervention)>>>,
    }

    impl fmt::Debug for InterveningConnector {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("InterveningConnector")
        }
    }

    impl HttpConnector for InterveningConnector {
        fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
            let connector = self.clone();
            HttpConnectorFuture::new(async move {
                let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
                let intervention = {
                    let mut interventions = connector.interventions.lock().unwrap();
                    let next = interventions.iter().position(|(operation, _)| target.ends_with(operation));
                    next.map(|next| interventions.remove(next).1)
                };
                match intervention {
                    None | Some(Intervention::Nothing) => connector.cloud.call(request).await,
                    Some(Intervention::ReadBeforeMove { to }) => {
                        let found = connector.cloud.call(request).await?;
                        let mut found: Value = serde_json::from_slice(found.body().bytes().unwrap()).unwrap();
                        let to = to.to_string();
                        for item in found["Responses"]["ProductsTable"].as_array_mut().unwrap() {
                            if item["shard"]["N"] == to {
                                item["available"] = json!({ "N": "0" });
                            }
                        }
                        Ok(answer(200, &found))
                    }
                    Some(Intervention::RunFirst(work)) => {
                        work.await;
                        connector.cloud.call(request).await
                    }
                    Some(Intervention::LoseResponse) => {
                        connector.cloud.call(request).await?;
                        Err(ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()))
                    }
                    Some(Intervention::TransactionConflict) => Ok(conflict()),
                    Some(Intervention::ProcessNoKey) => Ok(unprocessed(&keys_of(&request), json!({}))),
                    Some(Intervention::ProcessLastKey) => {
                        let mut rest = keys_of(&request);
                        let last = rest.pop().unwrap();
                        let only = json!({ "RequestItems": { "ProductsTable": { "Keys": [last] } } });
                        *request.body_mut() = SdkBody::from(only.to_string());
                        let found = connector.cloud.call(request).await?;
                        let found: Value = serde_json::from_slice(found.body().bytes().unwrap()).unwrap();
                        Ok(unprocessed(&rest, found["Responses"].clone()))
                    }
                }
            })
        }
    }

    fn conflict() -> HttpResponse {
        let body = json!({
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": "Transaction cancelled",
            "CancellationReasons": [{ "Code": "None" }, { "Code": "TransactionConflict", "Message": "ongoing" }],
        });
        answer(400, &body)
    }

    fn keys_of(batch: &HttpRequest) -> Vec<Value> {
        let batch: Value = serde_json::from_slice(batch.body().bytes().unwrap()).unwrap();
        batch["RequestItems"]["ProductsTable"]["Keys"].as_array().unwrap().clone()
    }

    fn unprocessed(keys: &[Value], responses: Value) -> HttpResponse {
        let rest = json!({ "ProductsTable": { "Keys": keys } });
        answer(200, &json!({ "Responses": responses, "UnprocessedKeys": rest }))
    }

    fn answer(status: u16, body: &Value) -> HttpResponse {
        let mut response = HttpResponse::new(SdkStatus::try_from(status).unwrap(), SdkBody::from(body.to_string()));
        response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
        response
    }

    /// The products table behind a connector with interventions.
    async fn table(world: &World, interventions: Vec<(&'static str, Intervention)>) -> Table {
        let connector =
            InterveningConnector { cloud: world.cloud.clone(), interventions: Arc::new(Mutex::new(interventions)) };
        world::table(connector, "ProductsTable").await
    }

    /// A products service whose calls to DynamoDB meet the interventions.
    async fn products_with(world: &World, interventions: Vec<(&'static str, Intervention)>) -> Products {
        Products::new(DynamoRepository::new(table(world, interventions).await), Clock::System)
    }

    async fn products(world: &World) -> Products {
        products_with(world, Vec::new()).await
    }

    fn lines(wanted: &[(&str, u32)]) -> Lines {
        let line = |(id, quantity): &(&str, u32)| Line {
            product_id: id.parse().unwrap(),
            quantity: Quantity::try_from(*quantity).unwrap(),
        };
        Lines::merge(&wanted.iter().map(line).collect::<Vec<_>>()).unwrap()
    }

    async fn price_change(world: &World, id: &str, price: &str) -> Intervention {
        let (products, id, price) = (products(world).await, id.parse().unwrap(), price.parse().unwrap());
        Intervention::RunFirst(Box::pin(async move {
            let change = ProductChange { price: Some((price, None)), ..ProductChange::default() };
            products.change(id, |_| true, change, &author()).await.unwrap();
        }))
    }

    async fn sale(world: &World, order: OrderId, id: &str, quantity: u32) -> Intervention {
        let (products, lines) = (products(world).await, lines(&[(id, quantity)]));
        Intervention::RunFirst(Box::pin(async move {
            products.reserve(order, &lines).await.unwrap();
        }))
    }

    async fn released(world: &World, order: OrderId) -> Intervention {
        let products = products(world).await;
        Intervention::RunFirst(Box::pin(async move { products.release(order).await.unwrap() }))
    }

    const TRANSACTION: &str = "TransactWriteItems";

    /// Copies an intervention that runs no other request.
    fn again((operation, intervention): &(&'static str, Intervention)) -> (&'static str, Intervention) {
        let intervention = match intervention {
            Intervention::Nothing => Intervention::Nothing,
            Intervention::ReadBeforeMove { to } => Intervention::ReadBeforeMove { to: *to },
            _ => panic!("only these are copied"),
        };
        (operation, intervention)
    }

    #[tokio::test]
    async fn a_price_change_before_the_write_of_a_reservation_is_in_the_quote() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let products = products_with(&world, vec![(TRANSACTION, price_change(&world, &id, "25").await)]).await;
        let quote = products.reserve(OrderId::generate(), &lines(&[(&id, 2)])).await.unwrap();
        assert_eq!(quote.total.to_string(), "50.00 USD");
        assert_eq!(stored_stock(&world, &id), Stock { available: 8, reserved: 2 });
    }

    #[tokio::test]
    async fn a_price_that_changes_before_each_attempt_causes_contention_and_no_refusal() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let mut interventions = Vec::new();
        for price in ["21", "22", "23", "24", "25", "26"] {
            interventions.push((TRANSACTION, price_change(&world, &id, price).await));
        }
        let products = products_with(&world, interventions).await;
        let order = OrderId::generate();
        let error = products.reserve(order, &lines(&[(&id, 2)])).await.unwrap_err();
        assert!(matches!(error, ProductError::Store(_)), "{error:?}");
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
        reserve(&world, order, &[(&id, 2)]).await.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn a_sale_before_the_write_of_a_reservation_reduces_the_available_stock() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let sale = sale(&world, OrderId::generate(), &id, 9).await;
        let products = products_with(&world, vec![(TRANSACTION, sale)]).await;
        let error = products.reserve(OrderId::generate(), &lines(&[(&id, 2)])).await.unwrap_err();
        let ProductError::Refused(ReservationRefusal::OutOfStock(lacking)) = error else { panic!("{error:?}") };
        assert_eq!((lacking.len(), lacking[0].available), (1, 1));
        assert_eq!(stored_stock(&world, &id), Stock { available: 1, reserved: 9 });
    }

    #[tokio::test]
    async fn a_sale_before_the_write_of_an_adjustment_reduces_the_available_stock() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let sale = sale(&world, OrderId::generate(), &id, 9).await;
        let products = products_with(&world, vec![(TRANSACTION, sale)]).await;
        let delta = Delta::try_from(-2).unwrap();
        let (breakage, reason) = ("b".parse().unwrap(), "Broken".parse().unwrap());
        let error = products.adjust(id.parse().unwrap(), breakage, delta, reason, author().id).await.unwrap_err();
        assert!(matches!(error, ProductError::InsufficientStock { available: 1 }), "{error:?}");
        assert_eq!(stored_stock(&world, &id), Stock { available: 1, reserved: 9 });
    }

    #[tokio::test]
    async fn two_concurrent_reserve_requests_of_one_order_for_the_last_units_both_succeed() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        for operation in [TRANSACTION, "BatchGetItem"] {
            let order = OrderId::generate();
            let products = products_with(&world, vec![(operation, sale(&world, order, &id, 10).await)]).await;
            let quote = products.reserve(order, &lines(&[(&id, 10)])).await.unwrap();
            assert_eq!(quote.total.to_string(), "199.90 USD");
            assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 10 });
            release(&world, order).await.expect(StatusCode::OK);
        }
    }

    #[tokio::test]
    async fn a_reserve_request_is_refused_if_the_release_happens_before_its_write() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let products = products_with(&world, vec![(TRANSACTION, released(&world, order).await)]).await;
        let error = products.reserve(order, &lines(&[(&id, 2)])).await.unwrap_err();
        assert!(matches!(error, ProductError::Refused(ReservationRefusal::Released)), "{error:?}");
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
    }

    #[tokio::test]
    async fn a_reservation_that_is_stored_before_the_tombstone_is_released() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let products = products_with(&world, vec![("PutItem", sale(&world, order, &id, 4).await)]).await;
        products.release(order).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
        reserve(&world, order, &[(&id, 4)]).await.expect_problem(409, "reservation_released");
    }

    #[tokio::test]
    async fn two_concurrent_releases_return_the_stock_once() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        reserve(&world, order, &[(&id, 4)]).await.expect(StatusCode::OK);
        reserve(&world, OrderId::generate(), &[(&id, 4)]).await.expect(StatusCode::OK);
        let products = products_with(&world, vec![(TRANSACTION, released(&world, order).await)]).await;
        products.release(order).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 6, reserved: 4 });
    }

    #[tokio::test]
    async fn a_write_whose_response_is_lost_takes_effect_once() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let (order, other) = (OrderId::generate(), OrderId::generate());
        let lose = |operation| vec![(operation, Intervention::LoseResponse)];
        products_with(&world, lose(TRANSACTION)).await.reserve(order, &lines(&[(&id, 4)])).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 6, reserved: 4 });
        products_with(&world, lose(TRANSACTION)).await.release(order).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
        products_with(&world, lose("PutItem")).await.release(other).await.unwrap();
        reserve(&world, other, &[(&id, 1)]).await.expect_problem(409, "reservation_released");

        let (product, delta) = (id.parse().unwrap(), Delta::try_from(-3).unwrap());
        let (breakage, reason) = ("b".parse().unwrap(), "Broken".parse().unwrap());
        products_with(&world, lose(TRANSACTION))
            .await
            .adjust(product, breakage, delta, reason, author().id)
            .await
            .unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 7, reserved: 0 });

        let change = ProductChange { name: Some("Mug".parse().unwrap()), ..ProductChange::default() };
        let changed =
            products_with(&world, lose(TRANSACTION)).await.change(product, |_| true, change, &author()).await.unwrap();
        assert_eq!(changed.product.version, 2);
        let new = NewProduct { details: changed.product.details.clone(), units: 5.try_into().unwrap(), reason: None };
        let (admin, key) = (UserId::generate(), "k".parse().unwrap());
        for key in [None, Some(key)] {
            let products = products_with(&world, lose(TRANSACTION)).await;
            let created = products.create(admin, new.clone(), key).await.unwrap();
            assert_eq!(stock(&world, &created.product.id.to_string()).await, 5);
        }
    }

    #[tokio::test]
    async fn a_transaction_is_retried_after_a_conflict() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        let conflicts =
            || vec![(TRANSACTION, Intervention::TransactionConflict), (TRANSACTION, Intervention::TransactionConflict)];
        products_with(&world, conflicts()).await.reserve(order, &lines(&[(&id, 4)])).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 6, reserved: 4 });
        products_with(&world, conflicts()).await.release(order).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 10, reserved: 0 });
    }

    #[tokio::test]
    async fn a_release_of_more_than_is_reserved_fails_and_changes_nothing() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let order = OrderId::generate();
        reserve(&world, order, &[(&id, 4)]).await.expect(StatusCode::OK);
        let table = table(&world, Vec::new()).await;
        let update = table.update(&Key::new(format!("STOCK#{id}#0"), "STOCK"));
        let update = update.update_expression("SET reserved = :few").expression_attribute_values(":few", number(3));
        assert_eq!(table.send(update).await.unwrap(), WriteOutcome::Written);
        release(&world, order).await.expect_problem(500, "internal_error");
        assert_eq!(stored_stock(&world, &id), Stock { available: 6, reserved: 3 });
        // The order still has its reservation.
        reserve(&world, order, &[(&id, 4)]).await.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn an_order_is_refused_as_out_of_stock_only_if_all_shards_together_had_too_little_at_one_moment() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        world.give_shards(&id, 2).await.expect(StatusCode::OK);
        // No shard has 6 units, so the service reads the shards. Units that are just being moved seem to be missing.
        let torn = || {
            vec![
                ("BatchGetItem", Intervention::Nothing),
                ("BatchGetItem", Intervention::Nothing),
                ("BatchGetItem", Intervention::ReadBeforeMove { to: 1 }),
            ]
        };
        let products = products_with(&world, torn()).await;
        products.reserve(OrderId::generate(), &lines(&[(&id, 6)])).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 4, reserved: 6 });
        // The same is true for an adjustment, which reads the product first, and then the shards.
        adjust(&world, &id, "delivery", 6).await.expect(StatusCode::OK);
        assert_eq!(world.shards(&id).iter().map(|shard| shard.0).collect::<Vec<_>>(), [5, 5]);
        let (breakage, reason) = ("b".parse().unwrap(), "Broken".parse().unwrap());
        let delta = Delta::try_from(-6).unwrap();
        let products = products_with(&world, torn()[1..].iter().map(again).collect()).await;
        products.adjust(id.parse().unwrap(), breakage, delta, reason, author().id).await.unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 4, reserved: 6 });
    }

    /// The product gets a second shard, and units move there, after a request has read that there is one shard.
    #[tokio::test]
    async fn an_order_is_not_refused_because_the_product_got_more_shards_meanwhile() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let growth = || async {
            let (products, id) = (products(&world).await, id.parse().unwrap());
            let count = world.shards(&format!("{id}")).len() as i64 + 1;
            Intervention::RunFirst(Box::pin(async move {
                let change =
                    ProductChange { stock_shards: Some(count.try_into().unwrap()), ..ProductChange::default() };
                products.change(id, |_| true, change, &author()).await.unwrap();
            }))
        };
        let products = products_with(&world, vec![(TRANSACTION, growth().await)]).await;
        products.reserve(OrderId::generate(), &lines(&[(&id, 6)])).await.unwrap();
        let (breakage, reason) = ("b".parse().unwrap(), "Broken".parse().unwrap());
        let interventions = vec![("BatchGetItem", Intervention::Nothing), ("BatchGetItem", growth().await)];
        let products = products_with(&world, interventions).await;
        products
            .adjust(id.parse().unwrap(), breakage, Delta::try_from(-4).unwrap(), reason, author().id)
            .await
            .unwrap();
        assert_eq!(stored_stock(&world, &id), Stock { available: 0, reserved: 6 });
    }

    #[tokio::test]
    async fn a_price_change_before_the_write_of_a_reservation_from_several_shards_is_in_the_quote() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        world.give_shards(&id, 4).await.expect(StatusCode::OK);
        for (quantity, price) in [(1, "25"), (7, "26")] {
            let products = products_with(&world, vec![(TRANSACTION, price_change(&world, &id, price).await)]).await;
            let quote = products.reserve(OrderId::generate(), &lines(&[(&id, quantity)])).await.unwrap();
            assert_eq!(quote.lines[0].unit_price.amount().to_string(), format!("{price}.00"));
        }
    }

    /// A request that changes the price may end after it has changed the product, and before the shards know of it.
    #[tokio::test]
    async fn a_repeated_price_change_tells_the_shards_the_new_version() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        world.give_shards(&id, 3).await.expect(StatusCode::OK);
        let versions = || {
            let shards = world.cloud.scan("ProductsTable").into_iter().filter(|item| item["sk"]["S"] == "STOCK");
            shards.map(|shard| shard["version"]["N"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(versions(), ["1"; 3]);
        // Only a change on which a quote depends concerns the shards.
        patch(&world, &id, "*", json!({ "description": "Blue." })).await.expect(StatusCode::OK);
        assert_eq!(versions(), ["1"; 3]);
        let (products, product) = (products(&world).await, id.parse().unwrap());
        let before = world.cloud.scan("ProductsTable");
        let change = ProductChange { price: Some(("25".parse().unwrap(), None)), ..ProductChange::default() };
        products.change(product, |_| true, change.clone(), &author()).await.unwrap();
        assert_eq!(versions(), ["4"; 3]);
        for item in before.into_iter().filter(|item| item["sk"]["S"] == "STOCK") {
            world.cloud.put_item("ProductsTable", item);
        }
        assert_eq!(versions(), ["1"; 3]);
        let answer = patch(&world, &id, "*", json!({ "price": 25 })).await;
        assert_eq!(
            (answer.expect(StatusCode::OK)["price"].as_f64(), answer.header("etag")),
            (Some(25.0), Some("\"4\""))
        );
        assert_eq!(versions(), ["4"; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn unprocessed_keys_of_a_batch_are_requested_again_but_not_for_ever() {
        let world = World::start().await;
        let ids = [create(&world, mug()).await, create(&world, mug()).await, create(&world, mug()).await];
        let interventions = vec![
            ("BatchGetItem", Intervention::ProcessNoKey),
            ("BatchGetItem", Intervention::ProcessLastKey),
            ("BatchGetItem", Intervention::ProcessLastKey),
        ];
        let page = products_with(&world, interventions).await.list(Limit::default(), None).await.unwrap();
        // The page is sorted, although the last product was read first.
        assert_eq!(page.map(|stocked| stocked.product.id.to_string()).items, ids);

        let interventions = (0..6).map(|_| ("BatchGetItem", Intervention::ProcessNoKey)).collect();
        let order = OrderId::generate();
        let products = products_with(&world, interventions).await;
        let began = tokio::time::Instant::now();
        let error = products.reserve(order, &lines(&[(&ids[0], 1)])).await.unwrap_err();
        assert!(matches!(error, ProductError::Store(_)), "{error:?}");
        // Each pause is twice as long as the pause before.
        assert_eq!(began.elapsed().as_millis(), 20 + 40 + 80 + 160 + 320);
    }

    #[tokio::test]
    async fn a_change_is_stale_after_a_concurrent_change_unless_it_accepts_any_version() {
        let world = World::start().await;
        let id = create(&world, mug()).await;
        let products = products_with(&world, vec![(TRANSACTION, price_change(&world, &id, "25").await)]).await;
        let change = ProductChange { name: Some("Mug".parse().unwrap()), ..ProductChange::default() };
        let error =
            products.change(id.parse().unwrap(), |version| version == 1, change.clone(), &author()).await.unwrap_err();
        assert!(matches!(error, ProductError::Stale), "{error:?}");
        assert_eq!(read(&world, &id).await.json()["name"], "Enamel mug");
        // A change that accepts any version is applied after the concurrent change.
        let products = products_with(&world, vec![(TRANSACTION, price_change(&world, &id, "26").await)]).await;
        products.change(id.parse().unwrap(), |_| true, change, &author()).await.unwrap();
        let product = read(&world, &id).await.json();
        assert_eq!((&product["name"], &product["price"]), (&json!("Mug"), &json!(26.0)));
    }
}

/// A request about one of a few products or orders.
#[derive(Clone, Debug)]
enum Action {
    Reserve {
        order: usize,
        lines: Vec<(usize, u32)>,
    },
    Release {
        order: usize,
    },
    Adjust {
        product: usize,
        delta: i64,
    },
    /// Asks for this number of shards. The product may have more already.
    GiveShards {
        product: usize,
        count: u8,
    },
}

const PRODUCTS: usize = 3;
const ORDERS: usize = 4;

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..ORDERS, prop::collection::vec((0..PRODUCTS, 1u32..6), 1..4))
            .prop_map(|(order, lines)| Action::Reserve { order, lines }),
        2 => (0..ORDERS).prop_map(|order| Action::Release { order }),
        2 => (0..PRODUCTS, -8i64..8)
            .prop_filter("an adjustment is not zero", |(_, delta)| *delta != 0)
            .prop_map(|(product, delta)| Action::Adjust { product, delta }),
        1 => (0..PRODUCTS, 1u8..5).prop_map(|(product, count)| Action::GiveShards { product, count }),
    ]
}

/// The expected stock and reservations, computed in memory with the rules of the domain.
struct Model {
    stock: Vec<Stock>,
    /// The reserved quantity of each product, for each order. `None` after the order's release.
    orders: HashMap<usize, Option<HashMap<usize, Quantity>>>,
}

impl Model {
    fn reserve(&mut self, order: usize, lines: &[(usize, u32)]) -> Result<(), &'static str> {
        let mut wanted = HashMap::<usize, u32>::new();
        for (product, quantity) in lines {
            *wanted.entry(*product).or_default() += quantity;
        }
        let wanted: HashMap<_, _> =
            wanted.into_iter().map(|(product, sum)| (product, Quantity::try_from(sum).unwrap())).collect();
        match self.orders.get(&order) {
            Some(None) => return Err("reservation_released"),
            Some(Some(held)) if *held == wanted => return Ok(()),
            Some(Some(_)) => return Err("reservation_mismatch"),
            None => {}
        }
        let mut after = self.stock.clone();
        for (product, quantity) in &wanted {
            after[*product] = after[*product].after_reserve(*quantity).ok_or("out_of_stock")?;
        }
        self.stock = after;
        self.orders.insert(order, Some(wanted));
        Ok(())
    }

    fn release(&mut self, order: usize) {
        for (product, quantity) in self.orders.insert(order, None).flatten().unwrap_or_default() {
            self.stock[product] = self.stock[product].after_release(quantity).expect("the quantity was reserved");
        }
    }

    fn adjust(&mut self, product: usize, delta: i64) -> Result<(), &'static str> {
        let adjusted = self.stock[product].after_adjustment(Delta::try_from(delta).unwrap());
        self.stock[product] = adjusted.ok_or("insufficient_stock")?;
        Ok(())
    }
}

/// The rules of the stock are written twice: as conditions of the repository's writes, and as arithmetic in the domain.
/// This test checks that the conditions and the arithmetic agree.
#[test]
fn the_table_agrees_with_the_domain_after_any_sequence_of_requests() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    proptest!(ProptestConfig::with_cases(32), |(actions in prop::collection::vec(actions(), 1..25))| {
        runtime.block_on(async {
            let world = World::start().await;
            let mut products = Vec::new();
            for _ in 0..PRODUCTS {
                products.push(create(&world, mug()).await);
            }
            let ids: Vec<_> = (0..ORDERS).map(|_| OrderId::generate()).collect();
            let mut model =
                Model { stock: vec![Stock { available: 10, reserved: 0 }; PRODUCTS], orders: HashMap::new() };
            for (n, action) in actions.iter().enumerate() {
                let (answer, expected) = match action {
                    Action::Reserve { order, lines } => {
                        let wanted: Vec<_> = lines.iter().map(|(at, quantity)| (&*products[*at], *quantity)).collect();
                        (reserve(&world, ids[*order], &wanted).await, model.reserve(*order, lines))
                    }
                    Action::Release { order } => {
                        model.release(*order);
                        (release(&world, ids[*order]).await, Ok(()))
                    }
                    Action::Adjust { product, delta } => {
                        let answer = adjust(&world, &products[*product], &format!("a-{n}"), *delta).await;
                        (answer, model.adjust(*product, *delta))
                    }
                    Action::GiveShards { product, count } => {
                        let answer = world.give_shards(&products[*product], *count).await;
                        let is_refused = usize::from(*count) < world.shards(&products[*product]).len();
                        (answer, if is_refused { Err("invalid_request") } else { Ok(()) })
                    }
                };
                let found = match answer.status {
                    StatusCode::OK => Ok(()),
                    _ => Err(answer.json()["code"].as_str().unwrap_or_default().to_owned()),
                };
                assert_eq!(found, expected.map_err(str::to_owned), "{action:?}: {}", answer.text);
                let stocks: Vec<_> = products.iter().map(|id| stored_stock(&world, id)).collect();
                assert_eq!(stocks, model.stock, "{action:?}");
            }
        });
    });
}
