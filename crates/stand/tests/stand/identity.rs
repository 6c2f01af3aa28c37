//! The promise of the policies that verify every token: through a real broker, the text is the target's own, token for token.

use crate::processes::{AgentProcess, Ask, VerifierProcess, prompts};
use crate::reference::Reference;
use dunlin_mosquitto::{Mosquitto, OPEN};
use std::time::{Duration, Instant};

const PROMPTS: usize = 100;
const SEEDS: [u64; 3] = [1, 2, 3];
const TEMPERATURES: [f32; 3] = [0.0, 0.8, 1.0];
const TOKENS: usize = 24;
const POLICIES: [&str; 3] = ["lossless", "stream", "auto"];
/// Interval of progress messages.
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[test]
fn every_held_out_prompt_gives_the_targets_own_text() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(OPEN);
    let _verifier = VerifierProcess::start(&dir, broker.port);
    let prompts = &prompts()[..PROMPTS];
    let mut reference = Reference::load();
    let (mut replies, mut tokens, mut told) = (0, 0, Instant::now());
    let (mut accepted, mut streamed) = (0, 0);
    // The policies that let text flow write the same text, so one seed shows them.
    let seeds = |policy| if policy == "lossless" { &SEEDS[..] } else { &SEEDS[..1] };
    let wanted =
        POLICIES.map(|policy| seeds(policy).len()).iter().sum::<usize>() * PROMPTS * TEMPERATURES.len();
    for (policy, temperature) in
        POLICIES.into_iter().flat_map(|policy| TEMPERATURES.map(|temperature| (policy, temperature)))
    {
        for &seed in seeds(policy) {
            let tokens_max = TOKENS;
            let ask = Ask { broker: broker.port, device: "identity", seed, temperature, tokens_max, policy };
            let mut agent = AgentProcess::start(&ask);
            for prompt in prompts {
                agent.ask(prompt);
                let reply = agent.reply();
                let got: Vec<u32> = serde_json::from_value(reply["tokens"].clone()).unwrap();
                let expected = reference.tokens(prompt, seed, temperature, TOKENS);
                assert_eq!(got, expected, "{prompt:?}, {policy}, seed {seed}, temperature {temperature}");
                assert_eq!(reply["unverified_tokens"], 0);
                replies += 1;
                tokens += got.len();
                accepted += reply["accepted_tokens"].as_u64().unwrap();
                streamed += reply["streamed_tokens"].as_u64().unwrap();
                if told.elapsed() > TOLD_EVERY {
                    told = Instant::now();
                    println!("{replies} of {wanted} replies identical");
                }
            }
        }
    }
    println!(
        "{replies} replies, {tokens} tokens, all identical, no tie flipped; {accepted} were drafted and accepted, \
         {streamed} streamed"
    );
    assert_eq!(replies, wanted);
    assert!(accepted > tokens as u64 / 4, "a drafter that is never right makes this test say little");
    assert!(streamed > tokens as u64 / 8, "only {streamed} of {tokens} tokens were streamed");
}
