//! How long an invocation has left.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The moment after which nothing may be started any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// From the epoch milliseconds that Lambda gives with each invocation.
    pub fn from_epoch_millis(millis: u64) -> Self {
        let end = UNIX_EPOCH + Duration::from_millis(millis);
        Self::after(end.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// The same deadline, `reserve` earlier: what a caller keeps to record an
    /// outcome that arrived at the last moment.
    pub fn earlier_by(self, reserve: Duration) -> Self {
        Self(self.0.checked_sub(reserve).unwrap_or(self.0))
    }

    /// Time left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The instant itself, for Tokio's timeouts.
    pub fn instant(self) -> Instant {
        self.0
    }
}
