//! The two clocks of a machine, as values.

use dunlin_hlm::time::Instant;

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The caller's monotonic clock, for spans.
    pub mono: Instant,
    /// Seconds since 1970, for documents that expire.
    pub unix: u64,
}
