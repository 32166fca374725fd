//! A mismatch between services, and what a person does about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::{OrderId, ProductId};

/// The kinds of mismatches. `docs/runbook.md` has a section for each.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::VariantArray,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MismatchKind {
    /// An order is `DONE`, and the provider keeps no money for it.
    DoneWithoutCharge,
    /// An order is `CANCELLED`, and the provider keeps money for it.
    CancelledButCharged,
    /// An order is `CANCELLED`, and the provider still holds the amount.
    HoldNeverEnded,
    /// The order, its payment and the charge do not have the same amount and currency.
    AmountsDiffer,
    /// The money is right, and the payments service has stored another state than the provider.
    PaymentAndProviderDisagree,
    /// The provider has a charge, and there is no such order.
    ChargeWithoutOrder,
    /// An order is `DONE`, and holds no stock.
    DoneWithoutReservation,
    /// An order is `CANCELLED`, and still holds stock.
    HeldForCancelledOrder,
    /// The reservation has other products or quantities than the order, or has taken other units.
    ReservationLinesDiffer,
    /// Initial stock + adjustments is not available + reserved.
    StockDoesNotAddUp,
    /// The reserved stock of a product is not what the reservations of all orders hold.
    ReservedIsNotHeld,
    /// An order is open for longer than the worker should ever need.
    OpenTooLong,
}

impl MismatchKind {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What to do, in a sentence. The runbook has the details.
    pub fn what_to_do(self) -> &'static str {
        match self {
            Self::DoneWithoutCharge => "Ask the provider what became of the charge. Do not ship; cancel the order.",
            Self::CancelledButCharged => "Refund the charge at the provider.",
            Self::HoldNeverEnded => "Void the hold at the provider.",
            Self::AmountsDiffer => "Refund what was charged too much; agree on the rest with the customer.",
            Self::PaymentAndProviderDisagree => {
                "Compare the history of the charge with the log, and repair the payment."
            }
            Self::ChargeWithoutOrder => "Refund or void the charge, unless the order is restored from a backup.",
            Self::DoneWithoutReservation => "Count the stock; ship if there is enough, otherwise cancel the order.",
            Self::HeldForCancelledOrder => "Release the reservation.",
            Self::ReservationLinesDiffer => "Ship what the order says, and adjust the stock of the products.",
            Self::StockDoesNotAddUp => "Count the stock, and adjust it.",
            Self::ReservedIsNotHeld => "Look for a reservation without an order; then count the stock.",
            Self::OpenTooLong => "Follow the runbook's section on overdue orders.",
        }
    }
}

/// What a mismatch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Subject {
    Order(OrderId),
    Product(ProductId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(id) => id.fmt(f),
            Self::Product(id) => id.fmt(f),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    pub kind: MismatchKind,
    pub subject: Subject,
    /// What was found, without personal data.
    pub found: String,
    pub what_to_do: &'static str,
}

impl Mismatch {
    pub fn new(kind: MismatchKind, subject: Subject, found: String) -> Self {
        Self { kind, subject, found, what_to_do: kind.what_to_do() }
    }
}
