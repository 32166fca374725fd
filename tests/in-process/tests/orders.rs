//! The orders service: placing, repeating, reading, cancelling.

use std::time::Duration;

use chassis::{
    clock::Clock,
    contact::VerifiedContact,
    dynamo::{Key, List, WriteOutcome},
    id::UserId,
    idempotency::InsertOutcome,
    page::Cursor,
    store::SaveOutcome,
    trace::TraceContext,
};
use http::{Method, StatusCode};
use in_process_tests::{
    Answer, Caller, World,
    cloud::HostFault,
    fault::{FaultKind, FaultPlan},
    world,
};
use jiff::Timestamp;
use orders::{
    domain::{Basket, DECIDE_WITHIN, Item, Order, OrderId, OrderState, ProductId, Purchase, Quantity, Refusal},
    repository::{DynamoRepository, Repository},
    worker::Outcome,
};
use serde_json::{Value, json};

/// A shop whose clock goes as the test's does.
async fn in_test_time() -> World {
    World::start_at(Clock::tokio(Timestamp::now())).await
}

/// A product for sale.
async fn product(world: &World, price: &str, stock: u32) -> String {
    let price: Value = serde_json::from_str(price).unwrap();
    let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": price, "stock": stock });
    let product = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
    product["id"].as_str().unwrap().to_owned()
}

async fn stock(world: &World, product: &str) -> u64 {
    let product = world.get(&Caller::anonymous(), &format!("/products/{product}")).await.expect(StatusCode::OK);
    product["stock"].as_u64().unwrap()
}

fn basket(lines: &[(&str, u32)], token: &str) -> Value {
    let items: Vec<_> = lines.iter().map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity })).collect();
    json!({ "items": items, "payment_method": token })
}

async fn place(world: &World, person: &Caller, body: Value, key: &str) -> Answer {
    world.send_with(person, Method::POST, "/orders", Some(body), &[("idempotency-key", key)]).await
}

async fn order(world: &World, person: &Caller, id: &Value) -> Value {
    world.get(person, &format!("/orders/{}", id.as_str().unwrap())).await.expect(StatusCode::OK)
}

/// Lets the worker go on until nothing is left to do at once.
async fn settle(world: &World) {
    while world.deliver_stream().await > 0 {}
}

fn statuses(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap()).collect()
}

/// Type and subject of every event sent so far.
fn events(world: &World) -> Vec<(String, Value)> {
    let messages = world.cloud.take_messages().into_iter().map(|m| serde_json::from_str::<Value>(&m).unwrap());
    messages.map(|event| (event["type"].as_str().unwrap().to_owned(), event)).collect()
}

fn kinds(world: &World) -> Vec<String> {
    events(world).into_iter().map(|(kind, _)| kind).collect()
}

mod an_order_that_goes_through {
    use super::*;

    #[tokio::test]
    async fn is_confirmed_at_once_with_exact_prices_and_done_by_the_worker() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 10).await;
        let answer = place(&world, &ada, basket(&[(&teapot, 3)], "tok_accepted"), "k1").await;
        let placed = answer.expect(StatusCode::CREATED);
        assert_eq!(placed["status"], "CONFIRMED");
        assert!(answer.text.contains("\"total\":59.97"), "{}", answer.text);
        assert!(answer.text.contains("\"unit_price\":19.99"), "{}", answer.text);
        assert_eq!(placed["currency"], "USD");
        assert_eq!(answer.header("location"), Some(format!("orders/{}", placed["id"].as_str().unwrap()).as_str()));
        assert_eq!(stock(&world, &teapot).await, 7);

        settle(&world).await;
        let done = order(&world, &ada, &placed["id"]).await;
        assert_eq!(statuses(&done), ["PENDING", "CONFIRMED", "DONE"]);
        let payment = world.get(&ada, &format!("/payments/{}", done["payment_id"].as_str().unwrap())).await;
        assert_eq!(payment.expect(StatusCode::OK)["status"], "CAPTURED");
        assert!(payment.text.contains("\"amount\":59.97"), "{}", payment.text);
    }

    #[tokio::test]
    async fn is_announced_with_all_that_a_consumer_needs() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 10).await;
        place(&world, &ada, basket(&[(&teapot, 3)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        settle(&world).await;
        let events = events(&world);
        let kinds: Vec<_> = events.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["PaymentCaptured", "OrderCreated"]);
        let created = &events[1].1;
        assert_eq!(created["specversion"], "1.0");
        assert_eq!(created["data"]["recipient"]["email"], ada.email());
        assert_eq!(created["data"]["lines"][0]["name"], "Teapot");
        assert_eq!(created["data"]["total"], json!(59.97));
        assert!(created["traceparent"].as_str().is_some_and(|trace| trace.starts_with("00-")), "{created}");
    }

    #[tokio::test]
    async fn merges_lines_of_one_product() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "0.10", 10).await;
        let body = basket(&[(&teapot, 1), (&teapot, 2)], "tok_accepted");
        let placed = place(&world, &ada, body, "k1").await.expect(StatusCode::CREATED);
        assert_eq!(placed["items"].as_array().unwrap().len(), 1);
        assert_eq!(placed["items"][0]["quantity"], 3);
        assert_eq!(placed["total"], json!(0.30));
    }

    #[tokio::test]
    async fn keeps_no_payment_token_once_it_is_decided() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "1.00", 10).await;
        for (key, token) in [("k1", "tok_accepted"), ("k2", "tok_declined")] {
            place(&world, &ada, basket(&[(&teapot, 1)], token), key).await;
        }
        for table in ["OrdersTable", "PaymentsTable"] {
            let stored = serde_json::to_string(&world.cloud.scan(table)).unwrap();
            assert!(!stored.contains("tok_"), "{table}: {stored}");
        }
    }

    #[tokio::test]
    async fn needs_no_payment_method_where_the_provider_has_one_on_file() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "1.00", 10).await;
        let body = json!({ "user_id": ada.id(), "items": [{ "product_id": teapot, "quantity": 1 }] });
        assert_eq!(world.post(&ada, "/orders", body).await.expect(StatusCode::CREATED)["status"], "CONFIRMED");
    }
}

mod an_order_that_is_refused {
    use super::*;

    /// Places an order that must be refused, and asserts that it ends as if it
    /// had never been: nothing reserved, one event that says so.
    async fn refused(world: &World, person: &Caller, body: Value, status: u16, code: &str) -> Value {
        let problem = place(world, person, body, "k1").await.expect_problem(status, code);
        settle(world).await;
        let order = order(world, person, &problem["order_id"]).await;
        assert_eq!(statuses(&order), ["PENDING", "CANCELLING", "CANCELLED"]);
        assert_eq!(order["cancellation_reason"], code);
        // Who has no profile can't be told.
        let told = if code.starts_with("user_") { vec![] } else { vec!["OrderCancelled"] };
        assert_eq!(kinds(world), told);
        problem
    }

