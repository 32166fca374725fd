//! Reservations of stock for orders, and the prices at which the stock is reserved.

use std::collections::BTreeMap;

use chassis::{
    money::{Currency, Money, MoneyError},
    typed_id,
};
use serde::{Deserialize, Serialize};

use super::{
    allocation::{Allocation, Shard},
    product::{Name, Product, ProductId},
    shard_count::{ShardCount, ShardNumber},
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
    /// prices that cannot be added. Only the shards say whether there is enough stock.
    pub fn new(lines: &Lines, products: &[Product]) -> Result<Self, ReservationRefusal> {
        let products: BTreeMap<_, _> = products.iter().map(|product| (product.id, product)).collect();
        let mut unknown = Vec::new();
        let mut known = Vec::new();
        for line in lines.iter() {
            let Some(product) = products.get(&line.product_id) else {
                unknown.push(line.product_id);
                continue;
            };
            known.push((line, product));
        }
        if !unknown.is_empty() {
            return Err(ReservationRefusal::UnknownProducts(unknown));
        }
        let lines = known.into_iter().map(|(line, product)| PricedLine::new(line, product));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        let currency = lines.first().map_or_else(Currency::default, |line| line.line_total.currency());
        let total = lines.iter().map(|line| line.line_total).try_fold(Money::zero(currency), Money::plus)?;
        Ok(Self { lines, total })
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

/// The shards of one product from which a reservation takes its units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatedLine {
    pub product_id: ProductId,
    pub shares: Allocation,
}

/// The shards from which a line of an order is to take its units, before the reservation is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePlan {
    pub allocated: AllocatedLine,
    /// Other shards that can give all units, as far as is known, and that were not tried yet.
    alternatives: Vec<ShardNumber>,
}

impl LinePlan {
    /// Plans without reading the shards: all units come from one shard. The shard is derived from the order's id. Ids
    /// are random, so orders spread over the shards; and a repeated request tries the same shard first.
    pub fn without_reading(line: &Line, order: OrderId, count: ShardCount) -> Self {
        let (first, others) = (count.preferred(order.uuid().as_u128()), count.shards());
        Self {
            allocated: AllocatedLine::new(line, Allocation::from_one(first, line.quantity.get().into())),
            alternatives: others.filter(|shard| *shard != first).collect(),
        }
    }

    /// Plans with the stock of all shards of the product. `None` if all shards together have too few units.
    pub fn with_stock(line: &Line, order: OrderId, shards: &[Shard]) -> Option<Self> {
        let mut preferred = shards.to_vec();
        if let Ok(count) = ShardCount::try_from(shards.len() as i64) {
            preferred.rotate_left(count.preferred(order.uuid().as_u128()).get().into());
        }
        let units = line.quantity.get().into();
        let allocation = Allocation::plan(units, &preferred)?;
        let is_alternative = |shard: &&Shard| shard.stock.available >= units && !allocation.takes_from(shard.number);
        let alternatives = preferred.iter().filter(is_alternative).map(|shard| shard.number).collect();
        Some(Self { allocated: AllocatedLine::new(line, allocation), alternatives })
    }

    /// Takes the units from another shard, because the present shard is contended. `choose` gets the number of shards
    /// that are left, and returns one of 0 to that number minus 1. Returns `false` if no other shard is left.
    pub fn change_shard(&mut self, choose: impl FnOnce(usize) -> usize) -> bool {
        if self.alternatives.is_empty() {
            return false;
        }
        let chosen = choose(self.alternatives.len()).min(self.alternatives.len() - 1);
        let shard = self.alternatives.swap_remove(chosen);
        self.allocated.shares = Allocation::from_one(shard, self.allocated.shares.units());
        true
    }
}

