//! The use cases of payments: to authorise, capture and cancel a payment.
//!
//! Three systems take part: our table, the provider and the queue. No transaction
//! spans two of these systems. A fixed sequence of steps keeps the systems
//! consistent, and each step can be repeated:
//!
//! 1. Store the intent before the provider is asked.
//! 2. Call the provider, always with the same idempotency key, so that a repeated
//!    call has no second effect.
//! 3. Publish the event, always with the same id, so that consumers recognise a
//!    repeated event.
//! 4. Store the new state, on the condition that the payment is still in the old
//!    state. A stored `CAPTURED` or `REFUNDED` therefore implies that the event
//!    was published.
//!
//! After a crash at any point, a repeat of the caller's request continues from the
//! stored state. A request that finds that a concurrent request was faster reads the
//! payment again, and continues from there.

use std::sync::Arc;

use chassis::{
    caller::Principal,
    clock::Clock,
    deadline::Deadline,
    events::{Event, EventPublisher, PublishError},
    id::UserId,
    money::{Amount, Currency},
    store::{SaveOutcome, StoreError},
    time_limits::{PROVIDER_TIMEOUT, RECORD_RESERVE},
    trace::TraceContext,
};
use serde::Serialize;

use crate::{
    domain::{InvalidTransition, OrderId, Payment, PaymentId, PaymentRecord, PaymentRequest, Recipient, State},
    provider::{
        AuthoriseOutcome, CaptureOutcome, PaymentProvider, ProviderError, ProviderKey, RefundOutcome, VoidOutcome,
    },
    repository::Repository,
};

