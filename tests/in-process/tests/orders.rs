//! Tests of the orders service: placing an order, repeating the request,
//! reading and cancelling orders, the worker, and notifying the customer.

use std::time::Duration;

use chassis::{
    clock::Clock,
    contact::VerifiedContact,
    dynamo::{Key, List, WriteOutcome},
    id::UserId,
    idempotency::InsertOutcome,
    page::Cursor,
    store::SaveOutcome,
    time_limits::{DECIDE_WITHIN, ORDER_LEASE},
    trace::TraceContext,
};
use http::{Method, StatusCode};
use in_process_tests::{
    Caller, World,
    cloud::HostFault,
    fault::{FaultKind, FaultPlan},
    shop::{order_id, order_request, statuses},
    world::{self, CANCELLATION_WINDOW},
};
use jiff::Timestamp;
use orders::{
    domain::{CancellationReason, Order, OrderId, OrderLine, OrderLines, OrderState, ProductId, Purchase, Quantity},
    repository::{Repository, dynamo::DynamoRepository},
    worker::WorkSummary,
};
use serde_json::{Value, json};

mod an_accepted_order {
    use super::*;

    #[tokio::test]
    async fn is_confirmed_in_the_request_with_exact_prices_and_finished_by_the_worker() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 10).await;
        let answer = world.place(&ada, order_request(&[(&teapot, 3)], "tok_accepted"), "k1").await;
        let placed = answer.expect(StatusCode::CREATED);
        assert_eq!(placed["status"], "CONFIRMED");
        assert!(answer.text.contains("\"total\":59.97"), "{}", answer.text);
        assert!(answer.text.contains("\"unit_price\":19.99"), "{}", answer.text);
        assert_eq!(placed["currency"], "USD");
        assert_eq!(answer.header("location"), Some(format!("orders/{}", placed["id"].as_str().unwrap()).as_str()));
        assert_eq!(world.stock(&teapot).await, 7);

        world.settle().await;
        let done = world.order(&ada, &placed["id"]).await;
        assert_eq!(statuses(&done), ["PENDING", "CONFIRMED", "DONE"]);
        let payment = world.get(&ada, &format!("/payments/{}", done["payment_id"].as_str().unwrap())).await;
        assert_eq!(payment.expect(StatusCode::OK)["status"], "CAPTURED");
        assert!(payment.text.contains("\"amount\":59.97"), "{}", payment.text);
    }

    #[tokio::test]
    async fn publishes_events_with_recipient_lines_and_total() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 10).await;
        world.confirmed_order(&ada, &[(&teapot, 3)], "k1").await;
        world.settle().await;
        let events = world.take_events();
        let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["PaymentCaptured", "OrderCreated"]);
        let created = &events[1];
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
        let teapot = world.product("0.10", 10).await;
        let body = order_request(&[(&teapot, 1), (&teapot, 2)], "tok_accepted");
        let placed = world.place(&ada, body, "k1").await.expect(StatusCode::CREATED);
        assert_eq!(placed["items"].as_array().unwrap().len(), 1);
        assert_eq!(placed["items"][0]["quantity"], 3);
        assert_eq!(placed["total"], json!(0.30));
    }

    #[tokio::test]
    async fn stores_no_payment_token_once_it_is_decided() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 10).await;
        for (key, token) in [("k1", "tok_accepted"), ("k2", "tok_declined")] {
            world.place(&ada, order_request(&[(&teapot, 1)], token), key).await;
        }
        for table in ["OrdersTable", "PaymentsTable"] {
            let stored = serde_json::to_string(&world.cloud.scan(table)).unwrap();
            assert!(!stored.contains("tok_"), "{table}: {stored}");
        }
    }

    #[tokio::test]
    async fn needs_no_payment_method() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 10).await;
        let body = json!({ "user_id": ada.id(), "items": [{ "product_id": teapot, "quantity": 1 }] });
        assert_eq!(world.post(&ada, "/orders", body).await.expect(StatusCode::CREATED)["status"], "CONFIRMED");
    }

    #[tokio::test]
    async fn is_confirmed_although_the_provider_fails_once() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let placed = world.place(&ada, order_request(&[(&teapot, 1)], "tok_flaky"), "k1").await;
        assert_eq!(placed.expect(StatusCode::CREATED)["status"], "CONFIRMED");
        world.settle().await;
        assert_eq!(world.cloud.scan("SandboxLedgerTable").len(), 1);
    }
}

mod a_refused_order {
    use super::*;

    /// Places an order. Asserts that the order is refused with the problem
    /// `code`, cancelled for the same reason, and reported by one event.
    /// Returns the problem document.
    async fn refused(world: &World, caller: &Caller, body: Value, status: u16, code: &str) -> Value {
        let problem = world.place(caller, body, "k1").await.expect_problem(status, code);
        world.settle().await;
        let order = world.order(caller, &problem["order_id"]).await;
        assert_eq!(statuses(&order), ["PENDING", "CANCELLING", "CANCELLED"]);
        assert_eq!(order["cancellation_reason"], code);
        // No event is published for a customer without an active profile,
        // because nobody can be notified.
        let events = if code.starts_with("user_") { vec![] } else { vec!["OrderCancelled"] };
        assert_eq!(world.take_event_types(), events);
        problem
    }

    #[tokio::test]
    async fn with_a_declined_card_releases_its_stock_within_the_request() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 1).await;
        let answer = world.place(&ada, order_request(&[(&teapot, 1)], "tok_declined"), "k1").await;
        let problem = answer.expect_problem(402, "payment_declined");
        assert_eq!(problem["reason"], "card_declined");
        assert_eq!(world.order(&ada, &problem["order_id"]).await["status"], "CANCELLED");
        world.confirmed_order(&ada, &[(&teapot, 1)], "k2").await;
    }

    #[tokio::test]
    async fn that_exceeds_the_stock_names_each_line_with_requested_and_available_quantity() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let (few, many) = (world.product("1.00", 2).await, world.product("1.00", 100).await);
        let body = order_request(&[(&few, 3), (&many, 3)], "tok_accepted");
        let problem = refused(&world, &ada, body, 409, "out_of_stock").await;
        assert_eq!(problem["lines"], json!([{ "product_id": few, "requested": 3, "available": 2 }]));
        assert_eq!((world.stock(&few).await, world.stock(&many).await), (2, 100));
    }

    #[tokio::test]
    async fn with_an_unknown_product_names_the_product() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let unknown = "prod_0195a8e0-0000-7000-8000-000000000001";
        let body = order_request(&[(unknown, 1)], "tok_accepted");
        let problem = refused(&world, &ada, body, 422, "unknown_product").await;
        assert_eq!(problem["products"], json!([unknown]));
    }

    #[tokio::test]
    async fn with_insufficient_funds_names_the_reason() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let body = order_request(&[(&teapot, 5)], "tok_insufficient_funds");
        let problem = refused(&world, &ada, body, 402, "payment_declined").await;
        assert_eq!(problem["reason"], "insufficient_funds");
        assert_eq!(world.stock(&teapot).await, 5);
    }

    #[tokio::test]
    async fn of_a_customer_without_a_profile_reserves_nothing() {
        let world = World::start().await;
        let teapot = world.product("1.00", 5).await;
        let stranger = Caller::named("Stranger");
        refused(&world, &stranger, order_request(&[(&teapot, 1)], "tok_accepted"), 422, "user_not_found").await;
        assert_eq!(world.stock(&teapot).await, 5);
    }

    #[tokio::test]
    async fn of_an_erased_customer_names_the_reason() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 5).await;
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(world.take_event_types(), ["UserErased"]);
        refused(&world, &ada, order_request(&[(&teapot, 1)], "tok_accepted"), 422, "user_inactive").await;
    }

    #[tokio::test]
    async fn with_two_currencies_names_the_reason() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let dollars = world.product("1.00", 5).await;
        let body = json!({ "name": "Tasse", "description": "Klein.", "price": 2.5, "currency": "EUR", "stock": 5 });
        let euros = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        let euros = euros["id"].as_str().unwrap();
        let body = order_request(&[(&dollars, 1), (euros, 1)], "tok_accepted");
        refused(&world, &ada, body, 422, "mixed_currencies").await;
    }

    #[tokio::test]
    async fn whose_capture_is_refused_is_cancelled_after_its_confirmation() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let body = order_request(&[(&teapot, 1)], "tok_capture_refused");
        let placed = world.place(&ada, body.clone(), "k1").await.expect(StatusCode::CREATED);
        world.settle().await;
        let order = world.order(&ada, &placed["id"]).await;
        assert_eq!(statuses(&order), ["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]);
        assert_eq!(order["cancellation_reason"], "capture_refused");
        assert_eq!(world.take_event_types(), ["OrderCreated", "OrderCancelled"]);
        assert_eq!(world.stock(&teapot).await, 5);
        // A repeated request still gets the response of the first request.
        assert_eq!(world.place(&ada, body, "k1").await.expect(StatusCode::CREATED), placed);
    }
}

