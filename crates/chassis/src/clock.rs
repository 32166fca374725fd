//! What time it is.

use std::time::Duration;

use jiff::{Timestamp, Unit};

/// Where a service takes the time from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock. Never derived from a monotonic one: a frozen
    /// Lambda sandbox stops counting between two invocations.
    #[default]
    System,
    /// Follows Tokio's clock, which tests can pause and advance.
    Tokio {
        /// The Tokio instant at which the clock showed `from`.
        origin: tokio::time::Instant,
        /// What the clock showed then.
        from: Timestamp,
    },
}

/// Whether `period` has not passed yet since `since`. It has where the clock
/// was set back: nothing waits for a time that may be far off.
pub fn is_within(period: Duration, since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed < period)
}

impl Clock {
    /// A clock that starts at `from` and moves as Tokio's does.
    pub fn tokio(from: Timestamp) -> Self {
        Self::Tokio { origin: tokio::time::Instant::now(), from }
    }

    /// The present, to the millisecond: what is written equals what is read
    /// back, whichever store it went through.
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
