//! Shared by the tests of both machines: a small vocabulary, models that are sure of one token, digests.
#![allow(dead_code)] // each test uses a part

use dunlin_hlm::TokenId;
use dunlin_wire::{
    CouplingProfile, Liveness, PREFIX_EMPTY, PrefixDigest, Price, Promise, TargetId, VerifierPresence,
    Vocabulary,
};

/// Size of the vocabulary; ids from here to 255 can be sent but belong to no model.
pub(crate) const SIZE: u32 = 32;
/// The vocabulary of both models.
pub(crate) const VOCABULARY: Vocabulary = Vocabulary { size: SIZE, fingerprint: [7; 8] };

/// The target's weights and numerics.
pub(crate) const TARGET: TargetId = TargetId::from_bytes([1, 1, 1, 1, 1, 1, 2, 2]);

/// The presence of a verifier of that target that accepts sessions.
pub(crate) fn presence() -> VerifierPresence {
    VerifierPresence {
        generation: 1,
        liveness: Liveness::Here,
        vocabulary: VOCABULARY,
        target: TARGET,
        promise: Promise::Exact,
        coupling: CouplingProfile::SplitMix,
        model: "the desk's".try_into().expect("a short name"),
        engine: Default::default(),
        numerics: Default::default(),
        price: Price::default(),
        load: 0,
        draining: false,
    }
}

/// Logits of a model that is sure of `token`.
pub(crate) fn sure(token: TokenId) -> Vec<f32> {
    (0..SIZE).map(|id| if id == token { 40.0 } else { 0.0 }).collect()
}

/// The digest of a text.
pub(crate) fn digest(text: &[TokenId]) -> PrefixDigest {
    text.iter().fold(PREFIX_EMPTY, |digest, token| digest.push(*token))
}
