//! Claims in DynamoDB: one item an event and channel. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Key, Table, WriteOutcome, attribute, string},
    id::UserId,
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attempt, Claim, LEASE, REMEMBERED, Repository};

/// Claims in one table.
#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    /// On `table`.
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Claims where there is nothing yet.
    async fn put_first(&self, claimed: &Record) -> Result<WriteOutcome, StoreError> {
        self.table.send(self.table.put(claimed)?.condition_expression("attribute_not_exists(pk)")).await
    }

    /// Claims where `before` still stands.
    async fn put_over(&self, before: &Record, claimed: &Record) -> Result<WriteOutcome, StoreError> {
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
    async fn claim(&self, attempt: &Attempt, now: Timestamp) -> Result<Claim, StoreError> {
        let claimed = Record::claimed(attempt, now);
        let WriteOutcome::ConditionFailed(item) = self.put_first(&claimed).await? else {
            return Ok(Claim::Granted { perhaps_sent: false });
        };
        let Some(before) = read(item)? else { return Ok(Claim::Busy) };
        let perhaps_sent = match before.state {
            State::Sent => return Ok(Claim::Sent),
            State::Refused => return Ok(Claim::RefusedForGood),
            // The SDK repeated the put after a lost reply.
            State::Claimed if before.owner == attempt.owner => return Ok(Claim::Granted { perhaps_sent: false }),
            State::Claimed if before.lease_until >= now => return Ok(Claim::Busy),
            State::Claimed => true,
            State::Failed => false,
        };
        match self.put_over(&before, &claimed).await? {
            WriteOutcome::Written => Ok(Claim::Granted { perhaps_sent }),
            WriteOutcome::ConditionFailed(item) => Ok(match read(item)? {
                Some(now) if now.owner == attempt.owner => Claim::Granted { perhaps_sent },
                Some(Record { state: State::Sent, .. }) => Claim::Sent,
                Some(Record { state: State::Refused, .. }) => Claim::RefusedForGood,
                _ => Claim::Busy,
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
            .expression_attribute_values(":sent", attribute(&State::Sent)?)
            .expression_attribute_values(":now", attribute(&now)?)
            .expression_attribute_values(":message_id", string(message_id))
            .expression_attribute_values(":owner", string(&attempt.owner));
        Ok(matches!(self.table.send(update).await?, WriteOutcome::Written))
    }

    async fn mark_refused(&self, attempt: &Attempt, code: &str) -> Result<bool, StoreError> {
        let update = self
            .table
            .update(&key(attempt))
            .update_expression("SET #state = :refused, refusal = :code")
            .condition_expression("#owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":refused", attribute(&State::Refused)?)
            .expression_attribute_values(":code", string(code))
            .expression_attribute_values(":owner", string(&attempt.owner));
        Ok(matches!(self.table.send(update).await?, WriteOutcome::Written))
    }

    async fn remember_erased(&self, id: UserId, now: Timestamp) -> Result<(), StoreError> {
        let put = self.table.put(&ErasedUser { key: erased_key(id), erased_at: now })?;
        match self.table.send(put).await? {
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }

    async fn is_erased(&self, id: UserId) -> Result<bool, StoreError> {
        let erased: Option<ErasedUser> = self.table.get(&erased_key(id)).await?;
        Ok(erased.is_some())
    }

    async fn give_back(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let update = self
            .table
            .update(&key(attempt))
            .update_expression("SET #state = :failed")
            .condition_expression("#state = :claimed AND #owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":failed", attribute(&State::Failed)?)
            .expression_attribute_values(":claimed", attribute(&State::Claimed)?)
            .expression_attribute_values(":owner", string(&attempt.owner));
        // Refused: it is somebody else's by now, or the SDK repeated itself.
        match self.table.send(update).await? {
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }
}

fn read(item: Option<dynamo::Item>) -> Result<Option<Record>, StoreError> {
    item.map(dynamo::from_item).transpose()
}

fn key(attempt: &Attempt) -> Key {
    Key::new(format!("EVENT#{}", attempt.event_id), format!("CHANNEL#{}", attempt.channel))
}

fn erased_key(id: UserId) -> Key {
    Key::new(format!("ERASED#{id}"), "ERASED")
}

/// A customer who was erased, as stored. It never expires: an order can be
/// cancelled, and a dead letter sent again, long after its customer has left.
#[derive(Debug, Serialize, Deserialize)]
struct ErasedUser {
    #[serde(flatten)]
    key: Key,
    erased_at: Timestamp,
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum State {
    /// Somebody is about to send, or was.
    Claimed,
    /// Sent.
    Sent,
    /// Not sent, and never to be: the provider refuses the recipient.
    Refused,
    /// Not sent, and known not to be.
    Failed,
}

/// A claim as stored; mark_sent adds `sent_at` and `message_id`. No word of
/// whom it is for.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    key: Key,
    state: State,
    owner: String,
    lease_until: Timestamp,
    /// In seconds, as DynamoDB's time to live wants it.
    expires_at: i64,
}

impl Record {
    fn claimed(attempt: &Attempt, now: Timestamp) -> Self {
        Self {
            key: key(attempt),
            state: State::Claimed,
            owner: attempt.owner.clone(),
            lease_until: now + LEASE,
            expires_at: (now + REMEMBERED).as_second(),
        }
    }
}
