//! Tests of the users service: profiles, their contact details, and deactivation.

use http::{Method, StatusCode};
use in_process_tests::{Caller, World};
use serde_json::{Value, json};

/// Asks the users service, as another service does, whether `person` may order, and passes on the contact details of
/// the person's token.
async fn validate(world: &World, person: &Caller) -> Value {
    let token_contact = json!({ "email": person.email(), "phone": person.phone(), "as_of": person.issued_at() });
    let path = format!("/users/{}/validate", person.id());
    world.post(&Caller::service(), &path, token_contact).await.expect(StatusCode::OK)
}

async fn profile(world: &World, person: &Caller) -> Value {
    world.get(person, &format!("/users/{}", person.id())).await.expect(StatusCode::OK)
}

async fn create(world: &World, person: &Caller) -> in_process_tests::Answer {
    world.post(person, "/users", json!({ "name": "Somebody", "email": person.email() })).await
}

#[tokio::test]
async fn a_new_profile_has_the_verified_email_and_phone_of_its_owner() {
    let world = World::start().await;
    let ada = Caller::named("Ada");
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
async fn an_email_that_the_user_pool_has_not_verified_is_refused() {
    let world = World::start().await;
    let ada = Caller::named("Ada");
    let body = json!({ "name": "Ada", "email": "somebody.else@example.com" });
    world.post(&ada, "/users", body).await.expect_bad_fields(&["email"]);
    let body = json!({ "name": "Ada", "email": ada.email() });
    world.post(&ada.with_claim("email_verified", "false"), "/users", body).await.expect_bad_fields(&["email"]);
}

#[tokio::test]
async fn a_second_profile_and_an_email_of_another_user_are_conflicts() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let body = json!({ "name": "Ada", "email": ada.email() });
    world.post(&ada, "/users", body.clone()).await.expect_problem(409, "user_exists");
    let other = Caller::named("Other").with_claim("email", ada.email());
    world.post(&other, "/users", body).await.expect_problem(409, "email_taken");
    world.get(&other, &format!("/users/{}", other.id())).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn one_response_names_every_bad_field() {
    let world = World::start().await;
    let ada = Caller::named("Ada");
    world.post(&ada, "/users", json!({ "name": "", "email": "x" })).await.expect_bad_fields(&["email", "name"]);
    let others = json!({ "name": "", "email": "somebody.else@example.com", "admin": true });
    world.post(&ada, "/users", others.clone()).await.expect_bad_fields(&["name", "email", "admin"]);
    let path = format!("/users/{}", ada.id());
    world.patch(&ada, &path, others).await.expect_bad_fields(&["name", "email", "admin"]);
    world.post(&ada, "/users", json!({ "name": "Ada", "email": 7 })).await.expect_bad_fields(&["email"]);
    let extra = json!({ "name": "Ada", "email": ada.email(), "admin": true });
    world.post(&ada, "/users", extra).await.expect_bad_fields(&["admin"]);
    world.post(&ada, "/users", json!([])).await.expect_bad_fields(&["body"]);
}

#[tokio::test]
async fn a_profile_is_found_only_by_its_owner_and_by_administrators() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    let mallory = world.customer("Mallory").await;
    world.get(&mallory, &path).await.expect_problem(404, "not_found");
    world.patch(&mallory, &path, json!({ "name": "M" })).await.expect_problem(404, "not_found");
    world.delete(&mallory, &path).await.expect_problem(404, "not_found");
    assert_eq!(world.get(&Caller::admin(), &path).await.expect(StatusCode::OK)["name"], "Ada");
}

#[tokio::test]
async fn an_owner_can_change_the_name_and_the_email() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    let user = world.patch(&ada, &path, json!({ "name": "Countess" })).await.expect(StatusCode::OK);
    assert_eq!((&user["name"], &user["email"]), (&json!("Countess"), &json!(ada.email())));

    let moved = ada.with_later_token(60).with_claim("email", "countess@example.com");
    let user = world.patch(&moved, &path, json!({ "email": "countess@example.com" })).await.expect(StatusCode::OK);
    assert_eq!(user["email"], "countess@example.com");

    // Another user can now have Ada's old e-mail address, but not her new e-mail address.
    let next = Caller::named("Next").with_claim("email", ada.email());
    world.post(&next, "/users", json!({ "name": "N", "email": ada.email() })).await.expect(StatusCode::CREATED);
    let third = Caller::named("Third").with_claim("email", "countess@example.com");
    let body = json!({ "name": "T", "email": "countess@example.com" });
    world.post(&third, "/users", body).await.expect_problem(409, "email_taken");
}

#[tokio::test]
async fn an_administrator_can_change_a_name_but_not_an_email() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let admin = Caller::admin();
    let path = format!("/users/{}", ada.id());
    let user = world.patch(&admin, &path, json!({ "name": "A.", "reason": "Ticket 7." })).await.expect(StatusCode::OK);
    assert_eq!((&user["name"], &user["phone"]), (&json!("A."), &json!(ada.phone())));
    world.patch(&admin, &path, json!({ "email": admin.email() })).await.expect_bad_fields(&["email"]);
}

