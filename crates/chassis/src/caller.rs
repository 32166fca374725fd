//! The identity of the caller.
//!
//! If a gateway's authorizer has checked the caller's token, the identity comes
//! from the claims that the gateway passes on. Otherwise the identity comes
//! from the bearer token, which is verified here. Without a token, there is no
//! identity. No setting turns this off.
//!
//! A gateway checks a token's signature and expiry, but not the user pool's
//! client for which the token was issued. So the client is checked here.
//!
//! A gateway passes the list of groups on as text, `a,b` or `[a b]`. This text
//! is ambiguous, because a group's name may contain commas, spaces and
//! brackets. So nobody is treated as an administrator before the list of groups
//! in the token itself was read.
//!
//! Another service proves its identity by a signature, which its function URL
//! has checked. Such a request is answered only if the table of
//! [`InternalCallers`] has the caller's role, the method and the route. So a
//! service can't act as a person, and can't even read a page that is open to
//! everybody.

use std::{collections::HashMap, str::FromStr, sync::Arc};

use axum::extract::{FromRequestParts, MatchedPath, OptionalFromRequestParts, Request};
use http::{header, request::Parts};
use jiff::{Timestamp, civil, tz::TimeZone};
use lambda_http::request::RequestContext;
use serde_json::Value;

use crate::{
    config::{Configuration, Env},
    contact::VerifiedContact,
    id::UserId,
    internal_callers::InternalCallers,
    openapi::Problems,
    problem::Problem,
    telemetry,
    token::{TokenError, TokenVerifier},
};

/// The Cognito group whose members are administrators.
const ADMIN_GROUP: &str = "admin";
/// The claim that lists the groups of the token's owner.
const GROUPS: &str = "cognito:groups";

/// A person who is signed in. A handler with this argument responds with 401 to
/// a request without a valid ID token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The person's id.
    pub user_id: UserId,
    /// Whether the person is a member of the group `admin`, according to the
    /// list of groups in the token itself.
    pub admin: bool,
    /// The contact details that the user pool has verified.
    pub contact: VerifiedContact,
}

impl Caller {
    /// Returns whether the caller may read and change the data of the user
    /// `owner`.
    pub fn may_act_for(&self, owner: UserId) -> bool {
        self.admin || self.user_id == owner
    }

