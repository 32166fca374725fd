//! The public API of the deployed stack, as customers, administrators and
//! anonymous callers use it.

use http::{Method, StatusCode};
use serde_json::json;
use stack_tests::{
    Stack, eventually,
    shop::{Shop, statuses},
};

#[tokio::test]
async fn a_customer_orders_is_charged_once_and_gets_an_e_mail_and_a_text_message() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("19.99", 10).await;

    let answer = ada.place(&[(&teapot, 3)], "tok_accepted").await;
    let placed = answer.expect(StatusCode::CREATED);
    assert!(answer.text.contains("\"total\":59.97"), "{}", answer.text);
    assert_eq!(shop.stock(&teapot).await, 7);

    let done = ada.order_with_status(placed["id"].as_str().unwrap(), "DONE").await;
    assert_eq!(statuses(&done), ["PENDING", "CONFIRMED", "DONE"]);
    let payment = ada.get(&format!("/payments/{}", done["payment_id"].as_str().unwrap())).await;
    assert_eq!(payment.expect(StatusCode::OK)["status"], "CAPTURED");
    assert!(payment.text.contains("\"amount\":59.97"), "{}", payment.text);

    // The provider's own ledger has exactly the same amount.
    let ledger = shop.stack.scan("sandbox_ledger").await;
    let charges: Vec<_> = ledger
        .iter()
        .filter(|c| c["pk"].as_str().is_some_and(|pk| pk.contains(done["payment_id"].as_str().unwrap())))
        .collect();
    assert_eq!(charges.len(), 1, "{ledger:?}");
    assert_eq!(charges[0]["amount_minor"], 5997);

    let id = placed["id"].as_str().unwrap();
    let mail = eventually("the e-mail about the order", async || {
        shop.stack
            .mails(&ada.email)
            .await
            .into_iter()
            .find(|m| m["BodyText"].as_str().is_some_and(|t| t.contains(id) && t.contains("Teapot")))
    })
    .await;
    for body in ["BodyText", "BodyHtml"] {
        assert!(mail[body].as_str().unwrap().contains("59.97"), "{mail}");
    }
    let texts = eventually("the text message", async || {
        Some(shop.stack.text_messages(&ada.phone).await).filter(|texts| !texts.is_empty())
    })
    .await;
    assert!(texts.iter().any(|text| text.contains("59.97")), "{texts:?}");

    let orders = ada.get("/orders?status=DONE").await.expect(StatusCode::OK);
    assert_eq!(orders["items"][0]["id"], id);
}

#[tokio::test]
async fn cancelling_a_finished_order_refunds_the_payment_and_releases_the_stock() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 4).await;
    let placed = ada.place(&[(&teapot, 4)], "tok_accepted").await.expect(StatusCode::CREATED);
    let id = placed["id"].as_str().unwrap();
    ada.order_with_status(id, "DONE").await;
    assert_eq!(shop.stock(&teapot).await, 0);

    ada.cancel(id).await.expect_success();
    let cancelled = ada.order_with_status(id, "CANCELLED").await;
    assert_eq!(shop.stock(&teapot).await, 4);
    let payment = ada.get(&format!("/payments/{}", cancelled["payment_id"].as_str().unwrap())).await;
    assert_eq!(payment.expect(StatusCode::OK)["status"], "REFUNDED");
    eventually("the e-mails: confirmed, cancelled, refunded", async || {
        (shop.stack.mails(&ada.email).await.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_order_names_the_reason_and_keeps_no_stock() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 2).await;
    let problem = ada.place(&[(&teapot, 1)], "tok_declined").await.expect_problem(402, "payment_declined");
    ada.order_with_status(problem["order_id"].as_str().unwrap(), "CANCELLED").await;
    let problem = ada.place(&[(&teapot, 3)], "tok_accepted").await.expect_problem(409, "out_of_stock");
    assert_eq!(problem["lines"][0]["available"], 2);
    ada.place(&[("prod_0195a8e0-0000-7000-8000-000000000001", 1)], "tok_accepted")
        .await
        .expect_problem(422, "unknown_product");
    ada.place(&[(&teapot, 0)], "tok_accepted").await.expect_problem(422, "invalid_request");
    assert_eq!(shop.stock(&teapot).await, 2);

    let nobody = shop.stack.signed_in("Nobody").await;
    nobody.place(&[(&teapot, 1)], "tok_accepted").await.expect_problem(422, "user_not_found");
    assert_eq!(shop.stock(&teapot).await, 2);
}

#[tokio::test]
async fn a_repeated_order_is_placed_once_and_gets_the_identical_answer() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 4).await;
    let place = async |quantity| ada.place_with_key(&[(&teapot, quantity)], "tok_accepted", "the-key").await;
    let first = place(1).await;
    let placed = first.expect(StatusCode::CREATED);
    ada.order_with_status(placed["id"].as_str().unwrap(), "DONE").await;
    let again = place(1).await;
    assert_eq!((first.status, first.text), (again.status, again.text));
    place(2).await.expect_problem(422, "idempotency_mismatch");
    assert_eq!(shop.stock(&teapot).await, 3);
}

#[tokio::test]
async fn a_payment_provider_that_fails_once_or_is_slow_charges_once() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 4).await;
    for token in ["tok_flaky", "tok_slow"] {
        let answer = ada.place(&[(&teapot, 1)], token).await;
        let placed = answer.expect_success();
        ada.order_with_status(placed["id"].as_str().unwrap(), "DONE").await;
    }
    assert_eq!(shop.stock(&teapot).await, 2);
}

