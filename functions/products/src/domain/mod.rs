//! Products, their stock, adjustments of stock and reservations. This module depends neither on a database nor on
//! HTTP.

mod account;
mod adjustment;
mod allocation;
mod product;
mod reservation;
mod shard_count;
mod stock;

pub use self::{
    account::{ReservationAccount, ReservedLine, StockAccount},
    adjustment::{Adjustment, AdjustmentId, InvalidAdjustmentId, MAX_ADJUSTMENT_ID},
    allocation::{Allocation, Move, Shard, Share, available, moves_to_spread},
    product::{
        Description, Details, InvalidPrice, MAX_DESCRIPTION, MAX_NAME, MAX_PRICE, Name, NewProduct, Price, Product,
        ProductId, ProductVersion, StockedProduct,
    },
    reservation::{
        AllocatedLine, InvalidLines, Line, LinePlan, Lines, MAX_LINES, OrderId, PricedLine, Quote, Reservation,
        ReservationRefusal, Shortage,
    },
    shard_count::{InvalidShardCount, MAX_SHARDS, ShardCount, ShardNumber},
    stock::{Delta, InvalidDelta, InvalidQuantity, InvalidUnits, MAX_QUANTITY, MAX_UNITS, Quantity, Stock, Units},
};