mod a_repeated_request {
    use super::*;

    /// If a request has two values of one header, the gateway of a REST API
    /// passes on a list of both values, and the gateway of an HTTP API joins
    /// the values with a comma.
    #[tokio::test]
    async fn with_two_idempotency_keys_is_refused_behind_each_gateway() {
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
    async fn gets_the_same_response_after_the_order_has_changed() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        for (key, token) in [("k1", "tok_accepted"), ("k2", "tok_declined")] {
            let first = world.place(&ada, order_request(&[(&teapot, 1)], token), key).await;
            world.settle().await;
            let again = world.place(&ada, order_request(&[(&teapot, 1)], token), key).await;
            assert_eq!((first.status, &first.text), (again.status, &again.text));
            for header in ["content-type", "location"] {
                assert_eq!(first.header(header), again.header(header));
            }
        }
        assert_eq!(world.stock(&teapot).await, 4);
    }

    /// The order does not store the bytes of a confirmation, but writes them
    /// again from what it was when it was confirmed.
    #[tokio::test]
    async fn gets_the_same_confirmation_after_each_later_change_of_the_order() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let first = world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "k1").await;
        let confirmed = first.expect(StatusCode::CREATED);
        assert_eq!(
            (&confirmed["status"], &statuses(&confirmed)[..]),
            (&json!("CONFIRMED"), &["PENDING", "CONFIRMED"][..])
        );
        let change = |change: usize| {
            let (world, ada, confirmed) = (&world, &ada, &confirmed);
            async move {
                match change {
                    0 => world.settle().await,
                    1 => {
                        let renamed = json!({ "name": "Kettle", "price": 25 });
                        let path = format!("/products/{}", confirmed["items"][0]["product_id"].as_str().unwrap());
                        let any = [("if-match", "*")];
                        world.send_with(&Caller::admin(), Method::PATCH, &path, Some(renamed), &any).await;
                    }
                    2 => drop(world.cancel(ada, confirmed).await.expect(StatusCode::OK)),
                    _ => {
                        world.delete(ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
                        world.deliver_user_events().await;
                    }
                }
            }
        };
        for number in 0..4 {
            change(number).await;
            let again = world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "k1").await;
            assert_eq!((first.status, &first.text), (again.status, &again.text), "after change {number}");
        }
        assert_eq!(world.order(&Caller::admin(), &confirmed["id"]).await["status"], "CANCELLED");
    }

    /// A later version of the code that was rolled back may have confirmed an
    /// order with other bytes.
    #[tokio::test]
    async fn gets_no_other_confirmation_if_the_version_of_the_first_one_is_unknown() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        let mut item = world.stored_order();
        item["answer"]["M"]["version"]["N"] = "2".into();
        world.cloud.put_item("OrdersTable", item);
        let again = world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "k1").await;
        again.expect_problem(503, "unavailable");
    }

    /// The items of a transaction become visible one after another. Therefore a
    /// repeated request may find the item of the idempotency key before the
    /// item of the order.
    #[tokio::test(start_paused = true)]
    async fn waits_while_the_order_of_the_first_request_is_being_committed() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let again = async || world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "k1").await;
        let first = again().await;
        let id = first.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
        world.cloud.delay_commit(&format!("ORDER#{id}"), Duration::from_millis(100));
        assert_eq!(again().await.text, first.text);
        world.cloud.delay_commit(&format!("ORDER#{id}"), Duration::from_secs(60));
        again().await.expect_problem(409, "idempotency_in_flight");
    }

    #[tokio::test]
    async fn matches_the_first_with_a_quoted_key_and_reordered_lines() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let (a, b) = (world.product("1.00", 5).await, world.product("2.00", 5).await);
        let first = world.place(&ada, order_request(&[(&a, 1), (&b, 1)], "tok_accepted"), "k1").await;
        let again = world.place(&ada, order_request(&[(&b, 1), (&a, 1)], "tok_accepted"), "\"k1\"").await;
        assert_eq!(first.expect(StatusCode::CREATED)["id"], again.expect(StatusCode::CREATED)["id"]);
    }

    #[tokio::test(start_paused = true)]
    async fn is_recognised_for_seven_days() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let body = order_request(&[(&teapot, 1)], "tok_accepted");
        let first = world.place(&ada, body.clone(), "k1").await;
        world.settle().await;
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        tokio::time::advance(week - Duration::from_secs(60)).await;
        let again = world.place(&ada, body.clone(), "k1").await;
        assert_eq!((again.status, again.text), (first.status, first.text.clone()));
        // The item of the idempotency key has now expired, but is still stored:
        // DynamoDB may delete an expired item days later.
        tokio::time::advance(Duration::from_secs(120)).await;
        let another = world.place(&ada, body, "k1").await.expect(StatusCode::CREATED);
        assert_ne!(another["id"], first.json()["id"]);
        assert_eq!(world.stock(&teapot).await, 3);
    }

    #[tokio::test]
    async fn with_another_body_is_a_mismatch_and_changes_nothing() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        let other = world.place(&ada, order_request(&[(&teapot, 2)], "tok_accepted"), "k1").await;
        other.expect_problem(422, "idempotency_mismatch");
        assert_eq!(world.stock(&teapot).await, 4);
    }

    #[tokio::test]
    async fn of_another_customer_with_the_same_key_is_a_new_request() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = world.product("19.99", 5).await;
        let one = world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        let two = world.confirmed_order(&bob, &[(&teapot, 1)], "k1").await;
        assert_ne!(one["id"], two["id"]);
    }

    #[tokio::test]
    async fn without_a_key_places_a_second_order() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let body = order_request(&[(&teapot, 1)], "tok_accepted");
        let one = world.post(&ada, "/orders", body.clone()).await.expect(StatusCode::CREATED);
        let two = world.post(&ada, "/orders", body).await.expect(StatusCode::CREATED);
        assert_ne!(one["id"], two["id"]);
    }

    #[tokio::test(start_paused = true)]
    async fn is_answered_as_in_flight_while_the_first_is_running() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let body = order_request(&[(&teapot, 1)], "tok_slow");
        let (first, second) = tokio::join!(world.place(&ada, body.clone(), "k1"), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            world.place(&ada, body.clone(), "k1").await
        });
        first.expect(StatusCode::CREATED);
        second.expect_problem(409, "idempotency_in_flight");
        assert_eq!(second.header("retry-after"), Some("1"));
    }
}

