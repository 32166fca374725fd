//! A payment provider for tests and demonstrations. No bank is connected to the
//! sandbox. The sandbox keeps its records in a ledger, a table that no other part of the
//! system reads. Our records and the sandbox's records can therefore differ, as our records
//! and those of a real provider can differ in production.
//!
//! The payment token selects the sandbox's behaviour:
//!
//! | token | behaviour |
//! |---|---|
//! | `tok_accepted`, or none | the authorisation, the capture and the refund succeed |
//! | `tok_declined` | the authorisation is declined with the code `card_declined` |
//! | `tok_insufficient_funds` | the authorisation is declined with the code `insufficient_funds` |
//! | `tok_slow` | the authorisation succeeds, but the first response takes three seconds |
//! | `tok_flaky` | the first authorisation fails with an unknown outcome; the next authorisation succeeds |
//! | `tok_capture_refused` | the authorisation succeeds, but every capture is refused |
//! | any other | the authorisation is declined with the code `unknown_payment_method` |

use std::time::Duration;

use async_trait::async_trait;
use chassis::{
    clock::Clock,
    dynamo::{Key, Table, WriteOutcome, string},
    money::{Currency, Money},
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AuthoriseOutcome, CaptureOutcome, PaymentProvider, ProviderError, ProviderKey, RefundOutcome, VoidOutcome,
};
use crate::domain::PaymentMethod;

/// The delay of the response to the first authorisation with `tok_slow`.
const SLOW_ANSWER: Duration = Duration::from_secs(3);
/// The maximum number of attempts of an operation. An attempt fails if a concurrent
/// operation changes the same charge.
const MAX_ATTEMPTS: usize = 5;

#[derive(Clone, Debug)]
pub struct SandboxProvider {
    ledger: Table,
    clock: Clock,
}

/// The behaviour that a payment token selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Accept,
    AcceptSlowly,
    AcceptAtSecondAttempt,
    AcceptButNeverCapture,
    Decline(&'static str),
}

impl Behaviour {
    fn of(method: Option<&PaymentMethod>) -> Self {
        match method.map(PaymentMethod::expose) {
            None | Some("tok_accepted") => Self::Accept,
            Some("tok_declined") => Self::Decline("card_declined"),
            Some("tok_insufficient_funds") => Self::Decline("insufficient_funds"),
            Some("tok_slow") => Self::AcceptSlowly,
            Some("tok_flaky") => Self::AcceptAtSecondAttempt,
            Some("tok_capture_refused") => Self::AcceptButNeverCapture,
            Some(_) => Self::Decline("unknown_payment_method"),
        }
    }
}

/// The state of a charge at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
enum ChargeStatus {
    /// The first authorisation with `tok_flaky` failed. Nothing is held.
    Attempted,
    Authorised,
    Declined,
    Captured,
    Voided,
    Refunded,
}

/// A charge as the ledger stores it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Charge {
    pk: String,
    sk: String,
    status: ChargeStatus,
    reference: String,
    amount_minor: u64,
    currency: Currency,
    captured_minor: u64,
    refunded_minor: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<PaymentMethod>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decline_reason: Option<String>,
    history: Vec<HistoryEntry>,
}

/// One change of a charge's status.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct HistoryEntry {
    status: ChargeStatus,
    at: Timestamp,
}

impl Charge {
    /// Returns the charge after a change of its status. Callers must never go back to an
    /// earlier status. Therefore comparing the status is enough to detect a concurrent
    /// write.
    fn with_status(&self, status: ChargeStatus, at: Timestamp) -> Self {
        let mut next = Self { status, ..self.clone() };
        next.history.push(HistoryEntry { status, at });
        match status {
            ChargeStatus::Captured => next.captured_minor = next.amount_minor,
            ChargeStatus::Refunded => next.refunded_minor = next.captured_minor,
            _ => {}
        }
        next
    }

    /// Returns the outcome of the authorisation, which is also the outcome of all its
    /// repeats.
    fn authorisation(&self) -> AuthoriseOutcome {
        match &self.decline_reason {
            Some(reason) => AuthoriseOutcome::Declined { reason: reason.clone() },
            None => AuthoriseOutcome::Authorised { reference: self.reference.clone() },
        }
    }
}

fn charge_key(key: &ProviderKey) -> Key {
    Key::new(format!("CHARGE#{}", key.as_str()), "CHARGE")
}

impl From<StoreError> for ProviderError {
    fn from(error: StoreError) -> Self {
        if error.is_contended_or_throttled() { Self::Contended(error.into()) } else { Self::Unavailable(error.into()) }
    }
}

fn contended() -> ProviderError {
    ProviderError::Contended("concurrent operations keep changing the charge".into())
}

impl SandboxProvider {
    pub fn new(ledger: Table, clock: Clock) -> Self {
        Self { ledger, clock }
    }

    async fn find(&self, key: &ProviderKey) -> Result<Option<Charge>, ProviderError> {
        Ok(self.ledger.get(&charge_key(key)).await?)
    }

