//! Users in DynamoDB.
//!
//! Two items a user: the user itself, and one whose key is the e-mail address.
//! Both are written in one transaction, so that the second can't be claimed by
//! two users. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    caller::UserId,
    contact::{Email, Phone},
    dynamo::{Change, Key, Table, Transaction, Write, number, string},
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
    fn put(&self, user: &User, expected: Option<u64>) -> Result<Change, StoreError> {
        Ok(match expected {
            None => self.table.put_new(&Record::of(user))?,
            Some(version) => self
                .table
                .put(&Record::of(user))?
                .condition_expression("version = :expected")
                .expression_attribute_values(":expected", number(version)),
        })
    }

    fn claim(&self, email: &Email, id: UserId) -> Result<Change, StoreError> {
        self.table.put_new(&EmailClaim { key: email_key(email), user_id: id })
    }

    fn disclaim(&self, email: &Email, id: UserId) -> Change {
        self.table
            .delete(&email_key(email))
            .condition_expression("user_id = :owner")
            .expression_attribute_values(":owner", string(id.to_string()))
    }

    /// Writes a user, and what it takes about addresses.
    async fn commit(&self, user: Change, addresses: Vec<Change>) -> Result<Saved, StoreError> {
        Ok(match self.table.transact(user, addresses).await? {
            Transaction::Done => Saved::Done,
            Transaction::SubjectRefused(_) => Saved::Stale,
            Transaction::OtherRefused => Saved::EmailTaken,
        })
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, user: &User) -> Result<Saved, StoreError> {
        let claim = user.profile().map(|profile| self.claim(&profile.email, user.id)).transpose()?;
        self.commit(self.put(user, None)?, claim.into_iter().collect()).await
    }

    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let record: Option<Record> = self.table.get(&user_key(id)).await?;
        record.map(User::try_from).transpose()
    }

    async fn replace(&self, before: &User, after: &User) -> Result<Saved, StoreError> {
        let (old, new) = (before.profile().map(|p| &p.email), after.profile().map(|p| &p.email));
        if old == new {
            return Ok(match self.table.send(self.put(after, Some(before.version))?).await? {
                Write::Done => Saved::Done,
                Write::Refused(_) => Saved::Stale,
            });
        }
        let claim = new.map(|email| self.claim(email, after.id)).transpose()?;
        let disclaim = old.map(|email| self.disclaim(email, before.id));
        self.commit(self.put(after, Some(before.version))?, claim.into_iter().chain(disclaim).collect()).await
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
