//! The result as a screenful of text.

use super::record::{CalibrationRecord, Proposal, UncertaintyBin};
use crate::provenance;
use crate::screen::{Abilities, Colour};
use dunlin_hlm::uncertainty::Form;

/// Characters of a bar for a bin whose tokens were all rejected.
const BAR: usize = 24;
/// Column of the configuration's comments.
const COLUMN: usize = 31;

/// Bins as bars, the line, what is proposed. A model's name is foreign text, so it is escaped.
pub(super) fn lines(record: &CalibrationRecord, abilities: Abilities) -> Vec<String> {
    let target = match (&record.verifier.model, &record.verifier.id) {
        (Some(model), Some(id)) => format!("{} at {id}", provenance::model(model)),
        (Some(model), None) => provenance::model(model),
        (None, Some(id)) => id.clone(),
        (None, None) => "an unknown verifier".into(),
    };
    let mut lines = vec![
        format!(
            "{} judged by {target}: {} tokens, {} rejected",
            record.drafter.name,
            record.tokens,
            percent(record.rejection)
        ),
        String::new(),
        "uncertainty    tokens  rejected".into(),
    ];
    lines.extend(record.bins.iter().map(|bin| of_bin(bin, abilities)));
    lines.extend([
        String::new(),
        format!("line: {}, clipped (published for another pair: {})", record.line, record.published_line),
        format!("correlation {:.3}, AUC {:.3}", record.correlation, record.auc),
        String::new(),
        "misses at most  uncertainty_max  trusted  missed".into(),
    ]);
    lines.extend(record.proposals.iter().map(of_proposal));
    lines.push(String::new());
    lines
}

/// Instructions for using the result.
pub(super) fn advice(record: &CalibrationRecord) -> Vec<String> {
    let usable: Vec<&Proposal> =
        record.proposals.iter().filter(|p| p.missed <= p.miss_rate && p.trusted > 0.0).collect();
    let Some((first, others)) = usable.split_first() else {
        return vec!["No threshold keeps the miss rate that low: stay with the policy `lossless`.".into()];
    };
    let mut lines = vec![
        "Under lossless nothing needs setting. To trust tokens up to a threshold, in the configuration:"
            .into(),
        String::new(),
        "[policy]".into(),
        format!("{:<COLUMN$} # or \"cu-hlm\", \"importance\"", "name = \"u-hlm\""),
        setting("", first),
    ];
    lines.extend(others.iter().map(|proposal| setting("# ", proposal)));
    if record.uncertainty_form != Form::default().name() {
        lines.push(format!("uncertainty_form = {:?}", record.uncertainty_form));
    }
    lines
}

fn setting(begin: &str, proposal: &Proposal) -> String {
    let Proposal { uncertainty_max, trusted, missed, .. } = proposal;
    let setting = format!("{begin}uncertainty_max = {uncertainty_max}");
    format!(
        "{setting:<COLUMN$} # trusts {} of the drafts, {} of them misses",
        percent(*trusted),
        percent(*missed)
    )
}

fn of_bin(bin: &UncertaintyBin, abilities: Abilities) -> String {
    let UncertaintyBin { from, to, tokens, .. } = *bin;
    let Some(rejection) = bin.rejection else { return format!("{from:.2} – {to:.2} {tokens:>8}") };
    let full = (rejection * BAR as f64).round() as usize;
    let (colour, plain) = match abilities.colour {
        true => (colour(rejection).begin(), Colour::Plain.begin()),
        false => ("", ""),
    };
    let (full, empty) = ("█".repeat(full), "·".repeat(BAR - full));
    format!("{from:.2} – {to:.2} {tokens:>8} {:>9} {colour}{full}{empty}{plain}", percent(rejection))
}

fn colour(rejection: f64) -> Colour {
    match rejection {
        rate if rate < 0.1 => Colour::Green,
        rate if rate < 0.5 => Colour::Yellow,
        _ => Colour::Red,
    }
}

fn of_proposal(proposal: &Proposal) -> String {
    let Proposal { uncertainty_max, trusted, missed, .. } = *proposal;
    let (wanted, trusted, missed) = (proposal.wanted(), percent(trusted), percent(missed));
    format!("{wanted:>14}  {uncertainty_max:>15.4}  {trusted:>7}  {missed:>6}")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::record::tests::example;
    use dunlin_hlm::policy::{Policy, PolicyTable};

    const PLAIN: Abilities = Abilities { colour: false, cursor: false };

    #[test]
    fn a_screenful() {
        let (record, _) = example();
        let text = lines(&record, PLAIN).join("\n");
        for line in [
            "small <1> judged by v1: 8 tokens, 25.0 % rejected",
            "0.00 – 0.06        1     0.0 % ························",
            "0.25 – 0.31        1   100.0 % ████████████████████████",
            "0.94 – 1.00        0",
            "correlation 0.378, AUC 0.750",
            "           0 %           0.2000   37.5 %   0.0 %",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        let coloured = lines(&record, Abilities { colour: true, cursor: true }).join("\n");
        assert!(coloured.contains("\x1b[31m█") && !text.contains('\x1b'));
    }

    #[test]
    fn a_foreign_name_moves_no_cursor() {
        let (mut record, _) = example();
        for id in [Some("v1".to_owned()), None] {
            record.verifier.id = id;
            record.verifier.model = Some("large\x1b[2J\u{202e}".into());
            let text = lines(&record, PLAIN).join("\n");
            assert!(text.contains(r"judged by large\u{1b}[2J\u{202e}"), "{text:?}");
        }
    }

    /// The policy table of a configuration that contains this advice.
    fn policy(advice: &[String]) -> PolicyTable {
        let file: toml::Table = advice[2..].join("\n").parse().unwrap();
        file["policy"].clone().try_into().unwrap()
    }

    #[test]
    fn the_advice_is_a_configuration() {
        let (mut record, _) = example();
        let advice = advice(&record);
        let table = PolicyTable { uncertainty_max: Some(0.2), ..Policy::UHlm.table() };
        assert_eq!(policy(&advice), table);
        assert!(advice.iter().any(|line| line.starts_with("# uncertainty_max = 0.6 ")), "{advice:?}");
        record.uncertainty_form = "one-minus-q";
        let uncertainty_form = Some(Form::OneMinusQ);
        assert_eq!(policy(&super::advice(&record)), PolicyTable { uncertainty_form, ..table });
    }

    #[test]
    fn a_threshold_that_does_not_hold_is_not_advised() {
        let (mut record, _) = example();
        for proposal in &mut record.proposals {
            proposal.missed = 1.0;
        }
        assert!(advice(&record)[0].starts_with("No threshold"));
    }
}
