//! Stores the claims in DynamoDB, one item for each event and channel. The claims of an
//! order's messages are in one partition. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Key, Table, WriteOutcome, attribute, string},
    id::UserId,
    store::StoreError,
    time_limits::NOTIFICATION_LEASE,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Attempt, CLAIM_RETENTION, ClaimOutcome, Repository};
use crate::domain::{AddressDigest, EmailFeedback, EventId, Feedback, MessageKind, MessageState, OrderId, SentMessage};

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

    /// Reads all items of a partition.
    async fn partition<T: DeserializeOwned>(&self, partition: &str) -> Result<Vec<T>, StoreError> {
        let (mut items, mut start) = (Vec::new(), None);
        loop {
            let query = self
                .table
                .query()
                .key_condition_expression("pk = :partition")
                .expression_attribute_values(":partition", string(partition))
                .consistent_read(true)
                .set_exclusive_start_key(start);
            let output = query.send().await.map_err(|error| self.table.unavailable(error))?;
            for item in output.items.unwrap_or_default() {
                items.push(dynamo::from_item(item)?);
            }
            start = output.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
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
            MessageState::Sent => return Ok(ClaimOutcome::AlreadySent),
            MessageState::Refused => return Ok(ClaimOutcome::PermanentlyRefused),
            // The stored claim is this attempt's own: the SDK repeated the put, because the
            // response to the first put was lost.
            MessageState::Claimed if before.owner == attempt.owner => {
                return Ok(ClaimOutcome::Claimed { possibly_sent: false });
            }
            MessageState::Claimed if before.lease_until >= now => return Ok(ClaimOutcome::HeldByAnother),
            MessageState::Claimed => true,
            MessageState::Failed | MessageState::Suppressed => false,
        };
        match self.replace(&before, &claimed).await? {
            WriteOutcome::Written => Ok(ClaimOutcome::Claimed { possibly_sent }),
            WriteOutcome::ConditionFailed(item) => Ok(match read(item)? {
                Some(stored) if stored.owner == attempt.owner => ClaimOutcome::Claimed { possibly_sent },
                Some(ClaimItem { state: MessageState::Sent, .. }) => ClaimOutcome::AlreadySent,
                Some(ClaimItem { state: MessageState::Refused, .. }) => ClaimOutcome::PermanentlyRefused,
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
            .expression_attribute_values(":sent", attribute(&MessageState::Sent)?)
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
            .expression_attribute_values(":refused", attribute(&MessageState::Refused)?)
            .expression_attribute_values(":code", string(code))
            .expression_attribute_values(":owner", string(&attempt.owner));
        Ok(matches!(self.table.send(update).await?, WriteOutcome::Written))
    }

    async fn messages(&self, order: OrderId) -> Result<Vec<SentMessage>, StoreError> {
        self.partition::<ClaimItem>(&partition(order)).await?.into_iter().map(ClaimItem::message).collect()
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

    async fn suppress(&self, user: UserId, address: &AddressDigest, now: Timestamp) -> Result<(), StoreError> {
        let put = self.table.put(&SuppressedAddress { key: suppressed_key(user, address), suppressed_at: now })?;
        match self.table.send(put).await? {
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }

    async fn is_suppressed(&self, user: UserId, address: &AddressDigest) -> Result<bool, StoreError> {
        let suppressed: Option<SuppressedAddress> = self.table.get(&suppressed_key(user, address)).await?;
        Ok(suppressed.is_some())
    }

    async fn forget_addresses(&self, user: UserId) -> Result<(), StoreError> {
        for SuppressedAddress { key, .. } in self.partition(&suppressed_partition(user)).await? {
            match self.table.send(self.table.delete(&key)).await? {
                WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => {}
            }
        }
        Ok(())
    }

    async fn record_suppressed(&self, attempt: &Attempt, now: Timestamp) -> Result<bool, StoreError> {
        let item = ClaimItem { state: MessageState::Suppressed, ..ClaimItem::claimed(attempt, now) };
        let put = self
            .table
            .put(&item)?
            .condition_expression("attribute_not_exists(pk) OR #state = :failed")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":failed", attribute(&MessageState::Failed)?);
        Ok(match self.table.send(put).await? {
            WriteOutcome::Written => true,
            // The SDK repeated the put, because the response to the first put was lost.
            WriteOutcome::ConditionFailed(item) => read(item)?.is_some_and(|stored| stored.owner == attempt.owner),
        })
    }

    async fn record_feedback(&self, feedback: &EmailFeedback) -> Result<bool, StoreError> {
        let EmailFeedback { order_id, provider_id, feedback, .. } = feedback;
        let claims: Vec<ClaimItem> = self.partition(&partition(*order_id)).await?;
        let Some(claim) = claims.into_iter().find(|claim| claim.message_id.as_ref() == Some(provider_id)) else {
            return Ok(false);
        };
        let update = self
            .table
            .update(&claim.key)
            .update_expression("SET feedback = :feedback")
            .condition_expression("message_id = :message_id")
            .expression_attribute_values(":feedback", attribute(feedback)?)
            .expression_attribute_values(":message_id", string(provider_id));
        Ok(matches!(self.table.send(update).await?, WriteOutcome::Written))
    }

    async fn release(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let update = self
            .table
            .update(&key(attempt))
            .update_expression("SET #state = :failed")
            .condition_expression("#state = :claimed AND #owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":failed", attribute(&MessageState::Failed)?)
            .expression_attribute_values(":claimed", attribute(&MessageState::Claimed)?)
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

const EVENT_PREFIX: &str = "EVENT#";

fn partition(order: OrderId) -> String {
    format!("ORDER#{order}")
}

fn key(attempt: &Attempt) -> Key {
    let Attempt { order_id, event_id, channel, .. } = attempt;
    Key::new(partition(*order_id), format!("{EVENT_PREFIX}{event_id}#{channel}"))
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

fn suppressed_partition(user: UserId) -> String {
    format!("SUPPRESSED#{user}")
}

fn suppressed_key(user: UserId, address: &AddressDigest) -> Key {
    Key::new(suppressed_partition(user), address.as_str())
}

/// The stored item of an address that must not be written to. The key has a digest of the
/// address. The item never expires, because a dead address stays dead.
#[derive(Debug, Serialize, Deserialize)]
struct SuppressedAddress {
    #[serde(flatten)]
    key: Key,
    suppressed_at: Timestamp,
}

/// The stored item of a claim. `mark_sent` adds `sent_at` and `message_id`,
/// `mark_permanently_refused` adds `refusal`, and `record_feedback` adds `feedback`. The item contains no personal data.
#[derive(Debug, Serialize, Deserialize)]
struct ClaimItem {
    #[serde(flatten)]
    key: Key,
    kind: MessageKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resend_of: Option<EventId>,
    state: MessageState,
    owner: String,
    lease_until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feedback: Option<Feedback>,
    /// The time after which DynamoDB deletes the item, in seconds since
    /// 1970-01-01T00:00:00Z, the format of DynamoDB's time to live.
    expires_at: i64,
}

impl ClaimItem {
    fn claimed(attempt: &Attempt, now: Timestamp) -> Self {
        Self {
            key: key(attempt),
            kind: attempt.kind,
            resend_of: attempt.resend_of.clone(),
            state: MessageState::Claimed,
            owner: attempt.owner.clone(),
            lease_until: now + NOTIFICATION_LEASE,
            sent_at: None,
            message_id: None,
            refusal: None,
            feedback: None,
            expires_at: (now + CLAIM_RETENTION).as_second(),
        }
    }

    /// Returns the message that the item records. The event's id and the channel are only in
    /// the item's key.
    fn message(self) -> Result<SentMessage, StoreError> {
        let of_key = self.key.sk.strip_prefix(EVENT_PREFIX).and_then(|rest| rest.rsplit_once('#'));
        let of_key = of_key.and_then(|(event_id, channel)| Some((event_id.parse().ok()?, channel.parse().ok()?)));
        let (event_id, channel) =
            of_key.ok_or_else(|| StoreError::corrupt("notifications", "a key names no event and channel"))?;
        Ok(SentMessage {
            event_id,
            kind: self.kind,
            resend_of: self.resend_of,
            channel,
            state: self.state,
            attempted_at: self.lease_until - NOTIFICATION_LEASE,
            sent_at: self.sent_at,
            provider_id: self.message_id,
            refusal: self.refusal,
            feedback: self.feedback,
        })
    }
}