    #[tokio::test]
    async fn for_a_declined_card_gives_its_stock_back_within_the_request() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 1).await;
        let answer = place(&world, &ada, basket(&[(&teapot, 1)], "tok_declined"), "k1").await;
        let problem = answer.expect_problem(402, "payment_declined");
        assert_eq!(problem["reason"], "card_declined");
        assert_eq!(order(&world, &ada, &problem["order_id"]).await["status"], "CANCELLED");
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k2").await.expect(StatusCode::CREATED);
    }

    #[tokio::test]
    async fn for_missing_stock_says_which_lines_lack_how_many() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let (few, many) = (product(&world, "1.00", 2).await, product(&world, "1.00", 100).await);
        let body = basket(&[(&few, 3), (&many, 3)], "tok_accepted");
        let problem = refused(&world, &ada, body, 409, "out_of_stock").await;
        assert_eq!(problem["lines"], json!([{ "product_id": few, "requested": 3, "available": 2 }]));
        assert_eq!((stock(&world, &few).await, stock(&world, &many).await), (2, 100));
    }

    #[tokio::test]
    async fn for_an_unknown_product_names_it() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let unknown = "prod_0195a8e0-0000-7000-8000-000000000001";
        let body = basket(&[(unknown, 1)], "tok_accepted");
        let problem = refused(&world, &ada, body, 422, "unknown_product").await;
        assert_eq!(problem["products"], json!([unknown]));
    }

    #[tokio::test]
    async fn for_insufficient_funds_says_so() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let body = basket(&[(&teapot, 5)], "tok_insufficient_funds");
        let problem = refused(&world, &ada, body, 402, "payment_declined").await;
        assert_eq!(problem["reason"], "insufficient_funds");
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    #[tokio::test]
    async fn for_a_customer_without_a_profile() {
        let world = World::start().await;
        let teapot = product(&world, "1.00", 5).await;
        let stranger = Caller::named("Stranger");
        refused(&world, &stranger, basket(&[(&teapot, 1)], "tok_accepted"), 422, "user_not_found").await;
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    #[tokio::test]
    async fn for_a_deactivated_customer() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "1.00", 5).await;
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(kinds(&world), ["UserErased"]);
        refused(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), 422, "user_inactive").await;
    }

    #[tokio::test]
    async fn for_products_in_two_currencies() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let dollars = product(&world, "1.00", 5).await;
        let body = json!({ "name": "Tasse", "description": "Klein.", "price": 2.5, "currency": "EUR", "stock": 5 });
        let euros = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        let euros = euros["id"].as_str().unwrap();
        let body = basket(&[(&dollars, 1), (euros, 1)], "tok_accepted");
        refused(&world, &ada, body, 422, "mixed_currencies").await;
    }

    #[tokio::test]
    async fn when_the_capture_fails_for_good_is_undone_although_it_was_confirmed() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let body = basket(&[(&teapot, 1)], "tok_capture_refused");
        let placed = place(&world, &ada, body.clone(), "k1").await.expect(StatusCode::CREATED);
        settle(&world).await;
        let order = order(&world, &ada, &placed["id"]).await;
        assert_eq!(statuses(&order), ["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]);
        assert_eq!(order["cancellation_reason"], "capture_refused");
        assert_eq!(kinds(&world), ["OrderCreated", "OrderCancelled"]);
        assert_eq!(stock(&world, &teapot).await, 5);
        // The answer that the customer got stands.
        assert_eq!(place(&world, &ada, body, "k1").await.expect(StatusCode::CREATED), placed);
    }
}

mod a_repeated_request {
    use super::*;

    /// A REST API's gateway sends each header with all its values, and with the
    /// last; an HTTP API's joins them with commas.
    #[tokio::test]
    async fn with_two_keys_is_refused_behind_each_gateway() {
        let world = World::start().await;
        let payload = |name: &str| -> Value {
            let file = format!("{}/../../events/orders/{name}.json", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
        };
        let mut rest = payload("http-v1-place-order");
        rest["headers"]["Idempotency-Key"] = json!("k2");
        rest["multiValueHeaders"]["Idempotency-Key"] = json!(["k1", "k2"]);
        let mut http = payload("http-v2-list-orders");
        http["routeKey"] = json!("POST /orders");
        http["requestContext"]["http"]["method"] = json!("POST");
        http["headers"]["content-type"] = json!("application/json");
        http["headers"]["idempotency-key"] = json!("k1,k2");
        http["body"] = rest["body"].clone();
        for event in [rest, http] {
            let answer = world.invoke("orders", &event.to_string()).await.unwrap();
            let problem: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            assert_eq!(answer["statusCode"], 422, "{answer}");
            assert_eq!(problem["errors"][0]["field"], "Idempotency-Key", "{problem}");
        }
    }

    #[tokio::test]
    async fn gets_the_same_bytes_whatever_happened_since() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        for (key, token) in [("k1", "tok_accepted"), ("k2", "tok_declined")] {
            let first = place(&world, &ada, basket(&[(&teapot, 1)], token), key).await;
            settle(&world).await;
            let again = place(&world, &ada, basket(&[(&teapot, 1)], token), key).await;
            assert_eq!((first.status, &first.text), (again.status, &again.text));
            for header in ["content-type", "location"] {
                assert_eq!(first.header(header), again.header(header));
            }
        }
        assert_eq!(stock(&world, &teapot).await, 4);
    }

    /// The items of a transaction come into sight one by one: a second click
    /// may find the key, and not yet the order that it names.
    #[tokio::test(start_paused = true)]
    async fn that_finds_its_order_being_committed_waits_for_it() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let again = async || place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await;
        let first = again().await;
        let id = first.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
        world.cloud.delay_commit(&format!("ORDER#{id}"), Duration::from_millis(100));
        assert_eq!(again().await.text, first.text);
        world.cloud.delay_commit(&format!("ORDER#{id}"), Duration::from_secs(60));
        again().await.expect_problem(409, "idempotency_in_flight");
    }

    #[tokio::test]
    async fn is_the_same_whether_its_key_is_quoted_and_its_lines_are_ordered_otherwise() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let (a, b) = (product(&world, "1.00", 5).await, product(&world, "2.00", 5).await);
        let first = place(&world, &ada, basket(&[(&a, 1), (&b, 1)], "tok_accepted"), "k1").await;
        let again = place(&world, &ada, basket(&[(&b, 1), (&a, 1)], "tok_accepted"), "\"k1\"").await;
        assert_eq!(first.expect(StatusCode::CREATED)["id"], again.expect(StatusCode::CREATED)["id"]);
    }

    #[tokio::test(start_paused = true)]
    async fn is_one_for_seven_days() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let body = basket(&[(&teapot, 1)], "tok_accepted");
        let first = place(&world, &ada, body.clone(), "k1").await;
        settle(&world).await;
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        tokio::time::advance(week - Duration::from_secs(60)).await;
        let again = place(&world, &ada, body.clone(), "k1").await;
        assert_eq!((again.status, again.text), (first.status, first.text.clone()));
        // The item may still be there: DynamoDB deletes it days late.
        tokio::time::advance(Duration::from_secs(120)).await;
        let another = place(&world, &ada, body, "k1").await.expect(StatusCode::CREATED);
        assert_ne!(another["id"], first.json()["id"]);
        assert_eq!(stock(&world, &teapot).await, 3);
    }

    #[tokio::test]
    async fn with_another_payload_is_a_mismatch_and_changes_nothing() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        let other = place(&world, &ada, basket(&[(&teapot, 2)], "tok_accepted"), "k1").await;
        other.expect_problem(422, "idempotency_mismatch");
        assert_eq!(stock(&world, &teapot).await, 4);
    }

    #[tokio::test]
    async fn of_another_customer_with_the_same_key_is_another_request() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = product(&world, "19.99", 5).await;
        let one = place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        let two = place(&world, &bob, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        assert_ne!(one["id"], two["id"]);
    }

    #[tokio::test]
    async fn without_a_key_orders_twice_as_the_documentation_says() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let body = basket(&[(&teapot, 1)], "tok_accepted");
        let one = world.post(&ada, "/orders", body.clone()).await.expect(StatusCode::CREATED);
        let two = world.post(&ada, "/orders", body).await.expect(StatusCode::CREATED);
        assert_ne!(one["id"], two["id"]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_first_is_still_worked_on_is_told_to_wait() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let body = basket(&[(&teapot, 1)], "tok_slow");
        let (first, second) = tokio::join!(place(&world, &ada, body.clone(), "k1"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            place(&world, &ada, body.clone(), "k1").await
        });
        first.expect(StatusCode::CREATED);
        second.expect_problem(409, "idempotency_in_flight");
        assert_eq!(second.header("retry-after"), Some("1"));
    }
}

