//! Random numbers from a seed, for jitter alone: nothing secret hangs on them.

use dunlin_hlm::time::Duration;

/// A generator of jitter: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `span`, and up to a quarter of it more.
    pub(crate) fn stretch(&mut self, span: Duration) -> Duration {
        Duration(span.0 + self.next() % (span.0 / 4 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_adds_up_to_a_quarter() {
        let mut dice = Dice(7);
        let spans: Vec<u64> = (0..1000).map(|_| dice.stretch(Duration(4000)).0).collect();
        assert!(spans.iter().all(|span| (4000..=5000).contains(span)));
        let (least, most) = (spans.iter().min().unwrap(), spans.iter().max().unwrap());
        assert!(*least < 4050 && *most > 4950, "{least} to {most}");
        assert_eq!(dice.stretch(Duration(0)), Duration(0));
    }
}
