//! What time it is.

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