mod an_order_that_cannot_be_decided_in_the_request {
    use super::*;

    #[tokio::test]
    async fn is_answered_as_pending_and_decided_by_the_worker() {
        for down in ["users", "products", "payments"] {
            let world = World::start().await;
            let ada = world.customer("Ada").await;
            let teapot = product(&world, "19.99", 5).await;
            world.cloud.take_down(down);
            let body = basket(&[(&teapot, 1)], "tok_accepted");
            let answer = place(&world, &ada, body.clone(), "k1").await;
            let pending = answer.expect(StatusCode::ACCEPTED);
            assert_eq!(pending["status"], "PENDING", "{down}");
            assert_eq!(answer.header("location"), Some(format!("orders/{}", pending["id"].as_str().unwrap()).as_str()));
            // A repeat meanwhile learns the same.
            assert_eq!(place(&world, &ada, body.clone(), "k1").await.expect(StatusCode::ACCEPTED)["id"], pending["id"]);

            world.cloud.bring_back();
            settle(&world).await;
            assert_eq!(order(&world, &ada, &pending["id"]).await["status"], "DONE", "{down}");
            let replay = place(&world, &ada, body, "k1").await.expect(StatusCode::CREATED);
            assert_eq!((&replay["id"], &replay["status"]), (&pending["id"], &json!("CONFIRMED")), "{down}");
            assert_eq!(stock(&world, &teapot).await, 4, "{down}");
        }
    }

    #[tokio::test]
    async fn survives_a_payment_provider_that_fails_once() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let placed = place(&world, &ada, basket(&[(&teapot, 1)], "tok_flaky"), "k1").await;
        assert_eq!(placed.expect(StatusCode::CREATED)["status"], "CONFIRMED");
        settle(&world).await;
        assert_eq!(world.cloud.scan("SandboxLedgerTable").len(), 1);
    }
}

mod cancelling {
    use super::*;

    /// Ada, a product that was there five times, and her order for two of it.
    async fn ordered(world: &World) -> (Caller, String, Value) {
        let ada = world.customer("Ada").await;
        let teapot = product(world, "19.99", 5).await;
        let placed = place(world, &ada, basket(&[(&teapot, 2)], "tok_accepted"), "k1").await;
        (ada, teapot, placed.expect(StatusCode::CREATED))
    }

    async fn cancel(world: &World, person: &Caller, order: &Value) -> Answer {
        let path = format!("/orders/{}/cancel", order["id"].as_str().unwrap());
        world.send(person, Method::POST, &path, None).await
    }

