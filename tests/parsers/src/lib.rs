//! What must hold of each parser of outside bytes, whatever the bytes are.
//!
//! `fuzz/` looks for bytes of which it doesn't hold (`make fuzz`); the tests
//! here try those that were found interesting, and many like them.

mod cursor;
mod event;
mod gateway_event;
mod idempotency_key;
mod order_request;
mod token;

/// A parser and what it promises.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// As its fuzz target and its folder of examples are called.
    pub name: &'static str,
    /// Panics if `bytes` make it break a promise.
    pub check: fn(bytes: &[u8]),
}

/// The body of `POST /orders`.
pub const ORDER_REQUEST: Parser = Parser { name: "order_request", check: order_request::check };
/// The `cursor` of a list.
pub const CURSOR: Parser = Parser { name: "cursor", check: cursor::check };
/// A message from the queue.
pub const EVENT: Parser = Parser { name: "event", check: event::check };
/// An event of API Gateway.
pub const GATEWAY_EVENT: Parser = Parser { name: "gateway_event", check: gateway_event::check };
/// The `Idempotency-Key` header.
pub const IDEMPOTENCY_KEY: Parser = Parser { name: "idempotency_key", check: idempotency_key::check };
/// A bearer token.
pub const TOKEN: Parser = Parser { name: "token", check: token::check };

/// All of them.
pub const PARSERS: [Parser; 6] = [ORDER_REQUEST, CURSOR, EVENT, GATEWAY_EVENT, IDEMPOTENCY_KEY, TOKEN];
