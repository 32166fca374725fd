//! Deadlines: the moments until which work may start or run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A deadline that passed longer ago than this was not set by Lambda, because
/// no invocation waits that long.
const ONE_DAY: Duration = Duration::from_secs(24 * 3600);
/// The pause of [`Deadline::pause`] before the first repeat, without jitter.
/// The pause doubles before each further repeat, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The error for work that was not finished when its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no time left")]
pub struct Elapsed;

/// The moment after which no work may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline that is `duration` from now.
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// Returns the deadline of an invocation. `millis` is the deadline that
    /// Lambda passes with the invocation, in milliseconds since 1970. Outside
    /// Lambda, the deadline is `default` from now.
    ///
    /// Outside Lambda, `millis` is a moment in 1970: `cargo lambda watch`
    /// passes the same moment with each invocation, and tests pass 0. If the
    /// deadline passed less than a day ago, however, it was set by Lambda, and
    /// no time is left: no work may start, because the outcome could not be
    /// recorded any more.
    pub fn of_invocation(millis: u64, default: Duration) -> Self {
        let end = UNIX_EPOCH + Duration::from_millis(millis);
        match SystemTime::now().duration_since(end) {
            Ok(passed) if passed > ONE_DAY => Self::after(default),
            Ok(_) => Self::after(Duration::ZERO),
            Err(ahead) => Self::after(ahead.duration()),
        }
    }

    /// Returns the deadline that is `reserve` before this deadline. The caller
    /// can use the reserved time to record an outcome that arrives at the last
    /// moment.
    pub fn earlier_by(self, reserve: Duration) -> Self {
        Self(self.0.checked_sub(reserve).unwrap_or(self.0))
    }

    /// Returns the time that is left; zero after the deadline.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Pauses before the repeat of a request that met contention. The pause
    /// grows with `attempt`, the number of repeats so far. It is partly random,
    /// so that two requests that conflicted are not repeated at the same
    /// moment.
    ///
    /// Returns `false` at once if the deadline leaves no time for the pause.
    pub async fn pause(self, attempt: u32) -> bool {
        let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE);
        let pause = longest.mul_f64(0.5 + 0.5 * fastrand::f64());
        if pause >= self.remaining() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// Runs `work` until it is finished or the deadline passes.
    ///
    /// # Errors
    ///
    /// If the deadline passes first. `work` is then dropped.
    pub async fn run<W: Future>(self, work: W) -> Result<W::Output, Elapsed> {
        tokio::time::timeout_at(self.0, work).await.map_err(|_| Elapsed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::Deadline;

    const DEFAULT: Duration = Duration::from_secs(20);

    #[test]
    fn the_deadline_that_lambda_passes_is_used() {
        let end = SystemTime::now() + Duration::from_secs(8);
        let millis = end.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        let left = Deadline::of_invocation(millis, DEFAULT).remaining();
        assert!(left > Duration::from_secs(7) && left <= Duration::from_secs(8), "{left:?}");
    }

    #[test]
    fn a_deadline_that_has_just_passed_leaves_no_time() {
        let end = SystemTime::now() - Duration::from_secs(2);
        let millis = end.duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
        assert_eq!(Deadline::of_invocation(millis, DEFAULT).remaining(), Duration::ZERO);
    }

    #[test]
    fn a_deadline_of_1970_is_ignored() {
        for millis in [0, 600_000] {
            let left = Deadline::of_invocation(millis, DEFAULT).remaining();
            assert!(left > DEFAULT - Duration::from_secs(1) && left <= DEFAULT, "{millis}: {left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_only_if_time_is_left_after_it() {
        let deadline = Deadline::after(Duration::from_secs(1));
        let mut attempts = 0;
        while deadline.pause(attempts).await {
            attempts += 1;
        }
        assert!((6..=20).contains(&attempts), "{attempts}");
        assert!(!deadline.remaining().is_zero() && deadline.remaining() <= super::LONGEST_PAUSE);
    }
}
