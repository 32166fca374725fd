//! Stores which messages were claimed and sent, which users were erased, and which addresses
//! are suppressed.

mod dynamo;

use async_trait::async_trait;
use chassis::{id::UserId, store::StoreError};
use jiff::{SignedDuration, Timestamp};

pub use self::dynamo::DynamoRepository;
use crate::domain::{AddressDigest, Channel, EmailFeedback, EventId, MessageKind, OrderId, SentMessage};

/// The time that a claim and its outcome are stored. This time is longer than the 28 days
/// for which an event can be delivered: the dead-letter queue keeps an event for 14 days,
/// and for 14 more days if an operator sends the event to the queue again on the last day.
pub const CLAIM_RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One attempt to send the message about one event on one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The order that the message is about. An event is always about the same order, so the
    /// event's id and the channel identify the message.
    pub order_id: OrderId,
    pub event_id: EventId,
    pub kind: MessageKind,
    /// The id of the earlier event whose message is sent again, if this is a resend.
    pub resend_of: Option<EventId>,
    pub channel: Channel,
    /// The owner of the attempt's claim. Each delivery of each record has a new owner, so
    /// that no attempt mistakes the claim of another attempt for its own.
    pub owner: String,
}

/// The result of an attempt to claim the sending of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ClaimOutcome {
    /// The attempt holds the claim and may send the message.
    Claimed {
        /// `true` if an earlier attempt ended without a recorded outcome. That attempt may
        /// have sent the message.
        possibly_sent: bool,
    },
    /// An earlier attempt sent the message.
    AlreadySent,
    /// The provider refused the recipient permanently in an earlier attempt.
    PermanentlyRefused,
    /// Another attempt holds the claim.
    HeldByAnother,
}

/// Stores the claims with their outcomes, the erased users and the suppressed addresses.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Claims the sending of a message, before the message is sent.
    async fn claim(&self, attempt: &Attempt, now: Timestamp) -> Result<ClaimOutcome, StoreError>;

    /// Records that the message was sent. `message_id` is the message's id at SES or SNS.
    /// Returns `false` if another attempt has taken over the claim.
    async fn mark_sent(&self, attempt: &Attempt, message_id: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Records that the provider refused the recipient permanently, so that no later
    /// delivery tries again. `code` is the provider's error code. Returns `false` if another
    /// attempt has taken over the claim.
    async fn mark_permanently_refused(&self, attempt: &Attempt, code: &str) -> Result<bool, StoreError>;

    /// Reads the records of all messages about an order, in any sequence.
    async fn messages(&self, order: OrderId) -> Result<Vec<SentMessage>, StoreError>;

    /// Records permanently that a user was erased.
    async fn put_erased_user(&self, id: UserId, now: Timestamp) -> Result<(), StoreError>;

    /// Returns `true` if the user was erased.
    async fn is_user_erased(&self, id: UserId) -> Result<bool, StoreError>;

    /// Records permanently that this address of the user must not be written to.
    async fn suppress(&self, user: UserId, address: &AddressDigest, now: Timestamp) -> Result<(), StoreError>;

    /// Returns `true` if this address of the user must not be written to.
    async fn is_suppressed(&self, user: UserId, address: &AddressDigest) -> Result<bool, StoreError>;

    /// Deletes the digests of all addresses of the user.
    async fn forget_addresses(&self, user: UserId) -> Result<(), StoreError>;

    /// Records that the message was not sent, because the address is suppressed. Returns
    /// `false` and changes nothing if the message was sent, may have been sent, or is
    /// already recorded as not sent for good.
    async fn record_suppressed(&self, attempt: &Attempt, now: Timestamp) -> Result<bool, StoreError>;

    /// Records what SES has reported about an e-mail, beside the e-mail's claim. Returns
    /// `false` if no claim records that this e-mail was sent.
    async fn record_feedback(&self, feedback: &EmailFeedback) -> Result<bool, StoreError>;

    /// Releases the claim after a failure that shows that nothing was sent. The next
    /// attempt then need not wait for the end of the lease, and does not count as a
    /// possible repetition.
    async fn release(&self, attempt: &Attempt) -> Result<(), StoreError>;
}
