//! The machine's split of a round's time, compared with a clock that counts on its own.

mod bench;
mod machines;

use bench::{Bench, PROMPT, STOP, Sent, config, lease, reply};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{DeviceConfig, DeviceEvent, Learned};
use dunlin_hlm::policy::{PolicyTable, Rules};
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::Duration;
use dunlin_wire::Lease;
use machines::sure;
use proptest::prelude::*;

const CONTEXT: usize = 4096;
const GIVE_UP_MS: u64 = 2_000;

/// One event of a device; an event that is impossible at the moment is skipped.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes.
    Wait(u64),
    /// The drafter returns a row.
    Draft(TokenId),
    /// The drafter fails.
    Fail,
    /// The device's last request is answered: with a lease, or with a verdict that accepts so many drafts. The flag
    /// tells if it confirms the next draft too.
    Answer(u8, bool),
    /// The user cancels the reply.
    Cancel,
    /// The user sends a prompt.
    Say,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..700).prop_map(Step::Wait),
        10 => (4 as TokenId..9).prop_map(Step::Draft),
        1 => Just(Step::Draft(STOP)),
        1 => Just(Step::Fail),
        8 => (0u8..5, any::<bool>()).prop_map(|(accepted, foreseen)| Step::Answer(accepted, foreseen)),
        1 => Just(Step::Cancel),
        4 => Just(Step::Say),
    ]
}

/// The device's unanswered request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Nothing,
    Lease(u8),
    Verdict,
}

/// A device and, for comparison, sums over whole rounds in seconds.
struct Play {
    bench: Bench,
    asked: Asked,
    saying: bool,
    told: bool,
    /// Time since the reply's last verdict: in total, and with a run of the drafter under way.
    round: Option<(Duration, Duration)>,
    tokens: f64,
    seconds: f64,
    drafting: f64,
    rounds: usize,
}

impl Play {
    fn new() -> Self {
        let give_up_after = Duration::from_millis(GIVE_UP_MS);
        let device = DeviceConfig { give_up_after, context_tokens_max: CONTEXT, ..config(4) };
        Self {
            bench: Bench::new(device),
            asked: Asked::Nothing,
            saying: false,
            told: false,
            round: None,
            tokens: 2.0,
            seconds: 0.5,
            drafting: 0.1,
            rounds: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.wait(Duration::from_millis(ms)),
            Step::Draft(token) if self.runs() => self.bench.give(&sure(token), None),
            Step::Fail if self.runs() => {
                let job = self.bench.job.take().expect("a run of the drafter");
                self.bench.device.handle_draft_failed(job.id, self.bench.now);
            }
            Step::Answer(accepted, foreseen) => self.answer(accepted, foreseen),
            Step::Cancel => self.bench.device.cancel(),
            Step::Say if !self.saying => {
                self.bench.say(&PROMPT, reply(12));
                (self.saying, self.round) = (true, None);
            }
            _ => {}
        }
        self.settle();
    }

    fn runs(&mut self) -> bool {
        self.bench.drafter().is_some()
    }

    fn wait(&mut self, span: Duration) {
        let runs = self.runs();
        if let Some((took, drafting)) = &mut self.round {
            *took = *took + span;
            *drafting = if runs { *drafting + span } else { *drafting };
        }
        self.bench.now = self.bench.now + span;
        self.bench.device.handle_timeout(self.bench.now);
    }

    fn answer(&mut self, accepted: u8, foreseen: bool) {
        match self.asked {
            Asked::Nothing => {}
            Asked::Lease(epoch) => {
                let text = self.bench.device.text().to_vec();
                let context_tokens_max = CONTEXT as u32;
                self.bench.lease(&Lease { context_tokens_max, ..lease(epoch, &text) });
            }
            Asked::Verdict => self.verdict(accepted, foreseen),
        }
        self.asked = Asked::Nothing;
    }

    fn verdict(&mut self, accepted: u8, foreseen: bool) {
        let Ok(dunlin_wire::Up::Draft(frame)) = dunlin_wire::Up::decode(&self.bench.frame) else {
            panic!("no frame was sent")
        };
        let accepted = usize::from(accepted).min(frame.drafts.len());
        let guess = self.bench.provisional().get(accepted).copied().filter(|_| foreseen);
        let before = self.bench.device.text().len();
        let verdict = dunlin_wire::Verdict {
            epoch: frame.epoch,
            ..self.bench.verdict_of(accepted as u8, guess.unwrap_or(9))
        };
        self.bench.down(&dunlin_wire::Down::Verdict(verdict));
        let committed = self.bench.device.text().len() - before;
        assert!(committed > 0, "the verdict counts");
        if let Some((took, drafting)) = self.round.replace(Default::default()).filter(|_| !self.told) {
            self.observe(committed, took, drafting);
        }
        self.told = false;
    }

