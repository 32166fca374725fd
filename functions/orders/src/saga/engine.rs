//! The engine runs the table of steps, `saga/steps.rs`.
//!
//! The engine keeps nothing in memory between two calls. Everything that is known about an order is in the order's
//! stored record, so any request or worker can continue any order, even after a crash. If another request or worker has
//! changed the order's state meanwhile, the engine reads the order again and continues from the new state.

use std::sync::Arc;

use chassis::{
    clock::Clock,
    detail_span,
    invocation::Invocation,
    store::{SaveOutcome, StoreError},
    telemetry,
    time_limits::{MINIMUM_STEP_TIME, RECORD_RESERVE},
};
use futures::future::join_all;
use tracing::Instrument;

use super::{
    Participants, StepContext, StepError,
    steps::{Action, Saga, Stage},
};
use crate::{
    domain::{CancellationReason, IllegalTransition, Order, OrderState, RecordedAnswer},
    metrics::{OrderMeter, count_transition},
    repository::Repository,
};

/// Every order makes fewer transitions than this number. Without the limit, a bug could make the engine loop for ever.
const MAX_TRANSITIONS: usize = 16;

/// Returns what a decided order stores of the HTTP response to the request that placed it: a refusal if the order has a
/// cancellation reason, else a confirmation. The text argument is the id of the request that decided the order.
pub type RecordAnswer = fn(&Order, &str) -> RecordedAnswer;

/// The reason why the engine left an order open. The order stays in the state that was stored last.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// A step or a compensation failed.
    #[error("{step}")]
    Step { step: &'static str, source: StepError },
    /// A service found a tombstone, or a write of the order failed its condition, but the order is still in the same
    /// state. This is normal if the customer's data was erased meanwhile: the next attempt begins with the changed
    /// order.
    #[error("a service found a tombstone or a write failed its condition, but the order's state has not changed")]
    UnexplainedTombstone,
    #[error("no time left for another step")]
    NoTime,
    /// The order was placed with a version of the saga that this code does not know: newer code placed the order and
    /// was rolled back. The engine does not change such an order, and a person must look at the order.
    #[error("version {0} of the saga is not known here")]
    UnknownSaga(u32),
    #[error("no such order")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug: [`OrderState::may_become`] does not allow the transition.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A bug: the order made as many transitions as `MAX_TRANSITIONS`.
    #[error("the order makes more transitions than any order should")]
    Endless,
}

impl Unfinished {
    /// Returns whether a participant or the table reported contention, which does not count as a failure of the order.
    pub fn is_contended(&self) -> bool {
        match self {
            Self::Step { source, .. } => matches!(source, StepError::Contended(_)),
            Self::Store(error) => error.is_contended_or_throttled(),
            _ => false,
        }
    }

    /// If several steps of a stage fail, the engine handles only the error with the highest rank.
    fn rank(&self) -> u8 {
        match self {
            // The order was cancelled meanwhile, so the other errors no longer matter.
            Self::Step { source: StepError::Overtaken, .. } => 3,
            // A refusal cancels the order and undoes all steps, also a step whose outcome is unknown.
            Self::Step { source: StepError::Refused(_), .. } => 2,
            error if error.is_contended() => 0,
            // Any other failure ranks above contention, because the order needs a longer pause after a failure.
            _ => 1,
        }
    }
}

/// The point up to which the engine runs an order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunUntil {
    /// Until the order is no longer `PENDING`.
    Decision,
    /// Until the order is `DONE` or `CANCELLED`.
    FinalState,
    /// Until the order is `CANCELLED`. The caller is the request that placed the order, and its response reports the
    /// refusal.
    CancelledWithAnswer,
}

/// The result of the steps before the pivot.
enum PivotDecision {
    Confirm,
    Cancel(CancellationReason),
    /// Another request or worker decided the order meanwhile.
    AlreadyMade,
}

