//! A set of numbers below a bound, as bits: what an object still lacks.

/// The units of an object that are missing.
#[derive(Clone, Debug)]
pub(super) struct MissingUnits {
    bits: Vec<u64>,
    units: u32,
    count: u32,
    /// No missing unit is before this word.
    first_word: usize,
}

impl MissingUnits {
    /// Those of `units` that `has` denies.
    pub(super) fn new(units: u32, has: impl Fn(u32) -> bool) -> Self {
        let words = (units as usize).div_ceil(64);
        let mut missing = Self { bits: vec![0; words], units, count: 0, first_word: 0 };
        for unit in (0..units).filter(|unit| !has(*unit)) {
            missing.bits[unit as usize / 64] |= 1 << (unit % 64);
            missing.count += 1;
        }
        missing
    }

    /// The number of missing units.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The number of all units.
    pub(super) fn units(&self) -> u32 {
        self.units
    }

    /// True if the unit is missing.
    pub(super) fn contains(&self, unit: u32) -> bool {
        unit < self.units && self.bits[unit as usize / 64] & (1 << (unit % 64)) != 0
    }

    /// Takes a unit off; it must be missing.
    pub(super) fn remove(&mut self, unit: u32) {
        debug_assert!(self.contains(unit), "only what is missing arrives");
        self.bits[unit as usize / 64] &= !(1 << (unit % 64));
        self.count -= 1;
        while self.bits.get(self.first_word) == Some(&0) {
            self.first_word += 1;
        }
    }

    /// The missing units in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bits.iter().enumerate().skip(self.first_word).flat_map(|(index, word)| {
            let base = index as u32 * 64;
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| base + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_missing_until_they_are_removed() {
        let mut missing = MissingUnits::new(130, |unit| unit % 2 == 0);
        assert_eq!((missing.count(), missing.units()), (65, 130));
        assert!(missing.contains(129) && !missing.contains(128) && !missing.contains(130));
        for unit in (1..100).step_by(2) {
            missing.remove(unit);
        }
        assert_eq!(missing.iter().collect::<Vec<_>>(), (101..130).step_by(2).collect::<Vec<_>>());
        assert_eq!(MissingUnits::new(0, |_| false).count(), 0);
    }
}
