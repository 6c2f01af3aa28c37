//! What a second costs, by what the board does in it.
//!
//! Invariant: a price is finite, drafting costs something, and waiting costs no more than drafting. The rule asks for
//! the ratio alone, so the unit is the caller's: joules where a sensor knows them, seconds where none does.

use thiserror::Error;

/// What a second of a reply costs, J/s or any other unit that both share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    draft: f64,
    wait: f64,
}

/// A price that is none. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum PricesError {
    /// Of drafting.
    #[error("a second of drafting costs {0}, not a finite number above 0")]
    Draft(f64),
    /// Of waiting.
    #[error("a second of waiting costs {0}, not a finite number of at least 0")]
    Wait(f64),
}

impl Prices {
    /// Every second costs one: what is decided by where no power is known.
    pub const SECONDS: Self = Self { draft: 1.0, wait: 1.0 };

    /// The price of a second while the drafter runs, and of one in which nothing but an answer is missing; of the
    /// whole board, idling included.
    ///
    /// A wait dearer than drafting is taken to cost as much: the drafter draws nothing less than nothing, so it is
    /// the noise of a measurement, or a radio that sleeps while the drafter runs and would not beside a wait.
    ///
    /// # Errors
    /// Names the price that is no number, infinite, negative, or zero where that is drafting's.
    pub fn new(draft: f64, wait: f64) -> Result<Self, PricesError> {
        if !(draft.is_finite() && draft > 0.0) {
            return Err(PricesError::Draft(draft));
        }
        if !(wait.is_finite() && wait >= 0.0) {
            return Err(PricesError::Wait(wait));
        }
        Ok(Self { draft, wait: wait.min(draft) })
    }

    /// Of a second while the drafter runs.
    pub fn draft(&self) -> f64 {
        self.draft
    }

    /// Of a second in which nothing but an answer is missing.
    pub fn wait(&self) -> f64 {
        self.wait
    }

    /// The price of waiting over that of drafting, 0..=1.
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
