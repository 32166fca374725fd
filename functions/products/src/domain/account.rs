//! What reconciliation is told of stock and of reservations. `docs/data-model.md` has the equation that each product's
//! account must satisfy.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    product::ProductId,
    reservation::OrderId,
    stock::{Quantity, Units},
};

/// The stock of a product: what came in, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StockAccount {
    pub product_id: ProductId,
    /// The stock with which the product began.
    pub initial_stock: Units,
    /// The sum of all adjustments.
    pub adjustments: i64,
    /// The available units of all shards.
    pub available: u64,
    /// The reserved units of all shards.
    pub reserved: u64,
}

/// A reservation with the units that it took, also after its release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReservationAccount {
    pub order_id: OrderId,
    /// Absent in a tombstone, for which nothing was ever reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_at: Option<Timestamp>,
    /// Absent while the reservation is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released_at: Option<Timestamp>,
    pub lines: Vec<ReservedLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReservedLine {
    pub product_id: ProductId,
    pub quantity: Quantity,
    /// The units that were taken from the shards. They are as many as `quantity`, unless the stored data is wrong.
    pub units: u64,
}
