//! A customer's way through the shop, on the deployed stack.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use stack_tests::{Person, Stack, eventually};

async fn product(admin: &Person, price: &str, stock: u32) -> String {
    let price: Value = serde_json::from_str(price).unwrap();
    let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": price, "stock": stock });
    let product = admin.post("/products", body).await.expect(StatusCode::CREATED);
    product["id"].as_str().unwrap().to_owned()
}

async fn stock(person: &Person, product: &str) -> u64 {
    person.get(&format!("/products/{product}")).await.expect(StatusCode::OK)["stock"].as_u64().unwrap()
}

fn key() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn statuses(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_customer_orders_and_is_charged_once_and_told_by_e_mail_and_text_message() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "19.99", 10).await;

    let answer = ada.order(&[(&teapot, 3)], "tok_accepted", &key()).await;
    let placed = answer.expect(StatusCode::CREATED);
    assert!(answer.text.contains("\"total\":59.97"), "{}", answer.text);
    assert_eq!(stock(&ada, &teapot).await, 7);

    let done = ada.order_in(placed["id"].as_str().unwrap(), "DONE").await;
    assert_eq!(statuses(&done), ["PENDING", "CONFIRMED", "DONE"]);
    let payment = ada.get(&format!("/payments/{}", done["payment_id"].as_str().unwrap())).await;
    assert_eq!(payment.expect(StatusCode::OK)["status"], "CAPTURED");
    assert!(payment.text.contains("\"amount\":59.97"), "{}", payment.text);

    // The provider's own ledger agrees, to the cent.
    let ledger = stack.scan("sandbox_ledger").await;
    let charges: Vec<_> = ledger
        .iter()
        .filter(|c| c["pk"].as_str().is_some_and(|pk| pk.contains(done["payment_id"].as_str().unwrap())))
        .collect();
    assert_eq!(charges.len(), 1, "{ledger:?}");
    assert_eq!(charges[0]["amount_minor"], 5997);

    let id = placed["id"].as_str().unwrap();
    let mail = eventually("the e-mail about the order", async || {
        stack
            .mails(&ada.email)
            .await
            .into_iter()
            .find(|m| m["BodyText"].as_str().is_some_and(|t| t.contains(id) && t.contains("Teapot")))
    })
    .await;
    for body in ["BodyText", "BodyHtml"] {
        assert!(mail[body].as_str().unwrap().contains("59.97"), "{mail}");
    }
    let texts =
        eventually("the text message", async || Some(stack.texts(&ada.phone).await).filter(|texts| !texts.is_empty()))
            .await;
    assert!(texts.iter().any(|text| text.contains("59.97")), "{texts:?}");

    let orders = ada.get("/orders?status=DONE").await.expect(StatusCode::OK);
    assert_eq!(orders["items"][0]["id"], id);
}

#[tokio::test]
async fn a_cancelled_order_is_refunded_and_its_stock_comes_back() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 4).await;
    let placed = ada.order(&[(&teapot, 4)], "tok_accepted", &key()).await.expect(StatusCode::CREATED);
    let id = placed["id"].as_str().unwrap();
    ada.order_in(id, "DONE").await;
    assert_eq!(stock(&ada, &teapot).await, 0);

    let answer = ada.send(Method::POST, &format!("/orders/{id}/cancel"), None, &[]).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let cancelled = ada.order_in(id, "CANCELLED").await;
    assert_eq!(stock(&ada, &teapot).await, 4);
    let payment = ada.get(&format!("/payments/{}", cancelled["payment_id"].as_str().unwrap())).await;
    assert_eq!(payment.expect(StatusCode::OK)["status"], "REFUNDED");
    eventually("the e-mails: confirmed, cancelled, refunded", async || {
        (stack.mails(&ada.email).await.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn refusals_say_why_and_leave_nothing_behind() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 2).await;
    let problem = ada.order(&[(&teapot, 1)], "tok_declined", &key()).await.expect_problem(402, "payment_declined");
    ada.order_in(problem["order_id"].as_str().unwrap(), "CANCELLED").await;
    let problem = ada.order(&[(&teapot, 3)], "tok_accepted", &key()).await.expect_problem(409, "out_of_stock");
    assert_eq!(problem["lines"][0]["available"], 2);
    ada.order(&[("prod_0195a8e0-0000-7000-8000-000000000001", 1)], "tok_accepted", &key())
        .await
        .expect_problem(422, "unknown_product");
    ada.order(&[(&teapot, 0)], "tok_accepted", &key()).await.expect_problem(422, "invalid_request");
    assert_eq!(stock(&ada, &teapot).await, 2);

    let mut nobody = stack.sign_up("Nobody").await;
    nobody.sign_in().await;
    nobody.order(&[(&teapot, 1)], "tok_accepted", &key()).await.expect_problem(422, "user_not_found");
    assert_eq!(stock(&ada, &teapot).await, 2);
}

#[tokio::test]
async fn a_repeated_order_is_one_order_and_its_answer_the_same_bytes() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 4).await;
    let key = key();
    let first = ada.order(&[(&teapot, 1)], "tok_accepted", &key).await;
    let placed = first.expect(StatusCode::CREATED);
    ada.order_in(placed["id"].as_str().unwrap(), "DONE").await;
    let again = ada.order(&[(&teapot, 1)], "tok_accepted", &key).await;
    assert_eq!((first.status, first.text), (again.status, again.text));
    ada.order(&[(&teapot, 2)], "tok_accepted", &key).await.expect_problem(422, "idempotency_mismatch");
    assert_eq!(stock(&ada, &teapot).await, 3);
}

