//! Constants with which an evaluation models a board.
//!
//! Invariant: no agent reads them to make a decision.

use crate::number::{amount, rate};
use serde::Deserialize;

/// A board's modelled power and speed. Every power but the first is above idle.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modelled {
    /// Power of the idle board with its radio asleep, W.
    #[serde(deserialize_with = "amount")]
    pub idle_w: f64,
    /// Power while the drafter runs, W.
    #[serde(deserialize_with = "amount")]
    pub draft_w: f64,
    /// Power while a drafted token is sampled and scored, W.
    #[serde(deserialize_with = "amount")]
    pub score_w: f64,
    /// Fixed time of a run of the drafter, whatever its size, µs.
    #[serde(deserialize_with = "amount")]
    pub run_us: f64,
    /// The rate at which weights are read, bytes/s: a run reads each once.
    #[serde(deserialize_with = "rate")]
    pub weight_bytes_per_s: f64,
    /// Arithmetic, operations/s: a token takes two for each parameter.
    #[serde(deserialize_with = "rate")]
    pub flops: f64,
    /// Time to sample and score a token, ns for each entry of the vocabulary.
    #[serde(deserialize_with = "amount")]
    pub score_ns_per_entry: f64,
}

impl Modelled {
    /// Time of one run of a drafter over `tokens` tokens, µs: reading or arithmetic, whichever takes longer.
    pub fn draft_us(&self, parameters: f64, bits: f64, tokens: usize) -> f64 {
        let read = parameters * bits / 8.0 / self.weight_bytes_per_s;
        let compute = 2.0 * parameters * tokens as f64 / self.flops;
        self.run_us + read.max(compute) * 1e6
    }

    /// Time to sample and score one token, µs.
    pub fn score_us(&self, vocabulary: u32) -> f64 {
        self.score_ns_per_entry * f64::from(vocabulary) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use crate::Board;

    const BOARD: &str = "name = \"b\"\n[modelled]\nidle_w = 2\ndraft_w = 3.5\nscore_w = 1\nrun_us = 100\n\
        weight_bytes_per_s = 4e9\nflops = 16e9\nscore_ns_per_entry = 500\n";

    fn load(text: &str) -> anyhow::Result<Board> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.toml");
        std::fs::write(&path, text).unwrap();
        Board::load(&path)
    }

    #[test]
    fn a_token_waits_for_its_weights_and_a_prompt_for_the_arithmetic() {
        let modelled = load(BOARD).unwrap().modelled.unwrap();
        // 8e6 parameters of 4 bits are 4 MB, 1 ms; 2 x 8e6 operations are 1 ms too.
        assert_eq!(modelled.draft_us(8e6, 4.0, 1), 100.0 + 1000.0);
        assert_eq!(modelled.draft_us(16e6, 8.0, 1), 100.0 + 4000.0);
        assert_eq!(modelled.draft_us(8e6, 4.0, 5), 100.0 + 5000.0);
        assert_eq!(modelled.score_us(2048), 1024.0);
    }

    #[test]
    fn a_bad_number_is_named_with_its_line_and_key() {
        let cases = [
            ("draft_w = 3.5", "draft_w = -1", "b.toml:4: -1 is not a number of at least 0 (draft_w = -1)"),
            ("idle_w = 2", "idle_w = nan", "b.toml:3: NaN is not"),
            ("flops = 16e9", "flops = 0", "b.toml:8: 0 is not a number above 0 (flops = 0)"),
            ("weight_bytes_per_s = 4e9", "weight_bytes_per_s = inf", "b.toml:7: inf is not"),
            ("run_us = 100", "run_us = \"fast\"", "b.toml:6: invalid type"),
            ("run_us = 100", "runs_us = 100", "b.toml:6: unknown field `runs_us`"),
            ("run_us = 100\n", "", "missing field `run_us`"),
        ];
        for (from, to, expected) in cases {
            let error = load(&BOARD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
