//! Verifies ID tokens: tokens that no gateway has verified, and tokens whose
//! groups a gateway doesn't pass on reliably. The tokens are signed with RS256
//! and a key of the user pool's key set (RFC 7515, RFC 7517, OpenID Connect
//! Core 3.1.3.7).

use std::{
    collections::HashMap,
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::Value;

use crate::{
    clock::{Clock, is_within},
    config::BaseUrl,
    configuration,
    deadline::Deadline,
    service_client::{OutgoingRequest, send},
    time_limits::KEY_SET_TIMEOUT,
};

/// The key set is fetched again after this time. Until then, a key that the
/// user pool has withdrawn is still accepted.
const KEY_SET_LIFETIME: Duration = Duration::from_secs(3600);
/// After the key set was fetched, it is not fetched again for this time: if
/// clients send tokens with invented key ids, not every token may cause a
/// request to the user pool.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// If the key set could not be fetched, no request tries to fetch it again for
/// this time: a user pool that doesn't respond must not delay every request.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

configuration! {
    /// The issuer of the tokens, and the client that they are issued for.
    #[derive(Clone, Debug)]
    pub struct TokenConfig {
        /// The address of the JSON Web Key Set.
        pub key_set: BaseUrl = required("AUTH_JWKS_URL", "the address of the user pool's key set"),
        /// The `iss` claim: the user pool's address.
        pub issuer: String = required("AUTH_ISSUER", "the address that the user pool's tokens name as their issuer"),
        /// The `aud` claim: the app client's id.
        pub audience: String = required("AUTH_AUDIENCE", "the id of the user pool's client"),
    }
}

/// The reasons why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The token is malformed or expired, has a wrong signature, or is meant
    /// for another client.
    #[error("the token is not valid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// The token is signed with a key that the pool doesn't publish.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The key set could not be fetched; the token may be valid.
    #[error("the key set cannot be fetched")]
    KeysUnavailable(#[source] Box<dyn Error + Send + Sync>),
}

/// Verifies tokens, and keeps the pool's keys between requests.
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
    /// The time at which the keys were fetched.
    fetched: Option<Timestamp>,
    /// The time of the last failure to fetch the keys.
    failed: Option<Timestamp>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_id.keys()).finish()
    }
}

impl TokenVerifier {
    /// Returns a verifier that has not fetched the keys yet.
    pub fn new(config: TokenConfig, connector: SharedHttpConnector, clock: Clock) -> Self {
        // The service chooses the algorithm, never the token (RFC 8725, 3.1).
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        Self { config, validation, connector, clock, keys: Mutex::default() }
    }

    /// Returns whether claims that a gateway has verified come from our pool
    /// and are meant for our client.
    pub fn is_addressee_of(&self, claims: &HashMap<String, Value>) -> bool {
        let is = |name: &str, expected: &str| claims.get(name).is_some_and(|claim| claim == expected);
        is("iss", &self.config.issuer) && is("aud", &self.config.audience)
    }

    /// Verifies a token and returns its claims.
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
        let fresh = keys.fetched.is_some_and(|at| is_within(KEY_SET_LIFETIME, at, self.clock.now()));
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
                // The keys that were fetched before stay valid until
                // `KEY_SET_LIFETIME` has passed.
                self.keys().failed = Some(self.clock.now());
                return Err(error);
            }
        }
        Ok(())
    }

    async fn fetched(&self) -> Result<HashMap<String, DecodingKey>, TokenError> {
        let call = OutgoingRequest::get(self.config.key_set.join(""));
        let response = send(&self.connector, call, Deadline::after(KEY_SET_TIMEOUT))
            .await
            .map_err(|error| TokenError::KeysUnavailable(error.into()))?;
        let set: JwkSet = match serde_json::from_slice(&response.body) {
            Ok(set) if response.status.is_success() => set,
            _ => return Err(TokenError::KeysUnavailable(format!("status {}", response.status).into())),
        };
        let by_id =
            set.keys.iter().filter_map(|jwk| Some((jwk.common.key_id.clone()?, DecodingKey::from_jwk(jwk).ok()?)));
        Ok(by_id.collect())
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
