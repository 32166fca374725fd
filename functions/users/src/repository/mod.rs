//! Where users are kept.

mod dynamo;

use async_trait::async_trait;
use chassis::{id::UserId, store::StoreError};

pub use self::dynamo::DynamoRepository;
use crate::domain::User;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SaveUserOutcome {
    /// Written.
    Saved,
    /// Nothing is written: something was changed since it was read. Read
    /// again, and decide again.
    Stale,
    /// Nothing is written: the e-mail address belongs to another active user,
    /// and what is known of that user is not older.
    EmailTaken,
}

/// Keeps users, and keeps e-mail addresses unique among the active ones.
///
/// The address of a written user is taken from any other user whose contact
/// details are older: the user pool has verified it for another person since.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Writes a user that isn't there yet.
    async fn create(&self, user: &User) -> Result<SaveUserOutcome, StoreError>;

    /// Reads a user.
    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// Writes `after` if `before` is what is stored.
    async fn replace(&self, before: &User, after: &User) -> Result<SaveUserOutcome, StoreError>;
}
