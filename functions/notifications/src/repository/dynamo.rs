//! Stores the claims in DynamoDB, one item for each event and channel. See
//! `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Key, Table, WriteOutcome, attribute, string},
    id::UserId,
    store::StoreError,
    time_limits::NOTIFICATION_LEASE,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attempt, CLAIM_RETENTION, ClaimOutcome, Repository};

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Puts a claim on the condition that no claim is stored.
    async fn put_new(&self, claimed: &ClaimItem) -> Result<WriteOutcome, StoreError> {
        self.table.send(self.table.put(claimed)?.condition_expression("attribute_not_exists(pk)")).await
    }

    /// Replaces the claim `before` on the condition that `before` is still stored.
    async fn replace(&self, before: &ClaimItem, claimed: &ClaimItem) -> Result<WriteOutcome, StoreError> {
        let put = self
            .table
            .put(claimed)?
            .condition_expression("#state = :state AND #owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":state", attribute(&before.state)?)
            .expression_attribute_values(":owner", string(&before.owner));
        self.table.send(put).await
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn claim(&self, attempt: &Attempt, now: Timestamp) -> Result<ClaimOutcome, StoreError> {
        let claimed = ClaimItem::claimed(attempt, now);
        let WriteOutcome::ConditionFailed(item) = self.put_new(&claimed).await? else {
            return Ok(ClaimOutcome::Claimed { possibly_sent: false });
        };
        let Some(before) = read(item)? else { return Ok(ClaimOutcome::HeldByAnother) };
        let possibly_sent = match before.state {
            ClaimState::Sent => return Ok(ClaimOutcome::AlreadySent),
            ClaimState::Refused => return Ok(ClaimOutcome::PermanentlyRefused),
            // The stored claim is this attempt's own: the SDK repeated the put, because the
            // response to the first put was lost.
            ClaimState::Claimed if before.owner == attempt.owner => {
                return Ok(ClaimOutcome::Claimed { possibly_sent: false });
            }
            ClaimState::Claimed if before.lease_until >= now => return Ok(ClaimOutcome::HeldByAnother),
            ClaimState::Claimed => true,
            ClaimState::Failed => false,
        };
        match self.replace(&before, &claimed).await? {
            WriteOutcome::Written => Ok(ClaimOutcome::Claimed { possibly_sent }),
            WriteOutcome::ConditionFailed(item) => Ok(match read(item)? {
                Some(stored) if stored.owner == attempt.owner => ClaimOutcome::Claimed { possibly_sent },
                Some(ClaimItem { state: ClaimState::Sent, .. }) => ClaimOutcome::AlreadySent,
                Some(ClaimItem { state: ClaimState::Refused, .. }) => ClaimOutcome::PermanentlyRefused,
                _ => ClaimOutcome::HeldByAnother,
            }),
        }
    }

    async fn mark_sent(&self, attempt: &Attempt, message_id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let update = self
            .table
            .update(&key(attempt))
            .update_expression("SET #state = :sent, sent_at = :now, message_id = :message_id")
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":sent", attribute(&ClaimState::Sent)?)
            .expression_attribute_values(":now", attribute(&now)?)
            .expression_attribute_values(":message_id", string(message_id))
            .expression_attribute_values(":owner", string(&attempt.owner));
        Ok(matches!(self.table.send(update).await?, WriteOutcome::Written))
    }

    async fn mark_permanently_refused(&self, attempt: &Attempt, code: &str) -> Result<bool, StoreError> {
        let update = self
            .table
            .update(&key(attempt))
            .update_expression("SET #state = :refused, refusal = :code")
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":refused", attribute(&ClaimState::Refused)?)
            .expression_attribute_values(":code", string(code))
            .expression_attribute_values(":owner", string(&attempt.owner));
        Ok(matches!(self.table.send(update).await?, WriteOutcome::Written))
    }

    async fn put_erased_user(&self, id: UserId, now: Timestamp) -> Result<(), StoreError> {
        let put = self.table.put(&ErasedUser { key: erased_key(id), erased_at: now })?;
        match self.table.send(put).await? {
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }

    async fn is_user_erased(&self, id: UserId) -> Result<bool, StoreError> {
        let erased: Option<ErasedUser> = self.table.get(&erased_key(id)).await?;
        Ok(erased.is_some())
    }

    async fn release(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let update = self
            .table
            .update(&key(attempt))
            .update_expression("SET #state = :failed")
            .condition_expression("#state = :claimed AND #owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":failed", attribute(&ClaimState::Failed)?)
            .expression_attribute_values(":claimed", attribute(&ClaimState::Claimed)?)
            .expression_attribute_values(":owner", string(&attempt.owner));
        // If the condition failed, another attempt has taken over the claim, or the SDK
        // repeated an update that had succeeded.
        match self.table.send(update).await? {
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }
}

fn read(item: Option<dynamo::Item>) -> Result<Option<ClaimItem>, StoreError> {
    item.map(dynamo::from_item).transpose()
}

fn key(attempt: &Attempt) -> Key {
    Key::new(format!("EVENT#{}", attempt.event_id), format!("CHANNEL#{}", attempt.channel))
}

fn erased_key(id: UserId) -> Key {
    Key::new(format!("ERASED#{id}"), "ERASED")
}

/// The stored item of an erased user. The item never expires, because an event about an
/// erased user can arrive late: an order can be cancelled, and an operator can send an
/// event from the dead-letter queue again, long after the user was erased.
#[derive(Debug, Serialize, Deserialize)]
struct ErasedUser {
    #[serde(flatten)]
    key: Key,
    erased_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ClaimState {
    /// An attempt is sending the message, or was interrupted while it was sending.
    Claimed,
    Sent,
    /// The message was not sent, and no further attempt is made, because the provider
    /// refused the recipient permanently.
    Refused,
    /// The message was certainly not sent. The next attempt can claim the sending at once.
    Failed,
}

/// The stored item of a claim. `mark_sent` adds `sent_at` and `message_id`. The item
/// contains no personal data.
#[derive(Debug, Serialize, Deserialize)]
struct ClaimItem {
    #[serde(flatten)]
    key: Key,
    state: ClaimState,
    owner: String,
    lease_until: Timestamp,
    /// The time after which DynamoDB deletes the item, in seconds since
    /// 1970-01-01T00:00:00Z, the format of DynamoDB's time to live.
    expires_at: i64,
}

impl ClaimItem {
    fn claimed(attempt: &Attempt, now: Timestamp) -> Self {
        Self {
            key: key(attempt),
            state: ClaimState::Claimed,
            owner: attempt.owner.clone(),
            lease_until: now + NOTIFICATION_LEASE,
            expires_at: (now + CLAIM_RETENTION).as_second(),
        }
    }
}