    #[tokio::test]
    async fn a_finished_order_refunds_it_and_gives_its_stock_back() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        settle(&world).await;
        let cancelled = cancel(&world, &ada, &placed).await.expect(StatusCode::OK);
        assert_eq!(statuses(&cancelled), ["PENDING", "CONFIRMED", "DONE", "CANCELLING", "CANCELLED"]);
        assert_eq!(stock(&world, &teapot).await, 5);
        assert_eq!(kinds(&world), ["PaymentCaptured", "OrderCreated", "PaymentRefunded", "OrderCancelled"]);
        let payment = world.get(&ada, &format!("/payments/{}", cancelled["payment_id"].as_str().unwrap())).await;
        assert_eq!(payment.expect(StatusCode::OK)["status"], "REFUNDED");
        // Again: nothing new happens.
        cancel(&world, &ada, &placed).await.expect(StatusCode::OK);
        assert_eq!(kinds(&world), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_confirmed_order_voids_it_before_it_was_ever_captured() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        let cancelled = cancel(&world, &ada, &placed).await.expect(StatusCode::OK);
        assert_eq!(statuses(&cancelled), ["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]);
        assert_eq!(cancelled["cancellation_reason"], "customer_request");
        assert_eq!(kinds(&world), ["OrderCreated", "OrderCancelled"]);
        settle(&world).await;
        assert_eq!(order(&world, &ada, &placed["id"]).await["status"], "CANCELLED");
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    #[tokio::test]
    async fn an_undecided_order_gives_its_request_the_answer_cancelled() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        world.cloud.take_down("payments");
        let body = basket(&[(&teapot, 1)], "tok_accepted");
        let pending = place(&world, &ada, body.clone(), "k1").await.expect(StatusCode::ACCEPTED);
        world.cloud.bring_back();
        cancel(&world, &ada, &pending).await.expect(StatusCode::OK);
        let answer = place(&world, &ada, body, "k1").await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert_eq!(answer.json()["code"], "order_cancelled");
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    #[tokio::test]
    async fn goes_on_although_the_word_that_it_is_recorded_was_lost() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        // It reads the order, and records that it is cancelled.
        world.cloud.begin_trial(FaultPlan::none().and(1, FaultKind::ReplyLost));
        let cancelled = cancel(&world, &ada, &placed).await.expect(StatusCode::OK);
        let points = world.cloud.end_trial();
        assert_eq!(points[1].label, "orders → PutItem OrdersTable");
        assert_eq!(cancelled["status"], "CANCELLED");
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    /// Whoever writes the cancellation undoes the order; the request that
    /// placed it only answers.
    #[tokio::test(start_paused = true)]
    async fn an_order_whose_request_still_runs_is_undone_by_one_of_them() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        world.cloud.begin_trial(FaultPlan::none());
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            // The placing request has its answer before this has ended.
            world.cloud.inject_fault("products.internal", HostFault::Slow(Duration::from_millis(1900)));
            let orders = world.get(&ada, "/orders").await.expect(StatusCode::OK);
            cancel(&world, &ada, &orders["items"][0]).await.expect(StatusCode::OK)
        };
        let (placed, cancelled) =
            tokio::join!(place(&world, &ada, basket(&[(&teapot, 2)], "tok_slow"), "k1"), cancelling);
        assert_eq!(placed.expect(StatusCode::CONFLICT)["code"], "order_cancelled");
        assert_eq!(cancelled["status"], "CANCELLED");
        let points = world.cloud.end_trial();
        let undone = |what: &str| points.iter().filter(|point| point.label == format!("orders → POST {what}")).count();
        assert_eq!((undone("products release"), undone("payments cancel")), (1, 1));
    }

    #[tokio::test]
    async fn is_answered_as_under_way_when_a_service_is_down_and_finished_by_the_worker() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        settle(&world).await;
        world.cloud.take_down("products");
        assert_eq!(cancel(&world, &ada, &placed).await.expect(StatusCode::ACCEPTED)["status"], "CANCELLING");
        world.cloud.bring_back();
        settle(&world).await;
        assert_eq!(order(&world, &ada, &placed["id"]).await["status"], "CANCELLED");
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn is_refused_after_the_cutoff() {
        let world = in_test_time().await;
        let (ada, teapot, placed) = ordered(&world).await;
        settle(&world).await;
        let last = place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k2").await.expect(StatusCode::CREATED);
        settle(&world).await;
        tokio::time::advance(in_process_tests::world::CANCELLATION_WINDOW).await;
        // The last moment is one.
        cancel(&world, &ada, &last).await.expect(StatusCode::OK);
        tokio::time::advance(Duration::from_millis(1)).await;
        cancel(&world, &ada, &placed).await.expect_problem(409, "cancellation_closed");
        assert_eq!(stock(&world, &teapot).await, 3);
    }
}

mod the_worker {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cancels_what_cannot_be_decided_in_time_and_says_so_to_a_repeat() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        world.cloud.take_down("payments");
        let body = basket(&[(&teapot, 1)], "tok_accepted");
        let pending = place(&world, &ada, body.clone(), "k1").await.expect(StatusCode::ACCEPTED);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(60)).await;
            world.sweep().await;
        }
        assert_eq!(order(&world, &ada, &pending["id"]).await["status"], "CANCELLING");
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(600)).await;
        world.sweep().await;
        assert_eq!(order(&world, &ada, &pending["id"]).await["status"], "CANCELLED");
        let answer = place(&world, &ada, body, "k1").await;
        assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::CONFLICT, &json!("order_timed_out")));
        assert_eq!(stock(&world, &teapot).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn looks_at_an_undecided_order_again_when_its_two_minutes_are_over_at_the_latest() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        world.cloud.take_down("payments");
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::ACCEPTED);
        for _ in 0..12 {
            let orders = world.cloud.scan("OrdersTable");
            let order = orders.iter().find(|item| item["sk"]["S"] == "ORDER").unwrap();
            assert_eq!(order["state"]["S"], "PENDING");
            let created: Timestamp = order["created_at"]["S"].as_str().unwrap().parse().unwrap();
            let next: i64 = order["next_check"]["N"].as_str().unwrap().parse().unwrap();
            assert!(next <= (created + DECIDE_WITHIN).as_millisecond(), "{order}");
            tokio::time::advance(Duration::from_secs(9)).await;
            // No time to look again.
            world.sweep_within(Duration::from_secs(19)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn never_gives_up_an_order_and_reports_it_as_overdue() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let placed =
            place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        world.cloud.take_down("payments");
        let began = tokio::time::Instant::now();
        for _ in 0..40 {
            tokio::time::advance(Duration::from_secs(60)).await;
            // Each sweep stays for a while, and looks again.
            let open = began.elapsed();
            let outcome = world.sweep().await;
            assert_eq!(outcome.finished, 0);
            let late = open > Duration::from_secs(15 * 60);
            assert_eq!(outcome.overdue, if late { outcome.postponed } else { 0 }, "open for {open:?}");
        }
        assert_eq!(order(&world, &ada, &placed["id"]).await["status"], "CONFIRMED");
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(600)).await;
        world.sweep().await;
        assert_eq!(order(&world, &ada, &placed["id"]).await["status"], "DONE");
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_an_order_that_failed_alone_for_a_pause_that_doubles() {
        let clock = Clock::tokio(Timestamp::now());
        let world = World::start_at(clock.clone()).await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        world.cloud.take_down("payments");
        for failures in 0..5 {
            // No time to look again.
            let outcome = world.sweep_within(Duration::from_secs(19)).await;
            assert_eq!(outcome.postponed, 1);
            let orders = world.cloud.scan("OrdersTable");
            let order = orders.iter().find(|item| item["sk"]["S"] == "ORDER").unwrap();
            let next: i64 = order["next_check"]["N"].as_str().unwrap().parse().unwrap();
            let pause = u64::try_from(next - clock.now().as_millisecond()).unwrap();
            let whole = 2_000 * 2_u64.pow(failures);
            assert!((whole * 3 / 4..=whole).contains(&pause), "{pause} ms after {failures} failures");
            assert_eq!(world.sweep_within(Duration::from_secs(19)).await, Outcome::default());
            tokio::time::advance(Duration::from_millis(pause)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn takes_over_an_order_whose_request_vanished_once_its_lease_has_ended() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let body = basket(&[(&teapot, 1)], "tok_slow");
        let killed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.cloud.kill_all();
        };
        let (answer, ()) = tokio::join!(place(&world, &ada, body.clone(), "k1"), killed);
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(world.deliver_stream().await, 0, "nobody is woken for an order that somebody has");
        assert_eq!(world.sweep().await.finished, 0, "the lease is respected");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(world.sweep().await.finished, 1);
        let replay = place(&world, &ada, body, "k1").await.expect(StatusCode::CREATED);
        assert_eq!(order(&world, &ada, &replay["id"]).await["status"], "DONE");
        assert_eq!(stock(&world, &teapot).await, 4);
    }
}

mod what_the_worker_tells {
    use super::*;

    /// So many confirmed orders that nobody has taken further yet.
    async fn confirmed(count: usize) -> World {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 100).await;
        for n in 0..count {
            let body = basket(&[(&teapot, 1)], "tok_accepted");
            place(&world, &ada, body, &format!("k{n}")).await.expect(StatusCode::CREATED);
        }
        world
    }

    async fn minute_later(world: &World) -> Outcome {
        tokio::time::advance(Duration::from_secs(65)).await;
        world.sweep().await
    }

    #[tokio::test(start_paused = true)]
    async fn is_what_became_of_each_order() {
        let world = confirmed(3).await;
        world.cloud.inject_fault("payments", HostFault::Down);
        assert_eq!(minute_later(&world).await, Outcome { postponed: 3, ..Outcome::default() });
        tokio::time::advance(Duration::from_secs(16 * 60)).await;
        assert_eq!(minute_later(&world).await, Outcome { postponed: 3, overdue: 3, ..Outcome::default() });
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(10 * 60)).await;
        // Open for half an hour: that the worker caught up is no reason for silence.
        assert_eq!(minute_later(&world).await, Outcome { finished: 3, overdue: 3, ..Outcome::default() });
        assert_eq!(minute_later(&world).await, Outcome::default());
    }

    /// As many as come while a service is down for a minute.
    #[tokio::test(start_paused = true)]
    async fn is_all_that_was_due_however_many_there_are_in_a_shard() {
        const MANY: u64 = 120;
        let world = confirmed(1).await;
        let mut item = world.cloud.scan("OrdersTable").into_iter().find(|item| item["sk"]["S"] == "ORDER").unwrap();
        let like = OrderId::generate().uuid();
        for n in 0..MANY {
            let mut bytes = *like.as_bytes();
            (bytes[14], bytes[15]) = (n as u8, 0);
            let id = format!("ord_{}", uuid::Uuid::from_bytes(bytes));
            item["pk"] = json!({ "S": format!("ORDER#{id}") });
            item["id"] = json!({ "S": id });
            item["check_shard"] = json!({ "S": "0" });
            item["state"] = json!({ "S": "CANCELLING" });
            item["refusal"] = json!({ "M": { "code": { "S": "timed_out" } } });
            world.cloud.put_item("OrdersTable", item.clone());
        }
        let began = tokio::time::Instant::now();
        assert_eq!(world.sweep().await, Outcome { finished: MANY + 1, ..Outcome::default() });
        assert!(began.elapsed() < Duration::from_secs(5), "it paused: {:?}", began.elapsed());
    }

    /// The next invocation goes on with it at once, and it is no failure that
    /// would make it wait.
    #[tokio::test(start_paused = true)]
    async fn is_that_an_order_needs_another_invocation_when_this_one_ends() {
        // Found, leased, and too late to capture; or captured, and too late to publish.
        for millis in [4_250, 4_750] {
            let world = confirmed(1).await;
            world.cloud.set_latency("order-worker", Duration::from_secs(1));
            let outcome = world.sweep_within(Duration::from_millis(millis)).await;
            assert_eq!(outcome, Outcome { postponed: 1, ..Outcome::default() });
            let find = || world.cloud.scan("OrdersTable").into_iter().find(|item| item["sk"]["S"] == "ORDER").unwrap();
            assert_eq!((&find()["failures"]["N"], &find()["wake"]["S"]), (&json!("0"), &json!("now")), "{millis}");
            assert_eq!(world.deliver_stream().await, 1);
            assert_eq!(find()["state"]["S"], "DONE");
        }
    }

    /// What comes right while the sweep stays is finished by it.
    #[tokio::test(start_paused = true)]
    async fn counts_what_it_finished_when_it_looked_again() {
        let world = confirmed(4).await;
        world.cloud.inject_fault("payments", HostFault::Down);
        let back = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            world.cloud.bring_back();
        };
        tokio::time::advance(Duration::from_secs(65)).await;
        let (outcome, ()) = tokio::join!(world.sweep(), back);
        assert_eq!(outcome, Outcome { finished: 4, ..Outcome::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn is_that_a_record_it_cannot_read_needs_a_person_at_once() {
        let world = confirmed(2).await;
        let mut item = world.cloud.scan("OrdersTable").into_iter().find(|item| item["sk"]["S"] == "ORDER").unwrap();
        item["state"] = json!({ "S": "CONFIRMED" });
        item["basket"] = json!({ "S": "of a later version" });
        world.cloud.put_item("OrdersTable", item);
        let outcome = minute_later(&world).await;
        assert_eq!(outcome, Outcome { finished: 1, postponed: 1, overdue: 1, ..Outcome::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn is_that_what_only_looks_like_an_order_needs_a_person_and_holds_up_nobody() {
        let world = confirmed(2).await;
        let stranger = json!({
            "pk": { "S": "ORDER#of-a-later-version" }, "sk": { "S": "ORDER" },
            "check_shard": { "S": "0" }, "next_check": { "N": "0" },
        });
        world.cloud.put_item("OrdersTable", stranger);
        assert_eq!(minute_later(&world).await, Outcome { finished: 2, overdue: 1, ..Outcome::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_out_what_is_at_an_end_already() {
        let world = confirmed(3).await;
        settle(&world).await;
        let orders = world.cloud.scan("OrdersTable").into_iter().filter(|item| item["sk"]["S"] == "ORDER");
        let ids = orders.map(|item| item["id"]["S"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(world.work(ids).await, Outcome { skipped: 3, ..Outcome::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn is_nothing_at_once_where_there_is_nothing_to_do() {
        let world = confirmed(0).await;
        let began = tokio::time::Instant::now();
        assert_eq!(world.sweep().await, Outcome::default());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// It looks again only where there is time for another round.
    #[tokio::test(start_paused = true)]
    async fn depends_on_how_long_it_may_stay() {
        for (seconds, finished, postponed) in [(20, 0, 2), (21, 2, 0)] {
            let world = confirmed(2).await;
            world.cloud.inject_fault("payments", HostFault::Down);
            let back = async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                world.cloud.bring_back();
            };
            tokio::time::advance(Duration::from_secs(65)).await;
            let (outcome, ()) = tokio::join!(world.sweep_within(Duration::from_secs(seconds)), back);
            assert_eq!(outcome, Outcome { finished, postponed, ..Outcome::default() }, "{seconds} s");
        }
    }

    /// Those that a sweep has no time for stay due.
    #[tokio::test(start_paused = true)]
    async fn is_what_it_left_for_lack_of_time() {
        let world = confirmed(3).await;
        tokio::time::advance(Duration::from_secs(65)).await;
        let outcome = world.sweep_within(Duration::from_millis(2_900)).await;
        assert_eq!(outcome, Outcome { skipped: 3, ..Outcome::default() });
        // That they wait for their turn for so long needs a person, too.
        tokio::time::advance(Duration::from_secs(15 * 60)).await;
        let outcome = world.sweep_within(Duration::from_millis(2_900)).await;
        assert_eq!(outcome, Outcome { skipped: 3, overdue: 3, ..Outcome::default() });
        assert_eq!(minute_later(&world).await, Outcome { finished: 3, overdue: 3, ..Outcome::default() });
        // Just enough is enough.
        let world = confirmed(3).await;
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(world.sweep_within(Duration::from_secs(3)).await, Outcome { finished: 3, ..Outcome::default() });
    }
}

/// As earlier versions took them, and as no queue does.
#[tokio::test(start_paused = true)]
async fn names_with_characters_that_are_forbidden_by_now_are_no_obstacle_to_an_order() {
    let world = in_test_time().await;
    let ada = world.customer("Ada").await;
    let teapot = product(&world, "19.99", 5).await;
    for (table, part) in [("UsersTable", "USER"), ("ProductsTable", "PRODUCT")] {
        let mut item = world.cloud.scan(table).into_iter().find(|item| item["sk"]["S"] == part).unwrap();
        let name = item["name"]["S"].as_str().unwrap();
        item["name"] = json!({ "S": format!("\u{200F}{name}\u{FFFF}") });
        world.cloud.put_item(table, item);
    }
    place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
    settle(&world).await;
    assert_eq!(world.deliver_messages().await, json!({ "batchItemFailures": [] }));
    let mails = world.cloud.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].to_string().contains("Hello Ada,"), "{}", mails[0]);
}

/// What stands behind all of it: an order moves from one state once.
#[tokio::test]
async fn an_order_that_has_moved_is_not_moved_again_from_where_it_was() {
    let world = World::start().await;
    let orders = DynamoRepository::new(world::table(world.cloud.clone(), "OrdersTable").await);
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let (customer, product_id) = (UserId::generate(), ProductId::generate());
    let line = Item { product_id, quantity: Quantity::try_from(1_u32).unwrap() };
    let basket = Basket::of([Some(line)]).unwrap();
    let contact = VerifiedContact::UNKNOWN;
    let purchase = Purchase { basket, shown: None, payment_method: None };
    let order = Order::place(customer, contact, purchase, 1, TraceContext::start(), now);
    assert!(matches!(orders.begin(&order, None, now).await.unwrap(), InsertOutcome::Inserted));
    let confirmed = order.clone().confirmed(now).unwrap();
    let cancelling = order.cancelling(Refusal::TimedOut, now).unwrap();
    assert_eq!(orders.transition(OrderState::Pending, &confirmed).await.unwrap(), SaveOutcome::Saved);
    assert_eq!(orders.transition(OrderState::Pending, &cancelling).await.unwrap(), SaveOutcome::Stale);
    // The SDK repeats a put whose answer was lost.
    assert_eq!(orders.transition(OrderState::Pending, &confirmed).await.unwrap(), SaveOutcome::Saved);
    assert_eq!(orders.find(confirmed.id).await.unwrap(), Some(confirmed));
}

mod reading {
    use super::*;

    #[tokio::test]
    async fn somebody_elses_order_is_not_found_but_an_administrator_reads_it() {
        let world = World::start().await;
        let (ada, mallory) = (world.customer("Ada").await, world.customer("Mallory").await);
        let teapot = product(&world, "19.99", 5).await;
        let placed =
            place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        let path = format!("/orders/{}", placed["id"].as_str().unwrap());
        world.get(&mallory, &path).await.expect_problem(404, "not_found");
        world.post(&mallory, &format!("{path}/cancel"), json!({})).await.expect_problem(404, "not_found");
        world.get(&Caller::anonymous(), &path).await.expect_problem(401, "unauthenticated");
        world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn ones_orders_are_listed_newest_first_page_by_page_and_by_status() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "1.00", 50).await;
        let mut placed = Vec::new();
        for n in 0..5 {
            let token = if n == 2 { "tok_declined" } else { "tok_accepted" };
            let answer = place(&world, &ada, basket(&[(&teapot, 1)], token), &format!("k{n}")).await.json();
            placed.insert(0, if n == 2 { answer["order_id"].clone() } else { answer["id"].clone() });
        }
        let ids = |page: &Value| page["items"].as_array().unwrap().iter().map(|o| o["id"].clone()).collect::<Vec<_>>();
        let mut listed = Vec::new();
        let mut path = "/orders?limit=2".to_owned();
        loop {
            let page = world.get(&ada, &path).await.expect(StatusCode::OK);
            listed.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/orders?limit=2&cursor={cursor}");
        }
        assert_eq!(listed, placed);
        let cancelled = world.get(&ada, "/orders?status=CANCELLED").await.expect(StatusCode::OK);
        assert_eq!(ids(&cancelled), [placed[2].clone()]);
        let bob = world.customer("Bob").await;
        assert_eq!(world.get(&bob, "/orders").await.expect(StatusCode::OK), json!({ "items": [] }));
    }

    #[tokio::test]
    async fn a_list_that_ends_with_its_page_has_no_next_one() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "1.00", 50).await;
        for n in 0..4 {
            let token = if n % 2 == 0 { "tok_declined" } else { "tok_accepted" };
            place(&world, &ada, basket(&[(&teapot, 1)], token), &format!("k{n}")).await;
        }
        for (query, listed, goes_on) in [
            ("limit=4", 4, false),
            ("limit=3", 3, true),
            ("status=CANCELLED&limit=2", 2, false),
            ("status=CANCELLED&limit=1", 1, true),
            ("status=DONE&limit=1", 0, false),
        ] {
            let page = world.get(&ada, &format!("/orders?{query}")).await.expect(StatusCode::OK);
            let found = (page["items"].as_array().unwrap().len(), page["next_cursor"].is_string());
            assert_eq!(found, (listed, goes_on), "{query}");
        }
    }

    /// DynamoDB ends a query after a megabyte, however few it has found.
    #[tokio::test]
    async fn a_page_is_whole_however_large_its_orders_are() {
        let world = World::start().await;
        let table = world::table(world.cloud.clone(), "OrdersTable").await;
        for n in 0..25 {
            let record =
                json!({ "pk": format!("ORDER#{n:02}"), "sk": "ORDER", "user_id": "u", "more": "x".repeat(100_000) });
            let put = table.put(&record).unwrap();
            assert_eq!(table.send(put).await.unwrap(), WriteOutcome::Written);
        }
        let (mut found, mut cursor, mut pages) = (Vec::new(), None::<Cursor>, 0);
        loop {
            let limit = "13".parse().unwrap();
            let (index, partition_attribute, partition) = ("by_user", "user_id", "u");
            let list =
                List { index, partition_attribute, partition, newest_first: false, limit, cursor: cursor.as_ref() };
            let page = table.list::<Key>(list).await.unwrap();
            pages += 1;
            found.extend(page.items.into_iter().map(|key| key.pk));
            let Some(next) = page.next_cursor else { break };
            cursor = Some(next.parse().unwrap());
        }
        assert_eq!((found, pages), ((0..25).map(|n| format!("ORDER#{n:02}")).collect(), 2));
    }

    #[tokio::test]
    async fn a_cursor_works_for_its_own_list_only() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = product(&world, "1.00", 50).await;
        for key in ["k1", "k2"] {
            place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), key).await.expect(StatusCode::CREATED);
        }
        let page = world.get(&ada, "/orders?limit=1").await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap();
        world.get(&bob, &format!("/orders?cursor={cursor}")).await.expect_problem(400, "invalid_cursor");
        world.get(&ada, &format!("/orders?status=DONE&cursor={cursor}")).await.expect_problem(400, "invalid_cursor");
        world.get(&ada, "/orders?cursor=AAAA").await.expect_problem(400, "invalid_cursor");
    }

    /// A cursor proves nothing: anybody can write one.
    #[tokio::test]
    async fn whatever_a_cursor_says_it_shows_nothing_of_others() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = product(&world, "1.00", 50).await;
        let theirs = place(&world, &bob, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.json();
        let theirs = format!("ORDER#{}", theirs["id"].as_str().unwrap());
        let forge = |position: &Value| chassis::page::encode(&format!("by_user/{}", ada.id()), position).unwrap();
        for position in [
            json!({}),
            json!({ "user_id": ada.id().to_string() }),
            json!({ "no": "such", "key": "at", "all": "!" }),
            json!({ "user_id": "", "pk": "", "sk": "" }),
            json!({ "user_id": ada.id().to_string(), "pk": theirs, "sk": "ORDER", "more": "than a key" }),
            json!({ "user_id": bob.id().to_string(), "pk": theirs, "sk": "ORDER" }),
        ] {
            let answer = world.get(&ada, &format!("/orders?cursor={}", forge(&position))).await;
            if answer.status == StatusCode::OK {
                assert_eq!(answer.json()["items"], json!([]), "{position}");
            } else {
                answer.expect_problem(400, "invalid_cursor");
            }
        }
    }

    #[tokio::test]
    async fn lists_of_others_are_for_administrators() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = product(&world, "1.00", 50).await;
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::CREATED);
        let path = format!("/orders?user_id={}", ada.id());
        world.get(&bob, &path).await.expect_problem(404, "not_found");
        let page = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
    }
}

mod bad_requests {
    use super::*;

    #[tokio::test]
    async fn name_every_bad_field_and_leave_no_order() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let id = "prod_0195a8e0-0000-7000-8000-000000000001";
        let line = |id: &str, quantity: Value| json!({ "product_id": id, "quantity": quantity });
        let cases = [
            (json!({ "items": [] }), vec!["items"]),
            (json!({ "items": vec![line(id, json!(1)); 51] }), vec!["items"]),
            (json!({ "items": [line("x", json!(0))] }), vec!["items[0].product_id", "items[0].quantity"]),
            (json!({ "items": [line(id, json!(600)), line(id, json!(600))] }), vec!["items[1].quantity"]),
            (json!({ "items": [line(id, json!(1.5))] }), vec!["items[0].quantity"]),
            (json!({ "items": [line(id, json!(-1))] }), vec!["items[0].quantity"]),
            (json!({ "items": [line(id, json!("1"))] }), vec!["items[0].quantity"]),
            (json!({ "items": [line(id, json!(1))], "payment_method": "tok with space" }), vec!["payment_method"]),
            (json!({ "items": [line(id, json!(1))], "user_id": Caller::named("Bob").id() }), vec!["user_id"]),
            (json!({ "items": [line(id, json!(1))], "discount": 0.01 }), vec!["discount"]),
            (json!({ "items": [{ "product_id": id, "quantity": 1, "price": 0.01 }] }), vec!["items[0].price"]),
            (json!({}), vec!["items"]),
            (
                json!({ "items": [line("x", json!("1")), {}, 7], "user_id": 1, "payment_method": "", "discount": 1 }),
                vec![
                    "user_id",
                    "items[0].product_id",
                    "items[0].quantity",
                    "items[1].product_id",
                    "items[1].quantity",
                    "items[2]",
                    "payment_method",
                    "discount",
                ],
            ),
        ];
        for (body, fields) in cases {
            place(&world, &ada, body, "k1").await.expect_bad_fields(&fields);
        }
        assert!(world.cloud.scan("OrdersTable").is_empty());
    }

    #[tokio::test]
    async fn with_a_bad_idempotency_key_are_refused() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "1.00", 5).await;
        let body = basket(&[(&teapot, 1)], "tok_accepted");
        for key in ["", "a b", "\"", &"k".repeat(256)] {
            place(&world, &ada, body.clone(), key).await.expect_bad_fields(&["Idempotency-Key"]);
        }
        let two = [("idempotency-key", "a"), ("idempotency-key", "b")];
        let answer = world.send_with(&ada, Method::POST, "/orders", Some(body), &two).await;
        answer.expect_bad_fields(&["Idempotency-Key"]);
    }

    #[tokio::test]
    async fn for_lists_are_refused() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        for (query, fields) in [
            ("limit=0", &["limit"][..]),
            ("limit=101", &["limit"]),
            ("limit=x", &["limit"]),
            ("status=LOST", &["status"]),
            ("status=done", &["status"]),
            ("unknown=1", &["unknown"]),
            ("user_id=1", &["user_id"]),
            ("limit=1&limit=2", &["limit"]),
            ("x=1&x=2&=3&%ff", &["x", "query", "\u{FFFD}"]),
            ("limit=0&status=X&user_id=ada&x=1&cursor=AAAA", &["user_id", "status", "limit", "x", "cursor"]),
        ] {
            world.get(&ada, &format!("/orders?{query}")).await.expect_bad_fields(fields);
        }
    }
}

