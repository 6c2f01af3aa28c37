//! The records of an evaluation: lines and columns of its CSV files.

use serde::{Deserialize, Serialize};

/// One policy setting at one temperature on one channel and board, over all prompts and seeds of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// The plan's run: `main`, `strictness`, `snr`, `rtt`, `ablation`, `risk` or `map`.
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
    /// ε: the target share of misses among audited tokens.
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

    /// Time of a pass of the target alone, ms.
    pub pass_ms: f64,
    /// Sessions on the server.
    pub sessions: f64,
    /// The quantity that the device minimises: `joules` or `seconds`.
    pub objective: String,
    /// Probability of acceptance in place of the drafter's own.
    pub acceptance: Option<f64>,
    /// True when the device had learned from other replies before.
    pub learned: bool,

    /// Replies written.
    pub replies: u64,
    /// Tokens committed.
    pub committed: u64,
    /// Committed tokens without the target's agreement: trusted, or audited and missed.
    pub trusted: u64,
    /// Drafts the target judged.
    pub judged: u64,
    /// Judged drafts that the target accepted.
    pub accepted: u64,
    /// Audited tokens that stayed.
    pub audited: u64,
    /// Audited tokens that the target would not have chosen.
    pub missed: u64,

    /// Share of replies identical to the target-only reply with the same seed.
    pub exact: f64,
    /// Mean total variation distance per token between the policy's one-step distribution and the target's, 0..=1. With
    /// audited tokens it is an upper bound, the share of kept misses.
    pub tv: f64,
    /// Mean Kullback–Leibler divergence per token of that distribution from the target's, nats; `None` if only a bound
    /// is known.
    pub kl: Option<f64>,
    /// Mean negative log-likelihood of the committed tokens under the target at temperature 1, nats.
    pub nll: f64,
    /// Mean ROUGE-L F1 against the target-only reply, 0..=1.
    pub rouge_l: f64,
    /// Share of the numbers and names in the target-only replies that the policy's replies have too.
    pub slots: f64,
    /// Mean BERTScore F1 against the target-only reply, if an encoder was given.
    pub bertscore: Option<f64>,

    /// Draft frames sent up, that is, rounds.
    pub frames_up: u64,
    /// MQTT messages up, without those before the first frame of a session.
    pub messages_up: u64,
    /// Bytes of payload up. This and all byte counts below are of frames and the codes and contexts between them.
    pub payload_up: u64,
    /// Bytes of MQTT packets up.
    pub mqtt_up: u64,
    /// Bytes up with the headers below MQTT, retransmissions included.
    pub ip_up: u64,
    /// Like `ip_up`, with TLS records.
    pub tls_up: u64,
    /// Bytes of payload down.
    pub payload_down: u64,
    /// Bytes of MQTT packets down.
    pub mqtt_down: u64,
    /// Bytes of MQTT packets up that open a session and send its prompt.
    pub opening_up: u64,
    /// Passes of the target.
    pub target_passes: u64,
    /// Tokens that the target was fed, without prompts but including held tokens.
    pub target_tokens: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Tokens that the verifier wrote on credit.
    pub streamed: u64,
    /// Modelled share of the target's passes, s; a pass is shared by the sessions on the server.
    pub target_seconds: f64,
    /// Modelled energy of the server in that time, J; 0 for a plan that names no power.
    pub server_j: f64,

    /// Modelled time from prompt to end, summed over all replies, s.
    pub seconds: f64,
    /// Modelled energy of drafting above idle, J.
    pub draft_j: f64,
    /// Modelled energy of scoring above idle, J.
    pub score_j: f64,
    /// Modelled energy of sending and receiving above idle, J.
    pub send_j: f64,
    /// Modelled energy of the radio waiting for an answer above idle, J.
    pub wait_j: f64,
    /// Modelled energy of the idle board in that time, J.
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

/// A drafted token of the default policy that a verdict confirmed or rejected: a line of `tokens.csv`.
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
    /// True when the target rejected it.
    pub rejected: bool,
}
