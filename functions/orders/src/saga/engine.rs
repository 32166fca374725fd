//! Runs the step table.
//!
//! The engine holds nothing between calls: all that is known of an order is in
//! its record, so that a request, a worker, and a worker after a crash all go
//! on from the same place. Whoever finds the order in another state than
//! expected reads it again and goes on from there.

use std::{sync::Arc, time::Duration};

use chassis::{
    clock::Clock,
    invocation::Invocation,
    store::{SaveOutcome, StoreError},
    telemetry,
};
use futures::future::join_all;

use super::{
    Participants, Run, StepError,
    steps::{Action, Saga, Stage},
};
use crate::{
    domain::{Answer, Fact, IllegalMove, Order, OrderState, Refusal},
    repository::Repository,
};

/// Kept back at the end of an invocation for recording an outcome. No step
/// starts that could not be recorded.
pub const RECORD_RESERVE: Duration = Duration::from_millis(1500);
/// Less than this is not worth starting a step for.
const LEAST_TIME: Duration = Duration::from_millis(250);
/// More moves than any order makes; ends a loop that a bug would make endless.
const MOST_MOVES: usize = 16;

/// What the engine decided, for whoever writes the answer.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// The order goes through.
    Confirmed,
    /// It doesn't.
    Refused(&'a Refusal),
}

/// Writes the answer to the request that placed an order: the order as it
/// stands after the decision, and the id of the deciding request.
pub type WriteAnswer = fn(&Order, Decision<'_>, &str) -> Answer;

/// Why an order is left open. It stays as it was recorded last.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// A participant has no answer.
    #[error("{step}: {reason}")]
    Step {
        /// Which step.
        step: &'static str,
        /// For the log.
        reason: String,
    },
    /// A participant is busy with others. Nothing has failed.
    #[error("{step}: {reason}")]
    Busy {
        /// Which step.
        step: &'static str,
        /// For the log.
        reason: String,
    },
    /// The invocation ends.
    #[error("no time left for another step")]
    NoTime,
    /// The order began with a version of the saga that isn't known here: a
    /// newer deployment's, that was rolled back. Hands off, and be heard.
    #[error("version {0} of the saga is not known here")]
    UnknownSaga(u32),
    /// The order is not there any more, or never was.
    #[error("no such order")]
    Gone,
    /// The table has no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug: a move that no edge allows, or moves without end.
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// As above.
    #[error("the order keeps moving")]
    Endless,
}

impl Unfinished {
    /// Whether somebody was only busy: a participant, or the table.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Store(error) => error.is_contended_or_throttled(),
            _ => false,
        }
    }
}

/// The engine.
#[derive(Clone)]
pub struct Engine {
    /// Where orders are kept.
    pub repository: Arc<dyn Repository>,
    /// The other services, and the queue.
    pub participants: Arc<dyn Participants>,
    sagas: &'static [&'static Saga],
    write_answer: WriteAnswer,
    /// The time.
    pub clock: Clock,
}

/// How far whoever runs the engine wants to take the order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The pivot.
    Decision,
    /// `DONE` or `CANCELLED`.
    End,
    /// `CANCELLED`, while the request that placed the order answers with the
    /// refusal.
    EndOfRefused,
}

/// How the steps before the pivot went.
enum Verdict {
    Confirm,
    Refuse(Refusal),
}

impl Engine {
    /// An engine for orders of any version of `sagas`; new ones begin with the
    /// last.
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

    /// Takes an order to its decision; returns it in whatever state follows.
    pub async fn decide(&self, mut order: Order, invocation: &Invocation) -> Result<Order, Unfinished> {
        for _ in 0..MOST_MOVES {
            if order.state != OrderState::Pending {
                return Ok(order);
            }
            order = self.advance(order, Goal::Decision, invocation).await?;
        }
        Err(Unfinished::Endless)
    }

    /// Takes an order to an end: `DONE` or `CANCELLED`.
    pub async fn finish(&self, order: Order, invocation: &Invocation) -> Result<Order, Unfinished> {
        self.to_the_end(order, Goal::End, invocation).await
    }

    /// Undoes a refused order on behalf of the request that placed it and that
    /// answers with the refusal. That is recorded before anything is published,
    /// so that nobody sends a message about what the customer knows.
    ///
    /// The record is a write of its own, because the write of the refusal can
    /// succeed while the request runs out of time and answers "not decided yet".
    pub async fn undo_refused(&self, order: Order, invocation: &Invocation) -> Result<Order, Unfinished> {
        self.to_the_end(order, Goal::EndOfRefused, invocation).await
    }

