//! The distance between the distribution of a policy's next token and the target's.
//!
//! At each position of a text, one step of the policy is computed exactly: every token that the device may draw,
//! flushed or not by the policy's trigger, and judged as the verifier judges. The resulting distribution of the
//! committed token is compared with the target's at the same text.

use super::pair::Pair;
use anyhow::{Context, Result};
use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::law;
use dunlin_hlm::calibration::Calibration;
use dunlin_hlm::importance::{RecentImportances, row};
use dunlin_hlm::payload::laws;
use dunlin_hlm::policy::{Decision, HeldDrafts, HeldTokens, Rules, Scored};
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::stop::{StopConfig, StopRule};
use dunlin_hlm::uncertainty::{Quadrature, Unit};

/// Sums over the tokens of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// Total variation distance.
    pub tv: f64,
    /// Kullback–Leibler divergence from the target, nats; infinite if the policy can write a token that the target
    /// can't.
    pub kl: f64,
}

/// The deviation along a text whose first `prompt` tokens are the prompt. `None` for a policy with audited tokens, for
/// which only the share of kept misses is known as a bound.
///
/// The trigger uses uncertainty by quadrature, whatever form is configured, and the stop rule in its start state.
///
/// # Errors
/// A model fails or returns invalid rows.
pub fn deviation(
    rules: &Rules,
    sampling: &Sampling,
    pair: &mut Pair<'_>,
    text: &[TokenId],
    prompt: usize,
) -> Result<Option<Deviation>> {
    if rules.is_exact() {
        return Ok(Some(Deviation::default()));
    }
    if rules.held() == HeldTokens::Audited {
        return Ok(None);
    }
    let mut sum = Deviation::default();
    let mut recent = RecentImportances::default();
    for position in prompt..text.len() {
        let before = &text[..position];
        let target = pair.target_rows(before, 1)?.pop().context("the target gave no row")?;
        let drafter = pair.drafter_row(before)?;
        let importance = drafter.attention.as_deref().map_or(Unit::ZERO, row);
        recent.push(importance);
        let p = Distribution::from_logits(&target, sampling).context("the target's logits")?;
        let step =
            PolicyStep { rules, logits: &drafter.logits, importance, recent, size: target.len() as u32 };
        let Deviation { tv, kl } = distance(&step.law(&p, sampling)?, &p);
        sum.tv += tv;
        sum.kl += kl;
    }
    Ok(Some(sum))
}

/// One step of a policy.
struct PolicyStep<'a> {
    rules: &'a Rules,
    logits: &'a [f32],
    importance: Unit,
    recent: RecentImportances,
    size: u32,
}

impl PolicyStep<'_> {
    fn law(&self, p: &Distribution, sampling: &Sampling) -> Result<Vec<(TokenId, f64)>> {
        let logits = &self.logits[..self.size as usize];
        let q = Distribution::from_logits(logits, sampling).context("the drafter's logits")?;
        let (drawn_from, sent) = laws(q, self.rules.payload(), self.size);
        let quadrature = Quadrature::new(logits);
        let stop = StopRule::new(&StopConfig::default());
        let flushed = |coin: Unit, token: TokenId| {
            let mut held = HeldDrafts::new();
            held.push(self.scored(token, quadrature.uncertainty(token), coin), &Calibration::new());
            self.rules.decide(&held, &stop) != Decision::Hold
        };
        // The coin doesn't affect the drawn token, so the distribution is the mean over the coin.
        let by_coin = |coin: Unit| law(p, &drawn_from, &sent, |token| flushed(coin, token));
        Ok(match self.rules.random_rate() {
            None => by_coin(Unit::ONE),
            Some(rate) => mixed(&by_coin(Unit::ZERO), &by_coin(Unit::ONE), rate.get().into()),
        })
    }

    fn scored(&self, token: TokenId, uncertainty: Unit, coin: Unit) -> Scored {
        let (importance, recent) = (self.importance, self.recent);
        Scored { token, uncertainty, importance, recent, coin, ends: false, stays: false }
    }
}

/// The mixture of two distributions, with weight `share` for the first.
fn mixed(one: &[(TokenId, f64)], other: &[(TokenId, f64)], share: f64) -> Vec<(TokenId, f64)> {
    let mut sum = std::collections::BTreeMap::new();
    for (law, weight) in [(one, share), (other, 1.0 - share)] {
        for (token, probability) in law {
            *sum.entry(*token).or_insert(0.0) += weight * probability;
        }
    }
    sum.into_iter().filter(|(_, probability)| *probability > 0.0).collect()
}

