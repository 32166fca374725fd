//! A payment provider for trying things out: no bank behind it, but a ledger
//! of its own, in a table that nothing else of this project reads. It stands
//! in for a stranger's system, so that our records and the provider's can
//! disagree, as they do in life.
//!
//! The payment token decides what happens:
//!
//! | token | |
//! |---|---|
//! | `tok_accepted`, or none | authorised, captured, refunded |
//! | `tok_declined` | declined: `card_declined` |
//! | `tok_insufficient_funds` | declined: `insufficient_funds` |
//! | `tok_slow` | authorised, but the first answer takes three seconds |
//! | `tok_flaky` | the first try fails, the outcome unknown; the next is authorised |
//! | `tok_capture_refused` | authorised, but no capture ever succeeds |
//! | any other | declined: `unknown_payment_method` |

use std::time::Duration;

use async_trait::async_trait;
use chassis::{
    clock::Clock,
    dynamo::{Key, Table, WriteOutcome, string},
    money::{Currency, Money},
    store::StoreError,
    telemetry,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AuthoriseOutcome, CaptureOutcome, PaymentProvider, ProviderError, ProviderKey, RefundOutcome, VoidOutcome,
};
use crate::domain::PaymentMethod;

/// How long `tok_slow` takes to answer.
const SLOW: Duration = Duration::from_secs(3);
/// How often an operation looks again when another changed the same charge.
const TRIES: usize = 5;

/// The provider.
#[derive(Clone, Debug)]
pub struct SandboxProvider {
    ledger: Table,
    clock: Clock,
}

/// What a token makes happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Accept,
    AcceptSlowly,
    AcceptAtSecondTry,
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
            Some("tok_flaky") => Self::AcceptAtSecondTry,
            Some("tok_capture_refused") => Self::AcceptButNeverCapture,
            Some(_) => Self::Decline("unknown_payment_method"),
        }
    }
}

/// Where a charge is, as the provider sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
enum ChargeStatus {
    /// Asked for, and failed on the way. Nothing is held.
    Attempted,
    Authorised,
    Declined,
    Captured,
    Voided,
    Refunded,
}

/// A line of the ledger.
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

/// What happened to a charge, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct HistoryEntry {
    status: ChargeStatus,
    at: Timestamp,
}

impl Charge {
    /// The charge one step further. It never comes back to a status, so that
    /// a status is all that a condition needs to compare.
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

    /// What every repeat of the authorisation is told.
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
        let reason = telemetry::chain(&error);
        if error.is_contended_or_throttled() { Self::Contended(reason) } else { Self::Unavailable(reason) }
    }
}

/// Others kept changing the charge.
fn contended() -> ProviderError {
    ProviderError::Contended("the charge keeps changing".into())
}

impl SandboxProvider {
    /// With its ledger in the table `ledger`.
    pub fn new(ledger: Table, clock: Clock) -> Self {
        Self { ledger, clock }
    }

    async fn find(&self, key: &ProviderKey) -> Result<Option<Charge>, ProviderError> {
        Ok(self.ledger.get(&charge_key(key)).await?)
    }

    /// Writes `charge` where the ledger still has `before` (`None`: nothing).
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

    /// Brings a charge to `status` and tells whether it got there.
    async fn advance(&self, charge: &Charge, status: ChargeStatus) -> Result<bool, ProviderError> {
        let written = self.write(Some(charge.status), &charge.with_status(status, self.clock.now())).await?;
        Ok(written == WriteOutcome::Written)
    }

    fn new_charge(&self, key: &ProviderKey, amount: Money, method: Option<&PaymentMethod>) -> Charge {
        let Key { pk, sk } = charge_key(key);
        let behaviour = Behaviour::of(method);
        let (status, decline_reason) = match behaviour {
            Behaviour::AcceptAtSecondTry => (ChargeStatus::Attempted, None),
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
        for _ in 0..TRIES {
            let Some(charge) = self.find(key).await? else {
                let charge = self.new_charge(key, amount, method);
                if self.write(None, &charge).await? != WriteOutcome::Written {
                    continue;
                }
                // The charge is made first and told late: the caller who gives
                // up waiting has it all the same.
                return match Behaviour::of(method) {
                    Behaviour::AcceptAtSecondTry => Err(ProviderError::Unavailable("flaky at first".into())),
                    Behaviour::AcceptSlowly => {
                        tokio::time::sleep(SLOW).await;
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
        for _ in 0..TRIES {
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
        for _ in 0..TRIES {
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
        for _ in 0..TRIES {
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
