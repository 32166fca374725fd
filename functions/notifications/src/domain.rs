//! What there is to tell, and to whom.

use std::{fmt, num::NonZeroU32, str::FromStr};

use chassis::{
    contact::{Email, Phone},
    id::UserId,
    money::Money,
    text::{self, InvalidText},
    typed_id,
};
use serde::{Deserialize, Deserializer, de};

typed_id!(
    /// An order.
    OrderId,
    "ord"
);

/// The most characters of an event's id: it becomes part of a key.
const MAX_EVENT_ID: usize = 256;
/// The most characters of a name, whoever's. Who may be called what is for
/// other services to say; here it only has to fit on a line.
const MAX_NAME: usize = 500;

/// What tells one event from another, however often it is delivered. It stands
/// in keys and in logs, so it is made of letters, digits, `-`, `_` and `:` only,
/// a letter first: no address and no number can pass for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId(String);

/// Why a text is no event id.
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

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! one_line {
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

/// What a person wants to be called, in one line.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(String);

one_line!(Name);

impl Name {
    /// The name itself, for the salutation.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Redacted, as all personal data is.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(redacted)")
    }
}

/// What a product is called, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductName(String);

one_line!(ProductName);

impl fmt::Display for ProductName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom to tell, and how to reach them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recipient {
    /// What to call them.
    pub name: Name,
    /// Not everybody has a verified e-mail address.
    #[serde(default)]
    pub email: Option<Email>,
    /// Not everybody has a verified phone number.
    #[serde(default)]
    pub phone: Option<Phone>,
}

/// What was ordered of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The product.
    pub name: ProductName,
    /// How many.
    pub quantity: NonZeroU32,
    /// What one costs.
    pub unit_price: Money,
    /// What all of them cost. As the order has it: nothing is computed here,
    /// so that nobody is told another sum than they pay.
    pub total: Money,
}

/// An order stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderCreated {
    /// Which order.
    pub order_id: OrderId,
    /// What was ordered; at least one line.
    pub lines: Vec<Line>,
    /// What it costs.
    pub total: Money,
    /// Whether the payment is captured.
    pub paid: bool,
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The card was declined.
    PaymentDeclined,
    /// Not enough of a product is left.
    OutOfStock,
    /// A product is not sold (any more).
    UnknownProduct,
    /// One order can't have prices in several currencies.
    MixedCurrencies,
    /// The customer left.
    UserInactive,
    /// The customer cancelled it.
    CustomerRequest,
    /// An administrator cancelled it.
    CancelledByShop,
    /// A price is not the one that the customer was shown.
    PriceChanged,
    /// The money that was set aside could not be taken.
    CaptureRefused,
    /// It was not decided in time.
    TimedOut,
    /// A reason that this version has no words for. The customer is told of
    /// the cancellation all the same.
    #[serde(other)]
    Other,
}

/// An order doesn't stand, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderCancelled {
    /// Which order.
    pub order_id: OrderId,
    /// Why.
    pub reason: Reason,
    /// Whether it was ever confirmed to the customer.
    pub confirmed: bool,
    /// What it would have cost, if that was known by then.
    pub total: Option<Money>,
}

impl OrderCancelled {
    /// Whether an order that was placed is cancelled, rather than one that could
    /// not be placed.
    pub fn is_recalled(&self) -> bool {
        self.confirmed || matches!(self.reason, Reason::CustomerRequest | Reason::CancelledByShop)
    }
}

/// A payment was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// For which order.
    pub order_id: OrderId,
    /// How much.
    pub amount: Money,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An order stands.
    OrderCreated(OrderCreated),
    /// An order doesn't stand, or no longer.
    OrderCancelled(OrderCancelled),
    /// A payment was given back.
    PaymentRefunded(Refund),
}

/// What this service has to do about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Tell somebody something.
    Tell(Notification),
    /// Send nothing to this customer from now on.
    Forget(UserId),
    /// Nothing: the customer knows it, or there is no customer left to tell.
    Nothing,
}

/// Something to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The same however often the event is delivered.
    pub event_id: EventId,
    /// Which customer it is for.
    pub user_id: UserId,
    /// How to reach the customer.
    pub recipient: Recipient,
    /// What.
    pub notice: Notice,
}

/// A way to reach somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Channel {
    /// An e-mail.
    Email,
    /// A text message.
    Sms,
}