#[tokio::test]
async fn a_refused_capture_cancels_the_order_and_releases_the_stock() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 4).await;
    let placed = ada.place(&[(&teapot, 1)], "tok_capture_refused").await.expect(StatusCode::CREATED);
    let order = ada.order_with_status(placed["id"].as_str().unwrap(), "CANCELLED").await;
    assert_eq!(statuses(&order), ["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]);
    assert_eq!(shop.stock(&teapot).await, 4);
}

#[tokio::test]
async fn a_profile_can_be_read_changed_and_erased() {
    let stack = Stack::deployed();
    let ada = stack.customer("Ada").await;
    let path = format!("/users/{}", ada.id);
    assert_eq!(ada.get(&path).await.expect(StatusCode::OK)["email"], ada.email);
    let change = Some(json!({ "name": "Countess" }));
    assert_eq!(ada.send(Method::PATCH, &path, change, &[]).await.expect(StatusCode::OK)["name"], "Countess");
    ada.send(Method::DELETE, &path, None, &[]).await.expect(StatusCode::NO_CONTENT);
    let stored = serde_json::to_string(&stack.scan("users").await).unwrap();
    assert!(!stored.contains(&ada.email));
}

#[tokio::test]
async fn anybody_reads_the_catalogue_and_only_administrators_change_it() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 4).await;
    let path = format!("/products/{teapot}");
    let answer = shop.stack.anonymous().get(&path).await;
    answer.expect(StatusCode::OK);
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();

    let change = || Some(json!({ "price": 4.5 }));
    let answer = ada.send(Method::PATCH, &path, change(), &[("if-match", &etag)]).await;
    answer.expect_problem(403, "forbidden");
    let answer = shop.admin.send(Method::PATCH, &path, change(), &[("if-match", &etag)]).await;
    assert_eq!(answer.expect(StatusCode::OK)["price"], json!(4.5));
    shop.admin
        .send(Method::PATCH, &path, change(), &[("if-match", &etag)])
        .await
        .expect_problem(412, "precondition_failed");

    let adjustment = json!({ "adjustment_id": "count-1", "delta": 6, "reason": "Delivery" });
    for _ in 0..2 {
        shop.admin.post(&format!("{path}/stock-adjustments"), adjustment.clone()).await.expect_success();
    }
    assert_eq!(shop.stock(&teapot).await, 10);
    assert!(
        !shop.stack.anonymous().get("/products").await.expect(StatusCode::OK)["items"].as_array().unwrap().is_empty()
    );
}

#[tokio::test]
async fn the_orders_payments_and_profile_of_another_customer_are_not_found() {
    let (shop, ada) = Shop::with_customer().await;
    let mallory = shop.stack.customer("Mallory").await;
    let teapot = shop.product("5.00", 4).await;
    let placed = ada.place(&[(&teapot, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    let id = placed["id"].as_str().unwrap();
    let paths = [
        format!("/orders/{id}"),
        format!("/payments/{}", placed["payment_id"].as_str().unwrap()),
        format!("/users/{}", ada.id),
    ];
    for path in paths {
        mallory.get(&path).await.expect_problem(404, "not_found");
        shop.stack.anonymous().get(&path).await.expect_problem(401, "unauthenticated");
        shop.admin.get(&path).await.expect_success();
    }
    mallory.post(&format!("/orders/{id}/cancel"), json!({})).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_deleted_profile_is_erased_in_orders_and_payments_too() {
    let (shop, ada) = Shop::with_customer().await;
    let teapot = shop.product("5.00", 4).await;
    let placed = ada.place(&[(&teapot, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    ada.order_with_status(placed["id"].as_str().unwrap(), "DONE").await;
    ada.send(Method::DELETE, &format!("/users/{}", ada.id), None, &[]).await.expect(StatusCode::NO_CONTENT);
    for table in ["orders", "payments"] {
        eventually(&format!("the erasure in {table}"), async || {
            let items = serde_json::to_string(&shop.stack.scan(table).await).unwrap();
            (!items.contains(&ada.email) && !items.contains(&ada.phone)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_access_token_and_a_forged_token_are_refused() {
    let stack = Stack::deployed();
    let mut ada = stack.customer("Ada").await;
    for token in [ada.access_token().await, ada.forged_token()] {
        ada.token = Some(token);
        ada.get("/orders").await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn internal_routes_are_not_public_and_require_a_signature_at_the_function_url() {
    let stack = Stack::deployed();
    let ada = stack.customer("Ada").await;
    let path = format!("/users/{}/validate", ada.id);
    let body = || Some(json!({ "as_of": 0 }));
    ada.send(Method::POST, &path, body(), &[]).await.expect_problem(404, "no_such_route");
    let answer = ada.send_to(&stack.services["users"], Method::POST, &path, body(), &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
}

#[tokio::test]
async fn every_service_reports_its_health_and_administrators_see_the_deep_check() {
    let stack = Stack::deployed();
    let admin = stack.admin().await;
    for service in ["users", "products", "orders", "payments", "notifications"] {
        let health = stack.anonymous().get(&format!("/health/{service}")).await.expect(StatusCode::OK);
        assert_eq!((&health["service"], &health["status"]), (&json!(service), &json!("ok")));
        let deep = format!("/health/{service}?deep=true");
        stack.anonymous().get(&deep).await.expect_problem(401, "unauthenticated");
        let health = admin.get(&deep).await.expect(StatusCode::OK);
        let dependencies: Vec<_> = health["dependencies"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        let expected = if service == "orders" { &["table", "users", "products", "payments"][..] } else { &["table"] };
        assert_eq!(dependencies, expected, "{service}");
        assert_eq!(health["status"], "ok", "{service}: {health}");
    }
}
