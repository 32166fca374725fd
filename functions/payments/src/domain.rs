//! What a payment is, and what may become of it.

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
    /// An order, as this service knows it: what a payment is for.
    OrderId,
    "ord"
);

typed_id!(
    /// A payment.
    PaymentId,
    "pay"
);

impl PaymentId {
    /// The payment of `order`. An order has one, whose id derives from the
    /// order's: who lost the answer to an authorisation can still cancel it.
    pub const fn of(order: OrderId) -> Self {
        Self::from_uuid(order.uuid())
    }

    /// The order that is paid.
    pub const fn order(self) -> OrderId {
        OrderId::from_uuid(self.uuid())
    }
}

/// The most characters of a name.
const MAX_NAME: usize = 100;
/// The most characters of a payment token.
const MAX_TOKEN: usize = 128;

/// What the provider calls the customer's card or account. Whoever has it may
/// charge it, so it is printed nowhere, and kept no longer than it is needed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentMethod(String);

/// Why a text can't be a payment token. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a payment token: letters, digits, `_` and `-`, at most {MAX_TOKEN}")]
pub struct InvalidPaymentMethod;

impl PaymentMethod {
    /// The token itself, for the provider.
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

/// What a person is called, in one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(name: &str) -> Result<Self, InvalidText> {
        text::received(name, MAX_NAME).map(Self)
    }
}

/// Redacted, as all personal data is.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(redacted)")
    }
}

/// Whom to tell about the payment: goes into each event, so that its consumer
/// asks nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// What to call them.
    pub name: Name,
    /// Where to write. Not everybody has a verified address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Where to send a text message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
}

/// What a caller wants paid.
#[derive(Clone, Debug)]
pub struct PaymentRequest {
    /// For which order.
    pub order_id: OrderId,
    /// By whom.
    pub user_id: UserId,
    /// How much.
    pub amount: Money,
    /// With what; the customer's default method where nothing is said.
    pub method: Option<PaymentMethod>,
    /// Whom to tell.
    pub recipient: Recipient,
    /// Capture in the same request.
    pub capture_immediately: bool,
}

impl PaymentRequest {
    /// Tells a repeat from another request for the same order.
    ///
    /// The recipient is no part of it: somebody who changes their name between
    /// two tries still pays the same once.
    fn fingerprint(&self) -> Fingerprint {
        // Whoever adds a member is led here, and decides.
        let Self { order_id, user_id, amount, method, recipient: _, capture_immediately } = self;
        let method = method.as_ref().map_or("", PaymentMethod::expose);
        let (minor, currency) = (amount.minor(), amount.currency());
        // None of the parts contains a line break.
        let text = format!("{order_id}\n{user_id}\n{minor} {currency}\n{method}\n{capture_immediately}");
        Fingerprint(Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A digest of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

/// A state's name, as it is stored and shown.
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
    /// Written down before the provider is asked: its answer isn't known.
    Intent,
    /// The provider holds the money for us.
    Authorised,
    /// The provider refused. Nothing is held.
    Declined,
    /// The money is ours. Its event is out.
    Captured,
    /// The hold was given up. Nothing is held.
    Voided,
    /// Captured, and given back. Its event is out.
    Refunded,
    /// Cancelled before it came: a tombstone, which refuses an authorisation
    /// that arrives late.
    Cancelled,
}

impl PaymentStatus {
    /// The state machine: whether a payment in this state may come to `next`.
    pub fn can_transition_to(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Intent, Self::Authorised | Self::Declined)
                | (Self::Authorised, Self::Captured | Self::Voided)
                | (Self::Captured, Self::Refunded)
        )
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A state, and what is known in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// See [`PaymentStatus::Intent`].
    Intent {
        /// With what to pay: needed to ask the provider again, and only for that.
        method: Option<PaymentMethod>,
    },
    /// See [`PaymentStatus::Authorised`].
    Authorised {
        /// The provider's name for the charge.
        reference: String,
        /// Why the provider will never capture it.
        capture_refused: Option<String>,
    },
    /// See [`PaymentStatus::Declined`].
    Declined {
        /// The provider's reason.
        reason: String,
    },
    /// See [`PaymentStatus::Captured`].
    Captured {
        /// The provider's name for the charge.
        reference: String,
    },
    /// See [`PaymentStatus::Voided`].
    Voided {
        /// The provider's name for the charge.
        reference: String,
        /// Why the provider would not capture it, if that was asked.
        capture_refused: Option<String>,
    },
    /// See [`PaymentStatus::Refunded`].
    Refunded {
        /// The provider's name for the charge.
        reference: String,
    },
}

impl State {
    /// The state's name.
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

/// A step that the state machine doesn't have: a mistake in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// The state it is in.
    pub from: PaymentStatus,
    /// The state it should have got into.
    pub to: PaymentStatus,
}

/// A payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Derived from the order's id. Also the provider's idempotency key.
    pub id: PaymentId,
    /// Who pays.
    pub user_id: UserId,
    /// How much.
    pub amount: Money,
    /// Whom to tell. Nobody, once the customer's data is erased.
    pub recipient: Option<Recipient>,
    /// Authorised and captured in one request.
    pub capture_immediately: bool,
    /// What was asked for, to know a repeat.
    pub fingerprint: Fingerprint,
    /// The trace of the request that authorised it, for its events.
    pub trace: TraceContext,
    /// Where it is.
    pub state: State,
    /// When the intent was written.
    pub created_at: Timestamp,
    /// When the state changed last.
    pub updated_at: Timestamp,
}

