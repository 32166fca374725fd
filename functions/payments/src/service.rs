//! The use cases of payments: to authorise, capture, cancel, read and erase a payment.
//!
//! Three systems take part: our table, the provider and the queue of events. No
//! transaction spans two of these systems. A fixed sequence of steps keeps the systems
//! consistent, and each step can be repeated:
//!
//! 1. Store the intent before the provider is called.
//! 2. Call the provider, always with the same idempotency key, so that a repeated
//!    call has no second effect.
//! 3. If the amount was captured or refunded, publish the event, always with the same
//!    id, so that consumers recognise a repeated event.
//! 4. Store the new state, on the condition that the payment is still in the old
//!    state. A stored `CAPTURED` or `REFUNDED` therefore implies that the event
//!    was published.
//!
//! After a crash at any point, a repeat of the caller's request continues from the
//! stored state. If a concurrent request has changed the state first, the condition of
//! step 4 fails; the request then reads the payment again and continues from the state
//! that it finds.

use std::sync::Arc;

use chassis::{
    caller::Caller,
    clock::Clock,
    deadline::Deadline,
    detail_span,
    events::{Event, EventPublisher, EventType, PublishError},
    id::UserId,
    metric::{self, Labelled},
    money::{Amount, Currency, Money},
    store::{SaveOutcome, StoreError},
    telemetry,
    time_limits::{PROVIDER_TIMEOUT, RECORD_RESERVE},
    trace::TraceContext,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tracing::Instrument;
use utoipa::ToSchema;

use crate::{
    domain::{
        InvalidTransition, OrderId, Payment, PaymentId, PaymentRecord, PaymentRequest, PaymentStatus, Recipient, State,
    },
    provider::{
        AuthoriseOutcome, CaptureOutcome, ChargeReport, PaymentProvider, ProviderError, ProviderKey, RefundOutcome,
        VoidOutcome,
    },
    repository::Repository,
};

/// The maximum number of changes that one request makes to a payment. Without concurrent
/// requests a request makes at most three changes, for example from `INTENT` by way of
/// `AUTHORISED` and `CAPTURED` to `REFUNDED`.
const MAX_TRANSITIONS: usize = 8;

/// The number of payments that are read side by side for reconciliation.
const READS_AT_ONCE: usize = 8;

chassis::metrics! {
    /// A change of a payment that was stored. Its write has a condition, so of all invocations that repeat the change only
    /// one counts it. A crash between the write and the line loses the count.
    pub struct PaymentWork {
        /// Payments, by what the payment provider did: it authorised, declined, captured, refused the capture, voided or
        /// refunded.
        result: Option<Labelled<1>> = "Payments", Count, ["Stack", "Result"];
    }
}

/// The reason why a request to this service fails.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// 404: the payment does not exist, or the caller may not see it.
    #[error("the payment does not exist")]
    NotFound,
    /// 402: the provider declined to hold the amount.
    #[error("the payment was declined: {reason}")]
    Declined {
        /// The provider's code.
        reason: String,
    },
    /// 402: the provider holds the amount, but refuses every capture.
    #[error("the capture was refused: {reason}")]
    CaptureRefused {
        /// The provider's code.
        reason: String,
    },
    /// 409: the payment was voided or refunded, or was cancelled before it was authorised.
    #[error("the payment was cancelled")]
    Cancelled,
    /// 409: the order already has a payment, which was requested with other values.
    #[error("the order has a payment with other values")]
    Mismatch,
    /// 409: the payment is not authorised, so nothing can be captured.
    #[error("the payment is not authorised")]
    NotAuthorised,
    /// 409: concurrent requests kept changing the payment.
    #[error("concurrent requests keep changing the payment")]
    Contended,
    /// The call to the provider failed: 503 if the outcome is unknown, 409 if the provider
    /// reports contention, 500 if the provider knows the key with another amount.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// 503: the provider has captured or refunded the amount, but the event could not be
    /// published. A repeat of the request publishes the event.
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The attribute `source` of all events of the payments service.
const SOURCE: &str = "/payments";

/// The types of events that the payments service publishes.
pub fn published_events() -> [EventType; 2] {
    [
        EventType::of::<PaymentEvent<'_>>(SOURCE, "PaymentCaptured", "The amount of a payment was captured."),
        EventType::of::<PaymentEvent<'_>>(SOURCE, "PaymentRefunded", "The captured amount of a payment was refunded."),
    ]
}

/// The data of the events `PaymentCaptured` and `PaymentRefunded`.
#[derive(Debug, Serialize, ToSchema)]
struct PaymentEvent<'a> {
    payment_id: PaymentId,
    order_id: OrderId,
    user_id: UserId,
    /// Absent if the customer's personal data was erased. In this case the notifications
    /// service sends nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    recipient: Option<&'a Recipient>,
    amount: Amount,
    currency: Currency,
}

