//! The combinatorial number system, which numbers the subsets of a universe without gaps.
//!
//! The subset c₁ < … < c_k of 0..n has the number Σ C(cᵢ, i). Both directions work on that number times k!, which
//! needs only products of small factors and no intermediate binomials.

use crate::limits::ROW_ENTRIES_MAX;
use crate::wide::Wide;
use heapless::Vec;

/// The number of subsets with `size` members: C(universe, size).
pub(crate) fn binomial(universe: u32, size: u32) -> Wide {
    let mut count = falling(universe, size);
    (2..=size).for_each(|factor| count.div_exact(factor));
    count
}

/// Bits that hold the number of every such subset: ⌈log₂ C(universe, size)⌉, for `size` ≤ `universe`.
pub(crate) fn width(universe: u32, size: u32) -> u32 {
    let mut last = binomial(universe, size);
    last.sub(&Wide::one());
    last.bits()
}

/// The number of the subset with `members` in ascending order.
pub(crate) fn index(members: impl Iterator<Item = u32>) -> Wide {
    let (mut scaled, mut size) = (Wide::default(), 0);
    for member in members {
        size += 1;
        scaled.mul(size);
        scaled.add(&falling(member, size));
    }
    (2..=size).for_each(|factor| scaled.div_exact(factor));
    scaled
}

/// The members of subset `index` in ascending order; `None` if there are fewer subsets.
pub(crate) fn subset(index: &Wide, universe: u32, size: u32) -> Option<Vec<u32, ROW_ENTRIES_MAX>> {
    if *index >= binomial(universe, size) {
        return None;
    }
    let mut scaled = index.clone();
    (2..=size).for_each(|factor| scaled.mul(factor));
    let (mut members, mut above) = (Vec::new(), universe);
    for rank in (1..=size).rev() {
        above = largest(rank, above, &scaled);
        scaled.sub(&falling(above, rank));
        scaled.div_exact(rank);
        members.push(above).ok()?;
    }
    members.reverse();
    Some(members)
}

/// The largest member below `above` whose falling product of `rank` factors is at most `scaled`.
fn largest(rank: u32, above: u32, scaled: &Wide) -> u32 {
    let (mut low, mut high) = (rank - 1, above);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if falling(middle, rank) <= *scaled {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// `from` · (`from` − 1) · … of `factors` factors, the last of which may be 0: C(from, factors) · factors!.
fn falling(from: u32, factors: u32) -> Wide {
    let mut product = Wide::one();
    (0..factors).for_each(|step| product.mul(from - step));
    product
}

#[cfg(test)]
mod tests {
    use super::{binomial, index, subset, width};
    use crate::limits::{ROW_ENTRIES_MAX, VOCABULARY_SIZE_MAX};
    use crate::wide::Wide;
    use crate::wide::tests::{value, wide};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// Every subset of 0..`universe` with `size` members, each ascending, in the order of their numbers: sorted by the
    /// last member first.
    fn subsets(universe: u32, size: usize) -> Vec<Vec<u32>> {
        let masks = (0..1u32 << universe).filter(|mask| mask.count_ones() as usize == size);
        masks.map(|mask| (0..universe).filter(|bit| mask >> bit & 1 == 1).collect()).collect()
    }

    #[test]
    fn every_subset_of_a_small_universe_has_its_number() {
        for universe in 0..=12 {
            for size in 0..=universe {
                let all = subsets(universe, size as usize);
                for (number, members) in all.iter().enumerate() {
                    assert_eq!(value(&index(members.iter().copied())), number as u128, "{members:?}");
                    let found = subset(&wide(number as u128), universe, size);
                    assert_eq!(found.as_deref(), Some(&members[..]), "{number} of {universe}, {size}");
                }
                let count = all.len() as u128;
                assert_eq!(value(&binomial(universe, size)), count);
                assert_eq!(subset(&wide(count), universe, size), None);
                assert!(
                    count <= 1 << width(universe, size)
                        && (count == 1 || count > 1 << (width(universe, size) - 1))
                );
            }
            assert_eq!(value(&binomial(universe, universe + 1)), 0, "no subset is larger than its universe");
        }
    }

    /// Pascal's triangle computes binomials by sums, independently of the products above.
    #[test]
    fn binomials_are_pascals() {
        let mut row = std::vec![Wide::one()];
        for universe in 0..=300 {
            for (size, count) in row.iter().enumerate().take(ROW_ENTRIES_MAX + 1) {
                assert_eq!(binomial(universe, size as u32), *count, "C({universe}, {size})");
            }
            let sum = |pair: &[Wide]| {
                let mut sum = pair[0].clone();
                sum.add(&pair[1]);
                sum
            };
            let inner: Vec<_> = row.windows(2).map(sum).collect();
            row.truncate(1);
            row.extend(inner);
            if row.len() <= ROW_ENTRIES_MAX {
                row.push(Wide::one());
            }
        }
    }

    #[test]
    fn the_widest_number_is_held() {
        let size = ROW_ENTRIES_MAX as u32;
        let last = VOCABULARY_SIZE_MAX - size..VOCABULARY_SIZE_MAX;
        let mut number = index(last.clone());
        assert_eq!(number.bits(), width(VOCABULARY_SIZE_MAX, size));
        let found = subset(&number, VOCABULARY_SIZE_MAX, size).expect("the last subset");
        assert!(found.iter().copied().eq(last));
        number.add(&Wide::one());
        assert_eq!(number, binomial(VOCABULARY_SIZE_MAX, size));
        assert_eq!(subset(&number, VOCABULARY_SIZE_MAX, size), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_subset_comes_back(
            bits in 8..=18u32,
            members in prop::collection::vec(any::<u32>(), 1..=ROW_ENTRIES_MAX),
        ) {
            let universe = 1 << bits;
            let members: BTreeSet<u32> = members.into_iter().map(|member| member % universe).collect();
            let number = index(members.iter().copied());
            prop_assert!(number.bits() <= width(universe, members.len() as u32));
            let found = subset(&number, universe, members.len() as u32).expect("its own number");
            prop_assert!(found.iter().eq(&members), "{:?} for {:?}", found, members);
        }
    }
}
