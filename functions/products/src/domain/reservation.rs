//! Reservations of stock for orders, and the prices at which the stock is reserved.

use std::collections::BTreeMap;

use chassis::{
    money::{Currency, Money, MoneyError},
    typed_id,
};
use serde::{Deserialize, Serialize};

use super::{
    product::{Name, Product, ProductId},
    stock::{MAX_QUANTITY, Quantity},
};

typed_id!(
    /// The id of an order. An order has at most one reservation.
    OrderId,
    "ord"
);

/// The maximum number of lines of an order. One transaction writes all lines and the reservation, and DynamoDB limits
/// a transaction to 100 actions. Half of that limit leaves room for more writes, and is more than a customer orders at
/// once.
pub const MAX_LINES: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub product_id: ProductId,
    pub quantity: Quantity,
}

/// The lines of an order: 1 to [`MAX_LINES`] lines, and each product once, because a transaction can't write an item
/// twice. The lines are sorted by product, so that equal requests have equal lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLines {
    /// There are no lines, or more than [`MAX_LINES`].
    #[error("must have from 1 to {MAX_LINES} entries")]
    Count,
    /// The quantities of several lines of one product add up to more than [`MAX_QUANTITY`].
    #[error("must have at most {MAX_QUANTITY} of {0} in all")]
    Quantity(ProductId),
}

impl Lines {
    /// Merges the lines of the same product into one line.
    pub fn merge(lines: &[Line]) -> Result<Self, InvalidLines> {
        if !(1..=MAX_LINES).contains(&lines.len()) {
            return Err(InvalidLines::Count);
        }
        let mut merged = BTreeMap::new();
        for Line { product_id, quantity } in lines {
            let sum = match merged.get(product_id) {
                Some(sum) => quantity.plus(*sum).map_err(|_| InvalidLines::Quantity(*product_id))?,
                None => *quantity,
            };
            merged.insert(*product_id, sum);
        }
        Ok(Self(merged.into_iter().map(|(product_id, quantity)| Line { product_id, quantity }).collect()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.0.iter()
    }
}

/// A line with the unit price that was valid when the line was reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricedLine {
    pub product_id: ProductId,
    pub name: Name,
    /// The version of the product's details that has this name and this unit price.
    pub version: u64,
    pub quantity: Quantity,
    pub unit_price: Money,
    pub line_total: Money,
}

/// The priced lines of an order, and their total. A reserved quote stays valid when a product's price changes later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The priced lines, sorted by product id.
    pub lines: Vec<PricedLine>,
    pub total: Money,
}

impl Quote {
    /// Prices `lines` with the prices of `products`. If several refusals apply, unknown products come first, then
    /// prices that cannot be added, then too little stock.
    pub fn new(lines: &Lines, products: &[Product]) -> Result<Self, ReservationRefusal> {
        let products: BTreeMap<_, _> = products.iter().map(|product| (product.id, product)).collect();
        let mut unknown = Vec::new();
        let mut shortages = Vec::new();
        let mut known = Vec::new();
        for line in lines.iter() {
            let Some(product) = products.get(&line.product_id) else {
                unknown.push(line.product_id);
                continue;
            };
            if product.stock.after_reserve(line.quantity).is_none() {
                shortages.push(Shortage { line: *line, available: product.stock.available });
            }
            known.push((line, product));
        }
        if !unknown.is_empty() {
            return Err(ReservationRefusal::UnknownProducts(unknown));
        }
        let lines = known.into_iter().map(|(line, product)| PricedLine::new(line, product));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let currency = lines.first().map_or_else(Currency::default, |line| line.line_total.currency());
        let total = lines.iter().map(|line| line.line_total).try_fold(Money::zero(currency), Money::plus)?;
        if shortages.is_empty() { Ok(Self { lines, total }) } else { Err(ReservationRefusal::OutOfStock(shortages)) }
    }

    /// Returns `true` if this quote is for exactly these lines.
    fn is_for(&self, lines: &Lines) -> bool {
        let quoted = self.lines.iter().map(|line| Line { product_id: line.product_id, quantity: line.quantity });
        quoted.eq(lines.iter().copied())
    }
}

