//! Tests of the engine, the step table and the worker with fake participants and a fake store, without the AWS SDK or
//! HTTP.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{HashMap, VecDeque},
    slice,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use OrderState::{Cancelled, Cancelling, Confirmed, Done, Pending};
use async_trait::async_trait;
use chassis::{
    clock::Clock,
    contact::VerifiedContact,
    deadline::Deadline,
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    invocation::Invocation,
    money::Money,
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
    time_limits::{DECIDE_WITHIN, ORDER_LEASE, RECORD_RESERVE},
    trace::TraceContext,
};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use orders::{
    domain::{
        Answer, CancellationReason, Lease, Order, OrderId, OrderLine, OrderLines, OrderState, ProductId, Purchase,
        Quantity, Quote, Recipient, RecordedAnswer, Resend, StepOutput,
    },
    repository::{DueOrder, DuePage, FoundBy, OrderList, Postponed, Repository},
    saga::{
        Participants, StepContext, StepError,
        engine::{Engine, Unfinished},
        steps::{Compensation, PLACE_ORDER, SAGAS, Saga, Step, step},
    },
    worker::{WorkSummary, Worker},
};

type MakeError = fn() -> StepError;

/// Fakes of all participants and of the store. They record the calls of the participants.
#[derive(Clone, Default)]
struct Fakes {
    calls: Arc<Mutex<Vec<&'static str>>>,
    failures: Arc<Mutex<HashMap<&'static str, MakeError>>>,
    orders: Arc<Mutex<HashMap<OrderId, Order>>>,
    /// The step whose next call panics.
    panics: Arc<Mutex<Option<&'static str>>>,
    /// A step, and the order that another request or worker stores while the step runs.
    meanwhile: Arc<Mutex<Option<(&'static str, Order)>>>,
    /// The pages of due orders that the first shard returns, one after another.
    due_pages: Arc<Mutex<VecDeque<DuePage>>>,
    /// The names of the store's writes that fail.
    failing_writes: Vec<&'static str>,
    acquired: Arc<Mutex<Vec<OrderId>>>,
    postponed: Arc<Mutex<Vec<Postponed>>>,
}

impl Fakes {
    fn failing(self, step: &'static str, error: MakeError) -> Self {
        self.failures.lock().unwrap().insert(step, error);
        self
    }

    fn call(&self, step: &'static str) -> Result<(), StepError> {
        self.calls.lock().unwrap().push(step);
        let panics = self.panics.lock().unwrap().take_if(|during| *during == step);
        assert!(panics.is_none(), "the test asked for this panic");
        if let Some((_, order)) = self.meanwhile.lock().unwrap().take_if(|(during, _)| *during == step) {
            self.store(&order);
        }
        self.failures.lock().unwrap().get(step).map_or(Ok(()), |error| Err(error()))
    }

    /// Returns the calls since the previous call of this method, in order.
    fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn engine(&self, sagas: &'static [&'static Saga]) -> Engine {
        Engine::new(self.clone(), self.clone(), sagas, record_answer, Clock::tokio(start()))
    }

    fn store(&self, order: &Order) -> Order {
        self.orders.lock().unwrap().insert(order.id, order.clone());
        order.clone()
    }

    fn stored(&self, order: &Order) -> Order {
        self.orders.lock().unwrap()[&order.id].clone()
    }

    /// For each number, stores a confirmed order that has been due for that number of minutes. All these orders are on
    /// the first page of due orders.
    async fn confirmed(self, minutes: &[i64]) -> Self {
        let mut page = DuePage::default();
        for minutes in minutes {
            let order = self.engine(SAGAS).decide(self.store(&order()), &invocation()).await.unwrap();
            let since = start() - SignedDuration::from_mins(*minutes);
            page.orders.push(DueOrder { id: order.id, since, found: FoundBy::Sweep });
        }
        self.take_calls();
        self.due_pages.lock().unwrap().push_back(page);
        self
    }

    async fn sweep(&self) -> WorkSummary {
        Worker::new(self.engine(SAGAS)).sweep(&invocation()).await.unwrap()
    }

