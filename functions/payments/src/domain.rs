//! Payments and their state machine.

use std::{fmt, str::FromStr};

use chassis::{
    contact::{Email, Phone},
    id::UserId,
    money::Money,
    text::{self, InvalidText},
    trace::TraceContext,
    typed_id,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

typed_id!(
    /// The id of the order that a payment is for.
    OrderId,
    "ord"
);

typed_id!(
    /// The id of a payment.
    PaymentId,
    "pay"
);

impl PaymentId {
    /// Returns the id of the payment of `order`. Each order has one payment, whose id is
    /// derived from the order's id. A caller that did not receive the response to an
    /// authorisation therefore knows the payment's id, and can cancel the payment.
    pub const fn of(order: OrderId) -> Self {
        Self::from_uuid(order.uuid())
    }

    /// Returns the id of the order that the payment is for.
    pub const fn order(self) -> OrderId {
        OrderId::from_uuid(self.uuid())
    }
}

/// The maximum length of a recipient's name in characters.
const MAX_NAME: usize = 100;
/// The maximum length of a payment token in characters.
const MAX_TOKEN: usize = 128;

/// A payment token: the provider's name for the customer's card or account. Anybody
/// who has the token can charge the card, so the token is never printed, and is stored
/// only while the outcome of the authorisation is unknown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentMethod(String);

/// The error for a text that is not a payment token. The error does not quote the text,
/// since the text may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a payment token: letters, digits, `_` and `-`, at most {MAX_TOKEN}")]
pub struct InvalidPaymentMethod;

impl PaymentMethod {
    /// Returns the token's text, which must not be printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for PaymentMethod {
    type Err = InvalidPaymentMethod;

    fn from_str(token: &str) -> Result<Self, InvalidPaymentMethod> {
        let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let well_formed = plain && (1..=MAX_TOKEN).contains(&token.len());
        if well_formed { Ok(Self(token.to_owned())) } else { Err(InvalidPaymentMethod) }
    }
}

impl fmt::Debug for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentMethod(redacted)")
    }
}

/// The recipient's name: one line of at most [`MAX_NAME`] characters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(name: &str) -> Result<Self, InvalidText> {
        text::received(name, MAX_NAME).map(Self)
    }
}

/// `Debug` output does not show the name, since a name is personal data.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(redacted)")
    }
}

/// The person who is notified about the payment. Each payment event contains the
/// recipient. The notifications service can therefore send its messages without a call
/// to another service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PaymentRecipient)]
pub struct Recipient {
    /// The customer's name.
    #[schema(value_type = String)]
    pub name: Name,
    /// Absent if the person has no verified e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub email: Option<Email>,
    /// Absent if the person has no verified phone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub phone: Option<Phone>,
}

/// A request to authorise the payment of an order.
#[derive(Clone, Debug)]
pub struct PaymentRequest {
    pub order_id: OrderId,
    pub user_id: UserId,
    pub amount: Money,
    /// `None` if the customer pays with the default payment method.
    pub method: Option<PaymentMethod>,
    pub recipient: Recipient,
    /// `true` if the same request also captures the payment.
    pub capture_immediately: bool,
}