mod how_a_customer_is_reached {
    use super::*;

    /// Whom the e-mails and text messages went to.
    fn told(world: &World) -> (Vec<String>, Vec<String>) {
        let to = |mail: &Value| mail["Destination"]["ToAddresses"][0].as_str().unwrap().to_owned();
        let texts = world.cloud.texts();
        (world.cloud.mails().iter().map(to).collect(), texts.iter().map(|text| text["PhoneNumber"].clone()).collect())
    }

    async fn tell(world: &World) {
        settle(world).await;
        world.deliver_messages().await;
    }

    #[tokio::test]
    async fn what_the_token_says_counts_and_not_what_the_profile_knew() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let moved =
            ada.with_later_token(60).with_claim("email", "b@example.com").with_claim("phone_number", "+15555550199");
        place(&world, &moved, basket(&[(&teapot, 1)], "tok_accepted"), "k").await.expect(StatusCode::CREATED);
        tell(&world).await;
        assert_eq!(told(&world), (vec!["b@example.com".into()], vec!["+15555550199".into()]));
    }

    #[tokio::test]
    async fn a_phone_number_that_was_verified_after_the_profile_was_made_gets_messages() {
        let world = World::start().await;
        let without = Caller::named("Ada").with_claim("phone_number_verified", "false");
        let profile = json!({ "name": "Ada", "email": without.email() });
        world.post(&without, "/users", profile).await.expect(StatusCode::CREATED);
        let teapot = product(&world, "19.99", 5).await;
        let with = without.with_later_token(60).with_claim("phone_number_verified", "true");
        place(&world, &with, basket(&[(&teapot, 1)], "tok_accepted"), "k").await.expect(StatusCode::CREATED);
        tell(&world).await;
        assert_eq!(told(&world).1, [with.phone()]);
    }

    #[tokio::test]
    async fn who_has_neither_address_nor_number_can_order_all_the_same() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let heir = Caller::named("Heir").with_later_token(60).with_claim("email", ada.email());
        let profile = json!({ "name": "Heir", "email": heir.email() });
        world.post(&heir, "/users", profile).await.expect(StatusCode::CREATED);
        let teapot = product(&world, "19.99", 5).await;
        let unreachable = ada
            .with_later_token(120)
            .with_claim("email_verified", "false")
            .with_claim("phone_number_verified", "false");
        let placed = place(&world, &unreachable, basket(&[(&teapot, 1)], "tok_accepted"), "k").await;
        let order = placed.expect(StatusCode::CREATED);
        tell(&world).await;
        assert_eq!(told(&world), (vec![], vec![]));
        assert!(world.cloud.dead_letters().is_empty());
        let path = format!("/orders/{}", order["id"].as_str().unwrap());
        assert_eq!(world.get(&unreachable, &path).await.expect(StatusCode::OK)["status"], "DONE");
    }

    #[tokio::test]
    async fn a_refusal_that_the_answer_told_is_told_by_no_message() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        for (n, (quantity, token)) in [(1, "tok_declined"), (9, "tok_accepted")].into_iter().enumerate() {
            let answer = place(&world, &ada, basket(&[(&teapot, quantity)], token), &format!("k{n}")).await;
            assert!(answer.status.is_client_error(), "{}", answer.text);
        }
        tell(&world).await;
        assert_eq!(told(&world), (vec![], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_after_an_answer_that_it_is_not_decided_is_told() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        world.cloud.take_down("payments.internal");
        let placed = place(&world, &ada, basket(&[(&teapot, 1)], "tok_declined"), "k").await;
        placed.expect(StatusCode::ACCEPTED);
        world.cloud.bring_back();
        tell(&world).await;
        assert_eq!(told(&world), (vec![ada.email().to_owned()], vec![ada.phone().to_owned()]));
        assert!(world.cloud.mails()[0].to_string().contains("The payment was declined."));
    }

    #[tokio::test]
    async fn an_order_that_goes_well_is_told_once_and_as_paid() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k").await.expect(StatusCode::CREATED);
        tell(&world).await;
        let mails = world.cloud.mails();
        assert_eq!((mails.len(), world.cloud.texts().len()), (1, 1));
        assert!(mails[0].to_string().contains("We have received your payment of 19.99 USD."), "{}", mails[0]);
    }

    #[tokio::test]
    async fn an_order_that_is_recalled_before_its_capture_never_hears_that_it_is_paid() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let placed = place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k").await;
        let id = placed.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
        world.send(&ada, Method::POST, &format!("/orders/{id}/cancel"), None).await.expect(StatusCode::OK);
        tell(&world).await;
        let mails = world.cloud.mails();
        assert_eq!(mails.len(), 2, "confirmed, and cancelled");
        assert!(!mails.iter().any(|mail| mail.to_string().contains("received your payment")), "{mails:?}");
    }

    #[tokio::test]
    async fn who_cancelled_an_order_is_told_truthfully_everywhere() {
        for (by_admin, reason, words) in [
            (false, "customer_request", "You asked us to cancel it."),
            (true, "cancelled_by_shop", "We had to cancel it."),
        ] {
            let world = World::start().await;
            let ada = world.customer("Ada").await;
            let teapot = product(&world, "19.99", 5).await;
            let placed = place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k").await;
            let id = placed.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
            tell(&world).await;
            let canceller = if by_admin { Caller::admin() } else { ada.clone() };
            world.send(&canceller, Method::POST, &format!("/orders/{id}/cancel"), None).await.expect(StatusCode::OK);
            tell(&world).await;
            let order = world.get(&ada, &format!("/orders/{id}")).await.expect(StatusCode::OK);
            assert_eq!(
                (&order["cancellation_reason"], &order["history"][3]["reason"]),
                (&json!(reason), &json!(reason))
            );
            let mails = world.cloud.mails();
            let told = mails.iter().filter(|mail| mail.to_string().contains("Your order is cancelled")).count();
            assert!(told == 1 && mails.iter().any(|mail| mail.to_string().contains(words)), "{mails:?}");
            assert!(world.cloud.texts().iter().any(|text| text["Message"].contains(words)));
        }
    }

    #[tokio::test]
    async fn after_erasure_an_old_order_is_cancelled_in_silence() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        let placed = place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k").await;
        let id = placed.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
        tell(&world).await;
        let before = told(&world);
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        world.deliver_messages().await;
        assert_eq!(world.deliver_user_events().await, 0);
        world.send(&Caller::admin(), Method::POST, &format!("/orders/{id}/cancel"), None).await.expect(StatusCode::OK);
        tell(&world).await;
        assert_eq!(told(&world), before);
        for table in ["OrdersTable", "PaymentsTable"] {
            let items = Value::from(world.cloud.scan(table)).to_string();
            for personal in [ada.email(), ada.phone(), "\"Ada\""] {
                assert!(!items.contains(personal), "{table}: {items}");
            }
        }
        assert_eq!(world.cloud.sent_messages().iter().filter(|event| event.contains("PaymentRefunded")).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_payment_of_an_order_that_is_still_open_is_erased_when_the_order_is_at_an_end() {
        let world = in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "19.99", 5).await;
        place(&world, &ada, basket(&[(&teapot, 1)], "tok_accepted"), "k").await.expect(StatusCode::CREATED);
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        let payments = || Value::from(world.cloud.scan("PaymentsTable")).to_string();
        assert_eq!(world.deliver_user_events().await, 1, "the order is open");
        assert!(payments().contains(ada.email()));
        settle(&world).await;
        assert_eq!(world.deliver_user_events().await, 0);
        assert!(!payments().contains(ada.email()));
        world.deliver_messages().await;
        assert_eq!(told(&world), (vec![], vec![]));
    }
}