    fn write(&self, name: &'static str) -> Result<(), StoreError> {
        if self.failing_writes.contains(&name) {
            return Err(StoreError::unavailable("orders", "no writes"));
        }
        Ok(())
    }
}

fn record_answer(order: &Order, _: &str) -> RecordedAnswer {
    match &order.cancellation_reason {
        None => RecordedAnswer::Confirmation { version: 1 },
        Some(reason) => RecordedAnswer::Refusal(Answer { status: 402, body: reason.code().into() }),
    }
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn contended() -> StepError {
    StepError::Contended("contention".into())
}

fn mixed_currencies() -> StepError {
    StepError::Refused(CancellationReason::MixedCurrencies)
}

fn capture_refused() -> StepError {
    StepError::Refused(CancellationReason::CaptureRefused)
}

fn overtaken() -> StepError {
    StepError::Overtaken
}

fn unavailable() -> StepError {
    StepError::Unavailable("no answer".into())
}

#[async_trait]
impl Participants for Fakes {
    async fn validate_user(&self, _: &Order, _: StepContext<'_>) -> Result<Recipient, StepError> {
        self.call("validate")?;
        Ok(Recipient { name: "Ada".into(), email: "ada@example.com".parse().ok(), phone: None })
    }
    async fn reserve_stock(&self, _: &Order, _: StepContext<'_>) -> Result<Quote, StepError> {
        self.call("reserve")?;
        Ok(Quote { lines: Vec::new(), total: Money::from_minor(1999, "USD".parse().unwrap()).unwrap() })
    }
    async fn release_stock(&self, _: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("release")
    }
    async fn authorise_payment(&self, order: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        assert!(order.quote.is_some() && order.recipient.is_some(), "the order has the outputs of the earlier steps");
        self.call("authorise")
    }
    async fn capture_payment(&self, _: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("capture")
    }
    async fn cancel_payment(&self, _: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("cancel payment")
    }
    async fn erase_recipient(&self, _: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("erase recipient")
    }
    async fn publish_order_created(&self, _: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("OrderCreated")
    }
    async fn publish_order_cancelled(&self, _: &Order, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("OrderCancelled")
    }
    async fn publish_resend(&self, _: &Order, _: &Resend, _: &Recipient, _: StepContext<'_>) -> Result<(), StepError> {
        self.call("resend")
    }
}

#[async_trait]
impl Repository for Fakes {
    async fn insert(
        &self,
        order: &Order,
        _: Option<&KeyUse>,
        _: Timestamp,
    ) -> Result<InsertOutcome<Order>, StoreError> {
        self.store(order);
        Ok(InsertOutcome::Inserted)
    }
    async fn find_earlier(
        &self,
        _: UserId,
        _: &KeyUse,
        _: Timestamp,
    ) -> Result<Option<InsertOutcome<Order>>, StoreError> {
        unreachable!("no test in this file pauses orders")
    }
    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.orders.lock().unwrap().get(&id).cloned())
    }
    async fn list(&self, _: &OrderList) -> Result<Page<Order>, ListError> {
        unreachable!("no test in this file lists orders")
    }
    async fn list_open(&self, _: Limit, _: Option<&Cursor>) -> Result<Page<Order>, ListError> {
        unreachable!("no test in this file lists orders")
    }
    async fn order_ids(&self, _: UserId, _: Option<&Cursor>) -> Result<Page<OrderId>, ListError> {
        unreachable!("no test in this file erases a customer")
    }
    async fn transition(&self, from: OrderState, next: &Order) -> Result<SaveOutcome, StoreError> {
        if self.stored(next).state != from {
            return Ok(SaveOutcome::Stale);
        }
        self.store(next);
        Ok(SaveOutcome::Saved)
    }
    async fn record_refusal_answered(&self, order: &Order) -> Result<(), StoreError> {
        self.write("record refusal answered")?;
        self.store(&Order { is_refusal_answered: true, ..order.clone() });
        Ok(())
    }
    async fn erase_customer(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        self.find(id).await
    }
    async fn acquire(&self, due: DueOrder, _: Lease, _: Timestamp) -> Result<Option<Order>, StoreError> {
        self.acquired.lock().unwrap().push(due.id);
        self.write("acquire")?;
        Ok(self.find(due.id).await?.filter(|order| order.next_check.is_some()))
    }
    async fn postpone(&self, _: &Order, until: Postponed) -> Result<(), StoreError> {
        self.postponed.lock().unwrap().push(until);
        self.write("postpone")
    }
    async fn record_resend(&self, _: OrderId, _: &Resend) -> Result<Resend, StoreError> {
        unreachable!("no test in this file sends a message again")
    }
    async fn resends(&self, _: OrderId, _: Limit, _: Option<&Cursor>) -> Result<Page<Resend>, ListError> {
        unreachable!("no test in this file lists resends")
    }
    async fn due(&self, shard: u8, _: Timestamp, _: u32) -> Result<DuePage, StoreError> {
        let page = if shard == 0 { self.due_pages.lock().unwrap().pop_front() } else { None };
        Ok(page.unwrap_or_default())
    }
}

