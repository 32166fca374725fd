//! What the API's document says of this service's values and refusals.

use chassis::{
    money::Currency,
    openapi::{self, line, one_of, paragraph, text, whole},
    page::{InvalidCursor, ListError},
    problem::Problem,
    problems, schema,
};
use serde_json::json;
use utoipa::{
    Modify, ToSchema,
    openapi::{OpenApi, RefOr, Schema, schema::AnyOfBuilder},
};

use crate::{
    domain::{
        AdjustmentId, Delta, Description, InvalidDelta, InvalidPrice, MAX_ADJUSTMENT_ID, MAX_DESCRIPTION, MAX_NAME,
        MAX_PRICE, MAX_REASON, MAX_UNITS, Name, Price, Reason, Units,
    },
    handlers::{NewProduct, ProductChange},
    service::ProductError,
};

schema!(Name, "ProductName", line(MAX_NAME, "Storm lantern", "One line."));

schema!(
    Description,
    "ProductDescription",
    paragraph(MAX_DESCRIPTION, "Brass.\nStays lit in a gale.", "May have several lines.")
);

schema!(
    Price,
    "Price",
    openapi::amount(1, MAX_PRICE).description(Some(format!(
        "What one piece costs: at most {MAX_PRICE} of the currency's smallest unit, which is the unit itself for some. \
         Written without an exponent."
    )))
);

schema!(Units, "Units", whole(0, MAX_UNITS.into()).description(Some("How many pieces there are to begin with.")));

schema!(
    Delta,
    "StockDelta",
    AnyOfBuilder::new()
        .item(whole(1, MAX_UNITS.into()))
        .item(whole(-i64::from(MAX_UNITS), -1))
        .description(Some("How many pieces come or, below zero, go."))
);

schema!(
    AdjustmentId,
    "AdjustmentId",
    text(format!("^[!-~]{{1,{MAX_ADJUSTMENT_ID}}}$"), "delivery/2026-03-07#1")
        .description(Some("Your name for the adjustment. Sent again, it is not applied again."))
);

schema!(Reason, "AdjustmentReason", line(MAX_REASON, "Delivery", "Why, in one line."));

problems! {
    /// Reading a page of the catalogue.
    Listing: [ListError::Cursor(InvalidCursor)];
    /// Reading a product.
    Reading: [ProductError::NotFound];
    /// Adding a product.
    Creating: [
        Problem::invalid_field("price", InvalidPrice::Nothing),
        Problem::contended("a sample"),
    ];
    /// Changing a product.
    Changing: [
        ProductError::Price(InvalidPrice::Nothing), ProductError::NotFound, ProductError::Stale,
        Problem::contended("a sample"),
    ];
    /// Adjusting stock.
    Adjusting: [
        Problem::invalid_field("delta", InvalidDelta), ProductError::NotFound, ProductError::AdjustmentMismatch,
        ProductError::InsufficientStock { available: 3 },
        Problem::contended("a sample"),
    ];
}

/// How high a price may be, and how many decimals it may have, depends on its
/// currency. JSON Schema can say so, but not utoipa.
pub(crate) struct PriceFitsCurrency;

impl Modify for PriceFitsCurrency {
    fn modify(&self, api: &mut OpenApi) {
        let schemas = &mut api.components.get_or_insert_default().schemas;
        let whole = Currency::all().filter(|currency| currency.decimals() == 0).map(Currency::code);
        let whole = one_of(whole).description(Some("A currency that has nothing smaller than its unit."));
        schemas.insert("WholeCurrency".to_owned(), whole.into());

        // Conditions, not alternatives: of those, generators of clients would
        // make a class each.
        let whole = json!({ "$ref": "#/components/schemas/WholeCurrency" });
        let is_whole = json!({ "required": ["currency"], "properties": { "currency": whole } });
        let whole_price =
            json!({ "required": ["price"], "properties": { "price": { "type": "number", "multipleOf": 1 } } });
        let price = json!({
            "required": ["price"],
            "properties": { "price": { "type": "number", "maximum": MAX_PRICE / 100 } },
        });
        // Without a currency it may be a price of the product's present one,
        // whichever that is.
        let has_currency = json!({ "required": ["currency"], "properties": { "currency": { "type": "string" } } });
        let price_of_a_currency = json!({ "if": has_currency, "then": price });
        for (name, otherwise) in [(NewProduct::name(), price), (ProductChange::name(), price_of_a_currency)] {
            if let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name.as_ref()) {
                let rule = json!({ "if": is_whole, "then": whole_price, "else": otherwise });
                object.extensions.get_or_insert_default().insert("allOf".to_owned(), json!([rule]));
            }
        }
    }
}
