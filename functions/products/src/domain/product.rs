//! Products, their details and their unit prices.

use std::str::FromStr;

use chassis::{
    audit::{Author, Reason},
    id::UserId,
    money::{Amount, Currency, Money, MoneyError},
    text::{self, InvalidText},
    typed_id,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{shard_count::ShardCount, stock::Units};

typed_id!(
    /// The id of a product.
    ProductId,
    "prod"
);

/// The maximum length of a name, in characters.
pub const MAX_NAME: usize = 100;
/// The maximum length of a description, in characters.
pub const MAX_DESCRIPTION: usize = 2000;
/// The maximum unit price in minor units: a hundred million dollars. With this maximum, the total of the largest
/// possible order is still valid money.
pub const MAX_PRICE: u64 = 10_000_000_000;

/// The name of a product: one line of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(name: &str) -> Result<Self, InvalidText> {
        text::line(name, MAX_NAME).map(Self)
    }
}

/// The description of a product: one or more lines of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Description(String);

impl FromStr for Description {
    type Err = InvalidText;

    fn from_str(description: &str) -> Result<Self, InvalidText> {
        text::paragraph(description, MAX_DESCRIPTION).map(Self)
    }
}

/// A unit price: more than zero, and at most [`MAX_PRICE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Price(Money);

/// The reason why an amount is not a valid price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrice {
    /// The amount is not valid in its currency.
    #[error(transparent)]
    Amount(#[from] MoneyError),
    #[error("must be more than 0")]
    Zero,
    /// The amount is more than [`MAX_PRICE`].
    #[error("must be at most {MAX_PRICE} minor units (cents, for USD)")]
    TooHigh,
}

impl Price {
    pub fn new(amount: Amount, currency: Currency) -> Result<Self, InvalidPrice> {
        let money = amount.of(currency)?;
        match money.minor() {
            0 => Err(InvalidPrice::Zero),
            1..=MAX_PRICE => Ok(Self(money)),
            _ => Err(InvalidPrice::TooHigh),
        }
    }

    /// Checks that `amount` is a valid price in at least one currency, for an amount whose currency is not known.
    pub fn check_in_any_currency(amount: Amount) -> Result<(), InvalidPrice> {
        // An accepted currency has either two decimals, like USD, or none, like JPY. Without decimals, the maximum
        // price is a larger number.
        let check = |currency| Self::new(amount, currency).map(|_| ());
        check(Currency::USD).or_else(|error| check(Currency::JPY).map_err(|_| error))
    }

    pub fn money(self) -> Money {
        self.0
    }
}

/// The part of a product that an administrator can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub name: Name,
    pub description: Description,
    pub price: Price,
}

/// What an administrator has made of a product. The first version records who added the product, and each further
/// version records a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductVersion {
    pub version: u64,
    #[serde(flatten)]
    pub details: Details,
    pub stock_shards: ShardCount,
    /// The administrator.
    pub changed_by: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub changed_at: Timestamp,
}

impl ProductVersion {
    /// The record of the version that `product` has, which `author` has made.
    pub fn of(product: &Product, author: &Author) -> Self {
        let Product { version, details, stock_shards, updated_at, .. } = product.clone();
        let Author { id: changed_by, reason } = author.clone();
        Self { version, details, stock_shards, changed_by, reason, changed_at: updated_at }
    }
}

/// A product that an administrator adds to the catalogue. An idempotency key may be repeated only with equal values of
/// all members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewProduct {
    pub details: Details,
    /// The initial stock.
    pub units: Units,
    /// Why the product is added, if the administrator says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// A product without its stock, which changes much more often and is stored in other items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    pub id: ProductId,
    #[serde(flatten)]
    pub details: Details,
    /// The version of the details and of `stock_shards`: 1 at first, and one more with each change. Writes compare the
    /// version, so that no update is lost and no unit is sold at an outdated price. A sale does not change the version:
    /// otherwise most changes of a product that sells well would fail.
    pub version: u64,
    /// The number of shards of the product's stock. It never becomes less, because reservations name the shards from
    /// which their units came.
    pub stock_shards: ShardCount,
    /// The stock with which the product began. Together with the adjustments, it must always be the sum of the
    /// available and the reserved units.
    pub initial_stock: Units,
    pub created_at: Timestamp,
    /// The time of the last change of the details.
    pub updated_at: Timestamp,
}

impl Product {
    pub fn new(id: ProductId, new: NewProduct, now: Timestamp) -> Self {
        let NewProduct { details, units, reason: _ } = new;
        let stock_shards = ShardCount::ONE;
        Self { id, details, version: 1, stock_shards, initial_stock: units, created_at: now, updated_at: now }
    }

    #[must_use]
    pub fn changed_to(&self, details: Details, stock_shards: ShardCount, now: Timestamp) -> Self {
        Self { details, stock_shards, version: self.version + 1, updated_at: now, ..self.clone() }
    }
}

/// A product, and the number of its available units in all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockedProduct {
    pub product: Product,
    pub available: u64,
}

#[cfg(test)]
mod tests {
    use chassis::money::{Amount, Currency};

    use super::{Description, InvalidPrice, Name, Price};

    fn price(amount: &str) -> Result<Price, InvalidPrice> {
        Price::new(amount.parse::<Amount>().unwrap(), Currency::USD)
    }

    #[test]
    fn a_price_is_more_than_zero_and_at_most_100_million_dollars() {
        assert_eq!(price("0.00"), Err(InvalidPrice::Zero));
        assert_eq!(price("0.01").unwrap().money().minor(), 1);
        assert!(price("100000000").is_ok());
        assert_eq!(price("100000000.01"), Err(InvalidPrice::TooHigh));
    }

    #[test]
    fn a_name_is_one_line_and_a_description_may_be_several() {
        assert!("Storm lantern".parse::<Name>().is_ok());
        assert!("Storm\nlantern".parse::<Name>().is_err());
        assert!("é".repeat(101).parse::<Name>().is_err());
        assert!("Brass.\nStays lit in a gale.".parse::<Description>().is_ok());
        assert!(" ".parse::<Description>().is_err());
    }
}