    fn observe(&mut self, committed: usize, took: Duration, drafting: Duration) {
        const KEEP: f64 = 1.0 - 1.0 / 32.0;
        self.tokens = KEEP * self.tokens + committed as f64;
        self.seconds = KEEP * self.seconds + Duration(took.0.max(1)).as_secs_f64();
        self.drafting = KEEP * self.drafting + drafting.as_secs_f64();
        self.rounds += 1;
    }

    fn settle(&mut self) {
        for event in self.bench.happened() {
            match event {
                DeviceEvent::Waiting => self.told = true,
                DeviceEvent::Finished(_) => {
                    (self.saying, self.told, self.asked) = (false, false, Asked::Nothing)
                }
                _ => {}
            }
        }
        for sent in self.bench.sent() {
            match sent {
                Sent::Open(open) => self.asked = Asked::Lease(open.epoch),
                Sent::Frame(_) => self.asked = Asked::Verdict,
                _ => {}
            }
        }
        // The lease was given up: no answer to the frame counts any more.
        if self.asked == Asked::Verdict && !self.bench.device.awaits() {
            self.asked = Asked::Nothing;
        }
    }

    /// Compares the machine's sums bit for bit.
    fn check(&self) {
        let mut stop = self.bench.device.learned().stop;
        assert_eq!(stop.rate(), self.tokens / self.seconds, "whole rounds, in seconds");
        assert_eq!(stop.draft_cost() * stop.rate() <= 0.5, stop.draft_on(0.5));
        stop.set_prices(Prices::new(1.0, 0.0).expect("prices"));
        assert_eq!(stop.rate(), self.tokens / self.drafting.max(1e-6), "their time with the drafter");
    }
}

proptest! {
    #[test]
    fn a_round_divides_into_drafting_and_the_rest_and_sums_to_what_it_was(
        steps in prop::collection::vec(any_step(), 1..200),
    ) {
        let mut play = Play::new();
        play.step(Step::Say);
        for step in steps {
            play.step(step);
            play.check();
        }
    }
}

#[test]
fn the_property_reaches_rounds() {
    let mut play = Play::new();
    let round = [Step::Draft(4), Step::Wait(30), Step::Draft(5), Step::Answer(4, true), Step::Say];
    (0..200).for_each(|i| play.step(round[i % round.len()]));
    assert!(play.rounds > 10, "{}", play.rounds);
    play.check();
}

#[test]
fn prices_go_with_what_was_learned() {
    let mut bench = Bench::new(config(2));
    assert_eq!(bench.device.learned().stop.prices(), Prices::SECONDS);
    let prices = Prices::new(5.4, 2.3).expect("prices");
    bench.device.set_prices(prices);
    let next = Bench::after(config(2), bench.device.learned());
    assert_eq!(next.device.learned().stop.prices(), prices);
    assert_eq!(Learned::default().stop.prices(), Prices::SECONDS, "nobody else's");
}

#[test]
fn what_a_second_is_worth_is_added_to_both_prices() {
    let table = PolicyTable { second_joules: Some(1.5), ..PolicyTable::default() };
    let policy = Rules::new(&table).expect("valid settings");
    let mut bench = Bench::new(DeviceConfig { policy, ..config(2) });
    bench.device.set_prices(Prices::new(5.0, 2.0).expect("prices"));
    assert_eq!(bench.device.prices(), Prices::new(6.5, 3.5).expect("prices"));
}

#[test]
fn prices_set_while_a_frame_is_under_way_decide_the_next_draft_ahead() {
    let mut bench = Bench::under_way(config(2), &[4, 5], &[]);
    bench.device.set_prices(Prices::new(3.0, 0.0).expect("prices"));
    bench.draft(6);
    assert_eq!(bench.drafter(), None, "drafting ahead never pays where waiting is free");
    bench.device.set_prices(Prices::SECONDS);
    bench.device.handle_timeout(bench.now);
    assert!(bench.drafter().is_some(), "in seconds it pays");
    assert_eq!(bench.device.learned().stop.prices(), Prices::SECONDS);
}
