//! `make reconcile` compares what the services of the deployed stack have stored.

use aws_sdk_dynamodb::types::AttributeValue;
use http::StatusCode;
use jiff::Timestamp;
use stack_tests::{shop::Shop, try_make};

/// Sets the status of a charge behind the services' backs.
async fn set_status(shop: &Shop, charge: &str, status: &str) {
    let client = aws_sdk_dynamodb::Client::new(&shop.stack.sdk().await);
    let update = client.update_item().table_name(&shop.stack.tables["sandbox_ledger"]);
    update
        .key("pk", AttributeValue::S(charge.to_owned()))
        .key("sk", AttributeValue::S("CHARGE".into()))
        .update_expression("SET #status = :status")
        .condition_expression("attribute_exists(pk)")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":status", AttributeValue::S(status.to_owned()))
        .send()
        .await
        .expect("an update");
}

/// Reconciles the orders since a time. Returns whether it succeeded, and what it printed. Other tests may have planted
/// mismatches of their own.
async fn reconcile(since: Timestamp) -> (bool, String) {
    let output = try_make(&["reconcile", &format!("SINCE={since}")]).await;
    (output.status.success(), String::from_utf8(output.stdout).expect("a text"))
}

#[tokio::test]
async fn make_reconcile_shows_a_mismatch_with_what_to_do_and_fails() {
    let since = Timestamp::now();
    let shop = Shop::open().await;
    let ada = shop.stack.customer("Ada").await;
    let product = shop.product("19.99", 5).await;
    let order = ada.place(&[(&product, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    let order = order["id"].as_str().expect("an id");
    ada.order_with_status(order, "DONE").await;
    let (_, printed) = reconcile(since).await;
    assert!(!printed.contains(order) && printed.contains("orders"), "{printed}");

    let charge = format!("CHARGE#pay_{}", order.trim_start_matches("ord_"));
    set_status(&shop, &charge, "REFUNDED").await;
    let (succeeded, printed) = reconcile(since).await;
    set_status(&shop, &charge, "CAPTURED").await;
    assert!(!succeeded, "{printed}");
    let mut lines = printed.lines().skip_while(|line| !line.contains(order));
    let entry: Vec<_> = lines.by_ref().take(3).collect();
    assert!(entry[0].starts_with("payment_and_provider_disagree"), "{printed}");
    assert!(entry[1].contains("the payment is CAPTURED, the charge is REFUNDED"), "{printed}");
    assert!(entry[2].contains("do:"), "{printed}");
}
