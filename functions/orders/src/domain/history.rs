//! The history of an order.

use std::ops::Deref;

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

/// All transitions of an order, the oldest first. The first entry is the placing of the order, so a history is never
/// empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<HistoryEntry>")]
pub struct History(Vec<HistoryEntry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a history has at least one entry")]
pub struct EmptyHistory;

impl TryFrom<Vec<HistoryEntry>> for History {
    type Error = EmptyHistory;

    fn try_from(entries: Vec<HistoryEntry>) -> Result<Self, EmptyHistory> {
        if entries.is_empty() { Err(EmptyHistory) } else { Ok(Self(entries)) }
    }
}

impl Deref for History {
    type Target = [HistoryEntry];

    fn deref(&self) -> &[HistoryEntry] {
        &self.0
    }
}

impl History {
    pub(super) fn begin(now: Timestamp) -> Self {
        Self(vec![HistoryEntry { status: OrderState::Pending, at: now, reason: None }])
    }

    pub(super) fn push(&mut self, entry: HistoryEntry) {
        self.0.push(entry);
    }

    /// Returns the time at which the order was placed.
    pub fn created_at(&self) -> Timestamp {
        self.0[0].at
    }

    /// Returns the time of the last transition.
    pub fn updated_at(&self) -> Timestamp {
        self.0[self.0.len() - 1].at
    }

    /// Returns the history up to the order's confirmation, or `None` if the order was never confirmed.
    pub fn up_to_confirmation(&self) -> Option<Self> {
        let confirmed = self.0.iter().position(|entry| entry.status == OrderState::Confirmed)?;
        Some(Self(self.0[..=confirmed].to_vec()))
    }
}
