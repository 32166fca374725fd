//! Verifying ID tokens where no gateway did it, or not all of it: RS256 against the pool's key
//! set (RFC 7515, RFC 7517, OpenID Connect Core 3.1.3.7).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::Value;

use crate::{
    clock::{Clock, is_within},
    config::{BaseUrl, Configuration, Env},
    deadline::Deadline,
    service_client::{RawCall, send},
};

/// A key that was withdrawn is believed for this long at most.
const KEYS_KEPT: Duration = Duration::from_secs(3600);
/// Tokens with made-up key ids must not turn into a fetch each.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// Nor must a pool that doesn't answer hold up every request.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where tokens come from and for whom they are.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Address of the JSON Web Key Set.
    pub key_set: BaseUrl,
    /// The `iss` claim: the user pool's address.
    pub issuer: String,
    /// The `aud` claim: the app client's id.
    pub audience: String,
}

impl Configuration for TokenConfig {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let key_set = env.required("AUTH_JWKS_URL", "the address of the user pool's key set");
        let issuer = env.required("AUTH_ISSUER", "the address that the user pool's tokens name as their issuer");
        let audience = env.required("AUTH_AUDIENCE", "the id of the user pool's client");
        Some(Self { key_set: key_set?, issuer: issuer?, audience: audience? })
    }
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Malformed, expired, signed by nobody we know, or meant for others.
    #[error("the token is not valid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// Signed with a key that the pool doesn't publish.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The key set could not be fetched; the token may be good.
    #[error("the key set cannot be fetched: {0}")]
    KeysUnavailable(String),
}

/// Verifies tokens; keeps the pool's keys between requests.
#[derive(Debug)]
pub struct TokenVerifier {
    config: TokenConfig,
    validation: Validation,
    connector: SharedHttpConnector,
    clock: Clock,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, DecodingKey>,
    /// When they came.
    fetched: Option<Timestamp>,
    /// When they could not be fetched.
    failed: Option<Timestamp>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_id.keys()).finish()
    }
}

impl TokenVerifier {
    /// A verifier that has fetched nothing yet.
    pub fn new(config: TokenConfig, connector: SharedHttpConnector, clock: Clock) -> Self {
        // The algorithm is ours to choose, never the token's (RFC 8725, 3.1).
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        Self { config, validation, connector, clock, keys: Mutex::default() }
    }

    /// Whether claims that somebody else has verified are of our pool and for our
    /// client.
    pub fn is_addressee_of(&self, claims: &HashMap<String, Value>) -> bool {
        let is = |name: &str, expected: &str| claims.get(name).is_some_and(|claim| claim == expected);
        is("iss", &self.config.issuer) && is("aud", &self.config.audience)
    }

    /// The token's claims, if it is genuine, current and meant for us.
    pub async fn verify(&self, token: &str) -> Result<HashMap<String, Value>, TokenError> {
        let header = decode_header(token)?;
        let key_id = header.kid.ok_or(TokenError::UnknownKey)?;
        let key = match self.known(&key_id) {
            Some(key) => key,
            None => {
                self.fetch().await?;
                self.known(&key_id).ok_or(TokenError::UnknownKey)?
            }
        };
        Ok(decode(token, &key, &self.validation)?.claims)
    }

    fn known(&self, key_id: &str) -> Option<DecodingKey> {
        let keys = self.keys();
        let fresh = keys.fetched.is_some_and(|at| is_within(KEYS_KEPT, at, self.clock.now()));
        keys.by_id.get(key_id).filter(|_| fresh).cloned()
    }

    async fn fetch(&self) -> Result<(), TokenError> {
        let now = self.clock.now();
        let Keys { fetched, failed, .. } = *self.keys();
        if fetched.is_some_and(|at| is_within(FETCH_PAUSE, at, now)) {
            return Ok(());
        }
        if failed.is_some_and(|at| is_within(FAILURE_PAUSE, at, now)) {
            return Err(TokenError::KeysUnavailable("it could not be fetched a moment ago".into()));
        }
        match self.fetched().await {
            Ok(by_id) => *self.keys() = Keys { by_id, fetched: Some(now), failed: None },
            Err(error) => {
                // What was fetched before is believed for as long as it would be.
                self.keys().failed = Some(self.clock.now());
                return Err(error);
            }
        }
        Ok(())
    }

    async fn fetched(&self) -> Result<HashMap<String, DecodingKey>, TokenError> {
        let call = RawCall::get(self.config.key_set.join(""));
        let answer = send(&self.connector, call, Deadline::after(FETCH_TIMEOUT))
            .await
            .map_err(|error| TokenError::KeysUnavailable(error.to_string()))?;
        let set: JwkSet = match serde_json::from_slice(&answer.body) {
            Ok(set) if answer.status.is_success() => set,
            _ => return Err(TokenError::KeysUnavailable(format!("status {}", answer.status))),
        };
        let by_id =
            set.keys.iter().filter_map(|jwk| Some((jwk.common.key_id.clone()?, DecodingKey::from_jwk(jwk).ok()?)));
        Ok(by_id.collect())
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
