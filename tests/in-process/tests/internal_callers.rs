//! Tests of the routes between services: the called service checks which role may call
//! which route, and answers nobody else.

use std::collections::BTreeSet;

use axum::body::Body;
use chassis::{clock::Clock, config::Configuration};
use http::{Method, Request, StatusCode};
use in_process_tests::{
    Caller, World,
    template::Template,
    world::{self, configured},
};
use serde_json::{Value, json};

const FUNCTIONS: [&str; 6] = ["users", "products", "orders", "order-worker", "payments", "notifications"];

/// A valid path for the pattern of a route.
fn path(pattern: &str) -> String {
    let prefix = match pattern.split('/').nth(1) {
        Some("users") => "user",
        Some("payments") => "pay",
        _ => "ord",
    };
    pattern.replace("{id}", &format!("{prefix}_0195a8e0-0000-7000-8000-000000000001"))
}

/// The event with which a function URL passes on a call of the orders function to the users
/// service.
fn event() -> Value {
    serde_json::from_str(include_str!("../../../events/users/http-v2-validate-for-orders.json")).unwrap()
}

/// Sends an event to the users service. Returns the status and the problem's code.
async fn answer(world: &World, event: &Value) -> (u64, Value) {
    let answer = world.invoke("users", &event.to_string()).await.unwrap();
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    (answer["statusCode"].as_u64().unwrap(), body["code"].clone())
}

fn forbidden() -> (u64, Value) {
    (403, json!("forbidden"))
}

