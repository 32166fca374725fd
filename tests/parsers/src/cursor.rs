//! The cursor of a list: only what this very list has given is taken.

use chassis::page::{decode, encode};
use serde_json::Value;

const LIST: &str = "user_1/orders";
const OTHER_LIST: &str = "user_2/orders";

pub(crate) fn check(bytes: &[u8]) {
    // As a client sends it.
    if let Ok(text) = std::str::from_utf8(bytes) {
        for list in [LIST, OTHER_LIST] {
            if let Ok(position) = decode::<Value>(list, text) {
                let ours = encode(list, &position).expect("a cursor");
                assert_eq!(decode::<Value>(list, &ours).as_ref(), Ok(&position));
            }
        }
        assert!(decode::<Value>(LIST, text).is_err() || decode::<Value>(OTHER_LIST, text).is_err(), "fits two lists");
    }
    // As the list gives it, with one character changed afterwards.
    let [place, change, position @ ..] = bytes else { return };
    let position = String::from_utf8_lossy(position);
    let cursor = encode(LIST, &position).expect("a cursor");
    assert_eq!(decode::<String>(LIST, &cursor).as_deref(), Ok(&*position));
    let mut altered = cursor.into_bytes();
    let place = usize::from(*place) % altered.len();
    if altered[place] != *change {
        altered[place] = *change;
        if let Ok(altered) = std::str::from_utf8(&altered) {
            assert!(decode::<String>(LIST, altered).is_err(), "{altered} was altered, and passed");
        }
    }
}
