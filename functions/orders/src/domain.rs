//! What an order is, and how it may move.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use chassis::{
    contact::{Email, Phone, VerifiedContact},
    fields::FieldError,
    id::UserId,
    money::{Currency, Money},
    trace::TraceContext,
    typed_id,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

typed_id!(
    /// An order. Version 7, so that a customer's orders sort by time.
    OrderId,
    "ord"
);
typed_id!(
    /// A product, as the products service names it.
    ProductId,
    "prod"
);
typed_id!(
    /// A payment, as the payments service names it.
    PaymentId,
    "pay"
);

impl OrderId {
    /// The payment of this order. Derived, not assigned: whoever lost the
    /// answer to an authorisation can still cancel it.
    pub fn payment(self) -> PaymentId {
        PaymentId::from_uuid(self.uuid())
    }
}

/// The most lines of an order. Reserving takes one action a line and one for
/// the reservation, and DynamoDB's transactions take 100.
pub const MAX_LINES: usize = 50;
/// The most pieces of one product in an order.
pub const MAX_QUANTITY: u32 = 1000;
/// The most characters of a payment token.
pub const MAX_TOKEN: usize = 128;
/// How long an order may stay undecided before it is cancelled.
pub const DECIDE_WITHIN: Duration = Duration::from_secs(120);
/// How long whoever works on an order has it to itself. Only avoids double
/// work: safety comes from the conditions of the writes.
pub const LEASE: Duration = Duration::from_secs(30);

/// How many pieces: 1 to [`MAX_QUANTITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Quantity(u32);

/// Why a number is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to {MAX_QUANTITY}")]
pub struct InvalidQuantity;

impl Quantity {
    /// One piece.
    pub const ONE: Self = Self(1);
}

impl TryFrom<u32> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(number: u32) -> Result<Self, InvalidQuantity> {
        if (1..=MAX_QUANTITY).contains(&number) { Ok(Self(number)) } else { Err(InvalidQuantity) }
    }
}

impl TryFrom<i64> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(number: i64) -> Result<Self, InvalidQuantity> {
        u32::try_from(number).map_err(|_| InvalidQuantity)?.try_into()
    }
}

impl From<Quantity> for u32 {
    fn from(quantity: Quantity) -> u32 {
        quantity.0
    }
}

/// What is wanted: a product, so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The product.
    pub product_id: ProductId,
    /// How many pieces.
    pub quantity: Quantity,
}

/// What an order asks for: 1 to [`MAX_LINES`] products, each once, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Basket(Vec<Item>);

impl Basket {
    /// From the lines as the client wrote them; lines of one product are
    /// merged. Names every bad field. A line that could not be read is `None`:
    /// it makes no basket, and needs no second error.
    pub fn of(lines: impl IntoIterator<Item = Option<Item>>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut merged: BTreeMap<ProductId, u32> = BTreeMap::new();
        let (mut count, mut is_whole) = (0, true);
        for (index, line) in lines.into_iter().enumerate() {
            count += 1;
            let Some(Item { product_id, quantity }) = line else {
                is_whole = false;
                continue;
            };
            let total = merged.entry(product_id).or_default();
            *total += quantity.0;
            if *total > MAX_QUANTITY {
                let detail = format!("together with other lines of this product {InvalidQuantity}");
                errors.push(FieldError::new(format!("items[{index}].quantity"), detail));
            }
        }
        if !(1..=MAX_LINES).contains(&count) {
            errors.push(FieldError::new("items", format!("must have from 1 to {MAX_LINES} lines")));
        }
        if !is_whole || !errors.is_empty() {
            return Err(errors);
        }
        let item = |(product_id, quantity)| Item { product_id, quantity: Quantity(quantity) };
        Ok(Self(merged.into_iter().map(item).collect()))
    }

    /// The merged lines.
    pub fn items(&self) -> &[Item] {
        &self.0
    }
}

/// A payment token from the provider's own form: whoever has it can charge.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentMethod(String);

/// Why a text is no payment token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a payment token: 1 to {MAX_TOKEN} letters, digits, `_` or `-`")]
pub struct InvalidPaymentMethod;

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

