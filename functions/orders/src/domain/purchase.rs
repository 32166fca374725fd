//! The content of a request to place an order.

use serde::Serialize;

use super::{lines::OrderLines, payment_method::PaymentMethod, prices::ShownPrices};

/// A purchase, before it is an order. An idempotency key is bound to all members: a repeat under the same key must have
/// the same purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Purchase {
    pub lines: OrderLines,
    pub shown_prices: Option<ShownPrices>,
    /// If absent, the provider charges the customer's default payment method.
    pub payment_method: Option<PaymentMethod>,
}
