//! The current time.

use std::time::Duration;

use jiff::{Timestamp, Unit};

/// The source of the current time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock. It is never derived from a monotonic clock,
    /// which stands still while Lambda freezes the sandbox between two
    /// invocations.
    #[default]
    System,
    /// Follows Tokio's clock, which tests can pause and advance.
    Tokio {
        /// The Tokio instant at which the clock showed `from`.
        origin: tokio::time::Instant,
        /// The time that the clock showed at `origin`.
        from: Timestamp,
    },
}

/// Returns whether `period` has not passed yet since `since`. If the clock was
/// set back, the period counts as passed, because the time at which it ends may
/// be far away.
pub fn is_within(period: Duration, since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed < period)
}

impl Clock {
    /// Returns a clock that starts at `from` and follows Tokio's clock.
    pub fn tokio(from: Timestamp) -> Self {
        Self::Tokio { origin: tokio::time::Instant::now(), from }
    }

    /// Returns the current time in whole milliseconds, so that every store
    /// returns the time that was written to it.
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
