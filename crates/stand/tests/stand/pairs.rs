//! Pairs whose models are not made for each other.

use crate::processes::{AgentProcess, Ask, VerifierProcess, model};
use crate::reference::Reference;
use dunlin_mosquitto::{Mosquitto, OPEN};
use std::path::{Path, PathBuf};

/// Tokens of the drafter's context.
const CONTEXT: usize = 64;

/// The demo drafter with a context of [`CONTEXT`] tokens.
fn short_drafter(dir: &Path) -> PathBuf {
    let (from, to) = (model("drafter"), dir.join("drafter"));
    std::fs::create_dir(&to).unwrap();
    std::fs::copy(model("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    std::fs::copy(from.join("drafter.onnx"), to.join("drafter.onnx")).unwrap();
    let manifest = std::fs::read_to_string(from.join("model.toml")).unwrap();
    let shorter = manifest.replace("context = 1024", &format!("context = {CONTEXT}"));
    assert_ne!(shorter, manifest);
    std::fs::write(to.join("model.toml"), shorter).unwrap();
    to
}

#[test]
fn a_drafter_with_a_short_context_writes_as_long_as_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let drafter = short_drafter(dir.path());
    let broker = Mosquitto::with(OPEN);
    let _verifier = VerifierProcess::start(&dir, broker.port);
    let ask = Ask {
        broker: broker.port,
        device: "short",
        seed: 4,
        temperature: 0.8,
        tokens_max: 200,
        policy: "lossless",
    };
    let mut agent = AgentProcess::with_drafter(&ask, &drafter, &[]);
    let mut reference = Reference::load();
    // One prompt has more tokens than the drafter's context, and the replies together have many more.
    let long = "I need a hotel in Paris with a garden. ".repeat(12);
    let mut refills = 0;
    for prompt in [long.as_str(), "Tell me about Paris.", "Find me a hotel and book a table for two there."] {
        agent.ask(prompt);
        let expected = reference.tokens(prompt, 4, 0.8, 200);
        let reply = agent.reply();
        let tokens: Vec<u32> = serde_json::from_value(reply["tokens"].clone()).unwrap();
        assert_eq!(tokens, expected, "{prompt}");
        refills += reply["drafter_refills"].as_u64().unwrap();
    }
    assert!(refills > 0, "a prompt is longer than the drafter's context");
}
