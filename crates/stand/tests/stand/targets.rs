//! Two verifiers with different weights on one broker, one of which is killed in the middle of a reply. No text may be
//! written by both, unless the user accepts that.

use crate::processes::{AgentProcess, Ask, VerifierProcess, Wire, model, prompts};
use crate::reference::Reference;
use dunlin_mosquitto::{Mosquitto, OPEN};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const TOKENS: usize = 64;
const SEED: u64 = 11;
const TEMPERATURE: f32 = 1.0;
/// Silence after which the agent gives up, in seconds.
const GIVE_UP: &str = "2";

/// A copy of the demo target with another name and other weights.
fn other_model(dir: &Path) -> PathBuf {
    let (from, to) = (model("target"), dir.join("target"));
    std::fs::create_dir(&to).unwrap();
    std::fs::copy(model("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let mut weights = std::fs::read(from.join("target.gguf")).unwrap();
    let end = weights.len() - 4096;
    weights[end - (1 << 18)..end].iter_mut().for_each(|byte| *byte ^= 0x0c);
    std::fs::write(to.join("target.gguf"), &weights).unwrap();
    let hash =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let before = hash(&std::fs::read(from.join("target.gguf")).unwrap());
    let manifest = std::fs::read_to_string(from.join("model.toml")).unwrap();
    let manifest = manifest.replace("\"dunlin-demo-target\"", "\"the-other-target\"");
    std::fs::write(to.join("model.toml"), manifest.replace(&before, &hash(&weights))).unwrap();
    to
}

/// Plays one reply whose verifier is killed after some tokens and replaced by one with other weights. Returns the
/// committed tokens and the end of the reply.
fn bereave(prompt: &str, flags: &[&str], other: &Path, device: &'static str) -> (Vec<u32>, Value) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(OPEN);
    let mut first = VerifierProcess::serve(&dir, broker.port, "first", &model("target"));
    let wire = Wire::to(broker.port);
    let ask = Ask {
        broker: wire.port,
        device,
        seed: SEED,
        temperature: TEMPERATURE,
        tokens_max: TOKENS,
        policy: "lossless",
    };
    let mut agent = AgentProcess::with_flags(&ask, flags);
    agent.ask(prompt);
    let mut tokens = Vec::new();
    let mut event = agent.event();
    while event["event"] != "token" {
        event = agent.event();
    }
    tokens.push(event["token"].as_u64().unwrap() as u32);
    first.kill();
    let _second = VerifierProcess::serve(&dir, broker.port, "second", other);
    loop {
        let event = agent.event();
        assert_ne!(event["event"], "error", "{event}");
        if event["event"] == "finished" {
            return (tokens, event);
        }
        if event["event"] == "token" {
            tokens.push(event["token"].as_u64().unwrap() as u32);
        }
    }
}

/// A held-out prompt with a long reply, and the reply.
fn long_reply(reference: &mut Reference) -> (String, Vec<u32>) {
    let replies = prompts().into_iter().map(|prompt| {
        let tokens = reference.tokens(&prompt, SEED, TEMPERATURE, TOKENS);
        (prompt, tokens)
    });
    replies.into_iter().find(|(_, tokens)| tokens.len() == TOKENS).expect("a prompt with a long reply")
}

#[test]
fn other_weights_do_not_continue_a_reply_and_both_models_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let other = other_model(dir.path());
    let (prompt, expected) = long_reply(&mut Reference::load());
    let (tokens, end) = bereave(&prompt, &["--give-up-after", GIVE_UP], &other, "targets-refused");
    assert_eq!(end["finish"], "other_model", "{end}");
    assert!(tokens.len() < TOKENS && expected.starts_with(&tokens), "{tokens:?} of {expected:?}");
    let problem = end["problem"].as_str().unwrap();
    for named in ["dunlin-demo-target", "on verifier first", "the-other-target", "on verifier second"] {
        assert!(problem.contains(named), "{problem}");
    }
    assert_eq!((&end["verifier"], &end["model"]), (&"first".into(), &"dunlin-demo-target".into()));
    assert_eq!((&end["not_reproducible_from"], &end["model_changed_from"]), (&Value::Null, &Value::Null));
}

#[test]
fn other_weights_continue_a_reply_where_the_user_accepts_it_and_the_token_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let other = other_model(dir.path());
    let (prompt, expected) = long_reply(&mut Reference::load());
    let flags = ["--give-up-after", GIVE_UP, "--accept-model-change"];
    let (tokens, end) = bereave(&prompt, &flags, &other, "targets-accepted");
    let changed = end["model_changed_from"].as_u64().expect("the change is reported") as usize;
    assert_eq!(end["not_reproducible_from"], end["model_changed_from"]);
    assert_eq!((&end["verifier"], &end["model"]), (&"second".into(), &"the-other-target".into()));
    assert!(changed >= 1 && expected.starts_with(&tokens[..changed]), "{changed} of {tokens:?}");
    let mut second = Reference::of(&other);
    let rest = second.tokens_behind(&prompt, &tokens[..changed], SEED, TEMPERATURE, TOKENS - changed);
    assert_eq!(tokens[changed..], rest, "from there on the other model alone writes");
    assert_ne!(tokens, expected, "the other weights write another text");
}