    /// Reads a caller from a token's claims. If a gateway passed the claims on,
    /// the result's `admin` is not reliable, and must be read from the token
    /// itself.
    fn from_claims(claims: &HashMap<String, Value>) -> Result<Self, Problem> {
        // A gateway's authorizer also accepts an access token. But an access
        // token has no e-mail address and no phone number, and isn't meant to
        // prove an identity.
        if text(claims, "token_use") != Some("id") {
            return Err(Problem::unauthenticated("An ID token is needed, not an access token."));
        }
        let subject = text(claims, "sub").and_then(|sub| uuid::Uuid::try_parse(sub).ok());
        let subject = subject.ok_or_else(|| Problem::unauthenticated("The token's subject cannot be read."))?;
        Ok(Self {
            user_id: UserId::from_uuid(subject),
            admin: names_admin(claims.get(GROUPS)),
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

/// Returns the claim `name`, which holds an e-mail address or a phone number,
/// if the claim `{name}_verified` is true. A claim that is not verified is
/// ignored, because it may be the e-mail address or phone number of somebody
/// else. A gateway passes booleans on as text.
fn verified<T: FromStr>(claims: &HashMap<String, Value>, name: &str) -> Option<T> {
    let checked = match claims.get(&format!("{name}_verified"))? {
        Value::Bool(checked) => *checked,
        Value::String(text) => text == "true",
        _ => false,
    };
    if checked { text(claims, name)?.parse().ok() } else { None }
}

/// Reads the time at which the token was issued. The token itself has this time
/// as a number. An HTTP API passes the time on as a number in a text, and a
/// REST API as a date in words: `Mon Nov 23 08:45:00 UTC 2026`.
///
/// A time that cannot be read counts as the oldest time: the contact details of
/// such a token never replace those of another token.
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

/// Returns whether the token's own list of groups contains the administrators'
/// group.
fn names_admin(groups: Option<&Value>) -> bool {
    groups.and_then(Value::as_array).is_some_and(|groups| groups.iter().any(|group| group == ADMIN_GROUP))
}

/// Returns whether the list of groups, as a gateway passes it on, could contain
/// the administrators' group. Only then is the token itself verified. So a
/// customer's request doesn't wait until the keys for the verification are
/// fetched.
fn may_name_admin(groups: Option<&Value>) -> bool {
    match groups {
        Some(Value::String(text)) => text.contains(ADMIN_GROUP),
        Some(list) => names_admin(Some(list)),
        None => false,
    }
}

/// The proof of identity that an internal route requires of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InternalAuth {
    /// An IAM identity that the function URL checked, and that may call the
    /// route.
    Iam(InternalCallers),
    /// No proof. This value is for `sam local` and `cargo lambda watch`, which
    /// can't check a signature. `template.yaml` never sets this value.
    None,
}

enum Proof {
    Iam,
    None,
}

impl FromStr for Proof {
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
        const CALLERS: &str = "INTERNAL_CALLERS";
        let proof =
            env.required("INTERNAL_AUTH", "iam; or none, where nothing can check a signature and nobody else gets in");
        let callers = env.optional(CALLERS, InternalCallers::EXPECTED);
        match (proof?, callers?) {
            (Proof::Iam, Some(callers)) => Some(Self::Iam(callers)),
            (Proof::Iam, None) => env.missing(CALLERS),
            (Proof::None, _) => Some(Self::None),
        }
    }
}

/// Determines the identity of a caller for the HTTP edge.
#[derive(Clone, Debug)]
pub struct Authenticator {
    verifier: Arc<TokenVerifier>,
    /// The proof that internal routes require; `None` if the service has no
    /// internal routes.
    internal: Option<Arc<InternalAuth>>,
}

impl Authenticator {
    /// Returns the authenticator of a service with internal routes.
    pub fn new(verifier: TokenVerifier, internal: InternalAuth) -> Self {
        Self { verifier: Arc::new(verifier), internal: Some(Arc::new(internal)) }
    }

    /// Returns the authenticator of a service without internal routes.
    pub fn public_only(verifier: TokenVerifier) -> Self {
        Self { verifier: Arc::new(verifier), internal: None }
    }

    /// Returns the service that has sent the request, or `None` if the request
    /// has no IAM identity.
    ///
    /// # Errors
    ///
    /// If the IAM identity may not call this route with this method. This is so
    /// for every route that is not in the table, also for routes that are open
    /// to everybody.
    pub(crate) fn service(&self, request: &Request) -> Result<Option<Service>, Problem> {
        let Some(identity) = request.extensions().get().and_then(iam_identity) else { return Ok(None) };
        let callers = match self.internal.as_deref() {
            Some(InternalAuth::Iam(callers)) => Some(callers),
            // Nothing has checked the identity, so it has no meaning.
            Some(InternalAuth::None) => return Ok(None),
            None => None,
        };
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let admitted = callers.zip(route).and_then(|(callers, route)| callers.admit(identity, request.method(), route));
        match admitted {
            Some(role) => Ok(Some(Service { role: role.into() })),
            None => {
                let role = without_session(identity);
                tracing::warn!(role, "this IAM identity may not call this route");
                Err(Problem::forbidden("This route is not for this role."))
            }
        }
    }

    async fn caller(&self, parts: &Parts) -> Result<Caller, Problem> {
        // The edge has refused all services except those that the table admits
        // to this route. No table should admit a service to a route for people.
        // If one did, a token beside the service's identity must not count.
        if parts.extensions.get().and_then(iam_identity).is_some() {
            return Err(Problem::forbidden("This route is for people only."));
        }
        let Some(claims) = gateway_claims(parts) else {
            let token = only_authorization(parts).and_then(bearer);
            return self.owner_of(token.ok_or_else(no_token)?).await;
        };
        let mut caller = Caller::from_claims(&claims)?;
        if !self.verifier.is_addressee_of(&claims) {
            tracing::info!("a token of another client or of another pool is refused");
            return Err(bad_token());
        }
        caller.admin = may_name_admin(claims.get(GROUPS)) && self.is_admin(parts, caller.user_id).await?;
        Ok(caller)
    }

    /// Returns whether the request's token belongs to an administrator. The
    /// token must be the one of `checked`, the user whose claims the gateway
    /// passed on. The request must have exactly one token: if a request had two
    /// tokens, nobody would know which one the gateway checked.
    async fn is_admin(&self, parts: &Parts, checked: UserId) -> Result<bool, Problem> {
        let header = only_authorization(parts).ok_or_else(no_token)?;
        // The gateway accepts a token without the scheme, too.
        let owner = self.owner_of(bearer(header).unwrap_or(header)).await?;
        if owner.user_id == checked { Ok(owner.admin) } else { Err(bad_token()) }
    }

    async fn owner_of(&self, token: &str) -> Result<Caller, Problem> {
        let claims = self.verifier.verify(token).await.map_err(|error| match error {
            TokenError::KeysUnavailable(_) => Problem::unavailable(error),
            error => {
                tracing::info!(reason = telemetry::chain(&error), "token refused");
                bad_token()
            }
        })?;
        Caller::from_claims(&claims)
    }

    fn is_internal(&self, parts: &Parts) -> bool {
        self.internal.as_deref() == Some(&InternalAuth::None) || parts.extensions.get::<Service>().is_some()
    }
}

fn no_token() -> Problem {
    Problem::unauthenticated("Send one ID token: `Authorization: Bearer …`.")
}

fn bad_token() -> Problem {
    Problem::unauthenticated("The token is not valid, or has expired.")
}

/// Returns the value of the `Authorization` header, if there is exactly one
/// such header.
fn only_authorization(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?.trim();
    if values.next().is_none() { Some(value) } else { None }
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

/// Returns the ARN of the IAM identity that has signed the request, if the
/// request has come through a function URL. The URL has checked the signature.
/// The events of REST APIs have a place for such an identity, too. It is not
/// read, because no REST API of this system checks signatures.
fn iam_identity(context: &RequestContext) -> Option<&str> {
    match context {
        RequestContext::ApiGatewayV2(context) => context.authorizer.as_ref()?.iam.as_ref()?.user_arn.as_deref(),
        _ => None,
    }
}

/// The service that has sent a request. The edge sets this extension only if
/// the service may call the request's route with the request's method.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// The name of the service's role.
    pub(crate) role: Arc<str>,
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

/// Returns `None` only if the request has no token at all. A request with an
/// invalid token is refused with 401.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        if gateway_claims(parts).is_none() && !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        authenticator(parts)?.caller(parts).await.map(Some)
    }
}

/// An administrator who is signed in. A handler with this argument responds
/// with 403 to all other persons who are signed in.
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

/// The proof that the caller is another service of this system. A handler with
/// this argument responds with 403 to all other callers.
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

/// Returns an IAM identity without its last part. That part names a session or
/// a user, and is often a person's e-mail address, which no log may contain.
fn without_session(identity: &str) -> &str {
    identity.rsplit_once('/').map_or(identity, |(rest, _)| rest)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::{Caller, issued_at, may_name_admin, names_admin};

    fn claims(value: Value) -> HashMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_iam_identity_is_logged_without_the_name_of_its_session() {
        let without = super::without_session;
        let person = "arn:aws:sts::123456789012:assumed-role/Support/ada@example.com";
        assert_eq!(without(person), "arn:aws:sts::123456789012:assumed-role/Support");
        assert_eq!(without("arn:aws:iam::123456789012:user/ada"), "arn:aws:iam::123456789012:user");
        assert_eq!(without("arn:aws:iam::123456789012:root"), "arn:aws:iam::123456789012:root");
    }

    #[test]
    fn only_the_tokens_own_list_of_groups_makes_somebody_an_administrator() {
        assert!(names_admin(Some(&json!(["ops", "admin"]))));
        for claim in [json!(["[admin", "read,admin", "Admin", " admin"]), json!("admin"), json!("[admin]"), Value::Null]
        {
            assert!(!names_admin(Some(&claim)), "{claim}");
        }
    }

    #[test]
    fn the_token_is_verified_for_each_form_in_which_gateways_pass_the_group_on() {
        for claim in [json!(["ops", "admin"]), json!("ops,admin"), json!("[ops admin]"), json!("[[admin]")] {
            assert!(may_name_admin(Some(&claim)), "{claim}");
        }
        for claim in [json!("staff"), json!(["not admin"]), json!(""), json!(1), Value::Null] {
            assert!(!may_name_admin(Some(&claim)), "{claim}");
        }
    }

    #[test]
    fn only_verified_contact_details_are_read() {
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
    fn an_access_token_is_refused() {
        let sub = "0195a8e0-0000-7000-8000-000000000001";
        for token_use in [json!("access"), Value::Null, json!(true)] {
            assert!(Caller::from_claims(&claims(json!({ "sub": sub, "token_use": token_use }))).is_err());
        }
    }
}
