//! A circuit breaker: after several failures in a row a dependency is left
//! alone for a while, so that an execution environment, which serves one
//! request after another for hours, doesn't wait out a timeout in each.
//!
//! It knows nothing of its siblings in other environments. Reserved
//! concurrency and the queue's maximum concurrency bound those.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::clock::{Clock, is_within};

/// Failures in a row after which the breaker opens.
const THRESHOLD: u32 = 5;
/// How long an open breaker refuses before it lets one probe through.
const PAUSE: Duration = Duration::from_secs(5);

/// Guards the calls to one dependency.
#[derive(Debug)]
pub struct Breaker {
    /// A wall clock's time: the pause must also pass while the environment is
    /// frozen between two requests.
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

/// The breaker is open: the call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit open ({refused} calls refused so far)")]
pub struct Open {
    /// How many calls this breaker refused since it opened.
    pub refused: u64,
}

impl Breaker {
    /// A closed one.
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Asks before a call. After the pause one caller at a time gets through
    /// as a probe: the others wait for another pause.
    pub fn admit(&self) -> Result<(), Open> {
        let now = self.clock.now();
        match &mut *self.state() {
            State::Closed { .. } => Ok(()),
            State::Open { since, .. } if !is_within(PAUSE, *since, now) => {
                *since = now;
                Ok(())
            }
            State::Open { refused, .. } => {
                *refused += 1;
                Err(Open { refused: *refused })
            }
        }
    }

    /// Tells how an admitted call went. A refusal by a healthy dependency (a
    /// 409, say) is a success here, and so is its word that it is busy.
    pub fn record(&self, success: bool) {
        let since = self.clock.now();
        let mut state = self.state();
        *state = match (&*state, success) {
            (_, true) => State::default(),
            (State::Closed { failures }, false) if failures + 1 < THRESHOLD => State::Closed { failures: failures + 1 },
            (State::Closed { .. }, false) => State::Open { since, refused: 0 },
            (State::Open { refused, .. }, false) => State::Open { since, refused: *refused },
        };
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves the state usable: each write is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Breaker, Open, PAUSE, THRESHOLD};
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
    async fn it_opens_on_failures_in_a_row_only() {
        let breaker = closed();
        for _ in 0..THRESHOLD * 3 {
            breaker.record(false);
            breaker.record(true);
        }
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(opened().admit(), Err(Open { refused: 1 }));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_pause_a_single_probe_passes_and_its_success_closes() {
        let breaker = opened();
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(breaker.admit(), Err(Open { refused: 1 }));
        breaker.record(true);
        assert_eq!(breaker.admit(), Ok(()));
    }

    /// Tokio's clock stands still where Lambda freezes the environment.
    #[tokio::test(start_paused = true)]
    async fn the_pause_is_one_of_the_wall_clock() {
        let breaker = Breaker::new(Clock::System);
        (0..THRESHOLD).for_each(|_| breaker.record(false));
        tokio::time::advance(PAUSE * 2).await;
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_keeps_it_open() {
        let breaker = opened();
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.admit(), Ok(()));
        breaker.record(false);
        assert!(breaker.admit().is_err());
    }
}