#[tokio::test]
async fn deactivation_erases_personal_data_and_makes_the_email_available_again() {
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
    let heir = Caller::named("Heir").with_claim("email", ada.email());
    world.post(&heir, "/users", body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn validation_returns_whether_a_user_may_order_and_the_contact_details() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let recipient = json!({ "name": "Ada", "email": ada.email(), "phone": ada.phone() });
    assert_eq!(validate(&world, &ada).await, json!({ "valid": true, "recipient": recipient }));
    world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(validate(&world, &ada).await, json!({ "valid": false, "reason": "user_inactive" }));
    let nobody = Caller::named("Nobody");
    assert_eq!(validate(&world, &nobody).await, json!({ "valid": false, "reason": "user_not_found" }));
}

#[tokio::test]
async fn people_cannot_call_internal_routes_and_services_cannot_act_as_people() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let validate = format!("/users/{}/validate", ada.id());
    for person in [&ada, &Caller::admin(), &Caller::anonymous()] {
        world.post(person, &validate, json!({ "as_of": 0 })).await.expect_problem(403, "forbidden");
    }
    let profile = format!("/users/{}", ada.id());
    world.get(&Caller::service(), &profile).await.expect_problem(403, "forbidden");
    world.get(&Caller::anonymous(), &profile).await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn everybody_can_read_health_but_only_administrators_can_read_deep_health() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let health = world.get(&Caller::anonymous(), "/health/users").await.expect(StatusCode::OK);
    assert_eq!((&health["service"], &health["status"]), (&json!("users"), &json!("ok")));
    let deep = "/health/users?deep=true";
    world.get(&Caller::anonymous(), deep).await.expect_problem(401, "unauthenticated");
    world.get(&ada, deep).await.expect_problem(403, "forbidden");
    assert_eq!(world.get(&Caller::admin(), deep).await.expect(StatusCode::OK)["status"], "ok");
    world.cloud.take_down("dynamodb");
    assert_eq!(world.get(&Caller::admin(), deep).await.expect(StatusCode::OK)["status"], "degraded");
}

#[tokio::test]
async fn malformed_requests_are_answered_with_problem_documents() {
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

// ── Owners of e-mail addresses, and newer and older tokens ──────────────────

#[tokio::test]
async fn validation_updates_a_profile_from_the_newest_token() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let moved =
        ada.with_later_token(60).with_claim("email", "b@example.com").with_claim("phone_number", "+15555550199");
    let recipient = json!({ "name": "Ada", "email": "b@example.com", "phone": "+15555550199" });
    assert_eq!(validate(&world, &moved).await["recipient"], recipient);
    let user = profile(&world, &ada).await;
    assert_eq!((&user["email"], &user["phone"]), (&json!("b@example.com"), &json!("+15555550199")));
    // An older token, which has the former contact details and is still valid, does not change the profile.
    assert_eq!(validate(&world, &ada).await["recipient"], recipient);
    assert_eq!(profile(&world, &ada).await, user);
}

#[tokio::test]
async fn a_newer_token_with_the_same_contact_details_makes_older_tokens_outdated() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let created = profile(&world, &ada).await;
    validate(&world, &ada.with_later_token(120)).await;
    assert_eq!(profile(&world, &ada).await, created);
    let between = ada.with_later_token(60).with_claim("email", "b@example.com");
    assert_eq!(validate(&world, &between).await["recipient"]["email"], ada.email());
}

#[tokio::test]
async fn a_token_without_a_verified_email_keeps_the_email_of_the_profile() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let token_contact = json!({ "as_of": ada.issued_at() + 60 });
    let path = format!("/users/{}/validate", ada.id());
    let answer = world.post(&Caller::service(), &path, token_contact).await.expect(StatusCode::OK);
    assert_eq!(answer["recipient"], json!({ "name": "Ada", "email": ada.email() }));
}

#[tokio::test]
async fn an_email_belongs_to_the_person_for_whom_the_user_pool_verified_it_last() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let heir = Caller::named("Heir").with_later_token(60).with_claim("email", ada.email());
    create(&world, &heir).await.expect(StatusCode::CREATED);
    // The former owner of the e-mail address keeps the profile, but the profile has no e-mail address.
    let user = profile(&world, &ada).await;
    assert_eq!((&user["status"], &user["name"], &user["email"]), (&json!("ACTIVE"), &json!("Ada"), &Value::Null));
    // An old token of the former owner does not give the e-mail address back to the former owner.
    assert_eq!(validate(&world, &ada).await["recipient"]["email"], Value::Null);
    world
        .patch(&ada, &format!("/users/{}", ada.id()), json!({ "email": ada.email() }))
        .await
        .expect_problem(409, "email_taken");
    assert_eq!(profile(&world, &heir).await["email"], ada.email());
    // A newer token of the former owner contains a new e-mail address, which the profile gets.
    let moved = ada.with_later_token(120).with_claim("email", "b@example.com");
    assert_eq!(validate(&world, &moved).await["recipient"]["email"], "b@example.com");
    assert_eq!(profile(&world, &ada).await["email"], "b@example.com");
}

