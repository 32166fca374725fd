//! The lease that keeps two workers from working on one order at the same time.

use chassis::time_limits::ORDER_LEASE;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// A random id of the request, or of the worker's attempt, that has the lease.
    pub owner: String,
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub until: Timestamp,
}

impl Lease {
    /// Returns a lease that begins now, with a new random owner.
    pub fn start(now: Timestamp) -> Self {
        Self { owner: uuid::Uuid::now_v7().to_string(), until: now + ORDER_LEASE }
    }
}