fn order_of_version(version: u32) -> Order {
    let line = OrderLine { product_id: ProductId::generate(), quantity: Quantity::ONE };
    let lines = OrderLines::merge([Some(line)]).unwrap();
    let purchase = Purchase { lines, shown_prices: None, payment_method: None };
    Order::place(UserId::generate(), VerifiedContact::UNKNOWN, purchase, version, TraceContext::start(), start())
}

fn order() -> Order {
    order_of_version(PLACE_ORDER.version)
}

fn invocation() -> Invocation {
    Invocation::new("r", Deadline::after(Duration::from_secs(20)))
}

fn history(order: &Order) -> Vec<OrderState> {
    order.history.iter().map(|entry| entry.status).collect()
}

mod an_order_without_a_refusal {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_decided_by_the_steps_before_the_pivot_and_finished_by_the_steps_after_the_pivot() {
        let fakes = Fakes::default();
        let engine = fakes.engine(SAGAS);
        let decided = engine.decide(fakes.store(&order()), &invocation()).await.unwrap();
        assert_eq!(fakes.take_calls(), ["validate", "reserve", "authorise"]);
        assert_eq!(decided.state, Confirmed);
        assert_eq!(decided.answer, Some(RecordedAnswer::Confirmation { version: 1 }));
        let done = engine.finish(decided, &invocation()).await.unwrap();
        assert_eq!(fakes.take_calls(), ["capture", "OrderCreated"]);
        assert_eq!(history(&done), [Pending, Confirmed, Done]);
    }

