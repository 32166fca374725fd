//! Tests of the deployed gateway: of requests that the gateway refuses before it
//! invokes a function, and of odd requests that it passes on unchanged.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::Value;
use stack_tests::Stack;

/// The id of the API, which is part of its address.
fn api_id(address: &str) -> &str {
    address.trim_end_matches("/v1").rsplit('/').next().expect("an API's id")
}

#[tokio::test]
async fn every_deployed_route_requires_a_token_except_the_open_routes() {
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
    let get = ["apigateway", "get-resources", "--embed", "methods", "--output", "json"];
    let get = [&get[..], &["--rest-api-id", api_id(&stack.api_url)]].concat();
    let resources: Value = serde_json::from_str(&stack.aws(&get).await).expect("resources in JSON");
    let mut found = BTreeSet::new();
    for resource in resources["items"].as_array().expect("resources") {
        for (verb, method) in resource["resourceMethods"].as_object().into_iter().flatten() {
            let route = format!("{verb} {}", resource["path"].as_str().expect("a path"));
            match method["authorizationType"].as_str() {
                // The gateway itself answers a browser's preflight request.
                Some("NONE") if verb == "OPTIONS" => {
                    assert_eq!(method["methodIntegration"]["type"], "MOCK", "{route}");
                }
                Some("NONE") => {
                    found.insert(route);
                }
                other => assert_eq!(other, Some("COGNITO_USER_POOLS"), "{route}"),
            }
        }
    }
    assert_eq!(found, BTreeSet::from(open.map(String::from)));
}

#[tokio::test]
async fn every_deployed_function_url_requires_a_signature() {
    let stack = Stack::deployed();
    let mut with_url = BTreeSet::new();
    for (name, function) in &stack.functions {
        let list = ["lambda", "list-function-url-configs", "--output", "json", "--function-name", function];
        let urls: Value = serde_json::from_str(&stack.aws(&list).await).expect("URLs in JSON");
        for url in urls["FunctionUrlConfigs"].as_array().expect("URLs") {
            assert_eq!(url["AuthType"], "AWS_IAM", "{url}");
            // The URL belongs to the alias.
            let get = ["lambda", "get-function-url-config", "--function-name", function, "--qualifier", "live"];
            let of_alias: Value = serde_json::from_str(&stack.aws(&[&get[..], &["--output", "json"]].concat()).await)
                .expect("a URL in JSON");
            assert_eq!(of_alias["FunctionUrl"], url["FunctionUrl"]);
            with_url.insert(name.as_str());
        }
    }
    assert_eq!(with_url, BTreeSet::from(["payments", "products", "users"]));
    for (service, url) in &stack.services {
        let answer = stack.anonymous().send_to(url, Method::GET, &format!("/health/{service}"), None, &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_client_that_orders_too_often_is_refused_with_429_and_may_still_read() {
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
    let ordered = ada.place(&[("prod_0195a8e0-0000-7000-8000-000000000001", 1)], "tok_accepted").await;
    let read = ada.get("/orders").await;
    throttle(rate, burst).await;
    ordered.expect_problem(429, "too_many_requests");
    assert_eq!(ordered.headers["retry-after"], "1");
    read.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_preflight_request_from_another_origin_is_not_allowed() {
    let anonymous = Stack::deployed().anonymous();
    let preflight = [("origin", "https://example.com"), ("access-control-request-method", "POST")];
    let answer = anonymous.send(Method::OPTIONS, "/orders", None, &preflight).await;
    assert!(answer.headers.get("access-control-allow-origin").is_none(), "{answer:?}");
}

/// Sends a request that no HTTP client would send. Returns the status and the
/// whole text of the response.
fn send_bytes(stack: &Stack, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let api: http::Uri = stack.api_url.parse().expect("an address");
    let authority = api.authority().expect("a host");
    let mut connection = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).expect("a gateway");
    connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
    let request = format!(
        "{method} {}{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        api.path(),
        body.len(),
    );
    connection.write_all(request.as_bytes()).expect("a connection");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8(answer).expect("a text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[tokio::test]
async fn control_characters_in_a_header_do_not_cause_a_server_error() {
    let stack = Stack::deployed();
    for value in ["\u{1}", "a\u{7f}b", "\u{1b}[0m"] {
        let (status, answer) = send_bytes(&stack, "GET", "/products", &format!("x-thing: {value}\r\n"), "");
        // The function answers 200. A gateway may refuse the request with 400.
        assert!([200, 400].contains(&status), "{value:?}: {answer}");
    }
}

#[tokio::test]
async fn a_path_that_ends_in_an_escaped_delimiter_reaches_no_resource() {
    let stack = Stack::deployed();
    let ada = stack.customer("Ada").await;
    let authorization = format!("authorization: Bearer {}\r\n", ada.token.as_deref().expect("a token"));
    for ending in ["%3Fx=1", "%3F", "%23", "%23x", "%00", "%5C", "%5Cvalidate", "%2F", "%2Fvalidate", "%253F", "%0A"] {
        for method in ["GET", "DELETE"] {
            let path = format!("/users/{}{ending}", ada.id);
            let (status, answer) = send_bytes(&stack, method, &path, &authorization, "");
            // 403 and 404 may come from the gateway, which finds no route for the path.
            assert!([400, 403, 404, 422].contains(&status), "{method} {path}: {answer}");
        }
    }
    ada.get(&format!("/users/{}", ada.id)).await.expect(StatusCode::OK);
    for id in ["ord_1%3F", "ord_1%23"] {
        let (status, answer) = send_bytes(&stack, "POST", &format!("/orders/{id}/cancel"), &authorization, "");
        assert_eq!(status, 422, "{id}: {answer}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused_and_the_answer_names_the_accepted_encoding() {
    let stack = Stack::deployed();
    let ada = stack.customer("Ada").await;
    for coding in ["br", "gzip"] {
        let headers = [("content-encoding", coding)];
        let answer = ada.send(Method::POST, "/orders", Some(Value::Object(Default::default())), &headers).await;
        answer.expect_problem(415, "unsupported_content_encoding");
        assert_eq!(answer.headers["accept-encoding"], "identity");
    }
}

#[tokio::test]
async fn the_gateways_own_refusals_have_cors_headers() {
    let anonymous = Stack::deployed().anonymous();
    for (path, status) in [("/orders", 401), ("/nothing/here", 404)] {
        let answer = anonymous.send(Method::POST, path, None, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        // The stack allows no origin, so the header names a placeholder that no page can have as its origin.
        assert_eq!(answer.headers["access-control-allow-origin"], "https://nowhere.invalid", "{answer:?}");
        let exposed = answer.headers["access-control-expose-headers"].to_str().expect("a list of names");
        assert!(exposed.split(',').any(|name| name == "retry-after"), "{exposed}");
    }
}

#[tokio::test]
async fn a_token_for_another_client_of_the_user_pool_is_refused() {
    let stack = Stack::deployed();
    let create = ["cognito-idp", "create-user-pool-client", "--client-name", "another", "--output", "text"];
    let flows = ["--explicit-auth-flows", "ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"];
    let of_pool = ["--user-pool-id", &stack.user_pool_id, "--query", "UserPoolClient.ClientId"];
    let client_id = stack.aws(&[&create[..], &flows, &of_pool].concat()).await.trim().to_owned();
    let other = Stack { client_id, ..stack };
    // The user pool has signed the token, so the gateway accepts it. The function
    // refuses it, because the token's audience is another client.
    let ada = other.signed_in("Ada").await;
    ada.get("/orders").await.expect_problem(401, "unauthenticated");
}
