//! The HTTP response to the request that placed an order, and what the order stores of it.

use serde::{Deserialize, Serialize};

/// An HTTP response to the request that placed an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    pub body: String,
}

/// What the order stores of the response to the request that placed it, so that a repeat of the request gets the same
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedAnswer {
    /// The response shows the order as it was when it was confirmed. Nothing of this can change later, so the response
    /// is written again from the order itself.
    Confirmation {
        /// The version of the code that writes the response. Code that writes other bytes has another version.
        version: u32,
    },
    /// The response is the problem that reports the refusal. Its text can change with the code, so its bytes are
    /// stored.
    Refusal(Answer),
}
