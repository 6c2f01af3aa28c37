//! The default policy's promise: through a real broker, the text is the target's own, token for token.

use crate::processes::{AgentProcess, Ask, VerifierProcess, prompts};
use crate::reference::Reference;
use dunlin_mosquitto::{Mosquitto, OPEN};
use std::time::{Duration, Instant};

const PROMPTS: usize = 100;
const SEEDS: [u64; 3] = [1, 2, 3];
const TEMPERATURES: [f32; 3] = [0.0, 0.8, 1.0];
const TOKENS: usize = 24;
/// Interval of progress messages.
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[test]
fn every_held_out_prompt_gives_the_targets_own_text() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(OPEN);
    let _verifier = VerifierProcess::start(&dir, broker.port);
    let prompts = &prompts()[..PROMPTS];
    let mut reference = Reference::load();
    let (mut replies, mut tokens, mut accepted, mut told) = (0, 0, 0, Instant::now());
    for temperature in TEMPERATURES {
        for seed in SEEDS {
            let ask = Ask { broker: broker.port, device: "identity", seed, temperature, tokens_max: TOKENS };
            let mut agent = AgentProcess::start(&ask);
            for prompt in prompts {
                agent.ask(prompt);
                let reply = agent.reply();
                let got: Vec<u32> = serde_json::from_value(reply["tokens"].clone()).unwrap();
                let expected = reference.tokens(prompt, seed, temperature, TOKENS);
                assert_eq!(got, expected, "{prompt:?}, seed {seed}, temperature {temperature}");
                assert_eq!(reply["unverified_tokens"], 0);
                replies += 1;
                tokens += got.len();
                accepted += reply["accepted_tokens"].as_u64().unwrap();
                if told.elapsed() > TOLD_EVERY {
                    told = Instant::now();
                    println!("{replies} of {} replies identical", PROMPTS * SEEDS.len() * TEMPERATURES.len());
                }
            }
        }
    }
    println!(
        "{replies} replies, {tokens} tokens, all identical, no tie flipped; {accepted} were drafted and accepted"
    );
    assert_eq!(replies, PROMPTS * SEEDS.len() * TEMPERATURES.len());
    assert!(accepted > tokens as u64 / 4, "a drafter that is never right makes this test say little");
}