#[tokio::test]
async fn a_provider_that_fails_once_or_is_slow_still_charges_once() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 4).await;
    for token in ["tok_flaky", "tok_slow"] {
        let answer = ada.order(&[(&teapot, 1)], token, &key()).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        let id = answer.expect(answer.status)["id"].as_str().unwrap().to_owned();
        ada.order_in(&id, "DONE").await;
    }
    assert_eq!(stock(&ada, &teapot).await, 2);
}

#[tokio::test]
async fn a_capture_that_is_refused_undoes_the_order() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 4).await;
    let placed = ada.order(&[(&teapot, 1)], "tok_capture_refused", &key()).await.expect(StatusCode::CREATED);
    let order = ada.order_in(placed["id"].as_str().unwrap(), "CANCELLED").await;
    assert_eq!(statuses(&order), ["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]);
    assert_eq!(stock(&ada, &teapot).await, 4);
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
async fn the_catalogue_is_open_and_kept_by_administrators() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 4).await;
    let path = format!("/products/{teapot}");
    let answer = stack.stranger().get(&path).await;
    answer.expect(StatusCode::OK);
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();

    let change = || Some(json!({ "price": 4.5 }));
    let answer = ada.send(Method::PATCH, &path, change(), &[("if-match", &etag)]).await;
    answer.expect_problem(403, "forbidden");
    let answer = admin.send(Method::PATCH, &path, change(), &[("if-match", &etag)]).await;
    assert_eq!(answer.expect(StatusCode::OK)["price"], json!(4.5));
    admin.send(Method::PATCH, &path, change(), &[("if-match", &etag)]).await.expect_problem(412, "precondition_failed");

    let adjustment = json!({ "adjustment_id": "count-1", "delta": 6, "reason": "Delivery" });
    for _ in 0..2 {
        let answer = admin.post(&format!("{path}/stock-adjustments"), adjustment.clone()).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    assert_eq!(stock(&ada, &teapot).await, 10);
    assert!(!stack.stranger().get("/products").await.expect(StatusCode::OK)["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn what_belongs_to_others_is_not_found() {
    let stack = Stack::deployed();
    let (admin, ada, mallory) = (stack.admin().await, stack.customer("Ada").await, stack.customer("Mallory").await);
    let teapot = product(&admin, "5.00", 4).await;
    let placed = ada.order(&[(&teapot, 1)], "tok_accepted", &key()).await.expect(StatusCode::CREATED);
    let id = placed["id"].as_str().unwrap();
    let paths = [
        format!("/orders/{id}"),
        format!("/payments/{}", placed["payment_id"].as_str().unwrap()),
        format!("/users/{}", ada.id),
    ];
    for path in paths {
        mallory.get(&path).await.expect_problem(404, "not_found");
        stack.stranger().get(&path).await.expect_problem(401, "unauthenticated");
        assert!(admin.get(&path).await.status.is_success(), "{path}");
    }
    mallory.post(&format!("/orders/{id}/cancel"), json!({})).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_customer_who_leaves_is_erased_in_orders_and_payments_too() {
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = product(&admin, "5.00", 4).await;
    let placed = ada.order(&[(&teapot, 1)], "tok_accepted", &key()).await.expect(StatusCode::CREATED);
    ada.order_in(placed["id"].as_str().unwrap(), "DONE").await;
    ada.send(Method::DELETE, &format!("/users/{}", ada.id), None, &[]).await.expect(StatusCode::NO_CONTENT);
    for table in ["orders", "payments"] {
        eventually(&format!("the erasure in {table}"), async || {
            let items = serde_json::to_string(&stack.scan(table).await).unwrap();
            (!items.contains(&ada.email) && !items.contains(&ada.phone)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_access_token_and_a_tampered_token_open_nothing() {
    let stack = Stack::deployed();
    let mut ada = stack.customer("Ada").await;
    let access = ada.tokens().await["AccessToken"].as_str().unwrap().to_owned();
    let id_token = ada.token.replace(access).unwrap();
    ada.get("/orders").await.expect_problem(401, "unauthenticated");
    let (rest, _) = id_token.rsplit_once('.').unwrap();
    ada.token = Some(format!("{rest}.{}", "A".repeat(342)));
    ada.get("/orders").await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn internal_routes_are_not_on_the_public_api_and_want_a_signature_on_their_own() {
    let stack = Stack::deployed();
    let ada = stack.customer("Ada").await;
    let path = format!("/users/{}/validate", ada.id);
    let heard = || Some(json!({ "as_of": 0 }));
    ada.send(Method::POST, &path, heard(), &[]).await.expect_problem(404, "no_such_route");
    let answer = ada.send_to(&stack.internal_api_url, Method::POST, &path, heard(), &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
}

#[tokio::test]
async fn every_service_tells_that_it_is_there_and_administrators_how_it_does() {
    let stack = Stack::deployed();
    let admin = stack.admin().await;
    for service in ["users", "products", "orders", "payments", "notifications"] {
        let health = stack.stranger().get(&format!("/health/{service}")).await.expect(StatusCode::OK);
        assert_eq!((&health["service"], &health["status"]), (&json!(service), &json!("ok")));
        let deep = format!("/health/{service}?deep=true");
        stack.stranger().get(&deep).await.expect_problem(401, "unauthenticated");
        assert_eq!(admin.get(&deep).await.expect(StatusCode::OK)["table"], "ok", "{service}");
    }
}
