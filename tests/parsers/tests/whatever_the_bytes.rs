//! Each parser keeps its promises for every example that was found interesting,
//! and for thousands that look like one.

use std::{fs, path::Path};

use parser_tests::{CURSOR, EVENT, GATEWAY_EVENT, IDEMPOTENCY_KEY, ORDER_REQUEST, PARSERS, Parser, TOKEN};

/// How many variations of each example are tried.
const VARIATIONS: usize = 500;
/// Bytes that parsers care for.
const TELLING: &[u8] = b"\0\n\"\\{}[]:,.-+0eE@%<\x7f\x80\xff";

fn examples(parser: Parser) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(parser.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 3, "{} has too few examples", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Something like `example`: bytes changed, left out, repeated, or taken from `other`.
fn vary(example: &[u8], other: &[u8], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = example.to_vec();
    for _ in 0..chance.usize(1..4) {
        let at = chance.usize(..=bytes.len());
        let end = (at + chance.usize(..8)).min(bytes.len());
        match chance.u8(..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.u8(..8),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, other.get(..chance.usize(..=other.len())).unwrap_or_default().to_vec())),
            3 => drop(bytes.splice(at..end, [TELLING[chance.usize(..TELLING.len())]])),
            _ => drop(bytes.splice(at..at, bytes[at..end].repeat(chance.usize(1..40)))),
        }
    }
    bytes
}

fn expect_promises_kept(parser: Parser) {
    assert!(PARSERS.iter().any(|one| one.name == parser.name));
    let examples = examples(parser);
    let mut chance = fastrand::Rng::with_seed(1);
    for example in &examples {
        (parser.check)(example);
        for _ in 0..VARIATIONS {
            let other = &examples[chance.usize(..examples.len())];
            (parser.check)(&vary(example, other, &mut chance));
        }
    }
}

#[test]
fn an_order_is_a_whole_order_or_a_problem_that_names_each_bad_field() {
    expect_promises_kept(ORDER_REQUEST);
}

#[test]
fn a_cursor_fits_only_the_list_that_gave_it() {
    expect_promises_kept(CURSOR);
}

#[test]
fn an_event_can_be_told_or_is_refused_without_quoting_it() {
    expect_promises_kept(EVENT);
}

#[test]
fn a_request_is_answered_whatever_the_gateway_makes_of_it() {
    expect_promises_kept(GATEWAY_EVENT);
}

#[test]
fn a_key_is_the_same_key_with_quotes_and_without() {
    expect_promises_kept(IDEMPOTENCY_KEY);
}

#[test]
fn no_token_is_believed_that_the_pool_did_not_sign() {
    expect_promises_kept(TOKEN);
}
