//! The engine and the table, with participants that do as they are told: no
//! SDK, no HTTP, no store.

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
    page::{ListError, Page},
    store::{SaveOutcome, StoreError},
    trace::TraceContext,
};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use orders::{
    domain::{
        Answer, Basket, DECIDE_WITHIN, Fact, Item, Lease, Order, OrderId, OrderState, ProductId, Purchase, Quote,
        Recipient, Refusal,
    },
    repository::{Due, Look, OrderList, Postponed, Repository},
    saga::{
        Participants, Run, StepError,
        engine::{Decision, Engine, RECORD_RESERVE, Unfinished},
        steps::{PLACE_ORDER, SAGAS, Saga, Step},
    },
    worker::{Outcome, Worker},
};

/// Plays all participants and the store; notes what was asked.
#[derive(Clone, Default)]
struct Cast {
    asked: Arc<Mutex<Vec<&'static str>>>,
    failures: Arc<Mutex<HashMap<&'static str, StepError>>>,
    orders: Arc<Mutex<HashMap<OrderId, Order>>>,
    /// The step that panics, once.
    panics: Arc<Mutex<Option<&'static str>>>,
    /// What somebody else makes of the order while a step runs.
    meanwhile: Arc<Mutex<Option<(&'static str, Order)>>>,
    /// What is found in the first shard, one look after another.
    looks: Arc<Mutex<VecDeque<Look>>>,
    /// The writes of the worker that the store refuses.
    refused_writes: Vec<&'static str>,
    acquired: Arc<Mutex<Vec<OrderId>>>,
    postponed: Arc<Mutex<Vec<Postponed>>>,
}

impl Cast {
    fn failing(self, step: &'static str, error: StepError) -> Self {
        self.failures.lock().unwrap().insert(step, error);
        self
    }

    fn ask(&self, step: &'static str) -> Result<(), StepError> {
        self.asked.lock().unwrap().push(step);
        let panics = self.panics.lock().unwrap().take_if(|during| *during == step);
        assert!(panics.is_none(), "as told");
        if let Some((_, order)) = self.meanwhile.lock().unwrap().take_if(|(during, _)| *during == step) {
            self.keep(&order);
        }
        self.failures.lock().unwrap().get(step).cloned().map_or(Ok(()), Err)
    }

    /// What was asked since the last time, in order.
    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn engine(&self, sagas: &'static [&'static Saga]) -> Engine {
        Engine::new(self.clone(), self.clone(), sagas, write_answer, Clock::tokio(began()))
    }

    fn keep(&self, order: &Order) -> Order {
        self.orders.lock().unwrap().insert(order.id, order.clone());
        order.clone()
    }

    fn kept(&self, order: &Order) -> Order {
        self.orders.lock().unwrap()[&order.id].clone()
    }

    /// Confirmed orders that the first look finds, due for so many minutes.
    async fn confirmed(self, minutes: &[i64]) -> Self {
        let mut look = Look::default();
        for minutes in minutes {
            let order = self.engine(SAGAS).decide(self.keep(&order()), &invocation()).await.unwrap();
            look.due.push(Due { id: order.id, since: began() - SignedDuration::from_mins(*minutes) });
        }
        self.asked();
        self.looks.lock().unwrap().push_back(look);
        self
    }

    async fn sweep(&self) -> Outcome {
        Worker::new(self.engine(SAGAS)).sweep(&invocation()).await.unwrap()
    }

    fn write(&self, what: &'static str) -> Result<(), StoreError> {
        if self.refused_writes.contains(&what) {
            return Err(StoreError::unavailable("orders", "no writes"));
        }
        Ok(())
    }
}

fn write_answer(_: &Order, decision: Decision<'_>, _: &str) -> Answer {
    match decision {
        Decision::Confirmed => Answer { status: 201, body: "yes".into() },
        Decision::Refused(refusal) => Answer { status: 402, body: refusal.code().into() },
    }
}

fn began() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn unavailable() -> StepError {
    StepError::Unavailable("nobody there".into())
}