#[derive(Clone)]
pub struct Engine {
    pub repository: Arc<dyn Repository>,
    pub participants: Arc<dyn Participants>,
    sagas: &'static [&'static Saga],
    record_answer: RecordAnswer,
    pub clock: Clock,
    meter: Option<OrderMeter>,
}

impl Engine {
    /// Builds an engine that can continue orders of all versions in `sagas`. New orders get the last version.
    pub fn new(
        repository: impl Repository + 'static,
        participants: impl Participants + 'static,
        sagas: &'static [&'static Saga],
        record_answer: RecordAnswer,
        clock: Clock,
    ) -> Self {
        Self {
            repository: Arc::new(repository),
            participants: Arc::new(participants),
            sagas,
            record_answer,
            clock,
            meter: None,
        }
    }

    /// Returns an engine for the work of one invocation on one order, and the meter that collects the metrics of that
    /// work.
    pub fn for_one_order(&self) -> (Self, OrderMeter) {
        let meter = OrderMeter::default();
        (Self { meter: Some(meter.clone()), ..self.clone() }, meter)
    }

    /// Returns the version of the saga that new orders get: the last version in the list.
    pub fn saga_version(&self) -> u32 {
        self.sagas.last().map_or(0, |saga| saga.version)
    }

    fn saga_of(&self, order: &Order) -> Result<&'static Saga, Unfinished> {
        let saga = self.sagas.iter().find(|saga| saga.version == order.saga_version);
        saga.copied().ok_or(Unfinished::UnknownSaga(order.saga_version))
    }

    /// Runs a pending order until it is confirmed or refused. Returns the order in its new state.
    pub async fn decide(&self, mut order: Order, invocation: &Invocation) -> Result<Order, Unfinished> {
        for _ in 0..MAX_TRANSITIONS {
            if order.state != OrderState::Pending {
                return Ok(order);
            }
            order = self.advance(order, RunUntil::Decision, invocation).await?;
        }
        Err(Unfinished::Endless)
    }

    /// Takes an order to a final state: `DONE` or `CANCELLED`.
    pub async fn finish(&self, order: Order, invocation: &Invocation) -> Result<Order, Unfinished> {
        self.run_to_final_state(order, RunUntil::FinalState, invocation).await
    }

    /// Undoes a refused order. Only the request that placed the order calls this, when its response reports the
    /// refusal. Before the engine publishes `OrderCancelled`, it stores `is_refusal_answered`, so that the customer
    /// gets no message about a refusal that the response already reports.
    ///
    /// `is_refusal_answered` cannot be stored together with the refusal: if the request runs out of time during that
    /// write, the write may succeed although the response is "not decided yet". Then a message must report the refusal.
    pub async fn undo_refused(&self, order: Order, invocation: &Invocation) -> Result<Order, Unfinished> {
        self.run_to_final_state(order, RunUntil::CancelledWithAnswer, invocation).await
    }

    async fn run_to_final_state(
        &self,
        mut order: Order,
        until: RunUntil,
        invocation: &Invocation,
    ) -> Result<Order, Unfinished> {
        for _ in 0..MAX_TRANSITIONS {
            if !order.state.is_open() {
                return Ok(order);
            }
            order = self.advance(order, until, invocation).await?;
        }
        Err(Unfinished::Endless)
    }

    /// Returns a copy of `order` in the state `CANCELLING`. If the order was still undecided, the copy has the response
    /// that reports the refusal. Stores nothing.
    pub fn cancelling(
        &self,
        order: &Order,
        reason: CancellationReason,
        request_id: &str,
    ) -> Result<Order, IllegalTransition> {
        let mut next = order.clone().cancelling(reason, self.clock.now())?;
        if order.state == OrderState::Pending {
            next.answer = Some((self.record_answer)(&next, request_id));
        }
        Ok(next)
    }

    /// Writes a transition. Returns `None` if the order was changed meanwhile, so that the transition no longer
    /// applies.
    ///
    /// If the engine does not know the order's version of the saga, returns an error and writes nothing: each write
    /// replaces the whole order, and could lose outputs of steps that only newer code knows.
    pub async fn record(&self, from: OrderState, next: Order) -> Result<Option<Order>, Unfinished> {
        self.saga_of(&next)?;
        match self.repository.transition(from, &next).await? {
            SaveOutcome::Saved => {
                let reason = next.cancellation_reason.as_ref().map(CancellationReason::code);
                tracing::info!(from = %from, to = %next.state, reason, "order transition");
                count_transition(self.meter.as_ref(), from, &next);
                Ok(Some(next))
            }
            SaveOutcome::Stale => Ok(None),
        }
    }

    /// Makes one transition.
    async fn advance(&self, mut order: Order, until: RunUntil, invocation: &Invocation) -> Result<Order, Unfinished> {
        let from = order.state;
        let saga = self.saga_of(&order)?;
        let next = match from {
            OrderState::Done | OrderState::Cancelled => return Ok(order),
            OrderState::Pending => match self.decision(saga, &mut order, invocation).await? {
                PivotDecision::Confirm => self.confirmed(order.clone(), until, invocation.request_id.as_str())?,
                PivotDecision::Cancel(reason) => self.cancelling(&order, reason, invocation.request_id.as_str())?,
                PivotDecision::AlreadyMade => return self.reread(&order).await,
            },
            OrderState::Confirmed => match self.run_stages(saga.after_the_pivot, &mut order, invocation).await {
                Ok(()) => order.clone().done(self.clock.now())?,
                Err(Unfinished::Step { source: StepError::Refused(reason), .. }) => {
                    self.cancelling(&order, reason, invocation.request_id.as_str())?
                }
                Err(Unfinished::Step { source: StepError::Overtaken, .. }) => {
                    let current = self.current(&order).await?;
                    if current.state != from {
                        return Ok(current);
                    }
                    // Nobody cancelled the order, but its payment cannot be captured any more: for example because the
                    // provider's hold has expired.
                    self.cancelling(&order, CancellationReason::CaptureRefused, invocation.request_id.as_str())?
                }
                Err(error) => return Err(error),
            },
            OrderState::Cancelling => {
                self.undo(saga, &mut order, until, invocation).await?;
                order.clone().cancelled(self.clock.now())?
            }
        };
        match self.record(from, next).await? {
            Some(next) => Ok(next),
            None => self.reread(&order).await,
        }
    }

    fn confirmed(&self, order: Order, until: RunUntil, request_id: &str) -> Result<Order, Unfinished> {
        let now = self.clock.now();
        let mut next = order.confirmed(now)?;
        if until == RunUntil::Decision {
            // The request does not continue after the decision. Its write wakes the worker, which has the lease from
            // then on. `next_check` stays as it is, because a change would cost two writes in the index of open orders,
            // and the sweep is needed only if the stream does not deliver the order.
            next.hand_over(now);
        }
        next.answer = Some((self.record_answer)(&next, request_id));
        Ok(next)
    }

    async fn decision(
        &self,
        saga: &'static Saga,
        order: &mut Order,
        invocation: &Invocation,
    ) -> Result<PivotDecision, Unfinished> {
        if order.is_past_decision_deadline(self.clock.now()) {
            return Ok(PivotDecision::Cancel(CancellationReason::TimedOut));
        }
        match self.run_stages(saga.before_the_pivot, order, invocation).await {
            Ok(()) => Ok(PivotDecision::Confirm),
            Err(Unfinished::Step { source: StepError::Refused(reason), .. }) => Ok(PivotDecision::Cancel(reason)),
            Err(Unfinished::Step { source: StepError::Overtaken, .. }) => Ok(PivotDecision::AlreadyMade),
            Err(error) => Err(error),
        }
    }

    async fn run_stages(
        &self,
        stages: &'static [Stage],
        order: &mut Order,
        invocation: &Invocation,
    ) -> Result<(), Unfinished> {
        for stage in stages {
            let needed = stage.iter().filter(|step| step.is_needed_for(order));
            let actions: Vec<_> = needed.map(|step| (step.name, step.action)).collect();
            self.run_side_by_side(actions.into_iter(), order, invocation).await?;
        }
        Ok(())
    }

    /// Runs the compensations and then the stages that follow them. If a compensation fails or is refused, the order
    /// stays open, and the worker repeats all compensations until they succeed.
    async fn undo(
        &self,
        saga: &'static Saga,
        order: &mut Order,
        until: RunUntil,
        invocation: &Invocation,
    ) -> Result<(), Unfinished> {
        let refused = order.clone();
        let compensations = saga.compensations().map(|compensation| (compensation.name, compensation.action));
        let compensated = self.run_side_by_side(compensations, order, invocation);
        let (compensated, is_refusal_answered) =
            futures::join!(compensated, self.record_refusal_answered(&refused, until));
        compensated?;
        order.is_refusal_answered |= is_refusal_answered;
        self.run_stages(saga.after_compensation, order, invocation).await
    }

    /// Stores `is_refusal_answered` if the caller's response reports the refusal. Returns whether this call stored it.
    /// If the write fails, the customer also gets a message about the refusal.
    async fn record_refusal_answered(&self, order: &Order, until: RunUntil) -> bool {
        if until != RunUntil::CancelledWithAnswer || order.is_refusal_answered {
            return false;
        }
        let recorded = self.repository.record_refusal_answered(order).await;
        recorded
            .inspect_err(|error| {
                let cause = telemetry::chain(error);
                tracing::warn!(
                    cause,
                    "cannot store that the response reports the refusal; the customer also gets a message"
                );
            })
            .is_ok()
    }

    /// Runs all actions side by side. The order keeps the outputs of the actions that succeed, even if another action
    /// fails.
    async fn run_side_by_side(
        &self,
        actions: impl Iterator<Item = (&'static str, Action)>,
        order: &mut Order,
        invocation: &Invocation,
    ) -> Result<(), Unfinished> {
        let deadline = invocation.deadline.earlier_by(RECORD_RESERVE);
        if deadline.remaining() < MINIMUM_STEP_TIME {
            return Err(Unfinished::NoTime);
        }
        let trace = order.trace.clone();
        let context = StepContext { deadline, trace: &trace };
        let results = {
            let order = &*order;
            let actions = actions.map(|(step, action)| async move {
                let span = detail_span!("step", step);
                let result = action(self.participants.as_ref(), order, context).instrument(span.clone()).await;
                telemetry::record_outcome(&span, &result);
                (step, result)
            });
            join_all(actions).await
        };
        let mut errors = Vec::new();
        for (step, result) in results {
            match result {
                Ok(output) => order.apply(output),
                Err(source) => errors.push(Unfinished::Step { step, source }),
            }
        }
        // The caller handles and logs only the returned error, so the other errors are logged here.
        errors.sort_by_key(|error| std::cmp::Reverse(error.rank()));
        let mut errors = errors.into_iter();
        let first = errors.next();
        for error in errors {
            let cause = telemetry::chain(&error);
            if error.is_contended() {
                tracing::info!(cause, "another step of the stage met contention");
            } else {
                tracing::warn!(cause, "another step of the stage failed, too");
            }
        }
        first.map_or(Ok(()), Err)
    }

    async fn current(&self, order: &Order) -> Result<Order, Unfinished> {
        self.repository.find(order.id).await?.ok_or(Unfinished::NotFound)
    }

    /// Reads the order again after another request or worker has changed the order's state.
    async fn reread(&self, order: &Order) -> Result<Order, Unfinished> {
        let current = self.current(order).await?;
        if current.state == order.state { Err(Unfinished::UnexplainedTombstone) } else { Ok(current) }
    }
}
