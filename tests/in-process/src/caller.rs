//! The senders of requests, and the tokens of signed-in senders.

use chassis::id::UserId;
use jiff::Timestamp;
use lambda_http::request::RequestContext;
use serde_json::{Value, json};

use crate::world::{self, CLIENT, ISSUED_AT, ISSUER, POOL_KEY};

/// The sender of a request: a signed-in person, another service, or an
/// anonymous caller.
#[derive(Clone, Debug)]
pub struct Caller(Kind);

#[derive(Clone, Debug)]
enum Kind {
    SignedIn {
        /// The claims of the person's token, as API Gateway passes them on.
        claims: Value,
        /// The person's groups in the token itself. There, the claim
        /// `cognito:groups` is a list; a gateway may pass the list on as a
        /// string.
        groups: Vec<String>,
    },
    /// Another service, or another IAM identity.
    Signed {
        arn: String,
    },
    Anonymous,
}

impl Caller {
    /// A signed-in customer with a verified e-mail address and phone number.
    pub fn named(name: &str) -> Self {
        let digits = uuid::Uuid::new_v4().as_u128() % 10_000_000_000;
        Self::signed_in(json!({
            "sub": uuid::Uuid::new_v4(),
            "token_use": "id",
            "iss": ISSUER,
            "aud": CLIENT,
            "iat": ISSUED_AT.to_string(),
            "email": format!("{}@example.com", name.to_lowercase().replace(' ', ".")),
            "email_verified": "true",
            "phone_number": format!("+1{digits:010}"),
            "phone_number_verified": "true",
        }))
    }

    /// A signed-in person whose token has exactly these claims.
    pub fn signed_in(claims: Value) -> Self {
        Self(Kind::SignedIn { claims, groups: Vec::new() })
    }

    /// A signed-in administrator.
    pub fn admin() -> Self {
        Self::named("Grace").in_groups(&["admin"], "admin")
    }

    /// The order worker, which may call every route for other services.
    pub fn service() -> Self {
        Self::function("order-worker")
    }

    /// A function that sends its requests to function URLs.
    pub fn function(name: &str) -> Self {
        Self::identity(&world::session(name))
    }

    /// An IAM identity that sends its requests to function URLs.
    pub fn identity(arn: &str) -> Self {
        Self(Kind::Signed { arn: arn.to_owned() })
    }

    /// A caller who is not signed in.
    pub fn anonymous() -> Self {
        Self(Kind::Anonymous)
    }

    /// The same person as a member of `groups`. The gateway passes the groups
    /// on as `claim`, whose form depends on the type of the gateway.
    pub fn in_groups(&self, groups: &[&str], claim: impl Into<Value>) -> Self {
        let mut caller = self.with_claim("cognito:groups", claim);
        if let Kind::SignedIn { groups: own, .. } = &mut caller.0 {
            *own = groups.iter().map(ToString::to_string).collect();
        }
        caller
    }

    pub(crate) fn has_groups(&self) -> bool {
        matches!(&self.0, Kind::SignedIn { groups, .. } if !groups.is_empty())
    }

    /// The claims of the person's token, as API Gateway passes them on.
    pub fn claims(&self) -> Value {
        match &self.0 {
            Kind::SignedIn { claims, .. } => claims.clone(),
            _ => panic!("only a signed-in person has claims"),
        }
    }

    /// The person's token, signed with the key of the user pool.
    pub fn token(&self) -> String {
        let Kind::SignedIn { claims, groups } = &self.0 else { panic!("only a signed-in person has a token") };
        let mut claims = claims.clone();
        claims["iat"] = self.issued_at().into();
        claims["exp"] = (Timestamp::now().as_second() + 24 * 3600).into();
        for verified in ["email_verified", "phone_number_verified"] {
            claims[verified] = (claims[verified] == "true").into();
        }
        claims["cognito:groups"] = groups.as_slice().into();
        POOL_KEY.sign(&claims)
    }

    /// The same person with one claim changed.
    pub fn with_claim(&self, claim: &str, value: impl Into<Value>) -> Self {
        let mut caller = self.clone();
        match &mut caller.0 {
            Kind::SignedIn { claims, .. } => claims[claim] = value.into(),
            _ => panic!("only a signed-in person has claims"),
        }
        caller
    }

    /// The same person with a token that was issued `seconds` later.
    pub fn with_later_token(&self, seconds: i64) -> Self {
        self.with_claim("iat", (self.issued_at() + seconds).to_string())
    }

    /// The time at which the person's token was issued, in seconds since 1970.
    pub fn issued_at(&self) -> i64 {
        self.claim("iat").parse().expect("a number")
    }

    /// A claim of the person's token.
    pub fn claim(&self, name: &str) -> &str {
        match &self.0 {
            Kind::SignedIn { claims, .. } => claims[name].as_str().expect("a claim"),
            _ => panic!("only a signed-in person has claims"),
        }
    }

    /// The e-mail address in the person's token.
    pub fn email(&self) -> &str {
        self.claim("email")
    }

    /// The phone number in the person's token.
    pub fn phone(&self) -> &str {
        self.claim("phone_number")
    }

    /// The person's user id, which is the claim `sub`.
    pub fn id(&self) -> UserId {
        UserId::from_uuid(self.claim("sub").parse().expect("a UUID"))
    }

    /// The request context that the gateway adds to a request of this caller;
    /// `None` for an anonymous caller.
    pub fn context(&self) -> Option<RequestContext> {
        match &self.0 {
            Kind::SignedIn { claims, .. } => Some(world::context(json!({ "authorizer": { "claims": claims } }))),
            Kind::Signed { arn } => Some(world::url_context(arn)),
            Kind::Anonymous => None,
        }
    }
}
