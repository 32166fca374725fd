//! How long an invocation has left.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A deadline older than this was never given: no invocation waits so long.
const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// The first and the longest pause of [`Deadline::pause`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The moment after which nothing may be started any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// Of an invocation: from the epoch milliseconds that Lambda gives with it,
    /// or `otherwise` from now where there is no Lambda.
    ///
    /// `cargo lambda watch` gives the same moment of 1970 with each invocation,
    /// tests give none. A moment that has only just passed is meant, though:
    /// nothing may begin that could not be recorded.
    pub fn of_invocation(millis: u64, otherwise: Duration) -> Self {
        let end = UNIX_EPOCH + Duration::from_millis(millis);
        match SystemTime::now().duration_since(end) {
            Ok(passed) if passed > A_DAY => Self::after(otherwise),
            Ok(_) => Self::after(Duration::ZERO),
            Err(ahead) => Self::after(ahead.duration()),
        }
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

    /// Waits a moment before something is tried again that others kept from
    /// succeeding. The pause grows with `attempt`, and has jitter, so that
    /// those who met once don't meet again.
    ///
    /// Returns `false` at once where the deadline leaves no time for the pause.
    pub async fn pause(self, attempt: u32) -> bool {
        let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE);
        let pause = longest.mul_f64(0.5 + 0.5 * fastrand::f64());
        if pause >= self.remaining() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
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
    fn an_end_that_has_just_passed_leaves_no_time() {
        let end = SystemTime::now() - Duration::from_secs(2);
        let millis = end.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        assert_eq!(Deadline::of_invocation(millis, OTHERWISE).remaining(), Duration::ZERO);
    }

    #[test]
    fn an_end_in_another_age_is_none() {
        for millis in [0, 600_000] {
            let left = Deadline::of_invocation(millis, OTHERWISE).remaining();
            assert!(left > OTHERWISE - Duration::from_secs(1) && left <= OTHERWISE, "{millis}: {left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_only_where_time_is_left_after_it() {
        let deadline = Deadline::after(Duration::from_secs(1));
        let mut attempts = 0;
        while deadline.pause(attempts).await {
            attempts += 1;
        }
        assert!((6..=20).contains(&attempts), "{attempts}");
        assert!(!deadline.remaining().is_zero() && deadline.remaining() <= super::LONGEST_PAUSE);
    }
}