impl AllocatedLine {
    fn new(line: &Line, shares: Allocation) -> Self {
        Self { product_id: line.product_id, shares }
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
    Held {
        quote: Quote,
        /// The release returns the units to exactly these shards.
        allocated: Vec<AllocatedLine>,
    },
    /// The reservation was released. If the release request arrived before the reserve request, no stock was ever
    /// reserved.
    Released,
}

impl Reservation {
    /// The result of another request to reserve `lines` for the order that has this reservation.
    pub fn answer_repeat(self, lines: &Lines) -> Result<Quote, ReservationRefusal> {
        match self {
            Self::Held { quote, .. } if quote.is_for(lines) => Ok(quote),
            Self::Held { .. } => Err(ReservationRefusal::Mismatch),
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

    use super::{InvalidLines, Line, Lines, MAX_LINES, Quote, Reservation, ReservationRefusal};
    use crate::domain::{
        Details, LinePlan, MAX_PRICE, MAX_QUANTITY, OrderId, Price, Product, ProductId, Quantity, Shard, ShardCount,
        Stock,
    };

    fn product(price: &str, currency: &str) -> Product {
        let price = Price::new(price.parse().unwrap(), currency.parse().unwrap()).unwrap();
        Product {
            id: ProductId::generate(),
            details: Details { name: "Mug".parse().unwrap(), description: "Holds tea.".parse().unwrap(), price },
            version: 7,
            stock_shards: ShardCount::ONE,
            initial_stock: 9.try_into().unwrap(),
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
        let mug = product("19.99", "USD");
        let quote = Quote::new(&lines(&[line(&mug, 3)]), std::slice::from_ref(&mug)).unwrap();
        assert_eq!(quote.total.to_string(), "59.97 USD");
        assert_eq!((quote.lines[0].version, quote.lines[0].line_total), (7, quote.total));
    }

    #[test]
    fn unknown_products_and_mixed_currencies_are_refused() {
        let (usd, eur) = (product("1", "USD"), product("1", "EUR"));
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
        let mug = product("19.99", "USD");
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
        let (mug, rope) = (product("19.99", "USD"), product("24.75", "USD"));
        let requested = lines(&[line(&mug, 1), line(&rope, 2)]);
        let quote = Quote::new(&requested, &[mug.clone(), rope.clone()]).unwrap();
        let held = Reservation::Held { quote: quote.clone(), allocated: Vec::new() };
        assert_eq!(held.clone().answer_repeat(&lines(&[line(&rope, 2), line(&mug, 1)])), Ok(quote));
        for other in [lines(&[line(&mug, 1)]), lines(&[line(&mug, 2), line(&rope, 2)])] {
            assert_eq!(held.clone().answer_repeat(&other), Err(ReservationRefusal::Mismatch));
        }
        assert_eq!(Reservation::Released.answer_repeat(&requested), Err(ReservationRefusal::Released));
    }

    fn shards(available: &[u64]) -> Vec<Shard> {
        let numbers = ShardCount::try_from(available.len() as i64).unwrap().shards();
        let shard =
            |(number, available): (_, &u64)| Shard { number, stock: Stock { available: *available, reserved: 0 } };
        numbers.zip(available).map(shard).collect()
    }

    fn taken(plan: &LinePlan) -> Vec<(u8, u64)> {
        plan.allocated.shares.shares().iter().map(|share| (share.shard.get(), share.units)).collect()
    }

    #[test]
    fn a_contended_line_takes_its_units_from_each_other_shard_once() {
        // With this id, an order of a product with four shards prefers shard 2.
        let order = OrderId::from_uuid(uuid::Uuid::from_u128(42));
        let wanted = line(&product("1", "USD"), 3);
        let mut plan = LinePlan::without_reading(&wanted, order, ShardCount::try_from(4).unwrap());
        let mut tried = vec![taken(&plan)];
        while plan.change_shard(|_| 0) {
            tried.push(taken(&plan));
        }
        assert_eq!(tried[0], [(2, 3)]);
        tried.sort();
        assert_eq!(tried, [[(0, 3)], [(1, 3)], [(2, 3)], [(3, 3)]]);
        // Among shards that were read, only those with enough units are tried.
        let mut plan = LinePlan::with_stock(&wanted, order, &shards(&[2, 9, 1, 3])).unwrap();
        assert_eq!(taken(&plan), [(3, 3)]);
        assert!(plan.change_shard(|_| 0));
        assert_eq!(taken(&plan), [(1, 3)]);
        assert!(!plan.change_shard(|_| 0));
        // Of several shards, none can be replaced by one.
        let mut plan = LinePlan::with_stock(&wanted, order, &shards(&[2, 0, 1, 0])).unwrap();
        assert_eq!(taken(&plan), [(0, 2), (2, 1)]);
        assert!(!plan.change_shard(|_| 0));
        assert_eq!(LinePlan::with_stock(&wanted, order, &shards(&[1, 0, 1, 0])), None);
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
                let product = product(&money.amount().to_string(), "USD");
                order_lines.push(line(&product, *quantity));
                products.push(product);
                expected += minor * u64::from(*quantity);
            }
            let quote = Quote::new(&lines(&order_lines), &products).unwrap();
            prop_assert_eq!(quote.total.minor(), expected);
        }
    }
}
