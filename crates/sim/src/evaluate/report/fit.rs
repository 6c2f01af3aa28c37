//! How well a score foretells rejection.

const BINS: usize = 16;

/// Tokens whose score lies in one of 16 even parts of 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct FitBin {
    /// How many.
    pub(super) count: usize,
    /// How many of them were rejected.
    pub(super) rejected: usize,
    sum: f64,
}

/// The least-squares line of rejection (0 or 1) over a score, and how well the score tells the two apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit {
    count: usize,
    rejection: f64,
    slope: f64,
    intercept: f64,
    correlation: f64,
    auc: f64,
    bins: [FitBin; BINS],
}

impl FitBin {
    /// The mean score.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// The share rejected.
    pub(super) fn rate(&self) -> f64 {
        self.rejected as f64 / self.count as f64
    }

    /// Wilson's interval of the share, at 95 %.
    pub(super) fn interval(&self) -> (f64, f64) {
        const Z: f64 = 1.959_964;
        let (n, share) = (self.count as f64, self.rate());
        let centre = share + Z * Z / (2.0 * n);
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
    }
}

impl Fit {
    /// Fits (score in 0..=1, whether rejected); other scores are left out. Nothing where none is left.
    pub(super) fn new(samples: impl IntoIterator<Item = (f64, bool)>) -> Option<Self> {
        let samples: Vec<(f64, bool)> =
            samples.into_iter().filter(|(x, _)| (0.0..=1.0).contains(x)).collect();
        let (mut x, mut y, mut bins) = (0.0, 0.0, [FitBin::default(); BINS]);
        for &(score, rejected) in &samples {
            x += score;
            y += f64::from(rejected);
            let bin = &mut bins[((score * BINS as f64) as usize).min(BINS - 1)];
            bin.count += 1;
            bin.rejected += usize::from(rejected);
            bin.sum += score;
        }
        let count = samples.len();
        let (x, y) = (x / count as f64, y / count as f64);
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for &(score, rejected) in &samples {
            let (dx, dy) = (score - x, f64::from(rejected) - y);
            xx += dx * dx;
            xy += dx * dy;
            yy += dy * dy;
        }
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        let correlation = if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 };
        let intercept = y - slope * x;
        (count > 0).then(|| Self {
            count,
            rejection: y,
            slope,
            intercept,
            correlation,
            auc: auc(samples),
            bins,
        })
    }

    /// Tokens.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Share of them that was rejected.
    pub(super) fn rejection(&self) -> f64 {
        self.rejection
    }

    /// Of the line; 0 where the score doesn't vary.
    pub(super) fn slope(&self) -> f64 {
        self.slope
    }

    /// Of the line.
    pub(super) fn intercept(&self) -> f64 {
        self.intercept
    }

    /// The line at a score, within 0..=1.
    pub(super) fn line(&self, score: f64) -> f64 {
        (self.slope * score + self.intercept).clamp(0.0, 1.0)
    }

    /// Pearson's, of score and rejection; 0 where either doesn't vary.
    pub(super) fn correlation(&self) -> f64 {
        self.correlation
    }

    /// The probability that a rejected token has the higher score than an accepted one, ties counted half; one half
    /// where there is but one kind.
    pub(super) fn auc(&self) -> f64 {
        self.auc
    }

    /// The tokens by score.
    pub(super) fn bins(&self) -> &[FitBin; BINS] {
        &self.bins
    }
}

/// By ranks, those of ties averaged (Mann and Whitney's U).
fn auc(mut samples: Vec<(f64, bool)>) -> f64 {
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins, mut rejected) = (0.0, 0.0, 0.0);
    for ties in samples.chunk_by(|a, b| a.0 == b.0) {
        let hits = ties.iter().filter(|(_, rejected)| *rejected).count() as f64;
        let others = ties.len() as f64 - hits;
        wins += hits * (below + 0.5 * others);
        below += others;
        rejected += hits;
    }
    if rejected * below > 0.0 { wins / (rejected * below) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_is_what_all_pairs_say() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..50 {
            let count = random.usize(2..40);
            let sample = |_| (f64::from(random.u8(..8)) / 8.0, random.bool());
            let samples: Vec<(f64, bool)> = (0..count).map(sample).collect();
            let (mut wins, mut pairs) = (0.0, 0.0);
            for (a, _) in samples.iter().filter(|s| s.1) {
                for (b, _) in samples.iter().filter(|s| !s.1) {
                    pairs += 1.0;
                    wins += if a > b {
                        1.0
                    } else if a == b {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
            let auc = auc(samples);
            let want = if pairs > 0.0 { wins / pairs } else { 0.5 };
            assert!((auc - want).abs() < 1e-12, "{auc} {want}");
        }
    }

    #[test]
    fn the_line_goes_through_shares_that_lie_on_it() {
        // Of ten tokens at u, 10·(0.5 u + 0.1) are rejected.
        let at = |u: f64| (0..10).map(move |i| (u, f64::from(i) < 10.0 * (0.5 * u + 0.1) - 1e-9));
        let fit =
            Fit::new(at(0.0).chain(at(0.4)).chain(at(1.0)).chain([(1.5, true), (f64::NAN, true)])).unwrap();
        assert!((fit.slope() - 0.5).abs() < 1e-12 && (fit.intercept() - 0.1).abs() < 1e-12, "{fit:?}");
        assert!((fit.line(0.4) - 0.3).abs() < 1e-12 && fit.line(2.0) == 1.0);
        let bins = fit.bins();
        assert_eq!((fit.count(), bins[0].count, bins[6].rejected, bins[15].count), (30, 10, 3, 10));
        assert!((bins[6].mean() - 0.4).abs() < 1e-12 && (bins[6].rate() - 0.3).abs() < 1e-12);
        assert!((fit.rejection() - 1.0 / 3.0).abs() < 1e-12);
        let certain = Fit::new([(0.25, false), (0.75, true), (0.25, false), (0.75, true)]).unwrap();
        assert!((certain.correlation() - 1.0).abs() < 1e-12 && certain.auc() == 1.0);
        let level = Fit::new([(0.5, true), (0.5, false)]).unwrap();
        assert_eq!(
            (level.slope(), level.correlation(), level.auc(), level.intercept()),
            (0.0, 0.0, 0.5, 0.5)
        );
        assert_eq!(Fit::new([(-0.1, true)]), None);
    }

    #[test]
    fn wilson_by_hand() {
        let of = |rejected| FitBin { count: 10, rejected, sum: 0.0 }.interval();
        let (low, high) = of(0);
        assert!(low == 0.0 && (high - 0.2775).abs() < 1e-4, "{low} {high}");
        let (low, high) = of(5);
        assert!((low - 0.2366).abs() < 1e-4 && (high - 0.7634).abs() < 1e-4, "{low} {high}");
    }
}