mod an_order_that_the_request_cannot_decide {
    use super::*;

    #[tokio::test]
    async fn is_answered_as_pending_and_decided_by_the_worker() {
        for down in ["users", "products", "payments"] {
            let world = World::start().await;
            let ada = world.customer("Ada").await;
            let teapot = world.product("19.99", 5).await;
            world.cloud.take_down(down);
            let body = order_request(&[(&teapot, 1)], "tok_accepted");
            let answer = world.place(&ada, body.clone(), "k1").await;
            let pending = answer.expect(StatusCode::ACCEPTED);
            assert_eq!(pending["status"], "PENDING", "{down}");
            assert_eq!(answer.header("location"), Some(format!("orders/{}", pending["id"].as_str().unwrap()).as_str()));
            // A repeated request returns the same order while the order is
            // undecided.
            assert_eq!(world.place(&ada, body.clone(), "k1").await.expect(StatusCode::ACCEPTED)["id"], pending["id"]);

            world.cloud.bring_back();
            world.settle().await;
            assert_eq!(world.order(&ada, &pending["id"]).await["status"], "DONE", "{down}");
            let replay = world.place(&ada, body, "k1").await.expect(StatusCode::CREATED);
            assert_eq!((&replay["id"], &replay["status"]), (&pending["id"], &json!("CONFIRMED")), "{down}");
            assert_eq!(world.stock(&teapot).await, 4, "{down}");
        }
    }
}

mod cancelling {
    use super::*;

    /// A customer, a product with a stock of five, and the customer's confirmed
    /// order for a quantity of two.
    async fn ordered(world: &World) -> (Caller, String, Value) {
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let placed = world.place(&ada, order_request(&[(&teapot, 2)], "tok_accepted"), "k1").await;
        (ada, teapot, placed.expect(StatusCode::CREATED))
    }

