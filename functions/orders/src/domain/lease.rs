//! The lease that keeps two workers from working on one order at the same time.

use chassis::time_limits::ORDER_LEASE;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
        Self { owner: uuid::Uuid::now_v7().to_string(), until: now + ORDER_LEASE }
    }
}