    #[tokio::test(start_paused = true)]
    async fn is_handed_over_to_the_worker_by_the_write_with_which_the_request_decides_the_order() {
        let fakes = Fakes::default();
        let placed = fakes.store(&order());
        let decided = fakes.engine(SAGAS).decide(placed.clone(), &invocation()).await.unwrap();
        assert!(decided.is_handed_over && decided.lease != placed.lease);
        assert_eq!(decided.next_check, Some(start() + ORDER_LEASE));
        let done = fakes.engine(SAGAS).finish(decided, &invocation()).await.unwrap();
        assert!(!done.is_handed_over);
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_workers_lease_if_the_worker_decides_the_order() {
        let fakes = Fakes::default().failing("capture", unavailable);
        let order = fakes.store(&order());
        fakes.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
        assert_eq!(fakes.stored(&order).lease, order.lease);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_over_one_order_the_worker_finishes_the_other_orders_and_counts_one_overdue_order() {
    let fakes = Fakes::default();
    *fakes.panics.lock().unwrap() = Some("authorise");
    let ids = [fakes.store(&order()).id, fakes.store(&order()).id].into();
    let summary = Worker::new(fakes.engine(SAGAS)).work(ids, &invocation()).await;
    assert_eq!(summary, WorkSummary { finished: 1, postponed: 1, overdue: 1, skipped: 0 });
}

mod a_sweep {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn begins_with_the_order_that_has_been_due_for_the_longest_time() {
        let fakes = Fakes::default().confirmed(&[1, 3, 2]).await;
        let due: Vec<_> = fakes.due_pages.lock().unwrap()[0].orders.iter().map(|due| due.id).collect();
        assert_eq!(fakes.sweep().await, WorkSummary { finished: 3, ..WorkSummary::default() });
        assert_eq!(*fakes.acquired.lock().unwrap(), [due[1], due[2], due[0]]);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_overdue_orders_even_if_every_write_fails() {
        let fakes = Fakes { failing_writes: ["acquire"].into(), ..Fakes::default() }.confirmed(&[14, 16]).await;
        assert_eq!(fakes.sweep().await, WorkSummary { postponed: 2, overdue: 1, ..WorkSummary::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn counts_a_failure_after_an_error_and_none_after_contention() {
        for (error, is_failure) in [(contended as MakeError, false), (unavailable, true)] {
            let fakes = Fakes::default().confirmed(&[0]).await.failing("capture", error);
            assert_eq!(fakes.sweep().await, WorkSummary { postponed: 1, ..WorkSummary::default() });
            let postponed = fakes.postponed.lock().unwrap().clone();
            assert_eq!(postponed.len(), 1);
            assert_eq!(matches!(postponed[0], Postponed::Failed { .. }), is_failure, "{postponed:?}");
            assert_eq!(matches!(postponed[0], Postponed::Contended { .. }), !is_failure, "{postponed:?}");
        }
    }

    /// A failure matters more than contention, because the order needs a longer pause after a failure.
    #[tokio::test(start_paused = true)]
    async fn counts_a_failure_if_one_step_of_a_stage_fails_and_the_other_step_meets_contention() {
        for (contended_step, failing_step) in [("validate", "reserve"), ("reserve", "validate")] {
            let fakes = Fakes::default().failing(contended_step, contended).failing(failing_step, unavailable);
            let error = fakes.engine(SAGAS).decide(fakes.store(&order()), &invocation()).await.unwrap_err();
            assert!(!error.is_contended(), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_an_overdue_order_that_can_be_neither_finished_nor_postponed() {
        let fakes = Fakes { failing_writes: ["postpone"].into(), ..Fakes::default() };
        let fakes = fakes.failing("capture", unavailable).confirmed(&[0]).await;
        let worker = Worker::new(fakes.engine(SAGAS));
        tokio::time::advance(Duration::from_secs(16 * 60)).await;
        assert_eq!(
            worker.sweep(&invocation()).await.unwrap(),
            WorkSummary { postponed: 1, overdue: 1, ..WorkSummary::default() }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn counts_unreadable_entries_of_the_index_as_overdue() {
        let fakes = Fakes::default().confirmed(&[1]).await;
        let first = fakes.due_pages.lock().unwrap().pop_front().unwrap();
        // Both passes find the same two unreadable entries, which must be counted once.
        let full = DuePage { unreadable: 2, has_more: true, ..first };
        fakes.due_pages.lock().unwrap().extend([full, DuePage { unreadable: 2, ..DuePage::default() }]);
        assert_eq!(fakes.sweep().await, WorkSummary { finished: 1, overdue: 2, ..WorkSummary::default() });
        assert!(fakes.due_pages.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn counts_a_finished_order_once_even_if_the_index_still_names_it() {
        let fakes = Fakes::default().confirmed(&[1]).await;
        let orders = fakes.due_pages.lock().unwrap()[0].orders.clone();
        fakes.due_pages.lock().unwrap()[0].has_more = true;
        fakes.due_pages.lock().unwrap().push_back(DuePage { orders, ..DuePage::default() });
        assert_eq!(fakes.sweep().await, WorkSummary { finished: 1, ..WorkSummary::default() });
        assert_eq!(fakes.acquired.lock().unwrap().len(), 2);
    }
}

mod a_step_without_an_answer {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leaves_the_order_undecided() {
        for step in ["validate", "reserve", "authorise"] {
            let fakes = Fakes::default().failing(step, unavailable);
            let order = fakes.store(&order());
            let reason = fakes.engine(SAGAS).decide(order.clone(), &invocation()).await.unwrap_err();
            assert!(matches!(reason, Unfinished::Step { .. }), "{reason}");
            assert_eq!(fakes.stored(&order), order, "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_pivot_leaves_the_order_confirmed_and_undoes_nothing() {
        for step in ["capture", "OrderCreated"] {
            let fakes = Fakes::default().failing(step, unavailable);
            let order = fakes.store(&order());
            fakes.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
            assert!(!fakes.take_calls().contains(&"cancel payment"));
            assert_eq!(fakes.stored(&order).state, Confirmed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn matters_less_than_the_refusal_of_another_step_of_the_stage() {
        let fakes = Fakes::default().failing("validate", unavailable).failing("reserve", mixed_currencies);
        let order = fakes.engine(SAGAS).decide(fakes.store(&order()), &invocation()).await.unwrap();
        assert_eq!((order.state, order.cancellation_reason), (Cancelling, Some(CancellationReason::MixedCurrencies)));
    }
}

mod the_cancellation_of_an_order {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn undoes_all_steps_even_steps_that_never_ran() {
        let fakes = Fakes::default().failing("reserve", mixed_currencies);
        let engine = fakes.engine(SAGAS);
        let refused = engine.decide(fakes.store(&order()), &invocation()).await.unwrap();
        let refusal = Answer { status: 402, body: "mixed_currencies".into() };
        assert_eq!(refused.answer, Some(RecordedAnswer::Refusal(refusal)));
        fakes.take_calls();
        let cancelled = engine.finish(refused, &invocation()).await.unwrap();
        assert_eq!(fakes.take_calls(), ["release", "cancel payment", "OrderCancelled"]);
        assert_eq!(history(&cancelled), [Pending, Cancelling, Cancelled]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_pivot_publishes_order_created_before_order_cancelled_and_keeps_the_first_response() {
        let fakes = Fakes::default().failing("capture", capture_refused);
        let cancelled = fakes.engine(SAGAS).finish(fakes.store(&order()), &invocation()).await.unwrap();
        assert_eq!(history(&cancelled), [Pending, Confirmed, Cancelling, Cancelled]);
        assert_eq!(fakes.take_calls()[4..], ["release", "cancel payment", "OrderCreated", "OrderCancelled"]);
        assert_eq!(cancelled.answer, Some(RecordedAnswer::Confirmation { version: 1 }));
    }

    #[tokio::test(start_paused = true)]
    async fn asks_the_users_service_for_the_recipient_if_the_order_has_no_recipient() {
        let fakes = Fakes::default();
        let order = order().cancelling(CancellationReason::TimedOut, start()).unwrap();
        let cancelled = fakes.engine(SAGAS).finish(fakes.store(&order), &invocation()).await.unwrap();
        assert_eq!(history(&cancelled), [Pending, Cancelling, Cancelled]);
        assert_eq!(fakes.take_calls(), ["release", "cancel payment", "validate", "OrderCancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_publish_order_created_again_if_the_order_was_done() {
        let fakes = Fakes::default();
        let engine = fakes.engine(SAGAS);
        let done = engine.finish(fakes.store(&order()), &invocation()).await.unwrap();
        fakes.take_calls();
        let cancelling = done.cancelling(CancellationReason::CustomerRequest, start()).unwrap();
        engine.finish(fakes.store(&cancelling), &invocation()).await.unwrap();
        assert_eq!(fakes.take_calls(), ["release", "cancel payment", "OrderCancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_the_order_open_if_a_compensation_fails_or_is_refused() {
        for error in [unavailable as MakeError, capture_refused, overtaken] {
            let fakes = Fakes::default().failing("reserve", mixed_currencies).failing("release", error);
            let order = fakes.store(&order());
            fakes.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
            assert_eq!(fakes.stored(&order).state, Cancelling);
            assert!(!fakes.take_calls().contains(&"OrderCancelled"));
        }
    }
}

mod an_order_that_changes_during_a_step {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn continues_from_the_new_state() {
        let fakes = Fakes::default();
        let order = fakes.store(&order());
        let cancelling = order.clone().cancelling(CancellationReason::CustomerRequest, start()).unwrap();
        *fakes.meanwhile.lock().unwrap() = Some(("authorise", cancelling));
        let end = fakes.engine(SAGAS).finish(order, &invocation()).await.unwrap();
        assert_eq!(history(&end), [Pending, Cancelling, Cancelled]);
        assert_eq!(end.cancellation_reason, Some(CancellationReason::CustomerRequest));
    }

    #[tokio::test(start_paused = true)]
    async fn is_read_again_if_a_service_refuses_a_step_because_of_a_tombstone() {
        let fakes = Fakes::default().failing("authorise", overtaken);
        let order = fakes.store(&order());
        let cancelling = order.clone().cancelling(CancellationReason::CustomerRequest, start()).unwrap();
        *fakes.meanwhile.lock().unwrap() = Some(("reserve", cancelling));
        let end = fakes.engine(SAGAS).finish(order, &invocation()).await.unwrap();
        assert_eq!(end.state, Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn stays_pending_if_a_service_finds_a_tombstone_but_no_cancellation_is_stored() {
        let fakes = Fakes::default().failing("authorise", overtaken);
        let order = fakes.store(&order());
        fakes.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
        assert_eq!(fakes.stored(&order).state, Pending);
    }

    #[tokio::test(start_paused = true)]
    async fn is_cancelled_if_its_payment_was_cancelled_although_nobody_cancelled_the_order() {
        let fakes = Fakes::default().failing("capture", overtaken);
        let end = fakes.engine(SAGAS).finish(fakes.store(&order()), &invocation()).await.unwrap();
        assert_eq!((end.state, end.cancellation_reason), (Cancelled, Some(CancellationReason::CaptureRefused)));
    }
}

mod a_deadline {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_the_invocation_prevents_a_step_whose_outcome_could_not_be_recorded() {
        let fakes = Fakes::default();
        let deadline = Deadline::after(RECORD_RESERVE + Duration::from_millis(200));
        let soon = Invocation::new("r", deadline);
        let reason = fakes.engine(SAGAS).finish(fakes.store(&order()), &soon).await.unwrap_err();
        assert!(matches!(reason, Unfinished::NoTime), "{reason}");
        assert!(fakes.take_calls().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_the_decision_cancels_an_undecided_order_without_another_attempt_to_confirm_it() {
        let fakes = Fakes::default();
        let engine = fakes.engine(SAGAS);
        let order = fakes.store(&order());
        tokio::time::advance(DECIDE_WITHIN).await;
        let end = engine.finish(order, &invocation()).await.unwrap();
        assert_eq!((end.state, end.cancellation_reason), (Cancelled, Some(CancellationReason::TimedOut)));
        assert_eq!(fakes.take_calls(), ["release", "cancel payment", "validate", "OrderCancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_the_decision_does_not_cancel_an_order_two_milliseconds_too_early() {
        let fakes = Fakes::default();
        let engine = fakes.engine(SAGAS);
        let order = fakes.store(&order());
        tokio::time::advance(DECIDE_WITHIN - Duration::from_millis(2)).await;
        assert_eq!(engine.decide(order, &invocation()).await.unwrap().state, Confirmed);
    }
}

/// In these tests, the next version of the saga has a step that wraps the ordered products, as in
/// `docs/adding-a-step.md`.
mod a_step_that_a_new_version_adds {
    use super::*;

    static ACTIONS: Mutex<Vec<(OrderId, &str)>> = Mutex::new(Vec::new());

    type StepFuture<'a> = BoxFuture<'a, Result<StepOutput, StepError>>;

    fn record<'a>(order: &Order, action: &'static str) -> StepFuture<'a> {
        ACTIONS.lock().unwrap().push((order.id, action));
        Box::pin(async { Ok(StepOutput::Nothing) })
    }

    fn wrap<'a>(_: &'a dyn Participants, order: &'a Order, _: StepContext<'a>) -> StepFuture<'a> {
        record(order, "wrapped")
    }

    fn unwrap<'a>(_: &'a dyn Participants, order: &'a Order, _: StepContext<'a>) -> StepFuture<'a> {
        record(order, "unwrapped")
    }

    const NOW: u32 = PLACE_ORDER.version;
    const NEXT: u32 = NOW + 1;
    const UNWRAP: Compensation = Compensation { name: "unwrap", action: unwrap };
    static WRAP: Step = step("wrap", wrap, Some(UNWRAP));
    static WITH_WRAPPING: LazyLock<Saga> = LazyLock::new(|| Saga {
        version: NEXT,
        before_the_pivot: PLACE_ORDER.before_the_pivot,
        after_the_pivot: [&[slice::from_ref(&WRAP)], PLACE_ORDER.after_the_pivot].concat().leak(),
        after_compensation: PLACE_ORDER.after_compensation,
    });
    static BOTH: LazyLock<[&Saga; 2]> = LazyLock::new(|| [&PLACE_ORDER, &WITH_WRAPPING]);

    fn actions_on(order: &Order) -> Vec<&'static str> {
        ACTIONS.lock().unwrap().iter().filter(|(id, _)| *id == order.id).map(|(_, action)| *action).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn runs_for_new_orders_only() {
        let fakes = Fakes::default();
        let engine = fakes.engine(&*BOTH);
        assert_eq!(engine.saga_version(), NEXT);
        for (version, expected) in [(NOW, vec![]), (NEXT, vec!["wrapped"])] {
            let order = fakes.store(&order_of_version(version));
            assert_eq!(engine.finish(order.clone(), &invocation()).await.unwrap().state, Done);
            assert_eq!(actions_on(&order), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn is_undone_only_for_orders_that_began_with_the_new_version() {
        let fakes = Fakes::default();
        let engine = fakes.engine(&*BOTH);
        for (version, expected) in [(NOW, vec![]), (NEXT, vec!["unwrapped"])] {
            let mut order = order_of_version(version);
            order.apply(StepOutput::Recipient(fakes.validate_user(&order, context()).await.unwrap()));
            let order = fakes.store(&order.cancelling(CancellationReason::CustomerRequest, start()).unwrap());
            assert_eq!(engine.finish(order.clone(), &invocation()).await.unwrap().state, Cancelled);
            assert_eq!(actions_on(&order), expected);
        }
    }

    /// This happens, for example, if the new version of the code was rolled back.
    #[tokio::test(start_paused = true)]
    async fn keeps_code_that_does_not_know_the_new_version_from_working_on_the_order() {
        let fakes = Fakes::default();
        let order = fakes.store(&order_of_version(NEXT));
        let reason = fakes.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
        assert!(matches!(reason, Unfinished::UnknownSaga(NEXT)), "{reason}");
        assert!(fakes.take_calls().is_empty());
        assert_eq!(fakes.stored(&order), order);
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_code_that_does_not_know_the_new_version_from_cancelling_the_order() {
        let fakes = Fakes::default();
        let order = fakes.store(&order_of_version(NEXT));
        let engine = fakes.engine(SAGAS);
        let next = engine.cancelling(&order, CancellationReason::CustomerRequest, "r-1").unwrap();
        let reason = engine.record(order.state, next).await.unwrap_err();
        assert!(matches!(reason, Unfinished::UnknownSaga(NEXT)), "{reason}");
        assert_eq!(fakes.stored(&order), order);
    }

    fn context<'a>() -> StepContext<'a> {
        static TRACE: LazyLock<TraceContext> = LazyLock::new(TraceContext::start);
        StepContext { deadline: Deadline::after(Duration::from_secs(20)), trace: &TRACE }
    }
}

#[test]
fn the_versions_are_sorted_so_that_new_orders_begin_with_the_newest_version() {
    let versions: Vec<_> = SAGAS.iter().map(|saga| saga.version).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}
