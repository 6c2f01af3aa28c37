//! What an evaluation measures, line by line: the columns of its CSV files.

use serde::{Deserialize, Serialize};

/// One policy setting at one temperature on one channel and board, over all prompts and seeds of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Which of the plan's runs: `main`, `strictness`, `snr`, `rtt`, `ablation` or `risk`.
    pub run: String,
    /// The policy's name.
    pub policy: String,
    /// The policy with the settings that differ from its preset; unique in a run.
    pub label: String,
    /// Uncertainty above which a token is sent.
    pub uncertainty_max: Option<f64>,
    /// λ of the importance threshold.
    pub importance_lambda: Option<f64>,
    /// Probability with which a token is sent.
    pub random_rate: Option<f64>,
    /// Wanted share of misses among audited tokens.
    pub epsilon: Option<f64>,
    /// Softmax temperature of both models.
    pub temperature: f64,
    /// The channel's name.
    pub channel: String,
    /// The board's name.
    pub board: String,
    /// Parameters of the drafter that is modelled.
    pub drafter_parameters: f64,
    /// Mean signal-to-noise ratio of a radio channel, dB.
    pub snr_db: Option<f64>,
    /// Round trip of an empty message, ms.
    pub rtt_ms: f64,

    /// Replies written.
    pub replies: u64,
    /// Tokens committed.
    pub committed: u64,
    /// Committed tokens that stay without the target's agreement: trusted, or audited and missed.
    pub trusted: u64,
    /// Drafts the target judged.
    pub judged: u64,
    /// Judged drafts it accepted.
    pub accepted: u64,
    /// Audited tokens that stayed.
    pub audited: u64,
    /// Those of them that the target would not have chosen.
    pub missed: u64,

    /// Share of replies identical to what the target alone writes with the same seed.
    pub exact: f64,
    /// Mean total variation distance per token between the policy's one-step law and the target's, 0..=1; where
    /// audited tokens stay, an upper bound: the kept misses.
    pub tv: f64,
    /// Mean Kullback–Leibler divergence per token of that law from the target's, nats; none where only a bound is
    /// known.
    pub kl: Option<f64>,
    /// Mean negative log-likelihood of the committed tokens under the target at temperature 1, nats.
    pub nll: f64,
    /// Mean ROUGE-L F1 against the target-only reply, 0..=1.
    pub rouge_l: f64,
    /// Share of the numbers and names in the target-only replies that the policy's replies have too.
    pub slots: f64,
    /// Mean BERTScore F1 against the target-only reply, where an encoder was given.
    pub bertscore: Option<f64>,

    /// Draft frames sent up: rounds.
    pub frames_up: u64,
    /// MQTT messages up, those before the first frame of a session left out.
    pub messages_up: u64,
    /// Bytes of payload up; as all byte counts below, of frames and the codes and contexts between them.
    pub payload_up: u64,
    /// Bytes of MQTT packets up.
    pub mqtt_up: u64,
    /// Bytes up with the headers below MQTT, retransmissions included.
    pub ip_up: u64,
    /// As `ip_up`, with TLS records.
    pub tls_up: u64,
    /// Bytes of payload down.
    pub payload_down: u64,
    /// Bytes of MQTT packets down.
    pub mqtt_down: u64,
    /// Bytes up of opening a session and sending its prompt, MQTT packets.
    pub opening_up: u64,
    /// Passes of the target.
    pub target_passes: u64,
    /// Tokens the target was fed, prompts left out, catching up on held tokens included.
    pub target_tokens: u64,
    /// Tokens the drafter gave.
    pub drafted: u64,

    /// Modelled time from prompt to end, s, over all replies.
    pub seconds: f64,
    /// Modelled energy of drafting above idle, J.
    pub draft_j: f64,
    /// Of scoring, above idle, J.
    pub score_j: f64,
    /// Of sending and receiving, above idle, J.
    pub send_j: f64,
    /// Of the radio waiting for an answer, above idle, J.
    pub wait_j: f64,
    /// What the idle board draws in that time, J.
    pub idle_j: f64,
}

impl CellRecord {
    /// Modelled energy of all phases, J.
    pub fn joules(&self) -> f64 {
        self.draft_j + self.score_j + self.send_j + self.wait_j + self.idle_j
    }

    /// A quantity per committed token.
    pub fn per_token(&self, quantity: f64) -> f64 {
        quantity / self.committed.max(1) as f64
    }

    /// Draft frames sent up per committed token.
    pub fn upload_rate(&self) -> f64 {
        self.per_token(self.frames_up as f64)
    }
}

/// A drafted token whose fate is known, of the default policy: `tokens.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Softmax temperature.
    pub temperature: f64,
    /// Position in the reply.
    pub position: u64,
    /// The drafter's uncertainty, 0..=1.
    pub uncertainty: f64,
    /// The token's importance, 0..=1.
    pub importance: f64,
    /// The importance threshold μ + λσ with λ = 0 at that token.
    pub threshold: f64,
    /// Whether the target rejected it.
    pub rejected: bool,
}
