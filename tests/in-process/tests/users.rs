//! The users service: creating, reading, changing and leaving.

use http::{Method, StatusCode};
use in_process_tests::{Person, World};
use serde_json::json;

#[tokio::test]
async fn a_signed_in_person_creates_their_profile_with_their_verified_address_and_phone() {
    let world = World::start().await;
    let ada = Person::named("Ada");
    let answer = world.post(&ada, "/users", json!({ "name": " Ada Lovelace ", "email": "ADA@example.com" })).await;
    let user = answer.expect(StatusCode::CREATED);
    assert_eq!(user["id"], ada.id().to_string());
    assert_eq!(user["name"], "Ada Lovelace");
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(user["phone"], ada.phone());
    assert_eq!(user["status"], "ACTIVE");
    assert_eq!(answer.header("location"), Some(format!("users/{}", ada.id()).as_str()));
    assert_eq!(world.get(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::OK), user);
}

#[tokio::test]
async fn a_profile_takes_no_address_that_the_pool_did_not_verify() {
    let world = World::start().await;
    let ada = Person::named("Ada");
    let body = json!({ "name": "Ada", "email": "somebody.else@example.com" });
    world.post(&ada, "/users", body).await.expect_bad_fields(&["email"]);
    let body = json!({ "name": "Ada", "email": ada.email() });
    world.post(&ada.but("email_verified", "false"), "/users", body).await.expect_bad_fields(&["email"]);
}

#[tokio::test]
async fn a_second_profile_and_a_taken_address_are_conflicts() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let body = json!({ "name": "Ada", "email": ada.email() });
    world.post(&ada, "/users", body.clone()).await.expect_problem(409, "user_exists");
    let other = Person::named("Other").but("email", ada.email());
    world.post(&other, "/users", body).await.expect_problem(409, "email_taken");
    world.get(&other, &format!("/users/{}", other.id())).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn every_bad_field_is_named_at_once() {
    let world = World::start().await;
    let ada = Person::named("Ada");
    world.post(&ada, "/users", json!({ "name": "", "email": "x" })).await.expect_bad_fields(&["email", "name"]);
    world.post(&ada, "/users", json!({ "name": "Ada", "email": 7 })).await.expect_bad_fields(&["email"]);
    let extra = json!({ "name": "Ada", "email": ada.email(), "admin": true });
    world.post(&ada, "/users", extra).await.expect_bad_fields(&["admin"]);
    world.post(&ada, "/users", json!([])).await.expect_bad_fields(&["body"]);
}

#[tokio::test]
async fn somebody_elses_profile_is_not_found_but_an_administrator_reads_it() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    let mallory = world.customer("Mallory").await;
    world.get(&mallory, &path).await.expect_problem(404, "not_found");
    world.patch(&mallory, &path, json!({ "name": "M" })).await.expect_problem(404, "not_found");
    world.delete(&mallory, &path).await.expect_problem(404, "not_found");
    assert_eq!(world.get(&Person::admin(), &path).await.expect(StatusCode::OK)["name"], "Ada");
}

#[tokio::test]
async fn a_profile_follows_its_owners_changes() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    let user = world.patch(&ada, &path, json!({ "name": "Countess" })).await.expect(StatusCode::OK);
    assert_eq!((&user["name"], &user["email"]), (&json!("Countess"), &json!(ada.email())));

    let moved = ada.but("email", "countess@example.com");
    let user = world.patch(&moved, &path, json!({ "email": "countess@example.com" })).await.expect(StatusCode::OK);
    assert_eq!(user["email"], "countess@example.com");

    // The old address is free again, the new one is not.
    let next = Person::named("Next").but("email", ada.email());
    world.post(&next, "/users", json!({ "name": "N", "email": ada.email() })).await.expect(StatusCode::CREATED);
    let third = Person::named("Third").but("email", "countess@example.com");
    let body = json!({ "name": "T", "email": "countess@example.com" });
    world.post(&third, "/users", body).await.expect_problem(409, "email_taken");
}