/// Whom events about the order are for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// What to call them.
    pub name: String,
    /// Where to write to. There may be no address: the user pool verified it
    /// for somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Where to send a text message to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient(redacted)")
    }
}

/// A line with the price that the products service quoted when it reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricedLine {
    /// The product.
    pub product_id: ProductId,
    /// Its name at the time.
    pub name: String,
    /// How many pieces.
    pub quantity: Quantity,
    /// Price of one piece.
    pub unit_price: Money,
    /// Price of them all.
    pub line_total: Money,
}

/// What the order costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The lines.
    pub lines: Vec<PricedLine>,
    /// Their sum: what is authorised and captured.
    pub total: Money,
}

/// Which prices the customer was shown, as far as the client says so. An order
/// whose prices are others is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPrices {
    /// The currency of all prices.
    pub currency: Currency,
    /// The price of one piece of some of the products.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unit_prices: BTreeMap<ProductId, Money>,
    /// The price of the whole order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
}

impl ShownPrices {
    /// Whether the customer was shown what `quote` says.
    fn agree_with(&self, quote: &Quote) -> bool {
        let is_unchanged =
            |line: &PricedLine| self.unit_prices.get(&line.product_id).is_none_or(|shown| *shown == line.unit_price);
        quote.total.currency() == self.currency
            && self.total.is_none_or(|shown| shown == quote.total)
            && quote.lines.iter().all(is_unchanged)
    }
}

/// What a customer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// Which products, and how many of each.
    pub basket: Basket,
    /// Which prices the customer was shown, as far as the client says so.
    pub shown: Option<ShownPrices>,
    /// Paid how; the provider's default for this customer if not given.
    pub payment_method: Option<PaymentMethod>,
}

/// Where an order stands.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", parse_err_ty = InvalidState, parse_err_fn = InvalidState::of)]
pub enum OrderState {
    /// Undecided.
    Pending,
    /// Stock is reserved, the payment authorised: it will be done.
    Confirmed,
    /// Paid for, and announced.
    Done,
    /// Is being undone: stock goes back, the payment is voided or refunded.
    Cancelling,
    /// Nothing is left of it.
    Cancelled,
}

/// Why a text names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", OrderState::VARIANTS.iter().map(|state| state.name()).collect::<Vec<_>>().join(", "))]
pub struct InvalidState;

impl InvalidState {
    fn of(_: &str) -> Self {
        Self
    }
}

impl OrderState {
    /// As it is written in JSON and in the table.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether an order may go from here to there. No way leads back, so a
    /// write that is conditional on the state it leaves happens at most once.
    pub fn may_become(self, next: Self) -> bool {
        use OrderState::{Cancelled, Cancelling, Confirmed, Done, Pending};
        matches!(
            (self, next),
            (Pending, Confirmed | Cancelling)
                | (Confirmed, Done | Cancelling)
                | (Done, Cancelling)
                | (Cancelling, Cancelled)
        )
    }

    /// Whether something remains to be done without the customer's doing.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Cancelled)
    }
}

/// A line that can't be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// The product.
    pub product_id: ProductId,
    /// How many were wanted.
    pub requested: u32,
    /// How many there are.
    pub available: u32,
}

/// Why an order is not, or no longer, carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(tag = "code", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Refusal {
    /// The customer has no profile.
    UserNotFound,
    /// The customer was deactivated.
    UserInactive,
    /// Products that don't exist.
    UnknownProduct {
        /// Which.
        products: Vec<ProductId>,
    },
    /// Products that are priced in different currencies.
    MixedCurrencies,
    /// Not enough of some products.
    OutOfStock {
        /// Of which.
        lines: Vec<Shortage>,
    },
    /// A price is not the one that the customer was shown.
    PriceChanged {
        /// The prices that hold now.
        quote: Quote,
    },
    /// The provider refused the authorisation.
    PaymentDeclined {
        /// The provider's word for it.
        reason: String,
    },
    /// The provider refused to capture what it had authorised, for good.
    CaptureRefused,
    /// It could not be decided within [`DECIDE_WITHIN`].
    TimedOut,
    /// The customer cancelled it.
    CustomerRequest,
    /// An administrator cancelled it.
    CancelledByShop,
}

