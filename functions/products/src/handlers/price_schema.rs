//! The JSON Schema rule that connects a price and its currency.

use chassis::{money::Currency, openapi::one_of};
use serde_json::json;
use utoipa::{
    Modify, ToSchema,
    openapi::{OpenApi, RefOr, Schema},
};

use super::catalogue::{NewProductRequest, ProductChangeRequest};
use crate::domain::MAX_PRICE;

/// Adds the rule that the currency decides the maximum of a price and the number of its decimals. JSON Schema can
/// express such a rule, but utoipa's macros cannot.
pub(super) struct PriceFitsCurrency;

impl Modify for PriceFitsCurrency {
    fn modify(&self, api: &mut OpenApi) {
        let schemas = &mut api.components.get_or_insert_default().schemas;
        let whole = Currency::all().filter(|currency| currency.decimals() == 0).map(Currency::code);
        let whole = one_of(whole).description(Some("A currency without decimals."));
        schemas.insert("WholeCurrency".to_owned(), whole.into());

        // The rule uses if/then/else instead of oneOf, because client generators would make a class of each
        // alternative.
        let whole = json!({ "$ref": "#/components/schemas/WholeCurrency" });
        let is_whole = json!({ "required": ["currency"], "properties": { "currency": whole } });
        let whole_price =
            json!({ "required": ["price"], "properties": { "price": { "type": "number", "multipleOf": 1 } } });
        let price = json!({
            "required": ["price"],
            "properties": { "price": { "type": "number", "maximum": MAX_PRICE / 100 } },
        });
        // If a change has a price, but no currency, the price is in the product's currency. The schema does not know
        // that currency, so it has no maximum for such a price.
        let has_currency = json!({ "required": ["currency"], "properties": { "currency": { "type": "string" } } });
        let price_of_a_currency = json!({ "if": has_currency, "then": price });
        for (name, otherwise) in
            [(NewProductRequest::name(), price), (ProductChangeRequest::name(), price_of_a_currency)]
        {
            if let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name.as_ref()) {
                let rule = json!({ "if": is_whole, "then": whole_price, "else": otherwise });
                object.extensions.get_or_insert_default().insert("allOf".to_owned(), json!([rule]));
            }
        }
    }
}