mod shown_prices {
    use super::*;

    async fn shop() -> (World, Caller, String) {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = product(&world, "10.00", 5).await;
        (world, ada, teapot)
    }

    /// An order of two teapots with these members besides.
    fn shown(teapot: &str, line: Value, whole: Value) -> Value {
        let mut body = json!({ "items": [{ "product_id": teapot, "quantity": 2 }], "payment_method": "tok_accepted" });
        let with = |object: &mut Value, members: Value| {
            object.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        };
        with(&mut body["items"][0], line);
        with(&mut body, whole);
        body
    }

    async fn raise_the_price(world: &World, teapot: &str) {
        let change = json!({ "price": 999 });
        let path = format!("/products/{teapot}");
        let changed = world.send_with(&Caller::admin(), Method::PATCH, &path, Some(change), &[("if-match", "*")]).await;
        changed.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn that_still_hold_are_paid() {
        let (world, ada, teapot) = shop().await;
        for (n, (line, whole)) in
            [(json!({ "unit_price": 10 }), json!({})), (json!({}), json!({ "total": 20.0, "currency": "USD" }))]
                .into_iter()
                .enumerate()
        {
            let placed = place(&world, &ada, shown(&teapot, line, whole), &format!("k{n}")).await;
            assert_eq!(placed.expect(StatusCode::CREATED)["total"], 20.0);
        }
    }

    #[tokio::test]
    async fn that_have_changed_refuse_the_order_say_what_holds_and_keep_nothing() {
        let (world, ada, teapot) = shop().await;
        raise_the_price(&world, &teapot).await;
        for (n, (line, whole)) in [
            (json!({ "unit_price": 10 }), json!({})),
            (json!({}), json!({ "total": 20 })),
            (json!({ "unit_price": 999 }), json!({ "total": 20 })),
            (json!({ "unit_price": 999 }), json!({ "currency": "EUR" })),
            (json!({}), json!({ "currency": "EUR" })),
        ]
        .into_iter()
        .enumerate()
        {
            let (body, key) = (shown(&teapot, line, whole), format!("k{n}"));
            let problem = place(&world, &ada, body.clone(), &key).await.expect_problem(409, "price_changed");
            assert_eq!(problem["prices"], json!([{ "product_id": teapot, "unit_price": 999.0 }]));
            assert_eq!((&problem["total"], &problem["currency"]), (&json!(1998.0), &json!("USD")));
            let order = order(&world, &ada, &problem["order_id"]).await;
            assert_eq!(
                (&order["status"], &order["cancellation_reason"]),
                (&json!("CANCELLED"), &json!("price_changed"))
            );
            // The same request again has the same answer.
            assert_eq!(place(&world, &ada, body, &key).await.json(), problem);
        }
        assert_eq!(stock(&world, &teapot).await, 5);
        settle(&world).await;
        world.deliver_messages().await;
        assert!(world.cloud.mails().is_empty(), "the customer was told in the answer");
    }

    #[tokio::test]
    async fn that_nobody_was_shown_are_whatever_holds() {
        let (world, ada, teapot) = shop().await;
        raise_the_price(&world, &teapot).await;
        let placed = place(&world, &ada, shown(&teapot, json!({}), json!({})), "k").await;
        assert_eq!(placed.expect(StatusCode::CREATED)["total"], 1998.0);
    }

    #[tokio::test]
    async fn are_part_of_what_a_key_stands_for() {
        let (world, ada, teapot) = shop().await;
        let without = shown(&teapot, json!({}), json!({}));
        place(&world, &ada, without.clone(), "k").await.expect(StatusCode::CREATED);
        for (line, whole) in [
            (json!({ "unit_price": 10 }), json!({})),
            (json!({}), json!({ "total": 20 })),
            (json!({}), json!({ "currency": "USD" })),
        ] {
            let other = shown(&teapot, line, whole);
            place(&world, &ada, other, "k").await.expect_problem(422, "idempotency_mismatch");
        }
        place(&world, &ada, without, "k").await.expect(StatusCode::CREATED);
    }

    #[tokio::test]
    async fn that_cannot_be_read_are_named_with_everything_else() {
        let (world, ada, teapot) = shop().await;
        let line = |price: Value| json!({ "product_id": teapot, "quantity": 1, "unit_price": price });
        let body = json!({ "items": [line(json!("10")), line(json!(10.001)), line(json!(-1))], "total": "20" });
        let answer = place(&world, &ada, body, "k").await;
        answer.expect_bad_fields(&["items[0].unit_price", "items[1].unit_price", "items[2].unit_price", "total"]);
        let body = json!({ "items": [line(json!(10)), line(json!(11))] });
        place(&world, &ada, body, "k").await.expect_bad_fields(&["items[1].unit_price"]);
        let body = json!({ "items": [line(json!(10.5))], "total": 10.5, "currency": "JPY" });
        place(&world, &ada, body, "k").await.expect_bad_fields(&["total", "items[0].unit_price"]);
    }
}
