//! What the gateway does before any function is invoked.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;
use stack_tests::Stack;

/// The id of the API at an address.
fn api_id(address: &str) -> &str {
    address.trim_end_matches("/v1").rsplit('/').next().expect("an API's id")
}

#[tokio::test]
async fn every_deployed_route_wants_a_token_or_a_signature_but_the_open_ones() {
    let stack = Stack::deployed();
    let open = [
        "GET /health/notifications",
        "GET /health/orders",
        "GET /health/payments",
        "GET /health/products",
        "GET /health/users",
        "GET /products",
        "GET /products/{id}",
    ];
    for (address, authorizer, open) in
        [(&stack.api_url, "COGNITO_USER_POOLS", &open[..]), (&stack.internal_api_url, "AWS_IAM", &[])]
    {
        let get = ["apigateway", "get-resources", "--embed", "methods", "--output", "json"];
        let get = [&get[..], &["--rest-api-id", api_id(address)]].concat();
        let resources: Value = serde_json::from_str(&stack.aws(&get).await).expect("resources in JSON");
        let mut found = BTreeSet::new();
        for resource in resources["items"].as_array().expect("resources") {
            for (verb, method) in resource["resourceMethods"].as_object().into_iter().flatten() {
                let route = format!("{verb} {}", resource["path"].as_str().expect("a path"));
                match method["authorizationType"].as_str() {
                    // A browser's question before the request: the gateway
                    // answers it by itself.
                    Some("NONE") if verb == "OPTIONS" => {
                        assert_eq!(method["methodIntegration"]["type"], "MOCK", "{route}");
                    }
                    Some("NONE") => {
                        found.insert(route);
                    }
                    other => assert_eq!(other, Some(authorizer), "{route}"),
                }
            }
        }
        assert_eq!(found, BTreeSet::from_iter(open.iter().map(ToString::to_string)));
    }
}

#[tokio::test]
async fn who_orders_too_often_is_told_so_and_may_still_read() {
    let stack = Stack::deployed();
    let ada = stack.customer("Ada").await;
    let stage = ["--rest-api-id", api_id(&stack.api_url), "--stage-name", "v1"];
    let query = "methodSettings.\"/orders/POST\".[throttlingRateLimit,throttlingBurstLimit]";
    let get = [&["apigateway", "get-stage", "--output", "text", "--query", query], &stage[..]].concat();
    let limits = stack.aws(&get).await;
    let (rate, burst) = limits.trim().split_once('\t').expect("two limits");

    let throttle = async |rate: &str, burst: &str| {
        let change =
            |limit: &str, value: &str| format!("op=replace,path=/~1orders/POST/throttling/{limit},value={value}");
        let (rate, burst) = (change("rateLimit", rate), change("burstLimit", burst));
        let update = ["apigateway", "update-stage", "--patch-operations", &rate, &burst];
        stack.aws(&[&update[..], &stage[..]].concat()).await;
    };
    throttle("0", "0").await;
    let ordered = ada.order(&[("prod_0195a8e0-0000-7000-8000-000000000001", 1)], "tok_accepted", "the-key").await;
    let read = ada.get("/orders").await;
    throttle(rate, burst).await;
    ordered.expect_problem(429, "too_many_requests");
    assert_eq!(ordered.headers["retry-after"], "1");
    read.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_browser_on_somebody_elses_page_is_not_let_in() {
    let stranger = Stack::deployed().stranger();
    let question = [("origin", "https://example.com"), ("access-control-request-method", "POST")];
    let answer = stranger.send(Method::OPTIONS, "/orders", None, &question).await;
    assert!(answer.headers.get("access-control-allow-origin").is_none(), "{answer:?}");
}
