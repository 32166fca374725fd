//! What the user sees while it works: each step's name when it begins, and the
//! time it took when it ends.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use crate::say;

/// A step that has begun. One that fails is simply dropped: the error that
/// follows says more than a cross would.
pub struct Step {
    began: Instant,
}

impl Step {
    pub fn begin(what: impl Display) -> Self {
        say!("▸ {what}");
        Self { began: Instant::now() }
    }

    /// Something worth knowing on the way.
    pub fn note(&self, what: impl Display) {
        for line in what.to_string().lines() {
            say!("{}", format!("    {line}").trim_end());
        }
    }

    /// Ends the step; returns the time it took.
    pub fn done(self, how: impl Display) -> Duration {
        let took = self.began.elapsed();
        say!("  ✓ {how} ({})", seconds(took));
        took
    }
}

/// A duration for people: `0.42 s`, `33.1 s`, `6 min 40 s`.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..100 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_times_are_in_minutes() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_millis(33_120)), "33.1 s");
        assert_eq!(seconds(Duration::from_secs(400)), "6 min 40 s");
    }
}
