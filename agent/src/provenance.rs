//! The verifier and target that wrote a reply, and the tokens from which another one did.

use dunlin_hlm::device::{Device, PinnedTarget};
use dunlin_wire::{Promise, TargetId, VerifierId, VerifierPresence};

/// A target at a verifier. The names come from the verifier: [escape](str::escape_debug) them before showing them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The verifier.
    pub verifier: VerifierId,
    /// The model's name; empty if the verifier's presence was not seen.
    pub model: String,
    /// The engine that runs it, and its kernels and cache type.
    pub engine: String,
    /// Weights and numerics.
    pub target: TargetId,
    /// The target's promise.
    pub promise: Promise,
}

/// The origin of a reply's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The last verifier that wrote; `None` if no token came from one.
    pub writer: Option<Writer>,
    /// The first token, counted in the reply from 0, that the same prompt and seed need not produce again.
    pub not_reproducible_from: Option<usize>,
    /// The first token that a target with other weights than before wrote.
    pub model_changed_from: Option<usize>,
}

impl Writer {
    /// The target of a lease, with the names of the verifier's presence.
    pub(crate) fn of(device: &Device, verifier: &VerifierId, target: PinnedTarget) -> Self {
        let presence = device.verifier(verifier);
        Self {
            verifier: verifier.clone(),
            model: presence.map(|presence| presence.model.to_string()).unwrap_or_default(),
            engine: presence.map(engine).unwrap_or_default(),
            target: target.id,
            promise: target.promise,
        }
    }

    /// The writer in words for a terminal.
    pub fn described(&self) -> String {
        let (model, verifier) = (model(&self.model), &self.verifier);
        format!("{model} ({}) on verifier {verifier}, {}", self.target, self.promise.name())
    }
}

impl Provenance {
    /// Notes that another target writes from `token` on.
    pub(crate) fn change(&mut self, token: usize, model: bool) {
        self.not_reproducible_from.get_or_insert(token);
        if model {
            self.model_changed_from.get_or_insert(token);
        }
    }
}

/// Explains why a session ends if only a target with other weights is present, and the way out.
pub(crate) fn other_target(device: &Device, ours: TargetId, theirs: TargetId) -> String {
    let named = |target: TargetId| match device.verifier_with(target) {
        Some((verifier, presence)) => format!("{} ({target}) on verifier {verifier}", model(&presence.model)),
        None => format!("a model with weights {target}"),
    };
    format!(
        "the text so far was written by {}; only {} is here, whose weights are others; start the first one again, or \
         go on with the other one with --accept-model-change",
        named(ours),
        named(theirs)
    )
}

/// The engine of a verifier, and its kernels and cache type where it names them. Foreign text.
pub(crate) fn engine(presence: &VerifierPresence) -> String {
    match presence.numerics.as_str() {
        "" => presence.engine.to_string(),
        numerics => format!("{}, {numerics}", presence.engine),
    }
}

/// A model's name, escaped.
pub(crate) fn model(name: &str) -> String {
    if name.is_empty() { "an unnamed model".into() } else { name.escape_debug().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_counts() {
        let mut provenance = Provenance::default();
        provenance.change(3, false);
        provenance.change(5, true);
        provenance.change(7, true);
        assert_eq!((provenance.not_reproducible_from, provenance.model_changed_from), (Some(3), Some(5)));
    }

    #[test]
    fn a_foreign_name_moves_no_cursor() {
        let writer = Writer {
            verifier: "v1".parse().unwrap(),
            model: "a\u{1b}[2Jb\u{202e}".into(),
            engine: String::new(),
            target: TargetId::new(&[0xab; 32], &[1; 32]),
            promise: Promise::Exact,
        };
        let text = "a\\u{1b}[2Jb\\u{202e} (abababababab-0101) on verifier v1, exact";
        assert_eq!(writer.described(), text);
        assert!(Writer { model: String::new(), ..writer }.described().starts_with("an unnamed model ("));
    }
}