#[async_trait]
impl Participants for Cast {
    async fn validate_user(&self, _: &Order, _: Run<'_>) -> Result<Recipient, StepError> {
        self.ask("validate")?;
        Ok(Recipient { name: "Ada".into(), email: "ada@example.com".parse().ok(), phone: None })
    }
    async fn reserve_stock(&self, _: &Order, _: Run<'_>) -> Result<Quote, StepError> {
        self.ask("reserve")?;
        Ok(Quote { lines: Vec::new(), total: Money::from_minor(1999, "USD".parse().unwrap()).unwrap() })
    }
    async fn release_stock(&self, _: &Order, _: Run<'_>) -> Result<(), StepError> {
        self.ask("release")
    }
    async fn authorise_payment(&self, order: &Order, _: Run<'_>) -> Result<(), StepError> {
        assert!(order.quote.is_some() && order.recipient.is_some(), "what was found out is passed on");
        self.ask("authorise")
    }
    async fn capture_payment(&self, _: &Order, _: Run<'_>) -> Result<(), StepError> {
        self.ask("capture")
    }
    async fn cancel_payment(&self, _: &Order, _: Run<'_>) -> Result<(), StepError> {
        self.ask("cancel payment")
    }
    async fn erase_recipient(&self, _: &Order, _: Run<'_>) -> Result<(), StepError> {
        self.ask("erase recipient")
    }
    async fn publish_order_created(&self, _: &Order, _: Run<'_>) -> Result<(), StepError> {
        self.ask("OrderCreated")
    }
    async fn publish_order_cancelled(&self, _: &Order, _: Run<'_>) -> Result<(), StepError> {
        self.ask("OrderCancelled")
    }
}

#[async_trait]
impl Repository for Cast {
    async fn begin(&self, order: &Order, _: Option<&KeyUse>, _: Timestamp) -> Result<InsertOutcome<Order>, StoreError> {
        self.keep(order);
        Ok(InsertOutcome::Inserted)
    }
    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.orders.lock().unwrap().get(&id).cloned())
    }
    async fn list(&self, _: &OrderList) -> Result<Page<Order>, ListError> {
        unreachable!("the engine lists nothing")
    }
    async fn transition(&self, from: OrderState, next: &Order) -> Result<SaveOutcome, StoreError> {
        if self.kept(next).state != from {
            return Ok(SaveOutcome::Stale);
        }
        self.keep(next);
        Ok(SaveOutcome::Saved)
    }
    async fn record_told(&self, order: &Order) -> Result<(), StoreError> {
        self.write("record told")?;
        self.keep(&Order { is_customer_told: true, ..order.clone() });
        Ok(())
    }
    async fn erase_customer(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        self.find(id).await
    }
    async fn acquire(&self, id: OrderId, _: Lease, _: Timestamp) -> Result<Option<Order>, StoreError> {
        self.acquired.lock().unwrap().push(id);
        self.write("acquire")?;
        Ok(self.find(id).await?.filter(|order| order.next_check.is_some()))
    }
    async fn postpone(&self, _: &Order, until: Postponed) -> Result<(), StoreError> {
        self.postponed.lock().unwrap().push(until);
        self.write("postpone")
    }
    async fn due(&self, shard: u8, _: Timestamp, _: u32) -> Result<Look, StoreError> {
        let look = if shard == 0 { self.looks.lock().unwrap().pop_front() } else { None };
        Ok(look.unwrap_or_default())
    }
}