#[tokio::test]
async fn an_administrator_may_rename_but_not_readdress() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let admin = Person::admin();
    let path = format!("/users/{}", ada.id());
    let user = world.patch(&admin, &path, json!({ "name": "A." })).await.expect(StatusCode::OK);
    assert_eq!((&user["name"], &user["phone"]), (&json!("A."), &json!(ada.phone())));
    world.patch(&admin, &path, json!({ "email": admin.email() })).await.expect_bad_fields(&["email"]);
}

#[tokio::test]
async fn leaving_erases_personal_data_and_frees_the_address() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    world.delete(&ada, &path).await.expect(StatusCode::NO_CONTENT);
    world.delete(&ada, &path).await.expect(StatusCode::NO_CONTENT);

    let stored = serde_json::to_string(&world.cloud.scan("UsersTable")).unwrap();
    assert!(!stored.contains(ada.email()) && !stored.contains(ada.phone()) && !stored.contains("Ada"), "{stored}");
    let user = world.get(&ada, &path).await.expect(StatusCode::OK);
    assert_eq!((&user["status"], &user["email"]), (&json!("INACTIVE"), &json!(null)));

    let body = json!({ "name": "Ada", "email": ada.email() });
    world.post(&ada, "/users", body.clone()).await.expect_problem(409, "user_inactive");
    world.patch(&ada, &path, json!({ "name": "Ada" })).await.expect_problem(409, "user_inactive");
    let heir = Person::named("Heir").but("email", ada.email());
    world.post(&heir, "/users", body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn other_services_learn_whether_a_user_may_order_and_how_to_reach_them() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}/validate", ada.id());
    let service = Person::service();
    let recipient = json!({ "name": "Ada", "email": ada.email(), "phone": ada.phone() });
    assert_eq!(
        world.get(&service, &path).await.expect(StatusCode::OK),
        json!({ "valid": true, "recipient": recipient })
    );
    world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(
        world.get(&service, &path).await.expect(StatusCode::OK),
        json!({ "valid": false, "reason": "user_inactive" })
    );
    let nobody = format!("/users/{}/validate", Person::named("Nobody").id());
    assert_eq!(
        world.get(&service, &nobody).await.expect(StatusCode::OK),
        json!({ "valid": false, "reason": "user_not_found" })
    );
}

#[tokio::test]
async fn people_do_not_reach_internal_routes_and_services_do_not_pass_as_people() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let validate = format!("/users/{}/validate", ada.id());
    for person in [&ada, &Person::admin(), &Person::nobody()] {
        world.get(person, &validate).await.expect_problem(403, "forbidden");
    }
    for person in [Person::service(), Person::nobody()] {
        world.get(&person, &format!("/users/{}", ada.id())).await.expect_problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn health_is_for_anyone_and_deep_health_for_administrators() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let health = world.get(&Person::nobody(), "/health/users").await.expect(StatusCode::OK);
    assert_eq!((&health["service"], &health["status"]), (&json!("users"), &json!("ok")));
    let deep = "/health/users?deep=true";
    world.get(&Person::nobody(), deep).await.expect_problem(401, "unauthenticated");
    world.get(&ada, deep).await.expect_problem(403, "forbidden");
    assert_eq!(world.get(&Person::admin(), deep).await.expect(StatusCode::OK)["table"], "ok");
    world.cloud.take_down("dynamodb");
    world.get(&Person::admin(), deep).await.expect_problem(503, "unavailable");
}

#[tokio::test]
async fn what_is_not_a_request_gets_a_problem_document_too() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    world.get(&ada, "/users/42").await.expect_bad_fields(&["id"]);
    world.send(&ada, Method::PUT, "/users", None).await.expect_problem(405, "method_not_allowed");
    world.get(&ada, "/users/a/b/c").await.expect_problem(404, "no_such_route");
    let request = |content_type: &str, body: String| {
        let request = http::Request::post("/users").header("content-type", content_type);
        request.body(axum::body::Body::from(body)).unwrap()
    };
    world.send_raw(&ada, request("text/plain", "{}".into())).await.expect_problem(415, "unsupported_media_type");
    world.send_raw(&ada, request("application/json", "{".into())).await.expect_problem(400, "malformed_json");
    world.send_raw(&ada, request("application/json", "{} {}".into())).await.expect_problem(400, "malformed_json");
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    world.send_raw(&ada, request("application/json", large)).await.expect_problem(413, "payload_too_large");
}
