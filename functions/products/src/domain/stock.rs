//! How much of a product is there.
//!
//! The rules stand here as arithmetic on a value; the table applies the same
//! rules as conditional updates, because a value that was read is old by the
//! time it would be written. A test holds the two together.

use std::str::FromStr;

use chassis::text::{self, InvalidText};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::product::ProductId;

/// The most pieces of one product in one order.
pub const MAX_QUANTITY: u32 = 1000;
/// The most pieces that come or go at once: a typing error is not to fill the
/// warehouse beyond what any computer still counts exactly.
pub const MAX_UNITS: u32 = 1_000_000_000;
/// The most characters of an adjustment's id.
pub const MAX_ADJUSTMENT_ID: usize = 64;
/// The most characters of an adjustment's reason.
pub const MAX_REASON: usize = 200;

/// How many pieces an order wants: 1 to [`MAX_QUANTITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Quantity(u32);

/// Why a number is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to {MAX_QUANTITY}")]
pub struct InvalidQuantity;

impl Quantity {
    /// As a number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Both together, if that is still a quantity.
    pub fn plus(self, other: Self) -> Result<Self, InvalidQuantity> {
        Self::try_from(self.0 + other.0)
    }
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

/// How many pieces a new product starts with: 0 to [`MAX_UNITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Units(u32);

/// Why a number is too many to start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 0 to {MAX_UNITS}")]
pub struct InvalidUnits;

impl TryFrom<i64> for Units {
    type Error = InvalidUnits;

    fn try_from(number: i64) -> Result<Self, InvalidUnits> {
        u32::try_from(number).ok().filter(|units| *units <= MAX_UNITS).map(Self).ok_or(InvalidUnits)
    }
}

/// How many pieces come or, below zero, go: at most [`MAX_UNITS`], and never
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Delta(i64);

/// Why a number is no change of stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from -{MAX_UNITS} to {MAX_UNITS}, and not 0")]
pub struct InvalidDelta;

impl Delta {
    /// As a number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// How many pieces must be there for this to be possible.
    pub fn needs(self) -> u64 {
        if self.0 < 0 { self.0.unsigned_abs() } else { 0 }
    }
}

impl TryFrom<i64> for Delta {
    type Error = InvalidDelta;

    fn try_from(number: i64) -> Result<Self, InvalidDelta> {
        let possible = number != 0 && number.unsigned_abs() <= u64::from(MAX_UNITS);
        if possible { Ok(Self(number)) } else { Err(InvalidDelta) }
    }
}

/// The pieces of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Can be ordered.
    pub available: u64,
    /// Belongs to orders.
    pub reserved: u64,
}

impl Stock {
    /// `units` pieces that nobody has ordered yet.
    pub fn of(units: Units) -> Self {
        Self { available: units.0.into(), reserved: 0 }
    }

    /// After pieces came or went. `None` if more would go than can be
    /// ordered: what belongs to an order stays.
    #[must_use]
    pub fn adjusted(self, delta: Delta) -> Option<Self> {
        Some(Self { available: self.available.checked_add_signed(delta.0)?, ..self })
    }

    /// After an order took pieces. `None` if there are not so many.
    #[must_use]
    pub fn taken(self, quantity: Quantity) -> Option<Self> {
        let quantity = quantity.0.into();
        Some(Self { available: self.available.checked_sub(quantity)?, reserved: self.reserved.checked_add(quantity)? })
    }

    /// After an order gave pieces back. `None` if orders have not so many.
    #[must_use]
    pub fn given_back(self, quantity: Quantity) -> Option<Self> {
        let quantity = quantity.0.into();
        Some(Self { available: self.available.checked_add(quantity)?, reserved: self.reserved.checked_sub(quantity)? })
    }
}

/// The name that a client gives an adjustment, so that it is applied once
/// however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AdjustmentId(String);

/// Why a text can't name an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_ADJUSTMENT_ID} visible ASCII characters, without spaces")]
pub struct InvalidAdjustmentId;

impl FromStr for AdjustmentId {
    type Err = InvalidAdjustmentId;

