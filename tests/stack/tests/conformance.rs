//! The three ways to run the shop give the same answers to the same requests.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};
use stack_tests::{
    Stack,
    conformance::{Way, cases, differences},
    eventually,
};

/// Where a way to run the shop has been started.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names where it runs; `make test` starts it"))
}

fn watch() -> String {
    address("HOLDFAST_WATCH_URL")
}

fn sam_local() -> String {
    address("HOLDFAST_SAM_LOCAL_URL")
}

async fn answers_as_expected(way: Way, base: &str) {
    let faults = way.faults(&Stack::deployed(), base).await;
    assert!(faults.is_empty(), "{} of {} answers:\n  {}", faults.len(), cases().len(), faults.join("\n  "));
}

#[tokio::test]
async fn the_gateway_answers_as_it_should() {
    answers_as_expected(Way::Gateway, &Stack::deployed().api_url).await;
}

#[tokio::test]
async fn cargo_lambda_watch_answers_as_the_gateway_but_where_it_is_known_not_to() {
    answers_as_expected(Way::CargoLambdaWatch, &watch()).await;
}

#[tokio::test]
async fn sam_local_answers_as_the_gateway_but_where_it_is_known_not_to() {
    answers_as_expected(Way::SamLocal, &sam_local()).await;
}

#[test]
fn each_case_has_a_name_of_its_own_and_each_difference_is_one() {
    let cases = cases();
    let names: BTreeSet<_> = cases.iter().map(|case| case.says).collect();
    assert_eq!(names.len(), cases.len());
    let mut seen = BTreeSet::new();
    for difference in differences() {
        let case = cases.iter().find(|case| case.says == difference.says);
        let case = case.unwrap_or_else(|| panic!("there is no case «{}»", difference.says));
        assert!(case.expected() != &difference.answers, "«{}» is no difference", difference.says);
        assert!(difference.because.len() > 20, "«{}» has no reason", difference.says);
        assert!(seen.insert((difference.way, difference.says)), "«{}» is there twice", difference.says);
    }
}

/// An order that is placed at `base`; the rest is the deployed worker's and
/// the deployed notifier's.
async fn an_order_comes_to_its_end(base: &str) {
    let stack = Stack { api_url: base.to_owned(), ..Stack::deployed() };
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let teapot = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 3 });
    let teapot = admin.post("/products", teapot).await.expect(StatusCode::CREATED);
    let placed = ada.order(&[(teapot["id"].as_str().unwrap(), 1)], "tok_accepted", &ada.email).await;
    // Decided or not yet: where each function is a container that has to start,
    // time may run out.
    assert!(placed.status.is_success(), "{} {}", placed.status, placed.text);
    let placed: Value = serde_json::from_str(&placed.text).unwrap();
    let id = placed["id"].as_str().unwrap();
    ada.order_in(id, "DONE").await;
    eventually("the e-mail about the order", async || {
        let mails = stack.mails(&ada.email).await;
        mails.into_iter().find(|mail| mail["BodyText"].as_str().is_some_and(|text| text.contains(id)))
    })
    .await;
}

#[tokio::test]
async fn an_order_placed_with_cargo_lambda_watch_is_finished_by_the_worker_and_an_e_mail_arrives() {
    an_order_comes_to_its_end(&watch()).await;
}

#[tokio::test]
async fn an_order_placed_with_sam_local_is_finished_by_the_worker_and_an_e_mail_arrives() {
    an_order_comes_to_its_end(&sam_local()).await;
}
