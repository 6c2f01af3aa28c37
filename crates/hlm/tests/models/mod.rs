//! Shared by the tests of rejection sampling: rows of logits shaped like a language model's, frames of drafts drawn
//! as a device draws them, and the limit of a chi-square test.
#![allow(dead_code)] // each test uses a part

use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::{JudgedFrame, Outcome};
use dunlin_hlm::coupling::{couple, gumbel};
use dunlin_hlm::payload::{Sent, quantise, read};
use dunlin_hlm::policy::{Payload, PayloadForm};
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_wire::{Draft, DraftFrame, PREFIX_EMPTY, Row, Rows, Score, token_bits};

/// Number of contexts; the last token selects the row.
pub(crate) const CONTEXTS: usize = 6;
/// Length of the text before every frame.
pub(crate) const BASE: u32 = 9;

/// A uniform number in (0, 1), independent of any session's noise.
pub(crate) fn uniform(stream: u64, index: u64, item: u32) -> f64 {
    libm::exp(-libm::exp(-gumbel(stream ^ 0x6d6f_6465_6c73, index, item)))
}

/// An approximately normal number with mean 0 and deviation 1.
fn bell(stream: u64, index: u64, item: u32) -> f64 {
    (0..12).map(|i| uniform(stream + i, index, item)).sum::<f64>() - 6.0
}

/// A drafter and a target with one row of logits for each context.
pub(crate) struct Models {
    pub(crate) size: u32,
    pub(crate) sampling: Sampling,
    pub(crate) target: Vec<Vec<f32>>,
    pub(crate) drafter: Vec<Vec<f32>>,
    p: Vec<Distribution>,
    q: Vec<Distribution>,
}

impl Models {
    /// A target whose probabilities fall with a power of the rank (shuffled), and a drafter with normal errors.
    pub(crate) fn new(size: u32, sampling: Sampling) -> Self {
        Self::with_powers(size, sampling, |context| 1.1 + 0.25 * context)
    }

    /// Like [`Self::new`], with the power of each context; a higher power means a surer model.
    pub(crate) fn with_powers(size: u32, sampling: Sampling, power: impl Fn(f64) -> f64) -> Self {
        let rows = |error: f64, own: u64| -> Vec<Vec<f32>> {
            (0..CONTEXTS as u64)
                .map(|context| row(size, context, power(context as f64), error, own))
                .collect()
        };
        let (target, drafter) = (rows(0.0, 0), rows(0.8, 50));
        let all = |rows: &[Vec<f32>]| rows.iter().map(|row| distribution(row, &sampling)).collect();
        Self { size, sampling, p: all(&target), q: all(&drafter), target, drafter }
    }

    pub(crate) fn context(last: TokenId) -> usize {
        last as usize % CONTEXTS
    }

    pub(crate) fn p(&self, last: TokenId) -> &Distribution {
        &self.p[Self::context(last)]
    }

    pub(crate) fn q(&self, last: TokenId) -> &Distribution {
        &self.q[Self::context(last)]
    }

    /// A frame of `count` drafts behind `last`, drawn as a device draws them.
    pub(crate) fn draft(
        &self,
        payload: Payload,
        seed: u64,
        position: u32,
        last: TokenId,
        count: usize,
    ) -> Drafted {
        let mut drafted = Drafted { tokens: Vec::new(), sent: Vec::new(), payload };
        let mut last = last;
        for index in 0..count {
            let q = self.q(last);
            let sent = quantise(q, payload, self.size);
            let drawn_from = drawn_from(q, &sent, payload.form, self.size);
            last = couple(&drawn_from, seed, u64::from(position) + index as u64);
            drafted.tokens.push(last);
            drafted.sent.push(sent);
        }
        drafted
    }

    /// The target's logits behind `last` and each of the drafts.
    pub(crate) fn rows(&self, last: TokenId, drafts: &[TokenId]) -> Vec<f32> {
        let lasts = std::iter::once(&last).chain(drafts);
        lasts.flat_map(|&last| self.target[Self::context(last)].iter().copied()).collect()
    }

