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
    dynamo::{self, Key, Table, WriteOutcome, string},
    money::{Currency, Money},
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AuthoriseOutcome, CaptureOutcome, ChargeReport, ChargeStatus, PaymentProvider, ProviderError, ProviderKey,
    RefundOutcome, VoidOutcome,
};
use crate::domain::PaymentMethod;

/// The index by which the charges are listed. It is sorted by key, and contains only keys.
const BY_AGE: &str = "by_age";
/// The number of partitions of the index. All charges are in the index: in a single partition, the partition's write
/// limit would limit the number of charges per second.
const SHARDS: u8 = 8;
const CHARGE_PREFIX: &str = "CHARGE#";

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
    /// The partition of the index `by_age`, which is computed from the key.
    #[serde(skip_deserializing)]
    age_shard: String,
}

/// An entry of the index `by_age`.
#[derive(Debug, Deserialize)]
struct ListedCharge {
    pk: String,
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
    Key::new(format!("{CHARGE_PREFIX}{}", key.as_str()), "CHARGE")
}

/// Returns the partition of the index in which the charge is listed. The end of a key is random.
fn age_shard(key: &ProviderKey) -> String {
    let last = key.as_str().bytes().last().unwrap_or_default();
    (last % SHARDS).to_string()
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
        let charge: Option<Charge> = self.ledger.get(&charge_key(key)).await?;
        Ok(charge.map(|charge| Charge { age_shard: age_shard(key), ..charge }))
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

    /// Lists the charges of one partition of the index, as `charges` does for all.
    async fn charges_of_shard(
        &self,
        shard: u8,
        (from, to): (&ProviderKey, &ProviderKey),
        limit: usize,
    ) -> Result<Vec<String>, ProviderError> {
        let query = self
            .ledger
            .query()
            .index_name(BY_AGE)
            .key_condition_expression("age_shard = :shard AND pk BETWEEN :from AND :to")
            .expression_attribute_values(":shard", string(shard.to_string()))
            .expression_attribute_values(":from", string(charge_key(from).pk))
            .expression_attribute_values(":to", string(charge_key(to).pk))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let output = query.send().await.map_err(|error| self.ledger.unavailable(error))?;
        let items = output.items.unwrap_or_default().into_iter();
        let charges = items.map(dynamo::from_item::<ListedCharge>).collect::<Result<Vec<_>, _>>()?;
        Ok(charges.into_iter().map(|charge| charge.pk).collect())
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
            age_shard: age_shard(key),
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

    async fn charge(&self, key: &ProviderKey) -> Result<Option<ChargeReport>, ProviderError> {
        let Some(charge) = self.find(key).await? else { return Ok(None) };
        let money = |minor| Money::from_minor(minor, charge.currency);
        let report = money(charge.amount_minor).and_then(|amount| {
            let (captured, refunded) = (money(charge.captured_minor)?, money(charge.refunded_minor)?);
            Ok(ChargeReport { status: charge.status, amount, captured, refunded })
        });
        report.map(Some).map_err(|error| StoreError::corrupt("sandbox ledger", error).into())
    }

    async fn charges(
        &self,
        from: &ProviderKey,
        to: &ProviderKey,
        limit: usize,
    ) -> Result<Vec<ProviderKey>, ProviderError> {
        let mut keys = Vec::new();
        // DynamoDB refuses a range that ends before it begins.
        if from.as_str() > to.as_str() {
            return Ok(keys.into_iter().map(ProviderKey).collect());
        }
        for shard in 0..SHARDS {
            keys.extend(self.charges_of_shard(shard, (from, to), limit).await?);
        }
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys.into_iter().map(|pk| ProviderKey(pk.trim_start_matches(CHARGE_PREFIX).to_owned())).collect())
    }
}