impl PaymentRequest {
    /// Computes the fingerprint of the request. Two requests for the same order are
    /// repeats of each other if their fingerprints are equal; otherwise they conflict.
    ///
    /// The recipient is not part of the fingerprint: if a customer changes their name
    /// between two attempts, the second attempt is still a repeat.
    fn fingerprint(&self) -> Fingerprint {
        // The pattern lists every member. After a member is added to the struct, this line
        // does not compile until the pattern either uses or ignores the new member.
        let Self { order_id, user_id, amount, method, recipient: _, capture_immediately } = self;
        let method = method.as_ref().map_or("", PaymentMethod::expose);
        let (minor, currency) = (amount.minor(), amount.currency());
        // No part contains a line break. Different requests therefore give different texts.
        let text = format!("{order_id}\n{user_id}\n{minor} {currency}\n{method}\n{capture_immediately}");
        Fingerprint(Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The SHA-256 digest of a payment request, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

/// The name of a payment's state. The name is stored, and is shown to clients.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    /// The authorisation was requested, and its outcome is unknown. This state is stored
    /// before the provider is called.
    Intent,
    /// The provider holds the amount.
    Authorised,
    /// The provider declined the authorisation, and holds nothing.
    Declined,
    /// The amount was captured, and the event `PaymentCaptured` was published.
    Captured,
    /// The hold was voided, and nothing was captured.
    Voided,
    /// The captured amount was refunded, and the event `PaymentRefunded` was published.
    Refunded,
    /// The status of a tombstone: the payment was cancelled before its authorisation
    /// arrived. An authorisation that arrives after the cancellation is refused.
    Cancelled,
}

impl PaymentStatus {
    /// Defines the state machine: returns `true` if a payment in this state can
    /// transition to `next`.
    pub fn can_transition_to(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Intent, Self::Authorised | Self::Declined)
                | (Self::Authorised, Self::Captured | Self::Voided)
                | (Self::Captured, Self::Refunded)
        )
    }

    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A payment's state, with the values that belong to that state. [`PaymentStatus`]
/// explains each state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Intent {
        /// The payment token, or `None` for the customer's default method. The token is
        /// kept in case the authorisation has to be sent to the provider again.
        method: Option<PaymentMethod>,
    },
    Authorised {
        /// The provider's id of the charge.
        reference: String,
        /// The provider's code, if the provider refused to capture the amount.
        capture_refused: Option<String>,
    },
    Declined {
        /// The provider's code, such as `card_declined`.
        reason: String,
    },
    Captured {
        /// The provider's id of the charge.
        reference: String,
    },
    Voided {
        /// The provider's id of the charge.
        reference: String,
        /// The provider's code, if the provider refused to capture the amount.
        capture_refused: Option<String>,
    },
    Refunded {
        /// The provider's id of the charge.
        reference: String,
    },
}

impl State {
    pub fn status(&self) -> PaymentStatus {
        match self {
            Self::Intent { .. } => PaymentStatus::Intent,
            Self::Authorised { .. } => PaymentStatus::Authorised,
            Self::Declined { .. } => PaymentStatus::Declined,
            Self::Captured { .. } => PaymentStatus::Captured,
            Self::Voided { .. } => PaymentStatus::Voided,
            Self::Refunded { .. } => PaymentStatus::Refunded,
        }
    }
}

/// The error for a transition that the state machine does not allow. Only a mistake in the
/// code of this service can cause this error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment that is {from} cannot become {to}")]
pub struct InvalidTransition {
    pub from: PaymentStatus,
    pub to: PaymentStatus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The id is derived from the order's id. The id is also the payment's idempotency key
    /// at the provider.
    pub id: PaymentId,
    pub user_id: UserId,
    pub amount: Money,
    /// `None` if the customer's personal data was erased.
    pub recipient: Option<Recipient>,
    /// `true` if one request authorises and captures the payment.
    pub capture_immediately: bool,
    /// The fingerprint of the request that created the payment. A later request with the
    /// same fingerprint is a repeat.
    pub fingerprint: Fingerprint,
    /// The trace context of the request that created the payment. The payment's events
    /// contain this trace context.
    pub trace: TraceContext,
    pub state: State,
    pub created_at: Timestamp,
    /// The time at which the state last changed.
    pub updated_at: Timestamp,
}

impl Payment {
    /// Creates a payment in the state `INTENT`, which must be stored before the provider is
    /// called.
    pub fn intent(request: PaymentRequest, trace: TraceContext, now: Timestamp) -> Self {
        let fingerprint = request.fingerprint();
        Self {
            id: PaymentId::of(request.order_id),
            user_id: request.user_id,
            amount: request.amount,
            recipient: Some(request.recipient),
            capture_immediately: request.capture_immediately,
            fingerprint,
            trace,
            state: State::Intent { method: request.method },
            created_at: now,
            updated_at: now,
        }
    }

    pub fn status(&self) -> PaymentStatus {
        self.state.status()
    }

