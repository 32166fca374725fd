//! Tests of bearer tokens. Without a gateway (under `sam local` and `cargo lambda
//! watch`), the services themselves verify the token of a request, and accept only
//! genuine tokens. Behind a gateway, which has verified the token, the services check
//! the pool, the client and the groups in the token.

use std::time::Duration;

use aws_lc_rs::{encoding::AsDer, signature::KeyPair as _};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, Request, StatusCode};
use in_process_tests::{
    Answer, Caller, World,
    keys::{Key, unsigned},
    world::{CLIENT, ISSUER, POOL},
};
use jiff::Timestamp;
use serde_json::{Value, json};

const SUBJECT: &str = "0195a8e0-0000-7000-8000-000000000001";

/// The claims of a genuine token. The members of `change` replace claims; a null
/// removes a claim.
fn claims(change: Value) -> Value {
    let now = Timestamp::now().as_second();
    let mut claims = json!({
        "sub": SUBJECT, "iss": ISSUER, "aud": CLIENT, "token_use": "id",
        "iat": now, "exp": now + 3600, "email": "ada@example.com", "email_verified": true,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

async fn world_with(keys: &[&Key]) -> World {
    let world = World::start_in_test_time().await;
    world.cloud.publish_keys(json!({ "keys": keys.iter().map(|key| key.published()).collect::<Vec<_>>() }));
    world
}

/// Requests the caller's orders, for which a valid token is needed.
async fn orders(world: &World, authorization: &str) -> Answer {
    let request = Request::get("/orders").header("authorization", authorization).body(Body::empty()).unwrap();
    world.send_raw(&Caller::anonymous(), request).await
}

#[track_caller]
fn expect_refused(answer: &Answer) {
    answer.expect_problem(401, "unauthenticated");
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
}

mod genuine_tokens {
    use super::*;

    #[tokio::test]
    async fn a_genuine_token_is_accepted_by_every_service() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = format!("Bearer {}", key.sign(&claims(json!({}))));
        orders(&world, &token).await.expect(StatusCode::OK);
        for path in [format!("/users/user_{SUBJECT}"), format!("/payments/pay_{SUBJECT}")] {
            let request = Request::get(path).header("authorization", &token).body(Body::empty()).unwrap();
            world.send_raw(&Caller::anonymous(), request).await.expect_problem(404, "not_found");
        }
    }

    #[tokio::test]
    async fn only_a_member_of_the_admin_group_is_an_administrator() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let others = format!("/orders?user_id=user_{}", SUBJECT.replace("01", "02"));
        for (groups, status) in [(json!(null), 404), (json!(["staff"]), 404), (json!(["admin"]), 200)] {
            let token = format!("Bearer {}", key.sign(&claims(json!({ "cognito:groups": groups }))));
            let request = Request::get(&others).header("authorization", token).body(Body::empty()).unwrap();
            let answer = world.send_raw(&Caller::anonymous(), request).await;
            assert_eq!(answer.status.as_u16(), status, "{groups}: {}", answer.text);
        }
    }

    #[tokio::test]
    async fn the_scheme_must_be_bearer_in_upper_or_lower_case() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = key.sign(&claims(json!({})));
        orders(&world, &format!("bearer {token}")).await.expect(StatusCode::OK);
        expect_refused(&orders(&world, &token).await);
        expect_refused(&orders(&world, &format!("Basic {token}")).await);
    }
}

mod refused_tokens {
    use super::*;

    #[tokio::test]
    async fn a_token_with_an_invalid_or_missing_claim_is_refused() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let now = Timestamp::now().as_second();
        let changes = [
            json!({ "exp": now - 60 }),
            json!({ "exp": null }),
            json!({ "nbf": now + 60 }),
            json!({ "iss": "http://another.pool" }),
            json!({ "iss": null }),
            json!({ "aud": "another-client" }),
            json!({ "aud": null }),
            json!({ "token_use": "access" }),
            json!({ "token_use": null }),
            json!({ "sub": null }),
            json!({ "sub": "ada" }),
        ];
        for change in changes {
            let token = key.sign(&claims(change.clone()));
            let answer = orders(&world, &format!("Bearer {token}")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{change}");
            expect_refused(&answer);
        }
    }

