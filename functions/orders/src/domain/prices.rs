//! The prices of an order: the prices that the products service quotes, and the prices that the customer was shown.

use std::collections::BTreeMap;

use chassis::money::{Currency, Money};
use serde::{Deserialize, Serialize};

use super::{
    ids::ProductId,
    lines::{OrderLine, OrderLines, Quantity},
};

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

/// The prices at which an order's stock is reserved. The response of the products service and the stored order contain
/// a quote as the same JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReceivedQuote")]
pub struct Quote {
    pub lines: Vec<PricedLine>,
    /// The sum of the lines: the amount that is authorised and captured. All prices have its currency.
    pub total: Money,
}

/// A quote whose currencies are not checked yet.
#[derive(Deserialize)]
struct ReceivedQuote {
    lines: Vec<PricedLine>,
    total: Money,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a quote has prices in several currencies")]
pub struct MixedQuote;

impl TryFrom<ReceivedQuote> for Quote {
    type Error = MixedQuote;

    fn try_from(ReceivedQuote { lines, total }: ReceivedQuote) -> Result<Self, MixedQuote> {
        let mut prices = lines.iter().flat_map(|line| [line.unit_price, line.line_total]);
        if prices.all(|price| price.currency() == total.currency()) {
            Ok(Self { lines, total })
        } else {
            Err(MixedQuote)
        }
    }
}

impl Quote {
    /// Returns the lines without their prices, or `None` if an order cannot have such lines.
    pub fn order_lines(&self) -> Option<OrderLines> {
        let line = |line: &PricedLine| Some(OrderLine { product_id: line.product_id, quantity: line.quantity });
        OrderLines::merge(self.lines.iter().map(line)).ok()
    }
}

/// The prices that the customer was shown before ordering. The client may send some of the prices only. An order is
/// refused if its quote has another price than the client sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPrices {
    /// The currency of all prices that the customer was shown.
    pub currency: Currency,
    /// The unit prices that the client sent, perhaps of some products only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unit_prices: BTreeMap<ProductId, Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Money>,
}

impl ShownPrices {
    /// Returns whether `quote` has the currency and each price that the client sent.
    pub(super) fn agree_with(&self, quote: &Quote) -> bool {
        let is_unchanged =
            |line: &PricedLine| self.unit_prices.get(&line.product_id).is_none_or(|shown| *shown == line.unit_price);
        quote.total.currency() == self.currency
            && self.total.is_none_or(|shown| shown == quote.total)
            && quote.lines.iter().all(is_unchanged)
    }
}
