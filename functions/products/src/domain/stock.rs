//! The stock of a product or of one of its shards: its quantities, and the rules for changing them.
//!
//! The rules are written twice: here as arithmetic on values, and in the repository as conditions of the updates,
//! because another request may change the stock between a read and a write. A property test in
//! `tests/in-process/tests/products.rs` checks that the arithmetic and the conditions agree.

use serde::{Deserialize, Serialize};

/// The maximum quantity of one product in one order.
pub const MAX_QUANTITY: u32 = 1000;
/// The maximum number of units in one adjustment, and in a product's initial stock. The limit keeps a typing error
/// from making a stock that is too large for exact arithmetic.
pub const MAX_UNITS: u32 = 1_000_000_000;

/// The quantity of one product in an order: 1 to [`MAX_QUANTITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Quantity(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to {MAX_QUANTITY}")]
pub struct InvalidQuantity;

impl Quantity {
    pub fn get(self) -> u32 {
        self.0
    }

    /// Adds two quantities. The sum must be a valid quantity, too.
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

/// The initial stock of a product: 0 to [`MAX_UNITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Units(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 0 to {MAX_UNITS}")]
pub struct InvalidUnits;

impl Units {
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Units {
    type Error = InvalidUnits;

    fn try_from(number: i64) -> Result<Self, InvalidUnits> {
        u32::try_from(number).ok().filter(|units| *units <= MAX_UNITS).map(Self).ok_or(InvalidUnits)
    }
}

/// The number of units that an adjustment adds or, if it is negative, removes: at most [`MAX_UNITS`], and not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Delta(i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from -{MAX_UNITS} to {MAX_UNITS}, and not 0")]
pub struct InvalidDelta;

impl Delta {
    pub fn get(self) -> i64 {
        self.0
    }

    pub fn is_removal(self) -> bool {
        self.0 < 0
    }

    /// The number of units that must be available before this adjustment is applied.
    pub fn required_units(self) -> u64 {
        if self.0 < 0 { self.0.unsigned_abs() } else { 0 }
    }

    /// The change of one shard's available units, if this adjustment changes them by `units`.
    pub fn of_share(self, units: u64) -> i64 {
        // A share has at most `MAX_UNITS`, so the conversion is exact.
        i64::try_from(units).unwrap_or(i64::MAX) * self.0.signum()
    }
}

impl TryFrom<i64> for Delta {
    type Error = InvalidDelta;

    fn try_from(number: i64) -> Result<Self, InvalidDelta> {
        let possible = number != 0 && number.unsigned_abs() <= u64::from(MAX_UNITS);
        if possible { Ok(Self(number)) } else { Err(InvalidDelta) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// The number of units that can be ordered.
    pub available: u64,
    /// The number of units that orders have reserved.
    pub reserved: u64,
}

impl Stock {
    pub fn new(units: Units) -> Self {
        Self { available: units.0.into(), reserved: 0 }
    }

    /// The stock after an adjustment. `None` if the adjustment would remove more units than are available: an
    /// adjustment never removes reserved units.
    #[must_use]
    pub fn after_adjustment(self, delta: Delta) -> Option<Self> {
        Some(Self { available: self.available.checked_add_signed(delta.0)?, ..self })
    }

    /// The stock after an order has reserved `quantity`. `None` if fewer units are available.
    #[must_use]
    pub fn after_reserve(self, quantity: Quantity) -> Option<Self> {
        let quantity = quantity.0.into();
        Some(Self { available: self.available.checked_sub(quantity)?, reserved: self.reserved.checked_add(quantity)? })
    }

    /// The stock after an order has released `quantity`. `None` if fewer units are reserved.
    #[must_use]
    pub fn after_release(self, quantity: Quantity) -> Option<Self> {
        let quantity = quantity.0.into();
        Some(Self { available: self.available.checked_add(quantity)?, reserved: self.reserved.checked_sub(quantity)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Delta, MAX_UNITS, Quantity, Stock, Units};

    fn quantities() -> impl Strategy<Value = Quantity> {
        (1u32..=1000).prop_map(|number| Quantity::try_from(number).unwrap())
    }

    proptest! {
        #[test]
        fn a_release_undoes_a_reserve_and_neither_changes_the_sum(
            available in 0u64..2000, reserved in 0u64..2000, quantity in quantities(),
        ) {
            let before = Stock { available, reserved };
            match before.after_reserve(quantity) {
                Some(after) => {
                    prop_assert_eq!(after.available + after.reserved, available + reserved);
                    prop_assert_eq!(after.after_release(quantity), Some(before));
                }
                None => prop_assert!(available < u64::from(quantity.get())),
            }
            match before.after_release(quantity) {
                Some(after) => {
                    prop_assert_eq!(after.available + after.reserved, available + reserved);
                    prop_assert_eq!(after.after_reserve(quantity), Some(before));
                }
                None => prop_assert!(reserved < u64::from(quantity.get())),
            }
        }

        #[test]
        fn an_adjustment_changes_only_the_available_units_and_never_below_zero(
            available in 0u64..2000, reserved in 0u64..2000, number in -3000i64..3000,
        ) {
            prop_assume!(number != 0);
            let (before, delta) = (Stock { available, reserved }, Delta::try_from(number).unwrap());
            match before.after_adjustment(delta) {
                Some(after) => {
                    prop_assert_eq!(after.available as i64, available as i64 + number);
                    prop_assert_eq!(after.reserved, reserved);
                }
                None => prop_assert!((available as i64) + number < 0),
            }
            // The condition of the repository's update (`available >= :required`) must accept the same adjustments.
            prop_assert_eq!(before.after_adjustment(delta).is_some(), available >= delta.required_units());
        }
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        let max = i64::from(MAX_UNITS);
        for number in [0, max + 1, -max - 1, i64::MAX, i64::MIN] {
            assert!(Delta::try_from(number).is_err(), "{number}");
        }
        for number in [1, -1, max, -max] {
            assert!(Delta::try_from(number).is_ok(), "{number}");
        }
        assert!(Units::try_from(0).is_ok() && Units::try_from(i64::from(MAX_UNITS)).is_ok());
        assert!(Units::try_from(i64::from(MAX_UNITS) + 1).is_err() && Units::try_from(-1).is_err());
        assert!(Quantity::try_from(0_u32).is_err() && Quantity::try_from(1001_u32).is_err());
    }
}
