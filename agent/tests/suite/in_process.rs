//! The loop with toy models and a real broker.

use crate::presence::link;
use crate::proxy::Proxy;
use crate::recorder::Recorder;
use crate::verifier::{self, Alone, Plan};
use dunlin_agent::drafter::Worker;
use dunlin_agent::notice::Notice;
use dunlin_agent::run::{Agent, AgentOutcome, Control, Say, SessionSettings, User};
use dunlin_agent::turn::Ending;
use dunlin_hlm::device::{DeviceConfig, Finish, Offline, Origin, ReplyLimits};
use dunlin_hlm::policy::{PolicyTable, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::Duration;
use dunlin_lm::{Draft, Rows, Toy, Vocabulary as ModelVocabulary};
use dunlin_mosquitto::{Mosquitto, OPEN, free_port};
use dunlin_wire::Vocabulary;
use std::sync::mpsc::{Receiver, channel};
use tokio::sync::mpsc;

const SEED: u64 = 7;
const TOKENS: usize = 60;

fn toy() -> Toy {
    Toy::new(11, 300, 0.8)
}

fn sampling() -> Sampling {
    Sampling::new(0.9, 0.95, 0).unwrap()
}

fn prompt() -> Vec<u32> {
    vec![1, 2, 3, 4, 5]
}

struct Setup {
    port: u16,
    drafter: Box<dyn Draft + Send>,
    offline: Offline,
    give_up_after: Duration,
    says: Vec<Say>,
    reseeds: bool,
    context: usize,
    printable: u32,
    control: (mpsc::Sender<Control>, mpsc::Receiver<Control>),
}

impl Setup {
    fn new(port: u16) -> Self {
        Self {
            port,
            drafter: Box::new(toy().drafter()),
            offline: Offline::Wait,
            give_up_after: Duration::from_millis(30_000),
            says: vec![say(prompt(), TOKENS, false)],
            reseeds: false,
            context: 4096,
            printable: u32::MAX,
            control: mpsc::channel(1),
        }
    }

    /// Runs an agent until `out` ends it.
    fn run(self, out: &mut Recorder<'_>) -> AgentOutcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let drafter = self.drafter;
            let worker = Worker::start(move || Ok((drafter as Box<dyn Draft>).into())).await.unwrap();
            let vocabulary = worker.described().vocabulary;
            let device = DeviceConfig {
                vocabulary: Vocabulary { size: vocabulary.size, fingerprint: vocabulary.fingerprint },
                prefixes: Default::default(),
                policy: Rules::new(&PolicyTable::default()).unwrap(),
                offline: self.offline,
                give_up_after: self.give_up_after,
                context_tokens_max: self.context,
                accept_model_change: false,
            };
            let seat = SessionSettings {
                printable: self.printable,
                device,
                sampling: sampling(),
                seed: Some(SEED),
                ends_on_refusal: true,
                draft_time: None,
            };
            let link = link(self.port);
            let (prompts, says) = mpsc::channel(8);
            self.says.into_iter().for_each(|say| prompts.try_send(say).unwrap());
            let (control, controls) = self.control;
            let mut user = User { prompts: says, controls };
            let agent = Agent::new(seat, worker, link).unwrap();
            let agent = if self.reseeds { agent.reseeding() } else { agent };
            let farewell = agent.run(&mut user, out).await.unwrap();
            drop((prompts, control));
            farewell
        })
    }
}

fn say(tokens: Vec<u32>, tokens_max: usize, new_session: bool) -> Say {
    Say { tokens, first: None, reply: ReplyLimits { tokens_max, stop: Vec::new() }, new_session }
}

fn alone() -> Alone {
    Alone::new(Box::new(toy().target()), sampling(), SEED)
}

fn tokens(out: &Recorder<'_>) -> Vec<u32> {
    out.commits.iter().map(|commit| commit.token).collect()
}

