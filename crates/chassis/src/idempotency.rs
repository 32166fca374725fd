//! Idempotency keys: with a key, a client may repeat a request, and the request
//! takes effect once (IETF draft draft-ietf-httpapi-idempotency-key-header).

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The time for which a key is stored.
pub const KEY_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The maximum length of a key in characters; the same as at Stripe.
pub const MAX_KEY_LENGTH: usize = 255;
/// The request header with the key.
pub const HEADER: &str = "Idempotency-Key";

/// An idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// The error for a text that is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_KEY_LENGTH} visible ASCII characters other than a comma, bare or in double quotes")]
pub struct InvalidKey;

impl FromStr for IdempotencyKey {
    type Err = InvalidKey;

    /// Accepts a key in double quotes, as the draft requires, and a key without
    /// quotes, as most clients send it. A quoted key and an unquoted key with
    /// the same characters are the same key.
    ///
    /// A key must not contain a comma: a gateway or a proxy may join two
    /// headers into one, with a comma between their values (RFC 9110, section
    /// 5.3).
    fn from_str(header: &str) -> Result<Self, InvalidKey> {
        let bare = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(header);
        let visible = bare.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\,".contains(&b));
        if visible && (1..=MAX_KEY_LENGTH).contains(&bare.len()) { Ok(Self(bare.to_owned())) } else { Err(InvalidKey) }
    }
}

impl IdempotencyKey {
    /// Returns the key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An idempotency key, and the request for which the client used it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The client's key.
    pub key: IdempotencyKey,
    /// A digest of the request, as [`fingerprint`] returns it.
    pub fingerprint: String,
    /// The time from which the key may be used for another request.
    pub expires_at: Timestamp,
}

impl KeyUse {
    /// Returns the use of `key` for `request`. The key expires at `now` plus
    /// [`KEY_RETENTION`].
    ///
    /// # Errors
    ///
    /// If the request can't be serialised as JSON.
    pub fn new<T: Serialize>(key: IdempotencyKey, request: &T, now: Timestamp) -> Result<Self, serde_json::Error> {
        Ok(Self { key, fingerprint: fingerprint(request)?, expires_at: now + KEY_RETENTION })
    }
}

/// The result of inserting a record together with the use of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum InsertOutcome<T> {
    /// The record is inserted.
    Inserted,
    /// The same request was made before, with the same key. Holds the record
    /// that was inserted then.
    Repeated(Box<T>),
    /// The key was used for another request.
    KeyMismatch,
}

/// Returns a digest of a request, which must have been parsed. Requests that
/// differ only in their spelling, for example in their spaces, have the same
/// digest. Requests with different content have different digests.
///
/// # Errors
///
/// If the request can't be serialised as JSON.
pub fn fingerprint<T: Serialize>(request: &T) -> Result<String, serde_json::Error> {
    let request = serde_json::to_vec(request)?;
    Ok(Sha256::digest(request).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(feature = "aws")]
mod http {
    use ::http::HeaderMap;
    use ::http::StatusCode;

    use super::{HEADER, IdempotencyKey, InvalidKey, MAX_KEY_LENGTH};
    use crate::{
        http::Repeatable,
        input::{RequestPart, RequestReader},
        openapi::{Problems, text},
        problem::Problem,
        schema,
    };

    schema!(
        IdempotencyKey,
        "IdempotencyKey",
        text(
            format!(r#"^("[!#-+\--\[\]-~]{{1,{MAX_KEY_LENGTH}}}"|[!#-+\--\[\]-~]{{1,{MAX_KEY_LENGTH}}})$"#),
            "checkout-7f3a"
        )
    );

    /// The request's idempotency key, if the request has one.
    #[derive(Clone, Debug)]
    pub struct Key(pub Option<IdempotencyKey>);

    impl RequestPart for Key {
        async fn read(reader: &mut RequestReader) -> Result<Option<Self>, Problem> {
            let key = key(&reader.head().headers);
            // Without a key, a repeat of this request could take effect twice.
            if let (Ok(None), Some(repeatable)) = (&key, reader.head().extensions.get::<Repeatable>()) {
                repeatable.deny();
            }
            Ok(reader.fields().check(HEADER, key).map(Self))
        }
    }

    /// Returns the request's key, if there is one. A request with two keys is
    /// refused, because nobody knows which one the client meant.
    fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, String> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err("must be sent once".to_owned());
        }
        let key = value.to_str().map_err(|_| InvalidKey).and_then(str::parse);
        key.map(Some).map_err(|error| error.to_string())
    }

    /// Returns the problem (422) for a key that was used for another request
    /// before.
    pub fn mismatch() -> Problem {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_mismatch",
            "This Idempotency-Key was used for another request. Use a new key for a new request.",
        )
    }

    impl Problems for Key {
        fn problems() -> Vec<Problem> {
            vec![mismatch()]
        }
    }
}

#[cfg(feature = "aws")]
pub use self::http::{Key, mismatch};

#[cfg(test)]
mod tests {
    use super::{IdempotencyKey, MAX_KEY_LENGTH};

    #[test]
    fn a_key_with_quotes_and_a_key_without_quotes_are_the_same_key() {
        assert_eq!("\"abc-1\"".parse::<IdempotencyKey>(), "abc-1".parse());
    }

    #[test]
    fn a_key_is_1_to_255_visible_characters() {
        assert!("k".repeat(MAX_KEY_LENGTH).parse::<IdempotencyKey>().is_ok());
        for key in ["", "\"\"", "a b", "a\"b", "ä", "a\nb", &"k".repeat(MAX_KEY_LENGTH + 1)] {
            assert!(key.parse::<IdempotencyKey>().is_err(), "{key}");
        }
    }
}