impl PricedLine {
    fn new(line: &Line, product: &Product) -> Result<Self, MoneyError> {
        let unit_price = product.details.price.money();
        Ok(Self {
            product_id: product.id,
            name: product.details.name.clone(),
            version: product.version,
            quantity: line.quantity,
            unit_price,
            line_total: unit_price.times(line.quantity.get())?,
        })
    }
}

/// A line whose quantity is more than the available stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub line: Line,
    pub available: u64,
}

/// The reason why nothing is reserved for an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationRefusal {
    #[error("unknown products: {0:?}")]
    UnknownProducts(Vec<ProductId>),
    /// The prices cannot be added, because they are in several currencies.
    #[error(transparent)]
    NoTotal(#[from] MoneyError),
    /// All lines whose quantity is more than the available stock.
    #[error("out of stock: {0:?}")]
    OutOfStock(Vec<Shortage>),
    /// The order's reservation was released, perhaps before the reserve request arrived.
    #[error("the reservation was released")]
    Released,
    /// The order has a reservation with other lines.
    #[error("the order has another reservation")]
    Mismatch,
}

/// The reservation of an order. A reservation is never deleted, so that a repeated reserve request gets the first quote
/// again, and a reserve request that arrives after the release is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    Held(Quote),
    /// The reservation was released. If the release request arrived before the reserve request, no stock was ever
    /// reserved.
    Released,
}

