//! Stores payments in DynamoDB, one item for each payment. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Key, Table, WriteOutcome, string},
    id::UserId,
    money::Money,
    store::{SaveOutcome, StoreError},
    trace::TraceContext,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::domain::{Fingerprint, Payment, PaymentId, PaymentMethod, PaymentRecord, PaymentStatus, Recipient, State};

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, record: &PaymentRecord) -> Result<SaveOutcome, StoreError> {
        Ok(self.table.send(self.table.put_new(&PaymentItem::of(record))?).await?.into())
    }

    async fn find(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        let record: Option<PaymentItem> = self.table.get(&payment_key(id)).await?;
        record.map(PaymentRecord::try_from).transpose()
    }

    async fn advance(&self, before: &Payment, after: &Payment) -> Result<SaveOutcome, StoreError> {
        let attributes = StateAttributes::of(&after.state);
        // Attributes that `after` does not have are not removed: a concurrent request may
        // have stored these attributes after `before` was read.
        let new_attributes: Vec<_> = [
            ("provider_reference", attributes.provider_reference),
            ("capture_refused", attributes.capture_refused),
            ("decline_reason", attributes.decline_reason),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        let mut changes = "SET #status = :status, updated_at = :now".to_owned();
        changes.extend(new_attributes.iter().map(|(name, _)| format!(", {name} = :{name}")));
        if after.status() != PaymentStatus::Intent {
            changes.push_str(" REMOVE payment_method");
        }
        let update = self
            .table
            .update(&payment_key(after.id))
            .update_expression(changes)
            .condition_expression("#status = :left")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":left", string(before.status().as_str()))
            .expression_attribute_values(":status", string(after.status().as_str()))
            .expression_attribute_values(":now", dynamo::attribute(&after.updated_at)?);
        let update = new_attributes.into_iter().fold(update, |update, (name, value)| {
            update.expression_attribute_values(format!(":{name}"), string(value))
        });
        Ok(self.table.send(update).await?.into())
    }

    async fn erase_recipient(&self, id: PaymentId) -> Result<(), StoreError> {
        let update = self
            .table
            .update(&payment_key(id))
            .update_expression("REMOVE payment_request.recipient")
            .condition_expression("attribute_exists(payment_request)");
        match self.table.send(update).await? {
            // If the condition failed, there is no recipient to remove: no record is stored,
            // or only a tombstone.
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }
}

fn payment_key(id: PaymentId) -> Key {
    Key::new(format!("PAYMENT#{id}"), "PAYMENT")
}

/// The values of a [`State`], which are stored beside the status. Each state has only some
/// of these attributes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct StateAttributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<PaymentMethod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_reason: Option<String>,
}

impl StateAttributes {
    fn of(state: &State) -> Self {
        match state.clone() {
            State::Intent { method } => Self { payment_method: method, ..Self::default() },
            State::Declined { reason } => Self { decline_reason: Some(reason), ..Self::default() },
            State::Authorised { reference, capture_refused } | State::Voided { reference, capture_refused } => {
                Self { provider_reference: Some(reference), capture_refused, ..Self::default() }
            }
            // The item already has the attributes of these two states: the attributes were
            // stored when the payment was authorised.
            State::Captured { .. } | State::Refunded { .. } => Self::default(),
        }
    }
}

/// The stored item of a payment or a tombstone. A tombstone has no `payment_request`.
#[derive(Debug, Serialize, Deserialize)]
struct PaymentItem {
    pk: String,
    sk: String,
    id: PaymentId,
    status: PaymentStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_request: Option<StoredRequest>,
    #[serde(flatten)]
    attributes: StateAttributes,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The values from the authorisation request. They never change, except that the recipient
/// is removed when the customer's personal data is erased.
#[derive(Debug, Serialize, Deserialize)]
struct StoredRequest {
    user_id: UserId,
    amount: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient>,
    capture_immediately: bool,
    fingerprint: Fingerprint,
    trace: TraceContext,
}

impl PaymentItem {
    fn of(record: &PaymentRecord) -> Self {
        match record {
            PaymentRecord::Tombstone { id, since } => {
                Self::new(*id, PaymentStatus::Cancelled, None, StateAttributes::default(), *since, *since)
            }
            PaymentRecord::Payment(payment) => {
                let payment_request = StoredRequest {
                    user_id: payment.user_id,
                    amount: payment.amount,
                    recipient: payment.recipient.clone(),
                    capture_immediately: payment.capture_immediately,
                    fingerprint: payment.fingerprint.clone(),
                    trace: payment.trace.clone(),
                };
                let attributes = StateAttributes::of(&payment.state);
                Self::new(
                    payment.id,
                    payment.status(),
                    Some(payment_request),
                    attributes,
                    payment.created_at,
                    payment.updated_at,
                )
            }
        }
    }

    fn new(
        id: PaymentId,
        status: PaymentStatus,
        payment_request: Option<StoredRequest>,
        attributes: StateAttributes,
        created_at: Timestamp,
        updated_at: Timestamp,
    ) -> Self {
        let Key { pk, sk } = payment_key(id);
        Self { pk, sk, id, status, payment_request, attributes, created_at, updated_at }
    }
}

impl TryFrom<PaymentItem> for PaymentRecord {
    type Error = StoreError;

    fn try_from(record: PaymentItem) -> Result<Self, StoreError> {
        let PaymentItem { id, status, payment_request, attributes, created_at, updated_at, .. } = record;
        let reference = attributes
            .provider_reference
            .ok_or(StoreError::corrupt("payments", "a payment without the provider's reference"));
        let capture_refused = attributes.capture_refused;
        let state = match status {
            PaymentStatus::Cancelled => return Ok(Self::Tombstone { id, since: created_at }),
            PaymentStatus::Intent => State::Intent { method: attributes.payment_method },
            PaymentStatus::Declined => {
                let reason = attributes
                    .decline_reason
                    .ok_or(StoreError::corrupt("payments", "a declined payment without a reason"))?;
                State::Declined { reason }
            }
            PaymentStatus::Authorised => State::Authorised { reference: reference?, capture_refused },
            PaymentStatus::Captured => State::Captured { reference: reference? },
            PaymentStatus::Voided => State::Voided { reference: reference?, capture_refused },
            PaymentStatus::Refunded => State::Refunded { reference: reference? },
        };
        let payment_request =
            payment_request.ok_or(StoreError::corrupt("payments", "a payment without payment_request"))?;
        let StoredRequest { user_id, amount, recipient, capture_immediately, fingerprint, trace } = payment_request;
        let payment = Payment {
            id,
            user_id,
            amount,
            recipient,
            capture_immediately,
            fingerprint,
            trace,
            state,
            created_at,
            updated_at,
        };
        Ok(payment.into())
    }
}
