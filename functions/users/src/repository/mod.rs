//! Where users are kept.

mod dynamo;

use async_trait::async_trait;
use chassis::{caller::UserId, store::StoreError};

pub use self::dynamo::DynamoRepository;
use crate::domain::User;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Saved {
    /// Written.
    Done,
    /// The user isn't what it was believed to be (exists already, or was
    /// changed): read again.
    Stale,
    /// Another active user has the e-mail address.
    EmailTaken,
}

/// Keeps users, and keeps e-mail addresses unique among the active ones.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Writes a user that isn't there yet.
    async fn create(&self, user: &User) -> Result<Saved, StoreError>;

    /// Reads a user.
    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// Writes `after` where `before` still stands.
    async fn replace(&self, before: &User, after: &User) -> Result<Saved, StoreError>;
}
