//! The measurement of a pair, as `calibration.json` has it.

use super::CalibrateFlags;
use super::gather::Gathered;
use crate::config::Settings;
use crate::turn::fingerprint;
use dunlin_hlm::fit::{Fit, FitBin, PUBLISHED_INTERCEPT, PUBLISHED_SLOPE};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::uncertainty::SCORES;
use dunlin_lm::ModelDir;
use serde::Serialize;
use std::fmt;

/// The file. Its field names are an interface; shares and uncertainties are 0..=1.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CalibrationRecord {
    pub(super) drafter: DrafterRecord,
    pub(super) verifier: VerifierRecord,
    sampling: Sampled,
    pub(super) uncertainty_form: &'static str,
    prompts: PromptsRecord,
    /// The reason why no more tokens were judged: `tokens`, `prompts`, `interrupted`, or how the last reply ended.
    ended: &'static str,
    pub(super) tokens: usize,
    pub(super) rejection: f64,
    pub(super) correlation: f64,
    pub(super) auc: f64,
    pub(super) line: FittedLine,
    pub(super) published_line: FittedLine,
    pub(super) bins: Vec<UncertaintyBin>,
    pub(super) proposals: Vec<Proposal>,
}

/// The drafter.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DrafterRecord {
    pub(super) name: String,
    weights_sha256: Option<String>,
    vocabulary: u32,
    fingerprint: String,
}

/// The verifier, as far as it is known.
#[derive(Clone, Debug, Serialize)]
pub(super) struct VerifierRecord {
    pub(super) id: Option<String>,
    pub(super) model: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sampled {
    temperature: f32,
    top_p: f32,
    top_k: u32,
    /// The first session's seed, each later one's being the next number; `null` for random ones.
    seed: Option<u64>,
    max_tokens: usize,
}

#[derive(Clone, Debug, Serialize)]
struct PromptsRecord {
    file: String,
    answered: usize,
}

/// `slope · uncertainty + intercept`, clipped to 0..=1.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct FittedLine {
    pub(super) slope: f64,
    pub(super) intercept: f64,
}

/// The tokens of one sixteenth of the uncertainties.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct UncertaintyBin {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) tokens: usize,
    rejected: usize,
    /// The mean uncertainty; `null` without tokens, as are the next three.
    pub(super) uncertainty: Option<f64>,
    pub(super) rejection: Option<f64>,
    /// The ends of its 95 % interval.
    pub(super) rejection_low: Option<f64>,
    pub(super) rejection_high: Option<f64>,
}

/// A threshold for a wanted share of misses.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Proposal {
    pub(super) miss_rate: f64,
    /// The threshold, as a configuration takes it.
    pub(super) uncertainty_max: f32,
    /// The share of all tokens whose uncertainty is at most the threshold.
    pub(super) trusted: f64,
    /// The share of rejected tokens among those.
    pub(super) missed: f64,
}

impl CalibrationRecord {
    /// The record of a fit; `target` is the name of the verifier's model.
    pub(super) fn new(
        args: &CalibrateFlags,
        model: &ModelDir,
        target: Option<&String>,
        sampling: Sampling,
        settings: &Settings,
        gathered: &Gathered,
        fit: &Fit,
    ) -> Self {
        Self {
            drafter: DrafterRecord {
                name: model.name.clone(),
                weights_sha256: model.weights_sha256.clone(),
                vocabulary: model.vocabulary.size,
                fingerprint: fingerprint(&model.vocabulary.fingerprint),
            },
            verifier: VerifierRecord {
                id: gathered.verifier.as_ref().map(ToString::to_string),
                model: target.cloned(),
            },
            sampling: Sampled {
                temperature: sampling.temperature(),
                top_p: sampling.top_p(),
                top_k: sampling.top_k(),
                seed: args.text.seed,
                max_tokens: args.text.max_tokens,
            },
            uncertainty_form: settings.rules.uncertainty_form().name(),
            prompts: PromptsRecord { file: args.prompts.display().to_string(), answered: gathered.prompts },
            ended: gathered.stopped.name(),
            tokens: fit.count(),
            rejection: fit.rejection(),
            correlation: fit.correlation(),
            auc: fit.auc(),
            line: FittedLine { slope: fit.slope(), intercept: fit.intercept() },
            published_line: FittedLine { slope: PUBLISHED_SLOPE, intercept: PUBLISHED_INTERCEPT },
            bins: (0..).zip(fit.bins()).map(|(index, bin)| UncertaintyBin::new(index, bin)).collect(),
            proposals: proposals(&args.miss_rates, fit),
        }
    }
}

impl FittedLine {
    /// The points where the line begins, bends and ends, as uncertainty and share.
    pub(super) fn corners(&self) -> Vec<(f64, f64)> {
        let crossing = |share: f64| (share - self.intercept) / self.slope;
        let bends = [crossing(0.0), crossing(1.0)].into_iter().filter(|u| *u > 0.0 && *u < 1.0);
        let mut corners: Vec<f64> = bends.chain([0.0, 1.0]).collect();
        corners.sort_by(f64::total_cmp);
        let at = |u: f64| (self.slope * u + self.intercept).clamp(0.0, 1.0);
        corners.into_iter().map(|u| (u, at(u))).collect()
    }
}

impl fmt::Display for FittedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.intercept < 0.0 { '−' } else { '+' };
        write!(f, "{:.3} u {sign} {:.3}", self.slope, self.intercept.abs())
    }
}

impl Proposal {
    /// The wanted share in percent, with as few digits as possible.
    pub(super) fn wanted(&self) -> String {
        format!("{} %", (self.miss_rate * 1e5).round() / 1e3)
    }
}