    /// What the payment provider did last, as the metrics name it.
    pub fn result(&self) -> &'static str {
        match &self.state {
            State::Authorised { capture_refused: Some(_), .. } => "capture_refused",
            State::Intent { .. } => "intent",
            State::Authorised { .. } => "authorised",
            State::Declined { .. } => "declined",
            State::Captured { .. } => "captured",
            State::Voided { .. } => "voided",
            State::Refunded { .. } => "refunded",
        }
    }

    /// Returns the payment after its transition to `AUTHORISED`. `reference` is the
    /// provider's id of the charge.
    pub fn authorised(&self, reference: String, now: Timestamp) -> Result<Self, InvalidTransition> {
        match &self.state {
            State::Intent { .. } => Ok(self.with(State::Authorised { reference, capture_refused: None }, now)),
            _ => self.refuse(PaymentStatus::Authorised),
        }
    }

    /// Returns the payment after its transition to `DECLINED`. `reason` is the provider's
    /// code.
    pub fn declined(&self, reason: String, now: Timestamp) -> Result<Self, InvalidTransition> {
        match &self.state {
            State::Intent { .. } => Ok(self.with(State::Declined { reason }, now)),
            _ => self.refuse(PaymentStatus::Declined),
        }
    }

    /// Returns the payment with `reason`, the provider's code for the refusal of a capture.
    /// The payment stays `AUTHORISED`, because the provider holds the amount until the
    /// payment is cancelled.
    pub fn with_capture_refused(&self, reason: String, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Authorised { reference, .. } => {
                Ok(self.with(State::Authorised { reference, capture_refused: Some(reason) }, now))
            }
            _ => self.refuse(PaymentStatus::Authorised),
        }
    }

    /// Returns the payment after its transition to `CAPTURED`.
    pub fn captured(&self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Authorised { reference, .. } => Ok(self.with(State::Captured { reference }, now)),
            _ => self.refuse(PaymentStatus::Captured),
        }
    }

    /// Returns the payment after its transition to `VOIDED`.
    pub fn voided(&self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Authorised { reference, capture_refused } => {
                Ok(self.with(State::Voided { reference, capture_refused }, now))
            }
            _ => self.refuse(PaymentStatus::Voided),
        }
    }

    /// Returns the payment after its transition to `REFUNDED`.
    pub fn refunded(&self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Captured { reference } => Ok(self.with(State::Refunded { reference }, now)),
            _ => self.refuse(PaymentStatus::Refunded),
        }
    }

    fn with(&self, state: State, now: Timestamp) -> Self {
        Self { state, updated_at: now, ..self.clone() }
    }

    fn refuse(&self, to: PaymentStatus) -> Result<Self, InvalidTransition> {
        Err(InvalidTransition { from: self.status(), to })
    }

    /// Returns the amount that was captured and not refunded.
    pub fn net_captured(&self) -> Money {
        match self.state {
            State::Captured { .. } => self.amount,
            _ => Money::zero(self.amount.currency()),
        }
    }
}

/// The record that is stored under a payment's id: a payment or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentRecord {
    Payment(Box<Payment>),
    /// The payment was cancelled before its authorisation arrived. `Payments::authorise`
    /// refuses if it finds a tombstone, so that the payment is never authorised.
    Tombstone {
        id: PaymentId,
        /// The time of the cancellation.
        since: Timestamp,
    },
}

impl From<Payment> for PaymentRecord {
    fn from(payment: Payment) -> Self {
        Self::Payment(Box::new(payment))
    }
}

#[cfg(test)]
mod tests {
    use chassis::money::{Currency, MAX_MINOR_UNITS};
    use proptest::prelude::*;
    use strum::VariantArray;

    use super::*;

    fn request(minor: u64, token: Option<&str>) -> PaymentRequest {
        PaymentRequest {
            order_id: OrderId::from_uuid(uuid::Uuid::from_u128(7)),
            user_id: UserId::from_uuid(uuid::Uuid::from_u128(8)),
            amount: Money::from_minor(minor, Currency::USD).unwrap(),
            method: token.map(|token| token.parse().unwrap()),
            recipient: Recipient { name: "Ada".parse().unwrap(), email: "ada@example.com".parse().ok(), phone: None },
            capture_immediately: false,
        }
    }

    fn intent(minor: u64) -> Payment {
        Payment::intent(request(minor, None), TraceContext::start(), Timestamp::UNIX_EPOCH)
    }

    /// A transition that a test attempts.
    #[derive(Clone, Copy, Debug)]
    enum Attempt {
        Authorise,
        Decline,
        RefuseCapture,
        Capture,
        Void,
        Refund,
    }

    impl Attempt {
        fn run(self, payment: &Payment) -> Result<Payment, InvalidTransition> {
            let now = Timestamp::UNIX_EPOCH;
            match self {
                Self::Authorise => payment.authorised("r".into(), now),
                Self::Decline => payment.declined("card_declined".into(), now),
                Self::RefuseCapture => payment.with_capture_refused("no".into(), now),
                Self::Capture => payment.captured(now),
                Self::Void => payment.voided(now),
                Self::Refund => payment.refunded(now),
            }
        }
    }

