//! A purchase: the part of an order that the customer chooses.

use serde::Serialize;

use super::{lines::OrderLines, payment_method::PaymentMethod, prices::ShownPrices};

/// The content of a request to place an order. All members are part of the request's fingerprint: a repeat with the
/// same idempotency key must have the same content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Purchase {
    pub lines: OrderLines,
    pub shown_prices: Option<ShownPrices>,
    /// If absent, the provider charges the customer's default payment method.
    pub payment_method: Option<PaymentMethod>,
}
