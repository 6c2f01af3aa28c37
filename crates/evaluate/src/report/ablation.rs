//! The runs named `ablation`: the benefit of importance, compared at equal upload rates.
//!
//! A threshold trades text for uploads, so two scores can be compared only at equal upload rates. Each family of
//! thresholds is a curve over the upload rate, interpolated linearly between its points.

use super::{Builder, Groups, place};
use crate::plots::{LineChart, Series, SeriesMark};
use crate::record::CellRecord;
use crate::tables::{Table, code, fixed, percent};
use anyhow::Result;

/// The points in the common range of rates at which the families are compared.
const AT: [f64; 3] = [0.25, 0.5, 0.75];
/// A relative difference of TV below this counts as none.
const NONE_BELOW: f64 = 0.05;
/// The compared families: with importance and without.
const PAIRS: [(&str, &str); 3] =
    [("both", "uncertainty"), ("either", "uncertainty"), ("importance", "random")];

/// TV, NLL and ROUGE-L.
type Quality = [f64; 3];

/// Settings of one score, by rising upload rate.
#[derive(Clone, Debug, PartialEq)]
struct Family<'a> {
    name: &'a str,
    curve: Vec<(f64, Quality)>,
}

/// The result of a comparison at equal rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Benefit {
    Helps,
    Harms,
    Nothing,
}

/// Two families at the same rates.
#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    from: f64,
    to: f64,
    with: f64,
    without: f64,
}

/// Tables of the families, and a sentence on the benefit of importance.
pub(super) fn section(report: &mut Builder, records: &[CellRecord]) -> Result<()> {
    let groups = Groups::new(records, "ablation", place);
    if groups.is_empty() {
        return Ok(());
    }
    report.heading("Does importance help?");
    report.paragraph(
        "Each family is one score with several thresholds: uncertainty, importance, both passed, either passed, or \
         a coin. They are compared where they send equally many frames per token, by straight lines between the \
         settings measured.",
    );
    for (group, records) in groups.iter() {
        let families = families(records);
        report.subheading(group);
        match overlap(&families.iter().collect::<Vec<_>>()) {
            Some(stretch) => report.table(&table(&families, stretch)),
            None => report.paragraph("No upload rate lies within the reach of all families."),
        }
        let said: Vec<String> =
            PAIRS.iter().filter_map(|(with, without)| sentence(&families, with, without)).collect();
        if said.is_empty() {
            report.paragraph(
                "Nothing can be said of importance: no family was run with the one it is held against.",
            );
        }
        said.iter().for_each(|said| report.paragraph(said));
        let line = |family: &Family<'_>| {
            Series::new(
                family.name,
                SeriesMark::Both,
                family.curve.iter().map(|(rate, quality)| (*rate, quality[0])),
            )
        };
        let chart = LineChart {
            title: format!("Ablation: {group}"),
            x: "draft frames up per committed token".to_string(),
            y: "TV per token".to_string(),
            series: families.iter().map(line).collect(),
        };
        report.chart("ablation", &chart)?;
    }
    Ok(())
}

/// Groups records by the part of their label before a colon or comma.
fn families<'a>(records: &[&'a CellRecord]) -> Vec<Family<'a>> {
    let mut families: Vec<Family<'a>> = Vec::new();
    for record in records {
        let name = record.label.split([':', ',']).next().unwrap_or_default().trim();
        let point = (record.upload_rate(), [record.tv, record.nll, record.rouge_l]);
        match families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.curve.push(point),
            None => families.push(Family { name, curve: vec![point] }),
        }
    }
    for family in &mut families {
        family.curve.sort_by(|a, b| a.0.total_cmp(&b.0));
        family.curve = family.curve.chunk_by(|a, b| a.0 == b.0).map(mean).collect();
    }
    families
}

/// The mean of settings with the same rate, which become one point.
fn mean(points: &[(f64, Quality)]) -> (f64, Quality) {
    let mut sum = [0.0; 3];
    for (_, quality) in points {
        sum.iter_mut().zip(quality).for_each(|(sum, value)| *sum += value);
    }
    (points[0].0, sum.map(|sum| sum / points.len() as f64))
}