/// The maximum number of transitions in one request. Without concurrent requests, the
/// longest path has four transitions.
const MAX_TRANSITIONS: usize = 8;

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
    /// 409: the payment was voided or refunded, or a tombstone forbids it.
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
    /// 503, or 409 if the provider reports contention, or 500 if a key was used twice.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// 503: the provider did what was requested, but the event is not published yet.
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The data of the events about payments.
#[derive(Debug, Serialize)]
struct PaymentEvent<'a> {
    payment_id: PaymentId,
    order_id: OrderId,
    user_id: UserId,
    /// Absent if the customer's data was erased: nobody is notified then.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a Recipient>,
    amount: Amount,
    currency: Currency,
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

    /// Authorises the payment of an order, and captures it if the request says so.
    /// A repeat of the request gets the same answer, and authorises nothing twice.
    pub async fn authorise(
        &self,
        request: PaymentRequest,
        trace: TraceContext,
        deadline: Deadline,
    ) -> Result<Payment, PaymentError> {
        let intent = Payment::intent(request, trace, self.clock.now());
        let (id, fingerprint) = (intent.id, intent.fingerprint.clone());
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
                // A request that captures immediately gets everything or nothing: an
                // amount that cannot be captured does not stay on hold.
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

    /// Makes sure that the customer pays nothing: voids or refunds the payment,
    /// whichever is needed, and puts a tombstone if the payment does not exist yet.
    /// Returns the stored record.
    pub async fn cancel(&self, id: PaymentId, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
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

    /// Removes the customer's name and addresses from a payment.
    pub async fn erase_recipient(&self, id: PaymentId) -> Result<(), PaymentError> {
        Ok(self.repository.erase_recipient(id).await?)
    }

    /// Reads a payment, for its owner, an administrator or another service.
    pub async fn get(&self, principal: &Principal, id: PaymentId) -> Result<PaymentRecord, PaymentError> {
        let record = self.repository.find(id).await?.ok_or(PaymentError::NotFound)?;
        match (principal, &record) {
            (Principal::Service, _) => Ok(record),
            (Principal::Person(caller), PaymentRecord::Payment(payment)) if caller.may_act_for(payment.user_id) => {
                Ok(record)
            }
            // A tombstone has no owner, and only services can see it.
            (Principal::Person(_), _) => Err(PaymentError::NotFound),
        }
    }

    /// Brings a payment from any state into a state in which the provider holds
    /// nothing and nothing remains captured.
    ///
    /// The outcome of an intent is unknown: the provider may hold the amount, and the
    /// first request may even reach the provider later. The same request is therefore
    /// sent again. After its answer the idempotency key is used up, and the outcome is
    /// known. The outcome is stored before the hold is voided, because a slow provider
    /// may need a whole invocation for one answer, and the next invocation must
    /// continue from there.
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

    /// Transition from `INTENT`: sends the authorisation to the provider, for the first
    /// time or again, and stores the outcome.
    async fn resolve_intent(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let after = match self.authorise_at_provider(payment, deadline).await? {
            AuthoriseOutcome::Authorised { reference } => payment.authorised(reference, self.clock.now())?,
            AuthoriseOutcome::Declined { reason } => payment.declined(reason, self.clock.now())?,
        };
        self.save(payment, after).await
    }

    /// Transition from `AUTHORISED`: captures the amount.
    async fn capture_hold(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let key = ProviderKey::from(payment.id);
        match self.call_provider(deadline, self.provider.capture(&key)).await? {
            CaptureOutcome::Captured => self.record_capture(payment, deadline).await,
            CaptureOutcome::Refused { reason } => {
                self.save(payment, payment.with_capture_refused(reason, self.clock.now())?).await
            }
            // A concurrent cancellation has voided the hold, or an earlier one was
            // interrupted before it stored that. No capture can succeed any more, so
            // the cancellation is completed here.
            CaptureOutcome::Released => self.void_or_refund(payment.clone().into(), deadline).await,
        }
    }

    /// Transition from `AUTHORISED`: voids the hold. If the amount was captured
    /// meanwhile, stores the capture instead, and the caller has to refund it.
    async fn void_hold(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        match self.void_at_provider(payment, deadline).await? {
            VoidOutcome::Voided | VoidOutcome::NothingToVoid => {
                self.save(payment, payment.voided(self.clock.now())?).await
            }
            VoidOutcome::AlreadyCaptured => self.record_capture(payment, deadline).await,
        }
    }

    /// Transition from `AUTHORISED` after the provider has captured the amount:
    /// publishes the event, then stores the state.
    async fn record_capture(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let after = payment.captured(self.clock.now())?;
        self.publish("PaymentCaptured", &after, deadline).await?;
        self.save(payment, after).await
    }

    /// Transition from `CAPTURED`: refunds the amount, publishes the event, then stores
    /// the state.
    async fn refund_capture(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let key = ProviderKey::from(payment.id);
        match self.call_provider(deadline, self.provider.refund(&key)).await? {
            RefundOutcome::Refunded => {}
            RefundOutcome::NothingToRefund => {
                // The provider contradicts our record, which says that the amount was
                // captured. In both cases the customer must not be left with a hold.
                tracing::error!(payment = %payment.id, "the provider knows of no capture; voiding any hold");
                if self.void_at_provider(payment, deadline).await? == VoidOutcome::AlreadyCaptured {
                    return Ok(payment.clone().into());
                }
            }
        }
        let after = payment.refunded(self.clock.now())?;
        self.publish("PaymentRefunded", &after, deadline).await?;
        self.save(payment, after).await
    }

    /// Reads the record with an id under which a record was seen before.
    async fn find_existing(&self, id: PaymentId) -> Result<PaymentRecord, PaymentError> {
        self.repository.find(id).await?.ok_or(PaymentError::Contended)
    }

    /// Stores `after` on the condition that the stored payment is still in the state of
    /// `before`. Returns the stored record: `after`, or the result of a concurrent
    /// request.
    async fn save(&self, before: &Payment, after: Payment) -> Result<PaymentRecord, PaymentError> {
        let (from, to) = (before.status(), after.status());
        if from != to && !from.can_transition_to(to) {
            return Err(InvalidTransition { from, to }.into());
        }
        match self.repository.advance(before, &after).await? {
            SaveOutcome::Saved => {
                tracing::info!(payment = %after.id, %from, %to, "the payment's state was stored");
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
        let event = Event::new("/payments", kind, payment.id, payment.updated_at, payment.trace.clone(), data);
        Ok(self.publisher.publish(&event, deadline).await?)
    }

    async fn authorise_at_provider(
        &self,
        payment: &Payment,
        deadline: Deadline,
    ) -> Result<AuthoriseOutcome, PaymentError> {
        let State::Intent { method } = &payment.state else { return Err(PaymentError::NotAuthorised) };
        let key = ProviderKey::from(payment.id);
        self.call_provider(deadline, self.provider.authorise(&key, payment.amount, method.as_ref())).await
    }

    async fn void_at_provider(&self, payment: &Payment, deadline: Deadline) -> Result<VoidOutcome, PaymentError> {
        self.call_provider(deadline, self.provider.void(&ProviderKey::from(payment.id))).await
    }

    /// Waits for the provider's answer, but leaves enough time to store it.
    async fn call_provider<T>(
        &self,
        deadline: Deadline,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, PaymentError> {
        let end = deadline.earlier_by(RECORD_RESERVE).min(Deadline::after(PROVIDER_TIMEOUT));
        if end.remaining().is_zero() {
            return Err(ProviderError::Unavailable("no time is left for a call".into()).into());
        }
        let answer = end.run(call).await;
        Ok(answer.unwrap_or_else(|_| Err(ProviderError::Unavailable("the provider did not answer in time".into())))?)
    }
}