    #[tokio::test]
    async fn a_token_with_another_algorithm_than_the_pools_is_refused() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        for alg in ["none", "None", "NONE", ""] {
            let naked = unsigned(&json!({ "alg": alg, "kid": "k1" }), &claims(json!({})));
            expect_refused(&orders(&world, &format!("Bearer {naked}.")).await);
            expect_refused(&orders(&world, &format!("Bearer {naked}")).await);
        }
        let otherwise = key.sign_as(&json!({ "alg": "RS512", "kid": "k1" }), &claims(json!({})));
        expect_refused(&orders(&world, &format!("Bearer {otherwise}")).await);
    }

    /// If a verifier accepted HS256, it would use the public key as the shared
    /// secret. Then everybody could sign tokens, because everybody knows the public
    /// key.
    #[tokio::test]
    async fn a_token_that_is_signed_with_the_public_key_as_a_shared_secret_is_refused() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let naked = unsigned(&json!({ "alg": "HS256", "kid": "k1" }), &claims(json!({})));
        let public = key.pair.public_key().as_der().unwrap();
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_ref());
        let tag = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, naked.as_bytes()));
        expect_refused(&orders(&world, &format!("Bearer {naked}.{tag}")).await);
    }

    #[tokio::test]
    async fn a_token_with_changed_claims_or_a_changed_signature_is_refused() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = key.sign(&claims(json!({})));
        let parts: Vec<_> = token.split('.').collect();
        let promoted = URL_SAFE_NO_PAD.encode(claims(json!({ "cognito:groups": ["admin"] })).to_string());
        let flipped = format!("{}{}", if parts[2].starts_with('A') { 'B' } else { 'A' }, &parts[2][1..]);
        for forged in [
            format!("{}.{promoted}.{}", parts[0], parts[2]),
            format!("{}.{}.{flipped}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}.{}", parts[2]),
            String::from("a.b.c"),
            String::from("…"),
            String::new(),
        ] {
            expect_refused(&orders(&world, &format!("Bearer {forged}")).await);
        }
    }

    #[tokio::test]
    async fn a_token_of_an_unknown_key_with_a_known_key_id_is_refused() {
        let (key, stolen_name) = (Key::generate("k1"), Key::generate("k1"));
        let world = world_with(&[&key]).await;
        expect_refused(&orders(&world, &format!("Bearer {}", stolen_name.sign(&claims(json!({}))))).await);
    }

    /// The header of a token can contain a key (`jwk`) or the URL of keys (`jku`). The
    /// services use neither of them.
    #[tokio::test]
    async fn a_token_that_contains_its_own_key_is_refused() {
        let (key, own) = (Key::generate("k1"), Key::generate("k2"));
        let world = world_with(&[&key]).await;
        for header in [
            json!({ "alg": "RS256", "kid": "k1", "jwk": own.published() }),
            json!({ "alg": "RS256", "kid": "k2", "jwk": own.published() }),
            json!({ "alg": "RS256", "kid": "k2", "jku": "http://users.internal/keys" }),
            json!({ "alg": "RS256" }),
        ] {
            expect_refused(&orders(&world, &format!("Bearer {}", own.sign_as(&header, &claims(json!({}))))).await);
        }
    }

    #[tokio::test]
    async fn an_invalid_token_is_refused_even_on_a_route_that_needs_no_token() {
        let world = world_with(&[]).await;
        let request = Request::get("/health/orders?deep=true").header("authorization", "Bearer a.b.c");
        expect_refused(&world.send_raw(&Caller::anonymous(), request.body(Body::empty()).unwrap()).await);
    }
}

