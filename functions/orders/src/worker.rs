//! Finishing or undoing what requests left open.
//!
//! Started by the orders table's stream for an order that should be taken
//! further at once, and every minute by a schedule for those whose time to be
//! looked at has come. Both find the same work; doing it twice is safe.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Duration};

use chassis::{invocation::Invocation, store::StoreError, telemetry};
use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{Lease, Order, OrderId, OrderState},
    repository::{Due, Look, Postponed, SHARDS},
    saga::engine::{Engine, RECORD_RESERVE, Unfinished},
};

/// How many orders are worked on at once; so many has the stream in a batch.
const CONCURRENCY: usize = 8;
/// How many orders of a shard one look takes on.
const SWEEP_LIMIT: u32 = 50;
/// After how long a sweep that had to postpone orders looks again, and what it
/// must have left for that.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
const ROUND_TAKES: Duration = Duration::from_secs(15);
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// The longest pause after somebody was busy; it is of another length each time,
/// so that those who met don't meet again. It doesn't grow: a rush passes by
/// itself, and the order may be the last one in it.
const BUSY_PAUSE: Duration = Duration::from_secs(4);
/// An order that is open for longer than this needs a person. It is never
/// given up: the worker goes on trying.
pub const OVERDUE_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// What a piece of work came to: what became last of each order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Orders taken to an end.
    pub finished: u64,
    /// Orders that stay open for now.
    pub postponed: u64,
    /// Orders that others have, that were at an end already, or for which
    /// there was no time.
    pub skipped: u64,
    /// Of all of them: open for longer than [`OVERDUE_AFTER`], even if they
    /// came to their end now; or unreadable.
    pub overdue: u64,
}

impl Outcome {
    fn of(orders: impl IntoIterator<Item = Worked>) -> Self {
        let mut sum = Self::default();
        for Worked { fate, overdue } in orders {
            match fate {
                Fate::Finished => sum.finished += 1,
                Fate::Postponed => sum.postponed += 1,
                Fate::Skipped => sum.skipped += 1,
            }
            sum.overdue += u64::from(overdue);
        }
        sum
    }
}

/// What became of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Finished,
    Postponed,
    Skipped,
}

#[derive(Clone, Copy)]
struct Worked {
    fate: Fate,
    overdue: bool,
}

impl Worked {
    /// What is known of an order after another look at it.
    fn and_then(self, later: Self) -> Self {
        let fate = match (self.fate, later.fate) {
            // The index, which is a little late, named it once more.
            (Fate::Finished, Fate::Skipped) => Fate::Finished,
            (_, fate) => fate,
        };
        Self { fate, overdue: self.overdue || later.overdue }
    }
}

/// What one look at the open orders came to.
struct Round {
    orders: Vec<(OrderId, Worked)>,
    /// How many open orders could not even be told apart.
    unreadable: u64,
    /// Some shard has more than a look takes on.
    has_more: bool,
}

/// The worker.
#[derive(Clone)]
pub struct Worker {
    pub(crate) engine: Engine,
}

impl Worker {
    /// Around `engine`.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Works on these orders, several at a time.
    pub async fn work(&self, ids: Vec<OrderId>, invocation: &Invocation) -> Outcome {
        let since = self.engine.clock.now();
        let due = ids.into_iter().map(|id| Due { id, since }).collect();
        Outcome::of(self.work_through(due, invocation).await.into_iter().map(|(_, worked)| worked))
    }

    /// Works on all open orders whose time has come, the longest waiting first.
    ///
    /// It goes on as long as the invocation lasts. At once while there are more
    /// than it took on: what waits for the next sweep may be too old by then.
    /// After a pause where some had to be postponed: one of seconds means
    /// nothing where nobody looks for a minute.
    pub async fn sweep(&self, invocation: &Invocation) -> Result<Outcome, StoreError> {
        let Round { orders, mut unreadable, mut has_more } = self.round(invocation).await?;
        let mut worked: HashMap<_, _> = orders.into_iter().collect();
        let mut is_getting_on = worked.values().any(|order| order.fate == Fate::Finished);
        loop {
            let pause = if has_more && is_getting_on {
                Duration::ZERO
            } else if worked.values().any(|order| order.fate == Fate::Postponed) {
                LOOK_AGAIN_AFTER
            } else {
                break;
            };
            if invocation.deadline.remaining() <= pause + ROUND_TAKES {
                break;
            }
            tokio::time::sleep(pause).await;
            let round = match self.round(invocation).await {
                Ok(round) => round,
                // What was counted before must still be told.
                Err(error) => {
                    tracing::error!(cause = telemetry::chain(&error), "could not look again; the next sweep will");
                    break;
                }
            };
            has_more = round.has_more;
            unreadable = unreadable.max(round.unreadable);
            is_getting_on = round.orders.iter().any(|(_, order)| order.fate == Fate::Finished);
            for (id, later) in round.orders {
                worked.entry(id).and_modify(|order| *order = order.and_then(later)).or_insert(later);
            }
        }
        let mut outcome = Outcome::of(worked.into_values());
        outcome.overdue += unreadable;
        Ok(outcome)
    }

