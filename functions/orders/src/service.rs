//! The use cases of the orders function: place, read, list and cancel orders.

use std::time::Duration;

use chassis::{
    audit::{Reason, ResendId},
    contact::VerifiedContact,
    id::UserId,
    idempotency::{IdempotencyKey, InsertOutcome, KeyUse},
    invocation::Invocation,
    page::{Cursor, Limit, ListError, Page},
    pause::PauseSwitch,
    store::StoreError,
    telemetry,
    time_limits::{ORDERS_ANSWER_RESERVE, RECORD_RESERVE, WAKE_RESERVE},
    trace::TraceContext,
};

use crate::{
    domain::{CancellationReason, IllegalTransition, Lease, Message, Order, OrderId, OrderState, Purchase, Resend},
    metrics::{OrderMeter, PlaceTimer},
    repository::{OrderList, Postponed},
    saga::{
        StepContext, StepError,
        engine::{Engine, Unfinished},
    },
};

/// The maximum number of attempts to cancel an order. An attempt fails if the order makes another transition meanwhile.
const CANCEL_TRIES: usize = 4;

/// A request to place an order.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    pub user_id: UserId,
    /// The contact details in the customer's token.
    pub contact: VerifiedContact,
    pub purchase: Purchase,
    pub key: Option<IdempotencyKey>,
    pub trace: TraceContext,
}

/// The person who reads or cancels an order.
#[derive(Clone, Copy, Debug)]
pub struct Viewer {
    pub id: UserId,
    /// Administrators may see and cancel all orders.
    pub is_administrator: bool,
}

impl Viewer {
    fn may_see(self, owner: UserId) -> bool {
        self.is_administrator || self.id == owner
    }

    /// Returns the reason for which the order of `owner` is cancelled. Only an administrator who cancels another
    /// person's order must explain it.
    fn cancellation_reason(self, owner: UserId, explanation: Option<Reason>) -> Result<CancellationReason, OrderError> {
        match (self.id == owner, explanation) {
            (true, None) => Ok(CancellationReason::CustomerRequest),
            (true, Some(_)) => Err(OrderError::Explanation("is for other persons' orders; leave it out for your own")),
            (false, Some(explanation)) => {
                Ok(CancellationReason::CancelledByShop { administrator: self.id, explanation })
            }
            (false, None) => Err(OrderError::Explanation("must be given, because this is another person's order")),
        }
    }
}

/// A request to send a message about an order again.
#[derive(Clone, Debug)]
pub struct ResendMessage {
    pub resend_id: ResendId,
    pub message: Message,
    pub reason: Reason,
}

/// The result of placing an order.
#[derive(Debug)]
pub enum PlaceOutcome {
    /// The order is decided, and has stored its answer. Every repeat of the request with the same idempotency key gets
    /// the same response.
    Decided(Box<Order>),
    /// The order is not decided yet; the worker will decide it.
    Undecided(Box<Order>),
}