/// What is stored of a payment, and what the provider says of its charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PaymentAccount {
    payment_id: PaymentId,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<PaymentStatus>,
    /// Absent in a tombstone.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<ChargeReport>,
}

/// Some charges of the provider, by the payments that they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChargeList {
    payment_ids: Vec<PaymentId>,
    has_more: bool,
}

#[derive(Clone)]
pub struct Payments {
    repository: Arc<dyn Repository>,
    provider: Arc<dyn PaymentProvider>,
    publisher: EventPublisher,
    clock: Clock,
}

impl Payments {
    pub fn new(
        repository: impl Repository + 'static,
        provider: impl PaymentProvider + 'static,
        publisher: EventPublisher,
        clock: Clock,
    ) -> Self {
        Self { repository: Arc::new(repository), provider: Arc::new(provider), publisher, clock }
    }

    /// Authorises the payment of an order, and also captures the payment if
    /// `capture_immediately` is `true`. A repeat of the request never holds or captures the
    /// amount twice: the repeat returns the payment in its current state, or an error if
    /// the payment was declined or cancelled.
    pub async fn authorise(
        &self,
        request: PaymentRequest,
        trace: TraceContext,
        deadline: Deadline,
    ) -> Result<Payment, PaymentError> {
        let intent = Payment::intent(request, trace, self.clock.now());
        let (id, fingerprint) = (intent.id, intent.fingerprint.clone());
        telemetry::concerns_payment(id);
        let intent = PaymentRecord::from(intent);
        let mut record = match self.repository.create(&intent).await? {
            SaveOutcome::Saved => intent,
            SaveOutcome::Stale => self.find_existing(id).await?,
        };
        for _ in 0..MAX_TRANSITIONS {
            let payment = match record {
                PaymentRecord::Tombstone { .. } => return Err(PaymentError::Cancelled),
                PaymentRecord::Payment(payment) => *payment,
            };
            if payment.fingerprint != fingerprint {
                return Err(PaymentError::Mismatch);
            }
            record = match (&payment.state, payment.capture_immediately) {
                (State::Intent { .. }, _) => self.resolve_intent(&payment, deadline).await?,
                (State::Authorised { capture_refused: None, .. }, true) => {
                    self.capture_hold(&payment, deadline).await?
                }
                // If the provider refuses an immediate capture, the hold is voided, so that
                // the customer's money does not stay on hold for an order that has failed.
                (State::Authorised { capture_refused: Some(_), .. }, true) => {
                    self.void_hold(&payment, deadline).await?
                }
                (State::Voided { capture_refused: Some(reason), .. }, true) => {
                    return Err(PaymentError::CaptureRefused { reason: reason.clone() });
                }
                (State::Declined { reason }, _) => return Err(PaymentError::Declined { reason: reason.clone() }),
                (State::Authorised { .. } | State::Captured { .. }, _) => return Ok(payment),
                (State::Voided { .. } | State::Refunded { .. }, _) => return Err(PaymentError::Cancelled),
            };
        }
        Err(PaymentError::Contended)
    }

