//! The logs of the deployed functions contain no personal data and no secrets.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use stack_tests::{eventually, make, shop::Shop};

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

/// Runs a task for an order of this stack, as a user would. Returns its output.
async fn run(task: &str, order: &str) -> String {
    make(&[task, &format!("ORDER={order}")]).await
}

#[tokio::test]
async fn with_only_its_id_the_traces_and_logs_of_an_order_say_why_it_was_cancelled_and_where_it_went() {
    let shop = Shop::open().await;
    let customer = shop.stack.customer("Ada").await;
    let product = shop.product("19.99", 5).await;

    let refused = customer.place(&[(&product, 1)], "tok_declined").await.expect_problem(402, "payment_declined");
    let refused = refused["order_id"].as_str().unwrap();
    let drawn = run("trace", refused).await;
    let reason = "CANCELLED, because the payment provider declined the payment (payment_declined)";
    assert!(drawn.contains(reason), "{drawn}");
    assert!(drawn.contains("step: authorise payment") && drawn.contains("✗ refused: payment_declined"), "{drawn}");
    let logged = run("logs", refused).await;
    assert!(logged.contains("order transition") && logged.contains("reason=payment_declined"), "{logged}");

    let placed = customer.place(&[(&product, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    let placed = placed["id"].as_str().unwrap();
    customer.order_with_status(placed, "DONE").await;
    let parts = [
        "POST /orders",
        "step: reserve stock",
        "users",
        "products",
        "payments",
        "TransactWriteItems",
        "order-worker,",
        "step: capture payment",
        "publish OrderCreated",
        "notifications,",
        "message OrderCreated",
        "send EMAIL",
    ];
    // The notifier works after the order is done.
    eventually("all parts of the order's way are drawn", || async {
        let drawn = run("trace", placed).await;
        (drawn.contains("DONE") && parts.iter().all(|part| drawn.contains(part)) && !drawn.contains('✗')).then_some(())
    })
    .await;
    let logged = run("logs", placed).await;
    for function in FUNCTIONS {
        assert!(logged.contains(&format!(" {function} ")), "no line of {function}:\n{logged}");
    }
}
