//! Pages of a list, and the opaque cursor between them.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::StoreError;

/// The number of entries of a page if the client doesn't name one.
pub const DEFAULT_LIMIT: u32 = 20;
/// The maximum number of entries that a client may ask for.
pub const MAX_LIMIT: u32 = 100;
/// The version of a cursor's content. If the content changes, the version
/// changes with it, so that the code recognises the cursors that it can read.
const VERSION: u32 = 1;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The entries, in the order of the list.
    pub items: Vec<T>,
    /// The cursor with which a client asks for the next page; missing on the
    /// last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Applies `f` to every entry.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

/// The error for a text that is not a cursor of the list that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the `next_cursor` of a page of this same list, unchanged")]
pub struct InvalidCursor;

/// The reasons why a list can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The client sent a wrong cursor.
    #[error(transparent)]
    Cursor(#[from] InvalidCursor),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The maximum number of entries of a page: 1 to [`MAX_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// The highest limit that a client may ask for.
    pub const MAX: Self = Self(MAX_LIMIT);

    /// Returns this limit, or the highest limit if `number` is greater, or the
    /// lowest limit if `number` is 0.
    pub fn at_most(number: u32) -> Self {
        Self(number.clamp(1, MAX_LIMIT))
    }

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

/// The error for a text that is not a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to {MAX_LIMIT}")]
pub struct InvalidLimit;

impl FromStr for Limit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse().ok().filter(|limit| is_plain && (1..=MAX_LIMIT).contains(limit));
        limit.map(Self).ok_or(InvalidLimit)
    }
}

/// The position at which a page begins, as [`encode`] wrote it.
///
/// A cursor is not a secret, and a client can forge it: a cursor never decides
/// whose list is read. A cursor names the list for which it was made. For any
/// other list it is refused, because there the page would begin at a wrong
/// entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_plain && !text.is_empty() { Ok(Self(text.to_owned())) } else { Err(InvalidCursor) }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The content of a cursor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<L, P> {
    #[serde(rename = "v")]
    version: u32,
    list: L,
    after: P,
}

/// Encodes the position `after` as a cursor of `list`, a text that names the
/// owner and the filters of the list.
pub fn encode<P: Serialize>(list: &str, after: &P) -> Result<String, serde_json::Error> {
    let content = Content { version: VERSION, list, after };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&content)?))
}

impl Cursor {
    /// Returns the position in `list`. Fails if the cursor was made for another
    /// list.
    pub fn decode<P: DeserializeOwned>(&self, list: &str) -> Result<P, InvalidCursor> {
        let content: Content<String, P> = self.content()?;
        if content.version == VERSION && content.list == list { Ok(content.after) } else { Err(InvalidCursor) }
    }

    /// Returns whether the text is a cursor of any list.
    pub fn is_readable(&self) -> bool {
        self.content::<serde_json::Value>().is_ok_and(|content| content.version == VERSION)
    }

    fn content<P: DeserializeOwned>(&self) -> Result<Content<String, P>, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| InvalidCursor)?;
        serde_json::from_slice(&bytes).map_err(|_| InvalidCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Limit, encode};

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    #[test]
    fn a_cursor_is_valid_only_for_its_own_list() {
        let cursor = cursor(&encode("user_1/orders", &"ord_9").unwrap());
        assert_eq!(cursor.decode::<String>("user_1/orders").unwrap(), "ord_9");
        assert!(cursor.decode::<String>("user_2/orders").is_err());
    }

    #[test]
    fn a_malformed_cursor_is_refused() {
        for text in ["", "a b", "a=", "\u{e9}"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
        assert!(!cursor("AAAA").is_readable() && cursor("AAAA").decode::<String>("s").is_err());
        // A cursor of an unknown version.
        let other = super::Engine::encode(&super::URL_SAFE_NO_PAD, r#"{"v":2,"list":"s","after":"x"}"#);
        assert!(!cursor(&other).is_readable() && cursor(&other).decode::<String>("s").is_err());
    }

    #[test]
    fn a_limit_is_a_plain_number_from_1_to_100() {
        assert_eq!("100".parse::<Limit>().map(Limit::get), Ok(100));
        for text in ["", "0", "101", "-1", "+1", " 1", "1.0", "1e1", "x", "99999999999999999999"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
