//! Figures as one line of bars.

/// Bars, from the lowest to the highest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A smaller range counts as no range, W: figures are shown to a milliwatt.
const RANGE_MIN: f64 = 1e-3;

/// The last `columns` figures as bars, scaled between their smallest and largest. Equal figures give the lowest bar.
pub(super) fn sparkline(figures: &[f64], columns: usize) -> String {
    let shown = &figures[figures.len().saturating_sub(columns)..];
    let low = shown.iter().copied().fold(f64::INFINITY, f64::min);
    let high = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    shown.iter().map(|figure| BARS[level(*figure, low, high)]).collect()
}

/// The eighth of the range that contains a figure.
fn level(figure: f64, low: f64, high: f64) -> usize {
    let range = high - low;
    if range < RANGE_MIN {
        return 0;
    }
    (((figure - low) / range * BARS.len() as f64) as usize).min(BARS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_reach_from_the_smallest_to_the_largest() {
        let ramp: Vec<f64> = (0..8).map(|i| 2.0 + f64::from(i)).collect();
        assert_eq!(sparkline(&ramp, 60), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[-1.0, 3.0, 1.0], 60), "▁█▅");
    }

    #[test]
    fn the_scale_is_of_what_is_shown() {
        let figures = [1000.0, 2.0, 3.0, 2.5];
        assert_eq!(sparkline(&figures, 3), "▁█▅");
        assert_eq!(sparkline(&figures, 4), "█▁▁▁");
    }

    #[test]
    fn nothing_and_all_the_same() {
        assert_eq!(sparkline(&[], 60), "");
        assert_eq!(sparkline(&[2.7; 3], 60), "▁▁▁");
        assert_eq!(sparkline(&[2.7; 3], 0), "");
        assert_eq!(sparkline(&[2.7, 2.7000001, 2.7005], 60), "▁▁▁", "rounding is no change");
        assert_eq!(sparkline(&[2.7, 2.702], 60), "▁█");
    }
}
