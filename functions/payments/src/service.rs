//! What can be done with payments.
//!
//! Three systems take part, and none shares a transaction with another: our
//! table, the provider, the queue. What keeps them together is an order of
//! doing things, in which every step may be repeated:
//!
//! 1. Write down what is about to happen, before the provider is asked.
//! 2. Ask the provider, always under the same key: a repeat does nothing twice.
//! 3. Publish the event, always under the same id: a repeat is known as one.
//! 4. PaymentItem the state, if the one it leaves still stands. A recorded
//!    `CAPTURED` or `REFUNDED` thus implies that its event is out.
//!
//! A crash anywhere leaves a state from which the caller's repeat goes on. Who
//! finds that somebody else was faster reads again, and goes on from there.

use std::sync::Arc;

use chassis::{
    budget::{PROVIDER_TIMEOUT, RECORD_RESERVE},
    caller::Principal,
    clock::Clock,
    deadline::Deadline,
    events::{Event, EventPublisher, PublishError},
    id::UserId,
    money::{Amount, Currency},
    store::{SaveOutcome, StoreError},
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

/// Steps within one request. The longest way without interference has four.
const MAX_TRANSITIONS: usize = 8;

/// Why a request about payments is refused.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// 404: no such payment, or none of the caller's business.
    #[error("no such payment")]
    NotFound,
    /// 402: the provider won't hold the money.
    #[error("declined: {reason}")]
    Declined {
        /// The provider's reason.
        reason: String,
    },
    /// 402: the provider holds the money, but won't ever hand it over.
    #[error("capture refused: {reason}")]
    CaptureRefused {
        /// The provider's reason.
        reason: String,
    },
    /// 409: voided, refunded, or never to be.
    #[error("cancelled")]
    Cancelled,
    /// 409: the order has a payment with other terms.
    #[error("not what was asked for before")]
    Mismatch,
    /// 409: there is no authorisation to capture.
    #[error("not authorised")]
    NotAuthorised,
    /// 409: others changed the payment at the same time, and kept doing so.
    #[error("the payment keeps changing")]
    Contended,
    /// 503, 409 if the provider is busy, or 500 for a mistake of ours.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// 503: the payment is where it was asked to be, but its event isn't out.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// 500.
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
    /// 503 or 500.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an event tells of a payment.
#[derive(Debug, Serialize)]
struct PaymentEvent<'a> {
    payment_id: PaymentId,
    order_id: OrderId,
    user_id: UserId,
    /// Absent once the customer's data is erased: there is nobody to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a Recipient>,
    amount: Amount,
    currency: Currency,
}

/// The use cases.
#[derive(Clone)]
pub struct Payments {
    repository: Arc<dyn Repository>,
    provider: Arc<dyn PaymentProvider>,
    publisher: EventPublisher,
    clock: Clock,
}

impl Payments {
    /// On top of `repository`, with the money at `provider`.
    pub fn new(
        repository: impl Repository + 'static,
        provider: impl PaymentProvider + 'static,
        publisher: EventPublisher,
        clock: Clock,
    ) -> Self {
        Self { repository: Arc::new(repository), provider: Arc::new(provider), publisher, clock }
    }

    /// Holds the money of an order, and takes it if that is asked for, too.
    /// The same request again gets the same answer, and holds nothing twice.
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
                // Charged at once means all or nothing: what can't be taken
                // isn't kept on hold.
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

    /// Takes the money that is held.
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

    /// Makes sure that the customer pays nothing: voids or refunds, whichever
    /// it needs, and leaves a tombstone where there is nothing yet. What stands
    /// in the end.
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

