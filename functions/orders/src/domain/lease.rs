//! The lease that keeps two workers from working on one order at the same time.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The length of a lease. A lease only avoids double work: the conditions of the writes keep orders correct.
pub const LEASE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// A random name for one request or one attempt of the worker.
    pub owner: String,
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub until: Timestamp,
}

impl Lease {
    /// A lease for a new owner.
    pub fn start(now: Timestamp) -> Self {
        Self { owner: uuid::Uuid::now_v7().to_string(), until: now + LEASE }
    }
}
