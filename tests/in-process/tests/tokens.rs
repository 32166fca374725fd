//! Bearer tokens where no gateway checked them, as under `sam local` and
//! `cargo lambda watch`: genuine ones are believed, and nothing else is.

use std::time::Duration;

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512},
};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chassis::clock::Clock;
use http::{Request, StatusCode};
use in_process_tests::{
    Answer, Person, World,
    world::{CLIENT, POOL},
};
use jiff::Timestamp;
use serde_json::{Value, json};

const SUBJECT: &str = "0195a8e0-0000-7000-8000-000000000001";

/// A key of a user pool.
struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn generate(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    fn published(&self) -> Value {
        let public = self.pair.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kid": self.id, "kty": "RSA", "alg": "RS256", "use": "sig",
            "n": number(public.modulus().big_endian_without_leading_zero()),
            "e": number(public.exponent().big_endian_without_leading_zero()),
        })
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": "RS256", "kid": self.id }), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let padding = if header["alg"] == "RS512" { &RSA_PKCS1_SHA512 } else { &RSA_PKCS1_SHA256 };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// What the pool says of Ada; `change` overrides, and null removes.
fn claims(change: Value) -> Value {
    let now = Timestamp::now().as_second();
    let mut claims = json!({
        "sub": SUBJECT, "iss": format!("http://{POOL}"), "aud": CLIENT, "token_use": "id",
        "iat": now, "exp": now + 3600, "email": "ada@example.com", "email_verified": true,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

async fn world_with(keys: &[&Key]) -> World {
    let world = World::start_at(Clock::tokio(Timestamp::now())).await;
    world.cloud.publish_keys(json!({ "keys": keys.iter().map(|key| key.published()).collect::<Vec<_>>() }));
    world
}

/// Asks for something that only a signed-in person gets.
async fn orders(world: &World, authorization: &str) -> Answer {
    let request = Request::get("/orders").header("authorization", authorization).body(Body::empty()).unwrap();
    world.send_raw(&Person::nobody(), request).await
}

#[track_caller]
fn expect_refused(answer: &Answer) {
    answer.expect_problem(401, "unauthenticated");
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
}

mod a_genuine_token {
    use super::*;

    #[tokio::test]
    async fn is_believed_on_every_service() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = format!("Bearer {}", key.sign(&claims(json!({}))));
        orders(&world, &token).await.expect(StatusCode::OK);
        for path in [format!("/users/user_{SUBJECT}"), format!("/payments/pay_{SUBJECT}")] {
            let request = Request::get(path).header("authorization", &token).body(Body::empty()).unwrap();
            world.send_raw(&Person::nobody(), request).await.expect_problem(404, "not_found");
        }
    }

    #[tokio::test]
    async fn makes_an_administrator_only_by_its_group() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let others = format!("/orders?user_id=user_{}", SUBJECT.replace("01", "02"));
        for (groups, status) in [(json!(null), 404), (json!(["staff"]), 404), (json!(["admin"]), 200)] {
            let token = format!("Bearer {}", key.sign(&claims(json!({ "cognito:groups": groups }))));
            let request = Request::get(&others).header("authorization", token).body(Body::empty()).unwrap();
            let answer = world.send_raw(&Person::nobody(), request).await;
            assert_eq!(answer.status.as_u16(), status, "{groups}: {}", answer.text);
        }
    }

    #[tokio::test]
    async fn is_believed_whatever_the_spelling_of_the_scheme() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = key.sign(&claims(json!({})));
        orders(&world, &format!("bearer {token}")).await.expect(StatusCode::OK);
        expect_refused(&orders(&world, &token).await);
        expect_refused(&orders(&world, &format!("Basic {token}")).await);
    }
}

mod a_token_is_refused {
    use super::*;

    #[tokio::test]
    async fn that_is_expired_not_valid_yet_of_another_pool_for_another_client_or_no_id_token() {
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
    async fn whose_algorithm_is_none_or_another_than_the_pools() {
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

    /// The public key, which everybody has, taken for a shared secret.
    #[tokio::test]
    async fn that_is_signed_with_the_public_key_as_a_secret() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let naked = unsigned(&json!({ "alg": "HS256", "kid": "k1" }), &claims(json!({})));
        let public = key.pair.public_key().as_der().unwrap();
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_ref());
        let tag = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, naked.as_bytes()));
        expect_refused(&orders(&world, &format!("Bearer {naked}.{tag}")).await);
    }

    #[tokio::test]
    async fn that_was_tampered_with() {
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
    async fn that_another_pools_key_signed_under_a_known_id() {
        let (key, stolen_name) = (Key::generate("k1"), Key::generate("k1"));
        let world = world_with(&[&key]).await;
        expect_refused(&orders(&world, &format!("Bearer {}", stolen_name.sign(&claims(json!({}))))).await);
    }

    /// Nothing in a token says where its key is to be found.
    #[tokio::test]
    async fn that_brings_its_own_key() {
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
    async fn even_where_anybody_may_read() {
        let world = world_with(&[]).await;
        let request = Request::get("/health/orders?deep=true").header("authorization", "Bearer a.b.c");
        expect_refused(&world.send_raw(&Person::nobody(), request.body(Body::empty()).unwrap()).await);
    }
}

mod keys {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn are_fetched_once_and_kept() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = format!("Bearer {}", key.sign(&claims(json!({}))));
        for _ in 0..5 {
            orders(&world, &token).await.expect(StatusCode::OK);
        }
        assert_eq!(world.cloud.key_fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn that_are_new_are_found_and_those_withdrawn_are_believed_for_an_hour_at_most() {
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
    async fn of_made_up_names_cause_no_fetch_each() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        for n in 0..50 {
            let token = key.sign_as(&json!({ "alg": "RS256", "kid": format!("made-up-{n}") }), &claims(json!({})));
            expect_refused(&orders(&world, &format!("Bearer {token}")).await);
        }
        assert_eq!(world.cloud.key_fetches(), 1);
    }

    /// Whether the token is good is not known, so it is not refused either.
    #[tokio::test(start_paused = true)]
    async fn that_cannot_be_fetched_are_no_reason_to_call_a_token_bad_or_good() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        world.cloud.take_down(POOL);
        let token = format!("Bearer {}", key.sign(&claims(json!({}))));
        for _ in 0..50 {
            orders(&world, &token).await.expect_problem(503, "unavailable");
        }
        world.cloud.bring_back();
        // Nobody asks again at once: a pool that is down must not hold up every
        // request.
        orders(&world, &token).await.expect_problem(503, "unavailable");
        assert_eq!(world.cloud.key_fetches(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        orders(&world, &token).await.expect(StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn in_use_survive_an_outage_of_the_pool() {
        let key = Key::generate("k1");
        let world = world_with(&[&key]).await;
        let token = format!("Bearer {}", key.sign(&claims(json!({ "exp": Timestamp::now().as_second() + 86_400 }))));
        orders(&world, &token).await.expect(StatusCode::OK);
        world.cloud.take_down(POOL);
        tokio::time::advance(Duration::from_secs(1800)).await;
        orders(&world, &token).await.expect(StatusCode::OK);
    }
}