    fn from_str(id: &str) -> Result<Self, InvalidAdjustmentId> {
        let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=MAX_ADJUSTMENT_ID).contains(&id.len()) {
            Ok(Self(id.to_owned()))
        } else {
            Err(InvalidAdjustmentId)
        }
    }
}

impl std::fmt::Display for AdjustmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why stock was adjusted, in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(String);

impl FromStr for Reason {
    type Err = InvalidText;

    fn from_str(reason: &str) -> Result<Self, InvalidText> {
        text::line(reason, MAX_REASON).map(Self)
    }
}

/// Pieces that came or went other than by an order: a delivery, a breakage, a
/// count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The client's name for it; unique for the product.
    pub adjustment_id: AdjustmentId,
    /// Of which product.
    pub product_id: ProductId,
    /// How many.
    pub delta: Delta,
    /// Why.
    pub reason: Reason,
    /// When it was applied, the first and only time.
    pub applied_at: Timestamp,
}

impl Adjustment {
    /// Whether `other` is the same adjustment, sent again.
    pub fn repeats(&self, other: &Self) -> bool {
        let Self { adjustment_id, product_id, delta, reason, applied_at: _ } = self;
        (adjustment_id, product_id, delta, reason)
            == (&other.adjustment_id, &other.product_id, &other.delta, &other.reason)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{AdjustmentId, Delta, MAX_UNITS, Quantity, Stock, Units};

    fn quantities() -> impl Strategy<Value = Quantity> {
        (1u32..=1000).prop_map(|number| Quantity::try_from(number).unwrap())
    }

    proptest! {
        #[test]
        fn taking_and_giving_back_keep_the_sum_and_undo_each_other(
            available in 0u64..2000, reserved in 0u64..2000, quantity in quantities(),
        ) {
            let before = Stock { available, reserved };
            match before.taken(quantity) {
                Some(after) => {
                    prop_assert_eq!(after.available + after.reserved, available + reserved);
                    prop_assert_eq!(after.given_back(quantity), Some(before));
                }
                None => prop_assert!(available < u64::from(quantity.get())),
            }
            match before.given_back(quantity) {
                Some(after) => {
                    prop_assert_eq!(after.available + after.reserved, available + reserved);
                    prop_assert_eq!(after.taken(quantity), Some(before));
                }
                None => prop_assert!(reserved < u64::from(quantity.get())),
            }
        }

        #[test]
        fn an_adjustment_moves_what_is_available_only_and_never_below_zero(
            available in 0u64..2000, reserved in 0u64..2000, number in -3000i64..3000,
        ) {
            prop_assume!(number != 0);
            let (before, delta) = (Stock { available, reserved }, Delta::try_from(number).unwrap());
            match before.adjusted(delta) {
                Some(after) => {
                    prop_assert_eq!(after.available as i64, available as i64 + number);
                    prop_assert_eq!(after.reserved, reserved);
                }
                None => prop_assert!((available as i64) + number < 0),
            }
            // What the table's condition asks is the same question.
            prop_assert_eq!(before.adjusted(delta).is_some(), available >= delta.needs());
        }
    }

    #[test]
    fn numbers_are_taken_within_their_bounds() {
        let most = i64::from(MAX_UNITS);
        for number in [0, most + 1, -most - 1, i64::MAX, i64::MIN] {
            assert!(Delta::try_from(number).is_err(), "{number}");
        }
        for number in [1, -1, most, -most] {
            assert!(Delta::try_from(number).is_ok(), "{number}");
        }
        assert!(Units::try_from(0).is_ok() && Units::try_from(i64::from(MAX_UNITS)).is_ok());
        assert!(Units::try_from(i64::from(MAX_UNITS) + 1).is_err() && Units::try_from(-1).is_err());
        assert!(Quantity::try_from(0_u32).is_err() && Quantity::try_from(1001_u32).is_err());
    }

    #[test]
    fn an_adjustments_id_is_visible_ascii() {
        for id in ["a", "delivery/2026-03-07#1", &"x".repeat(64)] {
            assert!(id.parse::<AdjustmentId>().is_ok(), "{id}");
        }
        for id in ["", " ", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(id.parse::<AdjustmentId>().is_err(), "{id}");
        }
    }
}
