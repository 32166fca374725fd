//! Pages of a list, and the opaque cursor between them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::store::StoreError;

/// How many entries a page has when the client doesn't say.
pub const DEFAULT_LIMIT: u32 = 20;
/// The most a client may ask for.
pub const MAX_LIMIT: u32 = 100;
const SEAL_BYTES: usize = 16;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same page with every entry turned into something else.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

/// A cursor that is not of this list, or was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`cursor` must be the `next_cursor` of a page of this same list, unchanged")]
pub struct InvalidCursor;

/// Why a list can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The client's mistake.
    #[error(transparent)]
    Cursor(#[from] InvalidCursor),
    /// Not the client's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many entries are wanted: 1 to [`MAX_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Limit(u32);

impl Limit {
    /// As a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl TryFrom<u32> for Limit {
    type Error = String;

    fn try_from(limit: u32) -> Result<Self, String> {
        if (1..=MAX_LIMIT).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(format!("`limit` must be from 1 to {MAX_LIMIT}"))
        }
    }
}

/// Writes a position as a cursor that fits this `scope` only: who asks, and
/// for which list.
pub fn encode<P: Serialize>(scope: &str, position: &P) -> Result<String, serde_json::Error> {
    let position = serde_json::to_vec(position)?;
    let mut bytes = seal(scope, &position).to_vec();
    bytes.extend(position);
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads a cursor that [`encode`] wrote for the same `scope`.
///
/// The seal is a digest without a key. It catches a cursor that was altered or
/// belongs to another list; one that is forged with full knowledge of this
/// code still only names a position in the caller's own list, since the
/// partition that is read never comes from the cursor.
pub fn decode<P: DeserializeOwned>(scope: &str, cursor: &str) -> Result<P, InvalidCursor> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor)?;
    let (found, position) = bytes.split_at_checked(SEAL_BYTES).ok_or(InvalidCursor)?;
    if found != seal(scope, position) {
        return Err(InvalidCursor);
    }
    serde_json::from_slice(position).map_err(|_| InvalidCursor)
}

fn seal(scope: &str, position: &[u8]) -> [u8; SEAL_BYTES] {
    let digest = Sha256::new()
        .chain_update((scope.len() as u64).to_be_bytes())
        .chain_update(scope)
        .chain_update(position)
        .finalize();
    let mut seal = [0; SEAL_BYTES];
    seal.copy_from_slice(&digest[..SEAL_BYTES]);
    seal
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn a_cursor_fits_its_own_list_only() {
        let cursor = encode("user_1/orders", &"ord_9").unwrap();
        assert_eq!(decode::<String>("user_1/orders", &cursor).unwrap(), "ord_9");
        assert!(decode::<String>("user_2/orders", &cursor).is_err());
    }

    #[test]
    fn a_cursor_with_any_letter_changed_is_refused() {
        let cursor = encode("s", &"ord_9").unwrap();
        for at in 0..cursor.len() {
            let mut letters = cursor.clone().into_bytes();
            letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(letters).unwrap();
            assert!(decode::<String>("s", &altered).is_err(), "{altered}");
        }
        assert!(decode::<String>("s", "").is_err());
    }
}
