//! The three ways to run the shop give the same responses to the same requests.
//! `src/conformance.rs` contains the requests and the responses.

use std::collections::BTreeSet;

use stack_tests::{
    Stack,
    conformance::{RunMode, cases, differences},
    eventually,
    shop::Shop,
};

/// The address of a tool that runs the shop, from an environment variable.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; `make test` starts the tool and sets it"))
}

fn cargo_lambda_watch() -> String {
    address("HOLDFAST_WATCH_URL")
}

fn sam_local() -> String {
    address("HOLDFAST_SAM_LOCAL_URL")
}

async fn assert_answers(run_mode: RunMode, base: &str) {
    let failures = run_mode.failures(&Stack::deployed(), base).await;
    assert!(failures.is_empty(), "{} of {} answers:\n  {}", failures.len(), cases().len(), failures.join("\n  "));
}

#[tokio::test]
async fn the_gateway_gives_each_required_answer() {
    assert_answers(RunMode::Gateway, &Stack::deployed().api_url).await;
}

#[tokio::test]
async fn cargo_lambda_watch_answers_like_the_gateway_except_for_the_listed_differences() {
    assert_answers(RunMode::CargoLambdaWatch, &cargo_lambda_watch()).await;
}

#[tokio::test]
async fn sam_local_answers_like_the_gateway_except_for_the_listed_differences() {
    assert_answers(RunMode::SamLocal, &sam_local()).await;
}

#[test]
fn case_names_are_unique_and_each_listed_difference_differs_and_has_a_reason() {
    let cases = cases();
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len());
    let mut seen = BTreeSet::new();
    for difference in differences() {
        let name = difference.case;
        let case = cases.iter().find(|case| case.name == name);
        let case = case.unwrap_or_else(|| panic!("a difference names an unknown case: {name}"));
        assert!(case.expected() != &difference.answer, "the answer is the same as the gateway's: {name}");
        assert!(difference.reason.len() > 20, "the difference has no reason: {name}");
        assert!(seen.insert((difference.run_mode, name)), "the difference is listed twice: {name}");
    }
}

/// Places an order at the address `base`, and waits until the deployed worker has
/// finished the order and the deployed notifier has sent an e-mail about it.
async fn assert_order_is_finished(base: &str) {
    let shop = Shop::on(Stack { api_url: base.to_owned(), ..Stack::deployed() }).await;
    let ada = shop.stack.customer("Ada").await;
    let teapot = shop.product("19.99", 3).await;
    // The response may be 201 or 202: `sam local` first starts a container for each
    // function, so the time for the request may be over before the order is decided.
    let placed = ada.place_with_key(&[(&teapot, 1)], "tok_accepted", &ada.email).await.expect_success();
    let id = placed["id"].as_str().unwrap();
    ada.order_with_status(id, "DONE").await;
    eventually("the e-mail about the order", async || {
        let mails = shop.stack.mails(&ada.email).await;
        mails.into_iter().find(|mail| mail["BodyText"].as_str().is_some_and(|text| text.contains(id)))
    })
    .await;
}

#[tokio::test]
async fn an_order_placed_with_cargo_lambda_watch_is_finished_by_the_worker_and_an_e_mail_arrives() {
    assert_order_is_finished(&cargo_lambda_watch()).await;
}

#[tokio::test]
async fn an_order_placed_with_sam_local_is_finished_by_the_worker_and_an_e_mail_arrives() {
    assert_order_is_finished(&sam_local()).await;
}