impl Refusal {
    /// The stable code: in answers, in events, in the history.
    pub fn code(&self) -> &'static str {
        self.into()
    }
}

/// What a step of the saga found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Nothing that must be remembered.
    Nothing,
    /// Whom to write to.
    Recipient(Recipient),
    /// What it costs.
    Quote(Quote),
}

/// When the order came to a state, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The state it came to.
    pub status: OrderState,
    /// When.
    pub at: Timestamp,
    /// Why, if it is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to the request that placed the order, kept so that a repeat of
/// the request gets the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Who works on an order, and until when the others leave it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Unique to one piece of work.
    pub owner: String,
    /// When it ends by itself.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub until: Timestamp,
}

impl Lease {
    /// A new lease from `now`.
    pub fn start(now: Timestamp) -> Self {
        Self { owner: uuid::Uuid::now_v7().to_string(), until: now + LEASE }
    }
}

/// What a later version of the code has written down of an order: this one keeps
/// it, since it writes orders as a whole.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Later(serde_json::Map<String, serde_json::Value>);

/// Nobody here knows whose data it is.
impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Later(redacted)")
    }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub user_id: UserId,
    /// What is wanted.
    pub basket: Basket,
    /// Where it stands.
    pub state: OrderState,
    /// Version of the step table it was begun with.
    pub saga_version: u32,
    /// With what to pay. Kept only while undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<PaymentMethod>,
    /// Which prices the customer was shown. Kept only while undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<ShownPrices>,
    /// How the customer can be reached, as the token of the order's request
    /// said. Kept until the users service has heard it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<VerifiedContact>,
    /// Whom to write to, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Recipient>,
    /// The customer's personal data is erased, and must not be written again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_erased: bool,
    /// What it costs, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Quote>,
    /// When it passed the pivot, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// Why it is undone, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The answer, once decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The request that placed the order has answered with the refusal, so
    /// nobody needs a message about it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_customer_told: bool,
    /// Every state it came to.
    pub history: Vec<HistoryEntry>,
    /// When it was placed.
    pub created_at: Timestamp,
    /// When it moved last.
    pub updated_at: Timestamp,
    /// Who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// When the sweep should look at it; absent once it is at an end.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "jiff::fmt::serde::timestamp::millisecond::optional"
    )]
    pub next_check: Option<Timestamp>,
    /// How often the worker failed to take it further.
    #[serde(default)]
    pub failures: u32,
    /// The trace of the request that placed it.
    pub trace: TraceContext,
    /// What else is stored of it.
    #[serde(flatten)]
    pub later: Later,
}

/// Why a move was not made: it would be none that [`OrderState::may_become`]
/// allows. A bug wherever it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an order can't go from {from} to {to}")]
pub struct IllegalMove {
    from: OrderState,
    to: OrderState,
}

impl Order {
    /// A new order, leased to whoever places it.
    pub fn place(
        user_id: UserId,
        contact: VerifiedContact,
        purchase: Purchase,
        saga_version: u32,
        trace: TraceContext,
        now: Timestamp,
    ) -> Self {
        let Purchase { basket, shown, payment_method } = purchase;
        let lease = Lease::start(now);
        Self {
            id: OrderId::generate(),
            user_id,
            basket,
            state: OrderState::Pending,
            saga_version,
            payment_method,
            shown,
            contact: Some(contact),
            recipient: None,
            is_erased: false,
            quote: None,
            confirmed_at: None,
            refusal: None,
            answer: None,
            is_customer_told: false,
            history: vec![HistoryEntry { status: OrderState::Pending, at: now, reason: None }],
            created_at: now,
            updated_at: now,
            next_check: Some(lease.until),
            lease: Some(lease),
            failures: 0,
            trace,
            later: Later::default(),
        }
    }

    /// The quote, if the order may be placed at its prices.
    ///
    /// # Errors
    ///
    /// If the customer was shown other prices.
    pub fn accept(&self, quote: Quote) -> Result<Quote, Refusal> {
        match &self.shown {
            Some(shown) if !shown.agree_with(&quote) => Err(Refusal::PriceChanged { quote }),
            _ => Ok(quote),
        }
    }

