//! Stock shards: the parts of a product's stock.
//!
//! DynamoDB carries out one transaction on an item at a time. Each shard is an item of its own, so a product with many
//! shards sells faster than a product with one. A line of an order takes its units from one shard if one has enough,
//! and otherwise from several, so that the last units are sold exactly.

use super::{
    shard_count::ShardNumber,
    stock::{Delta, Stock},
};

/// A shard of a product, and its stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub number: ShardNumber,
    pub stock: Stock,
}

/// The number of available units of all shards together.
pub fn available(shards: &[Shard]) -> u64 {
    shards.iter().map(|shard| shard.stock.available).sum()
}

/// A number of units of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub shard: ShardNumber,
    /// The number of units, which is not 0.
    pub units: u64,
}

/// The shards from which units of one product are taken, and how many from each. No shard occurs twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation(Vec<Share>);

impl FromIterator<(ShardNumber, u64)> for Allocation {
    fn from_iter<I: IntoIterator<Item = (ShardNumber, u64)>>(shares: I) -> Self {
        Self(shares.into_iter().map(|(shard, units)| Share { shard, units }).collect())
    }
}

impl Allocation {
    /// Takes all units from one shard.
    pub fn from_one(shard: ShardNumber, units: u64) -> Self {
        Self(vec![Share { shard, units }])
    }

    /// Chooses shards that have `units` available units together: the first shard that has enough or, if no shard has
    /// enough, several shards, those with the most units first. The shards must be sorted by preference. `None` if
    /// all shards together have too few units.
    pub fn plan(units: u64, shards: &[Shard]) -> Option<Self> {
        if let Some(shard) = shards.iter().find(|shard| shard.stock.available >= units) {
            return Some(Self::from_one(shard.number, units));
        }
        let mut largest_first: Vec<_> = shards.iter().filter(|shard| shard.stock.available > 0).collect();
        // The sort is stable, so shards with equally many units stay sorted by preference.
        largest_first.sort_by_key(|shard| std::cmp::Reverse(shard.stock.available));
        let (mut shares, mut rest) = (Vec::new(), units);
        for shard in largest_first {
            let units = rest.min(shard.stock.available);
            shares.push(Share { shard: shard.number, units });
            rest -= units;
            if rest == 0 {
                return Some(Self(shares));
            }
        }
        None
    }

    /// Chooses the shards whose available units an adjustment changes. New units go to the shard with the fewest
    /// available units. `None` if the adjustment would remove more units than are available.
    pub fn of_adjustment(delta: Delta, shards: &[Shard]) -> Option<Self> {
        let units = delta.get().unsigned_abs();
        if delta.get() < 0 {
            return Self::plan(units, shards);
        }
        let emptiest = shards.iter().min_by_key(|shard| shard.stock.available)?;
        Some(Self::from_one(emptiest.number, units))
    }

    pub fn shares(&self) -> &[Share] {
        &self.0
    }

    pub fn takes_from(&self, shard: ShardNumber) -> bool {
        self.0.iter().any(|share| share.shard == shard)
    }

    /// The number of units from all shards.
    pub fn units(&self) -> u64 {
        self.0.iter().map(|share| share.units).sum()
    }

    /// The moves after which the first shard of this allocation can give all units.
    pub fn moves_to_first(&self) -> Vec<Move> {
        match self.0.split_first() {
            Some((first, others)) => {
                others.iter().map(|share| Move { from: share.shard, to: first.shard, units: share.units }).collect()
            }
            None => Vec::new(),
        }
    }
}

/// A move of available units from one shard of a product to another shard of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: ShardNumber,
    pub to: ShardNumber,
    /// The number of units, which is not 0.
    pub units: u64,
}

