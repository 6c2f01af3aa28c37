//! The predictive value of the scores of drafted tokens.

use super::Builder;
use crate::plots::{LineChart, Series, SeriesMark};
use crate::record::TokenRecord;
use crate::tables::{Table, fixed, percent, setting};
use anyhow::Result;
use dunlin_hlm::fit::{Fit, PUBLISHED_INTERCEPT, PUBLISHED_SLOPE};

/// Rows of a table over positions.
const ROWS: u64 = 12;

/// The tokens of each temperature, in their order.
fn by_temperature(tokens: &[TokenRecord]) -> Vec<(f64, Vec<&TokenRecord>)> {
    let mut groups: Vec<(f64, Vec<&TokenRecord>)> = Vec::new();
    for token in tokens {
        match groups.iter_mut().find(|(temperature, _)| *temperature == token.temperature) {
            Some((_, group)) => group.push(token),
            None => groups.push((token.temperature, vec![token])),
        }
    }
    groups
}

/// Rejection by uncertainty.
pub(super) fn uncertainty(report: &mut Builder, tokens: &[TokenRecord]) -> Result<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    report.heading("Does uncertainty foretell rejection?");
    report.paragraph(
        "All drafts that `lossless` had judged. The line is least squares over tokens (rejected is 1); AUC is the \
         probability that a rejected token is the more uncertain one, 0.5 for a score that says nothing. *From* and \
         *to*, the bars in the plot, are Wilson's 95 % interval; it takes tokens for independent, which those of one reply are not.",
    );
    let mut lines =
        Table::new(["temperature", "tokens", "rejected", "slope", "intercept", "correlation", "AUC"]);
    let samples = |token: &TokenRecord| (token.uncertainty, token.rejected);
    let fit = |(temperature, group): (f64, Vec<&TokenRecord>)| {
        Some((temperature, Fit::new(group.into_iter().map(samples))?))
    };
    let fits: Vec<(f64, Fit)> = by_temperature(tokens).into_iter().filter_map(fit).collect();
    for (temperature, fit) in &fits {
        lines.row(vec![
            setting(*temperature),
            fit.count().to_string(),
            percent(fit.rejection(), 1),
            fixed(fit.slope(), 3),
            fixed(fit.intercept(), 3),
            fixed(fit.correlation(), 3),
            fixed(fit.auc(), 3),
        ]);
    }
    report.table(&lines);
    report.paragraph(
        "CU-HLM's published line for another pair of models is 0.815 u − 0.066 (arXiv 2505.11788).",
    );
    for (temperature, fit) in &fits {
        report.subheading(&format!("temperature {}", setting(*temperature)));
        let (table, chart) = bins(*temperature, fit);
        report.table(&table);
        report.chart("uncertainty", &chart)?;
    }
    Ok(())
}

fn bins(temperature: f64, fit: &Fit) -> (Table, LineChart) {
    let mut table = Table::new(["u", "tokens", "mean u", "rejected", "from", "to", "line"]);
    let mut points = Series::new("tokens in 16 bins", SeriesMark::Points, []);
    for (i, bin) in fit.bins().iter().enumerate().filter(|(_, bin)| bin.count > 0) {
        let edge = |i: usize| i as f64 / fit.bins().len() as f64;
        let (mean, share) = (bin.mean(), bin.rate());
        let (low, high) = bin.interval();
        table.row(vec![
            format!("{} to {}", edge(i), edge(i + 1)),
            bin.count.to_string(),
            fixed(mean, 3),
            percent(share, 1),
            percent(low, 1),
            percent(high, 1),
            percent(fit.line(mean), 1),
        ]);
        points.points.push((mean, share));
        points.errors.push((mean, low, high));
    }
    let line = |name: &str, slope: f64, intercept: f64| {
        // The corners of a line clipped to 0..=1.
        let mut corners = [0.0, -intercept / slope, (1.0 - intercept) / slope, 1.0];
        corners.sort_by(f64::total_cmp);
        let within = corners.into_iter().filter(|u| (0.0..=1.0).contains(u));
        Series::new(name, SeriesMark::Line, within.map(|u| (u, (slope * u + intercept).clamp(0.0, 1.0))))
    };
    let chart = LineChart {
        title: format!("Uncertainty and rejection, temperature {}", setting(temperature)),
        x: "uncertainty u".to_string(),
        y: "share rejected".to_string(),
        series: vec![
            points,
            line("least squares", fit.slope(), fit.intercept()),
            line("CU-HLM, published", PUBLISHED_SLOPE, PUBLISHED_INTERCEPT),
        ],
    };
    (table, chart)
}

