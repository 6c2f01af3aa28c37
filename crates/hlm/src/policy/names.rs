//! Names of the parts of a policy, as configurations and reports write them.

use crate::named::named;

named! {
    /// A policy of the literature, or of ours, by name: a preset of [`PolicyTable`](super::PolicyTable).
    #[derive(Default)]
    Policy, "policy":
    /// Every token is sent with its whole distribution and verified (HLM, 2412.12687).
    Hlm = "hlm",
    /// Uncertain tokens are sent with their whole distribution, the others trusted (U-HLM, 2412.12687).
    UHlm = "u-hlm",
    /// Uncertain tokens are sent with the most probable part of their distribution, the rest taken for even
    /// (CU-HLM, 2505.11788): biased, kept for comparison.
    CuHlm = "cu-hlm",
    /// Tokens both uncertain and important are sent, the others trusted (*ours*, after 2508.12590).
    Importance = "importance",
    /// Tokens uncertain or important are sent, the others trusted (*ours*, after 2508.12590).
    ImportanceOr = "importance-or",
    /// Tokens are sent by a coin: what a score must beat.
    Random = "random",
    /// Every token is verified, ids and 4-bit scores are sent, both ends draw with the shared seed: the text is
    /// the target's own.
    #[default]
    Lossless = "lossless",
    /// Every token is verified by rejection sampling against the sparse lattice it was drawn from: the text is
    /// distributed as the target's.
    LosslessSparse = "lossless-sparse",
    /// As lossless, but confident tokens stay; the share of them that the target would not have chosen is held at ε.
    Risk = "risk",
    /// The drafter alone.
    Local = "local",
    /// The target alone, asked for one token at a time.
    Remote = "remote",
}

named! {
    /// What happens to drafted tokens that no threshold flushed.
    #[derive(Default)]
    HeldTokens, "kind of held tokens":
    /// They wait for the frame, are verified with it, and rolled back at the first miss. The frame brings a bonus
    /// token, and the device drafts ahead while it is under way.
    #[default]
    Verified = "verified",
    /// They are committed at once and ride along with the next frame, which asks for the one token that was
    /// flushed and brings no other: the loop of the HLM papers.
    Trusted = "trusted",
    /// As verified, but those below an adaptive uncertainty stay whatever the verdict, which says how many of them
    /// the target would not have chosen.
    Audited = "audited",
}

named! {
    /// What is sent of the distribution a judged token was drawn from.
    #[derive(Default)]
    PayloadForm, "payload":
    /// Nothing: the id and two 4-bit scores.
    #[default]
    Ids = "ids",
    /// Every token's weight on 8 bits, which is what the token is drawn from.
    Full = "full",
    /// The most probable tokens with their probability on 8 bits; the rest is taken for even. Not drawn from.
    TopK = "top-k",
    /// The most probable tokens with their weight on 8 bits, which is what the token is drawn from.
    TopKSampled = "top-k-sampled",
    /// The most probable tokens on a lattice (weights with a fixed sum), which is what the token is drawn from.
    Lattice = "lattice",
}

named! {
    /// How the verifier judges a token.
    #[derive(Default)]
    Coupling, "coupling":
    /// Both ends draw with the same noise, and the token stands where they draw the same (2408.07978).
    #[default]
    SharedSeed = "shared-seed",
    /// The token stands with probability `min(1, p/q)`, else `(p − q)⁺` is drawn from (2211.17192).
    Rejection = "rejection",
}

named! {
    /// How the thresholds of uncertainty and importance work together.
    #[derive(Default)]
    Combine, "way to combine thresholds":
    /// Either flushes.
    #[default]
    Any = "any",
    /// Only both together flush.
    Both = "both",
}

named! {
    /// Which of a token's two importances is sent.
    #[derive(Default)]
    ImportanceForm, "form of importance":
    /// How concentrated the attention of the query that produced the token is.
    #[default]
    Row = "row",
    /// How much attention later drafts of the frame pay to it; decided when the frame closes.
    Received = "received",
}

named! {
    /// A threshold that a preset may have and a table may leave out.
    Threshold, "threshold":
    /// The threshold on uncertainty.
    UncertaintyMax = "uncertainty_max",
    /// The threshold on importance.
    ImportanceLambda = "importance_lambda",
    /// The coin.
    RandomRate = "random_rate",
}
