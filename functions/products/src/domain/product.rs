//! What is sold, and at which price.

use std::str::FromStr;

use chassis::{
    money::{Amount, Currency, Money, MoneyError},
    text::{self, InvalidText},
    typed_id,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::stock::{Stock, Units};

typed_id!(
    /// A product.
    ProductId,
    "prod"
);

/// The most characters of a name.
pub const MAX_NAME: usize = 100;
/// The most characters of a description.
pub const MAX_DESCRIPTION: usize = 2000;
/// The highest price in minor units: a hundred million dollars. An order of
/// the most lines, each of the highest quantity, still has a total then.
pub const MAX_PRICE: u64 = 10_000_000_000;

/// What a product is called, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(name: &str) -> Result<Self, InvalidText> {
        text::line(name, MAX_NAME).map(Self)
    }
}

/// What is to be known of a product before buying it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Description(String);

impl FromStr for Description {
    type Err = InvalidText;

    fn from_str(description: &str) -> Result<Self, InvalidText> {
        text::paragraph(description, MAX_DESCRIPTION).map(Self)
    }
}

/// What one piece costs: something, and at most [`MAX_PRICE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Price(Money);

/// Why an amount is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrice {
    /// Not even an amount of that currency.
    #[error(transparent)]
    Amount(#[from] MoneyError),
    /// Nobody can be charged nothing.
    #[error("must be more than 0")]
    Nothing,
    /// More than [`MAX_PRICE`].
    #[error("must be at most {MAX_PRICE} minor units (cents, for USD)")]
    TooHigh,
}

impl Price {
    /// `amount` of `currency`.
    pub fn new(amount: Amount, currency: Currency) -> Result<Self, InvalidPrice> {
        let money = amount.of(currency)?;
        match money.minor() {
            0 => Err(InvalidPrice::Nothing),
            1..=MAX_PRICE => Ok(Self(money)),
            _ => Err(InvalidPrice::TooHigh),
        }
    }

    /// Whether `amount` is a price in any currency.
    pub fn is_possible(amount: Amount) -> Result<(), InvalidPrice> {
        let of = |currency| Self::new(amount, currency).map(|_| ());
        of(Currency::USD).or_else(|error| of(Currency::JPY).map_err(|_| error))
    }

    /// As money.
    pub fn money(self) -> Money {
        self.0
    }
}

/// What an administrator says of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Its name.
    pub name: Name,
    /// Its description.
    pub description: Description,
    /// What one piece costs.
    pub price: Price,
}

/// What an administrator adds to the catalogue. Whether a request is a repeat
/// is told by all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addition {
    /// What is said of the product.
    pub details: Details,
    /// How many pieces there are to begin with.
    pub units: Units,
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Made by us.
    pub id: ProductId,
    /// What an administrator says of it.
    pub details: Details,
    /// How many times the details were changed; guards against lost updates,
    /// and against selling at a price that no longer holds. Sales don't touch
    /// it: else nobody could change a product that sells well.
    pub version: u64,
    /// How much of it is there.
    pub stock: Stock,
    /// When it was added.
    pub created_at: Timestamp,
    /// When its details were changed last.
    pub updated_at: Timestamp,
}

impl Product {
    /// The product as it was when it was added.
    pub fn added(id: ProductId, addition: Addition, at: Timestamp) -> Self {
        let Addition { details, units } = addition;
        Self { id, details, version: 1, stock: Stock::of(units), created_at: at, updated_at: at }
    }

    /// The product with other details.
    #[must_use]
    pub fn changed(&self, details: Details, now: Timestamp) -> Self {
        Self { details, version: self.version + 1, updated_at: now, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use chassis::money::{Amount, Currency};

    use super::{Description, InvalidPrice, Name, Price};

    fn price(amount: &str) -> Result<Price, InvalidPrice> {
        Price::new(amount.parse::<Amount>().unwrap(), Currency::USD)
    }

    #[test]
    fn a_price_is_more_than_nothing_and_not_beyond_all_measure() {
        assert_eq!(price("0.00"), Err(InvalidPrice::Nothing));
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