    /// Captures an authorised payment.
    pub async fn capture(&self, id: PaymentId, deadline: Deadline) -> Result<Payment, PaymentError> {
        telemetry::concerns_payment(id);
        let mut record = self.repository.find(id).await?.ok_or(PaymentError::NotFound)?;
        for _ in 0..MAX_TRANSITIONS {
            let payment = match record {
                PaymentRecord::Tombstone { .. } => return Err(PaymentError::Cancelled),
                PaymentRecord::Payment(payment) => *payment,
            };
            record = match &payment.state {
                State::Intent { .. } | State::Declined { .. } => return Err(PaymentError::NotAuthorised),
                State::Authorised { capture_refused: Some(reason), .. } => {
                    return Err(PaymentError::CaptureRefused { reason: reason.clone() });
                }
                State::Authorised { .. } => self.capture_hold(&payment, deadline).await?,
                State::Captured { .. } => return Ok(payment),
                State::Voided { .. } | State::Refunded { .. } => return Err(PaymentError::Cancelled),
            };
        }
        Err(PaymentError::Contended)
    }

    /// Makes sure that the customer pays nothing: voids or refunds the payment, whichever
    /// is needed. If the payment does not exist yet, stores a tombstone, so that a later
    /// authorisation is refused. Returns the stored record.
    pub async fn cancel(&self, id: PaymentId, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        telemetry::concerns_payment(id);
        let record = match self.repository.find(id).await? {
            Some(record) => record,
            None => {
                let tombstone = PaymentRecord::Tombstone { id, since: self.clock.now() };
                match self.repository.create(&tombstone).await? {
                    SaveOutcome::Saved => tombstone,
                    SaveOutcome::Stale => self.find_existing(id).await?,
                }
            }
        };
        self.void_or_refund(record, deadline).await
    }

    /// Removes the customer's name and contact details from a payment.
    pub async fn erase_recipient(&self, id: PaymentId) -> Result<(), PaymentError> {
        telemetry::concerns_payment(id);
        Ok(self.repository.erase_recipient(id).await?)
    }

    /// Reads a payment. The caller must be the customer who pays, or an administrator.
    pub async fn get(&self, caller: &Caller, id: PaymentId) -> Result<PaymentRecord, PaymentError> {
        telemetry::concerns_payment(id);
        match self.repository.find(id).await? {
            Some(PaymentRecord::Payment(payment)) if caller.may_act_for(payment.user_id) => {
                Ok(PaymentRecord::Payment(payment))
            }
            // There is no payment, the payment belongs to another customer, or the record
            // is a tombstone, which no person sees.
            _ => Err(PaymentError::NotFound),
        }
    }

    /// Reads what is stored of these payments and what the provider says of their charges,
    /// for reconciliation.
    pub async fn accounts(&self, ids: &[PaymentId], deadline: Deadline) -> Result<Vec<PaymentAccount>, PaymentError> {
        let read = ids.iter().copied().map(|id| self.account(id, deadline));
        stream::iter(read).buffered(READS_AT_ONCE).try_collect().await
    }

    async fn account(&self, payment_id: PaymentId, deadline: Deadline) -> Result<PaymentAccount, PaymentError> {
        let record = self.repository.find(payment_id).await?;
        let (status, amount) = match record {
            Some(PaymentRecord::Payment(payment)) => (Some(payment.status()), Some(payment.amount)),
            Some(PaymentRecord::Tombstone { .. }) => (Some(PaymentStatus::Cancelled), None),
            None => (None, None),
        };
        let key = ProviderKey::from(payment_id);
        let charge = self.call_provider("charge", deadline, self.provider.charge(&key)).await?;
        Ok(PaymentAccount { payment_id, status, amount, charge })
    }

