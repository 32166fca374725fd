//! A bearer token: nothing is believed that the pool did not sign, and no pool
//! has signed what comes from here.

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

/// The public half of a key whose other half nobody has kept; `examples/token`
/// has a token that it once signed, and that has expired.
const KEY_SET: &str = include_str!("key_set.json");

/// The pool's key set, and no network.
#[derive(Debug)]
struct Pool;

impl HttpConnector for Pool {
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
    (runtime, TokenVerifier::new(config, SharedHttpConnector::new(Pool), Clock::System))
});

pub(crate) fn check(bytes: &[u8]) {
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let (runtime, verifier) = &*VERIFIER;
    match runtime.block_on(verifier.verify(token)) {
        Ok(claims) => panic!("believed: {claims:?}"),
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
    fn the_expired_token_was_good_once_so_that_this_is_the_key_it_is_checked_with() {
        let (runtime, verifier) = &*VERIFIER;
        let expired = include_str!("../examples/token/expired");
        match runtime.block_on(verifier.verify(expired)) {
            Err(TokenError::Invalid(error)) => assert_eq!(error.kind(), &ErrorKind::ExpiredSignature),
            other => panic!("{other:?}"),
        }
    }
}
