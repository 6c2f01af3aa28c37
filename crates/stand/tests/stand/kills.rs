//! Kills the broker, the agent's link and the verifier in the middle of replies. The text must still be the target's
//! own, with no token lost or doubled.

use crate::processes::{AgentProcess, Ask, VerifierProcess, Wire, prompts};
use crate::reference::Reference;
use dunlin_mosquitto::{Mosquitto, OPEN};

/// Kills of each kind.
const KILLS: usize = 10;
const TOKENS: usize = 64;
const SEED: u64 = 11;
const TEMPERATURE: f32 = 1.0;

/// Plays `KILLS` replies; calls `strike` after some tokens of each and compares the text with the target-only one.
fn survive(
    (device, policy): (&'static str, &'static str),
    mut strike: impl FnMut(&mut Mosquitto, &mut VerifierProcess, &Wire),
) {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::with(OPEN);
    let mut verifier = VerifierProcess::start(&dir, broker.port);
    let wire = Wire::to(broker.port);
    let ask =
        Ask { broker: wire.port, device, seed: SEED, temperature: TEMPERATURE, tokens_max: TOKENS, policy };
    let mut agent = AgentProcess::start(&ask);
    let mut reference = Reference::load();
    let long: Vec<_> = prompts()
        .into_iter()
        .map(|prompt| (reference.tokens(&prompt, SEED, TEMPERATURE, TOKENS), prompt))
        .filter(|(tokens, _)| tokens.len() >= 24)
        .take(KILLS)
        .collect();
    assert_eq!(long.len(), KILLS, "held-out prompts with a long reply");
    let mut disturbed = 0;
    for (i, (expected, prompt)) in long.iter().enumerate() {
        agent.ask(prompt);
        let mut seen = Vec::new();
        // Events are read in order, so the reply is under way as long as its end was not read.
        while seen.len() <= i % 4 {
            let event = agent.event();
            if event["event"] == "token" {
                seen.push(event["token"].as_u64().unwrap() as u32);
            }
        }
        strike(&mut broker, &mut verifier, &wire);
        let mut event = agent.event();
        while event["event"] != "finished" {
            assert_ne!(event["event"], "error", "{event}");
            if event["event"] == "token" {
                seen.push(event["token"].as_u64().unwrap() as u32);
            }
            event = agent.event();
        }
        assert_eq!(&seen, expected, "tokens as they were committed, generation {i}");
        let reported: Vec<u32> = serde_json::from_value(event["tokens"].clone()).unwrap();
        assert_eq!(&reported, expected, "tokens as reported, generation {i}");
        disturbed += usize::from(is_disturbed(&event));
    }
    println!(
        "{device}: {KILLS} kills, {disturbed} generations had to send, ask or connect again, all texts identical"
    );
    assert!(disturbed >= KILLS / 2, "only {disturbed} kills came in the middle of a generation");
}

/// True when the agent had to send a frame again, request a lease again or connect again during the reply. A
/// reconnection shows in the bytes: a CONNECT and its SUBSCRIBE take more than the subscriptions of a search.
fn is_disturbed(report: &serde_json::Value) -> bool {
    let count = |name: &str| report[name].as_u64().unwrap();
    count("resent") > 0 || count("opens") > 1 || count("mqtt_control_bytes_up") > 200
}

fn kill_the_broker(broker: &mut Mosquitto, _: &mut VerifierProcess, _: &Wire) {
    broker.kill();
    broker.start().unwrap();
}

#[test]
fn the_broker_is_killed() {
    survive(("kills-broker", "lossless"), kill_the_broker);
}

#[test]
fn the_link_is_cut() {
    survive(("kills-link", "lossless"), |_, _, wire| wire.cut());
}

#[test]
fn the_verifier_is_killed() {
    survive(("kills-verifier", "lossless"), |_, verifier, _| verifier.kill_and_restart());
}

#[test]
fn the_broker_is_killed_while_text_flows() {
    survive(("kills-broker-stream", "stream"), kill_the_broker);
}

#[test]
fn the_link_is_cut_while_text_flows() {
    survive(("kills-link-stream", "stream"), |_, _, wire| wire.cut());
}

#[test]
fn the_verifier_is_killed_while_text_flows() {
    survive(("kills-verifier-stream", "stream"), |_, verifier, _| verifier.kill_and_restart());
}

#[test]
fn the_verifier_is_killed_while_the_device_chooses_who_writes() {
    survive(("kills-verifier-auto", "auto"), |_, verifier, _| verifier.kill_and_restart());
}