    /// Lists the first `limit` charges of the provider from one key to another, both
    /// included, for reconciliation.
    pub async fn charges(
        &self,
        from: PaymentId,
        to: PaymentId,
        limit: usize,
        deadline: Deadline,
    ) -> Result<ChargeList, PaymentError> {
        let (from, to) = (ProviderKey::from(from), ProviderKey::from(to));
        let keys = self.call_provider("charges", deadline, self.provider.charges(&from, &to, limit)).await?;
        // A key between two payment ids that is none cannot belong to an order.
        let payment_ids = keys.iter().filter_map(|key| key.as_str().parse().ok()).collect();
        Ok(ChargeList { payment_ids, has_more: keys.len() == limit })
    }

    /// Brings a payment from any state into a state in which the provider holds
    /// nothing and nothing remains captured.
    ///
    /// The outcome of an intent is unknown: the provider may hold the amount, and the
    /// first authorisation request may even reach the provider after this cancellation.
    /// The authorisation is therefore sent again with the same idempotency key. Once the
    /// provider has answered, the outcome is known, and a delayed first request has no
    /// further effect. The outcome is stored before the hold is voided: a slow provider
    /// may need a whole invocation for one response, and the next invocation must be able
    /// to continue with the void.
    async fn void_or_refund(
        &self,
        mut record: PaymentRecord,
        deadline: Deadline,
    ) -> Result<PaymentRecord, PaymentError> {
        for _ in 0..MAX_TRANSITIONS {
            let payment = match &record {
                PaymentRecord::Tombstone { .. } => return Ok(record),
                PaymentRecord::Payment(payment) => payment,
            };
            record = match &payment.state {
                State::Intent { .. } => self.resolve_intent(payment, deadline).await?,
                State::Authorised { .. } => self.void_hold(payment, deadline).await?,
                State::Captured { .. } => self.refund_capture(payment, deadline).await?,
                State::Declined { .. } | State::Voided { .. } | State::Refunded { .. } => return Ok(record),
            };
        }
        Err(PaymentError::Contended)
    }

    /// Handles a payment in the state `INTENT`: sends the authorisation to the provider,
    /// for the first time or again, and stores the outcome.
    async fn resolve_intent(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let after = match self.authorise_at_provider(payment, deadline).await? {
            AuthoriseOutcome::Authorised { reference } => payment.authorised(reference, self.clock.now())?,
            AuthoriseOutcome::Declined { reason } => payment.declined(reason, self.clock.now())?,
        };
        self.save(payment, after).await
    }

    /// Handles a payment in the state `AUTHORISED`: captures the amount, and stores the
    /// outcome.
    async fn capture_hold(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let key = ProviderKey::from(payment.id);
        match self.call_provider("capture", deadline, self.provider.capture(&key)).await? {
            CaptureOutcome::Captured => self.record_capture(payment, deadline).await,
            CaptureOutcome::Refused { reason } => {
                self.save(payment, payment.with_capture_refused(reason, self.clock.now())?).await
            }
            // A concurrent cancellation has ended the hold, or an earlier cancellation was
            // interrupted before it stored its result. The provider refuses every later
            // capture, so the cancellation is completed here.
            CaptureOutcome::Released => self.void_or_refund(payment.clone().into(), deadline).await,
        }
    }

    /// Handles a payment in the state `AUTHORISED`: voids the hold, and stores the outcome.
    /// If the provider has already captured the amount, the state `CAPTURED` is stored,
    /// and a cancellation must then refund the amount.
    async fn void_hold(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        match self.void_at_provider(payment, deadline).await? {
            VoidOutcome::Voided | VoidOutcome::NothingToVoid => {
                self.save(payment, payment.voided(self.clock.now())?).await
            }
            VoidOutcome::AlreadyCaptured => self.record_capture(payment, deadline).await,
        }
    }

    /// Handles a payment in the state `AUTHORISED` whose amount the provider has captured:
    /// publishes `PaymentCaptured`, then stores the state `CAPTURED`.
    async fn record_capture(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let after = payment.captured(self.clock.now())?;
        self.publish("PaymentCaptured", &after, deadline).await?;
        self.save(payment, after).await
    }

