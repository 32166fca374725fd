//! What customers can do with orders.

use std::time::Duration;

use chassis::{
    contact::VerifiedContact,
    id::UserId,
    idempotency::{self, IdempotencyKey, InsertOutcome, KEY_KEPT, KeyUse},
    invocation::Invocation,
    page::{ListError, Page},
    store::StoreError,
    telemetry,
    trace::TraceContext,
};
use serde::Serialize;

use crate::{
    domain::{
        Answer, Basket, IllegalMove, Lease, Order, OrderId, OrderState, PaymentMethod, Purchase, Refusal, ShownPrices,
    },
    repository::{OrderList, Postponed},
    saga::engine::{Engine, Unfinished},
};

/// How long before an invocation's end a write that doesn't come to an end is
/// given up, and after it the attempt to wake the worker: in time to say how
/// far the order got, before the edge says that there was no time.
const ANSWER_RESERVE: Duration = Duration::from_millis(1000);
const WAKE_RESERVE: Duration = Duration::from_millis(700);
/// How often a cancellation is tried when the order moves meanwhile.
const CANCEL_TRIES: usize = 4;

/// A request to place an order.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// Who orders.
    pub user_id: UserId,
    /// How their token says that they can be reached.
    pub contact: VerifiedContact,
    /// What.
    pub basket: Basket,
    /// Which prices they were shown, as far as the client says so.
    pub shown: Option<ShownPrices>,
    /// Paid how; the provider's default for this customer if not given.
    pub payment_method: Option<PaymentMethod>,
    /// The client's name for this request.
    pub key: Option<IdempotencyKey>,
    /// The request's trace.
    pub trace: TraceContext,
}

impl PlaceOrder {
    /// A digest of what is asked for: the same for two spellings of one
    /// request, another for another request.
    fn fingerprint(&self) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        struct Payload<'a> {
            basket: &'a Basket,
            payment_method: &'a Option<PaymentMethod>,
            // A request without it has the fingerprint that it had before there
            // was such a member.
            #[serde(skip_serializing_if = "Option::is_none")]
            shown: &'a Option<ShownPrices>,
        }
        // Whoever adds a member is led here, and decides.
        let Self { user_id: _, contact: _, basket, shown, payment_method, key: _, trace: _ } = self;
        idempotency::fingerprint(&Payload { basket, payment_method, shown })
    }
}

/// Who asks about an order.
#[derive(Clone, Copy, Debug)]
pub struct Viewer {
    /// The person.
    pub id: UserId,
    /// Whether the person may see and cancel everybody's orders.
    pub is_administrator: bool,
}

impl Viewer {
    fn may_see(self, owner: UserId) -> bool {
        self.is_administrator || self.id == owner
    }

    /// Why an order is cancelled that this person cancels.
    fn cancels(self, owner: UserId) -> Refusal {
        if self.id == owner { Refusal::CustomerRequest } else { Refusal::CancelledByShop }
    }
}

/// How placing an order ended.
#[derive(Debug)]
pub enum Placed {
    /// Decided: these bytes are the answer, now and on every repeat.
    Decided {
        /// The order's id.
        id: OrderId,
        /// The answer.
        answer: Answer,
    },
    /// Not decided yet; the worker will.
    Undecided(Box<Order>),
}