    #[tokio::test]
    async fn a_finished_order_refunds_the_payment_and_releases_the_stock() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        world.settle().await;
        let cancelled = world.cancel(&ada, &placed).await.expect(StatusCode::OK);
        assert_eq!(statuses(&cancelled), ["PENDING", "CONFIRMED", "DONE", "CANCELLING", "CANCELLED"]);
        assert_eq!(world.stock(&teapot).await, 5);
        assert_eq!(world.take_event_types(), ["PaymentCaptured", "OrderCreated", "PaymentRefunded", "OrderCancelled"]);
        let payment = world.get(&ada, &format!("/payments/{}", cancelled["payment_id"].as_str().unwrap())).await;
        assert_eq!(payment.expect(StatusCode::OK)["status"], "REFUNDED");
        // A second cancellation changes nothing.
        world.cancel(&ada, &placed).await.expect(StatusCode::OK);
        assert_eq!(world.take_event_types(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_confirmed_order_voids_the_payment_before_its_capture() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        let cancelled = world.cancel(&ada, &placed).await.expect(StatusCode::OK);
        assert_eq!(statuses(&cancelled), ["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]);
        assert_eq!(cancelled["cancellation_reason"], "customer_request");
        assert_eq!(world.take_event_types(), ["OrderCreated", "OrderCancelled"]);
        world.settle().await;
        assert_eq!(world.order(&ada, &placed["id"]).await["status"], "CANCELLED");
        assert_eq!(world.stock(&teapot).await, 5);
    }

    #[tokio::test]
    async fn an_undecided_order_makes_a_repeated_request_fail_with_order_cancelled() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.cloud.take_down("payments");
        let body = order_request(&[(&teapot, 1)], "tok_accepted");
        let pending = world.place(&ada, body.clone(), "k1").await.expect(StatusCode::ACCEPTED);
        world.cloud.bring_back();
        world.cancel(&ada, &pending).await.expect(StatusCode::OK);
        let answer = world.place(&ada, body, "k1").await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert_eq!(answer.json()["code"], "order_cancelled");
        assert_eq!(world.stock(&teapot).await, 5);
    }

    #[tokio::test]
    async fn continues_after_the_response_to_its_write_was_lost() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        // Call 0 reads the order, call 1 stores the cancellation.
        world.cloud.begin_trial(FaultPlan::none().and(1, FaultKind::ResponseLost));
        let cancelled = world.cancel(&ada, &placed).await.expect(StatusCode::OK);
        let points = world.cloud.end_trial();
        assert_eq!(points[1].label, "orders → PutItem OrdersTable");
        assert_eq!(cancelled["status"], "CANCELLED");
        assert_eq!(world.stock(&teapot).await, 5);
    }

    /// The request that cancels the order also compensates the order. The
    /// request that placed the order does not compensate it again, but only
    /// reports the cancellation.
    #[tokio::test(start_paused = true)]
    async fn an_order_while_it_is_being_placed_compensates_the_order_only_once() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.cloud.begin_trial(FaultPlan::none());
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            // The products service is now so slow that the request that placed
            // the order is answered before the request that cancels the order.
            world.cloud.inject_fault("products.internal", HostFault::Slow(Duration::from_millis(1900)));
            let orders = world.get(&ada, "/orders").await.expect(StatusCode::OK);
            world.cancel(&ada, &orders["items"][0]).await.expect(StatusCode::OK)
        };
        let (placed, cancelled) =
            tokio::join!(world.place(&ada, order_request(&[(&teapot, 2)], "tok_slow"), "k1"), cancelling);
        assert_eq!(placed.expect(StatusCode::CONFLICT)["code"], "order_cancelled");
        assert_eq!(cancelled["status"], "CANCELLED");
        let points = world.cloud.end_trial();
        let compensations =
            |what: &str| points.iter().filter(|point| point.label == format!("orders → POST {what}")).count();
        assert_eq!((compensations("products release"), compensations("payments cancel")), (1, 1));
    }

    #[tokio::test]
    async fn is_answered_with_202_while_a_service_is_down_and_finished_by_the_worker() {
        let world = World::start().await;
        let (ada, teapot, placed) = ordered(&world).await;
        world.settle().await;
        world.cloud.take_down("products");
        assert_eq!(world.cancel(&ada, &placed).await.expect(StatusCode::ACCEPTED)["status"], "CANCELLING");
        world.cloud.bring_back();
        world.settle().await;
        assert_eq!(world.order(&ada, &placed["id"]).await["status"], "CANCELLED");
        assert_eq!(world.stock(&teapot).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn is_refused_after_the_cancellation_window() {
        let world = World::start_in_test_time().await;
        let (ada, teapot, placed) = ordered(&world).await;
        world.settle().await;
        let last = world.confirmed_order(&ada, &[(&teapot, 1)], "k2").await;
        world.settle().await;
        tokio::time::advance(CANCELLATION_WINDOW).await;
        // At the end of the window, cancelling is still possible.
        world.cancel(&ada, &last).await.expect(StatusCode::OK);
        tokio::time::advance(Duration::from_millis(1)).await;
        world.cancel(&ada, &placed).await.expect_problem(409, "cancellation_closed");
        assert_eq!(world.stock(&teapot).await, 3);
    }
}

mod the_worker {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cancels_an_order_that_is_undecided_for_too_long() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.cloud.take_down("payments");
        let body = order_request(&[(&teapot, 1)], "tok_accepted");
        let pending = world.place(&ada, body.clone(), "k1").await.expect(StatusCode::ACCEPTED);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(60)).await;
            world.sweep().await;
        }
        assert_eq!(world.order(&ada, &pending["id"]).await["status"], "CANCELLING");
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(600)).await;
        world.sweep().await;
        assert_eq!(world.order(&ada, &pending["id"]).await["status"], "CANCELLED");
        let answer = world.place(&ada, body, "k1").await;
        assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::CONFLICT, &json!("order_timed_out")));
        assert_eq!(world.stock(&teapot).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_an_undecided_order_again_before_its_decision_deadline() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.cloud.take_down("payments");
        world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "k1").await.expect(StatusCode::ACCEPTED);
        for _ in 0..12 {
            let order = world.stored_order();
            assert_eq!(order["state"]["S"], "PENDING");
            let placed = &order["history"]["L"][0]["M"]["at"]["S"];
            let created: Timestamp = placed.as_str().unwrap().parse().unwrap();
            let next: i64 = order["next_check"]["N"].as_str().unwrap().parse().unwrap();
            assert!(next <= (created + DECIDE_WITHIN).as_millisecond(), "{order}");
            tokio::time::advance(Duration::from_secs(9)).await;
            // In 19 seconds, a sweep has no time for a second pass.
            world.sweep_within(Duration::from_secs(19)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn never_gives_up_an_order_and_reports_it_as_overdue() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let placed = world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        world.cloud.take_down("payments");
        let began = tokio::time::Instant::now();
        for _ in 0..40 {
            tokio::time::advance(Duration::from_secs(60)).await;
            // The order's age is measured before the sweep, because the sweep
            // itself takes time: it makes several passes.
            let open = began.elapsed();
            let outcome = world.sweep().await;
            assert_eq!(outcome.finished, 0);
            let late = open > Duration::from_secs(15 * 60);
            assert_eq!(outcome.overdue, if late { outcome.postponed } else { 0 }, "open for {open:?}");
        }
        assert_eq!(world.order(&ada, &placed["id"]).await["status"], "CONFIRMED");
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(600)).await;
        world.sweep().await;
        assert_eq!(world.order(&ada, &placed["id"]).await["status"], "DONE");
    }

    #[tokio::test(start_paused = true)]
    async fn postpones_a_failed_order_by_a_pause_that_doubles() {
        let clock = Clock::tokio(Timestamp::now());
        let world = World::start_at(clock.clone()).await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        world.cloud.take_down("payments");
        // The sweep finds an order that the stream has not delivered only after
        // the time of the request's lease.
        tokio::time::advance(ORDER_LEASE).await;
        for failures in 0..5 {
            // In 19 seconds, a sweep has no time for a second pass.
            let outcome = world.sweep_within(Duration::from_secs(19)).await;
            assert_eq!(outcome.postponed, 1);
            let order = world.stored_order();
            let next: i64 = order["next_check"]["N"].as_str().unwrap().parse().unwrap();
            let pause = u64::try_from(next - clock.now().as_millisecond()).unwrap();
            let whole = 2_000 * 2_u64.pow(failures);
            assert!((whole * 3 / 4..=whole).contains(&pause), "{pause} ms after {failures} failures");
            assert_eq!(world.sweep_within(Duration::from_secs(19)).await, WorkSummary::default());
            tokio::time::advance(Duration::from_millis(pause)).await;
        }
    }

    /// The confirmation gives the lease to the worker that it wakes. When that
    /// worker postpones the order, the order must not wake a worker again.
    #[tokio::test(start_paused = true)]
    async fn is_not_woken_again_by_an_order_that_it_postpones() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        assert_eq!(world.sweep().await, WorkSummary::default());
        world.cloud.take_down("payments");
        assert_eq!(world.deliver_stream().await, 1);
        assert_eq!(world.stored_order()["failures"]["N"], "1");
        assert_eq!(world.deliver_stream().await, 0);
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(world.sweep().await, WorkSummary { finished: 1, ..WorkSummary::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn continues_the_order_of_a_crashed_request_after_its_lease_has_expired() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let body = order_request(&[(&teapot, 1)], "tok_slow");
        let killed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.cloud.kill_all();
        };
        let (answer, ()) = tokio::join!(world.place(&ada, body.clone(), "k1"), killed);
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(world.deliver_stream().await, 0, "the stream does not wake the worker for a leased order");
        assert_eq!(world.sweep().await.finished, 0, "the sweep does not process an order whose lease has not expired");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(world.sweep().await.finished, 1);
        let replay = world.place(&ada, body, "k1").await.expect(StatusCode::CREATED);
        assert_eq!(world.order(&ada, &replay["id"]).await["status"], "DONE");
        assert_eq!(world.stock(&teapot).await, 4);
    }
}

mod the_workers_summary {
    use super::*;