#[tokio::test]
async fn each_role_may_call_exactly_the_routes_that_the_template_lists() {
    let world = World::start().await;
    let template = Template::read();
    let roles: Vec<_> = template.functions().map(|function| (function.name, function.role())).collect();
    let routes: BTreeSet<_> = template.internal_routes().map(|route| (route.method, route.path)).collect();
    assert_eq!((roles.len(), routes.len()), (FUNCTIONS.len(), 11));
    for (function, role) in roles {
        for (method, pattern) in &routes {
            let listed =
                template.internal_routes().any(|it| (it.caller, it.method, it.path) == (role, *method, *pattern));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = world.send(&Caller::function(function), method, &path(pattern), Some(json!({}))).await;
            assert_eq!(answer.status != StatusCode::FORBIDDEN, listed, "{function} {pattern}: {}", answer.text);
            if !listed {
                answer.expect_problem(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn the_role_must_be_of_the_same_account_and_partition() {
    let world = World::start().await;
    let orders = world::session("orders");
    let call = async |arn: &str| {
        let (caller, path) = (Caller::identity(arn), path("/users/{id}/validate"));
        world.post(&caller, &path, json!({ "as_of": 0 })).await
    };
    call(&orders).await.expect(StatusCode::OK);
    for arn in [
        orders.replace("000000000000", "000000000001"),
        orders.replace("arn:aws:", "arn:aws-cn:"),
        orders.replace(":sts:", ":iam:"),
        orders.replace("assumed-role", "role"),
        "arn:aws:iam::000000000000:role/OrdersRole".to_owned(),
        "arn:aws:iam::000000000000:user/OrdersRole".to_owned(),
        "arn:aws:iam::000000000000:root".to_owned(),
        "arn:aws:sts::000000000000:federated-user/OrdersRole".to_owned(),
        "OrdersRole".to_owned(),
        String::new(),
    ] {
        call(&arn).await.expect_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn only_the_identity_that_the_function_url_has_checked_counts() {
    let world = World::start().await;
    assert_eq!(answer(&world, &event()).await.0, 200);
    // No identity at all. The headers stay, but nobody has checked them.
    for change in [
        json!(null),
        json!({}),
        json!({ "iam": null }),
        json!({ "iam": { "userArn": null } }),
        json!({ "iam": { "userId": "AROAEXAMPLEEXAMPLE123:orders", "callerId": "OrdersRole" } }),
        json!({ "lambda": { "iam": { "userArn": world::session("orders") } } }),
        json!({ "userArn": world::session("orders") }),
    ] {
        let mut event = event();
        event["requestContext"]["authorizer"] = change.clone();
        assert_eq!(answer(&world, &event).await, forbidden(), "{change}");
    }
    // A client can set headers and the body, but not the context.
    let mut forged = event();
    forged["requestContext"].as_object_mut().unwrap().remove("authorizer");
    for header in ["x-amzn-iam-user-arn", "x-amz-user-arn", "userarn"] {
        forged["headers"][header] = world::session("orders").into();
    }
    let context = json!({ "authorizer": { "iam": { "userArn": world::session("orders") } } });
    forged["body"] = json!({ "as_of": 0, "requestContext": context }).to_string().into();
    assert_eq!(answer(&world, &forged).await, forbidden());
}

/// The public API is a REST API. No REST API of this system checks signatures, so an
/// identity in such an event counts as little as none.
#[tokio::test]
async fn no_event_of_the_public_api_reaches_a_route_between_services() {
    let world = World::start().await;
    let mut event: Value =
        serde_json::from_str(include_str!("../../../events/users/http-v1-create-profile.json")).unwrap();
    let target = path("/users/{id}/validate");
    (event["path"], event["resource"]) = (target.into(), "/users/{id}/validate".into());
    event["body"] = json!({ "as_of": 0 }).to_string().into();
    assert_eq!(answer(&world, &event).await, forbidden());
    event["requestContext"]["identity"]["userArn"] = world::session("orders").into();
    assert_eq!(answer(&world, &event).await, forbidden());
    event["requestContext"]["authorizer"]["iam"] = json!({ "userArn": world::session("orders") });
    assert_eq!(answer(&world, &event).await, forbidden());
}

#[tokio::test]
async fn a_service_gets_no_answer_on_a_route_for_people_not_even_on_an_open_route() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let token = format!("Bearer {}", ada.token());
    for function in ["orders", "order-worker"] {
        for route in [
            "/products",
            "/health/users",
            "/users/none/validate",
            "/products/reserve",
            "/payments",
            "/health/orders?deep=true",
            "/orders",
            "/users/none",
            "/payments/none",
        ] {
            for authorization in ["AWS4-HMAC-SHA256 Credential=none", &token] {
                let request = Request::get(route).header("authorization", authorization).body(Body::empty()).unwrap();
                world.send_raw(&Caller::function(function), request).await.expect_problem(403, "forbidden");
            }
        }
    }
}

/// Even if a table admitted a service to a route for people, a person's token beside the
/// service's identity would not count.
#[tokio::test]
async fn a_service_is_no_person_even_if_the_table_admits_it_and_it_has_a_persons_token() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let route = format!("/users/{}", ada.id());
    let read = async |caller: &Caller| {
        let request = Request::get(&route).header("authorization", format!("Bearer {}", ada.token()));
        world.send_raw(caller, request.body(Body::empty()).unwrap()).await
    };
    read(&Caller::anonymous()).await.expect(StatusCode::OK);
    let callers = "arn:aws:iam::000000000000:role/OrdersRole GET /users/{id}";
    let config = users::config::Config::from_variables(&|name| match name {
        "INTERNAL_CALLERS" => Some(callers.to_owned()),
        name => world::variable("users", name),
    });
    let aws = world::aws(world.cloud.clone()).await;
    world.cloud.serve("users", users::build(config.unwrap(), &aws, Clock::System));
    read(&Caller::function("orders")).await.expect_problem(403, "forbidden");
    read(&Caller::anonymous()).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn without_a_gateway_that_checks_signatures_everybody_is_accepted_as_a_service() {
    let world = World::start().await;
    let config = users::config::Config::from_variables(&|name| match name {
        "INTERNAL_AUTH" => Some("none".to_owned()),
        "INTERNAL_CALLERS" => None,
        name => world::variable("users", name),
    });
    let aws = world::aws(world.cloud.clone()).await;
    world.cloud.serve("users", users::build(config.unwrap(), &aws, Clock::System));
    for caller in [Caller::anonymous(), Caller::function("orders"), Caller::function("notifications")] {
        world.post(&caller, &path("/users/{id}/validate"), json!({ "as_of": 0 })).await.expect(StatusCode::OK);
    }
}

#[test]
fn a_service_does_not_start_without_a_valid_list_of_its_callers() {
    for function in ["users", "products", "payments"] {
        let start = |auth: &str, callers: Option<&str>| {
            let callers = callers.map(str::to_owned);
            configured(function, &[("INTERNAL_AUTH", Some(auth.to_owned())), ("INTERNAL_CALLERS", callers)])
        };
        let error = start("iam", None).unwrap_err().to_string();
        assert!(error.contains("INTERNAL_CALLERS is missing"), "{error}");
        for malformed in ["*", "OrdersRole POST /payments", "arn:aws:iam::000000000000:role/OrdersRole"] {
            let error = start("iam", Some(malformed)).unwrap_err().to_string();
            assert!(error.contains("INTERNAL_CALLERS cannot be used"), "{error}");
        }
        assert!(start("none", None).is_ok());
        assert!(start("maybe", None).is_err());
    }
}
