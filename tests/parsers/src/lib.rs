//! The properties that each parser of untrusted input must have for arbitrary
//! bytes.
//!
//! `make fuzz` searches for bytes that break a property (`fuzz/`). The tests of
//! this crate check the files in `examples`, and random variations of these files.

mod cursor;
mod event;
mod gateway_event;
mod idempotency_key;
mod order_request;
mod token;

/// A parser of untrusted input, with a check of its properties.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// The name of the fuzz target and of the folder with examples.
    pub name: &'static str,
    /// Parses `bytes`, and panics if a property doesn't hold.
    pub check: fn(bytes: &[u8]),
}

/// The body of `POST /orders`.
pub const ORDER_REQUEST: Parser = Parser { name: "order_request", check: order_request::check };
/// The query parameter `cursor` of a list.
pub const CURSOR: Parser = Parser { name: "cursor", check: cursor::check };
/// A message from the queue of order events.
pub const EVENT: Parser = Parser { name: "event", check: event::check };
/// An event of API Gateway or of a function URL.
pub const GATEWAY_EVENT: Parser = Parser { name: "gateway_event", check: gateway_event::check };
/// The `Idempotency-Key` header.
pub const IDEMPOTENCY_KEY: Parser = Parser { name: "idempotency_key", check: idempotency_key::check };
/// A bearer token.
pub const TOKEN: Parser = Parser { name: "token", check: token::check };

pub const PARSERS: [Parser; 6] = [ORDER_REQUEST, CURSOR, EVENT, GATEWAY_EVENT, IDEMPOTENCY_KEY, TOKEN];