    async fn to_the_end(&self, mut order: Order, goal: Goal, invocation: &Invocation) -> Result<Order, Unfinished> {
        for _ in 0..MOST_MOVES {
            if !order.state.is_open() {
                return Ok(order);
            }
            order = self.advance(order, goal, invocation).await?;
        }
        Err(Unfinished::Endless)
    }

    /// The order on its way back for `refusal`, with the answer if it had none
    /// yet. Not written yet.
    pub fn cancelling(&self, order: &Order, refusal: Refusal, request_id: &str) -> Result<Order, IllegalMove> {
        let undecided = order.state == OrderState::Pending;
        let mut next = order.clone().cancelling(refusal.clone(), self.clock.now())?;
        if undecided {
            next.answer = Some((self.write_answer)(&next, Decision::Refused(&refusal), request_id));
        }
        Ok(next)
    }

    /// Writes a move; `None` if the order had moved already. Of a saga that
    /// this code doesn't know it writes nothing: what the order has learned of
    /// that saga's steps would be lost.
    pub async fn record(&self, from: OrderState, next: Order) -> Result<Option<Order>, Unfinished> {
        self.saga_of(&next)?;
        match self.repository.transition(from, &next).await? {
            SaveOutcome::Saved => {
                tracing::info!(order = %next.id, from = %from, to = %next.state, "order moved");
                Ok(Some(next))
            }
            SaveOutcome::Stale => Ok(None),
        }
    }

    /// One move: from the state the order is in to one that follows.
    async fn advance(&self, mut order: Order, goal: Goal, invocation: &Invocation) -> Result<Order, Unfinished> {
        let from = order.state;
        let saga = self.saga_of(&order)?;
        let next = match from {
            OrderState::Done | OrderState::Cancelled => return Ok(order),
            OrderState::Pending => match self.before_the_pivot(saga, &mut order, invocation).await? {
                Some(Verdict::Confirm) => self.confirmed(order.clone(), goal, invocation.request_id.as_str())?,
                Some(Verdict::Refuse(refusal)) => self.cancelling(&order, refusal, invocation.request_id.as_str())?,
                None => return self.reread(&order).await,
            },
            OrderState::Confirmed => match self.stages(saga.after_the_pivot, &mut order, invocation).await {
                Ok(()) => order.clone().done(self.clock.now())?,
                Err(Stop::Refused(refusal)) => self.cancelling(&order, refusal, invocation.request_id.as_str())?,
                Err(Stop::Overtaken) => {
                    let current = self.current(&order).await?;
                    if current.state != from {
                        return Ok(current);
                    }
                    // Nobody cancelled the order, yet its payment is gone: a
                    // hold that the provider let expire, say.
                    self.cancelling(&order, Refusal::CaptureRefused, invocation.request_id.as_str())?
                }
                Err(Stop::Unfinished(reason)) => return Err(reason),
            },
            OrderState::Cancelling => {
                self.undo(saga, &mut order, goal, invocation).await?;
                order.clone().cancelled(self.clock.now())?
            }
        };
        match self.record(from, next).await? {
            Some(next) => Ok(next),
            None => self.reread(&order).await,
        }
    }

    fn confirmed(&self, order: Order, goal: Goal, request_id: &str) -> Result<Order, Unfinished> {
        let now = self.clock.now();
        let mut next = order.confirmed(now)?;
        if goal == Goal::Decision {
            // The request is done with it: the rest is the worker's, at once.
            next.lease = None;
            next.next_check = Some(now);
        }
        next.answer = Some((self.write_answer)(&next, Decision::Confirmed, request_id));
        Ok(next)
    }

    /// `None`: somebody else decided meanwhile.
    async fn before_the_pivot(
        &self,
        saga: &'static Saga,
        order: &mut Order,
        invocation: &Invocation,
    ) -> Result<Option<Verdict>, Unfinished> {
        if order.is_past_decision(self.clock.now()) {
            return Ok(Some(Verdict::Refuse(Refusal::TimedOut)));
        }
        match self.stages(saga.before_the_pivot, order, invocation).await {
            Ok(()) => Ok(Some(Verdict::Confirm)),
            Err(Stop::Refused(refusal)) => Ok(Some(Verdict::Refuse(refusal))),
            Err(Stop::Overtaken) => Ok(None),
            Err(Stop::Unfinished(reason)) => Err(reason),
        }
    }

