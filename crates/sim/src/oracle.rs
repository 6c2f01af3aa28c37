//! What the text must be, by the models and the coupling alone.

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
    /// For each, the target of the session as the device knew it.
    pub targets: Vec<Option<Serves>>,
    /// How it ended; `None` where it never did.
    pub finish: Option<Finish>,
}

/// The first place where a session is not what the models alone would have written.
#[derive(Debug)]
pub struct Wrong(pub String);

/// "acceptin" and "residual", as `docs/wire.md` has them.
const ACCEPTANCE: u64 = 0x6163_6365_7074_696e;
const RESIDUAL: u64 = 0x7265_7369_6475_616c;

/// One step of a session: what either model would write after the text.
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

    /// What the drafter draws from, and what the verifier takes it for.
    fn drafter(&self) -> (Distribution, Distribution) {
        let q = self.row(&self.pair.drafter(self.text), &self.script.sampling);
        laws(q, self.script.rules.payload(), self.pair.vocabulary)
    }

    /// What the drafter writes.
    fn drafted(&self) -> TokenId {
        self.draw(&self.drafter().0)
    }

    /// The draft where rejection sampling keeps it, else its replacement.
    fn judged(&self) -> TokenId {
        let (p, (_, q), drafted) = (self.target(), self.drafter(), self.drafted());
        let (seed, position) = (self.script.seed, self.text.len() as u64);
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

    /// The tokens that a commit of this origin may be: one, or two where a judged draft and a bonus look alike.
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
/// Says what the first difference is.
pub fn check(script: &Script, pair: &ToyPair, told: &[Told]) -> Result<(), Wrong> {
    if told.len() != script.turns.len() {
        return Err(Wrong(format!("{} replies for {} turns", told.len(), script.turns.len())));
    }
    let mut text = Vec::new();
    for (turn, told) in script.turns.iter().zip(told) {
        text.extend(&turn.prompt);
        check_turn(script, pair, turn, told, &mut text)?;
    }
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
    let mut ended = None;
    for (commit, target) in told.commits.iter().zip(&told.targets) {
        if let Some(ended) = ended {
            return Err(Wrong(format!("{commit:?} after the reply ended by {ended:?}")));
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
        // Only where it wrote nothing further, and the user does not take another model.
        Some(Finish::OtherTarget { .. }) if ended.is_none() && !script.accept_model_change => return Ok(()),
        Some(_) if told.finish == ended => return Ok(()),
        _ => {}
    }
    Err(Wrong(format!("ended by {:?} after {} tokens, not by {ended:?}", told.finish, told.commits.len())))
}

/// Why the reply must end here, if it must.
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
