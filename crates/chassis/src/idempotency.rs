//! The client's name for what it asks for once, however often it has to ask
//! (IETF draft draft-ietf-httpapi-idempotency-key-header).

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// How long a key is remembered.
pub const KEY_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most characters of a key, as Stripe has it.
pub const MAX_KEY: usize = 255;
/// The header that a key comes in.
pub const HEADER: &str = "Idempotency-Key";

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_KEY} visible ASCII characters other than a comma, bare or in double quotes")]
pub struct InvalidKey;

impl FromStr for IdempotencyKey {
    type Err = InvalidKey;

    /// Takes the quoted form of the draft and the bare one that most clients
    /// send; both name the same key. No comma: an HTTP API's gateway, and any
    /// proxy, may put two keys into one line with one (RFC 9110, section 5.3).
    fn from_str(header: &str) -> Result<Self, InvalidKey> {
        let bare = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(header);
        let visible = bare.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\,".contains(&b));
        if visible && (1..=MAX_KEY).contains(&bare.len()) { Ok(Self(bare.to_owned())) } else { Err(InvalidKey) }
    }
}

impl IdempotencyKey {
    /// The key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key, and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The client's key.
    pub key: IdempotencyKey,
    /// A digest of the request.
    pub fingerprint: String,
    /// When the key may be used for something else.
    pub expires_at: Timestamp,
}

impl KeyUse {
    /// The use of `key` at `now`, for this request.
    ///
    /// # Errors
    ///
    /// Where the request can't be written as JSON.
    pub fn new<T: Serialize>(key: IdempotencyKey, request: &T, now: Timestamp) -> Result<Self, serde_json::Error> {
        Ok(Self { key, fingerprint: fingerprint(request)?, expires_at: now + KEY_KEPT })
    }
}

/// The result of inserting a record together with the use of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum InsertOutcome<T> {
    /// The record is inserted.
    Inserted,
    /// The same request was made before: this is the record that it inserted.
    Repeated(Box<T>),
    /// The key was used for another request.
    KeyMismatch,
}

/// A digest of a request: the same for two spellings of one request, another
/// for another request.
///
/// # Errors
///
/// Where the request can't be written as JSON.
pub fn fingerprint<T: Serialize>(request: &T) -> Result<String, serde_json::Error> {
    let request = serde_json::to_vec(request)?;
    Ok(Sha256::digest(request).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(feature = "aws")]
mod http {
    use ::http::HeaderMap;
    use ::http::StatusCode;

    use super::{HEADER, IdempotencyKey, InvalidKey, MAX_KEY};
    use crate::{
        http::Repeatable,
        input::{Part, Sent},
        openapi::{Problems, text},
        problem::Problem,
        schema,
    };

    schema!(
        IdempotencyKey,
        "IdempotencyKey",
        text(format!(r#"^("[!#-+\--\[\]-~]{{1,{MAX_KEY}}}"|[!#-+\--\[\]-~]{{1,{MAX_KEY}}})$"#), "checkout-7f3a")
    );

    /// The request's key, if it has one.
    #[derive(Clone, Debug)]
    pub struct Key(pub Option<IdempotencyKey>);

    impl Part for Key {
        async fn read(sent: &mut Sent) -> Result<Option<Self>, Problem> {
            let key = key(&sent.head().headers);
            // Who has to name the request, and doesn't, must not repeat it.
            if let (Ok(None), Some(repeatable)) = (&key, sent.head().extensions.get::<Repeatable>()) {
                repeatable.deny();
            }
            Ok(sent.fields().take(HEADER, key).map(Self))
        }
    }

    /// One key at most: of two, neither is surely the one that was meant.
    fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, String> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err("must be sent once".to_owned());
        }
        let key = value.to_str().map_err(|_| InvalidKey).and_then(str::parse);
        key.map(Some).map_err(|error| error.to_string())
    }

    /// 422: the key was used for another request.
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
    use super::{IdempotencyKey, MAX_KEY};

    #[test]
    fn the_quoted_and_the_bare_form_are_one_key() {
        assert_eq!("\"abc-1\"".parse::<IdempotencyKey>(), "abc-1".parse());
    }

    #[test]
    fn a_key_is_1_to_255_visible_characters() {
        assert!("k".repeat(MAX_KEY).parse::<IdempotencyKey>().is_ok());
        for key in ["", "\"\"", "a b", "a\"b", "ä", "a\nb", &"k".repeat(MAX_KEY + 1)] {
            assert!(key.parse::<IdempotencyKey>().is_err(), "{key}");
        }
    }
}
