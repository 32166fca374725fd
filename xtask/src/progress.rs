//! Shows progress on the screen: the name of each step when the step begins, and its
//! duration when the step has succeeded.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use crate::say;

/// A step of a task. If a step fails, `done` is not called, and the output ends with the
/// task's error message.
pub struct Step {
    began: Instant,
}

impl Step {
    pub fn begin(name: impl Display) -> Self {
        say!("▸ {name}");
        Self { began: Instant::now() }
    }

    pub fn note(&self, text: impl Display) {
        for line in text.to_string().lines() {
            say!("{}", format!("    {line}").trim_end());
        }
    }

    pub fn done(self, result: impl Display) -> Duration {
        let took = self.began.elapsed();
        say!("  ✓ {result} ({})", seconds(took));
        took
    }
}

/// Formats a duration: `0.42 s`, `33.1 s`, `6 min 40 s`.
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
    fn long_durations_are_printed_in_minutes() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_millis(33_120)), "33.1 s");
        assert_eq!(seconds(Duration::from_secs(400)), "6 min 40 s");
    }
}