/// Importance and its adaptive threshold along the reply, and its relation to rejection.
pub(super) fn importance(report: &mut Builder, tokens: &[TokenRecord]) -> Result<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    report.heading("Importance and its threshold");
    report.paragraph(
        "The threshold is μ + λσ of the importances held, at λ = 0. Where it falls with the position as importance does, \
         it adapts; a fixed one would mean another thing at each position. AUC as above, for importance and for its \
         distance to the threshold.",
    );
    let mut table = Table::new([
        "temperature",
        "AUC of importance",
        "AUC above threshold",
        "tokens above",
        "rejected above",
        "rejected below",
    ]);
    let groups = by_temperature(tokens);
    for (temperature, group) in &groups {
        let auc = |score: fn(&TokenRecord) -> f64| {
            Fit::new(group.iter().map(|token| (score(token), token.rejected)))
                .map_or(f64::NAN, |fit| fit.auc())
        };
        let above =
            |above: bool| group.iter().filter(move |token| (token.importance > token.threshold) == above);
        let rejected =
            |of: bool| above(of).filter(|token| token.rejected).count() as f64 / above(of).count() as f64;
        table.row(vec![
            setting(*temperature),
            fixed(auc(|token| token.importance), 3),
            fixed(auc(|token| (1.0 + token.importance - token.threshold) / 2.0), 3),
            percent(above(true).count() as f64 / group.len() as f64, 1),
            percent(rejected(true), 1),
            percent(rejected(false), 1),
        ]);
    }
    report.table(&table);
    for (temperature, group) in &groups {
        report.subheading(&format!("temperature {}", setting(*temperature)));
        positions(report, *temperature, group)?;
    }
    Ok(())
}

fn positions(report: &mut Builder, temperature: f64, tokens: &[&TokenRecord]) -> Result<()> {
    let end = tokens.iter().map(|token| token.position + 1).max().unwrap_or(1);
    let step = end.div_ceil(ROWS);
    let mut table = Table::new(["position", "tokens", "mean importance", "mean threshold", "rejected"]);
    for (from, [count, importance, threshold, rejected]) in means(tokens, step) {
        let to = from + step - 1;
        table.row(vec![
            if step == 1 { from.to_string() } else { format!("{from} to {to}") },
            fixed(count, 0),
            fixed(importance, 3),
            fixed(threshold, 3),
            percent(rejected, 1),
        ]);
    }
    report.table(&table);
    let each = means(tokens, 1);
    let line = |name: &str, column: usize| {
        Series::new(name, SeriesMark::Line, each.iter().map(|(from, mean)| (*from as f64, mean[column])))
    };
    let chart = LineChart {
        title: format!("Importance over the reply, temperature {}", setting(temperature)),
        x: "position in the reply, tokens".to_string(),
        y: "mean".to_string(),
        series: vec![line("importance", 1), line("threshold (λ = 0)", 2)],
    };
    report.chart("importance", &chart)
}

/// For each interval of positions with tokens: its start, the number of tokens, and the means of importance, threshold
/// and rejection.
fn means(tokens: &[&TokenRecord], step: u64) -> Vec<(u64, [f64; 4])> {
    let mut sums = std::collections::BTreeMap::new();
    for token in tokens {
        let sum: &mut [f64; 4] = sums.entry(token.position / step * step).or_default();
        let values = [1.0, token.importance, token.threshold, f64::from(token.rejected)];
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.into_iter().map(|(from, [n, a, b, c])| (from, [n, a / n, b / n, c / n])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_by_position() {
        let token = |position, importance, rejected| TokenRecord {
            temperature: 1.0,
            position,
            uncertainty: 0.5,
            importance,
            threshold: 2.0 * importance,
            rejected,
        };
        let tokens = [token(0, 0.2, true), token(1, 0.4, false), token(5, 0.5, true)];
        let refs: Vec<&TokenRecord> = tokens.iter().collect();
        let means = means(&refs, 2);
        assert_eq!(means.len(), 2);
        assert!((means[0].1[1] - 0.3).abs() < 1e-12 && (means[0].1[2] - 0.6).abs() < 1e-12);
        assert_eq!((means[0].0, means[0].1[0], means[0].1[3]), (0, 2.0, 0.5));
        assert_eq!((means[1].0, means[1].1), (4, [1.0, 0.5, 1.0, 1.0]));
        assert_eq!(by_temperature(&tokens).len(), 1);
    }
}