/// Why a request about orders is refused.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// 404: no such order, or somebody else's.
    #[error("no such order")]
    NotFound,
    /// 409: the same request is being worked on at this moment.
    #[error("the same request is being worked on")]
    InFlight,
    /// 422: the key was used for another request.
    #[error("the key was used for another request")]
    KeyMismatch,
    /// 409: too late to cancel.
    #[error("the order can no longer be cancelled")]
    CancellationClosed,
    /// 409: the order moves faster than we read it.
    #[error("the order keeps moving")]
    KeepsMoving,
    /// 500: a bug.
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// 500: a request that can't be digested.
    #[error(transparent)]
    Fingerprint(#[from] serde_json::Error),
    /// 400 or 503.
    #[error(transparent)]
    List(#[from] ListError),
    /// 503 or 500.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The use cases.
#[derive(Clone)]
pub struct Orders {
    engine: Engine,
    cancellation_window: Duration,
}

impl Orders {
    /// On top of `engine`; orders can be cancelled for `cancellation_window`
    /// after they were placed.
    pub fn new(engine: Engine, cancellation_window: Duration) -> Self {
        Self { engine, cancellation_window }
    }

    /// Places an order and takes it as far as it gets in this request.
    pub async fn place(&self, request: PlaceOrder, invocation: &Invocation) -> Result<Placed, OrderError> {
        let now = self.engine.clock.now();
        let fingerprint = request.fingerprint()?;
        let key = request.key.map(|key| KeyUse { key, fingerprint, expires_at: now + KEY_KEPT });
        let order = Order::place(
            request.user_id,
            request.contact,
            Purchase { basket: request.basket, shown: request.shown, payment_method: request.payment_method },
            self.engine.saga_version(),
            request.trace,
            now,
        );
        let begun = self.engine.repository.begin(&order, key.as_ref(), now).await;
        match begun.map_err(|error| match error {
            // Nobody else writes this order or this key.
            StoreError::Contended { .. } => OrderError::InFlight,
            error => error.into(),
        })? {
            InsertOutcome::Inserted => Ok(self.work_on(order, invocation).await),
            InsertOutcome::KeyMismatch => Err(OrderError::KeyMismatch),
            InsertOutcome::Repeated(order) => match order.answer {
                Some(answer) => Ok(Placed::Decided { id: order.id, answer }),
                None if order.is_leased(now) => Err(OrderError::InFlight),
                None => Ok(Placed::Undecided(order)),
            },
        }
    }

    /// From here on the order is recorded: whatever goes wrong, it is not
    /// lost, and the answer is never worse than "not decided yet".
    async fn work_on(&self, order: Order, invocation: &Invocation) -> Placed {
        let undecided = order.clone();
        match in_time(self.engine.decide(order, invocation), invocation).await {
            Ok(order) => {
                let Some(answer) = order.answer.clone() else { return Placed::Undecided(Box::new(order)) };
                let id = order.id;
                // Only who wrote the refusal undoes the order; where somebody
                // else did, they are at it.
                let ours = order.lease.as_ref().map(|lease| &lease.owner) == undecided.lease.as_ref().map(|l| &l.owner);
                if order.state == OrderState::Cancelling && ours {
                    let undone = self.engine.undo_refused(order.clone(), invocation);
                    self.undo_now(order, undone, invocation).await;
                }
                Placed::Decided { id, answer }
            }
            Err(reason) => {
                self.leave_to_worker(&undecided, &reason, invocation).await;
                Placed::Undecided(Box::new(undecided))
            }
        }
    }

    /// Undoes an order within the request, by `undone`, so that what it held is
    /// free for the next order. The worker does what doesn't fit.
    async fn undo_now(
        &self,
        order: Order,
        undone: impl Future<Output = Result<Order, Unfinished>>,
        invocation: &Invocation,
    ) -> Order {
        match in_time(undone, invocation).await {
            Ok(order) => order,
            Err(reason) => {
                self.leave_to_worker(&order, &reason, invocation).await;
                order
            }
        }
    }

    async fn leave_to_worker(&self, order: &Order, reason: &Unfinished, invocation: &Invocation) {
        tracing::warn!(order = %order.id, cause = telemetry::chain(reason), "left to the worker");
        let wake = self.engine.repository.postpone(order, Postponed::AtOnce { now: self.engine.clock.now() });
        let wake_by = invocation.deadline.earlier_by(WAKE_RESERVE).instant();
        // Otherwise the lease ends by itself, and the sweep finds the order then.
        match tokio::time::timeout_at(wake_by, wake).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(order = %order.id, cause = telemetry::chain(&error), "the worker was not woken")
            }
            Err(_) => tracing::warn!(order = %order.id, "no time left to wake the worker"),
        }
    }

    /// Reads an order, for its customer or an administrator.
    pub async fn get(&self, id: OrderId, viewer: Viewer) -> Result<Order, OrderError> {
        let order = self.engine.repository.find(id).await?;
        order.filter(|order| viewer.may_see(order.user_id)).ok_or(OrderError::NotFound)
    }

    /// One page of a customer's orders, newest first.
    pub async fn list(&self, list: &OrderList) -> Result<Page<Order>, OrderError> {
        Ok(self.engine.repository.list(list).await?)
    }

    /// Cancels an order, and undoes it as far as it gets in this request.
    /// Cancelling again changes nothing.
    pub async fn cancel(&self, id: OrderId, viewer: Viewer, invocation: &Invocation) -> Result<Order, OrderError> {
        for _ in 0..CANCEL_TRIES {
            let order = self.get(id, viewer).await?;
            let now = self.engine.clock.now();
            match order.state {
                OrderState::Cancelling | OrderState::Cancelled => return Ok(order),
                OrderState::Confirmed | OrderState::Done if now > order.created_at + self.cancellation_window => {
                    return Err(OrderError::CancellationClosed);
                }
                OrderState::Pending | OrderState::Confirmed | OrderState::Done => {}
            }
            let mut next =
                self.engine.cancelling(&order, viewer.cancels(order.user_id), invocation.request_id.as_str())?;
            let lease = Lease::start(now);
            next.next_check = Some(lease.until);
            next.lease = Some(lease);
            match self.engine.record(order.state, next).await {
                Ok(Some(order)) => {
                    let undone = self.engine.finish(order.clone(), invocation);
                    return Ok(self.undo_now(order, undone, invocation).await);
                }
                Ok(None) => {}
                Err(Unfinished::Store(error)) => return Err(error.into()),
                Err(_) => return Err(OrderError::KeepsMoving),
            }
        }
        Err(OrderError::KeepsMoving)
    }
}

/// Gives `work` up where its outcome could no longer be told.
async fn in_time(
    work: impl Future<Output = Result<Order, Unfinished>>,
    invocation: &Invocation,
) -> Result<Order, Unfinished> {
    let end = invocation.deadline.earlier_by(ANSWER_RESERVE).instant();
    tokio::time::timeout_at(end, work).await.unwrap_or(Err(Unfinished::NoTime))
}