    fn any_attempts() -> impl Strategy<Value = Vec<Attempt>> {
        let attempt = prop::sample::select(vec![
            Attempt::Authorise,
            Attempt::Decline,
            Attempt::RefuseCapture,
            Attempt::Capture,
            Attempt::Void,
            Attempt::Refund,
        ]);
        prop::collection::vec(attempt, 0..40)
    }

    #[test]
    fn the_state_machine_has_exactly_the_documented_transitions() {
        use PaymentStatus::*;
        let edges = [
            (Intent, Authorised),
            (Intent, Declined),
            (Authorised, Captured),
            (Authorised, Voided),
            (Captured, Refunded),
        ];
        for from in PaymentStatus::VARIANTS.iter().copied() {
            for to in PaymentStatus::VARIANTS.iter().copied() {
                assert_eq!(from.can_transition_to(to), edges.contains(&(from, to)), "{from} to {to}");
            }
        }
    }

    #[test]
    fn serialisation_and_as_str_give_a_status_the_same_name() {
        for status in PaymentStatus::VARIANTS.iter().copied() {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn a_payment_and_its_order_share_a_uuid() {
        let order = OrderId::generate();
        assert_eq!(PaymentId::of(order).order(), order);
        assert_eq!(PaymentId::of(order).to_string()[4..], order.to_string()[4..]);
    }

    #[test]
    fn debug_output_shows_neither_the_token_nor_the_recipient() {
        let printed =
            format!("{:?}", Payment::intent(request(1, Some("tok_x")), TraceContext::start(), Timestamp::UNIX_EPOCH));
        assert!(!printed.contains("tok_x") && !printed.contains("Ada") && !printed.contains("ada@"), "{printed}");
    }

    #[test]
    fn a_malformed_token_is_refused() {
        for token in ["", "tok accepted", "tok\n", "tök", &"x".repeat(129)] {
            assert_eq!(token.parse::<PaymentMethod>(), Err(InvalidPaymentMethod), "{token}");
        }
        assert!("x".repeat(128).parse::<PaymentMethod>().is_ok());
    }

    #[test]
    fn the_fingerprint_covers_every_member_except_the_recipient() {
        let same = request(5997, Some("tok_a"));
        let fingerprint = same.fingerprint();
        let mut renamed = same.clone();
        renamed.recipient.name = "Countess".parse().unwrap();
        assert_eq!(renamed.fingerprint(), fingerprint);
        let others = [
            request(5998, Some("tok_a")),
            request(5997, Some("tok_b")),
            request(5997, None),
            PaymentRequest { capture_immediately: true, ..same.clone() },
            PaymentRequest { user_id: UserId::generate(), ..same.clone() },
            PaymentRequest { order_id: OrderId::generate(), ..same.clone() },
            PaymentRequest { amount: Money::from_minor(5997, "EUR".parse().unwrap()).unwrap(), ..same },
        ];
        for other in others {
            assert_ne!(other.fingerprint(), fingerprint, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn only_transitions_of_the_state_machine_succeed(minor in 1..=MAX_MINOR_UNITS, attempts in any_attempts()) {
            let mut payment = intent(minor);
            for attempt in attempts {
                match attempt.run(&payment) {
                    Ok(next) => {
                        let keeps_state = matches!(attempt, Attempt::RefuseCapture);
                        let is_allowed = keeps_state || payment.status().can_transition_to(next.status());
                        prop_assert!(is_allowed, "{attempt:?} of {payment:?}");
                        prop_assert!(!keeps_state || payment.status() == next.status());
                        payment = next;
                    }
                    Err(error) => prop_assert_eq!(error.from, payment.status()),
                }
            }
        }

        #[test]
        fn at_most_the_authorised_amount_is_captured_and_nothing_remains_captured_after_a_refund(
            minor in 1..=MAX_MINOR_UNITS,
            attempts in any_attempts(),
        ) {
            let mut payment = intent(minor);
            let mut authorised = 0;
            for attempt in attempts {
                payment = attempt.run(&payment).unwrap_or(payment);
                if payment.status() == PaymentStatus::Authorised {
                    authorised = minor;
                }
                prop_assert_eq!(payment.amount.minor(), minor);
                prop_assert!(payment.net_captured().minor() <= authorised);
                prop_assert!(payment.net_captured().minor() == 0 || payment.status() == PaymentStatus::Captured);
            }
        }
    }
}