#[tokio::test]
async fn validation_with_a_newer_token_can_take_an_email_from_another_user() {
    let world = World::start().await;
    let (ada, grace) = (world.customer("Ada").await, world.customer("Grace").await);
    let grace = grace.with_later_token(60).with_claim("email", ada.email());
    assert_eq!(validate(&world, &grace).await["recipient"]["email"], ada.email());
    assert_eq!(profile(&world, &ada).await["email"], Value::Null);
    // Another user can now have Grace's former e-mail address.
    let next = Caller::named("Next").with_claim("email", "grace@example.com");
    create(&world, &next).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn an_older_token_takes_no_email_from_another_user() {
    let world = World::start().await;
    let ada = Caller::named("Ada").with_later_token(60);
    create(&world, &ada).await.expect(StatusCode::CREATED);
    let late = Caller::named("Late").with_claim("email", ada.email());
    create(&world, &late).await.expect_problem(409, "email_taken");
    let grace = world.customer("Grace").await;
    let mistaken =
        grace.with_later_token(30).with_claim("email", ada.email()).with_claim("phone_number", "+15555550199");
    // Grace's profile keeps its e-mail address, but gets the phone number of the token.
    let recipient = json!({ "name": "Grace", "email": "grace@example.com", "phone": "+15555550199" });
    assert_eq!(validate(&world, &mistaken).await["recipient"], recipient);
    assert_eq!(profile(&world, &ada).await["email"], ada.email());
}

#[tokio::test]
async fn a_person_who_signs_up_again_keeps_the_email() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let again = Caller::named("Ada").with_later_token(3600);
    assert_ne!(again.id(), ada.id());
    create(&world, &again).await.expect(StatusCode::CREATED);
    assert_eq!(profile(&world, &again).await["email"], ada.email());
}

#[tokio::test]
async fn the_newest_of_many_concurrent_tokens_gets_the_email() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let heirs: Vec<_> =
        (1..6).map(|n| Caller::named("Heir").with_later_token(n).with_claim("email", ada.email())).collect();
    for answer in futures::future::join_all(heirs.iter().map(|heir| create(&world, heir))).await {
        assert!([201, 409].contains(&answer.status.as_u16()), "{}", answer.text);
    }
    let owners = world.cloud.scan("UsersTable");
    let with_address = |item: &&Value| item["contact"]["M"]["email"]["S"] == ada.email();
    assert_eq!(owners.iter().filter(with_address).count(), 1);
    // The person with the newest token gets the e-mail address, in whatever order the requests arrive.
    assert_eq!(profile(&world, &heirs[4]).await["email"], ada.email());
}

#[tokio::test]
async fn a_change_with_an_older_token_keeps_the_contact_details() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    let moved =
        ada.with_later_token(60).with_claim("email", "b@example.com").with_claim("phone_number", "+15555550199");
    world.patch(&moved, &path, json!({ "name": "A." })).await.expect(StatusCode::OK);

    let older = ada.with_claim("phone_number_verified", "false");
    let user = world.patch(&older, &path, json!({ "name": "Ada L." })).await.expect(StatusCode::OK);
    assert_eq!((&user["name"], &user["phone"]), (&json!("Ada L."), &json!("+15555550199")));
    world.patch(&ada, &path, json!({ "email": ada.email() })).await.expect_bad_fields(&["email"]);
    assert_eq!(profile(&world, &ada).await["email"], "b@example.com");
}

#[tokio::test]
async fn concurrent_changes_all_succeed() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    world.cloud.randomise_latency(7);
    let changes = (0..16).map(|n| {
        let (world, ada, path) = (&world, &ada, &path);
        async move { world.patch(ada, path, json!({ "name": format!("Ada {n}") })).await }
    });
    for answer in futures::future::join_all(changes).await {
        answer.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_change_to_the_same_values_changes_nothing() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let (path, before) = (format!("/users/{}", ada.id()), profile(&world, &ada).await);
    for nothing in [json!({}), json!({ "name": null, "email": null }), json!({ "name": "Ada", "email": ada.email() })] {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        assert_eq!(world.patch(&ada, &path, nothing).await.expect(StatusCode::OK), before);
    }
}

// ── Erasure ─────────────────────────────────────────────────────────────────

#[tokio::test]
async fn deactivation_succeeds_only_after_the_event_is_published() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let path = format!("/users/{}", ada.id());
    world.cloud.take_down("sqs");
    world.delete(&ada, &path).await.expect_problem(503, "unavailable");
    world.cloud.bring_back();
    world.delete(&ada, &path).await.expect(StatusCode::NO_CONTENT);
    world.delete(&ada, &path).await.expect(StatusCode::NO_CONTENT);

    let expected = json!({ "user_id": ada.id().to_string() });
    let (order_events, user_events) = (world.cloud.take_messages(), world.cloud.receive_user_events());
    assert_eq!((order_events.len(), user_events.len()), (1, 1), "each queue must get the event once");
    for body in [&order_events[0], &user_events[0].body] {
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&event["type"], &event["data"]), (&json!("UserErased"), &expected));
        assert_eq!(event["id"], format!("{}:UserErased", ada.id()));
    }
}
