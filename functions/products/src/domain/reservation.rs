//! What an order takes from stock, and at which price.

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
    /// An order, as this service knows it: whoever holds a reservation.
    OrderId,
    "ord"
);

/// The most lines of one order. All of them are reserved in one transaction,
/// which DynamoDB limits to 100 actions; half of that leaves room for the
/// reservation's own, and is more than anyone puts into a basket.
pub const MAX_LINES: usize = 50;

/// So many pieces of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Of what.
    pub product_id: ProductId,
    /// How many.
    pub quantity: Quantity,
}

/// What an order wants: 1 to [`MAX_LINES`] products, each once (a transaction
/// can't touch an item twice), sorted, so that the same wish always looks the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// Why lines can't be ordered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLines {
    /// None, or too many.
    #[error("must have from 1 to {MAX_LINES} entries")]
    Count,
    /// Several lines of one product, too much together.
    #[error("must have at most {MAX_QUANTITY} of {0} in all")]
    Quantity(ProductId),
}

impl Lines {
    /// Adds up the lines of each product.
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

    /// The lines, by product.
    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.0.iter()
    }
}

/// A line at the price that was valid when it was reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricedLine {
    /// Of what.
    pub product_id: ProductId,
    /// What it was called.
    pub name: Name,
    /// Which version of the product's details said so.
    pub version: u64,
    /// How many.
    pub quantity: Quantity,
    /// What one piece costs.
    pub unit_price: Money,
    /// What all of them cost.
    pub line_total: Money,
}

/// What an order gets, and what it costs. Once reserved it stands, whatever
/// the prices do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The lines, by product.
    pub lines: Vec<PricedLine>,
    /// Their sum.
    pub total: Money,
}

impl Quote {
    /// Prices `lines` from `products`, if all of them are there.
    pub fn of(lines: &Lines, products: &[Product]) -> Result<Self, Refusal> {
        let products: BTreeMap<_, _> = products.iter().map(|product| (product.id, product)).collect();
        let mut unknown = Vec::new();
        let mut lacking = Vec::new();
        let mut known = Vec::new();
        for line in lines.iter() {
            let Some(product) = products.get(&line.product_id) else {
                unknown.push(line.product_id);
                continue;
            };
            if product.stock.taken(line.quantity).is_none() {
                lacking.push(Lack { line: *line, available: product.stock.available });
            }
            known.push((line, product));
        }
        if !unknown.is_empty() {
            return Err(Refusal::UnknownProducts(unknown));
        }
        let lines = known.into_iter().map(|(line, product)| PricedLine::of(line, product));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let currency = lines.first().map_or_else(Currency::default, |line| line.line_total.currency());
        let total = lines.iter().map(|line| line.line_total).try_fold(Money::zero(currency), Money::plus)?;
        if lacking.is_empty() { Ok(Self { lines, total }) } else { Err(Refusal::OutOfStock(lacking)) }
    }

    /// Whether these are the lines that were asked for.
    fn answers(&self, lines: &Lines) -> bool {
        let quoted = self.lines.iter().map(|line| Line { product_id: line.product_id, quantity: line.quantity });
        quoted.eq(lines.iter().copied())
    }
}

impl PricedLine {
    fn of(line: &Line, product: &Product) -> Result<Self, MoneyError> {
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

/// A line that asks for more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What was asked for.
    pub line: Line,
    /// What there is.
    pub available: u64,
}

/// Why an order gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are no such products.
    #[error("unknown products: {0:?}")]
    UnknownProducts(Vec<ProductId>),
    /// The prices have no sum: they are in several currencies.
    #[error(transparent)]
    NoTotal(#[from] MoneyError),
    /// More than there is; all such lines.
    #[error("out of stock: {0:?}")]
    OutOfStock(Vec<Lack>),
    /// The order's reservation was released, perhaps before it was made.
    #[error("the reservation was released")]
    Released,
    /// The order reserved something else before.
    #[error("the order has another reservation")]
    Mismatch,
}

/// What an order has. There is at most one, and it stays for good: a repeat
/// finds its answer, and what came too late finds that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// The pieces are the order's.
    Held(Quote),
    /// They are no longer, or never were: the release came first.
    Released,
}

