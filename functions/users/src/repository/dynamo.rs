//! Users in DynamoDB.
//!
//! A user is two items: the user itself, and one whose key is the e-mail
//! address. One transaction writes both, so that two users can't have the same
//! address. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    contact::{Email, VerifiedContact},
    dynamo::{ItemWrite, Key, Table, TransactionOutcome, WriteOutcome, number, string},
    id::UserId,
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Repository, SaveUserOutcome};
use crate::domain::{Account, Name, Profile, User};

/// Users in one table.
#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    /// Keeps users in `table`.
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Puts `user` where the stored version is `expected` (`None`: where
    /// there is nothing).
    fn put(&self, user: &User, expected: Option<u64>) -> Result<ItemWrite, StoreError> {
        Ok(match expected {
            None => self.table.put_new(&Record::of(user))?,
            Some(version) => self
                .table
                .put(&Record::of(user))?
                .condition_expression("version = :expected")
                .expression_attribute_values(":expected", number(version)),
        })
    }

    /// The writes, besides that of the user's own item, that make `email` the
    /// address of `user`; or how the write ends without them.
    async fn claim(&self, email: &Email, user: &User) -> Result<Result<Vec<ItemWrite>, SaveUserOutcome>, StoreError> {
        let owner: Option<EmailOwner> = self.table.get(&email_key(email)).await?;
        let claim = EmailOwner { key: email_key(email), user_id: user.id };
        let mut writes = vec![match &owner {
            None => self.table.put_new(&claim)?,
            Some(owner) => self
                .table
                .put(&claim)?
                .condition_expression("user_id = :owner")
                .expression_attribute_values(":owner", string(owner.user_id.to_string())),
        }];
        let Some(EmailOwner { user_id, .. }) = owner.filter(|owner| owner.user_id != user.id) else {
            return Ok(Ok(writes));
        };
        // The address moves from one user to another. Where the owner's own item
        // says otherwise, another transaction is moving it at this moment.
        let (Some(before), Some(ours)) = (self.find(user_id).await?, user.profile()) else {
            return Ok(Err(SaveUserOutcome::Stale));
        };
        let Some(theirs) = before.profile().filter(|_| before.email() == Some(email)) else {
            return Ok(Err(SaveUserOutcome::Stale));
        };
        if theirs.contact.as_of >= ours.contact.as_of {
            return Ok(Err(SaveUserOutcome::EmailTaken));
        }
        let after = before.changed(Account::Active(theirs.without_email()), user.updated_at);
        writes.push(self.put(&after, Some(before.version))?);
        Ok(Ok(writes))
    }

    fn disclaim(&self, email: &Email, id: UserId) -> ItemWrite {
        self.table
            .delete(&email_key(email))
            .condition_expression("user_id = :owner")
            .expression_attribute_values(":owner", string(id.to_string()))
    }

    /// Writes `user` where the stored version is `expected`, together with
    /// whatever its address needs.
    async fn write(
        &self,
        expected: Option<u64>,
        old: Option<&Email>,
        user: &User,
    ) -> Result<SaveUserOutcome, StoreError> {
        let mut addresses = Vec::new();
        let new = user.email();
        if let Some(email) = new.filter(|_| new != old) {
            match self.claim(email, user).await? {
                Ok(claim) => addresses.extend(claim),
                Err(without) => return Ok(without),
            }
        }
        addresses.extend(old.filter(|_| new != old).map(|email| self.disclaim(email, user.id)));
        match self.table.transact(self.put(user, expected)?, addresses).await? {
            TransactionOutcome::Written => Ok(SaveUserOutcome::Saved),
            // Somebody else has changed the user, or moved an address.
            TransactionOutcome::SubjectConditionFailed(_) | TransactionOutcome::OtherConditionFailed => {
                Ok(SaveUserOutcome::Stale)
            }
        }
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, user: &User) -> Result<SaveUserOutcome, StoreError> {
        self.write(None, None, user).await
    }

    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let record: Option<Record> = self.table.get(&user_key(id)).await?;
        record.map(User::try_from).transpose()
    }

    async fn replace(&self, before: &User, after: &User) -> Result<SaveUserOutcome, StoreError> {
        if before.email() != after.email() {
            return self.write(Some(before.version), before.email(), after).await;
        }
        Ok(match self.table.send(self.put(after, Some(before.version))?).await? {
            WriteOutcome::Written => SaveUserOutcome::Saved,
            WriteOutcome::ConditionFailed(_) => SaveUserOutcome::Stale,
        })
    }
}

fn user_key(id: UserId) -> Key {
    Key::new(format!("USER#{id}"), "USER")
}

fn email_key(email: &Email) -> Key {
    Key::new(format!("EMAIL#{}", email.expose()), "EMAIL")
}

/// The item that makes an address unique: it names the one user who has it.
#[derive(Debug, Serialize, Deserialize)]
struct EmailOwner {
    #[serde(flatten)]
    key: Key,
    user_id: UserId,
}

/// A user as stored. An erased one has no profile.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    key: Key,
    id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact: Option<VerifiedContact>,
    /// Of an erased user: whether the other services were told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    erasure_announced: Option<bool>,
    version: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Record {
    fn of(user: &User) -> Self {
        let (name, contact, erasure_announced) = match user.account.clone() {
            Account::Active(Profile { name, contact }) => (Some(name), Some(contact), None),
            Account::Erased { is_announced } => (None, None, Some(is_announced)),
        };
        let key = user_key(user.id);
        let (id, version, created_at, updated_at) = (user.id, user.version, user.created_at, user.updated_at);
        Self { key, id, name, contact, erasure_announced, version, created_at, updated_at }
    }
}

impl TryFrom<Record> for User {
    type Error = StoreError;

    fn try_from(record: Record) -> Result<Self, StoreError> {
        let account = match (record.name, record.contact, record.erasure_announced) {
            (Some(name), Some(contact), None) => Account::Active(Profile { name, contact }),
            (None, None, Some(is_announced)) => Account::Erased { is_announced },
            _ => return Err(StoreError::corrupt("users", "a user with half a profile")),
        };
        let Record { id, version, created_at, updated_at, .. } = record;
        Ok(Self { id, account, version, created_at, updated_at })
    }
}
