//! Where it is kept what was told.

mod dynamo;

use async_trait::async_trait;
use chassis::{id::UserId, store::StoreError};
use jiff::{SignedDuration, Timestamp};

pub use self::dynamo::DynamoRepository;
use crate::domain::{Channel, EventId};

/// How long a claim keeps others away.
///
/// Twice the function's timeout: whoever claimed has been stopped by then,
/// even by a clock that is half a minute ahead of theirs, and can't still be
/// about to send. A third of the queue's visibility timeout: at the next
/// delivery a claim that was left behind has run out.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);

/// For how long it is remembered what was told. An event can come again for
/// 28 days: 14 until the dead-letter queue drops it, and 14 more if somebody
/// sends it to the queue again on the last of these.
pub const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One try at telling one event on one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What is told.
    pub event_id: EventId,
    /// How.
    pub channel: Channel,
    /// Whose try it is: another for each delivery of each message, so that
    /// nobody takes somebody else's claim for their own.
    pub owner: String,
}

/// Whether an attempt may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// It may send, and nobody else does.
    Granted {
        /// An earlier attempt ended without saying whether it had sent.
        perhaps_sent: bool,
    },
    /// It has been sent; there is nothing to do.
    Sent,
    /// The provider refuses this recipient for good; there is nothing to do.
    RefusedForGood,
    /// Another attempt is at it.
    Busy,
}

/// Keeps who is telling what, what has been told, and who must be told nothing
/// any more.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Claims the sending, before it begins.
    async fn claim(&self, attempt: &Attempt, now: Timestamp) -> Result<Claim, StoreError>;

    /// Notes that it was sent, and the provider's id for it. `false` if the
    /// claim is no longer this attempt's.
    async fn mark_sent(&self, attempt: &Attempt, message_id: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Notes that the provider refuses the recipient for good, and its code for
    /// it: no later delivery tries again. `false` if the claim is no longer this
    /// attempt's.
    async fn mark_refused(&self, attempt: &Attempt, code: &str) -> Result<bool, StoreError>;

    /// Remembers, for good, that a customer was erased.
    async fn remember_erased(&self, id: UserId, now: Timestamp) -> Result<(), StoreError>;

    /// Whether a customer was erased.
    async fn is_erased(&self, id: UserId) -> Result<bool, StoreError>;

    /// Gives the claim back, after a refusal that shows that nothing was
    /// sent: the next attempt need not wait for the lease's end, nor take it
    /// for a repetition.
    async fn give_back(&self, attempt: &Attempt) -> Result<(), StoreError>;
}