    /// A verifier's judgement of a frame, and the committed tokens.
    pub(crate) fn judge(
        &self,
        drafted: &Drafted,
        bonus: bool,
        seed: u64,
        position: u32,
        last: TokenId,
    ) -> (Outcome, Vec<TokenId>) {
        let frame = drafted.frame(self.size, position, bonus);
        let asked = JudgedFrame {
            frame: &frame,
            weights: drafted.weights(),
            vocabulary: self.size,
            seed,
            sampling: self.sampling,
        };
        let rows = self.rows(last, &drafted.tokens);
        let outcome = asked.judge(&rows, &mut Distribution::certain(0)).expect("the rows have mass");
        let stand = &drafted.tokens[..outcome.accepted];
        (outcome, stand.iter().copied().chain([outcome.token]).collect())
    }
}

/// Drafts with their payloads.
pub(crate) struct Drafted {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) payload: Payload,
}

impl Drafted {
    pub(crate) fn frame(&self, size: u32, base: u32, bonus: bool) -> DraftFrame {
        let unscored = |token: &TokenId| Draft {
            token: *token,
            uncertainty: Score::default(),
            importance: Score::default(),
        };
        DraftFrame {
            session: 1,
            epoch: 2,
            round: 3,
            send: 1,
            base,
            prefix: PREFIX_EMPTY.short(),
            token_bits: token_bits(size),
            drafts: self.tokens.iter().map(unscored).collect(),
            held: 0,
            bonus,
            rows: self.rows(),
            credit: None,
        }
    }

    fn rows(&self) -> Rows {
        let row = |sent: &Sent| match sent {
            Sent::Entries(entries) => Row { entries: entries.iter().copied().collect() },
            _ => Row::default(),
        };
        let rows = || self.sent.iter().map(row).collect();
        match self.payload.form {
            PayloadForm::Ids => Rows::None,
            PayloadForm::Full => Rows::Full,
            PayloadForm::TopK => Rows::TopK(rows()),
            PayloadForm::TopKSampled => Rows::TopKSampled(rows()),
            PayloadForm::Lattice => Rows::Lattice { resolution: self.payload.resolution, rows: rows() },
        }
    }

    pub(crate) fn weights(&self) -> &[u8] {
        match self.sent.first() {
            Some(Sent::Weights(weights)) => weights,
            _ => &[],
        }
    }
}

/// The distribution that a device draws from: that of the payload, unless the payload is not drawn from.
pub(crate) fn drawn_from(q: &Distribution, sent: &Sent, form: PayloadForm, size: u32) -> Distribution {
    match form {
        PayloadForm::Ids | PayloadForm::TopK => q.clone(),
        _ => read(sent, form, size).expect("the most probable token has a weight"),
    }
}

pub(crate) fn sampling(temperature: f32, top_p: f32) -> Sampling {
    Sampling::new(temperature, top_p, 0).expect("tests use settings in range")
}

pub(crate) fn distribution(logits: &[f32], sampling: &Sampling) -> Distribution {
    Distribution::from_logits(logits, sampling).expect("the rows are finite")
}

fn row(size: u32, context: u64, power: f64, error: f64, own: u64) -> Vec<f32> {
    let mut order: Vec<TokenId> = (0..size).collect();
    order.sort_by(|a, b| uniform(1, context, *a).total_cmp(&uniform(1, context, *b)));
    let mut logits = vec![0.0; size as usize];
    for (rank, token) in (1..).zip(order) {
        let logit = -power * libm::log(f64::from(rank)) + 0.4 * bell(100, context, token);
        logits[token as usize] = (logit + error * bell(200 + own, context, token)) as f32;
    }
    logits
}

/// χ² of counts against expectations, those below 10 pooled, with the limit that a sample of the true distribution
/// exceeds one time in a million (Wilson–Hilferty).
pub(crate) fn chi_square(cells: impl IntoIterator<Item = (u64, f64)>) -> (f64, f64) {
    let (mut chi, mut count) = (0.0, 0.0);
    let mut cell = |seen: f64, expected: f64| {
        chi += (seen - expected) * (seen - expected) / expected.max(1e-9);
        count += 1.0;
    };
    let (mut rare_seen, mut rare_expected) = (0.0, 0.0);
    for (seen, expected) in cells {
        if expected >= 10.0 {
            cell(seen as f64, expected);
        } else {
            (rare_seen, rare_expected) = (rare_seen + seen as f64, rare_expected + expected);
        }
    }
    if rare_expected > 0.0 || rare_seen > 0.0 {
        cell(rare_seen, rare_expected);
    }
    let freedom: f64 = count - 1.0;
    let spread = 2.0 / (9.0 * freedom);
    (chi, freedom * libm::pow(1.0 - spread + 4.753 * spread.sqrt(), 3.0))
}
