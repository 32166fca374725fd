//! Users in DynamoDB.
//!
//! A user with an e-mail address has two items: the item of the user, and an item whose key is the e-mail address. One
//! transaction writes both items, so that two users can't have the same e-mail address. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    contact::{Email, VerifiedContact},
    dynamo::{ItemWrite, Key, Section, Table, TransactionOutcome, WriteOutcome, number, string},
    id::UserId,
    page::{Cursor, Limit, ListError, Page},
    store::StoreError,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Repository, SaveUserOutcome};
use crate::domain::{Name, Profile, User, UserAction, UserState};

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Builds the write of the item of `user`. The write succeeds only if the stored version is `expected` or, if
    /// `expected` is `None`, only if no item is stored.
    fn put_if_version(&self, user: &User, expected: Option<u64>) -> Result<ItemWrite, StoreError> {
        Ok(match expected {
            None => self.table.put_new(&UserRecord::of(user))?,
            Some(version) => self
                .table
                .put(&UserRecord::of(user))?
                .condition_expression("version = :expected")
                .expression_attribute_values(":expected", number(version)),
        })
    }

    /// Builds the writes that give `email` to `user`, without the write of the item of `user`. If `user` can't have
    /// `email`, returns `Stale` or `EmailTaken`, and nothing may be written.
    async fn claim_email(
        &self,
        email: &Email,
        user: &User,
    ) -> Result<Result<Vec<ItemWrite>, SaveUserOutcome>, StoreError> {
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
        // The e-mail address belongs to another user, who loses the address if that user's contact details are older.
        // If the item of that user does not have the address, another transaction has just changed the owner.
        let (Some(before), Some(new_profile)) = (self.find(user_id).await?, user.profile()) else {
            return Ok(Err(SaveUserOutcome::Stale));
        };
        let Some(old_profile) = before.profile().filter(|_| before.email() == Some(email)) else {
            return Ok(Err(SaveUserOutcome::Stale));
        };
        if old_profile.contact.as_of >= new_profile.contact.as_of {
            return Ok(Err(SaveUserOutcome::EmailTaken));
        }
        let after = before.with_state(UserState::Active(old_profile.without_email()), user.updated_at);
        writes.push(self.put_if_version(&after, Some(before.version))?);
        Ok(Ok(writes))
    }

    fn put_action(&self, id: UserId, action: &UserAction) -> Result<ItemWrite, StoreError> {
        let key = Key::new(user_key(id).pk, format!("{ACTION_PREFIX}{:010}", action.version));
        self.table.put_new(&ActionRecord { key, action: action.clone() })
    }

    fn release_email(&self, email: &Email, id: UserId) -> ItemWrite {
        self.table
            .delete(&email_key(email))
            .condition_expression("user_id = :owner")
            .expression_attribute_values(":owner", string(id.to_string()))
    }

    /// Writes `user` if the stored version is `expected`, and in the same transaction the items of the user's old and
    /// new e-mail addresses.
    async fn write(
        &self,
        expected: Option<u64>,
        old: Option<&Email>,
        user: &User,
        action: Option<&UserAction>,
    ) -> Result<SaveUserOutcome, StoreError> {
        let mut email_writes = Vec::new();
        let new = user.email();
        if let Some(email) = new.filter(|_| new != old) {
            match self.claim_email(email, user).await? {
                Ok(claim) => email_writes.extend(claim),
                Err(outcome) => return Ok(outcome),
            }
        }
        email_writes.extend(old.filter(|_| new != old).map(|email| self.release_email(email, user.id)));
        email_writes.extend(action.map(|action| self.put_action(user.id, action)).transpose()?);
        match self.table.transact(self.put_if_version(user, expected)?, email_writes).await? {
            TransactionOutcome::Written => Ok(SaveUserOutcome::Saved),
            // Another request has changed the user, or the owner of one of the e-mail addresses.
            TransactionOutcome::SubjectConditionFailed(_) | TransactionOutcome::OtherConditionFailed => {
                Ok(SaveUserOutcome::Stale)
            }
        }
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, user: &User) -> Result<SaveUserOutcome, StoreError> {
        self.write(None, None, user, None).await
    }

    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let record: Option<UserRecord> = self.table.get(&user_key(id)).await?;
        record.map(User::try_from).transpose()
    }

    async fn find_by_email(&self, email: &Email) -> Result<Option<User>, StoreError> {
        let owner: Option<EmailOwner> = self.table.get(&email_key(email)).await?;
        let Some(owner) = owner else { return Ok(None) };
        // Between the two reads, the address may have got another owner.
        Ok(self.find(owner.user_id).await?.filter(|user| user.email() == Some(email)))
    }

    async fn replace(
        &self,
        before: &User,
        after: &User,
        action: Option<&UserAction>,
    ) -> Result<SaveUserOutcome, StoreError> {
        if before.email() != after.email() || action.is_some() {
            return self.write(Some(before.version), before.email(), after, action).await;
        }
        Ok(match self.table.send(self.put_if_version(after, Some(before.version))?).await? {
            WriteOutcome::Written => SaveUserOutcome::Saved,
            WriteOutcome::ConditionFailed(_) => SaveUserOutcome::Stale,
        })
    }

    async fn actions(&self, id: UserId, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<UserAction>, ListError> {
        let partition = user_key(id).pk;
        let section = Section { partition: &partition, prefix: ACTION_PREFIX, limit, cursor };
        let page: Page<ActionRecord> = self.table.list_section(section).await?;
        Ok(page.map(|record| record.action))
    }
}

const ACTION_PREFIX: &str = "ACTION#";

/// The item of an administrator's action, beside the user. It is never changed or deleted.
#[derive(Debug, Serialize, Deserialize)]
struct ActionRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    action: UserAction,
}

fn user_key(id: UserId) -> Key {
    Key::new(format!("USER#{id}"), "USER")
}

fn email_key(email: &Email) -> Key {
    Key::new(format!("EMAIL#{}", email.expose()), "EMAIL")
}

/// The item that makes an e-mail address unique. It contains the id of the user who has the address.
#[derive(Debug, Serialize, Deserialize)]
struct EmailOwner {
    #[serde(flatten)]
    key: Key,
    user_id: UserId,
}

/// The item of a user. An erased user has no name and no contact details.
#[derive(Debug, Serialize, Deserialize)]
struct UserRecord {
    #[serde(flatten)]
    key: Key,
    id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact: Option<VerifiedContact>,
    /// Present only if the user is erased: `true` if the event `UserErased` was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    erasure_announced: Option<bool>,
    version: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl UserRecord {
    fn of(user: &User) -> Self {
        let (name, contact, erasure_announced) = match user.state.clone() {
            UserState::Active(Profile { name, contact }) => (Some(name), Some(contact), None),
            UserState::Erased { is_announced } => (None, None, Some(is_announced)),
        };
        let key = user_key(user.id);
        let (id, version, created_at, updated_at) = (user.id, user.version, user.created_at, user.updated_at);
        Self { key, id, name, contact, erasure_announced, version, created_at, updated_at }
    }
}

impl TryFrom<UserRecord> for User {
    type Error = StoreError;

    fn try_from(record: UserRecord) -> Result<Self, StoreError> {
        let state = match (record.name, record.contact, record.erasure_announced) {
            (Some(name), Some(contact), None) => UserState::Active(Profile { name, contact }),
            (None, None, Some(is_announced)) => UserState::Erased { is_announced },
            _ => return Err(StoreError::corrupt("users", "the user is neither active nor erased")),
        };
        let UserRecord { id, version, created_at, updated_at, .. } = record;
        Ok(Self { id, state, version, created_at, updated_at })
    }
}
