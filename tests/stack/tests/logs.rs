//! What the deployed functions have written into their logs.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use stack_tests::Stack;

const FUNCTIONS: [&str; 6] = ["users", "products", "orders", "order-worker", "payments", "notifications"];

#[tokio::test]
async fn no_log_line_names_anybody_or_carries_what_opens_an_account_or_a_purse() {
    let stack = Stack::deployed();
    let (admin, customer) = (stack.admin().await, stack.customer("Unmistakable").await);
    let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 5 });
    let product = admin.post("/products", body).await.expect(StatusCode::CREATED);
    let product = product["id"].as_str().unwrap();

    // In good weather and in bad.
    let placed =
        customer.order(&[(product, 1)], "tok_accepted", "a-key-of-this-test").await.expect(StatusCode::CREATED);
    customer.order_in(placed["id"].as_str().unwrap(), "DONE").await;
    customer.order(&[(product, 1)], "tok_declined", "another").await.expect_problem(402, "payment_declined");
    let token = customer.token.clone().expect("a token");
    let bad = json!({ "items": [], "payment_method": "tok_accepted and more", "email": customer.email });
    customer.post("/orders", bad).await.expect_problem(422, "invalid_request");
    let tampered = format!("Bearer {token}x");
    let answer = stack.stranger().send(Method::GET, "/orders", None, &[("authorization", &tampered)]).await;
    answer.expect_problem(401, "unauthenticated");
    // Until the last of it is written.
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
            let told = lines.iter().find(|line| line.as_str().is_some_and(|line| line.contains(secret)));
            assert!(told.is_none(), "{function} has logged {secret:?}: {told:?}");
        }
    }
}
