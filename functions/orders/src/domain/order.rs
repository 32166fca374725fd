//! An order, and the changes that each transition makes to the order.

use std::fmt;

use chassis::{contact::VerifiedContact, id::UserId, time_limits::DECIDE_WITHIN, trace::TraceContext};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    answer::RecordedAnswer,
    cancellation::CancellationReason,
    history::{History, HistoryEntry},
    ids::OrderId,
    lease::Lease,
    lines::OrderLines,
    payment_method::PaymentMethod,
    prices::{Quote, ShownPrices},
    purchase::Purchase,
    recipient::Recipient,
    state::{IllegalTransition, OrderState},
};

/// The output of a step of the saga. The order stores the output for later steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutput {
    Nothing,
    Recipient(Recipient),
    Quote(Quote),
}

/// The members of a stored order that this version of the code does not know, because a later version added them. Every
/// write replaces the whole order, so unknown members must be kept and written again.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnknownMembers(serde_json::Map<String, serde_json::Value>);

/// Shows no content, because unknown members may contain personal data.
impl fmt::Debug for UnknownMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnknownMembers(redacted)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    /// The customer.
    pub user_id: UserId,
    pub lines: OrderLines,
    pub state: OrderState,
    /// The version of the saga with which the order was placed.
    pub saga_version: u32,
    /// The customer's payment token. It is kept until the order is decided.
    pub payment_method: Option<PaymentMethod>,
    /// The prices that the customer was shown. They are kept until the order is decided.
    pub shown_prices: Option<ShownPrices>,
    /// The contact details in the token of the customer who placed the order. They are kept until the users service has
    /// received them.
    pub contact: Option<VerifiedContact>,
    /// The output of the step "validate user".
    pub recipient: Option<Recipient>,
    /// `true` once the customer's personal data was erased. The data must not be written again.
    pub is_erased: bool,
    /// The output of the step "reserve stock".
    pub quote: Option<Quote>,
    pub cancellation_reason: Option<CancellationReason>,
    /// What is stored of the response to the request that placed the order. Present once the order is decided.
    pub answer: Option<RecordedAnswer>,
    /// `true` if the response to the request that placed the order reports the refusal, so that the customer needs no
    /// message about the refusal.
    pub is_refusal_answered: bool,
    pub history: History,
    pub lease: Option<Lease>,
    /// `true` if the lease belongs to the worker that the write of this order wakes: that worker needs no write to take
    /// it.
    pub is_handed_over: bool,
    /// From this time on, the sweep works on the order. Absent once the order is done or cancelled.
    pub next_check: Option<Timestamp>,
    /// The number of times since the last transition that the worker failed to finish the order.
    pub failures: u32,
    /// The trace of the request that placed the order.
    pub trace: TraceContext,
    pub unknown_members: UnknownMembers,
}

impl Order {
    /// Returns a new pending order with a lease for the request that places the order.
    pub fn place(
        user_id: UserId,
        contact: VerifiedContact,
        purchase: Purchase,
        saga_version: u32,
        trace: TraceContext,
        now: Timestamp,
    ) -> Self {
        let Purchase { lines, shown_prices, payment_method } = purchase;
        let lease = Lease::start(now);
        Self {
            id: OrderId::generate(),
            user_id,
            lines,
            state: OrderState::Pending,
            saga_version,
            payment_method,
            shown_prices,
            contact: Some(contact),
            recipient: None,
            is_erased: false,
            quote: None,
            cancellation_reason: None,
            answer: None,
            is_refusal_answered: false,
            history: History::begin(now),
            next_check: Some(lease.until),
            lease: Some(lease),
            is_handed_over: false,
            failures: 0,
            trace,
            unknown_members: UnknownMembers::default(),
        }
    }

    /// Returns `quote` unless its prices differ from prices that the customer was shown.
    ///
    /// # Errors
    ///
    /// If the customer was shown other prices.
    pub fn accept(&self, quote: Quote) -> Result<Quote, CancellationReason> {
        match &self.shown_prices {
            Some(shown) if !shown.agree_with(&quote) => Err(CancellationReason::PriceChanged { quote }),
            _ => Ok(quote),
        }
    }

    /// Stores the output of a step in the order.
    pub fn apply(&mut self, output: StepOutput) {
        match output {
            StepOutput::Nothing => {}
            StepOutput::Recipient(recipient) => self.recipient = Some(recipient),
            StepOutput::Quote(quote) => self.quote = Some(quote),
        }
    }

