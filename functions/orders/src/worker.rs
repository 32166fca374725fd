//! The worker finishes or undoes the orders that requests left open.
//!
//! Three sources start the worker (`worker_event.rs` tells them apart): the stream of the orders table, for an order that
//! must continue at once; a schedule, each minute, for the orders whose `next_check` has passed; and the queue of the users
//! service, for erasures, which `erasure.rs` handles. The stream and the schedule may name the same order; working on an
//! order twice is safe.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Duration};

use chassis::{
    context_span,
    invocation::Invocation,
    metric,
    store::StoreError,
    telemetry,
    time_limits::{OVERDUE_AFTER, RECORD_RESERVE, SWEEP_PASS, SWEEP_PAUSE},
};
use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use tracing::{Instrument, Span, field};

use crate::{
    domain::{Lease, Order, OrderId, OrderState},
    metrics::Sweep,
    repository::{DueOrder, DuePage, FoundBy, Postponed, SHARDS},
    saga::engine::{Engine, Unfinished},
};

/// The number of orders that the worker works on side by side. It equals the `BatchSize` of the stream in
/// `template.yaml`.
const CONCURRENCY: usize = 8;
/// The maximum number of orders that one pass of a sweep reads from a shard.
const SWEEP_LIMIT: u32 = 50;
/// The pause after an order's first failure, and the longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// The longest pause after contention. Each pause is random, so that orders which contended for the same items do not
/// contend again. The pauses do not grow with each contention, because contention ends by itself, and then a long pause
/// would only delay the order.
const CONTENTION_PAUSE: Duration = Duration::from_secs(4);

/// The numbers of orders with each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkSummary {
    /// Orders that are in a final state now.
    pub finished: u64,
    /// Orders that stay open for now.
    pub postponed: u64,
    /// Orders that another request or worker had leased, that were already in a final state, or for which no time was
    /// left.
    pub skipped: u64,
    /// The number of orders that a person should look at: orders that had been open for longer than
    /// [`OVERDUE_AFTER`] (even if they are finished now), orders that could not be read, and orders whose
    /// processing panicked.
    pub overdue: u64,
}

