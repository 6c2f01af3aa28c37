//! Settings of both machines where nothing is lost and nobody leaves: those of programs without a configuration.

use crate::mqtt::VERIFIER;
use dunlin_hlm::policy::DRAFT_TOKENS_MAX;
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{TargetDescription, VerifierConfig};
use dunlin_wire::Vocabulary;

/// Tokens of a credit.
pub const CREDIT_TOKENS_MAX: u16 = 64;
/// Tokens of a continuation.
const CONTINUATION_TOKENS: u8 = 8;
/// Time after which the tokens of a continuation are sent.
const CONTINUATION_INTERVAL: Duration = Duration::from_millis(100);
/// Far longer than any modelled round trip, so that no device gives up and no session is dropped.
pub const PATIENCE: Duration = Duration::from_millis(600_000);

/// A verifier for `sessions_max` sessions of at most `context_tokens_max` tokens.
pub fn verifier_config(
    vocabulary: Vocabulary,
    context_tokens_max: usize,
    sessions_max: usize,
) -> VerifierConfig {
    VerifierConfig {
        id: VERIFIER.parse().expect("a valid id"),
        vocabulary,
        prefixes: Default::default(),
        target: TargetDescription::default(),
        context_tokens_max: context_tokens_max.min(u32::MAX as usize) as u32,
        sessions_max,
        draft_tokens_max: DRAFT_TOKENS_MAX,
        credit_tokens_max: CREDIT_TOKENS_MAX,
        continuation_tokens: CONTINUATION_TOKENS,
        continuation_interval: CONTINUATION_INTERVAL,
        lossy: true,
        idle_max: PATIENCE,
    }
}