    pub fn confirmed(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        self.transitioned(OrderState::Confirmed, None, now)
    }

    pub fn done(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        self.transitioned(OrderState::Done, None, now)
    }

    pub fn cancelling(self, reason: CancellationReason, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.transitioned(OrderState::Cancelling, Some(reason.code()), now)?;
        Ok(Self { cancellation_reason: Some(reason), ..next })
    }

    pub fn cancelled(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        self.transitioned(OrderState::Cancelled, None, now)
    }

    fn transitioned(mut self, to: OrderState, reason: Option<&str>, now: Timestamp) -> Result<Self, IllegalTransition> {
        if !self.state.may_become(to) {
            return Err(IllegalTransition { from: self.state, to });
        }
        self.state = to;
        self.history.push(HistoryEntry { status: to, at: now, reason: reason.map(str::to_owned) });
        self.failures = 0;
        self.is_handed_over = false;
        // After its first transition, an order is no longer `PENDING`. Only the steps of a `PENDING` order use the
        // payment method and the shown prices.
        self.payment_method = None;
        self.shown_prices = None;
        if self.recipient.is_some() || !to.is_open() {
            self.contact = None;
        }
        if !to.is_open() {
            self.lease = None;
            self.next_check = None;
        }
        Ok(self)
    }

    /// Gives the order a lease that belongs to the worker which the write of the order wakes.
    pub fn hand_over(&mut self, now: Timestamp) {
        self.lease = Some(Lease::start(now));
        self.is_handed_over = true;
    }

    /// Returns the time at which the order was placed.
    pub fn created_at(&self) -> Timestamp {
        self.history.created_at()
    }

    /// Returns the time of the last transition.
    pub fn updated_at(&self) -> Timestamp {
        self.history.updated_at()
    }

    /// Returns the time at which the order passed the pivot.
    pub fn confirmed_at(&self) -> Option<Timestamp> {
        self.history.up_to_confirmation().map(|history| history.updated_at())
    }

    /// Returns the time since which the order has been open: the time at which the order was placed or, if a done order
    /// was cancelled, the time of that cancellation.
    pub fn open_since(&self) -> Timestamp {
        let mut since = self.created_at();
        for pair in self.history.windows(2) {
            if !pair[0].status.is_open() {
                since = pair[1].at;
            }
        }
        since
    }

    /// Returns whether the order was confirmed, but the event `OrderCreated` is perhaps not published yet. If the order
    /// was ever `DONE`, the event is published, because an order becomes `DONE` only after that step.
    pub fn awaits_announcement(&self) -> bool {
        self.confirmed_at().is_some() && self.history.iter().all(|entry| entry.status != OrderState::Done)
    }