    /// Erases the customer's name and addresses in a payment.
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
            // A tombstone has no owner, and is no payment to anybody.
            (Principal::Person(_), _) => Err(PaymentError::NotFound),
        }
    }

    /// Brings a payment, wherever it is, to where nothing is held or kept.
    ///
    /// Of an intent it isn't known whether the provider holds money for it, and
    /// the first request may still be on its way there. So the same request is
    /// made again: then its key is used up and its outcome known. That is
    /// recorded before the hold is given up: a slow provider may use up a whole
    /// invocation for one answer, and the next must not begin anew.
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

    /// From `INTENT`: asks the provider, perhaps again, and records what it
    /// says.
    async fn resolve_intent(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let after = match self.authorise_at_provider(payment, deadline).await? {
            AuthoriseOutcome::Authorised { reference } => payment.authorised(reference, self.clock.now())?,
            AuthoriseOutcome::Declined { reason } => payment.declined(reason, self.clock.now())?,
        };
        self.record(payment, after).await
    }

    /// From `AUTHORISED`: takes the money.
    async fn capture_hold(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let key = ProviderKey::from(payment.id);
        match self.call_provider(deadline, self.provider.capture(&key)).await? {
            CaptureOutcome::Captured => self.record_capture(payment, deadline).await,
            CaptureOutcome::Refused { reason } => {
                self.record(payment, payment.with_capture_refused(reason, self.clock.now())?).await
            }
            // Somebody cancels at this moment, or has, and didn't get to
            // record it. No capture will succeed any more: finish the cancel.
            CaptureOutcome::Released => self.void_or_refund(payment.clone().into(), deadline).await,
        }
    }

    /// From `AUTHORISED`: gives up the hold. If it was taken meanwhile, that
    /// is recorded instead, and is the caller's to undo.
    async fn void_hold(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        match self.void_at_provider(payment, deadline).await? {
            VoidOutcome::Voided | VoidOutcome::NothingToVoid => {
                self.record(payment, payment.voided(self.clock.now())?).await
            }
            VoidOutcome::AlreadyCaptured => self.record_capture(payment, deadline).await,
        }
    }

    /// From `AUTHORISED`, when the provider has captured: publishes, then
    /// records.
    async fn record_capture(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let after = payment.captured(self.clock.now())?;
        self.publish("PaymentCaptured", &after, deadline).await?;
        self.record(payment, after).await
    }

    /// From `CAPTURED`: gives the money back, publishes, then records.
    async fn refund_capture(&self, payment: &Payment, deadline: Deadline) -> Result<PaymentRecord, PaymentError> {
        let key = ProviderKey::from(payment.id);
        match self.call_provider(deadline, self.provider.refund(&key)).await? {
            RefundOutcome::Refunded => {}
            RefundOutcome::NothingToRefund => {
                // We were told otherwise once. Whoever is right, the customer
                // must not be left with a hold.
                tracing::error!(payment = %payment.id, "the provider knows of no capture; giving up any hold");
                if self.void_at_provider(payment, deadline).await? == VoidOutcome::AlreadyCaptured {
                    return Ok(payment.clone().into());
                }
            }
        }
        let after = payment.refunded(self.clock.now())?;
        self.publish("PaymentRefunded", &after, deadline).await?;
        self.record(payment, after).await
    }

    /// What stands under an id where something was seen.
    async fn find_existing(&self, id: PaymentId) -> Result<PaymentRecord, PaymentError> {
        self.repository.find(id).await?.ok_or(PaymentError::Contended)
    }

    /// Records `after` where the state of `before` still stands. What stands
    /// then: `after`, or what somebody else made of it.
    async fn record(&self, before: &Payment, after: Payment) -> Result<PaymentRecord, PaymentError> {
        let (from, to) = (before.status(), after.status());
        if from != to && !from.can_transition_to(to) {
            return Err(InvalidTransition { from, to }.into());
        }
        match self.repository.advance(before, &after).await? {
            SaveOutcome::Saved => {
                tracing::info!(payment = %after.id, %from, %to, "recorded");
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

    /// Waits for the provider, but only as long as there is time left to
    /// record what it says.
    async fn call_provider<T>(
        &self,
        deadline: Deadline,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, PaymentError> {
        let end = deadline.earlier_by(RECORD_RESERVE).min(Deadline::after(PROVIDER_TIMEOUT));
        if end.remaining().is_zero() {
            return Err(ProviderError::Unavailable("no time left to ask".into()).into());
        }
        let answer = end.run(call).await;
        Ok(answer.unwrap_or_else(|_| Err(ProviderError::Unavailable("no answer in time".into())))?)
    }
}