#[test]
fn the_text_is_the_targets_own() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(1);
    Setup::new(broker.port).run(&mut out);
    assert_eq!(tokens(&out), alone().reply(&prompt(), TOKENS, &[]));
    let turn = &out.turns[0];
    assert_eq!(turn.tokens, tokens(&out));
    assert_eq!(turn.ending, Ending::Machine(Finish::TokensMax));
    assert!(turn.counters.accepted > 0 && turn.counters.rounds < TOKENS as u64);
    let phases = turn.phases;
    let sum: u64 =
        [phases.draft, phases.score, phases.send, phases.wait, phases.idle].iter().map(|p| p.0).sum();
    assert!(sum.abs_diff(turn.took.0) < 1000, "{phases:?} are not the parts of {:?}", turn.took);
}

#[test]
fn a_session_goes_on_over_turns_and_a_new_one_begins() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(3);
    let mut setup = Setup::new(broker.port);
    setup.says = vec![say(prompt(), 20, false), say(vec![9, 8], 20, false), say(prompt(), 20, true)];
    setup.run(&mut out);
    let mut target = alone();
    let first = target.reply(&prompt(), 20, &[]);
    assert_eq!(out.turns[0].tokens, first);
    assert_eq!(out.turns[1].tokens, target.reply(&[9, 8], 20, &[]));
    assert_eq!(out.turns[2].tokens, first);
    assert_eq!(out.turns[1].counters.opens, 0, "the lease is kept between turns");
    assert_eq!(out.turns[2].counters.opens, 1);
}

/// A text with a hole in it must not look complete.
#[test]
fn a_token_that_the_tokenizer_lacks_ends_the_reply_before_it() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let reply = alone().reply(&prompt(), TOKENS, &[]);
    let largest = *reply.iter().max().unwrap();
    let at = reply.iter().position(|token| *token == largest).unwrap();
    let mut out = Recorder::new(1);
    let mut setup = Setup::new(broker.port);
    setup.printable = largest;
    setup.run(&mut out);
    assert_eq!(out.turns[0].ending, Ending::UnknownToken(largest));
    assert_eq!((tokens(&out), &out.turns[0].tokens), (reply[..at].to_vec(), &reply[..at].to_vec()));
}

/// A long chat goes on in a new session once the text is full. A prompt that never fits changes nothing.
#[test]
fn a_full_session_gives_way_to_a_new_one() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(2);
    out.rejected = Some(Vec::new());
    let mut setup = Setup::new(broker.port);
    setup.context = 32;
    let again = |first: Vec<u32>| Say { first: Some(first), ..say(vec![9; 20], 12, false) };
    setup.says = vec![say(prompt(), 12, false), again(vec![1; 32]), again(prompt())];
    setup.run(&mut out);
    let first = alone().reply(&prompt(), 12, &[]);
    assert_eq!(out.turns.iter().map(|turn| &turn.tokens).collect::<Vec<_>>(), [&first, &first]);
    assert_eq!(out.rejected.as_ref().map(Vec::len), Some(1));
    assert_eq!(out.notices.iter().filter(|notice| **notice == Notice::NewSession).count(), 1);
    assert_eq!(out.turns[1].counters.opens, 1, "counted from the new session's beginning");
}

#[test]
fn sessions_may_have_seeds_of_their_own() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(2);
    let mut setup = Setup::new(broker.port);
    setup.says = vec![say(prompt(), 20, true), say(prompt(), 20, true)];
    setup.reseeds = true;
    setup.run(&mut out);
    for (turn, seed) in out.turns.iter().zip([SEED, SEED + 1]) {
        let mut target = Alone::new(Box::new(toy().target()), sampling(), seed);
        assert_eq!((turn.seed, &turn.tokens), (seed, &target.reply(&prompt(), 20, &[])));
    }
    assert_ne!(out.turns[0].tokens, out.turns[1].tokens);
}

