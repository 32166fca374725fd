//! The logs of the deployed functions contain no personal data and no secrets.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use stack_tests::shop::Shop;

const FUNCTIONS: [&str; 6] = ["users", "products", "orders", "order-worker", "payments", "notifications"];

#[tokio::test]
async fn no_log_line_contains_a_name_an_e_mail_address_a_phone_number_a_token_or_a_payment_method() {
    let shop = Shop::open().await;
    let stack = &shop.stack;
    let customer = stack.customer("Unmistakable").await;
    let product = shop.product("19.99", 5).await;

    // Requests that succeed, and requests that are refused.
    let placed = customer.place(&[(&product, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    customer.order_with_status(placed["id"].as_str().unwrap(), "DONE").await;
    customer.place(&[(&product, 1)], "tok_declined").await.expect_problem(402, "payment_declined");
    let token = customer.token.clone().expect("a token");
    let bad = json!({ "items": [], "payment_method": "tok_accepted and more", "email": customer.email });
    customer.post("/orders", bad).await.expect_problem(422, "invalid_request");
    let tampered = format!("Bearer {token}x");
    let answer = stack.anonymous().send(Method::GET, "/orders", None, &[("authorization", &tampered)]).await;
    answer.expect_problem(401, "unauthenticated");
    // Wait until the last log lines are written.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let secrets = [&customer.email, &customer.phone, &token, "Unmistakable", "tok_accepted", "tok_declined"];
    for function in FUNCTIONS {
        let group = format!("/aws/lambda/holdfast/{function}");
        let read = ["logs", "filter-log-events", "--output", "json", "--log-group-name", &group];
        let events: Value = serde_json::from_str(&stack.aws(&read).await).expect("events in JSON");
        let lines: Vec<_> =
            events["events"].as_array().expect("events").iter().map(|event| &event["message"]).collect();
        assert!(!lines.is_empty(), "{function} has logged nothing");
        for secret in secrets {
            let line = lines.iter().find(|line| line.as_str().is_some_and(|line| line.contains(secret)));
            assert!(line.is_none(), "{function} has logged {secret:?}: {line:?}");
        }
    }
}
