//! Notifications: their content, their recipient, and the channels that they are sent on.

use std::{fmt, num::NonZeroU32, str::FromStr};

use chassis::{
    contact::{Email, Phone},
    id::UserId,
    money::Money,
    text::{self, InvalidText},
    typed_id,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest, Sha256};

typed_id!(
    /// The id of an order.
    OrderId,
    "ord"
);

/// The maximum length of an event's id in characters. The id becomes part of a DynamoDB
/// key, whose length is limited.
const MAX_EVENT_ID: usize = 256;
/// The maximum length of a person's or a product's name in characters. The users
/// service and the products service have stricter rules for names; this service only
/// requires that a name fits on a line.
const MAX_NAME: usize = 500;

/// The id of an event, which is the same at each delivery of the event. The id is written
/// into keys and logs, which must not contain personal data. An id therefore begins with a
/// letter and contains only letters, digits, `-`, `_` and `:`. These rules exclude e-mail
/// addresses and phone numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_EVENT_ID} letters, digits, `-`, `_` and `:`, a letter first")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(id: &str) -> Result<Self, InvalidEventId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':');
        let well_formed = id.len() <= MAX_EVENT_ID && id.bytes().all(allowed);
        let letter_first = id.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if well_formed && letter_first { Ok(Self(id.to_owned())) } else { Err(InvalidEventId) }
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Implements `FromStr` and `Deserialize` for a type that holds one line of text with at
/// most [`MAX_NAME`] characters.
macro_rules! single_line_text {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = InvalidText;

            fn from_str(name: &str) -> Result<Self, InvalidText> {
                text::received(name, MAX_NAME).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// A person's name, in one line.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(String);

single_line_text!(Name);

impl Name {
    /// Returns the name's text, which messages use in their salutation.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// `Debug` output does not show the name, since a name is personal data.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(redacted)")
    }
}

/// A product's name, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductName(String);

single_line_text!(ProductName);

impl fmt::Display for ProductName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The person whom a notification is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recipient {
    pub name: Name,
    /// Absent if the person has no verified e-mail address.
    #[serde(default)]
    pub email: Option<Email>,
    /// Absent if the person has no verified phone number.
    #[serde(default)]
    pub phone: Option<Phone>,
}

/// A line of an order: one product and its quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: ProductName,
    pub quantity: NonZeroU32,
    pub unit_price: Money,
    /// The line's total, taken from the event. This service computes no sums, so that no
    /// message can state a sum that differs from the sum that the customer pays.
    pub total: Money,
}

/// The content of a notification that an order was confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderCreated {
    pub order_id: OrderId,
    /// The list is never empty.
    pub lines: Vec<Line>,
    pub total: Money,
    /// `true` if the payment was captured.
    pub paid: bool,
}

/// The reason why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
pub enum CancellationReason {
    PaymentDeclined,
    OutOfStock,
    /// A product does not exist, or is no longer sold.
    UnknownProduct,
    /// The prices are in several currencies. An order can have only one currency.
    MixedCurrencies,
    /// The customer's account was erased.
    UserInactive,
    /// The customer cancelled the order.
    CustomerRequest,
    /// An administrator cancelled the order.
    CancelledByShop,
    /// A price differs from the price that the customer was shown.
    PriceChanged,
    /// The payment provider refused to capture the authorised amount.
    CaptureRefused,
    /// The order was not confirmed in time.
    TimedOut,
    /// A reason that this version of the code does not know. The customer is
    /// still notified of the cancellation.
    #[serde(other)]
    Other,
}

/// The content of a notification that an order was cancelled or could not be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderCancelled {
    pub order_id: OrderId,
    pub reason: CancellationReason,
    /// `true` if the order was confirmed before it was cancelled.
    pub confirmed: bool,
    /// The order's total, if it was known when the order was cancelled.
    pub total: Option<Money>,
}

impl OrderCancelled {
    /// Returns `true` if the order was placed and then cancelled, and `false` if
    /// the order could not be placed.
    pub fn was_placed(&self) -> bool {
        self.confirmed
            || matches!(self.reason, CancellationReason::CustomerRequest | CancellationReason::CancelledByShop)
    }
}

/// The content of a notification that the payment of an order was refunded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRefunded {
    pub order_id: OrderId,
    pub amount: Money,
}

/// The content of a notification, without its recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotificationContent {
    OrderCreated(OrderCreated),
    OrderCancelled(OrderCancelled),
    PaymentRefunded(PaymentRefunded),
}