impl UncertaintyBin {
    fn new(index: u32, bin: &FitBin) -> Self {
        let width = 1.0 / SCORES as f64;
        let (low, high) = bin.interval();
        let known = |number: f64| (bin.count > 0).then_some(number);
        Self {
            from: f64::from(index) * width,
            to: f64::from(index + 1) * width,
            tokens: bin.count,
            rejected: bin.rejected,
            uncertainty: known(bin.mean()),
            rejection: known(bin.rate()),
            rejection_low: known(low),
            rejection_high: known(high),
        }
    }
}

/// One proposal for each wanted share, in ascending order.
fn proposals(miss_rates: &[f64], fit: &Fit) -> Vec<Proposal> {
    let mut miss_rates = miss_rates.to_vec();
    miss_rates.sort_by(f64::total_cmp);
    miss_rates.dedup();
    let proposal = |miss_rate| {
        let threshold = fit.threshold(miss_rate);
        // The device's uncertainties are f32, so nothing is lost.
        let uncertainty_max = threshold as f32;
        let (trusted, missed) = (fit.skipped(threshold), fit.missed(threshold));
        Proposal { miss_rate, uncertainty_max, trusted, missed }
    };
    miss_rates.into_iter().map(proposal).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of eight tokens, two of them rejected.
    pub(in super::super) fn example() -> (CalibrationRecord, Fit) {
        let samples = (0..8_u8).map(|i| (f64::from(f32::from(i) / 10.0), i == 3 || i == 7));
        let fit = Fit::new(samples).unwrap();
        let record = CalibrationRecord {
            drafter: DrafterRecord {
                name: "small <1>".into(),
                weights_sha256: None,
                vocabulary: 300,
                fingerprint: "00ff".into(),
            },
            verifier: VerifierRecord { id: Some("v1".into()), model: None },
            sampling: Sampled { temperature: 0.7, top_p: 0.95, top_k: 0, seed: None, max_tokens: 40 },
            uncertainty_form: "quadrature",
            prompts: PromptsRecord { file: "held-out.txt".into(), answered: 2 },
            ended: "prompts",
            tokens: fit.count(),
            rejection: fit.rejection(),
            correlation: fit.correlation(),
            auc: fit.auc(),
            line: FittedLine { slope: fit.slope(), intercept: fit.intercept() },
            published_line: FittedLine { slope: PUBLISHED_SLOPE, intercept: PUBLISHED_INTERCEPT },
            bins: (0..).zip(fit.bins()).map(|(index, bin)| UncertaintyBin::new(index, bin)).collect(),
            proposals: proposals(&[0.25, 0.0, 0.15, 0.0], &fit),
        };
        (record, fit)
    }

    #[test]
    fn the_file_says_what_the_fit_says() {
        let (record, fit) = example();
        let json: serde_json::Value = serde_json::to_value(&record).unwrap();
        assert_eq!((&json["tokens"], &json["rejection"]), (&8.into(), &0.25.into()));
        assert_eq!(json["line"]["slope"], fit.slope());
        assert_eq!(json["published_line"]["slope"], 0.815);
        assert_eq!(json["verifier"], serde_json::json!({"id": "v1", "model": null}));
        assert_eq!(json["sampling"]["seed"], serde_json::Value::Null);
        let bins = json["bins"].as_array().unwrap();
        assert_eq!((bins.len(), &bins[15]["to"]), (16, &1.0.into()));
        assert_eq!((&bins[15]["tokens"], &bins[15]["rejection"]), (&0.into(), &serde_json::Value::Null));
        assert_eq!((&bins[4]["tokens"], &bins[4]["rejection"]), (&1.into(), &1.0.into()));
        assert!(bins[4]["rejection_low"].as_f64().unwrap() < 0.5);
    }

    #[test]
    fn a_line_bends_where_it_is_clipped() {
        let corners = |slope, intercept| FittedLine { slope, intercept }.corners();
        assert_eq!(corners(0.5, 0.25), [(0.0, 0.25), (1.0, 0.75)]);
        assert_eq!(corners(4.0, -1.0), [(0.0, 0.0), (0.25, 0.0), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(corners(0.0, 0.2), [(0.0, 0.2), (1.0, 0.2)]);
        assert_eq!(corners(-2.0, 1.0), [(0.0, 1.0), (0.5, 0.0), (1.0, 0.0)]);
        assert_eq!(FittedLine { slope: 0.815, intercept: -0.066 }.to_string(), "0.815 u − 0.066");
    }

    #[test]
    fn shares_are_said_shortly() {
        let (record, _) = example();
        let wanted = |miss_rate| Proposal { miss_rate, ..record.proposals[0] }.wanted();
        assert_eq!([0.0, 0.1, 0.07, 0.0005, 1.0].map(wanted), ["0 %", "10 %", "7 %", "0.05 %", "100 %"]);
    }

    #[test]
    fn proposals_are_in_order_and_once_each() {
        let (record, fit) = example();
        let rates: Vec<f64> = record.proposals.iter().map(|proposal| proposal.miss_rate).collect();
        assert_eq!(rates, [0.0, 0.15, 0.25]);
        let [first, second, all] = record.proposals[..] else { panic!() };
        assert_eq!((first.uncertainty_max, first.trusted, first.missed), (0.2, 0.375, 0.0));
        assert_eq!((second.uncertainty_max, second.trusted), (0.6, 0.875));
        assert_eq!((all.uncertainty_max, all.trusted, all.missed), (1.0, 1.0, 0.25));
        // Read back as a configuration would read it, the threshold must still include its own token.
        let text = serde_json::to_string(&second).unwrap();
        assert!(text.contains("\"uncertainty_max\":0.6,"), "{text}");
        assert_eq!(fit.skipped("0.6".parse::<f32>().unwrap().into()), second.trusted);
    }
}
