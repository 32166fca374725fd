//! Tests of the switches with which administrators pause new orders, or all messages.

use std::time::Duration;

use http::StatusCode;
use in_process_tests::{Caller, World, shop::order_request};
use serde_json::{Value, json};

const REASON: &str = "The provider double charges.";

/// Pauses or resumes a part of the shop, and lets the time pass after which the change has an effect everywhere.
async fn turn(world: &World, part: &str, paused: bool) -> Value {
    turn_as(world, &Caller::admin(), part, paused).await
}

async fn turn_as(world: &World, admin: &Caller, part: &str, paused: bool) -> Value {
    let body = json!({ "paused": paused, "reason": REASON });
    let state = world.post(admin, &format!("/pauses/{part}"), body).await.expect(StatusCode::OK);
    tokio::time::advance(Duration::from_secs(5)).await;
    state
}

/// Returns whether a metric line has this metric with the value 1.
fn is_counted(world: &World, metric: &str) -> bool {
    let is_one = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|line| line[metric] == 1);
    world.cloud.metric_lines().iter().any(|line| is_one(&line.text))
}

mod paused_orders {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn are_refused_before_anything_is_stored_and_accepted_again_after_the_pause() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        let request = || order_request(&[(&teapot, 1)], "tok_accepted");
        turn(&world, "orders", true).await;
        let answer = world.place(&ada, request(), "with-a-key").await;
        answer.expect_problem(503, "orders_paused");
        assert_eq!(answer.header("retry-after"), Some("60"));
        world.post(&ada, "/orders", request()).await.expect_problem(503, "orders_paused");
        assert!(world.stored_orders().is_empty());
        assert_eq!(world.stock(&teapot).await, 5);
        turn(&world, "orders", false).await;
        world.place(&ada, request(), "with-a-key").await.expect(StatusCode::CREATED);
    }

    #[tokio::test(start_paused = true)]
    async fn that_were_accepted_before_the_pause_are_finished_and_their_requests_get_the_same_response() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        let request = order_request(&[(&teapot, 1)], "tok_accepted");
        let confirmed = world.place(&ada, request.clone(), "confirmed").await.expect(StatusCode::CREATED);
        world.cloud.take_down("payments.internal");
        let open = world.place(&ada, request.clone(), "open").await.expect(StatusCode::ACCEPTED);
        turn(&world, "orders", true).await;

        let repeated = world.place(&ada, request.clone(), "confirmed").await;
        assert_eq!(repeated.expect(StatusCode::CREATED), confirmed);
        let other = order_request(&[(&teapot, 2)], "tok_accepted");
        world.place(&ada, other, "confirmed").await.expect_problem(422, "idempotency_mismatch");
        world.cloud.bring_back();
        world.pass_minutes(6).await;
        assert_eq!(world.order(&ada, &confirmed["id"]).await["status"], "DONE");
        assert_eq!(world.order(&ada, &open["id"]).await["status"], "DONE");
        world.cancel(&ada, &confirmed).await.expect(StatusCode::OK);
        assert_eq!(world.order(&ada, &confirmed["id"]).await["status"], "CANCELLED");
        world.place(&ada, request, "new").await.expect_problem(503, "orders_paused");
    }

    #[tokio::test(start_paused = true)]
    async fn are_refused_within_five_seconds_by_an_environment_that_has_read_the_switch_before() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        let request = || order_request(&[(&teapot, 1)], "tok_accepted");
        world.place(&ada, request(), "before").await.expect(StatusCode::CREATED);
        // Another environment changes the switch.
        let switch = json!({
            "pk": { "S": "PAUSE" }, "sk": { "S": "PAUSE" }, "version": { "N": "1" }, "is_paused": { "BOOL": true },
            "reason": { "S": REASON }, "changed_by": { "S": Caller::admin().id() },
            "changed_at": { "S": "2026-11-27T03:00:00Z" },
        });
        world.cloud.put_item("OrdersTable", switch);
        tokio::time::advance(Duration::from_secs(5)).await;
        world.place(&ada, request(), "after").await.expect_problem(503, "orders_paused");
    }

    #[tokio::test(start_paused = true)]
    async fn are_counted() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        turn(&world, "orders", true).await;
        let request = order_request(&[(&teapot, 1)], "tok_accepted");
        world.place(&ada, request, "a-key").await.expect_problem(503, "orders_paused");
        assert!(is_counted(&world, "OrdersPaused"));
    }
}

