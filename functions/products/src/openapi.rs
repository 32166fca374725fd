//! The OpenAPI schemas of this service's values, and the problems with which each public route can respond.

use chassis::{
    openapi::{self, line, paragraph, text, whole},
    page::{InvalidCursor, ListError},
    problem::Problem,
    problems, schema,
};
use utoipa::openapi::schema::AnyOfBuilder;

use crate::{
    domain::{
        AdjustmentId, Delta, Description, InvalidDelta, InvalidPrice, MAX_ADJUSTMENT_ID, MAX_DESCRIPTION, MAX_NAME,
        MAX_PRICE, MAX_SHARDS, MAX_UNITS, Name, Price, ShardCount, Units,
    },
    service::ProductError,
};

schema!(Name, "ProductName", line(MAX_NAME, "Storm lantern", "One line of text."));

schema!(
    Description,
    "ProductDescription",
    paragraph(MAX_DESCRIPTION, "Brass.\nStays lit in a gale.", "One or more lines of text.")
);

schema!(
    Price,
    "Price",
    openapi::amount(1, MAX_PRICE).description(Some(format!(
        "The unit price: at most {MAX_PRICE} minor units of the currency (cents for USD, yen for JPY), \
         written without an exponent."
    )))
);

schema!(Units, "Units", whole(0, MAX_UNITS.into()).description(Some("The initial stock.")));

schema!(
    ShardCount,
    "StockShards",
    whole(1, MAX_SHARDS.into()).description(Some(
        "The number of parts in which the stock is stored. A product with more parts can sell faster: give it several \
         before very many customers order it at once. The number can only grow."
    ))
);

schema!(
    Delta,
    "StockDelta",
    AnyOfBuilder::new()
        .item(whole(1, MAX_UNITS.into()))
        .item(whole(-i64::from(MAX_UNITS), -1))
        .description(Some("The number of units that the adjustment adds or, if it is negative, removes."))
);

schema!(
    AdjustmentId,
    "AdjustmentId",
    text(format!("^[!-~]{{1,{MAX_ADJUSTMENT_ID}}}$"), "delivery/2026-03-07#1").description(Some(
        "The id that you choose for the adjustment. An adjustment that is sent again with its id is not applied again."
    ))
);

problems! {
    Listing: [ListError::Cursor(InvalidCursor)];
    Reading: [ProductError::NotFound];
    Creating: [
        Problem::invalid_field("price", InvalidPrice::Zero),
        Problem::contended("a sample"),
    ];
    Changing: [
        ProductError::Price(InvalidPrice::Zero), ProductError::NotFound, ProductError::Stale,
        Problem::contended("a sample"),
    ];
    ListingRecords: [ListError::Cursor(InvalidCursor)];
    Adjusting: [
        Problem::invalid_field("delta", InvalidDelta), ProductError::NotFound, ProductError::AdjustmentMismatch,
        ProductError::InsufficientStock { available: 3 },
        Problem::contended("a sample"),
    ];
}