impl WorkSummary {
    fn of(results: impl IntoIterator<Item = OrderResult>) -> Self {
        let mut sum = Self::default();
        for OrderResult { outcome, overdue, open_since: _ } in results {
            match outcome {
                OrderOutcome::Finished => sum.finished += 1,
                OrderOutcome::Postponed => sum.postponed += 1,
                OrderOutcome::Skipped => sum.skipped += 1,
            }
            sum.overdue += u64::from(overdue);
        }
        sum
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OrderOutcome {
    Finished,
    Postponed,
    Skipped,
}

#[derive(Clone, Copy)]
struct OrderResult {
    outcome: OrderOutcome,
    overdue: bool,
    /// The time since which the order is known to have been open, if the worker left it open.
    open_since: Option<Timestamp>,
}

impl OrderResult {
    /// Combines the results of two passes that worked on the same order.
    fn and_then(self, later: Self) -> Self {
        let outcome = match (self.outcome, later.outcome) {
            // The index is eventually consistent: it may still contain an order that the first pass has finished.
            (OrderOutcome::Finished, OrderOutcome::Skipped) => OrderOutcome::Finished,
            (_, outcome) => outcome,
        };
        let open_since = if outcome == OrderOutcome::Finished { None } else { later.open_since.or(self.open_since) };
        Self { outcome, overdue: self.overdue || later.overdue, open_since }
    }
}

/// The results of one pass over all shards.
struct SweepPass {
    orders: Vec<(OrderId, OrderResult)>,
    /// The number of index entries from which no order id can be read.
    unreadable: u64,
    /// `true` if a shard has more due orders than the pass has read.
    has_more: bool,
}

#[derive(Clone)]
pub struct Worker {
    pub(crate) engine: Engine,
}

impl Worker {
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    pub async fn work(&self, ids: Vec<OrderId>, invocation: &Invocation) -> WorkSummary {
        let since = self.engine.clock.now();
        let due = ids.into_iter().map(|id| DueOrder { id, since, found: FoundBy::Stream }).collect();
        WorkSummary::of(self.work_through(due, invocation).await.into_iter().map(|(_, result)| result))
    }

    /// Works on all open orders whose `next_check` has passed, the longest waiting order first.
    ///
    /// The sweep makes several passes if the invocation has enough time. If a pass finished orders but could not read
    /// all due orders, the next pass follows at once, because the unread orders may be too old when the next sweep
    /// begins. If a pass postponed orders, the next pass follows after [`SWEEP_PAUSE`], because a postponed order may
    /// be due again long before the next sweep begins.
    pub async fn sweep(&self, invocation: &Invocation) -> Result<WorkSummary, StoreError> {
        let SweepPass { orders, mut unreadable, mut has_more } = self.sweep_pass(invocation).await?;
        let mut results: HashMap<_, _> = orders.into_iter().collect();
        let mut has_finished_any = results.values().any(|result| result.outcome == OrderOutcome::Finished);
        loop {
            let pause = if has_more && has_finished_any {
                Duration::ZERO
            } else if results.values().any(|result| result.outcome == OrderOutcome::Postponed) {
                SWEEP_PAUSE
            } else {
                break;
            };
            if invocation.deadline.remaining() <= pause + SWEEP_PASS {
                break;
            }
            tokio::time::sleep(pause).await;
            let pass = match self.sweep_pass(invocation).await {
                Ok(pass) => pass,
                // The sweep does not return this error, because the summary of the earlier passes must still be
                // reported.
                Err(error) => {
                    tracing::error!(
                        cause = telemetry::chain(&error),
                        "another pass failed; the next sweep will repeat it"
                    );
                    break;
                }
            };
            has_more = pass.has_more;
            unreadable = unreadable.max(pass.unreadable);
            has_finished_any = pass.orders.iter().any(|(_, result)| result.outcome == OrderOutcome::Finished);
            for (id, later) in pass.orders {
                results.entry(id).and_modify(|result| *result = result.and_then(later)).or_insert(later);
            }
        }
        let mut summary = WorkSummary::of(results.values().copied());
        summary.overdue += unreadable;
        let now = self.engine.clock.now();
        let oldest = results.values().filter_map(|result| result.open_since).min();
        let oldest = oldest.map_or(0, |since| u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0));
        metric::write(&Sweep { overdue: Some(summary.overdue), oldest: Some(oldest) });
        Ok(summary)
    }

    async fn sweep_pass(&self, invocation: &Invocation) -> Result<SweepPass, StoreError> {
        let now = self.engine.clock.now();
        let shards = (0..SHARDS).map(|shard| self.engine.repository.due(shard, now, SWEEP_LIMIT));
        let pages = futures::future::try_join_all(shards).await?;
        let (mut due, mut unreadable, mut has_more) = (Vec::new(), 0, false);
        for page in pages {
            let DuePage { orders, unreadable: unreadable_of_page, has_more: page_has_more } = page;
            due.extend(orders);
            unreadable += unreadable_of_page;
            has_more |= page_has_more;
        }
        due.sort_unstable_by_key(|order: &DueOrder| order.since);
        Ok(SweepPass { orders: self.work_through(due, invocation).await, unreadable, has_more })
    }

    async fn work_through(&self, due: Vec<DueOrder>, invocation: &Invocation) -> Vec<(OrderId, OrderResult)> {
        let work = stream::iter(due).map(|due| async move { (due.id, self.work_on(due, invocation).await) });
        work.buffer_unordered(CONCURRENCY).collect().await
    }

    /// Works on one order. Even if this causes an error or a panic, the worker continues with the other orders. The
    /// failed order's lease then ends by itself, and a later sweep works on the order again.
    async fn work_on(&self, due: DueOrder, invocation: &Invocation) -> OrderResult {
        let DueOrder { id: order, since, .. } = due;
        let result = match AssertUnwindSafe(self.try_work_on(due, invocation)).catch_unwind().await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                let cause = telemetry::chain(&error);
                if error.is_contended_or_throttled() {
                    tracing::info!(order_id = %order, cause, "contention; the order is left to the next pass");
                } else {
                    tracing::error!(order_id = %order, cause, "order could not be worked on");
                }
                // A corrupt order counts as overdue at once, because only a person can repair the order's record.
                let is_corrupt = matches!(error, StoreError::Corrupt { .. });
                let overdue = is_corrupt || self.is_overdue(since);
                OrderResult { outcome: OrderOutcome::Postponed, overdue, open_since: Some(since) }
            }
            Err(_) => {
                tracing::error!(order_id = %order, "the work on an order panicked");
                OrderResult { outcome: OrderOutcome::Postponed, overdue: true, open_since: Some(since) }
            }
        };
        if result.overdue {
            tracing::error!(order_id = %order, outcome = ?result.outcome, "order overdue");
        }
        result
    }

    fn is_overdue(&self, open_since: Timestamp) -> bool {
        self.engine.clock.now() > open_since + OVERDUE_AFTER
    }

    async fn try_work_on(&self, due: DueOrder, invocation: &Invocation) -> Result<OrderResult, StoreError> {
        let now = self.engine.clock.now();
        // Too little time is left to work on the order. The order stays due, and a later sweep works on it. If the
        // sweeps never have enough time, the order counts as overdue at last.
        if invocation.deadline.remaining() < RECORD_RESERVE * 2 {
            let (overdue, open_since) = (self.is_overdue(due.since), Some(due.since));
            return Ok(OrderResult { outcome: OrderOutcome::Skipped, overdue, open_since });
        }
        let is_swept = due.found == FoundBy::Sweep;
        let Some(order) = self.engine.repository.acquire(due, Lease::start(now), now).await? else {
            return Ok(OrderResult { outcome: OrderOutcome::Skipped, overdue: false, open_since: None });
        };
        let overdue = self.is_overdue(order.open_since());
        // The request that placed the order does not wait for the worker, so its span has no part in this one: the link
        // leads to it.
        let span = context_span!(
            "order",
            link = %order.trace,
            order_id = %order.id,
            from = %order.state,
            outcome = field::Empty
        );
        // The request that confirms an order hands it over, so the first run of the worker is no recovery.
        let is_left_open = is_swept || !order.is_handed_over;
        // The future is large. In a box, it takes no room in the frames of all futures around it.
        let work = Box::pin(self.finish_or_postpone(&order, is_left_open, invocation));
        let (outcome, open_since) = work.instrument(span).await;
        Ok(OrderResult { outcome, overdue, open_since })
    }

    async fn finish_or_postpone(
        &self,
        order: &Order,
        is_left_open: bool,
        invocation: &Invocation,
    ) -> (OrderOutcome, Option<Timestamp>) {
        let (engine, meter) = self.engine.for_one_order();
        let result = engine.finish(order.clone(), invocation).await;
        telemetry::record_outcome(&Span::current(), &result);
        let Err(reason) = result else {
            let recovered = is_left_open && meter.has_finished();
            meter.work().recovered += u64::from(recovered);
            return (OrderOutcome::Finished, None);
        };
        if let Err(error) = self.postpone(order, &reason, invocation).await {
            tracing::error!(cause = telemetry::chain(&error), "order not postponed");
        }
        (OrderOutcome::Postponed, Some(order.open_since()))
    }

    async fn postpone(&self, order: &Order, reason: &Unfinished, invocation: &Invocation) -> Result<(), StoreError> {
        let now = self.engine.clock.now();
        let cause = telemetry::chain(reason);
        let is_cut_short = invocation.deadline.remaining() <= RECORD_RESERVE;
        if is_cut_short || matches!(reason, Unfinished::NoTime) {
            // This invocation's time is over. That is no failure of the order, and another invocation continues at
            // once.
            tracing::info!(cause, "left to another invocation");
            return self.engine.repository.postpone(order, Postponed::AtOnce { now }).await;
        }
        let pause = if reason.is_contended() { contention_pause() } else { backoff(order.failures) };
        let mut next_check = now + pause;
        if order.state == OrderState::Pending && !order.is_past_decision_deadline(now) {
            // The worker must cancel the order at the decision deadline, if the order is still undecided then.
            next_check = next_check.min(order.decision_deadline());
        }
        if reason.is_contended() {
            tracing::info!(cause, ?pause, "order postponed after contention");
            return self.engine.repository.postpone(order, Postponed::Contended { next_check }).await;
        }
        tracing::warn!(cause, ?pause, "order postponed after a failure");
        self.engine.repository.postpone(order, Postponed::Failed { next_check }).await
    }
}

fn contention_pause() -> Duration {
    CONTENTION_PAUSE.mul_f64(0.25 + 0.75 * fastrand::f64())
}

/// Returns the pause after a failure. The pause doubles with each failure, up to the longest pause. A random part of
/// the pause keeps orders that failed together from being repeated together.
fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let pause = first.saturating_mul(2u32.saturating_pow(failures)).min(longest);
    pause.mul_f64(0.75 + 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::{BACKOFF, backoff};

    #[test]
    fn the_pause_doubles_with_each_failure_up_to_the_longest_pause() {
        let (first, longest) = BACKOFF;
        for (failures, whole) in [(0, first), (1, first * 2), (3, first * 8), (u32::MAX, longest)] {
            let pauses: Vec<_> = (0..1000).map(|_| backoff(failures)).collect();
            let (min, max) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!((whole.mul_f64(0.75)..whole.mul_f64(0.77)).contains(min), "{failures}: {min:?}");
            assert!((whole.mul_f64(0.98)..=whole).contains(max), "{failures}: {max:?}");
        }
    }
}
