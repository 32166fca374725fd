//! The cursor of a list: a list accepts only cursors that the same list has
//! issued.

use chassis::page::{Cursor, encode};
use serde_json::Value;

const LIST: &str = "user_1/orders";
const OTHER_LIST: &str = "user_2/orders";

pub(crate) fn check(bytes: &[u8]) {
    // First, the bytes are a cursor that a client sends.
    if let Some(cursor) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Cursor>().ok()) {
        for list in [LIST, OTHER_LIST] {
            if let Ok(position) = cursor.decode::<Value>(list) {
                assert!(cursor.is_readable());
                let reissued = encode(list, &position).expect("a cursor");
                assert_eq!(reissued.parse::<Cursor>().expect("a cursor").decode::<Value>(list).as_ref(), Ok(&position));
            }
        }
        let fits = |list| cursor.decode::<Value>(list).is_ok();
        assert!(!(fits(LIST) && fits(OTHER_LIST)), "two lists accept the cursor");
    }
    // Second, the bytes are a position for which a list issues a cursor.
    let position = String::from_utf8_lossy(bytes);
    let cursor: Cursor = encode(LIST, &position).expect("a cursor").parse().expect("a cursor");
    assert_eq!(cursor.decode::<String>(LIST).as_deref(), Ok(&*position));
    assert!(cursor.decode::<String>(OTHER_LIST).is_err());
}