    /// Stores `charge` on the condition that the stored charge has the status `before`,
    /// or that no charge is stored if `before` is `None`.
    async fn write(&self, before: Option<ChargeStatus>, charge: &Charge) -> Result<WriteOutcome, ProviderError> {
        let put = self.ledger.put(charge)?;
        let put = match before {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(status) => put
                .condition_expression("#status = :before")
                .expression_attribute_names("#status", "status")
                .expression_attribute_values(":before", string(<&str>::from(status))),
        };
        Ok(self.ledger.send(put).await?)
    }

    /// Stores a new status of the charge. Returns `false` if a concurrent operation has
    /// changed the charge first.
    async fn advance(&self, charge: &Charge, status: ChargeStatus) -> Result<bool, ProviderError> {
        let written = self.write(Some(charge.status), &charge.with_status(status, self.clock.now())).await?;
        Ok(written == WriteOutcome::Written)
    }

    fn new_charge(&self, key: &ProviderKey, amount: Money, method: Option<&PaymentMethod>) -> Charge {
        let Key { pk, sk } = charge_key(key);
        let behaviour = Behaviour::of(method);
        let (status, decline_reason) = match behaviour {
            Behaviour::AcceptAtSecondAttempt => (ChargeStatus::Attempted, None),
            Behaviour::Decline(reason) => (ChargeStatus::Declined, Some(reason.to_owned())),
            _ => (ChargeStatus::Authorised, None),
        };
        Charge {
            pk,
            sk,
            status,
            reference: format!("sandbox_{}", uuid::Uuid::now_v7().simple()),
            amount_minor: amount.minor(),
            currency: amount.currency(),
            captured_minor: 0,
            refunded_minor: 0,
            method: method.cloned(),
            decline_reason,
            history: vec![HistoryEntry { status, at: self.clock.now() }],
        }
    }
}

#[async_trait]
impl PaymentProvider for SandboxProvider {
    async fn authorise(
        &self,
        key: &ProviderKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<AuthoriseOutcome, ProviderError> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(charge) = self.find(key).await? else {
                let charge = self.new_charge(key, amount, method);
                if self.write(None, &charge).await? != WriteOutcome::Written {
                    continue;
                }
                // The charge is stored before the delay of `tok_slow`, so that the charge
                // exists even if the caller stops waiting for the response.
                return match Behaviour::of(method) {
                    Behaviour::AcceptAtSecondAttempt => {
                        Err(ProviderError::Unavailable("the sandbox fails the first attempt on purpose".into()))
                    }
                    Behaviour::AcceptSlowly => {
                        tokio::time::sleep(SLOW_ANSWER).await;
                        Ok(charge.authorisation())
                    }
                    _ => Ok(charge.authorisation()),
                };
            };
            if (charge.amount_minor, charge.currency) != (amount.minor(), amount.currency()) {
                return Err(ProviderError::KeyConflict);
            }
            if charge.status != ChargeStatus::Attempted || self.advance(&charge, ChargeStatus::Authorised).await? {
                return Ok(charge.authorisation());
            }
        }
        Err(contended())
    }

    async fn capture(&self, key: &ProviderKey) -> Result<CaptureOutcome, ProviderError> {
        let refused = |reason: &str| Ok(CaptureOutcome::Refused { reason: reason.into() });
        for _ in 0..MAX_ATTEMPTS {
            let Some(charge) = self.find(key).await? else { return refused("not_authorised") };
            match charge.status {
                ChargeStatus::Attempted | ChargeStatus::Declined => return refused("not_authorised"),
                ChargeStatus::Voided | ChargeStatus::Refunded => return Ok(CaptureOutcome::Released),
                ChargeStatus::Captured => return Ok(CaptureOutcome::Captured),
                ChargeStatus::Authorised => {
                    if Behaviour::of(charge.method.as_ref()) == Behaviour::AcceptButNeverCapture {
                        return refused("refused_by_issuer");
                    }
                    if self.advance(&charge, ChargeStatus::Captured).await? {
                        return Ok(CaptureOutcome::Captured);
                    }
                }
            }
        }
        Err(contended())
    }

    async fn void(&self, key: &ProviderKey) -> Result<VoidOutcome, ProviderError> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(charge) = self.find(key).await? else { return Ok(VoidOutcome::NothingToVoid) };
            match charge.status {
                ChargeStatus::Attempted | ChargeStatus::Declined => return Ok(VoidOutcome::NothingToVoid),
                ChargeStatus::Captured | ChargeStatus::Refunded => return Ok(VoidOutcome::AlreadyCaptured),
                ChargeStatus::Voided => return Ok(VoidOutcome::Voided),
                ChargeStatus::Authorised => {
                    if self.advance(&charge, ChargeStatus::Voided).await? {
                        return Ok(VoidOutcome::Voided);
                    }
                }
            }
        }
        Err(contended())
    }

    async fn refund(&self, key: &ProviderKey) -> Result<RefundOutcome, ProviderError> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(charge) = self.find(key).await? else { return Ok(RefundOutcome::NothingToRefund) };
            match charge.status {
                ChargeStatus::Refunded => return Ok(RefundOutcome::Refunded),
                ChargeStatus::Captured => {
                    if self.advance(&charge, ChargeStatus::Refunded).await? {
                        return Ok(RefundOutcome::Refunded);
                    }
                }
                _ => return Ok(RefundOutcome::NothingToRefund),
            }
        }
        Err(contended())
    }
}