    /// Handles a payment in the state `CAPTURED`: refunds the amount, publishes
    /// `PaymentRefunded`, then stores the state `REFUNDED`.
    async fn refund_capture(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let key = ProviderKey::from(payment.id);
        match self.call_provider("refund", deadline, self.provider.refund(&key)).await? {
            RefundOutcome::Refunded => {}
            RefundOutcome::NothingToRefund => {
                // Our record says that the amount was captured, but the provider knows of no
                // capture. The provider may still hold the amount, so the hold is voided.
                tracing::error!("the provider knows of no capture; voiding any hold");
                if self.void_at_provider(payment, deadline).await? == VoidOutcome::AlreadyCaptured {
                    return Ok(payment.clone().into());
                }
            }
        }
        let after = payment.refunded(self.clock.now())?;
        self.publish("PaymentRefunded", &after, deadline).await?;
        self.save(payment, after).await
    }

    /// Reads a record that must exist, because a conditional write has just found it.
    async fn find_existing(&self, id: PaymentId) -> Result<PaymentRecord, PaymentError> {
        self.repository.find(id).await?.ok_or(PaymentError::Contended)
    }

    /// Stores `after` on the condition that the stored payment is still in the state of
    /// `before`. Returns `after`, or, if a concurrent request has changed the state first,
    /// the record which that request has stored.
    async fn save(&self, before: &Payment, after: Payment) -> Result<PaymentRecord, PaymentError> {
        let (from, to) = (before.status(), after.status());
        if from != to && !from.can_transition_to(to) {
            return Err(InvalidTransition { from, to }.into());
        }
        match self.repository.advance(before, &after).await? {
            SaveOutcome::Saved => {
                tracing::info!(%from, %to, "the payment's state was stored");
                metric::write(&PaymentWork { result: Some(Labelled { labels: [after.result()], value: 1 }) });
                Ok(after.into())
            }
            SaveOutcome::Stale => self.find_existing(after.id).await,
        }
    }

    async fn publish(&self, kind: &str, payment: &Payment, deadline: Deadline) -> Result<(), PaymentError> {
        let data = PaymentEvent {
            payment_id: payment.id,
            order_id: payment.id.order(),
            user_id: payment.user_id,
            recipient: payment.recipient.as_ref(),
            amount: payment.amount.amount(),
            currency: payment.amount.currency(),
        };
        let event = Event::new(SOURCE, kind, payment.id, payment.updated_at, payment.trace.clone(), data);
        Ok(self.publisher.publish(&event, deadline).await?)
    }

    async fn authorise_at_provider(
        &self,
        payment: &Payment,
        deadline: Deadline,
    ) -> Result<AuthoriseOutcome, PaymentError> {
        let State::Intent { method } = &payment.state else { return Err(PaymentError::NotAuthorised) };
        let key = ProviderKey::from(payment.id);
        self.call_provider("authorise", deadline, self.provider.authorise(&key, payment.amount, method.as_ref())).await
    }

    async fn void_at_provider(&self, payment: &Payment, deadline: Deadline) -> Result<VoidOutcome, PaymentError> {
        self.call_provider("void", deadline, self.provider.void(&ProviderKey::from(payment.id))).await
    }

    /// Waits for a call to the provider, at most for `PROVIDER_TIMEOUT` and only as long as
    /// enough time is left to store the outcome.
    async fn call_provider<T>(
        &self,
        operation: &'static str,
        deadline: Deadline,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, PaymentError> {
        let end = deadline.earlier_by(RECORD_RESERVE).min(Deadline::after(PROVIDER_TIMEOUT));
        if end.remaining().is_zero() {
            return Err(ProviderError::Unavailable("no time is left for a call".into()).into());
        }
        let span = detail_span!("provider", operation);
        let answer = end.run(call).instrument(span.clone()).await;
        let answer =
            answer.unwrap_or_else(|_| Err(ProviderError::Unavailable("the provider did not answer in time".into())));
        telemetry::record_outcome(&span, &answer);
        Ok(answer?)
    }
}
