//! The metrics of orders: what an invocation did with one order, and what a sweep found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::metric::{self, Labelled, Unit};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::{CancellationReason, Order, OrderState};

chassis::metrics! {
    /// What one invocation did with one order. The invocation writes it as one line, when it leaves the order.
    ///
    /// A transition counts when its write has succeeded. The write has a condition, so of all invocations that repeat the
    /// transition only one counts it. A crash between the write and the line loses the count.
    pub struct OrderWork {
        /// Orders that were placed.
        placed: u64 = "OrdersPlaced", Count, ["Stack"];
        /// Requests that placed no order, because administrators have paused new orders.
        paused: u64 = "OrdersPaused", Count, ["Stack"];
        /// Requests that repeated an earlier request with the same idempotency key, and got its order.
        replays: u64 = "OrderReplays", Count, ["Stack"];
        /// How long `POST /orders` took, for a request that placed an order.
        place_time: Option<u64> = "PlaceTime", Milliseconds, ["Stack"];
        /// Orders that were confirmed.
        confirmed: u64 = "OrdersConfirmed", Count, ["Stack"];
        /// How long an order was `PENDING`.
        decision_time: Option<u64> = "DecisionTime", Milliseconds, ["Stack"];
        /// Orders that were done: paid, and their messages published.
        done: u64 = "OrdersDone", Count, ["Stack"];
        /// How long an order was `CONFIRMED`, if it is done.
        completion_time: Option<u64> = "CompletionTime", Milliseconds, ["Stack"];
        /// Totals of the orders that were done, in minor units of the currency, such as cents.
        revenue: Option<Labelled<1>> = "Revenue", Count, ["Stack", "Currency"];
        /// Orders that were cancelled, by the code of the reason.
        cancelled: Option<Labelled<1>> = "OrdersCancelled", Count, ["Stack", "Reason"];
        /// Orders that were cancelled because a payment was declined or could not be captured, or because the order was not
        /// decided in time. They are also in `OrdersCancelled`.
        failed: u64 = "OrdersFailed", Count, ["Stack"];
        /// Lines of orders for which there was not enough stock.
        stock_outs: u64 = "StockOuts", Count, ["Stack"];
        /// How long it took to undo a cancelled order.
        undo_time: Option<u64> = "UndoTime", Milliseconds, ["Stack"];
        /// Totals of the orders that were done and then cancelled, in minor units of the currency.
        refunds: Option<Labelled<1>> = "Refunds", Count, ["Stack", "Currency"];
        /// Orders that the worker took to a final state after a request, or an earlier run of the worker, had left them open.
        recovered: u64 = "OrdersRecovered", Count, ["Stack"];
    }
}

chassis::metrics! {
    /// What a sweep found. Each sweep reports both metrics, also as zero.
    pub struct Sweep {
        /// Orders that a person should look at: open for more than 15 minutes, or unreadable.
        overdue: Option<u64> = "OrdersOverdue", Count, ["Stack"];
        /// The age of the oldest order that the sweep had to leave open.
        oldest: Option<u64> = "OldestOpenOrder", Seconds, ["Stack"];
    }
}

chassis::metrics! {
    /// What an invocation that reconciled has found. Each writes the metric, also as zero.
    pub struct FoundMismatches {
        /// Mismatches between orders, stock, payments and the provider.
        found: Option<u64> = "Mismatches", Count, ["Stack"];
    }
}

chassis::metrics! {
    /// The mismatches of one kind that an invocation has found.
    pub struct MismatchesOfKind {
        /// Mismatches, by kind. They are also in `Mismatches`.
        found: Option<Labelled<1>> = "MismatchesByKind", Count, ["Stack", "Kind"];
    }
}

impl OrderWork {
    /// Counts a transition that was stored. `next` is the order after the transition.
    fn count(&mut self, from: OrderState, next: &Order) {
        let phase = phase_millis(next);
        let total = || {
            let total = next.quote.as_ref()?.total;
            Some(Labelled { labels: [total.currency().code()], value: total.minor() })
        };
        match next.state {
            OrderState::Pending => {}
            OrderState::Confirmed => {
                self.confirmed += 1;
                self.decision_time = phase;
            }
            OrderState::Done => {
                self.done += 1;
                self.completion_time = phase;
                self.revenue = total();
            }
            OrderState::Cancelling => {
                if from == OrderState::Pending {
                    self.decision_time = phase;
                }
                let Some(reason) = &next.cancellation_reason else { return };
                self.cancelled = Some(Labelled { labels: [reason.code()], value: 1 });
                self.failed += u64::from(is_failure(reason));
                if let CancellationReason::OutOfStock { lines } = reason {
                    self.stock_outs += lines.len() as u64;
                }
            }
            OrderState::Cancelled => {
                self.undo_time = phase;
                if next.history.iter().any(|entry| entry.status == OrderState::Done) {
                    self.refunds = total();
                }
            }
        }
    }
}

/// Returns whether the customer wanted the order, the shop could have delivered it, and all the same it was not sold.
fn is_failure(reason: &CancellationReason) -> bool {
    match reason {
        CancellationReason::PaymentDeclined { .. }
        | CancellationReason::CaptureRefused
        | CancellationReason::TimedOut => true,
        CancellationReason::UserNotFound
        | CancellationReason::UserInactive
        | CancellationReason::UnknownProduct { .. }
        | CancellationReason::MixedCurrencies
        | CancellationReason::OutOfStock { .. }
        | CancellationReason::PriceChanged { .. }
        | CancellationReason::CustomerRequest
        | CancellationReason::CancelledByShop { .. } => false,
    }
}

/// The time between the order's last two transitions.
fn phase_millis(order: &Order) -> Option<u64> {
    let (last, earlier) = order.history.split_last()?;
    Some(millis_between(earlier.last()?.at, last.at))
}

/// Zero if a clock was set back.
fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// Collects what one invocation does with one order. All clones belong to the same order. When the last clone is dropped,
/// the line is written.
#[derive(Clone, Debug, Default)]
pub struct OrderMeter(Arc<Mutex<Unit<OrderWork>>>);

impl OrderMeter {
    /// Changes what is written in the end.
    pub fn work(&self) -> MutexGuard<'_, Unit<OrderWork>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the invocation has taken the order to a final state.
    pub fn has_finished(&self) -> bool {
        let work = self.work();
        work.done > 0 || work.undo_time.is_some()
    }
}

/// Counts a transition that was stored: in the line of the order's meter, or, without a meter, in a line of its own.
pub fn count_transition(meter: Option<&OrderMeter>, from: OrderState, next: &Order) {
    match meter {
        Some(meter) => meter.work().count(from, next),
        None => {
            let mut work = OrderWork::default();
            work.count(from, next);
            metric::write(&work);
        }
    }
}

/// Measures how long a request takes that places an order, also if the request is given up.
pub struct PlaceTimer {
    meter: OrderMeter,
    started: Instant,
}

impl PlaceTimer {
    pub fn start(meter: OrderMeter) -> Self {
        Self { meter, started: Instant::now() }
    }
}

impl Drop for PlaceTimer {
    fn drop(&mut self) {
        let mut work = self.meter.work();
        if work.placed > 0 {
            work.place_time = u64::try_from(self.started.elapsed().as_millis()).ok();
        }
    }
}