mod paused_messages {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wait_in_the_queue_for_as_long_as_the_pause_and_are_sent_once_after_it() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        turn(&world, "messages", true).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "a-key").await;
        world.settle().await;
        // Far more deliveries than the dead-letter queue would allow a message that fails.
        world.pass_minutes(30).await;
        assert!(world.cloud.mails().is_empty() && world.cloud.texts().is_empty());
        assert!(world.cloud.dead_letters().is_empty());
        assert_eq!(world.cloud.queued_messages(), 1);
        assert!(is_counted(&world, "MessagesHeld"));

        turn(&world, "messages", false).await;
        world.pass_minutes(2).await;
        assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));
        assert_eq!(world.cloud.queued_messages(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn do_not_keep_the_notifier_from_erasing_a_customer() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        turn(&world, "messages", true).await;
        world.confirmed_order(&ada, &[(&teapot, 1)], "a-key").await;
        world.settle().await;
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        world.deliver_messages().await;
        turn(&world, "messages", false).await;
        world.pass_minutes(2).await;
        assert!(world.cloud.mails().is_empty(), "the customer was erased during the pause");
    }

    #[tokio::test(start_paused = true)]
    async fn are_delivered_again_when_the_switch_cannot_be_read_or_the_queue_does_not_take_them_back() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        world.confirmed_order(&ada, &[(&teapot, 1)], "a-key").await;
        world.settle().await;
        turn(&world, "messages", true).await;
        world.cloud.take_down("sqs.us-east-1.amazonaws.com");
        world.deliver_messages().await;
        assert_eq!(world.cloud.queued_messages(), 1);
        world.cloud.bring_back();
        turn(&world, "messages", false).await;
        world.deliver_messages().await;
        assert_eq!(world.cloud.mails().len(), 1);
    }
}

mod a_switch {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_who_changed_it_when_and_why() {
        let world = World::start_in_test_time().await;
        let admin = Caller::admin();
        for part in ["orders", "messages"] {
            let path = format!("/pauses/{part}");
            let state = world.get(&admin, &path).await.expect(StatusCode::OK);
            assert_eq!(state, json!({ "paused": false }));
            let paused = turn_as(&world, &admin, part, true).await;
            assert_eq!(paused["paused"], true);
            assert_eq!(paused["last_change"]["changed_by"], json!(admin.id()));
            assert_eq!(paused["last_change"]["reason"], REASON);
            assert_eq!(turn_as(&world, &admin, part, true).await, paused, "pausing again changes nothing");
            turn_as(&world, &admin, part, false).await;
            turn_as(&world, &admin, part, true).await;
            let changes = world.get(&admin, &format!("{path}/changes?limit=2")).await.expect(StatusCode::OK);
            let page = |page: &Value| -> Vec<bool> {
                page["items"].as_array().unwrap().iter().map(|change| change["paused"].as_bool().unwrap()).collect()
            };
            assert_eq!(page(&changes), [true, false]);
            assert_eq!(changes["items"][0], paused["last_change"]);
            let cursor = changes["next_cursor"].as_str().unwrap();
            let path = format!("{path}/changes?cursor={cursor}");
            assert_eq!(page(&world.get(&admin, &path).await.expect(StatusCode::OK)), [true]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn is_shown_by_a_deep_check_of_the_health_and_by_no_other_check() {
        let world = World::start_in_test_time().await;
        for (service, part) in [("orders", "orders"), ("notifications", "messages")] {
            let deep = format!("/health/{service}?deep=true");
            assert_eq!(world.get(&Caller::admin(), &deep).await.expect(StatusCode::OK)["paused"], false);
            turn(&world, part, true).await;
            let health = world.get(&Caller::admin(), &deep).await.expect(StatusCode::OK);
            assert_eq!((&health["paused"], &health["status"]), (&json!(true), &json!("ok")));
            let shallow = world.get(&Caller::anonymous(), &format!("/health/{service}")).await.expect(StatusCode::OK);
            assert_eq!(shallow.get("paused"), None);
        }
    }

    #[tokio::test]
    async fn is_changed_by_administrators_only_who_give_a_reason() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        for part in ["orders", "messages"] {
            let path = format!("/pauses/{part}");
            let body = json!({ "paused": true, "reason": REASON });
            world.post(&ada, &path, body.clone()).await.expect_problem(403, "forbidden");
            world.post(&Caller::anonymous(), &path, body.clone()).await.expect_problem(401, "unauthenticated");
            world.post(&Caller::service(), &path, body).await.expect_problem(403, "forbidden");
            world.get(&ada, &path).await.expect_problem(403, "forbidden");
            world.get(&ada, &format!("{path}/changes")).await.expect_problem(403, "forbidden");
            world.post(&Caller::admin(), &path, json!({})).await.expect_bad_fields(&["paused", "reason"]);
            let wrong = json!({ "paused": "yes", "reason": "", "until": 1 });
            world.post(&Caller::admin(), &path, wrong).await.expect_bad_fields(&["paused", "reason", "until"]);
        }
    }
}
