//! Names of the parts of a policy, as configurations and reports write them.

use crate::named::named;

named! {
    /// The name of a policy, from the literature or ours: a preset of [`PolicyTable`](super::PolicyTable).
    #[derive(Default)]
    Policy, "policy":
    /// Every token is sent with its whole distribution and verified (HLM, 2412.12687).
    Hlm = "hlm",
    /// Uncertain tokens are sent with their whole distribution, the others trusted (U-HLM, 2412.12687).
    UHlm = "u-hlm",
    /// Uncertain tokens are sent with the most probable part of their distribution; the verifier takes the rest to be
    /// uniform (CU-HLM, 2505.11788). Biased, kept for comparison.
    CuHlm = "cu-hlm",
    /// Tokens both uncertain and important are sent, the others trusted (*ours*, after 2508.12590).
    Importance = "importance",
    /// Tokens that are uncertain or important are sent, the others trusted (*ours*, after 2508.12590).
    ImportanceOr = "importance-or",
    /// Tokens are sent at random: the baseline that any score must beat.
    Random = "random",
    /// Every token is verified. Ids and 4-bit scores are sent, and both ends draw with the shared seed, so the text is
    /// the target's own.
    #[default]
    Lossless = "lossless",
    /// Every token is verified by rejection sampling against the sparse lattice it was drawn from, so the text has the
    /// target's distribution.
    LosslessSparse = "lossless-sparse",
    /// Like `lossless`, but confident tokens stay. The share of them that the target would not have chosen is kept
    /// at ε.
    Risk = "risk",
    /// Only the drafter writes.
    Local = "local",
    /// Only the target writes, one token per request.
    Remote = "remote",
    /// Whichever is cheaper at the moment writes: the device drafts as under `lossless`, or the text flows as under
    /// `stream`. It may change at any token; the text stays the same.
    Auto = "auto",
    /// Only the target writes: one request, and the text flows in messages of several tokens.
    Stream = "stream",
}

named! {
    /// Treatment of drafted tokens that no trigger flushed.
    #[derive(Default)]
    HeldTokens, "kind of held tokens":
    /// They wait for the frame, are verified with it, and are rolled back from the first rejection on. The frame asks
    /// for a bonus token, and the device drafts ahead while it is under way.
    #[default]
    Verified = "verified",
    /// They are committed at once and ride along with the next frame. That frame asks only about the one flushed token
    /// and has no bonus, as in the loop of the HLM papers.
    Trusted = "trusted",
    /// Like `verified`, but tokens below an adaptive uncertainty threshold stay whatever the verdict. The verdict marks
    /// those that the target would not have chosen.
    Audited = "audited",
}

named! {
    /// The part of a judged token's distribution that is sent.
    #[derive(Default)]
    PayloadForm, "payload":
    /// Nothing: the id and two 4-bit scores.
    #[default]
    Ids = "ids",
    /// Every vocabulary entry's weight on 8 bits; the token is drawn from these.
    Full = "full",
    /// The most probable tokens with their probability on 8 bits; the rest is taken to be uniform. The token is drawn
    /// from the full distribution, not from this.
    TopK = "top-k",
    /// The most probable tokens with their weight on 8 bits; the token is drawn from these.
    TopKSampled = "top-k-sampled",
    /// The most probable tokens on a lattice (integer weights with a fixed sum); the token is drawn from these.
    Lattice = "lattice",
}

named! {
    /// The verifier's rule for judging a token.
    #[derive(Default)]
    Coupling, "coupling":
    /// Both ends draw with the same noise; the token is accepted if both draw the same one (2408.07978).
    #[default]
    SharedSeed = "shared-seed",
    /// The token is accepted with probability `min(1, p/q)`, else replaced by a draw from `(p − q)⁺` (2211.17192).
    Rejection = "rejection",
}

named! {
    /// The combination of the thresholds on uncertainty and importance.
    #[derive(Default)]
    Combine, "way to combine thresholds":
    /// Either flushes.
    #[default]
    Any = "any",
    /// Only both together flush.
    Both = "both",
}

named! {
    /// The form of importance that is sent.
    #[derive(Default)]
    ImportanceForm, "form of importance":
    /// Concentration of the attention of the query that produced the token.
    #[default]
    Row = "row",
    /// Attention that later drafts of the frame pay to the token; known once the frame is complete.
    Received = "received",
}

named! {
    /// A threshold that a preset may have and a table may leave out.
    Threshold, "threshold":
    /// The threshold on uncertainty.
    UncertaintyMax = "uncertainty_max",
    /// The threshold on importance.
    ImportanceLambda = "importance_lambda",
    /// The probability of the random trigger.
    RandomRate = "random_rate",
}
