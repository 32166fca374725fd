//! What a product, its stock and a reservation are.

mod product;
mod reservation;
mod stock;

pub use self::{
    product::{
        Addition, Description, Details, InvalidPrice, MAX_DESCRIPTION, MAX_NAME, MAX_PRICE, Name, Price, Product,
        ProductId,
    },
    reservation::{InvalidLines, Lack, Line, Lines, MAX_LINES, OrderId, PricedLine, Quote, Refusal, Reservation},
    stock::{
        Adjustment, AdjustmentId, Delta, InvalidAdjustmentId, InvalidDelta, InvalidQuantity, InvalidUnits,
        MAX_ADJUSTMENT_ID, MAX_QUANTITY, MAX_REASON, MAX_UNITS, Quantity, Reason, Stock, Units,
    },
};
