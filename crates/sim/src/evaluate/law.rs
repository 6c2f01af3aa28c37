//! How far the law of a policy's next token lies from the target's.

use super::adapter::Rules;
use super::pair::Pair;
use anyhow::Result;
use dunlin_hlm::TokenId;
use dunlin_hlm::probabilities::Sampling;

/// Sums over the tokens of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// Total variation distance.
    pub tv: f64,
    /// Kullback–Leibler divergence from the target, nats.
    pub kl: f64,
}

/// The deviation along a text of which the first `prompt` tokens were given. 0 for a policy that changes nothing,
/// which all that can be configured so far are.
pub fn deviation(
    _rules: &Rules,
    _sampling: &Sampling,
    _pair: &mut Pair<'_>,
    _text: &[TokenId],
    _prompt: usize,
) -> Result<Deviation> {
    Ok(Deviation::default())
}
