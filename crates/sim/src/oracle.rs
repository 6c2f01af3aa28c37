//! What the text must be, by the models and the coupling alone.

use crate::plan::{Script, Turn};
use crate::toy::ToyPair;
use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::device::{Commit, Finish, Origin};
use dunlin_hlm::probabilities::{Distribution, Sampling};

/// A reply as the device reported it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Tokens in the order of their commits.
    pub commits: Vec<Commit>,
    /// How it ended; `None` where it never did.
    pub finish: Option<Finish>,
}

/// The first place where a session is not what the models alone would have written.
#[derive(Debug)]
pub struct Wrong(pub String);

fn choice(logits: &[f32], sampling: &Sampling, seed: u64, position: usize) -> TokenId {
    let row = Distribution::from_logits(logits, sampling).expect("toy logits are finite");
    couple(&row, seed, position as u64)
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
    Ok(())
}

fn check_turn(
    script: &Script,
    pair: &ToyPair,
    turn: &Turn,
    told: &Told,
    text: &mut Vec<TokenId>,
) -> Result<(), Wrong> {
    let limit = script.context_tokens_max.min(text.len() + turn.reply.tokens_max);
    let mut ended = None;
    for commit in &told.commits {
        if let Some(ended) = ended {
            return Err(Wrong(format!("{commit:?} after the reply ended by {ended:?}")));
        }
        let logits = match commit.origin {
            Origin::Unverified if script.trust => pair.drafter(text),
            Origin::Unverified => return Err(Wrong(format!("unverified {commit:?} under policy wait"))),
            Origin::Accepted | Origin::Target => pair.target(text),
        };
        let expected = choice(&logits, &script.sampling, script.seed, text.len());
        if (commit.position, commit.token) != (text.len(), expected) {
            return Err(Wrong(format!("{commit:?} where {expected} belongs at {}", text.len())));
        }
        text.push(commit.token);
        ended = end(turn, limit, told.commits.len(), text);
    }
    if told.finish.is_some() && told.finish == ended {
        return Ok(());
    }
    Err(Wrong(format!("ended by {:?} after {} tokens, not by {ended:?}", told.finish, told.commits.len())))
}

/// Why the reply must end here, if it must.
fn end(turn: &Turn, limit: usize, committed: usize, text: &[TokenId]) -> Option<Finish> {
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
