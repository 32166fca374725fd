//! The current time.

use std::time::Duration;

use jiff::{Timestamp, Unit};

/// The source of the current time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock. A monotonic clock would be wrong here, because
    /// it stands still while Lambda freezes the execution environment between
    /// two invocations.
    #[default]
    System,
    /// A clock that follows Tokio's clock, which tests can pause and advance.
    Tokio {
        /// The Tokio instant at which the clock showed `from`.
        origin: tokio::time::Instant,
        /// The time that the clock showed at `origin`.
        from: Timestamp,
    },
}

/// Returns whether a period that began at `since` is still running at `now`. If
/// `now` is before `since`, the clock was set back. Then the period counts as
/// over: by this clock, its end may be far in the future.
pub fn is_within(period: Duration, since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed < period)
}

impl Clock {
    /// Returns a clock that starts at `from` and follows Tokio's clock.
    pub fn tokio(from: Timestamp) -> Self {
        Self::Tokio { origin: tokio::time::Instant::now(), from }
    }

    /// Returns the current time, rounded to milliseconds. A store that keeps
    /// only milliseconds then returns exactly the time that was written.
    pub fn now(&self) -> Timestamp {
        let exact = match self {
            Self::System => Timestamp::now(),
            Self::Tokio { origin, from } => *from + origin.elapsed(),
        };
        exact.round(Unit::Millisecond).unwrap_or(exact)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::is_within;

    #[test]
    fn a_period_is_over_when_it_has_passed_or_the_clock_was_set_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let period = Duration::from_secs(5);
        assert!(is_within(period, at(100), at(100)));
        assert!(is_within(period, at(100), at(104)));
        assert!(!is_within(period, at(100), at(105)));
        assert!(!is_within(period, at(100), at(99)));
    }
}
