//! A bearer token: the verifier accepts only tokens that the user pool has signed.
//! Only one example has a valid signature, and this token is expired. So the verifier
//! must refuse every token.

use std::sync::LazyLock;

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use chassis::{
    clock::Clock,
    token::{TokenConfig, TokenError, TokenVerifier},
};
use tokio::runtime::{Builder, Runtime};

/// A public key. The private key has signed the token `examples/token/expired`, and was
/// then thrown away.
const KEY_SET: &str = include_str!("key_set.json");

/// A network in which every request gets the user pool's key set.
#[derive(Debug)]
struct KeySetOnly;

impl HttpConnector for KeySetOnly {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let status = StatusCode::try_from(200).expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(KEY_SET))))
    }
}

static VERIFIER: LazyLock<(Runtime, TokenVerifier)> = LazyLock::new(|| {
    let config = TokenConfig {
        key_set: "https://pool.example/keys".parse().expect("an address"),
        issuer: "https://pool.example".into(),
        audience: "the-shop".into(),
    };
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    (runtime, TokenVerifier::new(config, SharedHttpConnector::new(KeySetOnly), Clock::System))
});

pub(crate) fn check(bytes: &[u8]) {
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let (runtime, verifier) = &*VERIFIER;
    match runtime.block_on(verifier.verify(token)) {
        Ok(claims) => panic!("the token was accepted: {claims:?}"),
        Err(TokenError::KeysUnavailable(reason)) => panic!("the key set could not be read: {reason}"),
        Err(TokenError::Invalid(_) | TokenError::UnknownKey) => {}
    }
}

#[cfg(test)]
mod tests {
    use chassis::token::TokenError;
    use jsonwebtoken::errors::ErrorKind;

    use super::VERIFIER;

    #[test]
    fn the_expired_token_is_refused_only_because_it_is_expired() {
        // Any other error would mean that the verifier doesn't know the key, and the
        // examples would prove nothing.
        let (runtime, verifier) = &*VERIFIER;
        let expired = include_str!("../examples/token/expired");
        match runtime.block_on(verifier.verify(expired)) {
            Err(TokenError::Invalid(error)) => assert_eq!(error.kind(), &ErrorKind::ExpiredSignature),
            other => panic!("{other:?}"),
        }
    }
}
