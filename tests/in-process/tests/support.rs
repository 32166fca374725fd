//! Tests of what administrators use to help a customer: they find the customer, the orders and the messages, and every
//! action of an administrator leaves a record of who did it, when and why.

use std::time::Duration;

use http::StatusCode;
use in_process_tests::{Caller, World, shop::order_request};
use serde_json::Value;

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

mod a_customer {
    use super::*;

    async fn find(world: &World, email: &str) -> Value {
        let email = email.replace('+', "%2B");
        world.get(&Caller::admin(), &format!("/users?email={email}")).await.expect(StatusCode::OK)
    }

    #[tokio::test]
    async fn is_found_by_the_e_mail_address_in_upper_and_lower_case() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        world.customer("Bob").await;
        for email in ["ada@example.com", "Ada@Example.COM"] {
            let found = find(&world, email).await;
            assert_eq!(ids(&found), [ada.id().to_string()], "{email}");
            assert_eq!(found["items"][0]["phone"], ada.phone());
        }
        assert!(ids(&find(&world, "nobody@example.com").await).is_empty());
    }

    #[tokio::test]
    async fn is_found_by_the_new_address_only_after_a_change_of_the_address() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let moved = ada.with_later_token(60).with_claim("email", "ada+new@example.com");
        let body = serde_json::json!({ "email": "ada+new@example.com" });
        world.patch(&moved, &format!("/users/{}", ada.id()), body).await.expect(StatusCode::OK);
        assert!(ids(&find(&world, "ada@example.com").await).is_empty());
        assert_eq!(ids(&find(&world, "ada+new@example.com").await), [ada.id().to_string()]);
    }

    #[tokio::test]
    async fn is_not_found_once_erased() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        assert!(ids(&find(&world, "ada@example.com").await).is_empty());
    }

    #[tokio::test]
    async fn is_found_by_administrators_only_and_by_a_whole_address_only() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let path = "/users?email=ada@example.com";
        world.get(&ada, path).await.expect_problem(403, "forbidden");
        world.get(&Caller::anonymous(), path).await.expect_problem(401, "unauthenticated");
        world.get(&Caller::function("orders"), path).await.expect_problem(403, "forbidden");
        world.get(&Caller::admin(), "/users").await.expect_bad_fields(&["email"]);
        world.get(&Caller::admin(), "/users?email=ada").await.expect_bad_fields(&["email"]);
    }
}

mod the_open_orders {
    use super::*;

    /// Places orders of several customers that stay open, because the payments service is down.
    async fn with_open_orders(count: usize) -> (World, Vec<String>) {
        let world = World::start_in_test_time().await;
        let teapot = world.product("19.99", 100).await;
        let customers = [world.customer("Ada").await, world.customer("Bob").await];
        world.cloud.take_down("payments.internal");
        let mut placed = Vec::new();
        for n in 0..count {
            let body = order_request(&[(&teapot, 1)], "tok_accepted");
            let order = world.place(&customers[n % 2], body, &format!("key-{n}")).await.expect(StatusCode::ACCEPTED);
            placed.push(order["id"].as_str().unwrap().to_owned());
        }
        (world, placed)
    }

    /// Reads all pages. Returns the ids of each page.
    async fn pages(world: &World, limit: usize) -> Vec<Vec<String>> {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/open-orders?limit={limit}{cursor}");
            let page = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
            pages.push(ids(&page).into_iter().map(str::to_owned).collect());
            let Some(next) = page["next_cursor"].as_str() else { return pages };
            cursor = format!("&cursor={next}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_all_customers_are_listed_page_by_page_and_the_oldest_comes_first() {
        let (world, placed) = with_open_orders(7).await;
        let pages = pages(&world, 3).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(pages.concat(), placed);
    }

    #[tokio::test(start_paused = true)]
    async fn stay_in_the_order_of_their_age_when_the_worker_postpones_them() {
        let (world, placed) = with_open_orders(4).await;
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(60)).await;
            world.sweep().await;
        }
        let page = world.get(&Caller::admin(), "/open-orders").await.expect(StatusCode::OK);
        assert_eq!(ids(&page), placed);
        for order in page["items"].as_array().unwrap() {
            assert!(order["support"]["failures"].as_u64().unwrap() > 0, "{order}");
            assert_eq!(order["support"]["open_since"], order["created_at"]);
            assert!(order["support"]["next_check"].is_string(), "{order}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn are_no_longer_listed_once_they_are_finished() {
        let (world, placed) = with_open_orders(2).await;
        world.cloud.bring_back();
        world.pass_minutes(6).await;
        assert!(pages(&world, 10).await.concat().is_empty(), "{placed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn are_for_administrators_only_and_their_cursor_fits_no_other_list() {
        let (world, _) = with_open_orders(2).await;
        world.get(&Caller::named("Mallory"), "/open-orders").await.expect_problem(403, "forbidden");
        world.get(&Caller::anonymous(), "/open-orders").await.expect_problem(401, "unauthenticated");
        world.get(&Caller::service(), "/open-orders").await.expect_problem(403, "forbidden");
        let page = world.get(&Caller::admin(), "/open-orders?limit=1").await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap();
        let answer = world.get(&Caller::admin(), &format!("/orders?cursor={cursor}")).await;
        answer.expect_problem(400, "invalid_cursor");
    }
}

mod one_order {
    use super::*;

    #[tokio::test]
    async fn shows_its_trace_and_its_payment_to_administrators_only() {
        let world = World::start().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 10).await);
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let body = Some(order_request(&[(&teapot, 1)], "tok_declined"));
        let headers = [("traceparent", trace)];
        let refused = world.send_with(&ada, http::Method::POST, "/orders", body, &headers).await.json();
        let path = format!("/orders/{}", refused["order_id"].as_str().unwrap());

        let seen = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
        assert_eq!(seen["support"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        let payment = seen["support"]["payment_id"].as_str().unwrap();
        assert_eq!(payment, path.replace("/orders/ord_", "pay_"));
        let payment = world.get(&Caller::admin(), &format!("/payments/{payment}")).await.expect(StatusCode::OK);
        assert_eq!(payment["status"], "DECLINED");

        let own = world.get(&ada, &path).await.expect(StatusCode::OK);
        assert!(own["support"].is_null(), "{own}");
    }
}
