//! Runs the step table.
//!
//! The engine keeps no state between calls. All that is known about an order is in its record, so a request, a worker and
//! a worker after a crash all continue from the same record. If the engine finds the order in another state than expected,
//! it reads the order again and continues from the state that it finds.

use std::sync::Arc;

use chassis::{
    clock::Clock,
    invocation::Invocation,
    store::{SaveOutcome, StoreError},
    telemetry,
    time_limits::{MINIMUM_STEP_TIME, RECORD_RESERVE},
};
use futures::future::join_all;

use super::{
    Participants, StepContext, StepError,
    steps::{Action, Saga, Stage},
};
use crate::{
    domain::{Answer, CancellationReason, IllegalTransition, Order, OrderState},
    repository::Repository,
};

/// More transitions than any order makes. The limit ends a loop that a bug would make endless.
const MAX_TRANSITIONS: usize = 16;

/// Writes the answer to the request that placed the order, once the order is decided: a refusal if the order has a
/// cancellation reason, else a confirmation. The last argument is the id of the deciding request.
pub type WriteAnswer = fn(&Order, &str) -> Answer;

/// The reason for which an order stays open, as it was recorded last.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// A step or a compensation failed.
    #[error("{step}")]
    Step { step: &'static str, source: StepError },
    /// A step met a tombstone, but no cancellation of the order is recorded.
    #[error("a tombstone exists, but the order is not cancelled")]
    UnexplainedTombstone,
    /// The invocation ends.
    #[error("no time left for another step")]
    NoTime,
    /// The order began with a version of the saga that this version of the code does not know: a newer version was
    /// deployed and rolled back. The order must not be touched, and a person must look at it.
    #[error("version {0} of the saga is not known here")]
    UnknownSaga(u32),
    #[error("no such order")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A bug.
    #[error("the order makes transitions without end")]
    Endless,
}

impl Unfinished {
    /// Returns whether a participant or the table reports contention, which is no failure.
    pub fn is_contended(&self) -> bool {
        match self {
            Self::Step { source, .. } => matches!(source, StepError::Contended(_)),
            Self::Store(error) => error.is_contended_or_throttled(),
            _ => false,
        }
    }

    /// If several steps of a stage fail, the error with the highest rank counts. A refusal ranks above a missing answer,
    /// because all steps will be undone anyway. A failure ranks above contention, because a failure needs a longer pause.
    fn rank(&self) -> u8 {
        match self {
            Self::Step { source: StepError::Overtaken, .. } => 3,
            Self::Step { source: StepError::Refused(_), .. } => 2,
            error if error.is_contended() => 0,
            _ => 1,
        }
    }
}

/// The state up to which the caller runs the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunUntil {
    /// Until the pivot.
    Decision,
    /// Until `DONE` or `CANCELLED`.
    FinalState,
    /// Until `CANCELLED`, while the request that placed the order answers with the refusal.
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
    write_answer: WriteAnswer,
    pub clock: Clock,
}

impl Engine {
    /// An engine for orders of all versions in `sagas`. New orders begin with the last version.
    pub fn new(
        repository: impl Repository + 'static,
        participants: impl Participants + 'static,
        sagas: &'static [&'static Saga],
        write_answer: WriteAnswer,
        clock: Clock,
    ) -> Self {
        Self { repository: Arc::new(repository), participants: Arc::new(participants), sagas, write_answer, clock }
    }

    /// The version of the saga that new orders begin with.
    pub fn saga_version(&self) -> u32 {
        self.sagas.last().map_or(0, |saga| saga.version)
    }

    fn saga_of(&self, order: &Order) -> Result<&'static Saga, Unfinished> {
        let saga = self.sagas.iter().find(|saga| saga.version == order.saga_version);
        saga.copied().ok_or(Unfinished::UnknownSaga(order.saga_version))
    }

    /// Takes an order to its decision, and returns the order in the state that follows.
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

    /// Undoes a refused order for the request that placed the order and that answers with the refusal. The engine records
    /// that before it publishes anything, so that the customer gets no message about a refusal that the customer knows.
    ///
    /// The record is a write of its own, because the write of the refusal can succeed while the request runs out of time
    /// and answers "not decided yet".
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

    /// Returns `order` in the state `CANCELLING`, with an answer if it had none yet. Writes nothing.
    pub fn cancelling(
        &self,
        order: &Order,
        reason: CancellationReason,
        request_id: &str,
    ) -> Result<Order, IllegalTransition> {
        let mut next = order.clone().cancelling(reason, self.clock.now())?;
        if order.state == OrderState::Pending {
            next.answer = Some((self.write_answer)(&next, request_id));
        }
        Ok(next)
    }

    /// Writes a transition. Returns `None` if another request or worker has made a transition meanwhile.
    ///
    /// The engine writes nothing if it does not know the order's saga: it would lose the outputs of that saga's steps.
    pub async fn record(&self, from: OrderState, next: Order) -> Result<Option<Order>, Unfinished> {
        self.saga_of(&next)?;
        match self.repository.transition(from, &next).await? {
            SaveOutcome::Saved => {
                tracing::info!(order = %next.id, from = %from, to = %next.state, "order transition");
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
                    // Nobody cancelled the order, but its payment no longer exists: for example because the provider's
                    // hold has expired.
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
            // The request ends here, and the worker continues at once.
            next.lease = None;
            next.next_check = Some(now);
        }
        next.answer = Some((self.write_answer)(&next, request_id));
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
            let actions = stage.iter().map(|step| (step.name, step.action));
            self.run_side_by_side(actions, order, invocation).await?;
        }
        Ok(())
    }

    /// Runs the compensations and the stages after them. No compensation may be refused: the worker repeats it until it
    /// succeeds.
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

    /// Records that the request answers with the refusal. Returns whether that is recorded. If it is not, the customer
    /// also gets a message.
    async fn record_refusal_answered(&self, order: &Order, until: RunUntil) -> bool {
        if until != RunUntil::CancelledWithAnswer || order.is_refusal_answered {
            return false;
        }
        let recorded = self.repository.record_refusal_answered(order).await;
        recorded
            .inspect_err(|error| {
                let cause = telemetry::chain(error);
                tracing::warn!(order = %order.id, cause, "the answer is not recorded; the customer also gets a message");
            })
            .is_ok()
    }

    /// Runs actions side by side, and applies the outputs of those that succeed even if another action fails.
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
            let actions = actions
                .map(|(step, action)| async move { (step, action(self.participants.as_ref(), order, context).await) });
            join_all(actions).await
        };
        let mut errors = Vec::new();
        for (step, result) in results {
            match result {
                Ok(output) => order.apply(output),
                Err(source) => errors.push(Unfinished::Step { step, source }),
            }
        }
        // The caller handles and logs one error.
        errors.sort_by_key(|error| std::cmp::Reverse(error.rank()));
        let mut errors = errors.into_iter();
        let first = errors.next();
        for error in errors {
            tracing::warn!(order = %order.id, cause = telemetry::chain(&error), "another step of the stage failed, too");
        }
        first.map_or(Ok(()), Err)
    }

    async fn current(&self, order: &Order) -> Result<Order, Unfinished> {
        self.repository.find(order.id).await?.ok_or(Unfinished::NotFound)
    }

    /// Reads the order again after another request or worker has changed it.
    async fn reread(&self, order: &Order) -> Result<Order, Unfinished> {
        let current = self.current(order).await?;
        if current.state == order.state { Err(Unfinished::UnexplainedTombstone) } else { Ok(current) }
    }
}
