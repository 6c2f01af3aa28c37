//! The modelled times of a board, channel and server in one session, and the energy computed from them.

use super::channel::{ModelledChannel, ModelledLink};
use super::plan::{ModelledBoard, Server, Size};
use dunlin_board::Modelled;
use dunlin_hlm::device::DraftJob;
use dunlin_hlm::stop::{Prices, PricesError};
use dunlin_hlm::verifier::VerifyJob;
use dunlin_sim::quiet::{Passage, SessionOutcome, Timing};
use dunlin_wire::{LogTime, Price};

/// The model of all durations in one session.
#[derive(Debug)]
pub struct ModelledClock<'a> {
    /// The board.
    pub board: &'a ModelledBoard,
    /// The drafter on it.
    pub size: Size,
    /// Size of its vocabulary.
    pub vocabulary: u32,
    /// The target.
    pub server: Server,
    /// The link between board and server.
    pub link: ModelledLink<'a>,
    /// Time at which the session's last pass ended: one that follows at once is part of the next batch.
    pub passed_us: u64,
    /// The session's share of the target's passes, µs.
    pub server_us: f64,
}

impl Timing for ModelledClock<'_> {
    fn draft_us(&self, job: &DraftJob) -> u64 {
        let Size { drafter_parameters, drafter_bits } = self.size;
        self.board.modelled.draft_us(drafter_parameters, drafter_bits, job.tokens.len()).round() as u64
    }

    fn score_us(&self) -> u64 {
        self.board.modelled.score_us(self.vocabulary).round() as u64
    }

    fn target_us(&mut self, job: &VerifyJob, now_us: u64) -> u64 {
        let server = &self.server;
        let queue = if now_us == self.passed_us { 0.0 } else { server.queue_us() };
        let pass = server.pass_us + server.others_us() + server.token_us * job.tokens.len() as f64;
        let took = (queue + pass).round() as u64;
        self.passed_us = now_us + took;
        // The pass is shared by all sessions in it.
        self.server_us += pass / server.sessions;
        took
    }

    fn price(&self) -> Price {
        let time = |us: f64| LogTime::of_us(us.round() as u64);
        let server = &self.server;
        let pass = time(server.pass_us + server.others_us() + server.token_us);
        Price { pass, row: time(server.token_us), queue: time(server.queue_us()) }
    }

    fn carry(&mut self, up: bool, bytes: usize, now_us: u64) -> Passage {
        self.link.carry(up, bytes, now_us)
    }

    fn tail_us(&self) -> u64 {
        (self.link.channel().tail_ms * 1e3).round() as u64
    }
}

/// Modelled energy by phase, J; all but `idle_j` in addition to that of the idle board.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModelledEnergy {
    /// Energy of the drafter.
    pub draft_j: f64,
    /// Energy of drawing and scoring tokens.
    pub score_j: f64,
    /// Energy of sending and receiving.
    pub send_j: f64,
    /// Energy of the radio while awake without sending or receiving.
    pub wait_j: f64,
    /// Energy of the idle board.
    pub idle_j: f64,
}

impl ModelledEnergy {
    /// The energy of a session.
    pub fn of(outcome: &SessionOutcome, board: &Modelled, channel: &ModelledChannel) -> Self {
        let seconds = |us: u64| us as f64 / 1e6;
        let busy =
            |air: fn(&Passage) -> u64| seconds(outcome.carried.iter().map(|sent| air(&sent.passage)).sum());
        let (up, down) = (busy(|passage| passage.up.busy_us), busy(|passage| passage.down.busy_us));
        Self {
            draft_j: seconds(outcome.account.draft_us) * board.draft_w,
            score_j: seconds(outcome.account.score_us) * board.score_w,
            send_j: up * channel.send_w + down * channel.receive_w,
            wait_j: seconds(outcome.account.wait_us) * channel.wait_w,
            idle_j: outcome.took.as_secs_f64() * board.idle_w,
        }
    }
}

