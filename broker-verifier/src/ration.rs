//! A bound on warnings that a peer can cause.
//!
//! Invariant: whatever peers send, the log grows by so many lines of a kind in a period. Time is an argument.

use std::time::Duration;

/// Warnings of one kind in one period at most.
pub const WARNINGS_MAX: u32 = 20;
/// The period of [`WARNINGS_MAX`].
pub const PERIOD: Duration = Duration::from_secs(60);

/// The warnings of one kind in the present period.
#[derive(Debug, Default)]
pub(crate) struct WarningRation {
    period: Option<Duration>,
    warned: u32,
}

impl WarningRation {
    /// True if another warning may be logged at `now`, counted from any fixed moment. The first one over the limit is
    /// announced as `what`, once in a period.
    pub(crate) fn take(&mut self, what: &'static str, now: Duration) -> bool {
        // A clock that was set back begins a period as well: waiting for the old one may take years.
        if self.period.is_none_or(|began| now.checked_sub(began).is_none_or(|gone| gone >= PERIOD)) {
            (self.period, self.warned) = (Some(now), 0);
        }
        self.warned = self.warned.saturating_add(1);
        if self.warned == WARNINGS_MAX + 1 {
            let seconds = PERIOD.as_secs();
            tracing::warn!(
                what,
                seconds,
                "many warnings of one kind; further ones in this period are only counted"
            );
        }
        self.warned <= WARNINGS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;

    #[test]
    fn a_period_has_so_many_and_one_that_says_so() {
        let mut ration = WarningRation::default();
        let mut taken = |now| {
            let (taken, said) = logged(|| (0..1000).filter(|_| ration.take("a kind", now)).count());
            (taken, said.matches("only counted what=\"a kind\" seconds=60").count())
        };
        let later = Duration::from_secs(1000);
        assert_eq!(taken(later), (WARNINGS_MAX as usize, 1));
        assert_eq!(taken(later + PERIOD - Duration::from_nanos(1)), (0, 0));
        assert_eq!(taken(later + PERIOD), (WARNINGS_MAX as usize, 1));
        assert_eq!(taken(Duration::ZERO), (WARNINGS_MAX as usize, 1), "a clock that was set back");
    }
}
