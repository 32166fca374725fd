//! The `Idempotency-Key` header: a key is the same with and without quotes.

use chassis::idempotency::{IdempotencyKey, MAX_KEY_LENGTH};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    let Ok(key) = header.parse::<IdempotencyKey>() else { return };
    let bare = key.as_str();
    assert!((1..=MAX_KEY_LENGTH).contains(&bare.len()));
    assert!(bare.bytes().all(|byte| byte.is_ascii_graphic() && ![b'"', b','].contains(&byte)), "{bare:?}");
    for form in [bare.to_owned(), format!("\"{bare}\"")] {
        assert_eq!(form.parse(), Ok(key.clone()));
    }
}