#[test]
fn a_judged_token_is_an_accepted_one_or_the_targets_correction() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(1);
    Setup::new(broker.port).run(&mut out);
    for judged in &out.judged {
        // The last verdict may judge tokens for which the reply had no room.
        let commit = out.commits.iter().find(|commit| commit.position == judged.position);
        let expected = if judged.rejected { Origin::Target } else { Origin::Accepted };
        assert!(commit.is_none_or(|commit| commit.origin == expected), "{judged:?} became {commit:?}");
    }
    let accepted = out.commits.iter().filter(|commit| commit.origin == Origin::Accepted).count();
    let known = out.judged.iter().filter(|judged| !judged.rejected).count();
    assert!(known >= accepted && known < out.judged.len(), "{known} of {}", out.judged.len());
}

#[test]
fn a_token_that_ended_a_reply_is_not_said_again_to_begin_a_turn() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let stop = alone().reply(&prompt(), 20, &[])[3];
    let turn = |tokens| Say {
        tokens,
        first: None,
        reply: ReplyLimits { tokens_max: 20, stop: vec![stop] },
        new_session: false,
    };
    let mut out = Recorder::new(2);
    let mut setup = Setup::new(broker.port);
    setup.says = vec![turn(prompt()), turn(vec![stop, 9])];
    setup.run(&mut out);
    let mut target = alone();
    assert_eq!(out.turns[0].tokens, target.reply(&prompt(), 20, &[stop]));
    assert_eq!(out.turns[0].tokens.last(), Some(&stop));
    assert_eq!(out.turns[1].tokens, target.reply(&[9], 20, &[stop]));
}

