//! The storage of users.

mod dynamo;

use async_trait::async_trait;
use chassis::{
    contact::Email,
    id::UserId,
    page::{Cursor, Limit, ListError, Page},
    store::StoreError,
};

pub use self::dynamo::DynamoRepository;
use crate::domain::{User, UserAction};

/// The outcome of writing a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SaveUserOutcome {
    Saved,
    /// Nothing is written, because another request has changed the stored items since they were read.
    Stale,
    /// Nothing is written, because the e-mail address belongs to another active user, whose contact details are at
    /// least as new as those of the written user.
    EmailTaken,
}

/// Stores users, and keeps the e-mail addresses of the active users unique.
///
/// If a user is written with an e-mail address that belongs to another user with older contact details, that other user
/// loses the e-mail address, because the user pool has since verified it for the written user.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Writes a new user.
    async fn create(&self, user: &User) -> Result<SaveUserOutcome, StoreError>;

    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// Finds the active user who has this e-mail address. While the address changes its owner, nobody may be found.
    async fn find_by_email(&self, email: &Email) -> Result<Option<User>, StoreError>;

    /// Writes `after` if the stored version is the version of `before`. If an administrator has acted, writes the record
    /// of the action in the same transaction.
    async fn replace(
        &self,
        before: &User,
        after: &User,
        action: Option<&UserAction>,
    ) -> Result<SaveUserOutcome, StoreError>;

    /// Reads a page of what administrators have done with a user's profile, the oldest action first.
    async fn actions(&self, id: UserId, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<UserAction>, ListError>;
}