impl Reservation {
    /// The answer to the same order asking for `lines` again.
    pub fn again(self, lines: &Lines) -> Result<Quote, Refusal> {
        match self {
            Self::Held(quote) if quote.answers(lines) => Ok(quote),
            Self::Held(_) => Err(Refusal::Mismatch),
            Self::Released => Err(Refusal::Released),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chassis::money::{Currency, MAX_MINOR_UNITS, MoneyError};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::{InvalidLines, Lack, Line, Lines, MAX_LINES, Quote, Refusal, Reservation};
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
        let quote = Quote::of(&lines(&[line(&mug, 3)]), std::slice::from_ref(&mug)).unwrap();
        assert_eq!(quote.total.to_string(), "59.97 USD");
        assert_eq!((quote.lines[0].version, quote.lines[0].line_total), (7, quote.total));
    }

    #[test]
    fn every_line_that_lacks_stock_is_named_and_no_other() {
        let (few, enough, none) = (product("1", "USD", 2), product("1", "USD", 9), product("1", "USD", 0));
        let wanted = lines(&[line(&few, 3), line(&enough, 9), line(&none, 1)]);
        let refusal = Quote::of(&wanted, &[none.clone(), few.clone(), enough]).unwrap_err();
        let mut lacking = vec![Lack { line: line(&few, 3), available: 2 }, Lack { line: line(&none, 1), available: 0 }];
        lacking.sort_by_key(|lack| lack.line.product_id);
        assert_eq!(refusal, Refusal::OutOfStock(lacking));
    }

    #[test]
    fn lines_of_one_product_lack_stock_together() {
        let mug = product("19.99", "USD", 3);
        let wanted = lines(&[line(&mug, 2), line(&mug, 2)]);
        let lacking = vec![Lack { line: line(&mug, 4), available: 3 }];
        assert_eq!(Quote::of(&wanted, &[mug]), Err(Refusal::OutOfStock(lacking)));
    }

    #[test]
    fn what_does_not_exist_and_what_has_no_sum_is_refused_before_stock_is_looked_at() {
        let (usd, eur) = (product("1", "USD", 0), product("1", "EUR", 0));
        let wanted = lines(&[line(&usd, 1), line(&eur, 1)]);
        assert_eq!(Quote::of(&wanted, std::slice::from_ref(&eur)), Err(Refusal::UnknownProducts(vec![usd.id])));
        let refusal = Quote::of(&wanted, &[usd, eur]);
        assert!(matches!(refusal, Err(Refusal::NoTotal(MoneyError::MixedCurrencies(..)))), "{refusal:?}");
    }

    #[test]
    fn there_are_1_to_50_lines_and_at_most_1000_of_a_product() {
        let mug = product("19.99", "USD", 3);
        assert_eq!(Lines::merge(&[]), Err(InvalidLines::Count));
        assert!(Lines::merge(&[line(&mug, 1); MAX_LINES]).is_ok());
        assert_eq!(Lines::merge(&[line(&mug, 1); MAX_LINES + 1]), Err(InvalidLines::Count));
        assert!(Lines::merge(&[line(&mug, 999), line(&mug, 1)]).is_ok());
        assert_eq!(Lines::merge(&[line(&mug, 999), line(&mug, 2)]), Err(InvalidLines::Quantity(mug.id)));
    }

    #[test]
    fn the_largest_order_still_has_a_total() {
        assert!(MAX_PRICE * u64::from(MAX_QUANTITY) * MAX_LINES as u64 <= MAX_MINOR_UNITS);
    }

    #[test]
    fn a_repeat_gets_what_was_said_before_and_another_wish_nothing() {
        let (mug, rope) = (product("19.99", "USD", 9), product("24.75", "USD", 9));
        let wanted = lines(&[line(&mug, 1), line(&rope, 2)]);
        let quote = Quote::of(&wanted, &[mug.clone(), rope.clone()]).unwrap();
        let held = Reservation::Held(quote.clone());
        assert_eq!(held.clone().again(&lines(&[line(&rope, 2), line(&mug, 1)])), Ok(quote));
        for other in [lines(&[line(&mug, 1)]), lines(&[line(&mug, 2), line(&rope, 2)])] {
            assert_eq!(held.clone().again(&other), Err(Refusal::Mismatch));
        }
        assert_eq!(Reservation::Released.again(&wanted), Err(Refusal::Released));
    }

    proptest! {
        #[test]
        fn merging_keeps_each_products_sum_and_names_no_product_twice(
            wanted in prop::collection::vec((0u128..5, 1u32..=20), 1..=MAX_LINES),
        ) {
            let id = |number| ProductId::from_uuid(uuid::Uuid::from_u128(number));
            let entry = |(product, quantity): &(u128, u32)| Line {
                product_id: id(*product),
                quantity: Quantity::try_from(*quantity).unwrap(),
            };
            let mut expected = BTreeMap::<_, u32>::new();
            for (product, quantity) in &wanted {
                *expected.entry(id(*product)).or_default() += quantity;
            }
            let merged = lines(&wanted.iter().map(entry).collect::<Vec<_>>());
            let found: Vec<_> = merged.iter().map(|line| (line.product_id, line.quantity.get())).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            // The order in which lines are written is not part of the wish.
            let reversed = lines(&wanted.iter().rev().map(entry).collect::<Vec<_>>());
            prop_assert_eq!(reversed, merged);
        }

        #[test]
        fn a_total_is_the_sum_of_price_times_quantity(
            wanted in prop::collection::vec((1u64..=MAX_PRICE, 1u32..=MAX_QUANTITY), 1..=MAX_LINES),
        ) {
            let (mut products, mut asked, mut expected) = (Vec::new(), Vec::new(), 0);
            for (minor, quantity) in &wanted {
                let money = chassis::money::Money::from_minor(*minor, Currency::USD).unwrap();
                let product = product(&money.amount().to_string(), "USD", u64::from(*quantity));
                asked.push(line(&product, *quantity));
                products.push(product);
                expected += minor * u64::from(*quantity);
            }
            let quote = Quote::of(&lines(&asked), &products).unwrap();
            prop_assert_eq!(quote.total.minor(), expected);
        }
    }
}