/// The range of upload rates that all families reach; `None` if it is a single point or empty.
fn overlap(families: &[&Family<'_>]) -> Option<(f64, f64)> {
    let ends = families.iter().filter_map(|family| Some((family.curve.first()?.0, family.curve.last()?.0)));
    let (from, to) = ends.fold((f64::NEG_INFINITY, f64::INFINITY), |(a, b), (c, d)| (a.max(c), b.min(d)));
    (from < to && to.is_finite()).then_some((from, to))
}

/// A family's quality at a rate; `None` outside its range.
fn at(family: &Family<'_>, rate: f64) -> Option<Quality> {
    let next = family.curve.iter().position(|(x, _)| *x >= rate)?;
    let (right, b) = family.curve[next];
    if right == rate {
        return Some(b);
    }
    let (left, a) = family.curve[next.checked_sub(1)?];
    let share = (rate - left) / (right - left);
    Some([0, 1, 2].map(|i| a[i] + share * (b[i] - a[i])))
}

fn rates((from, to): (f64, f64)) -> [f64; 3] {
    AT.map(|share| from + share * (to - from))
}

fn table(families: &[Family<'_>], stretch: (f64, f64)) -> Table {
    let mut table = Table::new(["family", "frames per token", "TV", "NLL, nats", "ROUGE-L"]);
    for rate in rates(stretch) {
        for family in families {
            let [tv, nll, rouge_l] = at(family, rate).unwrap_or([f64::NAN; 3]);
            table.row(vec![
                code(family.name),
                fixed(rate, 3),
                fixed(tv, 4),
                fixed(nll, 3),
                fixed(rouge_l, 3),
            ]);
        }
    }
    table
}

/// Compares the mean TV of two families over the rates that both reach.
fn compare(with: &Family<'_>, without: &Family<'_>) -> Option<Comparison> {
    let (from, to) = overlap(&[with, without])?;
    let mean = |family| {
        let sum: Option<f64> = rates((from, to)).into_iter().map(|rate| Some(at(family, rate)?[0])).sum();
        sum.map(|sum| sum / AT.len() as f64)
    };
    Some(Comparison { from, to, with: mean(with)?, without: mean(without)? })
}

impl Comparison {
    fn outcome(&self) -> Benefit {
        let difference = self.with - self.without;
        if difference.abs() <= NONE_BELOW * self.without {
            Benefit::Nothing
        } else if difference < 0.0 {
            Benefit::Helps
        } else {
            Benefit::Harms
        }
    }
}

/// A sentence on a comparison; `None` unless both families were run.
fn sentence(families: &[Family<'_>], with: &str, without: &str) -> Option<String> {
    let find = |name| families.iter().find(|family| family.name == name);
    let (a, b) = (find(with)?, find(without)?);
    let Some(comparison) = compare(a, b) else {
        return Some(format!(
            "`{with}` and `{without}` never upload equally often: nothing can be said of them."
        ));
    };
    let Comparison { from, to, with: tv, without: base } = comparison;
    let found = match comparison.outcome() {
        Benefit::Helps => "helps".to_string(),
        Benefit::Harms => "does not help".to_string(),
        Benefit::Nothing => format!("makes no difference beyond {}", percent(NONE_BELOW, 0)),
    };
    Some(format!(
        "At equal upload rate ({} to {} frames per token) `{with}` has a mean TV of {} and `{without}` of {}: here \
         importance **{found}**.",
        fixed(from, 3),
        fixed(to, 3),
        fixed(tv, 4),
        fixed(base, 4),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    fn family<'a>(name: &'a str, points: &[(f64, f64)]) -> Family<'a> {
        Family { name, curve: points.iter().map(|&(rate, tv)| (rate, [tv, 2.0 * tv, 1.0 - tv])).collect() }
    }

    #[test]
    fn between_two_points_runs_a_straight_line() {
        let line = family("x", &[(0.2, 0.4), (0.4, 0.2), (0.8, 0.0)]);
        for (rate, want) in [(0.2, 0.4), (0.25, 0.35), (0.4, 0.2), (0.5, 0.15), (0.8, 0.0)] {
            let [tv, nll, rouge_l] = at(&line, rate).unwrap();
            assert!((tv - want).abs() < 1e-12 && (nll - 2.0 * want).abs() < 1e-12, "{rate}");
            assert!((rouge_l - 1.0 + want).abs() < 1e-12, "{rate}");
        }
        assert_eq!((at(&line, 0.19), at(&line, 0.81)), (None, None), "nothing is known beyond its ends");
    }

    #[test]
    fn families_compare_only_where_both_reach() {
        let (a, b) = (family("a", &[(0.1, 0.3), (0.5, 0.1)]), family("b", &[(0.3, 0.4), (0.9, 0.1)]));
        assert_eq!(overlap(&[&a, &b]), Some((0.3, 0.5)));
        let comparison = compare(&a, &b).unwrap();
        assert!((comparison.with - 0.15).abs() < 1e-12 && (comparison.without - 0.35).abs() < 1e-12);
        assert_eq!(comparison.outcome(), Benefit::Helps);
        assert_eq!(compare(&b, &a).unwrap().outcome(), Benefit::Harms);
        let near = family("near", &[(0.1, 0.306), (0.5, 0.102)]);
        assert_eq!(compare(&near, &a).unwrap().outcome(), Benefit::Nothing);
        let beyond = family("beyond", &[(0.6, 0.1), (0.9, 0.1)]);
        assert_eq!((overlap(&[&a, &beyond]), overlap(&[]), compare(&a, &beyond)), (None, None, None));
    }

    #[test]
    fn labels_make_families_and_words_come_from_numbers() {
        let setting =
            |label: &str, frames_up, tv| CellRecord { frames_up, committed: 100, tv, ..record(label) };
        let records = [
            setting("uncertainty: 0.5", 20, 0.4),
            setting("both: 0.5", 20, 0.2),
            setting("uncertainty: 0.1", 60, 0.2),
            setting("both, u 0.1", 60, 0.0),
            setting("uncertainty: 0.2", 20, 0.2),
            setting("importance: 1", 90, 0.2),
            setting("random: 0.1", 10, 0.2),
        ];
        let families = families(&records.iter().collect::<Vec<_>>());
        assert_eq!(families.len(), 4);
        assert_eq!(families[0].curve.len(), 2, "equal rates are one point");
        assert!((families[0].curve[0].1[0] - 0.3).abs() < 1e-12);
        let said = sentence(&families, "both", "uncertainty").unwrap();
        assert_eq!(
            said,
            "At equal upload rate (0.200 to 0.600 frames per token) `both` has a mean TV of 0.1000 and `uncertainty` of \
             0.2500: here importance **helps**."
        );
        assert!(sentence(&families, "importance", "random").unwrap().contains("nothing can be said"));
        assert_eq!(sentence(&families, "either", "uncertainty"), None);
    }

    #[test]
    fn families_by_other_names_are_not_passed_over_in_silence() {
        let mut report = Builder::default();
        let records = ["and, u 0.1", "or, u 0.1"]
            .map(|label| CellRecord { run: "ablation".to_string(), ..record(label) });
        section(&mut report, &records).unwrap();
        assert!(report.text.contains("Nothing can be said of importance"), "{}", report.text);
    }
}