/// The deviation of a distribution from the target's, both in the order of tokens.
fn distance(law: &[(TokenId, f64)], p: &Distribution) -> Deviation {
    let more: f64 = law.iter().map(|(token, x)| (x - p.probability(*token)).max(0.0)).sum();
    let kl: f64 = law.iter().map(|(token, x)| x * (x / p.probability(*token)).ln()).sum();
    Deviation { tv: more, kl: kl.max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::payload::{quantise, read};
    use dunlin_hlm::policy::{PayloadForm, Policy, PolicyTable};

    const TARGET: [f32; 5] = [1.2, 0.3, -0.4, 0.9, -2.0];
    const DRAFTER: [f32; 5] = [0.9, 0.8, -0.2, 0.2, -1.0];

    fn distribution(logits: &[f32]) -> Distribution {
        Distribution::from_logits(logits, &sampling()).unwrap()
    }

    fn sampling() -> Sampling {
        Sampling::new(1.0, 1.0, 0).unwrap()
    }

    fn deviation_of(table: PolicyTable) -> Deviation {
        let rules = Rules::new(&table).unwrap();
        let importance = Unit::new(0.5).unwrap();
        let mut recent = RecentImportances::default();
        recent.push(importance);
        let step = PolicyStep { rules: &rules, logits: &DRAFTER, importance, recent, size: 5 };
        let p = distribution(&TARGET);
        distance(&step.law(&p, &sampling()).unwrap(), &p)
    }

    fn tv(table: PolicyTable) -> f64 {
        deviation_of(table).tv
    }

    #[test]
    fn what_is_always_judged_by_what_it_was_drawn_from_deviates_nowhere() {
        assert!(tv(Policy::Hlm.table()) < 1e-12);
        let judged = tv(PolicyTable { uncertainty_max: Some(0.0), ..Policy::UHlm.table() });
        assert!(judged < 1e-12, "{judged}");
        let biased =
            PolicyTable { draft_tokens_max: Some(1), payload_entries: Some(2), ..Policy::CuHlm.table() };
        assert!(tv(biased) > 0.01);
    }

    #[test]
    fn what_is_never_judged_deviates_as_the_drafter_does() {
        let (p, q) = (distribution(&TARGET), distribution(&DRAFTER));
        let expected = dunlin_hlm::probabilities::total_variation(&p, &q);
        assert!((tv(Policy::Local.table()) - expected).abs() < 1e-12);
        let kl: f64 =
            q.support().iter().map(|c| c.probability * (c.probability / p.probability(c.token)).ln()).sum();
        assert!((deviation_of(Policy::Local.table()).kl - kl).abs() < 1e-12);
    }

    #[test]
    fn trusted_tokens_deviate_by_what_the_drafter_gives_them_too_much() {
        let max = 0.7;
        let deviation = tv(PolicyTable { uncertainty_max: Some(max), ..Policy::UHlm.table() });
        let (p, q) = (distribution(&TARGET), distribution(&DRAFTER));
        let sent = read(&quantise(&q, Policy::UHlm.rules().payload(), 5), PayloadForm::Full, 5).unwrap();
        let quadrature = Quadrature::new(&DRAFTER);
        let trusted = |token: TokenId| quadrature.uncertainty(token).get() <= max;
        let (mut some, mut expected) = (0, 0.0);
        for token in (0..5).filter(|token| trusted(*token)) {
            some += 1;
            expected += (sent.probability(token) - p.probability(token)).max(0.0);
        }
        assert!((1..5).contains(&some), "{some} tokens are trusted");
        assert!(expected > 0.01 && (deviation - expected).abs() < 1e-12, "{} against {expected}", deviation);
    }

    #[test]
    fn a_coin_leaves_its_share_of_the_deviation() {
        let random = |rate| PolicyTable { random_rate: Some(rate), ..Policy::Random.table() };
        let (all, none) = (tv(random(1.0)), tv(random(0.0)));
        assert!(all < 1e-12 && none > 0.1);
        assert!((tv(random(0.25)) - 0.75 * none).abs() < 1e-9);
    }
}
