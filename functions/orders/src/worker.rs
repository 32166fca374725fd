//! Finishing or undoing what requests left open.
//!
//! Started by the orders table's stream for an order that should be taken
//! further at once, and every minute by a schedule for those whose time to be
//! looked at has come. Both find the same work; doing it twice is safe.

use std::time::Duration;

use chassis::store::StoreError;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{Order, OrderId},
    repository::SHARDS,
    saga::engine::{Engine, Invocation, RECORD_RESERVE, Unfinished},
};

/// How many orders are worked on at once.
const CONCURRENCY: usize = 8;
/// How many orders of a shard one sweep takes on.
const SWEEP_LIMIT: u32 = 50;
/// After how long a sweep that had to postpone orders looks again, and what it
/// must have left for that.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
const ROUND_TAKES: Duration = Duration::from_secs(15);
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// An order that is open for longer than this needs a person. It is never
/// given up: the worker goes on trying.
pub const OVERDUE_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// What a piece of work came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Orders taken to an end.
    pub finished: u64,
    /// Orders that stay open for now.
    pub postponed: u64,
    /// Orders that others have, or that were at an end already.
    pub skipped: u64,
    /// Of the postponed: open for longer than [`OVERDUE_AFTER`], or unreadable.
    pub overdue: u64,
}

impl Outcome {
    fn plus(self, other: Self) -> Self {
        Self {
            finished: self.finished + other.finished,
            postponed: self.postponed + other.postponed,
            skipped: self.skipped + other.skipped,
            overdue: self.overdue + other.overdue,
        }
    }
}

/// The worker.
#[derive(Clone)]
pub struct Worker {
    engine: Engine,
}

impl Worker {
    /// Around `engine`.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Works on these orders, several at a time.
    pub async fn work(&self, ids: Vec<OrderId>, invocation: Invocation<'_>) -> Outcome {
        stream::iter(ids)
            .map(|id| async move {
                self.work_on(id, invocation).await.unwrap_or_else(|error| {
                    // The lease, if there is one, ends by itself.
                    tracing::error!(order = %id, %error, "order could not be worked on");
                    // What can't be read doesn't mend by being read again:
                    // that needs a person at once.
                    let overdue = u64::from(matches!(error, StoreError::Corrupt { .. }));
                    Outcome { postponed: 1, overdue, ..Outcome::default() }
                })
            })
            .buffer_unordered(CONCURRENCY)
            .fold(Outcome::default(), |sum, one| async move { sum.plus(one) })
            .await
    }

    /// Works on all open orders whose time has come. While some had to be
    /// postponed it stays and looks again, as long as the invocation lasts: a
    /// pause of seconds means nothing where nobody looks for a minute.
    pub async fn sweep(&self, invocation: Invocation<'_>) -> Result<Outcome, StoreError> {
        let mut whole = self.round(invocation).await?;
        let mut left = whole.postponed;
        while left > 0 && invocation.deadline.remaining() > LOOK_AGAIN_AFTER + ROUND_TAKES {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let round = match self.round(invocation).await {
                Ok(round) => round,
                // What was counted before must still be told.
                Err(error) => {
                    tracing::error!(%error, "could not look again; the next sweep will");
                    break;
                }
            };
            whole.finished += round.finished;
            left = left.saturating_sub(round.finished).max(round.postponed);
        }
        Ok(whole)
    }

    async fn round(&self, invocation: Invocation<'_>) -> Result<Outcome, StoreError> {
        let now = self.engine.clock.now();
        let due = (0..SHARDS).map(|shard| self.engine.repository.due(shard, now, SWEEP_LIMIT));
        let due = futures::future::try_join_all(due).await?;
        Ok(self.work(due.into_iter().flatten().collect(), invocation).await)
    }

    async fn work_on(&self, id: OrderId, invocation: Invocation<'_>) -> Result<Outcome, StoreError> {
        // The order stays due; the next sweep has time for it.
        if invocation.deadline.remaining() < RECORD_RESERVE * 2 {
            return Ok(Outcome { skipped: 1, ..Outcome::default() });
        }
        let now = self.engine.clock.now();
        let lease = crate::domain::Lease::start(now);
        let Some(order) = self.engine.repository.acquire(id, lease, now).await? else {
            return Ok(Outcome { skipped: 1, ..Outcome::default() });
        };
        match self.engine.finish(order.clone(), invocation).await {
            Ok(_) => Ok(Outcome { finished: 1, ..Outcome::default() }),
            Err(reason) => self.postpone(&order, &reason).await,
        }
    }

    async fn postpone(&self, order: &Order, reason: &Unfinished) -> Result<Outcome, StoreError> {
        let now: Timestamp = self.engine.clock.now();
        let overdue = now.duration_since(order.open_since()) > OVERDUE_AFTER;
        let pause = backoff(order.failures);
        if overdue {
            tracing::error!(order = %order.id, %reason, ?pause, "order overdue");
        } else {
            tracing::warn!(order = %order.id, %reason, ?pause, "order postponed");
        }
        self.engine.repository.postpone(order, now + pause, false).await?;
        Ok(Outcome { postponed: 1, overdue: u64::from(overdue), ..Outcome::default() })
    }
}

/// Doubles with each failure, up to the longest; with jitter, so that orders
/// that failed together don't come back together.
fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let pause = first.saturating_mul(2u32.saturating_pow(failures)).min(longest);
    pause.mul_f64(0.75 + 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::{BACKOFF, backoff};

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let (first, longest) = BACKOFF;
        for (failures, whole) in [(0, first), (1, first * 2), (3, first * 8), (u32::MAX, longest)] {
            let pauses: Vec<_> = (0..1000).map(|_| backoff(failures)).collect();
            let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!((whole.mul_f64(0.75)..whole.mul_f64(0.77)).contains(least), "{failures}: {least:?}");
            assert!((whole.mul_f64(0.98)..=whole).contains(most), "{failures}: {most:?}");
        }
    }
}
