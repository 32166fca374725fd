//! Users in DynamoDB.
//!
//! Two items a user: the user itself, and one whose key is the e-mail address.
//! Both are written in one transaction, so that the second can't be claimed by
//! two users. See `docs/data-model.md`.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use chassis::{
    caller::UserId,
    contact::{Email, Phone},
    dynamo::{self, Key, Table, Transaction, Verdict, Write, number, string},
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Repository, Saved};
use crate::domain::{Name, Profile, Standing, User};

/// Users in one table.
#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    /// On `table`.
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Puts `user` where the stored version is `expected` (`None`: where
    /// there is nothing).
    fn put(&self, user: &User, expected: Option<u64>) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder().table_name(self.table.name()).set_item(Some(dynamo::to_item(&Record::of(user))?));
        let put = match expected {
            None => put.condition_expression("attribute_not_exists(pk)"),
            Some(version) => put
                .condition_expression("version = :expected")
                .expression_attribute_values(":expected", number(version)),
        };
        Ok(TransactWriteItem::builder().put(put.build()?).build())
    }

    fn claim(&self, email: &Email, id: UserId) -> Result<TransactWriteItem, StoreError> {
        let claim = EmailClaim { key: email_key(email), user_id: id };
        let put = Put::builder()
            .table_name(self.table.name())
            .set_item(Some(dynamo::to_item(&claim)?))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::None);
        Ok(TransactWriteItem::builder().put(put.build()?).build())
    }

    fn disclaim(&self, email: &Email, id: UserId) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(self.table.name())
            .set_key(Some(email_key(email).attributes()))
            .condition_expression("user_id = :owner")
            .expression_attribute_values(":owner", string(id.to_string()));
        Ok(TransactWriteItem::builder().delete(delete.build()?).build())
    }

    /// The first write is always the user, the rest are about addresses.
    async fn commit(&self, writes: Vec<TransactWriteItem>) -> Result<Saved, StoreError> {
        Ok(match self.table.transact(writes).await? {
            Transaction::Done => Saved::Done,
            Transaction::Refused(verdicts) => match verdicts.first() {
                Some(Verdict::ConditionFailed(_)) => Saved::Stale,
                _ => Saved::EmailTaken,
            },
        })
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, user: &User) -> Result<Saved, StoreError> {
        let mut writes = vec![self.put(user, None)?];
        if let Some(profile) = user.profile() {
            writes.push(self.claim(&profile.email, user.id)?);
        }
        self.commit(writes).await
    }

    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let record: Option<Record> = self.table.get(&user_key(id)).await?;
        record.map(User::try_from).transpose()
    }

    async fn replace(&self, before: &User, after: &User) -> Result<Saved, StoreError> {
        let (old, new) = (before.profile().map(|p| &p.email), after.profile().map(|p| &p.email));
        if old == new {
            let put = self
                .table
                .put(&Record::of(after))?
                .condition_expression("version = :expected")
                .expression_attribute_values(":expected", number(before.version));
            return Ok(match self.table.send_put(put).await? {
                Write::Done => Saved::Done,
                Write::Refused(_) => Saved::Stale,
            });
        }
        let mut writes = vec![self.put(after, Some(before.version))?];
        if let Some(email) = new {
            writes.push(self.claim(email, after.id)?);
        }
        if let Some(email) = old {
            writes.push(self.disclaim(email, before.id)?);
        }
        self.commit(writes).await
    }
}

fn user_key(id: UserId) -> Key {
    Key::new(format!("USER#{id}"), "USER")
}

fn email_key(email: &Email) -> Key {
    Key::new(format!("EMAIL#{}", email.expose()), "EMAIL")
}

/// The item that makes an address unique.
#[derive(Debug, Serialize)]
struct EmailClaim {
    #[serde(flatten)]
    key: Key,
    user_id: UserId,
}

/// A user as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    key: Key,
    id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<Email>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<Phone>,
    version: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Record {
    fn of(user: &User) -> Self {
        let profile = user.profile().cloned();
        let (name, email, phone) = match profile {
            Some(Profile { name, email, phone }) => (Some(name), Some(email), phone),
            None => (None, None, None),
        };
        let key = user_key(user.id);
        let (id, version, created_at, updated_at) = (user.id, user.version, user.created_at, user.updated_at);
        Self { key, id, name, email, phone, version, created_at, updated_at }
    }
}

impl TryFrom<Record> for User {
    type Error = StoreError;

    fn try_from(record: Record) -> Result<Self, StoreError> {
        let standing = match (record.name, record.email) {
            (Some(name), Some(email)) => Standing::Active(Profile { name, email, phone: record.phone }),
            (None, None) => Standing::Inactive,
            _ => return Err(StoreError::corrupt("users", "a user with half a profile")),
        };
        let Record { id, version, created_at, updated_at, .. } = record;
        Ok(Self { id, standing, version, created_at, updated_at })
    }
}
