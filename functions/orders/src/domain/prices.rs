//! The prices of an order: the prices that the products service quotes, and the prices that the customer was shown.

use std::collections::BTreeMap;

use chassis::money::{Currency, Money};
use serde::{Deserialize, Serialize};

use super::{ids::ProductId, lines::Quantity};

/// A line with the price that the products service quoted when it reserved the stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricedLine {
    pub product_id: ProductId,
    /// The product's name at the time of the reservation.
    pub name: String,
    pub quantity: Quantity,
    pub unit_price: Money,
    pub line_total: Money,
}

/// The prices that were reserved for an order. The same JSON is the products service's answer and a part of the stored
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    pub lines: Vec<PricedLine>,
    /// The sum of the lines: the amount that is authorised and captured.
    pub total: Money,
}

/// The prices that the customer was shown, as far as the client sends them. An order is refused if its prices differ
/// from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPrices {
    /// The currency of all prices.
    pub currency: Currency,
    /// The client may send the unit prices of some products only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unit_prices: BTreeMap<ProductId, Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
}

impl ShownPrices {
    /// Returns whether `quote` has the prices that the customer was shown.
    pub(super) fn agree_with(&self, quote: &Quote) -> bool {
        let is_unchanged =
            |line: &PricedLine| self.unit_prices.get(&line.product_id).is_none_or(|shown| *shown == line.unit_price);
        quote.total.currency() == self.currency
            && self.total.is_none_or(|shown| shown == quote.total)
            && quote.lines.iter().all(is_unchanged)
    }
}