mod keys_of_the_user_pool {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_keys_are_fetched_once_and_kept() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = format!("Bearer {}", key.sign(&claims(json!({}))));
        for _ in 0..5 {
            orders(&world, &token).await.expect(StatusCode::OK);
        }
        assert_eq!(world.cloud.key_fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_keys_are_fetched_again_for_a_new_key_and_a_withdrawn_key_is_refused_after_an_hour() {
        let (old, new) = (Key::generate("k1"), Key::generate("k2"));
        let world = world_with(&[&old]).await;
        let by_old = format!("Bearer {}", old.sign(&claims(json!({}))));
        let by_new = format!("Bearer {}", new.sign(&claims(json!({}))));
        orders(&world, &by_old).await.expect(StatusCode::OK);

        world.cloud.publish_keys(json!({ "keys": [new.published()] }));
        tokio::time::advance(Duration::from_secs(11)).await;
        orders(&world, &by_new).await.expect(StatusCode::OK);
        tokio::time::advance(Duration::from_secs(3600)).await;
        expect_refused(&orders(&world, &by_old).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_keys_are_not_fetched_again_for_each_unknown_key_id() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        for n in 0..50 {
            let token = key.sign_as(&json!({ "alg": "RS256", "kid": format!("made-up-{n}") }), &claims(json!({})));
            expect_refused(&orders(&world, &format!("Bearer {token}")).await);
        }
        assert_eq!(world.cloud.key_fetches(), 1);
    }

    /// Without the keys, the service cannot know whether the token is genuine, so
    /// the service neither accepts nor refuses the token.
    #[tokio::test(start_paused = true)]
    async fn requests_get_503_while_the_keys_cannot_be_fetched() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        world.cloud.take_down(POOL);
        let token = format!("Bearer {}", key.sign(&claims(json!({}))));
        for _ in 0..50 {
            orders(&world, &token).await.expect_problem(503, "unavailable");
        }
        world.cloud.bring_back();
        // After a failure, the keys are not fetched again for a while, because a pool
        // that is down must not delay every request.
        orders(&world, &token).await.expect_problem(503, "unavailable");
        assert_eq!(world.cloud.key_fetches(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        orders(&world, &token).await.expect(StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn the_keys_stay_in_use_during_an_outage_of_the_user_pool() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = format!("Bearer {}", key.sign(&claims(json!({ "exp": Timestamp::now().as_second() + 86_400 }))));
        orders(&world, &token).await.expect(StatusCode::OK);
        world.cloud.take_down(POOL);
        tokio::time::advance(Duration::from_secs(1800)).await;
        orders(&world, &token).await.expect(StatusCode::OK);
    }
}

mod behind_a_gateway {
    use super::*;

    async fn add_product(world: &World, caller: &Caller, headers: &[(&str, &str)]) -> Answer {
        let body = json!({ "name": "Mug", "description": "Blue.", "price": 5, "stock": 1 });
        world.send_with(caller, Method::POST, "/products", Some(body), headers).await
    }

    #[tokio::test]
    async fn a_token_for_another_client_or_of_another_pool_is_refused() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let path = format!("/users/{}", ada.id());
        world.get(&ada, &path).await.expect(StatusCode::OK);
        for (claim, value) in [
            ("aud", json!("another-client")),
            ("aud", json!(format!("{CLIENT},another-client"))),
            ("aud", json!([])),
            ("aud", json!(null)),
            ("iss", json!(format!("{ISSUER}2"))),
            ("iss", json!(null)),
        ] {
            expect_refused(&world.get(&ada.with_claim(claim, value.clone()), &path).await);
            expect_refused(&add_product(&world, &Caller::admin().with_claim(claim, value), &[]).await);
        }
    }

    #[tokio::test]
    async fn the_admin_group_is_found_in_each_format_in_which_gateways_write_the_list_of_groups() {
        let world = World::start().await;
        for claim in
            [json!("admin"), json!("[admin]"), json!("ops,admin"), json!("[admin ops]"), json!(["ops", "admin"])]
        {
            let admin = Caller::named("Grace").in_groups(&["ops", "admin"], claim);
            add_product(&world, &admin, &[]).await.expect(StatusCode::CREATED);
        }
    }

    #[tokio::test]
    async fn a_group_whose_name_looks_like_a_list_makes_no_administrator() {
        let world = World::start().await;
        for (group, claim) in [
            ("[admin", "[admin"),
            ("[admin", "[[admin]"),
            ("admin]", "[admin]]"),
            ("read,admin", "read,admin"),
            ("read,admin", "[read,admin]"),
            ("not admin", "[not admin]"),
            ("administrators", "[administrators]"),
            ("Admin", "Admin"),
        ] {
            let person = Caller::named("Mallory").in_groups(&[group], claim);
            add_product(&world, &person, &[]).await.expect_problem(403, "forbidden");
        }
    }

    #[tokio::test]
    async fn an_administrator_must_present_the_token_that_the_gateway_has_verified() {
        let world = World::start().await;
        let (admin, other) = (Caller::admin(), Caller::admin());
        let token = admin.token();
        for good in [token.clone(), format!("Bearer {token}"), format!("bearer {token}")] {
            add_product(&world, &admin, &[("authorization", &good)]).await.expect(StatusCode::CREATED);
        }
        let stranger = Key::generate("pool");
        let forged = stranger.sign(&claims(json!({ "sub": admin.claim("sub"), "cognito:groups": ["admin"] })));
        for bad in [other.token(), forged, format!("Basic {token}"), format!("{token}, {token}"), String::new()] {
            expect_refused(&add_product(&world, &admin, &[("authorization", &bad)]).await);
        }
        for (first, second) in [(&token, &token), (&token, &other.token())] {
            let headers = [("authorization", first.as_str()), ("authorization", second.as_str())];
            expect_refused(&add_product(&world, &admin, &headers).await);
        }
        // The claim `cognito:groups` that the gateway passes on is not enough without the
        // token.
        let claimed = Caller::named("Mallory").with_claim("cognito:groups", "admin");
        expect_refused(&add_product(&world, &claimed, &[]).await);
    }

    #[tokio::test]
    async fn behind_an_http_api_only_a_member_of_the_admin_group_is_an_administrator() {
        let world = World::start().await;
        let event = |caller: &Caller, authorization: &str| {
            let mut event: Value =
                serde_json::from_str(include_str!("../../../events/orders/http-v2-list-orders.json")).unwrap();
            event["requestContext"]["authorizer"]["jwt"]["claims"] = caller.claims();
            event["headers"]["authorization"] = authorization.into();
            event["rawQueryString"] = format!("user_id={}", Caller::named("Ada").id()).into();
            event.to_string()
        };
        let status = async |event: String| world.invoke("orders", &event).await.unwrap()["statusCode"].clone();
        let admin = Caller::named("Grace").in_groups(&["admin"], "[admin]");
        let token = admin.token();
        assert_eq!(status(event(&admin, &format!("Bearer {token}"))).await, 200);
        assert_eq!(status(event(&admin, &format!("Bearer {token},Bearer {token}"))).await, 401);
        let mallory = Caller::named("Mallory").in_groups(&["[admin"], "[[admin]");
        assert_eq!(status(event(&mallory, &mallory.token())).await, 404);
        assert_eq!(status(event(&mallory, &token)).await, 401);
        assert_eq!(status(event(&admin.with_claim("aud", "another-client"), &token)).await, 401);
    }

    #[tokio::test]
    async fn requests_of_customers_are_served_while_the_user_pool_is_down() {
        let world = World::start().await;
        world.cloud.take_down(POOL);
        let ada = world.customer("Ada").await;
        world.get(&ada, "/orders").await.expect(StatusCode::OK);
        let staff = ada.in_groups(&["staff"], "[staff]");
        add_product(&world, &staff, &[]).await.expect_problem(403, "forbidden");
        // Without the keys, the service cannot know whether the caller is an
        // administrator.
        add_product(&world, &Caller::admin(), &[]).await.expect_problem(503, "unavailable");
        world.cloud.bring_back();
        assert_eq!(world.cloud.key_fetches(), 0);
    }
}
