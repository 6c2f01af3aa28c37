//! Prices: the cost of a second of drafting and of a second of waiting.
//!
//! Invariant: prices are finite, drafting costs more than 0, and waiting costs at most as much as drafting. The stop
//! rule uses only their ratio, so the caller chooses the unit: joules where a power sensor is present, else seconds.

use thiserror::Error;

/// Prices of a second of drafting and of waiting, in W (J/s) or any other unit that both share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    draft: f64,
    wait: f64,
}

/// An invalid price. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum PricesError {
    /// The price of drafting is invalid.
    #[error("a second of drafting costs {0}, not a finite number above 0")]
    Draft(f64),
    /// The price of waiting is invalid.
    #[error("a second of waiting costs {0}, not a finite number of at least 0")]
    Wait(f64),
}

impl Prices {
    /// Every second costs 1: the prices while no power is known.
    pub const SECONDS: Self = Self { draft: 1.0, wait: 1.0 };

    /// The price of a second while the drafter runs and of one in which the device waits for a verifier. Both are of
    /// the whole board, idle power included.
    ///
    /// A price of waiting above that of drafting is lowered to it. Drafting can't draw less power than waiting, so the
    /// difference is measurement noise, or a radio that happens to sleep while the drafter runs.
    ///
    /// # Errors
    /// Names the price that is NaN, infinite or negative, or a price of drafting that is 0.
    pub fn new(draft: f64, wait: f64) -> Result<Self, PricesError> {
        if !(draft.is_finite() && draft > 0.0) {
            return Err(PricesError::Draft(draft));
        }
        if !(wait.is_finite() && wait >= 0.0) {
            return Err(PricesError::Wait(wait));
        }
        Ok(Self { draft, wait: wait.min(draft) })
    }

    /// These prices, with every second dearer by so much: a finite number of at least 0.
    #[must_use]
    pub fn plus(self, second: f64) -> Self {
        // A sum beyond the largest number would be no price.
        let sum = |price: f64| (price + second).min(f64::MAX);
        Self { draft: sum(self.draft), wait: sum(self.wait) }
    }

    /// The price of a second while the drafter runs.
    pub fn draft(&self) -> f64 {
        self.draft
    }

    /// The price of a second in which the device waits for a verifier.
    pub fn wait(&self) -> f64 {
        self.wait
    }

    /// The price of waiting divided by that of drafting, 0..=1.
    pub fn ratio(&self) -> f64 {
        self.wait / self.draft
    }
}

impl Default for Prices {
    fn default() -> Self {
        Self::SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_costs_no_more_than_drafting() {
        let prices = Prices::new(4.0, 3.0).unwrap();
        assert_eq!((prices.draft(), prices.wait(), prices.ratio()), (4.0, 3.0, 0.75));
        assert_eq!(Prices::new(4.0, 5.0), Prices::new(4.0, 4.0));
        assert_eq!(Prices::new(4.0, 0.0).unwrap().ratio(), 0.0);
        assert_eq!((Prices::SECONDS.ratio(), Prices::default()), (1.0, Prices::SECONDS));
    }

    #[test]
    fn a_second_that_is_worth_something_is_dearer_in_both() {
        let prices = Prices::new(4.0, 1.0).unwrap();
        assert_eq!(prices.plus(2.0), Prices::new(6.0, 3.0).unwrap());
        assert_eq!(prices.plus(0.0), prices);
        assert!(prices.plus(1e6).ratio() > 0.999_99, "in the end it is the seconds that count");
        assert!(Prices::new(f64::MAX, 0.0).unwrap().plus(1e300).draft().is_finite());
    }

    #[test]
    fn what_is_no_price_is_refused_by_name() {
        for draft in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0] {
            let error = Prices::new(draft, 1.0).unwrap_err();
            assert!(std::format!("{error}").starts_with("a second of drafting costs"), "{draft}: {error}");
        }
        for wait in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            let error = Prices::new(1.0, wait).unwrap_err();
            assert!(std::format!("{error}").starts_with("a second of waiting costs"), "{wait}: {error}");
        }
    }

    #[test]
    fn the_ratio_of_extremes_is_a_ratio() {
        let extremes = [f64::from_bits(1), f64::MIN_POSITIVE, 1e-9, 1.0, 1e300, f64::MAX];
        for (draft, wait) in extremes.into_iter().flat_map(|d| extremes.map(|w| (d, w))) {
            let ratio = Prices::new(draft, wait).unwrap().ratio();
            assert!((0.0..=1.0).contains(&ratio), "{draft} {wait}: {ratio}");
        }
    }
}
