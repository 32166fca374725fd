//! Each parser keeps its properties for every stored example, and for thousands of
//! random variations of the examples.

use std::{fs, path::Path};

use parser_tests::{CURSOR, EVENT, GATEWAY_EVENT, IDEMPOTENCY_KEY, ORDER_REQUEST, PARSERS, Parser, TOKEN};

/// The number of variations of each example.
const VARIATIONS: usize = 500;
/// Bytes that have a meaning in the parsed formats.
const SPECIAL_BYTES: &[u8] = b"\0\n\"\\{}[]:,.-+0eE@%<\x7f\x80\xff";

fn examples(parser: Parser) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(parser.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 3, "{} has too few examples", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Changes, removes or repeats bytes of `example`, or inserts bytes of `other`.
fn vary(example: &[u8], other: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = example.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..8)).min(bytes.len());
        match random.u8(..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, other.get(..random.usize(..=other.len())).unwrap_or_default().to_vec())),
            3 => drop(bytes.splice(at..end, [SPECIAL_BYTES[random.usize(..SPECIAL_BYTES.len())]])),
            _ => drop(bytes.splice(at..at, bytes[at..end].repeat(random.usize(1..40)))),
        }
    }
    bytes
}

fn assert_properties(parser: Parser) {
    assert!(PARSERS.iter().any(|known| known.name == parser.name));
    let examples = examples(parser);
    let mut random = fastrand::Rng::with_seed(1);
    for example in &examples {
        (parser.check)(example);
        for _ in 0..VARIATIONS {
            let other = &examples[random.usize(..examples.len())];
            (parser.check)(&vary(example, other, &mut random));
        }
    }
}

#[test]
fn a_request_for_an_order_gives_a_complete_order_or_a_problem_that_names_each_invalid_field() {
    assert_properties(ORDER_REQUEST);
}

#[test]
fn a_list_accepts_only_its_own_cursors() {
    assert_properties(CURSOR);
}

#[test]
fn an_event_gives_a_message_or_an_error_that_quotes_nothing() {
    assert_properties(EVENT);
}

#[test]
fn every_request_of_a_gateway_gets_an_answer_that_the_gateway_accepts() {
    assert_properties(GATEWAY_EVENT);
}

#[test]
fn an_idempotency_key_is_the_same_with_and_without_quotes() {
    assert_properties(IDEMPOTENCY_KEY);
}

#[test]
fn a_token_that_the_user_pool_has_not_signed_is_refused() {
    assert_properties(TOKEN);
}
