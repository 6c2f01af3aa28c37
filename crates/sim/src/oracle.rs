//! The oracle: the text that follows from the models and the coupling alone, without the protocol.

use crate::plan::{Script, ScriptedTurn, Serves};
use crate::toy::ToyPair;
use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::{acceptance, residual};
use dunlin_hlm::coupling::{couple, gumbel};
use dunlin_hlm::device::{Commit, Finish, Origin};
use dunlin_hlm::payload::laws;
use dunlin_hlm::policy::{Coupling, HeldTokens};
use dunlin_hlm::probabilities::{Distribution, Sampling};
use std::collections::BTreeSet;

/// A reply as the device reported it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Tokens in the order of their commits.
    pub commits: Vec<Commit>,
    /// For each token, the session's target as the device knew it at that time.
    pub targets: Vec<Option<Serves>>,
    /// The positions of the session's text from which, as the device reported, another target writes.
    pub changes: Vec<usize>,
    /// The reason of its end; `None` if it did not end.
    pub finish: Option<Finish>,
}

/// The first difference between a session and the text that the models alone would have written.
#[derive(Debug)]
pub struct Wrong(pub String);

/// "acceptin" and "residual", as in `docs/wire.md`.
const ACCEPTANCE: u64 = 0x6163_6365_7074_696e;
const RESIDUAL: u64 = 0x7265_7369_6475_616c;

/// One step of a session: gives the token that either model would write after the text.
struct OracleStep<'a> {
    script: &'a Script,
    pair: &'a ToyPair,
    /// The pair whose target writes.
    target: &'a ToyPair,
    text: &'a [TokenId],
}

impl OracleStep<'_> {
    fn row(&self, logits: &[f32], sampling: &Sampling) -> Distribution {
        Distribution::from_logits(logits, sampling).expect("toy logits are finite")
    }

    fn draw(&self, from: &Distribution) -> TokenId {
        couple(from, self.script.seed, self.text.len() as u64)
    }

    fn target(&self) -> Distribution {
        self.row(&self.target.target(self.text), &self.script.sampling)
    }

    /// The distribution that the drafter draws from, and the one that the verifier judges by.
    fn drafter(&self) -> (Distribution, Distribution) {
        let Script { vocabulary, rules, sampling, .. } = self.script;
        let target = if rules.is_local() { *vocabulary } else { self.pair.vocabulary };
        let q = self.row(&self.pair.drafter(self.text, target.min(*vocabulary)), sampling);
        laws(q, rules.payload(), target)
    }

    /// The token that the drafter writes.
    fn drafted(&self) -> TokenId {
        self.draw(&self.drafter().0)
    }

    /// The draft if rejection sampling accepts it, else its replacement.
    fn judged(&self) -> TokenId {
        let (p, (_, q), drafted) = (self.target(), self.drafter(), self.drafted());
        let (seed, position) = (self.script.seed, self.text.len() as u64);
        // Gumbel noise is G = −ln(−ln U), so U = e^(−e^(−G)) recovers the uniform number of the coin.
        let coin = (-(-gumbel(seed ^ ACCEPTANCE, position, 0)).exp()).exp();
        if coin < acceptance(&p, &q, drafted) {
            return drafted;
        }
        let score = |c: &dunlin_hlm::probabilities::Candidate| {
            c.ln_probability + gumbel(seed ^ RESIDUAL, position, c.token)
        };
        let left = residual(&p, &q);
        let best = left.support().iter().reduce(|a, b| if score(b) > score(a) { b } else { a });
        best.expect("a distribution has a token").token
    }

    /// The tokens allowed for a commit of this origin: one, or two if it may be either a judged draft or a bonus token.
    fn lawful(&self, origin: Origin) -> Result<Vec<TokenId>, Wrong> {
        let rules = &self.script.rules;
        match origin {
            Origin::Unverified if self.script.trust => Ok(vec![self.drafted()]),
            Origin::Trusted if rules.held() != HeldTokens::Verified => Ok(vec![self.drafted()]),
            Origin::Unverified | Origin::Trusted => Err(Wrong(format!("{origin:?} under {rules:?}"))),
            Origin::Accepted | Origin::Target => {
                let (shared, bonus) =
                    (rules.coupling() == Coupling::SharedSeed, rules.held() != HeldTokens::Trusted);
                let judged = (!shared).then(|| self.judged());
                let own = (shared || bonus).then(|| self.draw(&self.target()));
                Ok(judged.into_iter().chain(own).collect())
            }
        }
    }
}

/// Compares all replies of a session with the oracle, token for token.
///
/// # Errors
/// The first difference.
pub fn check(script: &Script, pair: &ToyPair, told: &[Told]) -> Result<(), Wrong> {
    if told.len() != script.turns.len() {
        return Err(Wrong(format!("{} replies for {} turns", told.len(), script.turns.len())));
    }
    let mut text = Vec::new();
    for (turn, told) in script.turns.iter().zip(told) {
        text.extend(&turn.prompt);
        check_turn(script, pair, turn, told, &mut text)?;
    }
    // Unless the user accepts another model, all targets of a session have the same weights.
    let weights: BTreeSet<bool> = told
        .iter()
        .flat_map(|told| &told.targets)
        .flatten()
        .map(|target| *target == Serves::OtherWeights)
        .collect();
    if weights.len() > 1 && !script.accept_model_change {
        return Err(Wrong("two models wrote one session".into()));
    }
    Ok(())
}

fn check_turn(
    script: &Script,
    pair: &ToyPair,
    turn: &ScriptedTurn,
    told: &Told,
    text: &mut Vec<TokenId>,
) -> Result<(), Wrong> {
    let limit = script.context_tokens_max.min(text.len() + turn.reply.tokens_max);
    let (mut ended, mut writer) = (None, None);
    for (commit, target) in told.commits.iter().zip(&told.targets) {
        if let Some(ended) = ended {
            return Err(Wrong(format!("{commit:?} after the reply ended by {ended:?}")));
        }
        let changed = writer.replace(*target).flatten().is_some_and(|before| Some(before) != *target);
        if changed && !told.changes.contains(&commit.position) {
            return Err(Wrong(format!("from {commit:?} on another target writes, and it was not reported")));
        }
        let target = target.unwrap_or(Serves::Home).pair(pair);
        let expected = OracleStep { script, pair, target: &target, text }.lawful(commit.origin)?;
        if commit.position != text.len() || !expected.contains(&commit.token) {
            return Err(Wrong(format!("{commit:?} where one of {expected:?} belongs at {}", text.len())));
        }
        text.push(commit.token);
        ended = end(turn, limit, told.commits.len(), text);
    }
    match told.finish {
        // Allowed only if the reply was not complete and the user does not accept another model.
        Some(Finish::OtherTarget { .. }) if ended.is_none() && !script.accept_model_change => return Ok(()),
        Some(_) if told.finish == ended => return Ok(()),
        _ => {}
    }
    Err(Wrong(format!("ended by {:?} after {} tokens, not by {ended:?}", told.finish, told.commits.len())))
}

/// The reason why the reply must end here; `None` if it goes on.
fn end(turn: &ScriptedTurn, limit: usize, committed: usize, text: &[TokenId]) -> Option<Finish> {
    if text.last().is_some_and(|token| turn.reply.stop.contains(token)) {
        Some(Finish::Stop)
    } else if text.len() < limit {
        None
    } else if committed == turn.reply.tokens_max {
        Some(Finish::TokensMax)
    } else {
        Some(Finish::ContextFull)
    }
}
