//! Who is calling.
//!
//! One code path, closed by default: the claims that a gateway's authorizer
//! checked; else the bearer token, verified here; else nobody. There is no
//! switch that turns it off.

use std::{collections::HashMap, str::FromStr, sync::Arc};

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::{header, request::Parts};
use jiff::{Timestamp, civil, tz::TimeZone};
use lambda_http::request::RequestContext;
use serde_json::Value;

use crate::{
    config::{Configuration, Env},
    contact::VerifiedContact,
    openapi::Problems,
    problem::Problem,
    telemetry,
    token::{TokenError, TokenVerifier},
    typed_id,
};

typed_id!(
    /// A person, as every service knows them: `user_` and the token's subject.
    UserId,
    "user"
);

/// The Cognito group whose members are administrators.
const ADMIN_GROUP: &str = "admin";

/// A signed-in person. As a handler's argument: 401 for everybody else.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub user_id: UserId,
    /// Member of the group `admin`, by the token's claim.
    pub admin: bool,
    /// How the pool says that they can be reached.
    pub contact: VerifiedContact,
}

impl Caller {
    /// Whether the caller may see and change what belongs to `owner`.
    pub fn may_act_for(&self, owner: UserId) -> bool {
        self.admin || self.user_id == owner
    }

    fn from_claims(claims: &HashMap<String, Value>) -> Result<Self, Problem> {
        // An access token passes a gateway's authorizer too, but says nothing
        // of e-mail and phone, and isn't meant as proof of who someone is.
        if text(claims, "token_use") != Some("id") {
            return Err(Problem::unauthenticated("An ID token is needed, not an access token."));
        }
        let subject = text(claims, "sub").and_then(|sub| uuid::Uuid::try_parse(sub).ok());
        let subject = subject.ok_or_else(|| Problem::unauthenticated("The token's subject cannot be read."))?;
        Ok(Self {
            user_id: UserId::from_uuid(subject),
            admin: groups(claims.get("cognito:groups")).iter().any(|group| group == ADMIN_GROUP),
            contact: VerifiedContact {
                email: verified(claims, "email"),
                phone: verified(claims, "phone_number"),
                as_of: issued_at(claims.get("iat")),
            },
        })
    }
}

fn text<'a>(claims: &'a HashMap<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

/// A contact claim counts only with its `…_verified` sibling: else anybody
/// could have typed anybody's address. A gateway passes booleans as text.
fn verified<T: FromStr>(claims: &HashMap<String, Value>, name: &str) -> Option<T> {
    let checked = match claims.get(&format!("{name}_verified"))? {
        Value::Bool(checked) => *checked,
        Value::String(text) => text == "true",
        _ => false,
    };
    if checked { text(claims, name)?.parse().ok() } else { None }
}

/// When the token was issued. The claim is a number in the token itself, a
/// number as text behind an HTTP API, and a date in words behind a REST API:
/// `Mon Nov 23 08:45:00 UTC 2026`.
///
/// A time that cannot be read counts as the oldest one: what such a token says
/// about its owner never replaces what another token said.
fn issued_at(claim: Option<&Value>) -> Timestamp {
    let seconds = match claim {
        Some(Value::Number(number)) => number.as_i64().or(number.as_f64().map(|seconds| seconds as i64)),
        Some(Value::String(text)) => text.parse().ok().or_else(|| {
            let date = civil::DateTime::strptime("%a %b %d %H:%M:%S UTC %Y", text).ok()?;
            Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
        }),
        _ => None,
    };
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The groups claim: a list in the token itself; `a,b` from API Gateway; and
/// `[a b]` from some gateways.
fn groups(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(groups)) => groups
            .trim_start_matches('[')
            .trim_end_matches(']')
            .split([',', ' '])
            .filter(|group| !group.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// How callers of internal routes prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalAuth {
    /// An IAM identity that the gateway checked.
    Iam,
    /// Not at all: for `sam local` and `cargo lambda watch`, which have
    /// nothing that could check a signature. The template never sets it.
    None,
}

impl FromStr for InternalAuth {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "iam" => Ok(Self::Iam),
            "none" => Ok(Self::None),
            _ => Err(()),
        }
    }
}

impl Configuration for InternalAuth {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        env.required("INTERNAL_AUTH", "iam; or none, where nothing can check a signature and nobody else gets in")
    }
}

/// What the HTTP edge needs to tell who is calling.
#[derive(Clone, Debug)]
pub struct Authenticator {
    verifier: Arc<TokenVerifier>,
    internal: InternalAuth,
}

impl Authenticator {
    /// For a service with internal routes.
    pub fn new(verifier: TokenVerifier, internal: InternalAuth) -> Self {
        Self { verifier: Arc::new(verifier), internal }
    }

    /// For a service without internal routes.
    pub fn public_only(verifier: TokenVerifier) -> Self {
        Self::new(verifier, InternalAuth::Iam)
    }

    async fn caller(&self, parts: &Parts) -> Result<Caller, Problem> {
        if let Some(claims) = gateway_claims(parts) {
            return Caller::from_claims(&claims);
        }
        let header = parts.headers.get(header::AUTHORIZATION);
        let token = header.and_then(|value| value.to_str().ok()).and_then(bearer);
        let token = token.ok_or_else(no_token)?;
        let claims = self.verifier.verify(token).await.map_err(|error| match error {
            TokenError::KeysUnavailable(_) => Problem::unavailable(error),
            error => {
                tracing::info!(reason = telemetry::chain(&error), "token refused");
                Problem::unauthenticated("The token is not valid, or has expired.")
            }
        })?;
        Caller::from_claims(&claims)
    }

