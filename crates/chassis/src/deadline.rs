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

    /// Of an invocation that begins now: from the epoch milliseconds that
    /// Lambda gives with it, or `otherwise` from now.
    ///
    /// What has passed before anything has begun is nobody's deadline.
    /// `cargo lambda watch` gives the same moment of 1970 with each invocation,
    /// tests give none.
    pub fn of_invocation(millis: u64, otherwise: Duration) -> Self {
        let end = UNIX_EPOCH + Duration::from_millis(millis);
        Self::after(end.duration_since(SystemTime::now()).unwrap_or(otherwise))
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::Deadline;

    const OTHERWISE: Duration = Duration::from_secs(20);

    #[test]
    fn an_invocation_ends_when_lambda_says() {
        let end = SystemTime::now() + Duration::from_secs(8);
        let millis = end.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let left = Deadline::of_invocation(millis, OTHERWISE).remaining();
        assert!(left > Duration::from_secs(7) && left <= Duration::from_secs(8), "{left:?}");
    }

    #[test]
    fn an_end_before_the_beginning_is_none() {
        for millis in [0, 600_000] {
            let left = Deadline::of_invocation(millis, OTHERWISE).remaining();
            assert!(left > OTHERWISE - Duration::from_secs(1) && left <= OTHERWISE, "{millis}: {left:?}");
        }
    }
}
