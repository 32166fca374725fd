//! The lines that a customer orders: products and quantities, without prices.

use std::collections::BTreeMap;

use chassis::fields::FieldError;
use serde::{Deserialize, Serialize};

use super::ids::ProductId;

/// The maximum number of lines of an order. The transaction that reserves an order's stock has one action for each line
/// and one action for the reservation itself, and DynamoDB allows at most 100 actions.
pub const MAX_LINES: usize = 50;
/// The maximum quantity of one product in an order.
pub const MAX_QUANTITY: u32 = 1000;

/// A quantity from 1 to [`MAX_QUANTITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Quantity(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to {MAX_QUANTITY}")]
pub struct InvalidQuantity;

impl Quantity {
    pub const ONE: Self = Self(1);
}

impl TryFrom<u32> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(number: u32) -> Result<Self, InvalidQuantity> {
        if (1..=MAX_QUANTITY).contains(&number) { Ok(Self(number)) } else { Err(InvalidQuantity) }
    }
}

impl TryFrom<i64> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(number: i64) -> Result<Self, InvalidQuantity> {
        u32::try_from(number).map_err(|_| InvalidQuantity)?.try_into()
    }
}

impl From<Quantity> for u32 {
    fn from(quantity: Quantity) -> u32 {
        quantity.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    pub product_id: ProductId,
    pub quantity: Quantity,
}

/// The lines of an order: from 1 to [`MAX_LINES`], sorted by product, with one line for each product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderLines(Vec<OrderLine>);

impl OrderLines {
    /// Merges lines with the same product into one line with the sum of their quantities.
    ///
    /// `None` stands for a line that the caller could not read. The caller has already reported the error in that line,
    /// so the result is then an `Err` without an entry for that line.
    ///
    /// # Errors
    ///
    /// One entry for each invalid field, with the field's name in the request body.
    pub fn merge(lines: impl IntoIterator<Item = Option<OrderLine>>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut merged: BTreeMap<ProductId, u32> = BTreeMap::new();
        let (mut count, mut is_complete) = (0, true);
        for (index, line) in lines.into_iter().enumerate() {
            count += 1;
            let Some(OrderLine { product_id, quantity }) = line else {
                is_complete = false;
                continue;
            };
            let total = merged.entry(product_id).or_default();
            *total += quantity.0;
            if *total > MAX_QUANTITY {
                let detail = format!("together with other lines of this product {InvalidQuantity}");
                errors.push(FieldError::new(format!("items[{index}].quantity"), detail));
            }
        }
        if !(1..=MAX_LINES).contains(&count) {
            errors.push(FieldError::new("items", format!("must have from 1 to {MAX_LINES} lines")));
        }
        if !is_complete || !errors.is_empty() {
            return Err(errors);
        }
        let line = |(product_id, quantity)| OrderLine { product_id, quantity: Quantity(quantity) };
        Ok(Self(merged.into_iter().map(line).collect()))
    }

    pub fn as_slice(&self) -> &[OrderLine] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(product_id: ProductId, quantity: u32) -> Option<OrderLine> {
        Some(OrderLine { product_id, quantity: quantity.try_into().unwrap() })
    }

    #[test]
    fn the_maximum_quantity_of_a_product_applies_to_the_sum_of_its_lines() {
        let id = ProductId::generate();
        let lines = OrderLines::merge([line(id, 400), line(id, 600)]).unwrap();
        assert_eq!(u32::from(lines.as_slice()[0].quantity), MAX_QUANTITY);
        assert!(OrderLines::merge([line(id, 400), line(id, 601)]).is_err());
    }

    #[test]
    fn each_invalid_field_is_reported_except_in_lines_that_the_caller_has_reported() {
        let id = ProductId::generate();
        let errors = OrderLines::merge([line(id, 1000), None, line(id, 1)]).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["items[2].quantity"]);
        assert_eq!(OrderLines::merge([]).unwrap_err()[0].field, "items");
        assert!(OrderLines::merge([line(id, 1), None]).unwrap_err().is_empty());
    }

    proptest! {
        #[test]
        fn merging_lines_keeps_every_products_quantity(lines in prop::collection::vec((0usize..5, 1u32..200), 1..6)) {
            let products: Vec<_> = (0..5).map(|_| ProductId::generate()).collect();
            let merged = OrderLines::merge(lines.iter().map(|(i, q)| line(products[*i], *q))).unwrap();
            for (i, product) in products.iter().enumerate() {
                let wanted: u32 = lines.iter().filter(|(j, _)| *j == i).map(|(_, q)| q).sum();
                let of_product = merged.as_slice().iter().filter(|line| line.product_id == *product);
                let found: u32 = of_product.map(|line| u32::from(line.quantity)).sum();
                prop_assert_eq!(wanted, found);
            }
        }
    }
}