/// The moves after which the available units are spread over the shards evenly: the numbers of available units of two
/// shards differ by at most one.
pub fn moves_to_spread(shards: &[Shard]) -> Vec<Move> {
    let count = shards.len() as u64;
    if count == 0 {
        return Vec::new();
    }
    let (each, rest) = (available(shards) / count, available(shards) % count);
    // The shards with the most units keep the units that remain of an even division, which saves moves.
    let mut sorted: Vec<_> = shards.iter().collect();
    sorted.sort_by_key(|shard| std::cmp::Reverse(shard.stock.available));
    let wanted = |place: usize| each + u64::from((place as u64) < rest);
    let mut surplus = Vec::new();
    let mut lacking = Vec::new();
    for (place, shard) in sorted.into_iter().enumerate() {
        let (has, wanted) = (shard.stock.available, wanted(place));
        if has > wanted {
            surplus.push((shard.number, has - wanted));
        } else if has < wanted {
            lacking.push((shard.number, wanted - has));
        }
    }
    let (mut moves, mut giving) = (Vec::new(), surplus.into_iter());
    let mut giver = giving.next();
    for (to, mut missing) in lacking {
        while missing > 0 {
            let Some((from, left)) = giver else { return moves };
            let units = missing.min(left);
            moves.push(Move { from, to, units });
            missing -= units;
            giver = if left > units { Some((from, left - units)) } else { giving.next() };
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Allocation, Move, Shard, Share, available, moves_to_spread};
    use crate::domain::{Delta, MAX_SHARDS, Quantity, ShardCount, Stock};

    fn shards(available: &[u64]) -> Vec<Shard> {
        let numbers = ShardCount::try_from(i64::from(MAX_SHARDS)).unwrap().shards();
        let shard =
            |(number, available): (_, &u64)| Shard { number, stock: Stock { available: *available, reserved: 0 } };
        numbers.zip(available).map(shard).collect()
    }

    fn shares(allocation: &Allocation) -> Vec<(u8, u64)> {
        allocation.shares().iter().map(|Share { shard, units }| (shard.get(), *units)).collect()
    }

    #[test]
    fn units_come_from_the_first_shard_that_has_enough_and_otherwise_from_the_largest_shards() {
        for (available, units, expected) in [
            (&[5, 9, 9][..], 5, Some(vec![(0, 5)])),
            (&[4, 9, 9], 5, Some(vec![(1, 5)])),
            (&[1, 3, 0, 3], 5, Some(vec![(1, 3), (3, 2)])),
            (&[1, 3, 0, 3], 7, Some(vec![(1, 3), (3, 3), (0, 1)])),
            (&[1, 3, 0, 3], 8, None),
            (&[], 1, None),
        ] {
            let planned = Allocation::plan(units, &shards(available));
            assert_eq!(planned.as_ref().map(shares), expected, "{units} of {available:?}");
        }
    }

    fn quantities() -> impl Strategy<Value = u64> {
        1u64..=40
    }

    fn stocks() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0u64..30, 1..=8)
    }

    /// A change of the stock of one product.
    #[derive(Clone, Debug)]
    enum Change {
        Reserve(u64),
        /// Releases one of the reservations.
        Release(prop::sample::Index),
        Move {
            from: prop::sample::Index,
            to: prop::sample::Index,
            units: u64,
        },
        Adjust(i64),
        Spread,
        Gather(u64),
    }

    fn changes() -> impl Strategy<Value = Change> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            4 => quantities().prop_map(Change::Reserve),
            2 => index().prop_map(Change::Release),
            2 => (index(), index(), 1u64..20).prop_map(|(from, to, units)| Change::Move { from, to, units }),
            2 => (-20i64..20).prop_filter("not zero", |delta| *delta != 0).prop_map(Change::Adjust),
            1 => Just(Change::Spread),
            1 => quantities().prop_map(Change::Gather),
        ]
    }

    /// Carries out a move as the repository does: all of it if the shard has enough units, or nothing.
    fn carry_out(shards: &mut [Shard], Move { from, to, units }: Move) {
        let (from, to) = (usize::from(from.get()), usize::from(to.get()));
        if from != to && shards[from].stock.available >= units {
            shards[from].stock.available -= units;
            shards[to].stock.available += units;
        }
    }

    proptest! {
        #[test]
        fn an_allocation_has_exactly_the_units_and_never_more_than_a_shard_has(
            available_units in stocks(), units in quantities(),
        ) {
            let shards = shards(&available_units);
            let Some(allocation) = Allocation::plan(units, &shards) else {
                prop_assert!(available(&shards) < units);
                return Ok(());
            };
            let taken = shares(&allocation);
            prop_assert_eq!(taken.iter().map(|(_, units)| units).sum::<u64>(), units);
            for (shard, units) in &taken {
                prop_assert!(*units > 0 && *units <= available_units[usize::from(*shard)]);
            }
            let mut numbers: Vec<_> = taken.iter().map(|(shard, _)| shard).collect();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), taken.len());
            // One shard gives all units if it can, and no allocation has more shards than necessary.
            let mut largest = available_units.clone();
            largest.sort_unstable_by_key(|units| std::cmp::Reverse(*units));
            prop_assert!(largest.iter().take(taken.len() - 1).sum::<u64>() < units);
            // After the moves, the first shard can give all units.
            let mut gathered = shards.clone();
            allocation.moves_to_first().into_iter().for_each(|step| carry_out(&mut gathered, step));
            prop_assert!(gathered[usize::from(taken[0].0)].stock.available >= units);
        }

        #[test]
        fn the_moves_to_spread_keep_the_sum_and_make_the_shards_even(available_units in stocks()) {
            let mut shards = shards(&available_units);
            let sum = available(&shards);
            let moves = moves_to_spread(&shards);
            prop_assert!(moves.len() < shards.len());
            for step in moves {
                prop_assert!(step.units > 0 && shards[usize::from(step.from.get())].stock.available >= step.units);
                carry_out(&mut shards, step);
            }
            prop_assert_eq!(available(&shards), sum);
            let units = || shards.iter().map(|shard| shard.stock.available);
            prop_assert!(units().max().unwrap() - units().min().unwrap() <= 1);
            prop_assert_eq!(moves_to_spread(&shards), vec![]);
        }

        #[test]
        fn the_sums_balance_after_any_sequence_of_changes(
            initial in stocks(), changes in prop::collection::vec(changes(), 1..40),
        ) {
            let mut shards = shards(&initial);
            let mut expected = i64::try_from(available(&shards)).unwrap();
            let mut held = Vec::<Allocation>::new();
            for change in changes {
                match change {
                    Change::Reserve(units) => {
                        let Some(allocation) = Allocation::plan(units, &shards) else { continue };
                        for share in allocation.shares() {
                            let stock = &mut shards[usize::from(share.shard.get())].stock;
                            let quantity = Quantity::try_from(i64::try_from(share.units).unwrap()).unwrap();
                            *stock = stock.after_reserve(quantity).unwrap();
                        }
                        held.push(allocation);
                    }
                    Change::Release(_) if held.is_empty() => {}
                    Change::Release(index) => {
                        for share in held.swap_remove(index.index(held.len())).shares() {
                            let stock = &mut shards[usize::from(share.shard.get())].stock;
                            let quantity = Quantity::try_from(i64::try_from(share.units).unwrap()).unwrap();
                            *stock = stock.after_release(quantity).unwrap();
                        }
                    }
                    Change::Move { from, to, units } => {
                        let number = |index: prop::sample::Index, of: &[Shard]| of[index.index(of.len())].number;
                        let step = Move { from: number(from, &shards), to: number(to, &shards), units };
                        carry_out(&mut shards, step);
                    }
                    Change::Adjust(number) => {
                        let delta = Delta::try_from(number).unwrap();
                        let Some(shares) = Allocation::of_adjustment(delta, &shards) else {
                            prop_assert!(available(&shards) < delta.required_units());
                            continue;
                        };
                        for share in shares.shares() {
                            let stock = &mut shards[usize::from(share.shard.get())].stock;
                            let part = i64::try_from(share.units).unwrap() * number.signum();
                            *stock = stock.after_adjustment(Delta::try_from(part).unwrap()).unwrap();
                        }
                        expected += number;
                    }
                    Change::Spread => {
                        for step in moves_to_spread(&shards) {
                            carry_out(&mut shards, step);
                        }
                    }
                    Change::Gather(units) => {
                        let Some(allocation) = Allocation::plan(units, &shards) else { continue };
                        for step in allocation.moves_to_first() {
                            carry_out(&mut shards, step);
                        }
                    }
                }
                let reserved: u64 = shards.iter().map(|shard| shard.stock.reserved).sum();
                let of_reservations: u64 = held.iter().flat_map(Allocation::shares).map(|share| share.units).sum();
                prop_assert_eq!(i64::try_from(available(&shards) + reserved).unwrap(), expected);
                prop_assert_eq!(reserved, of_reservations);
            }
        }
    }
}