    async fn round(&self, invocation: &Invocation) -> Result<Round, StoreError> {
        let now = self.engine.clock.now();
        let shards = (0..SHARDS).map(|shard| self.engine.repository.due(shard, now, SWEEP_LIMIT));
        let shards = futures::future::try_join_all(shards).await?;
        let (mut all, mut unreadable, mut has_more) = (Vec::new(), 0, false);
        for Look { due, unreadable: more, has_more: is_full } in shards {
            all.extend(due);
            unreadable += more;
            has_more |= is_full;
        }
        all.sort_unstable_by_key(|due| due.since);
        Ok(Round { orders: self.work_through(all, invocation).await, unreadable, has_more })
    }

    async fn work_through(&self, due: Vec<Due>, invocation: &Invocation) -> Vec<(OrderId, Worked)> {
        let work = stream::iter(due).map(|due| async move { (due.id, self.work_on(due, invocation).await) });
        work.buffer_unordered(CONCURRENCY).collect().await
    }

    /// Whatever is wrong with one order, a panic included, its neighbours are
    /// worked on.
    async fn work_on(&self, due: Due, invocation: &Invocation) -> Worked {
        let Due { id: order, since } = due;
        // Its lease, if it has one, ends by itself.
        let worked = match AssertUnwindSafe(self.try_work_on(due, invocation)).catch_unwind().await {
            Ok(Ok(worked)) => worked,
            Ok(Err(error)) => {
                let cause = telemetry::chain(&error);
                if error.is_contended_or_throttled() {
                    tracing::info!(%order, cause, "order left for the next look: others were faster");
                } else {
                    tracing::error!(%order, cause, "order could not be worked on");
                }
                // What can't be read doesn't mend by being read again: that
                // needs a person at once.
                let is_corrupt = matches!(error, StoreError::Corrupt { .. });
                Worked { fate: Fate::Postponed, overdue: is_corrupt || self.is_overdue(since) }
            }
            Err(_) => {
                tracing::error!(%order, "panic over an order");
                Worked { fate: Fate::Postponed, overdue: true }
            }
        };
        if worked.overdue {
            tracing::error!(%order, fate = ?worked.fate, "order overdue");
        }
        worked
    }

    fn is_overdue(&self, open_since: Timestamp) -> bool {
        self.engine.clock.now().duration_since(open_since) > OVERDUE_AFTER
    }

    async fn try_work_on(&self, due: Due, invocation: &Invocation) -> Result<Worked, StoreError> {
        let now = self.engine.clock.now();
        // It stays due, and the next sweep has time for it; unless there are
        // too many for all sweeps.
        if invocation.deadline.remaining() < RECORD_RESERVE * 2 {
            return Ok(Worked { fate: Fate::Skipped, overdue: self.is_overdue(due.since) });
        }
        let Some(order) = self.engine.repository.acquire(due.id, Lease::start(now), now).await? else {
            return Ok(Worked { fate: Fate::Skipped, overdue: false });
        };
        let overdue = self.is_overdue(order.open_since());
        let fate = match self.engine.finish(order.clone(), invocation).await {
            Ok(_) => Fate::Finished,
            Err(reason) => {
                if let Err(error) = self.postpone(&order, &reason, invocation).await {
                    tracing::error!(order = %order.id, cause = telemetry::chain(&error), "order not postponed");
                }
                Fate::Postponed
            }
        };
        Ok(Worked { fate, overdue })
    }

    async fn postpone(&self, order: &Order, reason: &Unfinished, invocation: &Invocation) -> Result<(), StoreError> {
        let now = self.engine.clock.now();
        let cause = telemetry::chain(reason);
        let is_cut_short = invocation.deadline.remaining() <= RECORD_RESERVE;
        if is_cut_short || matches!(reason, Unfinished::NoTime) {
            // Nothing has failed: another invocation goes on with it at once.
            tracing::info!(order = %order.id, cause, "left to another invocation");
            return self.engine.repository.postpone(order, Postponed::AtOnce { now }).await;
        }
        let pause = if reason.is_busy() { busy_pause() } else { backoff(order.failures) };
        let mut next_check = now + pause;
        if order.state == OrderState::Pending && !order.is_past_decision(now) {
            // Whoever waits for the decision waits no longer than was promised.
            next_check = next_check.min(order.decide_by());
        }
        if reason.is_busy() {
            tracing::info!(order = %order.id, cause, ?pause, "order postponed: others were faster");
            return self.engine.repository.postpone(order, Postponed::Busy { next_check }).await;
        }
        tracing::warn!(order = %order.id, cause, ?pause, "order postponed");
        self.engine.repository.postpone(order, Postponed::Failed { next_check }).await
    }
}

fn busy_pause() -> Duration {
    BUSY_PAUSE.mul_f64(0.25 + 0.75 * fastrand::f64())
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