    fn is_internal(&self, parts: &Parts) -> bool {
        self.internal == InternalAuth::None || has_iam_identity(parts)
    }
}

fn no_token() -> Problem {
    Problem::unauthenticated("Send an ID token: `Authorization: Bearer …`.")
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn gateway_claims(parts: &Parts) -> Option<HashMap<String, Value>> {
    match parts.extensions.get::<RequestContext>()? {
        RequestContext::ApiGatewayV1(context) => {
            let claims = context.authorizer.fields.get("claims")?.as_object()?;
            Some(claims.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        RequestContext::ApiGatewayV2(context) => {
            let jwt = context.authorizer.as_ref()?.jwt.as_ref()?;
            Some(jwt.claims.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect())
        }
        _ => None,
    }
}

fn has_iam_identity(parts: &Parts) -> bool {
    let arn = match parts.extensions.get::<RequestContext>() {
        Some(RequestContext::ApiGatewayV1(context)) => context.identity.user_arn.as_deref(),
        Some(RequestContext::ApiGatewayV2(context)) => {
            context.authorizer.as_ref().and_then(|authorizer| authorizer.iam.as_ref()?.user_arn.as_deref())
        }
        _ => None,
    };
    arn.is_some_and(|arn| arn.starts_with("arn:"))
}

fn authenticator(parts: &Parts) -> Result<&Authenticator, Problem> {
    parts.extensions.get().ok_or_else(|| Problem::internal("the route is not behind the HTTP edge"))
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        authenticator(parts)?.caller(parts).await
    }
}

impl Problems for Caller {
    fn problems() -> Vec<Problem> {
        vec![no_token()]
    }
}

/// `None` only where no credential was sent at all: a bad one is still 401.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        if gateway_claims(parts).is_none() && !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        authenticator(parts)?.caller(parts).await.map(Some)
    }
}

/// A signed-in administrator. As a handler's argument: 403 for other callers.
#[derive(Clone, Debug)]
pub struct Admin(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = <Caller as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        if caller.admin { Ok(Self(caller)) } else { Err(administrators_only()) }
    }
}

fn administrators_only() -> Problem {
    Problem::forbidden("Administrators only.")
}

impl Problems for Admin {
    fn problems() -> Vec<Problem> {
        vec![no_token(), administrators_only()]
    }
}

/// Another service of this system. As a handler's argument: 403 for people.
#[derive(Clone, Copy, Debug)]
pub struct Internal;

impl<S: Send + Sync> FromRequestParts<S> for Internal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if authenticator(parts)?.is_internal(parts) {
            Ok(Self)
        } else {
            Err(Problem::forbidden("This route is for other services of the system only."))
        }
    }
}

/// Either of both, for routes that exist on both APIs.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A signed-in person.
    Person(Caller),
    /// Another service.
    Service,
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if has_iam_identity(parts) {
            return Ok(Self::Service);
        }
        <Caller as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Self::Person)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::{Caller, groups, issued_at};

    fn claims(value: Value) -> HashMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn groups_are_read_in_each_form_that_gateways_send() {
        for claim in [json!(["ops", "admin"]), json!("ops,admin"), json!("[ops admin]"), json!("[admin]")] {
            assert!(groups(Some(&claim)).contains(&"admin".to_owned()), "{claim}");
        }
        for claim in [json!("administrators"), json!(["not admin"]), json!(""), json!(1), Value::Null] {
            assert!(!groups(Some(&claim)).contains(&"admin".to_owned()), "{claim}");
        }
    }

    #[test]
    fn only_verified_addresses_count() {
        let sub = "0195a8e0-0000-7000-8000-000000000001";
        let caller = Caller::from_claims(&claims(json!({
            "sub": sub, "token_use": "id", "email": "ada@example.com", "email_verified": "true",
            "phone_number": "+15555550100", "phone_number_verified": false,
        })))
        .unwrap();
        assert_eq!(caller.contact.email.unwrap().expose(), "ada@example.com");
        assert!(caller.contact.phone.is_none() && !caller.admin);
    }

    #[test]
    fn the_time_of_issue_is_read_in_each_form_that_gateways_send() {
        let issued: Timestamp = "2026-11-23T08:45:00Z".parse().unwrap();
        for claim in
            [json!(1795423500), json!(1795423500.75), json!("1795423500"), json!("Mon Nov 23 08:45:00 UTC 2026")]
        {
            assert_eq!(issued_at(Some(&claim)), issued, "{claim}");
        }
        for claim in [json!("yesterday"), json!(true), json!(1e300), Value::Null] {
            assert_eq!(issued_at(Some(&claim)), Timestamp::UNIX_EPOCH, "{claim}");
        }
    }

    #[test]
    fn an_access_token_is_nobody() {
        let sub = "0195a8e0-0000-7000-8000-000000000001";
        for token_use in [json!("access"), Value::Null, json!(true)] {
            assert!(Caller::from_claims(&claims(json!({ "sub": sub, "token_use": token_use }))).is_err());
        }
    }
}
