//! Adjustments of stock: changes that are not made by an order, such as a delivery, a breakage or a stock count.

use std::str::FromStr;

use chassis::{audit::Reason, id::UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{product::ProductId, stock::Delta};

/// The maximum length of an adjustment's id, in characters.
pub const MAX_ADJUSTMENT_ID: usize = 64;
/// The id that the client chooses for an adjustment. An adjustment that is sent again with its id is not applied again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AdjustmentId(String);

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The id, which is unique among the adjustments of the product.
    pub adjustment_id: AdjustmentId,
    pub product_id: ProductId,
    pub delta: Delta,
    pub reason: Reason,
    /// The administrator.
    pub adjusted_by: UserId,
    pub applied_at: Timestamp,
}

impl Adjustment {
    /// Returns `true` if the two adjustments are equal, apart from the administrator and the time at which they were
    /// applied.
    pub fn is_repeat_of(&self, other: &Self) -> bool {
        let Self { adjustment_id, product_id, delta, reason, adjusted_by: _, applied_at: _ } = self;
        (adjustment_id, product_id, delta, reason)
            == (&other.adjustment_id, &other.product_id, &other.delta, &other.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::AdjustmentId;

    #[test]
    fn an_adjustment_id_consists_of_visible_ascii_characters() {
        for id in ["a", "delivery/2026-03-07#1", &"x".repeat(64)] {
            assert!(id.parse::<AdjustmentId>().is_ok(), "{id}");
        }
        for id in ["", " ", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(id.parse::<AdjustmentId>().is_err(), "{id}");
        }
    }
}
