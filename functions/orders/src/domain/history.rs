//! The history of an order.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::OrderState;

/// A transition that the order made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The state after the transition.
    pub status: OrderState,
    pub at: Timestamp,
    /// The code of the cancellation reason, if the transition began a cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