#[test]
fn a_broker_killed_in_the_middle_changes_nothing() {
    let mut broker = Mosquitto::with(OPEN);
    let port = broker.port;
    let _verifier = verifier::start(port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(1);
    let (mut restarts, mut due) = (0, 20);
    out.at_commit = Box::new(|count| {
        if *count >= due {
            broker.kill();
            broker.start().unwrap();
            restarts += 1;
            due += 20;
        }
    });
    Setup::new(port).run(&mut out);
    let (written, turn) = (tokens(&out), out.turns[0].clone());
    drop(out);
    assert_eq!(written, alone().reply(&prompt(), TOKENS, &[]));
    assert_eq!(turn.counters.unverified, 0);
    assert!(restarts >= 2);
}

#[test]
fn bytes_are_those_on_the_wire() {
    let broker = Mosquitto::with(OPEN);
    let proxy = Proxy::start(broker.port);
    let _verifier = verifier::start(broker.port, Box::new(toy().target()), Plan::default());
    let mut out = Recorder::new(1);
    let farewell = Setup::new(proxy.port).run(&mut out);
    let counted = proxy.counted();
    assert_eq!(farewell.traffic, counted);
    let up = farewell.counters.payload_bytes_up;
    assert!(counted.publish_up > up && counted.publish_down > farewell.counters.payload_bytes_down);
    // Fixed header 2, topic 2, alias 4: a frame with an alias adds 8 bytes to its payload.
    let frames = farewell.counters.frames_up;
    assert!(counted.publish_up < up + 8 * frames + 250, "{counted:?} for {frames} frames of {up} bytes");
}

#[test]
fn bytes_that_are_no_message_are_counted_and_harmless() {
    let broker = Mosquitto::with(OPEN);
    let _verifier =
        verifier::start(broker.port, Box::new(toy().target()), Plan { garbage: true, ..Plan::default() });
    let mut out = Recorder::new(1);
    Setup::new(broker.port).run(&mut out);
    assert_eq!(tokens(&out), alone().reply(&prompt(), TOKENS, &[]));
    let counters = out.turns[0].counters;
    assert!(counters.malformed >= 3 * counters.rounds, "{counters:?}");
    assert!(out.notices.iter().any(|notice| matches!(notice, Notice::Malformed(_))));
}

#[test]
fn another_vocabulary_is_refused_by_name() {
    let broker = Mosquitto::with(OPEN);
    let other = Toy::new(11, 301, 0.8);
    let _verifier = verifier::start(broker.port, Box::new(other.target()), Plan::default());
    let mut out = Recorder::new(1);
    Setup::new(broker.port).run(&mut out);
    let described = |toy: Toy| {
        let ModelVocabulary { size, fingerprint } = toy.drafter().vocabulary();
        Vocabulary { size, fingerprint }
    };
    let problem = out.turns[0].ending.problem(&described(toy())).unwrap();
    for vocabulary in [described(toy()), described(other)] {
        let text = dunlin_agent::turn::described(&vocabulary);
        assert!(problem.contains(&text), "{problem} does not name {text}");
    }
    assert!(out.commits.is_empty());
}

/// A drafter that stops after `steps` runs until its gate opens.
struct Gated {
    inner: dunlin_lm::ToyDrafter,
    steps: usize,
    gate: Receiver<()>,
}

impl Draft for Gated {
    fn vocabulary(&self) -> ModelVocabulary {
        self.inner.vocabulary()
    }

    fn context_max(&self) -> usize {
        self.inner.context_max()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn truncate(&mut self, len: usize) {
        self.inner.truncate(len);
    }

    fn extend(&mut self, tokens: &[u32]) -> dunlin_lm::Result<Rows> {
        if self.steps == 0 {
            // Ignore the error: it means that the test has ended.
            let _ = self.gate.recv();
            self.steps = usize::MAX;
        }
        self.steps -= 1;
        self.inner.extend(tokens)
    }
}

#[test]
fn trust_goes_on_alone_and_comes_back() {
    let broker = Mosquitto::with(OPEN);
    let port = broker.port;
    let (open, gate) = channel();
    let mut verifiers = Vec::new();
    let mut out = Recorder::new(1);
    out.at_notice = Box::new(move |notice| match notice {
        Notice::GaveUp => {
            let target = Box::new(toy().target());
            verifiers.push(verifier::start(port, target, Plan::default()));
        }
        Notice::Returned => open.send(()).unwrap(),
        _ => {}
    });
    let mut setup = Setup::new(port);
    setup.offline = Offline::Trust;
    setup.give_up_after = Duration::from_millis(200);
    setup.drafter = Box::new(Gated { inner: toy().drafter(), steps: 30, gate });
    setup.run(&mut out);
    let unverified = out.commits.iter().take_while(|commit| commit.origin == Origin::Unverified).count();
    assert!((1..TOKENS).contains(&unverified), "{unverified} tokens unverified");
    assert_eq!(out.turns[0].counters.unverified, unverified as u64);
    let mut target = alone();
    target.text = prompt();
    target.text.extend(tokens(&out)[..unverified].iter());
    assert_eq!(tokens(&out)[unverified..], target.reply(&[], TOKENS - unverified, &[]));
}

#[test]
fn time_is_up_without_a_broker() {
    let setup = Setup::new(free_port());
    let control = setup.control.0.clone();
    let mut out = Recorder::new(1);
    out.at_notice = Box::new(move |notice| {
        assert!(matches!(notice, Notice::NoBroker(Some(loss)) if loss.reason.contains("nothing listens")));
        control.try_send(Control::TimedOut).unwrap();
    });
    setup.run(&mut out);
    assert_eq!(out.notices.len(), 1, "it says once what it waits for");
    let ending = &out.turns[0].ending;
    assert!(matches!(ending, Ending::TimedOut(Some(Notice::NoBroker(Some(_))))), "{ending:?}");
}

#[test]
fn a_broker_that_refuses_ends_the_reply() {
    let broker = Mosquitto::with("allow_anonymous false\n");
    let mut out = Recorder::new(1);
    Setup::new(broker.port).run(&mut out);
    let Ending::BrokerRefused(reason) = &out.turns[0].ending else { panic!("{:?}", out.turns[0].ending) };
    assert!(reason.contains("not authorised") && reason.contains("no user name"), "{reason}");
}