/// The prices of a device that knows its board's power by phase, W. A radio with a tail is assumed to be awake also
/// while the drafter runs; one without a tail sleeps then.
///
/// # Errors
/// The constants give an invalid price, for example those of a board without any power.
pub fn prices(board: &Modelled, channel: &ModelledChannel) -> Result<Prices, PricesError> {
    let beside_drafting_w = if channel.tail_ms > 0.0 { channel.wait_w } else { 0.0 };
    Prices::new(board.idle_w + board.draft_w + beside_drafting_w, board.idle_w + channel.wait_w)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::channel::tests::radio;
    use super::*;
    use dunlin_hlm::device::{DeviceCounters, DraftJobId, Finish};
    use dunlin_hlm::probabilities::Sampling;
    use dunlin_hlm::time::Duration;
    use dunlin_hlm::verifier::{self, Slot};
    use dunlin_sim::mqtt::MessageKind;
    use dunlin_sim::quiet::{Air, Carried, TimeAccount};

    pub(crate) const MODELLED: Modelled = Modelled {
        idle_w: 2.0,
        draft_w: 3.0,
        score_w: 1.0,
        run_us: 100.0,
        weight_bytes_per_s: 4e9,
        flops: 16e9,
        score_ns_per_entry: 500.0,
    };

    #[test]
    fn energy_by_hand() {
        let air = |busy_us| Air { ip: 0, tls: 0, busy_us };
        let sent = |kind, up, down| Carried {
            kind,
            payload: 0,
            mqtt: 0,
            passage: Passage { arrives_us: 0, up: air(up), down: air(down) },
        };
        let outcome = SessionOutcome {
            commits: Vec::new(),
            finish: Finish::Stop,
            counters: DeviceCounters::default(),
            carried: vec![
                sent(MessageKind::Draft, 300_000, 100_000),
                sent(MessageKind::Verdict, 200_000, 150_000),
            ],
            fates: Vec::new(),
            account: TimeAccount {
                draft_us: 2_000_000,
                score_us: 500_000,
                wait_us: 4_000_000,
                ..TimeAccount::default()
            },
            took: Duration(10_000_000),
        };
        // Draft: 2 s at 3 W. Score: 0.5 s at 1 W. Send: 0.5 s at 2 W and 0.25 s at 1 W. Wait: 4 s at 0.5 W. Idle: 10 s
        // at 2 W.
        let expected = ModelledEnergy { draft_j: 6.0, score_j: 0.5, send_j: 1.25, wait_j: 2.0, idle_j: 20.0 };
        assert_eq!(ModelledEnergy::of(&outcome, &MODELLED, &radio()), expected);
    }

    #[test]
    fn prices_by_hand() {
        // 2 W idle, 3 W more for the drafter, and 0.5 W more for a listening radio.
        let tail = ModelledChannel { tail_ms: 100.0, ..radio() };
        assert_eq!(prices(&MODELLED, &tail), Prices::new(5.5, 2.5));
        assert_eq!(prices(&MODELLED, &radio()), Prices::new(5.0, 2.5));
        let nothing = Modelled { idle_w: 0.0, draft_w: 0.0, ..MODELLED };
        assert_eq!(prices(&nothing, &radio()), Err(PricesError::Draft(0.0)));
    }

    #[test]
    fn times_by_hand() {
        let board =
            ModelledBoard { name: "b".into(), context_tokens_max: None, radio: None, modelled: MODELLED };
        let channel = ModelledChannel { tail_ms: 1.5, ..radio() };
        let mut clock = ModelledClock {
            board: &board,
            size: Size { drafter_parameters: 8e6, drafter_bits: 4.0 },
            vocabulary: 2048,
            server: Server { pass_us: 1000.0, token_us: 10.0, sessions: 1.0, watts: None },
            link: ModelledLink::new(&channel, 1),
            passed_us: 0,
            server_us: 0.0,
        };
        assert_eq!(clock.draft_us(&DraftJob { id: DraftJobId(0), keep: 9, tokens: vec![1] }), 1_100);
        assert_eq!(clock.score_us(), 1_024);
        let job = VerifyJob {
            device: "d".parse().unwrap(),
            id: verifier::VerifyJobId(0),
            slot: Slot(0),
            keep: 9,
            tokens: vec![1; 5],
            rows: 5,
            sampling: Sampling::greedy(),
            seed: 0,
        };
        assert_eq!(clock.target_us(&job, 500), 1_050);
        // 31 further sessions add 4 tokens each; a frame that comes in the middle waits for half a pass.
        clock.server.sessions = 32.0;
        assert_eq!(clock.target_us(&job, 9_000), 1_120 + 1_050 + 1_240);
        assert_eq!(clock.target_us(&job, clock.passed_us), 1_050 + 1_240, "the next pass follows at once");
        assert_eq!(clock.price().pass, LogTime::of_us(2_250));
        assert_eq!(clock.tail_us(), 1_500);
    }
}