    /// A world with `count` confirmed orders that the worker has not processed,
    /// and that a sweep now finds.
    async fn confirmed(count: usize) -> World {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 100).await;
        for n in 0..count {
            let body = order_request(&[(&teapot, 1)], "tok_accepted");
            world.place(&ada, body, &format!("k{n}")).await.expect(StatusCode::CREATED);
        }
        tokio::time::advance(ORDER_LEASE).await;
        world
    }

    async fn sweep_a_minute_later(world: &World) -> WorkSummary {
        tokio::time::advance(Duration::from_secs(65)).await;
        world.sweep().await
    }

    #[tokio::test(start_paused = true)]
    async fn counts_finished_postponed_and_overdue_orders() {
        let world = confirmed(3).await;
        world.cloud.inject_fault("payments", HostFault::Down);
        assert_eq!(sweep_a_minute_later(&world).await, WorkSummary { postponed: 3, ..WorkSummary::default() });
        tokio::time::advance(Duration::from_secs(16 * 60)).await;
        assert_eq!(
            sweep_a_minute_later(&world).await,
            WorkSummary { postponed: 3, overdue: 3, ..WorkSummary::default() }
        );
        world.cloud.bring_back();
        tokio::time::advance(Duration::from_secs(10 * 60)).await;
        // The orders were open for half an hour. The worker reports the orders
        // as overdue although it has now finished them.
        assert_eq!(
            sweep_a_minute_later(&world).await,
            WorkSummary { finished: 3, overdue: 3, ..WorkSummary::default() }
        );
        assert_eq!(sweep_a_minute_later(&world).await, WorkSummary::default());
    }

    /// While a service is down, more orders can become due than one pass of a
    /// sweep reads from a shard.
    #[tokio::test(start_paused = true)]
    async fn covers_every_due_order_of_a_shard() {
        const MANY: u64 = 120;
        let world = confirmed(1).await;
        let mut item = world.stored_orders().remove(0);
        let like = OrderId::generate().uuid();
        for n in 0..MANY {
            let mut bytes = *like.as_bytes();
            (bytes[14], bytes[15]) = (n as u8, 0);
            let id = format!("ord_{}", uuid::Uuid::from_bytes(bytes));
            item["pk"] = json!({ "S": format!("ORDER#{id}") });
            item["check_shard"] = json!({ "S": "0" });
            item["state"] = json!({ "S": "CANCELLING" });
            item["cancellation_reason"] = json!({ "M": { "code": { "S": "timed_out" } } });
            world.cloud.put_item("OrdersTable", item.clone());
        }
        let began = tokio::time::Instant::now();
        assert_eq!(world.sweep().await, WorkSummary { finished: MANY + 1, ..WorkSummary::default() });
        assert!(began.elapsed() < Duration::from_secs(5), "the sweep paused between its passes: {:?}", began.elapsed());
    }

    /// If the end of an invocation interrupts an order, the next invocation
    /// continues the order at once. The interruption is not counted as a
    /// failure, because a failure would postpone the order by a pause.
    #[tokio::test(start_paused = true)]
    async fn counts_an_order_that_the_end_of_the_invocation_interrupts_as_postponed() {
        // Each call of the worker takes one second. 4,250 ms are enough to find
        // and lease the order, but not to capture the payment. 4,750 ms are
        // enough to capture the payment, but not to publish the event.
        for millis in [4_250, 4_750] {
            let world = confirmed(1).await;
            world.cloud.set_latency("order-worker", Duration::from_secs(1));
            let outcome = world.sweep_within(Duration::from_millis(millis)).await;
            assert_eq!(outcome, WorkSummary { postponed: 1, ..WorkSummary::default() });
            let find = || world.stored_orders().remove(0);
            assert_eq!((&find()["failures"], &find()["wake"]["S"]), (&Value::Null, &json!("now")), "{millis}");
            assert_eq!(world.deliver_stream().await, 1);
            assert_eq!(find()["state"]["S"], "DONE");
        }
    }

    /// The payments service recovers while the sweep is running.
    #[tokio::test(start_paused = true)]
    async fn counts_orders_that_a_later_pass_of_the_sweep_finishes() {
        let world = confirmed(4).await;
        world.cloud.inject_fault("payments", HostFault::Down);
        let back = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            world.cloud.bring_back();
        };
        tokio::time::advance(Duration::from_secs(65)).await;
        let (outcome, ()) = tokio::join!(world.sweep(), back);
        assert_eq!(outcome, WorkSummary { finished: 4, ..WorkSummary::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn reports_an_unreadable_order_as_overdue_at_once() {
        let world = confirmed(2).await;
        let mut item = world.stored_orders().remove(0);
        item["state"] = json!({ "S": "CONFIRMED" });
        item["lines"] = json!({ "S": "of a later version" });
        world.cloud.put_item("OrdersTable", item);
        let outcome = sweep_a_minute_later(&world).await;
        assert_eq!(outcome, WorkSummary { finished: 1, postponed: 1, overdue: 1, ..WorkSummary::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn reports_an_item_that_only_resembles_an_order_as_overdue() {
        let world = confirmed(2).await;
        let stranger = json!({
            "pk": { "S": "ORDER#of-a-later-version" }, "sk": { "S": "ORDER" },
            "check_shard": { "S": "0" }, "next_check": { "N": "0" },
        });
        world.cloud.put_item("OrdersTable", stranger);
        assert_eq!(
            sweep_a_minute_later(&world).await,
            WorkSummary { finished: 2, overdue: 1, ..WorkSummary::default() }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn counts_finished_orders_as_skipped() {
        let world = confirmed(3).await;
        world.settle().await;
        let ids = world.stored_orders().iter().map(|item| order_id(item).parse().unwrap()).collect();
        assert_eq!(world.work(ids).await, WorkSummary { skipped: 3, ..WorkSummary::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn is_empty_and_immediate_if_no_order_is_due() {
        let world = confirmed(0).await;
        let began = tokio::time::Instant::now();
        assert_eq!(world.sweep().await, WorkSummary::default());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// In 20 seconds, a sweep makes one pass; in 21 seconds, it makes two
    /// passes.
    #[tokio::test(start_paused = true)]
    async fn includes_a_second_pass_only_if_the_invocation_has_time_for_it() {
        for (seconds, finished, postponed) in [(20, 0, 2), (21, 2, 0)] {
            let world = confirmed(2).await;
            world.cloud.inject_fault("payments", HostFault::Down);
            let back = async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                world.cloud.bring_back();
            };
            tokio::time::advance(Duration::from_secs(65)).await;
            let (outcome, ()) = tokio::join!(world.sweep_within(Duration::from_secs(seconds)), back);
            assert_eq!(outcome, WorkSummary { finished, postponed, ..WorkSummary::default() }, "{seconds} s");
        }
    }

    /// If a sweep has no time for an order, the order stays due for the next
    /// sweep.
    #[tokio::test(start_paused = true)]
    async fn counts_due_orders_that_it_had_no_time_for_as_skipped() {
        let world = confirmed(3).await;
        tokio::time::advance(Duration::from_secs(65)).await;
        let outcome = world.sweep_within(Duration::from_millis(2_900)).await;
        assert_eq!(outcome, WorkSummary { skipped: 3, ..WorkSummary::default() });
        // A skipped order that was open for too long is also reported as
        // overdue.
        tokio::time::advance(Duration::from_secs(15 * 60)).await;
        let outcome = world.sweep_within(Duration::from_millis(2_900)).await;
        assert_eq!(outcome, WorkSummary { skipped: 3, overdue: 3, ..WorkSummary::default() });
        assert_eq!(
            sweep_a_minute_later(&world).await,
            WorkSummary { finished: 3, overdue: 3, ..WorkSummary::default() }
        );
        // Three seconds are enough to process the orders.
        let world = confirmed(3).await;
        tokio::time::advance(Duration::from_secs(65)).await;
        assert_eq!(
            world.sweep_within(Duration::from_secs(3)).await,
            WorkSummary { finished: 3, ..WorkSummary::default() }
        );
    }
}

/// Earlier versions of the services accepted such characters in names. SQS
/// refuses messages with the character U+FFFF.
#[tokio::test(start_paused = true)]
async fn stored_names_with_characters_that_are_now_forbidden_do_not_block_an_order() {
    let world = World::start_in_test_time().await;
    let ada = world.customer("Ada").await;
    let teapot = world.product("19.99", 5).await;
    for (table, part) in [("UsersTable", "USER"), ("ProductsTable", "PRODUCT")] {
        let mut item = world.cloud.scan(table).into_iter().find(|item| item["sk"]["S"] == part).unwrap();
        let name = item["name"]["S"].as_str().unwrap();
        item["name"] = json!({ "S": format!("\u{200F}{name}\u{FFFF}") });
        world.cloud.put_item(table, item);
    }
    world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
    world.settle().await;
    assert_eq!(world.deliver_messages().await, json!({ "batchItemFailures": [] }));
    let mails = world.cloud.mails();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].to_string().contains("Hello Ada,"), "{}", mails[0]);
}

/// An order leaves each state only once. All other guarantees depend on this
/// guarantee.
#[tokio::test]
async fn a_transition_from_a_state_that_the_order_has_left_is_refused() {
    let world = World::start().await;
    let orders = DynamoRepository::new(world::table(world.cloud.clone(), "OrdersTable").await);
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let (customer, product_id) = (UserId::generate(), ProductId::generate());
    let line = OrderLine { product_id, quantity: Quantity::ONE };
    let lines = OrderLines::merge([Some(line)]).unwrap();
    let contact = VerifiedContact::UNKNOWN;
    let purchase = Purchase { lines, shown_prices: None, payment_method: None };
    let order = Order::place(customer, contact, purchase, 1, TraceContext::start(), now);
    assert!(matches!(orders.insert(&order, None, now).await.unwrap(), InsertOutcome::Inserted));
    let confirmed = order.clone().confirmed(now).unwrap();
    let cancelling = order.cancelling(CancellationReason::TimedOut, now).unwrap();
    assert_eq!(orders.transition(OrderState::Pending, &confirmed).await.unwrap(), SaveOutcome::Saved);
    assert_eq!(orders.transition(OrderState::Pending, &cancelling).await.unwrap(), SaveOutcome::Stale);
    // The SDK repeats a put whose response was lost. Therefore a put that was
    // already executed must succeed again.
    assert_eq!(orders.transition(OrderState::Pending, &confirmed).await.unwrap(), SaveOutcome::Saved);
    assert_eq!(orders.find(confirmed.id).await.unwrap(), Some(confirmed));
}

mod reading {
    use super::*;

    #[tokio::test]
    async fn another_customers_order_is_not_found_but_an_administrator_can_read_it() {
        let world = World::start().await;
        let (ada, mallory) = (world.customer("Ada").await, world.customer("Mallory").await);
        let teapot = world.product("19.99", 5).await;
        let placed = world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        let path = format!("/orders/{}", placed["id"].as_str().unwrap());
        world.get(&mallory, &path).await.expect_problem(404, "not_found");
        world.post(&mallory, &format!("{path}/cancel"), json!({})).await.expect_problem(404, "not_found");
        world.get(&Caller::anonymous(), &path).await.expect_problem(401, "unauthenticated");
        world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn a_customers_orders_are_listed_newest_first_in_pages_and_by_status() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 50).await;
        let mut placed = Vec::new();
        for n in 0..5 {
            let token = if n == 2 { "tok_declined" } else { "tok_accepted" };
            let answer = world.place(&ada, order_request(&[(&teapot, 1)], token), &format!("k{n}")).await.json();
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
    async fn the_last_page_of_a_list_has_no_cursor() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 50).await;
        for n in 0..4 {
            let token = if n % 2 == 0 { "tok_declined" } else { "tok_accepted" };
            world.place(&ada, order_request(&[(&teapot, 1)], token), &format!("k{n}")).await;
        }
        for (query, listed, has_next) in [
            ("limit=4", 4, false),
            ("limit=3", 3, true),
            ("status=CANCELLED&limit=2", 2, false),
            ("status=CANCELLED&limit=1", 1, true),
            ("status=DONE&limit=1", 0, false),
            ("status=CONFIRMED&limit=2", 2, false),
            ("status=CONFIRMED&limit=1", 1, true),
            ("status=PENDING&limit=1", 0, false),
        ] {
            let page = world.get(&ada, &format!("/orders?{query}")).await.expect(StatusCode::OK);
            let found = (page["items"].as_array().unwrap().len(), page["next_cursor"].is_string());
            assert_eq!(found, (listed, has_next), "{query}");
        }
    }

    /// A list of orders in one state must not read all orders of a customer who
    /// has many.
    #[tokio::test]
    async fn a_list_by_status_finds_few_orders_among_many_and_reads_little_else() {
        const MANY: usize = 1_000;
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 50).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        world.settle().await;
        let mut item = world.stored_order();
        for n in 1..MANY {
            item["pk"]["S"] = format!("ORDER#ord_0195a8e0-0000-7000-8000-{n:012x}").into();
            let state = if n % 200 == 0 { "CANCELLED" } else { "DONE" };
            (item["state"]["S"], item["final_state"]["S"]) = (state.into(), state.into());
            world.cloud.put_item("OrdersTable", item.clone());
        }
        world.cloud.start_metering();
        let (mut found, mut pages, mut path) = (0, 0, "/orders?limit=2&status=CANCELLED".to_owned());
        loop {
            let page = world.get(&ada, &path).await.expect(StatusCode::OK);
            let orders = page["items"].as_array().unwrap();
            assert!(!orders.is_empty() && orders.iter().all(|order| order["status"] == "CANCELLED"), "{page}");
            (found, pages) = (found + orders.len(), pages + 1);
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/orders?limit=2&status=CANCELLED&cursor={cursor}");
        }
        assert_eq!((found, pages), (4, 2));
        let cost = world.cloud.consumed()[&("orders", "OrdersTable".to_owned())];
        // Each order that is read costs one unit. The index entries of all
        // orders together are smaller than 200 KB.
        assert!(cost.read_units < 60.0 && cost.requests < 20, "{cost:?}");
        world.cloud.start_metering();
        let page = world.get(&ada, "/orders?limit=20&status=DONE").await.expect(StatusCode::OK);
        assert_eq!(page["items"].as_array().unwrap().len(), 20);
        let cost = world.cloud.consumed()[&("orders", "OrdersTable".to_owned())];
        assert!(cost.read_units < 25.0 && cost.requests == 2, "{cost:?}");
    }

    /// A DynamoDB query ends after one megabyte, even if it has found fewer items
    /// than its limit.
    #[tokio::test]
    async fn a_page_is_full_even_if_its_orders_exceed_a_megabyte() {
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
    async fn a_cursor_is_refused_for_another_list() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = world.product("1.00", 50).await;
        for key in ["k1", "k2"] {
            world.confirmed_order(&ada, &[(&teapot, 1)], key).await;
        }
        let page = world.get(&ada, "/orders?limit=1").await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap();
        world.get(&bob, &format!("/orders?cursor={cursor}")).await.expect_problem(400, "invalid_cursor");
        world.get(&ada, &format!("/orders?status=DONE&cursor={cursor}")).await.expect_problem(400, "invalid_cursor");
        let page = world.get(&ada, "/orders?limit=1&status=CONFIRMED").await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap();
        world.get(&ada, &format!("/orders?cursor={cursor}")).await.expect_problem(400, "invalid_cursor");
        world.get(&ada, &format!("/orders?status=DONE&cursor={cursor}")).await.expect_problem(400, "invalid_cursor");
        world.get(&ada, "/orders?cursor=AAAA").await.expect_problem(400, "invalid_cursor");
    }

    /// A client can forge a cursor. Therefore a cursor must not give access to
    /// the orders of other customers.
    #[tokio::test]
    async fn a_forged_cursor_shows_no_orders_of_others() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = world.product("1.00", 50).await;
        let theirs = world.place(&bob, order_request(&[(&teapot, 1)], "tok_accepted"), "k1").await.json();
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
    async fn only_an_administrator_lists_the_orders_of_others() {
        let world = World::start().await;
        let (ada, bob) = (world.customer("Ada").await, world.customer("Bob").await);
        let teapot = world.product("1.00", 50).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k1").await;
        let path = format!("/orders?user_id={}", ada.id());
        world.get(&bob, &path).await.expect_problem(404, "not_found");
        let page = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
    }
}

mod bad_requests {
    use super::*;

    #[tokio::test]
    async fn name_every_bad_field_and_store_no_order() {
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
            world.place(&ada, body, "k1").await.expect_bad_fields(&fields);
        }
        assert!(world.cloud.scan("OrdersTable").is_empty());
    }

    #[tokio::test]
    async fn with_a_bad_idempotency_key_are_refused() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("1.00", 5).await;
        let body = order_request(&[(&teapot, 1)], "tok_accepted");
        for key in ["", "a b", "\"", &"k".repeat(256)] {
            world.place(&ada, body.clone(), key).await.expect_bad_fields(&["Idempotency-Key"]);
        }
        let two = [("idempotency-key", "a"), ("idempotency-key", "b")];
        let answer = world.send_with(&ada, Method::POST, "/orders", Some(body), &two).await;
        answer.expect_bad_fields(&["Idempotency-Key"]);
    }

    #[tokio::test]
    async fn for_lists_name_every_bad_parameter() {
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

mod notifying_the_customer {
    use super::*;

    /// The recipients of all e-mails and of all text messages.
    fn recipients(world: &World) -> (Vec<String>, Vec<String>) {
        let to = |mail: &Value| mail["Destination"]["ToAddresses"][0].as_str().unwrap().to_owned();
        let texts = world.cloud.texts();
        (world.cloud.mails().iter().map(to).collect(), texts.iter().map(|text| text["PhoneNumber"].clone()).collect())
    }

    async fn settle_and_notify(world: &World) {
        world.settle().await;
        world.deliver_messages().await;
    }

    #[tokio::test]
    async fn uses_the_contact_details_of_the_token_and_not_of_the_profile() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let moved =
            ada.with_later_token(60).with_claim("email", "b@example.com").with_claim("phone_number", "+15555550199");
        world.confirmed_order(&moved, &[(&teapot, 1)], "k").await;
        settle_and_notify(&world).await;
        assert_eq!(recipients(&world), (vec!["b@example.com".into()], vec!["+15555550199".into()]));
    }

    #[tokio::test]
    async fn uses_a_phone_number_that_was_verified_after_the_profile_was_created() {
        let world = World::start().await;
        let without = Caller::named("Ada").with_claim("phone_number_verified", "false");
        let profile = json!({ "name": "Ada", "email": without.email() });
        world.post(&without, "/users", profile).await.expect(StatusCode::CREATED);
        let teapot = world.product("19.99", 5).await;
        let with = without.with_later_token(60).with_claim("phone_number_verified", "true");
        world.confirmed_order(&with, &[(&teapot, 1)], "k").await;
        settle_and_notify(&world).await;
        assert_eq!(recipients(&world).1, [with.phone()]);
    }

    #[tokio::test]
    async fn is_skipped_for_a_customer_without_e_mail_address_and_phone_number() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let heir = Caller::named("Heir").with_later_token(60).with_claim("email", ada.email());
        let profile = json!({ "name": "Heir", "email": heir.email() });
        world.post(&heir, "/users", profile).await.expect(StatusCode::CREATED);
        let teapot = world.product("19.99", 5).await;
        let unreachable = ada
            .with_later_token(120)
            .with_claim("email_verified", "false")
            .with_claim("phone_number_verified", "false");
        let placed = world.place(&unreachable, order_request(&[(&teapot, 1)], "tok_accepted"), "k").await;
        let order = placed.expect(StatusCode::CREATED);
        settle_and_notify(&world).await;
        assert_eq!(recipients(&world), (vec![], vec![]));
        assert!(world.cloud.dead_letters().is_empty());
        let path = format!("/orders/{}", order["id"].as_str().unwrap());
        assert_eq!(world.get(&unreachable, &path).await.expect(StatusCode::OK)["status"], "DONE");
    }

    #[tokio::test]
    async fn is_skipped_for_a_refusal_that_the_response_has_reported() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        for (n, (quantity, token)) in [(1, "tok_declined"), (9, "tok_accepted")].into_iter().enumerate() {
            let answer = world.place(&ada, order_request(&[(&teapot, quantity)], token), &format!("k{n}")).await;
            assert!(answer.status.is_client_error(), "{}", answer.text);
        }
        settle_and_notify(&world).await;
        assert_eq!(recipients(&world), (vec![], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn happens_for_a_refusal_after_a_202() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.cloud.take_down("payments.internal");
        let placed = world.place(&ada, order_request(&[(&teapot, 1)], "tok_declined"), "k").await;
        placed.expect(StatusCode::ACCEPTED);
        world.cloud.bring_back();
        settle_and_notify(&world).await;
        assert_eq!(recipients(&world), (vec![ada.email().to_owned()], vec![ada.phone().to_owned()]));
        assert!(world.cloud.mails()[0].to_string().contains("The payment was declined."));
    }

    #[tokio::test]
    async fn happens_once_for_an_accepted_order_and_says_that_it_is_paid() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k").await;
        settle_and_notify(&world).await;
        let mails = world.cloud.mails();
        assert_eq!((mails.len(), world.cloud.texts().len()), (1, 1));
        assert!(mails[0].to_string().contains("We have received your payment of 19.99 USD."), "{}", mails[0]);
    }

    #[tokio::test]
    async fn never_says_that_an_order_cancelled_before_its_capture_is_paid() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let placed = world.confirmed_order(&ada, &[(&teapot, 1)], "k").await;
        world.cancel(&ada, &placed).await.expect(StatusCode::OK);
        settle_and_notify(&world).await;
        let mails = world.cloud.mails();
        assert_eq!(mails.len(), 2, "one e-mail reports the confirmation, and one the cancellation");
        assert!(!mails.iter().any(|mail| mail.to_string().contains("received your payment")), "{mails:?}");
    }

    #[tokio::test]
    async fn says_who_cancelled_the_order() {
        for (by_admin, reason, words) in [
            (false, "customer_request", "You asked us to cancel it."),
            (true, "cancelled_by_shop", "We had to cancel it."),
        ] {
            let world = World::start().await;
            let ada = world.customer("Ada").await;
            let teapot = world.product("19.99", 5).await;
            let placed = world.confirmed_order(&ada, &[(&teapot, 1)], "k").await;
            settle_and_notify(&world).await;
            let cancelled = match by_admin {
                true => world.cancel_for_shop(&Caller::admin(), &placed, "Recalled.").await,
                false => world.cancel(&ada, &placed).await,
            };
            cancelled.expect(StatusCode::OK);
            settle_and_notify(&world).await;
            let order = world.order(&ada, &placed["id"]).await;
            assert_eq!(
                (&order["cancellation_reason"], &order["history"][3]["reason"]),
                (&json!(reason), &json!(reason))
            );
            let mails = world.cloud.mails();
            let count = mails.iter().filter(|mail| mail.to_string().contains("Your order is cancelled")).count();
            assert!(count == 1 && mails.iter().any(|mail| mail.to_string().contains(words)), "{mails:?}");
            assert!(world.cloud.texts().iter().any(|text| text["Message"].contains(words)));
        }
    }

    #[tokio::test]
    async fn is_skipped_for_an_order_that_is_cancelled_after_the_erasure() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        let placed = world.confirmed_order(&ada, &[(&teapot, 1)], "k").await;
        settle_and_notify(&world).await;
        let before = recipients(&world);
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        world.deliver_messages().await;
        assert_eq!(world.deliver_user_events().await, 0);
        world.cancel_for_shop(&Caller::admin(), &placed, "Recalled.").await.expect(StatusCode::OK);
        settle_and_notify(&world).await;
        assert_eq!(recipients(&world), before);
        for table in ["OrdersTable", "PaymentsTable"] {
            let items = Value::from(world.cloud.scan(table)).to_string();
            for personal in [ada.email(), ada.phone(), "\"Ada\""] {
                assert!(!items.contains(personal), "{table}: {items}");
            }
        }
        assert_eq!(world.cloud.sent_messages().iter().filter(|event| event.contains("PaymentRefunded")).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_payment_of_an_open_order_is_erased_when_the_order_is_final() {
        let world = World::start_in_test_time().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 5).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "k").await;
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        let payments = || Value::from(world.cloud.scan("PaymentsTable")).to_string();
        assert_eq!(
            world.deliver_user_events().await,
            1,
            "the worker does not acknowledge the event while the order is open"
        );
        assert!(payments().contains(ada.email()));
        world.settle().await;
        assert_eq!(world.deliver_user_events().await, 0);
        assert!(!payments().contains(ada.email()));
        world.deliver_messages().await;
        assert_eq!(recipients(&world), (vec![], vec![]));
    }
}

mod shown_prices {
    use super::*;

    async fn world_with_teapot() -> (World, Caller, String) {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("10.00", 5).await;
        (world, ada, teapot)
    }

    /// The body of a request for two teapots. The members of `line` are added
    /// to the only line, and the members of `order` to the body itself.
    fn with_shown_prices(teapot: &str, line: Value, order: Value) -> Value {
        let mut body = json!({ "items": [{ "product_id": teapot, "quantity": 2 }], "payment_method": "tok_accepted" });
        let with = |object: &mut Value, members: Value| {
            object.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        };
        with(&mut body["items"][0], line);
        with(&mut body, order);
        body
    }

    async fn raise_the_price(world: &World, teapot: &str) {
        let change = json!({ "price": 999 });
        let path = format!("/products/{teapot}");
        let changed = world.send_with(&Caller::admin(), Method::PATCH, &path, Some(change), &[("if-match", "*")]).await;
        changed.expect(StatusCode::OK);
    }

    #[tokio::test]
    async fn that_are_still_valid_are_charged() {
        let (world, ada, teapot) = world_with_teapot().await;
        for (n, (line, order)) in
            [(json!({ "unit_price": 10 }), json!({})), (json!({}), json!({ "total": 20.0, "currency": "USD" }))]
                .into_iter()
                .enumerate()
        {
            let placed = world.place(&ada, with_shown_prices(&teapot, line, order), &format!("k{n}")).await;
            assert_eq!(placed.expect(StatusCode::CREATED)["total"], 20.0);
        }
    }

    #[tokio::test]
    async fn that_have_changed_refuse_the_order_and_name_the_current_prices() {
        let (world, ada, teapot) = world_with_teapot().await;
        raise_the_price(&world, &teapot).await;
        for (n, (line, order)) in [
            (json!({ "unit_price": 10 }), json!({})),
            (json!({}), json!({ "total": 20 })),
            (json!({ "unit_price": 999 }), json!({ "total": 20 })),
            (json!({ "unit_price": 999 }), json!({ "currency": "EUR" })),
            (json!({}), json!({ "currency": "EUR" })),
        ]
        .into_iter()
        .enumerate()
        {
            let (body, key) = (with_shown_prices(&teapot, line, order), format!("k{n}"));
            let problem = world.place(&ada, body.clone(), &key).await.expect_problem(409, "price_changed");
            assert_eq!(problem["prices"], json!([{ "product_id": teapot, "unit_price": 999.0 }]));
            assert_eq!((&problem["total"], &problem["currency"]), (&json!(1998.0), &json!("USD")));
            let order = world.order(&ada, &problem["order_id"]).await;
            assert_eq!(
                (&order["status"], &order["cancellation_reason"]),
                (&json!("CANCELLED"), &json!("price_changed"))
            );
            // A repeated request gets the same response.
            assert_eq!(world.place(&ada, body, &key).await.json(), problem);
        }
        assert_eq!(world.stock(&teapot).await, 5);
        world.settle().await;
        world.deliver_messages().await;
        assert!(world.cloud.mails().is_empty(), "the response has reported the refusal");
    }

    #[tokio::test]
    async fn are_optional_and_without_them_the_current_price_is_charged() {
        let (world, ada, teapot) = world_with_teapot().await;
        raise_the_price(&world, &teapot).await;
        let placed = world.place(&ada, with_shown_prices(&teapot, json!({}), json!({})), "k").await;
        assert_eq!(placed.expect(StatusCode::CREATED)["total"], 1998.0);
    }

    #[tokio::test]
    async fn are_part_of_the_fingerprint_of_a_request() {
        let (world, ada, teapot) = world_with_teapot().await;
        let without = with_shown_prices(&teapot, json!({}), json!({}));
        world.place(&ada, without.clone(), "k").await.expect(StatusCode::CREATED);
        for (line, order) in [
            (json!({ "unit_price": 10 }), json!({})),
            (json!({}), json!({ "total": 20 })),
            (json!({}), json!({ "currency": "USD" })),
        ] {
            let other = with_shown_prices(&teapot, line, order);
            world.place(&ada, other, "k").await.expect_problem(422, "idempotency_mismatch");
        }
        world.place(&ada, without, "k").await.expect(StatusCode::CREATED);
    }

    #[tokio::test]
    async fn that_are_malformed_are_named_with_every_other_bad_field() {
        let (world, ada, teapot) = world_with_teapot().await;
        let line = |price: Value| json!({ "product_id": teapot, "quantity": 1, "unit_price": price });
        let body = json!({ "items": [line(json!("10")), line(json!(10.001)), line(json!(-1))], "total": "20" });
        let answer = world.place(&ada, body, "k").await;
        answer.expect_bad_fields(&["items[0].unit_price", "items[1].unit_price", "items[2].unit_price", "total"]);
        let body = json!({ "items": [line(json!(10)), line(json!(11))] });
        world.place(&ada, body, "k").await.expect_bad_fields(&["items[1].unit_price"]);
        let body = json!({ "items": [line(json!(10.5))], "total": 10.5, "currency": "JPY" });
        world.place(&ada, body, "k").await.expect_bad_fields(&["total", "items[0].unit_price"]);
    }
}