impl Reservation {
    /// The result of another request to reserve `lines` for the order that has this reservation.
    pub fn answer_repeat(self, lines: &Lines) -> Result<Quote, ReservationRefusal> {
        match self {
            Self::Held(quote) if quote.is_for(lines) => Ok(quote),
            Self::Held(_) => Err(ReservationRefusal::Mismatch),
            Self::Released => Err(ReservationRefusal::Released),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chassis::money::{Currency, MAX_MINOR_UNITS, MoneyError};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::{InvalidLines, Line, Lines, MAX_LINES, Quote, Reservation, ReservationRefusal, Shortage};
    use crate::domain::{Details, MAX_PRICE, MAX_QUANTITY, Price, Product, ProductId, Quantity, Stock};

    fn product(price: &str, currency: &str, available: u64) -> Product {
        let price = Price::new(price.parse().unwrap(), currency.parse().unwrap()).unwrap();
        Product {
            id: ProductId::generate(),
            details: Details { name: "Mug".parse().unwrap(), description: "Holds tea.".parse().unwrap(), price },
            version: 7,
            stock: Stock { available, reserved: 0 },
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn line(product: &Product, quantity: u32) -> Line {
        Line { product_id: product.id, quantity: Quantity::try_from(quantity).unwrap() }
    }

    fn lines(lines: &[Line]) -> Lines {
        Lines::merge(lines).unwrap()
    }

    #[test]
    fn three_mugs_at_19_99_are_59_97() {
        let mug = product("19.99", "USD", 3);
        let quote = Quote::new(&lines(&[line(&mug, 3)]), std::slice::from_ref(&mug)).unwrap();
        assert_eq!(quote.total.to_string(), "59.97 USD");
        assert_eq!((quote.lines[0].version, quote.lines[0].line_total), (7, quote.total));
    }

    #[test]
    fn a_refusal_names_each_line_with_too_little_stock_and_no_other_line() {
        let (few, enough, none) = (product("1", "USD", 2), product("1", "USD", 9), product("1", "USD", 0));
        let requested = lines(&[line(&few, 3), line(&enough, 9), line(&none, 1)]);
        let refusal = Quote::new(&requested, &[none.clone(), few.clone(), enough]).unwrap_err();
        let mut shortages =
            vec![Shortage { line: line(&few, 3), available: 2 }, Shortage { line: line(&none, 1), available: 0 }];
        shortages.sort_by_key(|shortage| shortage.line.product_id);
        assert_eq!(refusal, ReservationRefusal::OutOfStock(shortages));
    }

    #[test]
    fn lines_of_one_product_are_added_before_the_stock_is_checked() {
        let mug = product("19.99", "USD", 3);
        let requested = lines(&[line(&mug, 2), line(&mug, 2)]);
        let shortages = vec![Shortage { line: line(&mug, 4), available: 3 }];
        assert_eq!(Quote::new(&requested, &[mug]), Err(ReservationRefusal::OutOfStock(shortages)));
    }

    #[test]
    fn unknown_products_and_mixed_currencies_are_refused_before_the_stock_is_checked() {
        let (usd, eur) = (product("1", "USD", 0), product("1", "EUR", 0));
        let requested = lines(&[line(&usd, 1), line(&eur, 1)]);
        assert_eq!(
            Quote::new(&requested, std::slice::from_ref(&eur)),
            Err(ReservationRefusal::UnknownProducts(vec![usd.id]))
        );
        let refusal = Quote::new(&requested, &[usd, eur]);
        assert!(matches!(refusal, Err(ReservationRefusal::NoTotal(MoneyError::MixedCurrencies(..)))), "{refusal:?}");
    }

    #[test]
    fn an_order_has_1_to_50_lines_and_at_most_1000_units_of_a_product() {
        let mug = product("19.99", "USD", 3);
        assert_eq!(Lines::merge(&[]), Err(InvalidLines::Count));
        assert!(Lines::merge(&[line(&mug, 1); MAX_LINES]).is_ok());
        assert_eq!(Lines::merge(&[line(&mug, 1); MAX_LINES + 1]), Err(InvalidLines::Count));
        assert!(Lines::merge(&[line(&mug, 999), line(&mug, 1)]).is_ok());
        assert_eq!(Lines::merge(&[line(&mug, 999), line(&mug, 2)]), Err(InvalidLines::Quantity(mug.id)));
    }

    #[test]
    fn the_total_of_the_largest_order_is_valid_money() {
        assert!(MAX_PRICE * u64::from(MAX_QUANTITY) * MAX_LINES as u64 <= MAX_MINOR_UNITS);
    }

    #[test]
    fn a_repeated_reserve_gets_the_first_quote_and_other_lines_are_refused() {
        let (mug, rope) = (product("19.99", "USD", 9), product("24.75", "USD", 9));
        let requested = lines(&[line(&mug, 1), line(&rope, 2)]);
        let quote = Quote::new(&requested, &[mug.clone(), rope.clone()]).unwrap();
        let held = Reservation::Held(quote.clone());
        assert_eq!(held.clone().answer_repeat(&lines(&[line(&rope, 2), line(&mug, 1)])), Ok(quote));
        for other in [lines(&[line(&mug, 1)]), lines(&[line(&mug, 2), line(&rope, 2)])] {
            assert_eq!(held.clone().answer_repeat(&other), Err(ReservationRefusal::Mismatch));
        }
        assert_eq!(Reservation::Released.answer_repeat(&requested), Err(ReservationRefusal::Released));
    }

    proptest! {
        #[test]
        fn merging_keeps_the_sum_of_each_product_and_gives_one_line_per_product(
            requested in prop::collection::vec((0u128..5, 1u32..=20), 1..=MAX_LINES),
        ) {
            let id = |number| ProductId::from_uuid(uuid::Uuid::from_u128(number));
            let entry = |(product, quantity): &(u128, u32)| Line {
                product_id: id(*product),
                quantity: Quantity::try_from(*quantity).unwrap(),
            };
            let mut expected = BTreeMap::<_, u32>::new();
            for (product, quantity) in &requested {
                *expected.entry(id(*product)).or_default() += quantity;
            }
            let merged = lines(&requested.iter().map(entry).collect::<Vec<_>>());
            let found: Vec<_> = merged.iter().map(|line| (line.product_id, line.quantity.get())).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            // The order of the lines in the request makes no difference.
            let reversed = lines(&requested.iter().rev().map(entry).collect::<Vec<_>>());
            prop_assert_eq!(reversed, merged);
        }

        #[test]
        fn the_total_is_the_sum_of_unit_price_times_quantity(
            requested in prop::collection::vec((1u64..=MAX_PRICE, 1u32..=MAX_QUANTITY), 1..=MAX_LINES),
        ) {
            let (mut products, mut order_lines, mut expected) = (Vec::new(), Vec::new(), 0);
            for (minor, quantity) in &requested {
                let money = chassis::money::Money::from_minor(*minor, Currency::USD).unwrap();
                let product = product(&money.amount().to_string(), "USD", u64::from(*quantity));
                order_lines.push(line(&product, *quantity));
                products.push(product);
                expected += minor * u64::from(*quantity);
            }
            let quote = Quote::new(&lines(&order_lines), &products).unwrap();
            prop_assert_eq!(quote.total.minor(), expected);
        }
    }
}
