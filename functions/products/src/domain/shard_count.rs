//! The number of a product's stock shards, and the numbers of single shards.

use serde::{Deserialize, Serialize};

/// The maximum number of shards of a product. The units of a line may come from all shards, and one transaction has
/// room for 99 writes besides the reservation.
pub const MAX_SHARDS: u8 = 64;

/// The number of shards of a product: 1 to [`MAX_SHARDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct ShardCount(u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to {MAX_SHARDS}")]
pub struct InvalidShardCount;

impl TryFrom<i64> for ShardCount {
    type Error = InvalidShardCount;

    fn try_from(number: i64) -> Result<Self, InvalidShardCount> {
        let count = u8::try_from(number).map_err(|_| InvalidShardCount)?;
        if (1..=MAX_SHARDS).contains(&count) { Ok(Self(count)) } else { Err(InvalidShardCount) }
    }
}

impl From<ShardCount> for u8 {
    fn from(count: ShardCount) -> u8 {
        count.0
    }
}

impl ShardCount {
    /// The count of a new product.
    pub const ONE: Self = Self(1);

    pub fn get(self) -> u8 {
        self.0
    }

    /// The numbers of all shards.
    pub fn shards(self) -> impl Iterator<Item = ShardNumber> {
        (0..self.0).map(ShardNumber)
    }

    /// The numbers of the shards that a product has with this count, but not with the count `before`.
    pub fn added_to(self, before: Self) -> impl Iterator<Item = ShardNumber> {
        (before.0..self.0).map(ShardNumber)
    }

    /// The number of the shard that `seed` selects. All shards are selected equally often by random seeds.
    pub fn preferred(self, seed: u128) -> ShardNumber {
        // The remainder is less than the count, which is a u8.
        ShardNumber((seed % u128::from(self.0)) as u8)
    }
}

/// The number of a shard of a product. The first shard has the number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardNumber(u8);

impl ShardNumber {
    /// The shard that every product has.
    pub const FIRST: Self = Self(0);

    pub fn get(self) -> u8 {
        self.0
    }
}

impl std::fmt::Display for ShardNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SHARDS, ShardCount, ShardNumber};

    #[test]
    fn a_product_has_1_to_64_shards() {
        for number in [0, 65, 256, 257, -1, i64::MIN, i64::MAX] {
            assert!(ShardCount::try_from(number).is_err(), "{number}");
        }
        assert_eq!(ShardCount::try_from(1), Ok(ShardCount::ONE));
        let most = ShardCount::try_from(64).unwrap();
        assert_eq!((most.get(), most.shards().count(), most.shards().next()), (64, 64, Some(ShardNumber::FIRST)));
        let added: Vec<_> = ShardCount(4).added_to(ShardCount(2)).map(|number| number.0).collect();
        assert_eq!(added, [2, 3]);
    }

    /// A transaction has at most 100 items. The largest possible allocation fits beside its reservation.
    #[test]
    fn the_units_of_one_line_can_come_from_all_shards() {
        assert!(usize::from(MAX_SHARDS) < 100);
    }

    #[test]
    fn one_seed_always_selects_the_same_shard_and_every_shard_can_be_selected() {
        let count = ShardCount(5);
        let selected: Vec<_> = (0..10).map(|seed| count.preferred(seed)).collect();
        assert_eq!(selected[..5], count.shards().collect::<Vec<_>>());
        assert_eq!(selected[..5], selected[5..]);
    }
}