    async fn stages(&self, stages: &'static [Stage], order: &mut Order, invocation: &Invocation) -> Result<(), Stop> {
        for stage in stages {
            let actions = stage.iter().map(|step| (step.name, step.forward));
            self.side_by_side(actions, order, invocation).await?;
        }
        Ok(())
    }

    async fn undo(
        &self,
        saga: &'static Saga,
        order: &mut Order,
        goal: Goal,
        invocation: &Invocation,
    ) -> Result<(), Unfinished> {
        let undone = async {
            let refused = order.clone();
            let compensated = self.side_by_side(saga.compensations(), order, invocation);
            let (compensated, is_told) = futures::join!(compensated, self.record_told(&refused, goal));
            compensated?;
            order.is_customer_told |= is_told;
            self.stages(saga.after_compensation, order, invocation).await
        };
        undone.await.map_err(|stop| match stop {
            Stop::Unfinished(reason) => reason,
            // Nothing may refuse to be undone: go on trying, and be heard.
            Stop::Refused(refusal) => {
                Unfinished::Step { step: "compensation", reason: format!("refused: {}", refusal.code()) }
            }
            Stop::Overtaken => Unfinished::Step { step: "compensation", reason: "overtaken".into() },
        })
    }

    /// Records that the customer is told. Returns whether that is recorded;
    /// where it isn't, a message follows.
    async fn record_told(&self, order: &Order, goal: Goal) -> bool {
        if goal != Goal::EndOfRefused || order.is_customer_told {
            return false;
        }
        let recorded = self.repository.record_told(order).await;
        recorded
            .inspect_err(|error| {
                let cause = telemetry::chain(error);
                tracing::warn!(order = %order.id, cause, "not recorded that the customer is told; a message follows");
            })
            .is_ok()
    }

    /// Runs actions side by side and remembers what they found out, also where
    /// others failed. A refusal counts more than a missing answer: what is
    /// missing will be undone anyway.
    async fn side_by_side(
        &self,
        actions: impl Iterator<Item = (&'static str, Action)>,
        order: &mut Order,
        invocation: &Invocation,
    ) -> Result<(), Stop> {
        let deadline = invocation.deadline.earlier_by(RECORD_RESERVE);
        if deadline.remaining() < LEAST_TIME {
            return Err(Stop::Unfinished(Unfinished::NoTime));
        }
        let trace = order.trace.clone();
        let run = Run { deadline, trace: &trace };
        let results = {
            let order = &*order;
            let actions = actions
                .map(|(name, action)| async move { (name, action(self.participants.as_ref(), order, run).await) });
            join_all(actions).await
        };
        let mut stop: Option<Stop> = None;
        for (name, result) in results {
            let failure = match result {
                Ok(fact) => {
                    if fact != Fact::Nothing {
                        order.learn(fact);
                    }
                    continue;
                }
                Err(StepError::Refused(refusal)) => Stop::Refused(refusal),
                Err(StepError::Overtaken) => Stop::Overtaken,
                Err(StepError::Busy(reason)) => {
                    tracing::info!(order = %order.id, step = name, reason, "step against others");
                    Stop::Unfinished(Unfinished::Busy { step: name, reason })
                }
                Err(StepError::Unavailable(reason)) => {
                    tracing::warn!(order = %order.id, step = name, reason, "step without an answer");
                    Stop::Unfinished(Unfinished::Step { step: name, reason })
                }
            };
            if stop.as_ref().is_none_or(|other| failure.rank() > other.rank()) {
                stop = Some(failure);
            }
        }
        stop.map_or(Ok(()), Err)
    }

    async fn current(&self, order: &Order) -> Result<Order, Unfinished> {
        self.repository.find(order.id).await?.ok_or(Unfinished::Gone)
    }

    /// The order as it stands now. If it hasn't moved after all, there is
    /// nothing to go on from at the moment.
    async fn reread(&self, order: &Order) -> Result<Order, Unfinished> {
        let current = self.current(order).await?;
        if current.state == order.state {
            return Err(Unfinished::Step { step: "reread", reason: "overtaken, yet not moved".into() });
        }
        Ok(current)
    }
}

/// Why stages stopped.
enum Stop {
    Unfinished(Unfinished),
    Refused(Refusal),
    Overtaken,
}

impl Stop {
    /// Of two the one that says more of what comes next. What has failed needs
    /// a longer pause than what was only busy.
    fn rank(&self) -> u8 {
        match self {
            Self::Unfinished(reason) if reason.is_busy() => 0,
            Self::Unfinished(_) => 1,
            Self::Refused(_) => 2,
            Self::Overtaken => 3,
        }
    }
}
