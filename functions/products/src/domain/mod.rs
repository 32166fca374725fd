//! Products, their stock, adjustments of stock and reservations. This module depends neither on a database nor on
//! HTTP.

mod adjustment;
mod product;
mod reservation;
mod stock;

pub use self::{
    adjustment::{Adjustment, AdjustmentId, InvalidAdjustmentId, MAX_ADJUSTMENT_ID, MAX_REASON, Reason},
    product::{
        Description, Details, InvalidPrice, MAX_DESCRIPTION, MAX_NAME, MAX_PRICE, Name, NewProduct, Price, Product,
        ProductId,
    },
    reservation::{
        InvalidLines, Line, Lines, MAX_LINES, OrderId, PricedLine, Quote, Reservation, ReservationRefusal, Shortage,
    },
    stock::{Delta, InvalidDelta, InvalidQuantity, InvalidUnits, MAX_QUANTITY, MAX_UNITS, Quantity, Stock, Units},
};