    pub fn is_leased(&self, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.until > now)
    }

    /// Returns the time from which an undecided order is cancelled instead of decided.
    pub fn decision_deadline(&self) -> Timestamp {
        self.created_at() + DECIDE_WITHIN
    }

    pub fn is_past_decision_deadline(&self, now: Timestamp) -> bool {
        now >= self.decision_deadline()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis::{
        money::{Currency, Money},
        time_limits::ORDER_LEASE,
    };
    use proptest::prelude::*;

    use super::{
        super::{OrderLine, PricedLine, ProductId, Quantity},
        *,
    };

    fn order() -> Order {
        let line = OrderLine { product_id: ProductId::generate(), quantity: Quantity::ONE };
        let lines = OrderLines::merge([Some(line)]).unwrap();
        let token = "tok_accepted".parse().unwrap();
        let contact = VerifiedContact { email: "ada@example.com".parse().ok(), ..VerifiedContact::UNKNOWN };
        let purchase = Purchase { lines, shown_prices: None, payment_method: Some(token) };
        Order::place(UserId::generate(), contact, purchase, 1, TraceContext::start(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_decided_order_has_no_payment_token() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(order().confirmed(now).unwrap().payment_method.is_none());
        assert!(order().cancelling(CancellationReason::TimedOut, now).unwrap().payment_method.is_none());
    }

    #[test]
    fn contact_details_are_kept_until_the_recipient_is_known_or_the_order_is_in_a_final_state() {
        let now = Timestamp::UNIX_EPOCH;
        let unknown = order().cancelling(CancellationReason::TimedOut, now).unwrap();
        assert!(unknown.contact.is_some());
        assert!(unknown.cancelled(now).unwrap().contact.is_none());
        let mut known = order();
        known.apply(StepOutput::Recipient(Recipient { name: "Ada".into(), email: None, phone: None }));
        assert!(known.confirmed(now).unwrap().contact.is_none());
    }

    fn usd(minor: u64) -> Money {
        Money::from_minor(minor, Currency::USD).unwrap()
    }

    #[test]
    fn a_quote_is_accepted_if_its_prices_are_the_shown_prices_that_the_client_sent() {
        let mut order = order();
        let product_id = order.lines.as_slice()[0].product_id;
        let line = PricedLine {
            product_id,
            name: "Mug".into(),
            quantity: 2_u32.try_into().unwrap(),
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
            order.shown_prices = Some(good);
            assert_eq!(order.accept(quote.clone()), Ok(quote.clone()), "{:?}", order.shown_prices);
        }
        let euros = ShownPrices { currency: "EUR".parse().unwrap(), ..shown(None, None) };
        for bad in [shown(Some(usd(999)), Some(usd(2000))), shown(Some(usd(1000)), Some(usd(2001))), euros] {
            order.shown_prices = Some(bad);
            assert_eq!(order.accept(quote.clone()), Err(CancellationReason::PriceChanged { quote: quote.clone() }));
        }
        assert!(order.confirmed(Timestamp::UNIX_EPOCH).unwrap().shown_prices.is_none());
    }

    #[test]
    fn an_order_in_a_final_state_has_no_lease_and_no_next_check() {
        let now = Timestamp::UNIX_EPOCH;
        let done = order().confirmed(now).unwrap().done(now).unwrap();
        assert!(done.lease.is_none() && done.next_check.is_none());
        let cancelled = order().cancelling(CancellationReason::TimedOut, now).unwrap().cancelled(now).unwrap();
        assert!(cancelled.lease.is_none() && cancelled.next_check.is_none());
    }

    #[test]
    fn debug_output_redacts_personal_data_and_the_payment_token() {
        let recipient = Recipient { name: "Ada".into(), email: "ada@example.com".parse().ok(), phone: None };
        let mut order = order();
        order.apply(StepOutput::Recipient(recipient));
        let shown = format!("{order:?}");
        assert!(shown.contains("PaymentMethod(redacted)") && shown.contains("Recipient(redacted)"), "{shown}");
        // None of these texts can be a part of a hexadecimal id.
        for secret in ["tok_accepted", "Ada", "ada@"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn an_order_is_leased_until_the_moment_its_lease_ends() {
        let now = Timestamp::UNIX_EPOCH;
        let mut order = order();
        assert!(order.is_leased(now) && order.is_leased(now + ORDER_LEASE - Duration::from_millis(1)));
        assert!(!order.is_leased(now + ORDER_LEASE));
        order.lease = None;
        assert!(!order.is_leased(now));
    }

    #[test]
    fn a_done_order_that_is_cancelled_is_open_since_its_cancellation_and_any_other_order_since_it_was_placed() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let confirmed = order().confirmed(at(5)).unwrap();
        assert_eq!(confirmed.open_since(), at(0));
        let cancelling = confirmed.clone().cancelling(CancellationReason::CaptureRefused, at(7)).unwrap();
        assert_eq!(cancelling.open_since(), at(0));
        let done = confirmed.done(at(6)).unwrap();
        let cancelled_when_done = done.cancelling(CancellationReason::CustomerRequest, at(9)).unwrap();
        assert_eq!(cancelled_when_done.open_since(), at(9));
    }

    #[test]
    fn an_order_awaits_its_announcement_from_its_confirmation_until_it_is_done() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(!order().awaits_announcement());
        let confirmed = order().confirmed(now).unwrap();
        assert!(confirmed.awaits_announcement());
        let cancelling = confirmed.clone().cancelling(CancellationReason::CaptureRefused, now).unwrap();
        assert!(cancelling.awaits_announcement());
        let done = confirmed.done(now).unwrap();
        assert!(!done.awaits_announcement());
        assert!(!done.cancelling(CancellationReason::CustomerRequest, now).unwrap().awaits_announcement());
        assert!(!order().cancelling(CancellationReason::TimedOut, now).unwrap().awaits_announcement());
    }

    proptest! {
        #[test]
        fn every_sequence_of_transitions_has_only_allowed_transitions(steps in prop::collection::vec(0..4u8, 0..12)) {
            let now = Timestamp::UNIX_EPOCH;
            let mut order = order();
            for step in steps {
                let before = order.clone();
                let next = match step {
                    0 => order.clone().confirmed(now),
                    1 => order.clone().done(now),
                    2 => order.clone().cancelling(CancellationReason::CustomerRequest, now),
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
    }
}