fn order_of_version(version: u32) -> Order {
    let line = Item { product_id: ProductId::generate(), quantity: 1_u32.try_into().unwrap() };
    let basket = Basket::of([Some(line)]).unwrap();
    let purchase = Purchase { basket, shown: None, payment_method: None };
    Order::place(UserId::generate(), VerifiedContact::UNKNOWN, purchase, version, TraceContext::start(), began())
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

mod an_order_that_nobody_refuses {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_decided_by_the_steps_before_the_pivot_and_finished_by_those_after_it() {
        let cast = Cast::default();
        let engine = cast.engine(SAGAS);
        let decided = engine.decide(cast.keep(&order()), &invocation()).await.unwrap();
        assert_eq!(cast.asked(), ["validate", "reserve", "authorise"]);
        assert_eq!(decided.state, Confirmed);
        assert_eq!(decided.answer.as_ref().unwrap().status, 201);
        let done = engine.finish(decided, &invocation()).await.unwrap();
        assert_eq!(cast.asked(), ["capture", "OrderCreated"]);
        assert_eq!(history(&done), [Pending, Confirmed, Done]);
    }

    #[tokio::test(start_paused = true)]
    async fn is_given_to_the_worker_at_once_when_the_request_has_its_answer() {
        let cast = Cast::default();
        let decided = cast.engine(SAGAS).decide(cast.keep(&order()), &invocation()).await.unwrap();
        assert_eq!((decided.lease, decided.next_check), (None, Some(began())));
    }

    #[tokio::test(start_paused = true)]
    async fn stays_the_workers_until_it_is_done_where_the_worker_decides_it() {
        let cast = Cast::default().failing("capture", unavailable());
        let order = cast.keep(&order());
        cast.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
        assert_eq!(cast.kept(&order).lease, order.lease);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_order_leaves_the_others_to_be_finished_and_asks_for_a_person() {
    let cast = Cast::default();
    *cast.panics.lock().unwrap() = Some("authorise");
    let ids = [cast.keep(&order()).id, cast.keep(&order()).id].into();
    let outcome = Worker::new(cast.engine(SAGAS)).work(ids, &invocation()).await;
    assert_eq!(outcome, Outcome { finished: 1, postponed: 1, overdue: 1, skipped: 0 });
}

mod a_sweep {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn begins_with_what_has_waited_longest() {
        let cast = Cast::default().confirmed(&[1, 3, 2]).await;
        let due: Vec<_> = cast.looks.lock().unwrap()[0].due.iter().map(|due| due.id).collect();
        assert_eq!(cast.sweep().await, Outcome { finished: 3, ..Outcome::default() });
        assert_eq!(*cast.acquired.lock().unwrap(), [due[1], due[2], due[0]]);
    }

    #[tokio::test(start_paused = true)]
    async fn says_that_orders_are_overdue_where_the_store_takes_no_writes() {
        let cast = Cast { refused_writes: ["acquire"].into(), ..Cast::default() }.confirmed(&[14, 16]).await;
        assert_eq!(cast.sweep().await, Outcome { postponed: 2, overdue: 1, ..Outcome::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn counts_a_failure_where_something_has_failed_and_none_where_somebody_was_busy() {
        for (error, is_failure) in [(StepError::Busy("others were faster".into()), false), (unavailable(), true)] {
            let cast = Cast::default().confirmed(&[0]).await.failing("capture", error);
            assert_eq!(cast.sweep().await, Outcome { postponed: 1, ..Outcome::default() });
            let postponed = cast.postponed.lock().unwrap().clone();
            assert_eq!(postponed.len(), 1);
            assert_eq!(matches!(postponed[0], Postponed::Failed { .. }), is_failure, "{postponed:?}");
            assert_eq!(matches!(postponed[0], Postponed::Busy { .. }), !is_failure, "{postponed:?}");
        }
    }

    /// What has failed needs a longer pause than what was only busy.
    #[tokio::test(start_paused = true)]
    async fn counts_a_failure_beside_which_somebody_was_busy() {
        for (busy, failed) in [("validate", "reserve"), ("reserve", "validate")] {
            let cast = Cast::default().failing(busy, StepError::Busy("b".into())).failing(failed, unavailable());
            let stop = cast.engine(SAGAS).decide(cast.keep(&order()), &invocation()).await.unwrap_err();
            assert!(!stop.is_busy(), "{stop:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn says_that_an_order_is_overdue_that_can_be_neither_finished_nor_postponed() {
        let cast = Cast { refused_writes: ["postpone"].into(), ..Cast::default() };
        let cast = cast.failing("capture", unavailable()).confirmed(&[0]).await;
        let worker = Worker::new(cast.engine(SAGAS));
        tokio::time::advance(Duration::from_secs(16 * 60)).await;
        assert_eq!(
            worker.sweep(&invocation()).await.unwrap(),
            Outcome { postponed: 1, overdue: 1, ..Outcome::default() }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn asks_for_a_person_where_the_index_names_what_is_no_order() {
        let cast = Cast::default().confirmed(&[1]).await;
        let first = cast.looks.lock().unwrap().pop_front().unwrap();
        // Seen twice, and two all the same.
        let full = Look { unreadable: 2, has_more: true, ..first };
        cast.looks.lock().unwrap().extend([full, Look { unreadable: 2, ..Look::default() }]);
        assert_eq!(cast.sweep().await, Outcome { finished: 1, overdue: 2, ..Outcome::default() });
        assert!(cast.looks.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn counts_an_order_once_that_the_index_still_names_when_it_is_finished() {
        let cast = Cast::default().confirmed(&[1]).await;
        let due = cast.looks.lock().unwrap()[0].due.clone();
        cast.looks.lock().unwrap()[0].has_more = true;
        cast.looks.lock().unwrap().push_back(Look { due, ..Look::default() });
        assert_eq!(cast.sweep().await, Outcome { finished: 1, ..Outcome::default() });
        assert_eq!(cast.acquired.lock().unwrap().len(), 2);
    }
}

mod a_step_without_an_answer {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn decides_nothing() {
        for step in ["validate", "reserve", "authorise"] {
            let cast = Cast::default().failing(step, unavailable());
            let order = cast.keep(&order());
            let reason = cast.engine(SAGAS).decide(order.clone(), &invocation()).await.unwrap_err();
            assert!(matches!(reason, Unfinished::Step { .. }), "{reason}");
            assert_eq!(cast.kept(&order), order, "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_pivot_is_repeated_and_nothing_is_undone() {
        for step in ["capture", "OrderCreated"] {
            let cast = Cast::default().failing(step, unavailable());
            let order = cast.keep(&order());
            cast.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
            assert!(!cast.asked().contains(&"cancel payment"));
            assert_eq!(cast.kept(&order).state, Confirmed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn counts_less_than_a_refusal_beside_it() {
        let cast = Cast::default()
            .failing("validate", unavailable())
            .failing("reserve", StepError::Refused(Refusal::MixedCurrencies));
        let order = cast.engine(SAGAS).decide(cast.keep(&order()), &invocation()).await.unwrap();
        assert_eq!((order.state, order.refusal), (Cancelling, Some(Refusal::MixedCurrencies)));
    }
}

mod a_refusal {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn undoes_every_step_also_those_that_never_ran() {
        let cast = Cast::default().failing("reserve", StepError::Refused(Refusal::MixedCurrencies));
        let engine = cast.engine(SAGAS);
        let refused = engine.decide(cast.keep(&order()), &invocation()).await.unwrap();
        assert_eq!(refused.answer.as_ref().unwrap().body, "mixed_currencies");
        cast.asked();
        let cancelled = engine.finish(refused, &invocation()).await.unwrap();
        assert_eq!(cast.asked(), ["release", "cancel payment", "OrderCancelled"]);
        assert_eq!(history(&cancelled), [Pending, Cancelling, Cancelled]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_pivot_announces_the_order_before_it_recalls_it_and_keeps_the_first_answer() {
        let cast = Cast::default().failing("capture", StepError::Refused(Refusal::CaptureRefused));
        let cancelled = cast.engine(SAGAS).finish(cast.keep(&order()), &invocation()).await.unwrap();
        assert_eq!(history(&cancelled), [Pending, Confirmed, Cancelling, Cancelled]);
        assert_eq!(cast.asked()[4..], ["release", "cancel payment", "OrderCreated", "OrderCancelled"]);
        assert_eq!(cancelled.answer.unwrap().status, 201);
    }

    #[tokio::test(start_paused = true)]
    async fn before_its_customer_was_known_looks_for_whom_to_tell() {
        let cast = Cast::default();
        let order = order().cancelling(Refusal::TimedOut, began()).unwrap();
        let cancelled = cast.engine(SAGAS).finish(cast.keep(&order), &invocation()).await.unwrap();
        assert_eq!(history(&cancelled), [Pending, Cancelling, Cancelled]);
        assert_eq!(cast.asked(), ["release", "cancel payment", "validate", "OrderCancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_order_that_was_announced_long_ago_does_not_announce_it_again() {
        let cast = Cast::default();
        let engine = cast.engine(SAGAS);
        let done = engine.finish(cast.keep(&order()), &invocation()).await.unwrap();
        cast.asked();
        let cancelling = done.cancelling(Refusal::CustomerRequest, began()).unwrap();
        engine.finish(cast.keep(&cancelling), &invocation()).await.unwrap();
        assert_eq!(cast.asked(), ["release", "cancel payment", "OrderCancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_compensation_leaves_the_order_open() {
        for error in [unavailable(), StepError::Refused(Refusal::CaptureRefused), StepError::Overtaken] {
            let cast = Cast::default()
                .failing("reserve", StepError::Refused(Refusal::MixedCurrencies))
                .failing("release", error);
            let order = cast.keep(&order());
            cast.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
            assert_eq!(cast.kept(&order).state, Cancelling);
            assert!(!cast.asked().contains(&"OrderCancelled"));
        }
    }
}

mod an_order_that_somebody_else_moves_meanwhile {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_gone_on_with_from_where_it_is() {
        let cast = Cast::default();
        let order = cast.keep(&order());
        let cancelling = order.clone().cancelling(Refusal::CustomerRequest, began()).unwrap();
        *cast.meanwhile.lock().unwrap() = Some(("authorise", cancelling));
        let end = cast.engine(SAGAS).finish(order, &invocation()).await.unwrap();
        assert_eq!(history(&end), [Pending, Cancelling, Cancelled]);
        assert_eq!(end.refusal, Some(Refusal::CustomerRequest));
    }

    #[tokio::test(start_paused = true)]
    async fn is_read_again_where_a_step_meets_the_tombstone() {
        let cast = Cast::default().failing("authorise", StepError::Overtaken);
        let order = cast.keep(&order());
        let cancelling = order.clone().cancelling(Refusal::CustomerRequest, began()).unwrap();
        *cast.meanwhile.lock().unwrap() = Some(("reserve", cancelling));
        let end = cast.engine(SAGAS).finish(order, &invocation()).await.unwrap();
        assert_eq!(end.state, Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn is_left_alone_where_a_tombstone_was_met_but_no_cancellation_is_recorded() {
        let cast = Cast::default().failing("authorise", StepError::Overtaken);
        let order = cast.keep(&order());
        cast.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
        assert_eq!(cast.kept(&order).state, Pending);
    }

    #[tokio::test(start_paused = true)]
    async fn is_undone_where_its_payment_is_gone_although_nobody_cancelled() {
        let cast = Cast::default().failing("capture", StepError::Overtaken);
        let end = cast.engine(SAGAS).finish(cast.keep(&order()), &invocation()).await.unwrap();
        assert_eq!((end.state, end.refusal), (Cancelled, Some(Refusal::CaptureRefused)));
    }
}

mod time {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_would_not_suffice_to_record_a_step_starts_none() {
        let cast = Cast::default();
        let deadline = Deadline::after(RECORD_RESERVE + Duration::from_millis(200));
        let soon = Invocation::new("r", deadline);
        let reason = cast.engine(SAGAS).finish(cast.keep(&order()), &soon).await.unwrap_err();
        assert!(matches!(reason, Unfinished::NoTime), "{reason}");
        assert!(cast.asked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn to_decide_ends_and_then_no_step_is_tried_forward() {
        let cast = Cast::default();
        let engine = cast.engine(SAGAS);
        let order = cast.keep(&order());
        tokio::time::advance(DECIDE_WITHIN).await;
        let end = engine.finish(order, &invocation()).await.unwrap();
        assert_eq!((end.state, end.refusal), (Cancelled, Some(Refusal::TimedOut)));
        assert_eq!(cast.asked(), ["release", "cancel payment", "validate", "OrderCancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_before_its_end_is_still_enough_to_decide() {
        let cast = Cast::default();
        let engine = cast.engine(SAGAS);
        let order = cast.keep(&order());
        tokio::time::advance(DECIDE_WITHIN - Duration::from_millis(2)).await;
        assert_eq!(engine.decide(order, &invocation()).await.unwrap().state, Confirmed);
    }
}

/// The next version wraps what was ordered, as `docs/adding-a-step.md` has it.
mod a_step_that_a_new_version_adds {
    use super::*;

    static HAPPENED: Mutex<Vec<(OrderId, &str)>> = Mutex::new(Vec::new());

    type Outcome<'a> = BoxFuture<'a, Result<Fact, StepError>>;

    fn note<'a>(order: &Order, what: &'static str) -> Outcome<'a> {
        HAPPENED.lock().unwrap().push((order.id, what));
        Box::pin(async { Ok(Fact::Nothing) })
    }

    fn wrap<'a>(_: &'a dyn Participants, order: &'a Order, _: Run<'a>) -> Outcome<'a> {
        note(order, "wrapped")
    }

    fn unwrap<'a>(_: &'a dyn Participants, order: &'a Order, _: Run<'a>) -> Outcome<'a> {
        note(order, "unwrapped")
    }

    const NOW: u32 = PLACE_ORDER.version;
    const NEXT: u32 = NOW + 1;
    static WRAP: Step = Step { name: "wrap", forward: wrap, compensation: Some(unwrap) };
    static WITH_WRAPPING: LazyLock<Saga> = LazyLock::new(|| Saga {
        version: NEXT,
        before_the_pivot: PLACE_ORDER.before_the_pivot,
        after_the_pivot: [&[slice::from_ref(&WRAP)], PLACE_ORDER.after_the_pivot].concat().leak(),
        after_compensation: PLACE_ORDER.after_compensation,
    });
    static BOTH: LazyLock<[&Saga; 2]> = LazyLock::new(|| [&PLACE_ORDER, &WITH_WRAPPING]);

    fn happened_to(order: &Order) -> Vec<&'static str> {
        HAPPENED.lock().unwrap().iter().filter(|(id, _)| *id == order.id).map(|(_, what)| *what).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn is_run_for_new_orders_only() {
        let cast = Cast::default();
        let engine = cast.engine(&*BOTH);
        assert_eq!(engine.saga_version(), NEXT);
        for (version, expected) in [(NOW, vec![]), (NEXT, vec!["wrapped"])] {
            let order = cast.keep(&order_of_version(version));
            assert_eq!(engine.finish(order.clone(), &invocation()).await.unwrap().state, Done);
            assert_eq!(happened_to(&order), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn is_undone_for_orders_that_began_with_it() {
        let cast = Cast::default();
        let engine = cast.engine(&*BOTH);
        for (version, expected) in [(NOW, vec![]), (NEXT, vec!["unwrapped"])] {
            let mut order = order_of_version(version);
            order.learn(Fact::Recipient(cast.validate_user(&order, run()).await.unwrap()));
            let order = cast.keep(&order.cancelling(Refusal::CustomerRequest, began()).unwrap());
            assert_eq!(engine.finish(order.clone(), &invocation()).await.unwrap().state, Cancelled);
            assert_eq!(happened_to(&order), expected);
        }
    }

    /// After a rollback, say.
    #[tokio::test(start_paused = true)]
    async fn keeps_those_who_do_not_know_it_from_touching_the_order() {
        let cast = Cast::default();
        let order = cast.keep(&order_of_version(NEXT));
        let reason = cast.engine(SAGAS).finish(order.clone(), &invocation()).await.unwrap_err();
        assert!(matches!(reason, Unfinished::UnknownSaga(NEXT)), "{reason}");
        assert!(cast.asked().is_empty());
        assert_eq!(cast.kept(&order), order);
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_those_who_do_not_know_it_from_cancelling_the_order() {
        let cast = Cast::default();
        let order = cast.keep(&order_of_version(NEXT));
        let engine = cast.engine(SAGAS);
        let next = engine.cancelling(&order, Refusal::CustomerRequest, "r-1").unwrap();
        let reason = engine.record(order.state, next).await.unwrap_err();
        assert!(matches!(reason, Unfinished::UnknownSaga(NEXT)), "{reason}");
        assert_eq!(cast.kept(&order), order);
    }

    fn run<'a>() -> Run<'a> {
        static TRACE: LazyLock<TraceContext> = LazyLock::new(TraceContext::start);
        Run { deadline: Deadline::after(Duration::from_secs(20)), trace: &TRACE }
    }
}

#[test]
fn versions_are_in_order_so_that_new_orders_begin_with_the_newest() {
    let versions: Vec<_> = SAGAS.iter().map(|saga| saga.version).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}