    /// Remembers what a step found out.
    pub fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Nothing => {}
            Fact::Recipient(recipient) => self.recipient = Some(recipient),
            Fact::Quote(quote) => self.quote = Some(quote),
        }
    }

    /// The order past the pivot.
    pub fn confirmed(self, now: Timestamp) -> Result<Self, IllegalMove> {
        Ok(Self { confirmed_at: Some(now), ..self.moved(OrderState::Confirmed, None, now)? })
    }

    /// The order at its good end.
    pub fn done(self, now: Timestamp) -> Result<Self, IllegalMove> {
        self.moved(OrderState::Done, None, now)
    }

    /// The order on its way back.
    pub fn cancelling(self, refusal: Refusal, now: Timestamp) -> Result<Self, IllegalMove> {
        let moved = self.moved(OrderState::Cancelling, Some(refusal.code()), now)?;
        Ok(Self { refusal: Some(refusal), ..moved })
    }

    /// The order at its other end.
    pub fn cancelled(self, now: Timestamp) -> Result<Self, IllegalMove> {
        self.moved(OrderState::Cancelled, None, now)
    }

    fn moved(mut self, to: OrderState, reason: Option<&str>, now: Timestamp) -> Result<Self, IllegalMove> {
        if !self.state.may_become(to) {
            return Err(IllegalMove { from: self.state, to });
        }
        self.state = to;
        self.history.push(HistoryEntry { status: to, at: now, reason: reason.map(str::to_owned) });
        self.updated_at = now;
        self.failures = 0;
        // Whatever comes after the decision needs neither of these again.
        self.payment_method = None;
        self.shown = None;
        if self.recipient.is_some() || !to.is_open() {
            self.contact = None;
        }
        if !to.is_open() {
            self.lease = None;
            self.next_check = None;
        }
        Ok(self)
    }

    /// Since when it has been open without a break: since it was placed, or
    /// since a finished order was cancelled.
    pub fn open_since(&self) -> Timestamp {
        let mut since = self.created_at;
        for pair in self.history.windows(2) {
            if !pair[0].status.is_open() {
                since = pair[1].at;
            }
        }
        since
    }

    /// Whether it was confirmed and OrderCreated may not be out yet: `DONE`
    /// comes after that.
    pub fn awaits_announcement(&self) -> bool {
        self.confirmed_at.is_some() && self.history.iter().all(|entry| entry.status != OrderState::Done)
    }

    /// Whether somebody is working on it at the moment.
    pub fn is_leased(&self, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.until > now)
    }

    /// Whether it has waited too long for a decision.
    pub fn is_past_decision(&self, now: Timestamp) -> bool {
        now >= self.decide_by()
    }

    /// When it is given up if it is still undecided.
    pub fn decide_by(&self) -> Timestamp {
        self.created_at + DECIDE_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(product_id: ProductId, quantity: u32) -> Option<Item> {
        Some(Item { product_id, quantity: quantity.try_into().unwrap() })
    }

    fn order() -> Order {
        let basket = Basket::of([line(ProductId::generate(), 1)]).unwrap();
        let customer = UserId::generate();
        let token = "tok_accepted".parse().unwrap();
        let contact = VerifiedContact { email: "ada@example.com".parse().ok(), ..VerifiedContact::UNKNOWN };
        let purchase = Purchase { basket, shown: None, payment_method: Some(token) };
        Order::place(customer, contact, purchase, 1, TraceContext::start(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn no_way_leads_back_to_a_state_that_was_left() {
        fn reachable(from: OrderState, seen: &mut Vec<OrderState>) {
            for next in OrderState::VARIANTS.iter().copied().filter(|next| from.may_become(*next)) {
                seen.push(next);
                reachable(next, seen);
            }
        }
        for state in OrderState::VARIANTS.iter().copied() {
            let mut seen = Vec::new();
            reachable(state, &mut seen);
            assert!(!seen.contains(&state), "{state}");
        }
    }

    #[test]
    fn every_open_state_has_a_way_to_an_end_and_the_ends_have_only_cancellation() {
        for state in OrderState::VARIANTS.iter().copied() {
            let ways: Vec<_> = OrderState::VARIANTS.iter().copied().filter(|next| state.may_become(*next)).collect();
            match state {
                OrderState::Cancelled => assert!(ways.is_empty()),
                OrderState::Done => assert_eq!(ways, [OrderState::Cancelling]),
                _ => assert!(!ways.is_empty()),
            }
        }
    }

    #[test]
    fn the_payment_token_is_gone_once_the_order_is_decided() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(order().confirmed(now).unwrap().payment_method.is_none());
        assert!(order().cancelling(Refusal::TimedOut, now).unwrap().payment_method.is_none());
    }

    #[test]
    fn contact_details_are_kept_until_the_recipient_is_known_or_the_order_is_at_an_end() {
        let now = Timestamp::UNIX_EPOCH;
        let unknown = order().cancelling(Refusal::TimedOut, now).unwrap();
        assert!(unknown.contact.is_some());
        assert!(unknown.cancelled(now).unwrap().contact.is_none());
        let mut known = order();
        known.learn(Fact::Recipient(Recipient { name: "Ada".into(), email: None, phone: None }));
        assert!(known.confirmed(now).unwrap().contact.is_none());
    }

    fn usd(minor: u64) -> Money {
        Money::from_minor(minor, Currency::USD).unwrap()
    }

    #[test]
    fn a_quote_is_accepted_if_it_is_what_the_customer_was_shown_as_far_as_the_client_says() {
        let mut order = order();
        let product_id = order.basket.items()[0].product_id;
        let line = PricedLine {
            product_id,
            name: "Mug".into(),
            quantity: Quantity(2),
            unit_price: usd(1000),
            line_total: usd(2000),
        };
        let quote = Quote { lines: vec![line], total: usd(2000) };
        assert_eq!(order.accept(quote.clone()), Ok(quote.clone()));
        let shown = |unit_price: Option<Money>, total: Option<Money>| ShownPrices {
            currency: Currency::USD,
            unit_prices: unit_price.map(|price| (product_id, price)).into_iter().collect(),
            total,
        };
        for good in [shown(Some(usd(1000)), None), shown(None, Some(usd(2000))), shown(None, None)] {
            order.shown = Some(good);
            assert_eq!(order.accept(quote.clone()), Ok(quote.clone()), "{:?}", order.shown);
        }
        let euros = ShownPrices { currency: "EUR".parse().unwrap(), ..shown(None, None) };
        for bad in [shown(Some(usd(999)), Some(usd(2000))), shown(Some(usd(1000)), Some(usd(2001))), euros] {
            order.shown = Some(bad);
            assert_eq!(order.accept(quote.clone()), Err(Refusal::PriceChanged { quote: quote.clone() }));
        }
        assert!(order.confirmed(Timestamp::UNIX_EPOCH).unwrap().shown.is_none());
    }

    #[test]
    fn an_order_at_an_end_is_leased_to_nobody_and_checked_no_more() {
        let now = Timestamp::UNIX_EPOCH;
        let done = order().confirmed(now).unwrap().done(now).unwrap();
        assert!(done.lease.is_none() && done.next_check.is_none());
        let cancelled = order().cancelling(Refusal::TimedOut, now).unwrap().cancelled(now).unwrap();
        assert!(cancelled.lease.is_none() && cancelled.next_check.is_none());
    }

    #[test]
    fn debug_output_says_that_something_is_there_but_not_what() {
        let recipient = Recipient { name: "Ada".into(), email: "ada@example.com".parse().ok(), phone: None };
        let mut order = order();
        order.learn(Fact::Recipient(recipient));
        let shown = format!("{order:?}");
        assert!(shown.contains("PaymentMethod(redacted)") && shown.contains("Recipient(redacted)"), "{shown}");
        // Told apart from the ids by what no hexadecimal number has.
        for secret in ["tok_accepted", "Ada", "ada@"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_payment_token_is_1_to_128_plain_characters() {
        for good in ["tok_1", "a-B_9", &"t".repeat(128)] {
            assert!(good.parse::<PaymentMethod>().is_ok(), "{good}");
        }
        for bad in ["", "tok 1", "tok.1", "tök", "tok\n", &"t".repeat(129)] {
            assert!(bad.parse::<PaymentMethod>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_has_one_name_wherever_it_is_written() {
        for state in OrderState::VARIANTS.iter().copied() {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            assert_eq!(state.to_string(), state.name());
        }
    }

    #[test]
    fn a_lease_keeps_others_away_until_the_moment_it_ends() {
        let now = Timestamp::UNIX_EPOCH;
        let mut order = order();
        assert!(order.is_leased(now) && order.is_leased(now + LEASE - Duration::from_millis(1)));
        assert!(!order.is_leased(now + LEASE));
        order.lease = None;
        assert!(!order.is_leased(now));
    }

    #[test]
    fn an_order_is_open_since_it_was_placed_or_since_it_was_cancelled_when_done() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let confirmed = order().confirmed(at(5)).unwrap();
        assert_eq!(confirmed.open_since(), at(0));
        let cancelling = confirmed.clone().cancelling(Refusal::CaptureRefused, at(7)).unwrap();
        assert_eq!(cancelling.open_since(), at(0));
        let recalled = confirmed.done(at(6)).unwrap().cancelling(Refusal::CustomerRequest, at(9)).unwrap();
        assert_eq!(recalled.open_since(), at(9));
    }

    #[test]
    fn an_order_awaits_its_announcement_from_its_confirmation_until_it_is_done() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(!order().awaits_announcement());
        let confirmed = order().confirmed(now).unwrap();
        assert!(confirmed.awaits_announcement());
        assert!(confirmed.clone().cancelling(Refusal::CaptureRefused, now).unwrap().awaits_announcement());
        let done = confirmed.done(now).unwrap();
        assert!(!done.awaits_announcement());
        assert!(!done.cancelling(Refusal::CustomerRequest, now).unwrap().awaits_announcement());
        assert!(!order().cancelling(Refusal::TimedOut, now).unwrap().awaits_announcement());
    }

    #[test]
    fn the_most_pieces_of_a_product_are_counted_over_all_its_lines() {
        let id = ProductId::generate();
        let basket = Basket::of([line(id, 400), line(id, 600)]).unwrap();
        assert_eq!(u32::from(basket.items()[0].quantity), MAX_QUANTITY);
        assert!(Basket::of([line(id, 400), line(id, 601)]).is_err());
    }

    #[test]
    fn a_basket_names_every_bad_line() {
        let id = ProductId::generate();
        let errors = Basket::of([line(id, 1000), None, line(id, 1)]).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["items[2].quantity"]);
        assert_eq!(Basket::of([]).unwrap_err()[0].field, "items");
        // What could not be read has an error already.
        assert!(Basket::of([line(id, 1), None]).unwrap_err().is_empty());
    }

    proptest! {
        #[test]
        fn any_sequence_of_moves_stays_on_allowed_edges(moves in prop::collection::vec(0..4u8, 0..12)) {
            let now = Timestamp::UNIX_EPOCH;
            let mut order = order();
            for step in moves {
                let before = order.clone();
                let next = match step {
                    0 => order.clone().confirmed(now),
                    1 => order.clone().done(now),
                    2 => order.clone().cancelling(Refusal::CustomerRequest, now),
                    _ => order.clone().cancelled(now),
                };
                if let Ok(next) = next {
                    prop_assert!(before.state.may_become(next.state));
                    prop_assert_eq!(next.history.len(), before.history.len() + 1);
                    order = next;
                }
            }
            let states: Vec<_> = order.history.iter().map(|entry| entry.status).collect();
            prop_assert!(states.windows(2).all(|pair| pair[0].may_become(pair[1])));
        }

        #[test]
        fn merging_lines_keeps_every_products_quantity(lines in prop::collection::vec((0usize..5, 1u32..200), 1..6)) {
            let products: Vec<_> = (0..5).map(|_| ProductId::generate()).collect();
            let basket = Basket::of(lines.iter().map(|(i, q)| line(products[*i], *q))).unwrap();
            for (i, product) in products.iter().enumerate() {
                let wanted: u32 = lines.iter().filter(|(j, _)| *j == i).map(|(_, q)| q).sum();
                let found: u32 = basket.items().iter().filter(|item| item.product_id == *product).map(|item| u32::from(item.quantity)).sum();
                prop_assert_eq!(wanted, found);
            }
        }
    }
}
