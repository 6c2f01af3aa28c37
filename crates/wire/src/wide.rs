//! A wide unsigned integer without an allocator, with only the operations that counting subsets needs.

use crate::limits::{ROW_ENTRIES_MAX, TOKEN_BITS_MAX};
use core::cmp::Ordering;
use heapless::Vec;

/// Words of the largest number needed: a product of as many token ids as a row has entries.
const WORDS: usize = (ROW_ENTRIES_MAX * TOKEN_BITS_MAX as usize).div_ceil(u32::BITS as usize);
/// The reason why no number exceeds its words.
const FITS: &str = "no number is above a product of ROW_ENTRIES_MAX token ids";

/// A number in words of 32 bits, least significant first; the last word is never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wide(Vec<u32, WORDS>);

impl Wide {
    pub(crate) fn one() -> Self {
        let mut one = Self::default();
        one.push_bit(true);
        one
    }

    pub(crate) fn mul(&mut self, factor: u32) {
        self.scale(factor, 0);
    }

    /// Doubles the number and adds `bit`.
    pub(crate) fn push_bit(&mut self, bit: bool) {
        self.scale(2, u32::from(bit));
    }

    fn scale(&mut self, factor: u32, mut carry: u32) {
        for word in &mut self.0 {
            let product = u64::from(*word) * u64::from(factor) + u64::from(carry);
            (*word, carry) = (product as u32, (product >> u32::BITS) as u32);
        }
        if carry != 0 {
            self.0.push(carry).expect(FITS);
        }
        self.trim();
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0).expect(FITS);
        }
        let mut carry = false;
        for (at, word) in self.0.iter_mut().enumerate() {
            let (sum, first) = word.overflowing_add(other.0.get(at).copied().unwrap_or(0));
            let (sum, second) = sum.overflowing_add(u32::from(carry));
            (*word, carry) = (sum, first | second);
        }
        if carry {
            self.0.push(1).expect(FITS);
        }
    }

    /// Subtracts `other`, which must not be larger.
    pub(crate) fn sub(&mut self, other: &Self) {
        let mut borrow = false;
        for (at, word) in self.0.iter_mut().enumerate() {
            let (rest, first) = word.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (rest, second) = rest.overflowing_sub(u32::from(borrow));
            (*word, borrow) = (rest, first | second);
        }
        assert!(!borrow, "a number is subtracted from one that is not below it");
        self.trim();
    }

    /// Divides by `divisor`, which must leave no remainder.
    pub(crate) fn div_exact(&mut self, divisor: u32) {
        let mut rest = 0;
        for word in self.0.iter_mut().rev() {
            let part = u64::from(rest) << u32::BITS | u64::from(*word);
            (*word, rest) = ((part / u64::from(divisor)) as u32, (part % u64::from(divisor)) as u32);
        }
        assert!(rest == 0, "a division leaves a remainder");
        self.trim();
    }

    /// The number of bits up to the highest that is set.
    pub(crate) fn bits(&self) -> u32 {
        let below = self.0.len().saturating_sub(1) as u32 * u32::BITS;
        self.0.last().map_or(0, |word| below + u32::BITS - word.leading_zeros())
    }

    /// Bit `at`, counted from the least significant one.
    pub(crate) fn bit(&self, at: u32) -> bool {
        self.0.get((at / u32::BITS) as usize).is_some_and(|word| word >> (at % u32::BITS) & 1 == 1)
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

impl Ord for Wide {
    fn cmp(&self, other: &Self) -> Ordering {
        let words = || self.0.iter().rev().cmp(other.0.iter().rev());
        self.0.len().cmp(&other.0.len()).then_with(words)
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{FITS, WORDS, Wide};
    use proptest::prelude::*;

    pub(crate) fn wide(value: u128) -> Wide {
        let mut wide = Wide::default();
        (0..u128::BITS).rev().for_each(|bit| wide.push_bit(value >> bit & 1 == 1));
        wide
    }

    pub(crate) fn value(wide: &Wide) -> u128 {
        assert!(wide.bits() <= u128::BITS);
        (0..wide.bits()).rev().fold(0, |value, bit| value << 1 | u128::from(wide.bit(bit)))
    }

    /// Numbers of every length, including those at a word's boundary.
    fn number() -> impl Strategy<Value = u128> {
        let edge = (0..=96u32, 0..3u128).prop_map(|(bit, off)| ((1 << bit) + off).saturating_sub(1));
        prop_oneof![(any::<u128>(), 32..128u32).prop_map(|(value, shift)| value >> shift), edge]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arithmetic_is_that_of_u128(a in number(), b in number(), factor in 1..u32::MAX) {
            let (large, small) = (a.max(b), a.min(b));
            let mut sum = wide(a);
            sum.add(&wide(b));
            prop_assert_eq!(value(&sum), a + b);
            let mut rest = wide(large);
            rest.sub(&wide(small));
            prop_assert_eq!(&rest, &wide(large - small));
            let mut product = wide(a >> 1);
            product.mul(factor);
            prop_assert_eq!(value(&product), (a >> 1) * u128::from(factor));
            product.div_exact(factor);
            prop_assert_eq!(&product, &wide(a >> 1));
            prop_assert_eq!(wide(a).cmp(&wide(b)), a.cmp(&b));
            prop_assert_eq!(wide(a).bits(), u128::BITS - a.leading_zeros());
        }
    }

    #[test]
    fn nothing_is_zero_whatever_made_it() {
        let mut product = wide(u128::MAX);
        product.mul(0);
        let mut rest = wide(1 << 70);
        rest.sub(&wide(1 << 70));
        assert_eq!((product.bits(), product, rest.bits(), rest), (0, wide(0), 0, Wide::default()));
    }

    #[test]
    fn every_bit_of_every_word_is_kept_and_no_more() {
        let bits = WORDS as u32 * u32::BITS;
        let mut full = Wide::default();
        (0..bits).for_each(|_| full.push_bit(true));
        assert_eq!((bits, full.bits(), full.bit(bits - 1), full.bit(bits)), (1152, bits, true, false));
        let panics = std::panic::catch_unwind(move || full.push_bit(false)).expect_err("a word too many");
        let message = panics.downcast_ref::<std::string::String>().expect("a text");
        assert!(message.starts_with(FITS), "{message}");
    }

    #[test]
    #[should_panic(expected = "subtracted from one that is not below it")]
    fn a_difference_is_never_negative() {
        wide(5).sub(&wide(6));
    }

    #[test]
    #[should_panic(expected = "leaves a remainder")]
    fn a_division_is_exact() {
        wide(7).div_exact(2);
    }
}