impl NotificationContent {
    /// Returns the id of the order that the notification is about.
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::OrderCreated(OrderCreated { order_id, .. })
            | Self::OrderCancelled(OrderCancelled { order_id, .. })
            | Self::PaymentRefunded(PaymentRefunded { order_id, .. }) => *order_id,
        }
    }

    /// Returns the kind of the notification: the type of the event that it belongs to.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::OrderCreated(_) => MessageKind::OrderCreated,
            Self::OrderCancelled(_) => MessageKind::OrderCancelled,
            Self::PaymentRefunded(_) => MessageKind::PaymentRefunded,
        }
    }
}

/// The kind of a message: the type of the event that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
pub enum MessageKind {
    OrderCreated,
    OrderCancelled,
    PaymentRefunded,
}

/// The action that this service takes for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventAction {
    /// Send a notification.
    Notify(Notification),
    /// Record that the user was erased, and send nothing to this user from now on.
    EraseUser(UserId),
    /// Record what became of an e-mail that SES had accepted.
    RecordFeedback(EmailFeedback),
    /// Do nothing.
    Ignore(WhyIgnored),
}

/// The reason why this service does nothing for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum WhyIgnored {
    #[strum(to_string = "the response to the request has told the customer that the order was refused")]
    CustomerToldByResponse,
    #[strum(to_string = "the customer learns it from the message about another event")]
    PartOfAnotherMessage,
    #[strum(to_string = "the event names no recipient: the customer's data was erased, or the customer has no profile")]
    NoRecipient,
    #[strum(to_string = "the recipient reports that an e-mail is no spam")]
    NoComplaint,
}

/// A message for one person about one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The id of the event, which is the same at each delivery of the event.
    pub event_id: EventId,
    /// The id of the earlier event whose message is sent again, if an administrator has
    /// requested that.
    pub resend_of: Option<EventId>,
    /// The id of the customer whom the recipient's contact details belong to.
    pub user_id: UserId,
    pub recipient: Recipient,
    pub content: NotificationContent,
}

/// A way to reach a person.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum Channel {
    Email,
    Sms,
}

/// The state of a message on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageState {
    /// An attempt is sending the message, or was interrupted while it was sending.
    Claimed,
    Sent,
    /// The message was not sent, and no further attempt is made, because the provider
    /// refused the recipient permanently.
    Refused,
    /// The message was certainly not sent. The next attempt can claim the sending at once.
    Failed,
    /// The message was not sent, because the address is suppressed.
    Suppressed,
}

/// What became of an e-mail that SES had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Feedback {
    /// The recipient's mail server refused the e-mail permanently: a hard bounce.
    Bounced,
    /// The recipient's mail server did not accept the e-mail, but may accept the next one.
    TransientlyBounced,
    /// The recipient marked the e-mail as unwanted.
    Complained,
}

impl Feedback {
    /// Returns whether the address must not be written to again.
    pub fn suppresses(self) -> bool {
        matches!(self, Self::Bounced | Self::Complained)
    }
}

/// What SES reports about an e-mail to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailFeedback {
    pub user_id: UserId,
    /// The order that the e-mail is about.
    pub order_id: OrderId,
    /// The id of the e-mail at SES.
    pub provider_id: String,
    /// The address that the e-mail was sent to.
    pub address: Email,
    pub feedback: Feedback,
}

/// A digest of a customer's e-mail address. It shows whether an address is a suppressed
/// one, and the address cannot be read from it. The customer's id is part of what is
/// digested, so equal digests never show that two customers have one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressDigest(String);

impl AddressDigest {
    pub fn of(user_id: UserId, address: &Email) -> Self {
        let digest = Sha256::digest(format!("{user_id} {}", address.expose()));
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the digest as hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The record of a message on a channel. It contains no personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentMessage {
    pub event_id: EventId,
    pub kind: MessageKind,
    pub resend_of: Option<EventId>,
    pub channel: Channel,
    pub state: MessageState,
    /// The time of the last attempt.
    pub attempted_at: Timestamp,
    pub sent_at: Option<Timestamp>,
    /// The message's id at SES or SNS.
    pub provider_id: Option<String>,
    /// The provider's error code, if it refused the recipient permanently.
    pub refusal: Option<String>,
    /// What SES reported after it had accepted the e-mail.
    pub feedback: Option<Feedback>,
}
