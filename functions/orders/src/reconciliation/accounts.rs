//! What the other services say of an order or of a product.

use chassis::money::Money;
use jiff::Timestamp;
use serde::Deserialize;

use crate::domain::{OrderId, PaymentId, ProductId, Quantity};

/// The reservation of an order, as the products service has stored it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReservationAccount {
    pub order_id: OrderId,
    /// Absent in a tombstone, for which nothing was ever reserved.
    #[serde(default)]
    pub reserved_at: Option<Timestamp>,
    /// Absent while the reservation is held.
    #[serde(default)]
    pub released_at: Option<Timestamp>,
    pub lines: Vec<ReservedLine>,
}

impl ReservationAccount {
    pub fn is_held(&self) -> bool {
        self.released_at.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ReservedLine {
    pub product_id: ProductId,
    pub quantity: Quantity,
    /// The units that were taken from the shards of the stock.
    pub units: u64,
}

/// The stock of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct StockAccount {
    pub product_id: ProductId,
    pub initial_stock: u64,
    /// The sum of all adjustments.
    pub adjustments: i64,
    pub available: u64,
    pub reserved: u64,
}

/// The payment of an order, and its charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct PaymentAccount {
    pub payment_id: PaymentId,
    /// Absent if the payments service has stored nothing.
    #[serde(default)]
    pub status: Option<PaymentStatus>,
    /// Absent if the payment was cancelled before it was authorised.
    #[serde(default)]
    pub amount: Option<Money>,
    /// Absent if the provider has no charge.
    #[serde(default)]
    pub charge: Option<Charge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, strum::Display)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    Intent,
    Authorised,
    Declined,
    Captured,
    Voided,
    Refunded,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Charge {
    pub status: ChargeStatus,
    pub amount: Money,
    pub captured: Money,
    pub refunded: Money,
}

impl Charge {
    /// The minor units that were captured and not refunded.
    pub fn kept(&self) -> u64 {
        self.captured.minor().saturating_sub(self.refunded.minor())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, strum::Display)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum ChargeStatus {
    Attempted,
    Authorised,
    Declined,
    Captured,
    Voided,
    Refunded,
}

/// A page of the stock of all products.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StockPage {
    pub items: Vec<StockAccount>,
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Some charges of the provider, by the payments that they are for, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ChargePage {
    pub payment_ids: Vec<PaymentId>,
    pub has_more: bool,
}
