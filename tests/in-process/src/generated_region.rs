//! A part of a document that a test compares with the code, and can write anew.

use std::{env, fs};

/// Checks that the text between the lines `begin` and `end` of `document` is `expected`.
/// If the variable `HOLDFAST_UPDATE` is set, writes the text instead. `test` is the name of
/// the test file, for the message that says how to do that.
///
/// # Panics
///
/// If the text is another one, or if the document cannot be read or has no such lines.
pub fn check(document: &str, (begin, end): (&str, &str), expected: &str, test: &str) {
    let text = fs::read_to_string(document).expect("the document can be read");
    let (before, rest) = text.split_once(begin).expect("the line before the table");
    let (written, after) = rest.split_once(end).expect("the line after the table");
    if env::var_os("HOLDFAST_UPDATE").is_some() {
        fs::write(document, format!("{before}{begin}{expected}{end}{after}")).expect("the document can be written");
    } else {
        assert_eq!(
            written, expected,
            "HOLDFAST_UPDATE=1 cargo test -p in-process-tests --test {test} writes the table"
        );
    }
}
