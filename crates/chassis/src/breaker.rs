//! A circuit breaker. After several consecutive failures, the dependency is not
//! called for a while. Otherwise an execution environment, which serves one
//! request after another for hours, would wait for a timeout in each request.
//!
//! Each execution environment has its own breakers: a dependency that is down
//! still gets a few calls from each environment. The function's reserved
//! concurrency and the queue's maximum concurrency limit the number of
//! environments.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::clock::{Clock, is_within};

/// The number of consecutive failures after which the breaker opens.
const THRESHOLD: u32 = 5;
/// The time for which an open breaker refuses calls before it admits one probe.
const PAUSE: Duration = Duration::from_secs(5);

/// Guards the calls to one dependency.
#[derive(Debug)]
pub struct Breaker {
    /// The wall clock, because the pause must also end while Lambda freezes the
    /// environment between two requests.
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { since: Timestamp, refused: u64 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// The error for a call that was not made because the breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit open ({refused} calls refused so far)")]
pub struct CircuitOpen {
    /// The number of calls that the breaker has refused since it opened.
    pub refused: u64,
}

impl Breaker {
    /// Returns a closed breaker.
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Asks for admission before a call. When an open breaker's pause has
    /// passed, one caller is admitted as a probe. The other callers are refused
    /// until the probe succeeds or another pause has passed.
    pub fn admit(&self) -> Result<(), CircuitOpen> {
        let now = self.clock.now();
        match &mut *self.state() {
            State::Closed { .. } => Ok(()),
            State::Open { since, .. } if !is_within(PAUSE, *since, now) => {
                *since = now;
                Ok(())
            }
            State::Open { refused, .. } => {
                *refused += 1;
                Err(CircuitOpen { refused: *refused })
            }
        }
    }

    /// Records the outcome of an admitted call. Contention, and a refusal by a
    /// healthy dependency (a 409, for example), count as successes. Returns
    /// whether this outcome has opened the breaker.
    pub fn record(&self, success: bool) -> bool {
        let since = self.clock.now();
        let mut state = self.state();
        let was_open = matches!(*state, State::Open { .. });
        *state = match (&*state, success) {
            (_, true) => State::default(),
            (State::Closed { failures }, false) if failures + 1 < THRESHOLD => State::Closed { failures: failures + 1 },
            (State::Closed { .. }, false) => State::Open { since, refused: 0 },
            (State::Open { refused, .. }, false) => State::Open { since, refused: *refused },
        };
        !was_open && matches!(*state, State::Open { .. })
    }

    /// Returns whether the breaker is open: it refuses calls, or admits only a probe.
    pub fn is_open(&self) -> bool {
        matches!(*self.state(), State::Open { .. })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic in another thread can't leave the state half-written, because
        // each change is a single assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Breaker, CircuitOpen, PAUSE, THRESHOLD};
    use crate::clock::Clock;

    fn closed() -> Breaker {
        Breaker::new(Clock::tokio(Timestamp::UNIX_EPOCH))
    }

    fn opened() -> Breaker {
        let breaker = closed();
        for _ in 0..THRESHOLD {
            assert_eq!(breaker.admit(), Ok(()));
            breaker.record(false);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn only_consecutive_failures_open_the_breaker() {
        let breaker = closed();
        for _ in 0..THRESHOLD * 3 {
            breaker.record(false);
            breaker.record(true);
        }
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(opened().admit(), Err(CircuitOpen { refused: 1 }));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_pause_one_probe_is_admitted_and_its_success_closes_the_breaker() {
        let breaker = opened();
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(breaker.admit(), Err(CircuitOpen { refused: 1 }));
        breaker.record(true);
        assert_eq!(breaker.admit(), Ok(()));
    }

    /// The test advances only Tokio's clock, which stands still while Lambda
    /// freezes the environment. The pause must not depend on that clock.
    #[tokio::test(start_paused = true)]
    async fn the_pause_is_measured_with_the_wall_clock() {
        let breaker = Breaker::new(Clock::System);
        let opened: Vec<_> = (0..THRESHOLD).map(|_| breaker.record(false)).collect();
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
        tokio::time::advance(PAUSE * 2).await;
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_keeps_the_breaker_open() {
        let breaker = opened();
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.admit(), Ok(()));
        breaker.record(false);
        assert!(breaker.admit().is_err());
    }
}