impl Payment {
    /// What is written down before the provider is asked.
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

    /// The state's name.
    pub fn status(&self) -> PaymentStatus {
        self.state.status()
    }

    /// The provider holds the money, under the name `reference`.
    pub fn authorised(&self, reference: String, now: Timestamp) -> Result<Self, InvalidTransition> {
        match &self.state {
            State::Intent { .. } => Ok(self.with(State::Authorised { reference, capture_refused: None }, now)),
            _ => self.refuse(PaymentStatus::Authorised),
        }
    }

    /// The provider said no.
    pub fn declined(&self, reason: String, now: Timestamp) -> Result<Self, InvalidTransition> {
        match &self.state {
            State::Intent { .. } => Ok(self.with(State::Declined { reason }, now)),
            _ => self.refuse(PaymentStatus::Declined),
        }
    }

    /// The provider will never hand the money over. The payment stays
    /// authorised: the money is held until somebody cancels.
    pub fn with_capture_refused(&self, reason: String, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Authorised { reference, .. } => {
                Ok(self.with(State::Authorised { reference, capture_refused: Some(reason) }, now))
            }
            _ => self.refuse(PaymentStatus::Authorised),
        }
    }

    /// The money is ours.
    pub fn captured(&self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Authorised { reference, .. } => Ok(self.with(State::Captured { reference }, now)),
            _ => self.refuse(PaymentStatus::Captured),
        }
    }

    /// The hold was given up.
    pub fn voided(&self, now: Timestamp) -> Result<Self, InvalidTransition> {
        match self.state.clone() {
            State::Authorised { reference, capture_refused } => {
                Ok(self.with(State::Voided { reference, capture_refused }, now))
            }
            _ => self.refuse(PaymentStatus::Voided),
        }
    }

    /// The money was given back.
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

    /// What we took and have not given back.
    pub fn net_captured(&self) -> Money {
        match self.state {
            State::Captured { .. } => self.amount,
            _ => Money::zero(self.amount.currency()),
        }
    }
}

/// What stands under a payment's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentRecord {
    /// A payment.
    Payment(Box<Payment>),
    /// Nothing but the will that there be none.
    Tombstone {
        /// Under which id.
        id: PaymentId,
        /// When it was cancelled.
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

    /// What may be tried with a payment.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Authorise,
        Decline,
        RefuseCapture,
        Capture,
        Void,
        Refund,
    }

    impl Step {
        fn attempt(self, payment: &Payment) -> Result<Payment, InvalidTransition> {
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

    fn any_steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop::sample::select(vec![
            Step::Authorise,
            Step::Decline,
            Step::RefuseCapture,
            Step::Capture,
            Step::Void,
            Step::Refund,
        ]);
        prop::collection::vec(step, 0..40)
    }

    #[test]
    fn the_state_machine_is_the_documented_one() {
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
    fn a_status_is_stored_and_shown_under_one_name() {
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
    fn a_token_is_never_printed() {
        let printed =
            format!("{:?}", Payment::intent(request(1, Some("tok_x")), TraceContext::start(), Timestamp::UNIX_EPOCH));
        assert!(!printed.contains("tok_x") && !printed.contains("Ada") && !printed.contains("ada@"), "{printed}");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for token in ["", "tok accepted", "tok\n", "tök", &"x".repeat(129)] {
            assert_eq!(token.parse::<PaymentMethod>(), Err(InvalidPaymentMethod), "{token}");
        }
        assert!("x".repeat(128).parse::<PaymentMethod>().is_ok());
    }

    #[test]
    fn each_part_that_decides_about_money_is_in_the_fingerprint_and_the_recipient_is_not() {
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
        fn whatever_is_tried_a_payment_goes_along_the_edges_only(minor in 1..=MAX_MINOR_UNITS, steps in any_steps()) {
            let mut payment = intent(minor);
            for step in steps {
                match step.attempt(&payment) {
                    Ok(next) => {
                        let noted = matches!(step, Step::RefuseCapture);
                        prop_assert!(noted || payment.status().can_transition_to(next.status()), "{step:?} of {payment:?}");
                        prop_assert!(!noted || payment.status() == next.status());
                        payment = next;
                    }
                    Err(no) => prop_assert_eq!(no.from, payment.status()),
                }
            }
        }

        #[test]
        fn never_is_more_kept_than_was_authorised_and_nothing_once_it_is_undone(
            minor in 1..=MAX_MINOR_UNITS,
            steps in any_steps(),
        ) {
            let mut payment = intent(minor);
            let mut authorised = 0;
            for step in steps {
                payment = step.attempt(&payment).unwrap_or(payment);
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