#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// 404: the order does not exist, or belongs to another customer.
    #[error("no such order")]
    NotFound,
    /// 409: another invocation is working on a request with the same idempotency key.
    #[error("the same request is being worked on")]
    InFlight,
    /// 503: administrators have paused new orders.
    #[error("new orders are paused")]
    Paused,
    /// 422: the idempotency key was used for a request with another content.
    #[error("the key was used for another request")]
    KeyMismatch,
    /// 409: the cancellation window has passed.
    #[error("the order can no longer be cancelled")]
    CancellationClosed,
    /// 409: the order made a transition during each attempt.
    #[error("the order keeps changing")]
    KeepsChanging,
    /// 422: an administrator did not say why another person's order is cancelled, or somebody explained why their own
    /// order is cancelled.
    #[error("the explanation {0}")]
    Explanation(&'static str),
    /// 409: the message is not about the order's present state.
    #[error("the message is not about the order's present state")]
    MessageOutdated { current: Option<Message> },
    /// 409: the customer's data was erased, or the customer has no profile, so there is nobody to send a message to.
    #[error("the customer was erased")]
    CustomerErased,
    /// 409: another resend of the order has this id.
    #[error("another resend has this id")]
    ResendMismatch,
    /// 409 if a service reports contention, else 503.
    #[error(transparent)]
    Participant(StepError),
    /// 500: a bug attempted a transition that is not allowed.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// 500: the purchase cannot be serialised, so it has no fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] serde_json::Error),
    /// 400 if the cursor is invalid. 409, 500 or 503 if the store fails.
    #[error(transparent)]
    List(#[from] ListError),
    /// 500 if a record is corrupt. 409 or 503 if a repeat may succeed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone)]
pub struct Orders {
    engine: Engine,
    pause: PauseSwitch,
    cancellation_window: Duration,
}

impl Orders {
    /// A confirmed order can be cancelled until `cancellation_window` has passed since the order was placed. While
    /// `pause` is on, no new order is stored.
    pub fn new(engine: Engine, pause: PauseSwitch, cancellation_window: Duration) -> Self {
        Self { engine, pause, cancellation_window }
    }

    /// Stores a new order, and works on the order until it is decided or the request's time ends.
    pub async fn place(&self, request: PlaceOrder, invocation: &Invocation) -> Result<PlaceOutcome, OrderError> {
        let (orders, meter) = self.for_one_order();
        let _timer = PlaceTimer::start(meter.clone());
        let outcome = orders.place_metered(request, &meter, invocation).await;
        if let Ok(PlaceOutcome::Decided(_) | PlaceOutcome::Undecided(_)) = outcome {
            let mut work = meter.work();
            work.replays += u64::from(work.placed == 0);
        }
        outcome
    }

    /// Returns the use cases for one order, and the meter of the work on that order.
    fn for_one_order(&self) -> (Self, OrderMeter) {
        let (engine, meter) = self.engine.for_one_order();
        (Self { engine, ..self.clone() }, meter)
    }

    async fn place_metered(
        &self,
        request: PlaceOrder,
        meter: &OrderMeter,
        invocation: &Invocation,
    ) -> Result<PlaceOutcome, OrderError> {
        let PlaceOrder { user_id, contact, purchase, key, trace } = request;
        let now = self.engine.clock.now();
        let key = key.map(|key| KeyUse::new(key, &purchase, now)).transpose()?;
        let order = Order::place(user_id, contact, purchase, self.engine.saga_version(), trace, now);
        let inserted = if self.pause.is_paused().await? {
            // A request that placed its order before the pause is repeated: it gets the response of that order.
            let earlier = match &key {
                Some(key) => self.engine.repository.find_earlier(user_id, key, now).await?,
                None => None,
            };
            meter.work().paused += u64::from(earlier.is_none());
            Ok(earlier.ok_or(OrderError::Paused)?)
        } else {
            self.engine.repository.insert(&order, key.as_ref(), now).await
        };
        telemetry::concerns_order(match &inserted {
            Ok(InsertOutcome::Repeated(earlier)) => earlier.id,
            _ => order.id,
        });
        match inserted.map_err(|error| match error {
            // Only requests with this idempotency key write the key's item: so a repeat of this request is running.
            StoreError::Contended { .. } => OrderError::InFlight,
            error => error.into(),
        })? {
            InsertOutcome::Inserted => {
                meter.work().placed += 1;
                Ok(self.work_on(order, invocation).await)
            }
            InsertOutcome::KeyMismatch => Err(OrderError::KeyMismatch),
            InsertOutcome::Repeated(order) if order.answer.is_some() => Ok(PlaceOutcome::Decided(order)),
            InsertOutcome::Repeated(order) if order.is_leased(now) => Err(OrderError::InFlight),
            InsertOutcome::Repeated(order) => Ok(PlaceOutcome::Undecided(order)),
        }
    }

    /// Works on an order that is already stored, until it is decided and, if it is refused, undone. If the order cannot
    /// be decided now, it is not lost: the response is "not decided yet", and the worker continues.
    async fn work_on(&self, order: Order, invocation: &Invocation) -> PlaceOutcome {
        let undecided = order.clone();
        match in_time(self.engine.decide(order, invocation), invocation).await {
            Ok(order) => {
                if order.answer.is_none() {
                    return PlaceOutcome::Undecided(Box::new(order));
                }
                // The lease's owner shows who wrote the refusal. If that was a worker or another request, that worker
                // or request also undoes the order.
                let owner = |order: &Order| order.lease.as_ref().map(|lease| lease.owner.clone());
                if order.state == OrderState::Cancelling && owner(&order) == owner(&undecided) {
                    let undone = self.engine.undo_refused(order.clone(), invocation);
                    self.undo_now(order.clone(), undone, invocation).await;
                }
                PlaceOutcome::Decided(Box::new(order))
            }
            Err(reason) => {
                self.leave_to_worker(&undecided, &reason, invocation).await;
                PlaceOutcome::Undecided(Box::new(undecided))
            }
        }
    }

    /// Waits until the order is undone, so that other orders can have its stock when the client gets the response. If
    /// the request's time does not suffice, the worker continues.
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
        tracing::warn!(cause = telemetry::chain(reason), "left to the worker");
        let wake = self.engine.repository.postpone(order, Postponed::AtOnce { now: self.engine.clock.now() });
        let wake_by = invocation.deadline.earlier_by(WAKE_RESERVE);
        // If this write fails, nothing wakes the worker, but a sweep finds the order when the order's lease has ended.
        match wake_by.run(wake).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(cause = telemetry::chain(&error), "the worker was not woken")
            }
            Err(_) => tracing::warn!("no time left to wake the worker"),
        }
    }

    /// Reads an order. Only the order's customer and administrators can read the order; for anybody else it is not
    /// found.
    pub async fn get(&self, id: OrderId, viewer: Viewer) -> Result<Order, OrderError> {
        telemetry::concerns_order(id);
        let order = self.engine.repository.find(id).await?;
        order.filter(|order| viewer.may_see(order.user_id)).ok_or(OrderError::NotFound)
    }

    /// Reads a page of a customer's orders, newest first.
    pub async fn list(&self, list: &OrderList) -> Result<Page<Order>, OrderError> {
        Ok(self.engine.repository.list(list).await?)
    }

    /// Reads a page of the open orders of all customers, the oldest first. Only administrators may list them.
    pub async fn list_open(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Order>, OrderError> {
        Ok(self.engine.repository.list_open(limit, cursor).await?)
    }

    /// Has a message about an order's present state sent again, to the addresses that the customer's profile has now.
    /// A repeated request with the same id and content has no second effect.
    ///
    /// The record of the resend is stored before the event is published, so no message is sent again without a record. If
    /// the event could not be published, a repeat of the request publishes it.
    pub async fn resend(
        &self,
        id: OrderId,
        request: ResendMessage,
        administrator: UserId,
        trace: &TraceContext,
        invocation: &Invocation,
    ) -> Result<Resend, OrderError> {
        let ResendMessage { resend_id, message, reason } = request;
        let order = self.engine.repository.find(id).await?.ok_or(OrderError::NotFound)?;
        let current = order.current_message();
        if current != Some(message) {
            return Err(OrderError::MessageOutdated { current });
        }
        if order.is_erased {
            return Err(OrderError::CustomerErased);
        }
        let context = StepContext { deadline: invocation.deadline.earlier_by(RECORD_RESERVE), trace };
        // The users service knows of an erasure before the order does.
        let recipient = self.engine.participants.validate_user(&order, context).await.map_err(|error| match error {
            StepError::Refused(_) => OrderError::CustomerErased,
            error => OrderError::Participant(error),
        })?;
        let requested_at = self.engine.clock.now();
        let resend = Resend { resend_id, message, reason, requested_by: administrator, requested_at };
        let recorded = self.engine.repository.record_resend(id, &resend).await?;
        if !recorded.is_repeat_of(&resend) {
            return Err(OrderError::ResendMismatch);
        }
        let published = self.engine.participants.publish_resend(&order, &recorded, &recipient, context).await;
        published.map_err(OrderError::Participant)?;
        telemetry::concerns_order(id);
        tracing::info!(resend = %recorded.resend_id, "a message is sent again");
        Ok(recorded)
    }

    /// Reads a page of the resends of an order. Only administrators may list them.
    pub async fn resends(
        &self,
        id: OrderId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Resend>, OrderError> {
        Ok(self.engine.repository.resends(id, limit, cursor).await?)
    }

    /// Cancels an order, and undoes the order as far as the request's time allows. Cancelling an order again changes
    /// nothing.
    pub async fn cancel(
        &self,
        id: OrderId,
        viewer: Viewer,
        explanation: Option<Reason>,
        invocation: &Invocation,
    ) -> Result<Order, OrderError> {
        self.for_one_order().0.cancel_metered(id, viewer, explanation, invocation).await
    }

    async fn cancel_metered(
        &self,
        id: OrderId,
        viewer: Viewer,
        explanation: Option<Reason>,
        invocation: &Invocation,
    ) -> Result<Order, OrderError> {
        for _ in 0..CANCEL_TRIES {
            let order = self.get(id, viewer).await?;
            let reason = viewer.cancellation_reason(order.user_id, explanation.clone())?;
            let now = self.engine.clock.now();
            match order.state {
                OrderState::Cancelling | OrderState::Cancelled => return Ok(order),
                OrderState::Confirmed | OrderState::Done if now > order.created_at() + self.cancellation_window => {
                    return Err(OrderError::CancellationClosed);
                }
                OrderState::Pending | OrderState::Confirmed | OrderState::Done => {}
            }
            let mut next = self.engine.cancelling(&order, reason, invocation.request_id.as_str())?;
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
                Err(_) => return Err(OrderError::KeepsChanging),
            }
        }
        Err(OrderError::KeepsChanging)
    }
}

/// Runs `work` as long as enough time is left to wake the worker and to respond.
async fn in_time(
    work: impl Future<Output = Result<Order, Unfinished>>,
    invocation: &Invocation,
) -> Result<Order, Unfinished> {
    let end = invocation.deadline.earlier_by(ORDERS_ANSWER_RESERVE);
    end.run(work).await.unwrap_or(Err(Unfinished::NoTime))
}
