//! Text that a verifier writes on credit, rule by rule for both machines, and a text that changes hands.

mod bench;
mod desk;
mod machines;

use bench::{Bench, EPOCH, PROMPT, Sent, committed, config, leased, reply};
use desk::{Desk, closed, frame, open, resync, rows};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{DeviceConfig, DeviceEvent, Finish, Learned, Origin};
use dunlin_hlm::economy::{Conditions, Way};
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{VerifierConfig, VerifierEvent, VerifyJob};
use dunlin_wire::{
    CloseReason, Context, Continuation, Credit, Down, DraftFrame, Lease, LogTime, Open, Price, Promise,
    RefusalReason, token_bits,
};
use machines::{SIZE, digest};
use std::cmp::Ordering;

/// A device whose policy is `stream`, with credits of 8 tokens.
fn streaming() -> DeviceConfig {
    let table = PolicyTable { credit_tokens_max: Some(8), ..Policy::Stream.table() };
    DeviceConfig { policy: Rules::new(&table).expect("valid settings"), ..config(2) }
}

/// Frames of two drafts.
fn drafting_two() -> PolicyTable {
    PolicyTable { draft_tokens_max: Some(2), stop_rule: Some(false), ..PolicyTable::default() }
}

fn credit_lease(epoch: u8) -> Lease {
    Lease { credit_tokens_max: 64, ..bench::lease(epoch, &[]) }
}

/// A streaming device that has a lease and sent its first frame.
fn flowing(tokens_max: usize) -> (Bench, DraftFrame) {
    let mut bench = Bench::new(streaming());
    bench.say(&PROMPT, reply(tokens_max));
    bench.open_sent();
    bench.lease(&credit_lease(EPOCH));
    bench.happened();
    let sent = bench.sent();
    let [Sent::Context(_), Sent::Frame(frame)] = sent.as_slice() else { panic!("{sent:?}") };
    let frame = frame.as_ref().clone();
    (bench, frame)
}

fn text(epoch: u8, round: u32, before: &[TokenId], tokens: &[TokenId]) -> Down {
    Down::Continuation(Continuation {
        session: 7,
        epoch,
        round,
        base: before.len() as u32,
        prefix: digest(before).short(),
        pass: LogTime(100),
        queue: LogTime(1),
        token_bits: token_bits(SIZE),
        tokens: tokens.iter().copied().collect(),
    })
}

impl Bench {
    fn text(&mut self, round: u32, before: &[TokenId], tokens: &[TokenId]) {
        self.down(&text(EPOCH, round, before, tokens));
    }
}

#[test]
fn a_stream_is_one_request_and_its_tokens_are_committed_as_they_come() {
    let (mut bench, frame) = flowing(40);
    assert_eq!((frame.base, frame.drafts.len()), (3, 0));
    assert_eq!(frame.credit, Some(Credit { until: 11, again: false, stop: [31].into_iter().collect() }));
    bench.text(1, &PROMPT, &[4, 5]);
    bench.text(1, &[1, 2, 3, 4, 5], &[6]);
    let commits = [4, 5, 6].into_iter().zip(3..).map(|(token, at)| committed(at, token, Origin::Target));
    assert_eq!(bench.happened(), commits.collect::<Vec<_>>());
    assert_eq!(
        (bench.drafter(), bench.sent()),
        (None, vec![]),
        "nothing is drafted, and half the credit is left"
    );
    assert_eq!((bench.device.counters().streamed, bench.device.counters().stale), (3, 0));
}

#[test]
fn credit_is_renewed_when_half_of_it_is_used() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4, 5, 6, 7]);
    let frame = bench.frame_sent();
    assert_eq!((frame.round, frame.base), (2, 7));
    assert_eq!(frame.credit.map(|credit| (credit.until, credit.again)), Some((15, false)));
    // Text of the round before still counts; the renewal is acknowledged by the first of its own round.
    bench.text(1, &[1, 2, 3, 4, 5, 6, 7], &[8]);
    assert_eq!(bench.device.counters().stale, 0);
    let unanswered = bench.until_timer();
    bench.text(2, &[1, 2, 3, 4, 5, 6, 7, 8], &[9]);
    assert_eq!(bench.device.text().len(), 9);
    assert!(bench.device.awaits() && unanswered > 0);
}

#[test]
fn a_reply_asks_for_no_more_than_its_tokens() {
    let (mut bench, frame) = flowing(5);
    assert_eq!(frame.credit.map(|credit| credit.until), Some(8));
    bench.text(1, &PROMPT, &[4, 5, 6]);
    assert_eq!(bench.sent(), [], "nothing is left to ask for");
    bench.text(1, &[1, 2, 3, 4, 5, 6], &[7, 8]);
    assert_eq!(bench.happened().last(), Some(&DeviceEvent::Finished(Finish::TokensMax)));
    assert_eq!((bench.sent(), bench.device.awaits()), (vec![], false), "the verifier knows the end, too");
}

#[test]
fn nothing_is_committed_past_a_stop_token() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4, 31, 5, 6]);
    assert_eq!(bench.happened().last(), Some(&DeviceEvent::Finished(Finish::Stop)));
    assert_eq!(bench.device.text(), [1, 2, 3, 4, 31]);
    assert_eq!(bench.sent(), [], "the stop token was listed, so the verifier stopped by itself");
}

#[test]
fn a_cancelled_stream_ends_its_credit_once() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4]);
    bench.device.cancel();
    let frame = bench.frame_sent();
    let credit = frame.credit.expect("a credit");
    assert_eq!((frame.round, frame.base, credit.until), (2, 4, 4));
    assert_eq!(bench.sent(), []);
    bench.text(1, &[1, 2, 3, 4], &[5]);
    assert_eq!((bench.device.text().len(), bench.device.counters().stale), (4, 1));
    // The next reply has a round of its own, and text of the one before says nothing to it.
    bench.happened();
    bench.say(&[9], reply(40));
    let sent = bench.sent();
    let [Sent::Context(_), Sent::Frame(frame)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((frame.round, frame.base), (3, 5));
    bench.text(1, &[1, 2, 3, 4], &[9, 6]);
    bench.text(2, &[1, 2, 3, 4, 9], &[6]);
    assert_eq!((bench.device.text().len(), bench.device.counters().stale), (5, 3));
    bench.text(3, &[1, 2, 3, 4, 9], &[6]);
    assert_eq!(bench.device.text().len(), 6);
}

#[test]
fn a_gap_is_asked_for_once_and_late_text_shows_no_other() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4]);
    bench.text(1, &[1, 2, 3, 4, 5], &[6]); // 5 is lost
    let frame = bench.frame_sent();
    assert_eq!((frame.round, frame.base), (2, 4));
    assert!(frame.credit.expect("a credit").again);
    bench.text(1, &[1, 2, 3, 4, 5, 6], &[7]);
    assert_eq!(bench.sent(), [], "it is asked for already");
    bench.text(2, &[1, 2, 3, 4], &[5, 6]);
    bench.text(1, &[1, 2, 3, 4, 5, 6, 7], &[8]); // sent before the request arrived
    assert_eq!((bench.sent(), bench.device.text()), (vec![], &[1, 2, 3, 4, 5, 6][..]));
    bench.text(2, &[1, 2, 3, 4, 5, 6], &[7]);
    assert_eq!(bench.device.text().len(), 7);
}

#[test]
fn known_tokens_are_not_committed_twice() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4, 5]);
    bench.text(1, &PROMPT, &[4, 5]);
    bench.text(1, &[1, 2, 3, 4], &[5, 6]);
    assert_eq!((bench.device.text(), bench.device.counters().streamed), (&[1, 2, 3, 4, 5, 6][..], 3));
}

/// A target of the same bits can't have written both, so the verifier's text is forgotten; nothing committed changes.
#[test]
fn a_contradiction_changes_nothing_and_opens_the_session_again() {
    for contradicting in [text(EPOCH, 1, &PROMPT, &[4, 9]), text(EPOCH, 1, &[1, 2, 8], &[4, 5])] {
        let (mut bench, _) = flowing(40);
        bench.text(1, &PROMPT, &[4, 5]);
        bench.happened();
        bench.down(&contradicting);
        assert_eq!(bench.happened(), [DeviceEvent::Contradicted { position: 3 }]);
        let open = bench.open_sent();
        assert_eq!((open.epoch, open.length), (0, 0));
        assert_eq!((bench.device.text(), bench.device.counters().contradicted), (&[1, 2, 3, 4, 5][..], 1));
    }
}

#[test]
fn a_target_without_exact_bits_may_contradict_itself() {
    let mut bench = Bench::new(streaming());
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.lease(&Lease { promise: Promise::Distribution, ..credit_lease(EPOCH) });
    bench.sent();
    bench.happened();
    bench.text(1, &PROMPT, &[4, 5]);
    bench.text(1, &PROMPT, &[4, 9]);
    assert_eq!((bench.sent(), bench.device.counters().contradicted), (vec![], 1));
    assert_eq!(bench.device.text(), [1, 2, 3, 4, 5]);
}

#[test]
fn text_of_another_epoch_or_of_a_round_to_come_is_stale() {
    let (mut bench, _) = flowing(40);
    bench.happened();
    bench.down(&text(EPOCH - 1, 1, &PROMPT, &[4]));
    bench.text(2, &PROMPT, &[4]);
    bench.down(&text(EPOCH, 1, &PROMPT, &[SIZE]));
    assert_eq!((bench.happened(), bench.device.counters().stale), (vec![], 3));
}

#[test]
fn a_text_that_stops_flowing_is_asked_for_and_then_the_lease_is_given_up() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4]);
    bench.ring();
    let frame = bench.frame_sent();
    assert_eq!((frame.round, frame.base, frame.send), (2, 4, 1));
    assert!(frame.credit.expect("a credit").again);
    bench.ring();
    assert_eq!(bench.frame_sent().send, 2);
    bench.ring();
    assert_eq!(bench.open_sent().length, 4, "the third silence in a row");
}

#[test]
fn a_link_that_came_back_asks_for_the_text_at_once() {
    let (mut bench, _) = flowing(40);
    bench.text(1, &PROMPT, &[4]);
    bench.device.handle_link(false, bench.now);
    assert_eq!(bench.until_timer(), bench::GIVE_UP_MS, "only the silence has a limit");
    bench.device.handle_link(true, bench.now);
    bench.ring();
    let frame = bench.frame_sent();
    assert!(frame.base == 4 && frame.credit.expect("a credit").again);
}

#[test]
fn a_verifier_without_credit_is_asked_token_by_token_and_the_user_is_told() {
    let mut bench = Bench::new(streaming());
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.lease(&bench::lease(EPOCH, &[]));
    assert_eq!(bench.happened(), [leased(), DeviceEvent::NoCredit]);
    let sent = bench.sent();
    let [Sent::Context(_), Sent::Frame(frame)] = sent.as_slice() else { panic!("{sent:?}") };
    assert!(frame.is_plain() && frame.drafts.is_empty());
}

/// Token by token a slow link costs a round trip each; drafting shares it.
#[test]
fn auto_drafts_where_no_text_can_flow() {
    let table = PolicyTable { stop_rule: Some(false), draft_tokens_max: Some(2), ..Policy::Auto.table() };
    let config = DeviceConfig { policy: Rules::new(&table).expect("valid settings"), ..config(2) };
    for credit_tokens_max in [0, 1, 64] {
        let mut bench = Bench::new(config.clone());
        bench.say(&PROMPT, reply(40));
        bench.open_sent();
        bench.wait(3_000);
        bench.lease(&Lease { credit_tokens_max, ..bench::lease(EPOCH, &[]) });
        let sent = bench.sent();
        let flows = matches!(sent.as_slice(), [Sent::Context(_), Sent::Frame(_)]);
        assert_eq!(
            (flows, bench.drafter().is_some()),
            (credit_tokens_max > 1, credit_tokens_max < 2),
            "{sent:?}"
        );
    }
}

/// A continuation that says nothing of the target's times.
fn untimed(before: &[TokenId], tokens: &[TokenId]) -> Down {
    let Down::Continuation(text) = text(EPOCH, 1, before, tokens) else { unreachable!() };
    Down::Continuation(Continuation { pass: LogTime::default(), queue: LogTime::default(), ..text })
}

/// 20 ms a draft, in seconds.
const CONDITIONS: Conditions = Conditions {
    prices: Prices::SECONDS,
    draft: 0.02,
    acceptance: 0.7,
    drafts_max: 16,
    ahead: false,
    debt: 0,
    left: 64,
    credit: 64,
};

/// Without a measured round the cost is the formula's: 20 ms a draft, and the round trip.
fn drafting_cost(bench: &Bench) -> f64 {
    bench.device.learned().economy.cost(Way::Draft, &CONDITIONS)
}

/// The first text of a reply waits for the prompt to be read, which is no part of the round trip. If it comes sooner than
/// a round trip took before, it was.
#[test]
fn a_prefill_makes_no_link_slow() {
    for (ms, expected) in [(2_000, Ordering::Equal), (20, Ordering::Less)] {
        let mut bench = Bench::new(streaming());
        bench.say(&PROMPT, reply(40));
        bench.open_sent();
        bench.wait(400);
        bench.lease(&credit_lease(EPOCH));
        bench.sent();
        let before = drafting_cost(&bench);
        bench.wait(ms);
        bench.down(&untimed(&PROMPT, &[4]));
        assert_eq!(bench.device.text().len(), 4);
        assert_eq!(drafting_cost(&bench).partial_cmp(&before), Some(expected), "after {ms} ms");
    }
}

/// The drafter reads what was streamed once. Neither the round that it falls into nor a later one shows its cost.
#[test]
fn reading_a_streamed_text_is_no_cost_of_a_round() {
    let cost = |reading_ms: u64| {
        let table = PolicyTable { credit_tokens_max: Some(10), ..drafting_two() };
        let config = DeviceConfig { policy: Rules::new(&table).expect("valid settings"), ..config(2) };
        let mut bench = Bench::new(config);
        bench.say(&PROMPT, reply(40));
        bench.open_sent();
        bench.lease(&credit_lease(EPOCH));
        [4, 5].into_iter().for_each(|token| bench.draft(token));
        bench.sent();
        bench.verdict(1, 6);
        let text: Vec<TokenId> = vec![1, 2, 3, 4, 6];
        bench.down(&untimed(&text, &[7, 8, 9, 10, 11, 12, 13, 14]));
        bench.draft(13); // a run for the text before
        bench.wait(reading_ms);
        [15, 16].into_iter().for_each(|token| bench.draft(token));
        let frame = bench.frame_sent();
        assert_eq!((frame.base, frame.drafts.len()), (13, 2));
        bench.verdict(2, 17);
        drafting_cost(&bench)
    };
    assert_eq!(cost(0), cost(5_000));
}

/// All of a trial's text may come in one message, which measures nothing; the trial is over all the same.
#[test]
fn a_trial_ends_with_its_credit() {
    let mut learned = Learned::default();
    (0..50).for_each(|_| learned.stop.observe_draft(Duration::from_millis(30)));
    let price = Price { pass: LogTime::of_us(150_000), row: LogTime(1), queue: LogTime(1) };
    learned.economy.announce(price);
    learned.economy.observe_handshake(Duration::from_millis(1));
    let conditions = Conditions { draft: 0.06, ..CONDITIONS };
    // A round with one draft costs what the formula says, until streaming may be tried.
    let drafts = (0..1000).take_while(|_| {
        learned.economy.observe_round(&conditions, 1, 1, 0.22);
        learned.economy.choose(Way::Draft, true, &conditions) == Way::Draft
    });
    assert!(drafts.count() < 1000, "streaming is never tried");
    assert_eq!(learned.economy.trial(), Some(12));
    let table = PolicyTable { stop_rule: Some(false), draft_tokens_max: Some(2), ..Policy::Auto.table() };
    let config = DeviceConfig { policy: Rules::new(&table).expect("valid settings"), ..config(2) };
    let mut bench = Bench::after(config, learned);
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.lease(&Lease { price, ..credit_lease(EPOCH) });
    let sent = bench.sent();
    let [Sent::Context(_), Sent::Frame(frame)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(frame.credit.as_ref().map(|credit| credit.until), Some(3 + 12));
    bench.down(&untimed(&PROMPT, &(4..16).collect::<Vec<_>>()));
    assert_eq!((bench.sent(), bench.drafter().is_some()), (vec![], true));
}

/// While a frame with drafts is out, its verdict says what comes next; the text behind it flows after that.
#[test]
fn drafts_with_credit_are_judged_before_text_counts() {
    let table = PolicyTable { credit_tokens_max: Some(8), ..drafting_two() };
    let config = DeviceConfig { policy: Rules::new(&table).expect("valid settings"), ..config(2) };
    let mut bench = Bench::new(config);
    bench.say(&PROMPT, reply(40));
    bench.open_sent();
    bench.lease(&credit_lease(EPOCH));
    bench.sent();
    bench.draft(4);
    bench.draft(5);
    let frame = bench.frame_sent();
    assert_eq!(frame.credit.as_ref().map(|credit| credit.until), Some(11));
    bench.text(1, &[1, 2, 3, 4, 6], &[7]);
    assert_eq!(bench.device.counters().stale, 1);
    bench.verdict(1, 6);
    bench.text(1, &[1, 2, 3, 4, 6], &[7, 8]);
    assert_eq!(bench.device.text(), [1, 2, 3, 4, 6, 7, 8]);
    // The credit is used up, so the device drafts; from then on text of the first round says nothing.
    let mut text = vec![1, 2, 3, 4, 6, 7, 8];
    bench.text(1, &text, &[9, 10, 11, 12]);
    // The first run of the drafter belongs to a text that is gone.
    (0..3).for_each(|_| bench.draft(13));
    let frame = bench.frame_sent();
    assert_eq!((frame.round, frame.drafts.len()), (2, 2));
    bench.verdict(0, 15);
    text.extend([9, 10, 11, 12, 15]);
    let stale = bench.device.counters().stale;
    bench.text(1, &text, &[16]);
    assert_eq!((bench.device.text(), bench.device.counters().stale), (&text[..], stale + 1));
    bench.text(2, &text, &[16]);
    assert_eq!(bench.device.text().len(), text.len() + 1);
}

/// A verifier that gives credit for 8 tokens and sends 3 at a time, or what is there after 100 ms.
fn giving() -> Desk {
    let config = VerifierConfig {
        credit_tokens_max: 8,
        continuation_interval: Duration::from_millis(100),
        context_tokens_max: 64,
        ..desk::config()
    };
    let mut desk = Desk::new(config);
    desk.welcome(0);
    desk
}

fn asking(round: u32, before: &[TokenId], until: u32, again: bool) -> DraftFrame {
    let credit = Credit { until, again, stop: [31].into_iter().collect() };
    DraftFrame { credit: Some(credit), ..frame(round, before, &[]) }
}

impl Desk {
    /// The tokens and rounds of the continuations sent, each with its base.
    fn written(&mut self) -> Vec<(u32, u32, Vec<TokenId>)> {
        let texts = self.said().into_iter().filter_map(|said| match said {
            Down::Continuation(text) => Some((text.round, text.base, text.tokens.to_vec())),
            Down::Working(_) => None,
            other => panic!("{other:?} is no continuation"),
        });
        texts.collect()
    }

    /// Lets the target write a token; the job must want one row behind the text.
    fn write(&mut self, token: TokenId) {
        let job = self.job();
        assert_eq!(job.rows, 1);
        self.give(&job, Ok(&rows(&[token])));
    }
}

#[test]
fn the_first_token_goes_out_at_once_and_the_others_together() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    desk.write(4);
    assert_eq!(desk.written(), [(1, 3, vec![4])]);
    desk.write(5);
    desk.write(6);
    assert_eq!(desk.written(), []);
    desk.write(7);
    assert_eq!(desk.written(), [(1, 4, vec![5, 6, 7])], "three make a message");
    desk.write(8);
    desk.wait(100);
    desk.write(9);
    assert_eq!(desk.written(), [(1, 7, vec![8, 9])], "or the time does");
    desk.write(10);
    desk.write(11);
    assert_eq!(desk.written(), [(1, 9, vec![10, 11])], "the credit is used up");
    desk.assert_quiet();
    assert_eq!((desk.verifier.counters().written, desk.verifier.counters().continuations), (8, 4));
}

#[test]
fn nothing_is_written_past_a_stop_token_or_for_a_credit_that_ended() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    desk.write(31);
    assert_eq!(desk.written(), [(1, 3, vec![31])]);
    desk.assert_quiet();

    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    let job = desk.job();
    desk.frame(0, &asking(2, &PROMPT, 3, false));
    desk.give(&job, Ok(&rows(&[4])));
    desk.assert_quiet();
    assert_eq!(desk.verifier.counters().written, 0);
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    desk.assert_quiet();
    assert_eq!(desk.verifier.counters().stale, 1, "an older round does not bring it back");
}

#[test]
fn a_renewal_sends_nothing_twice_and_again_sends_what_is_known_without_a_pass() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 6, false));
    [4, 5, 6].into_iter().for_each(|token| desk.write(token));
    desk.written();
    desk.assert_quiet();
    let behind = [1, 2, 3, 4];
    desk.frame(0, &asking(2, &behind, 8, false));
    desk.write(7);
    assert_eq!(desk.written(), [], "only what is new will be sent");
    desk.write(8);
    assert_eq!(desk.written(), [(2, 6, vec![7, 8])]);
    desk.frame(0, &asking(3, &behind, 8, true));
    assert_eq!((desk.written(), desk.events()), (vec![(3, 4, vec![5, 6, 7, 8])], vec![]));
    // A repeated send of the newest round says that nothing of it came.
    desk.frame(0, &DraftFrame { send: 2, ..asking(3, &behind, 8, true) });
    assert_eq!((desk.written(), desk.events()), (vec![(3, 4, vec![5, 6, 7, 8])], vec![]));
    assert_eq!(desk.verifier.counters().repeated, 1);
}

/// The outbox is shared: a device that asks for an old part again gets no more than its credit.
#[test]
fn again_sends_no_more_than_the_credit() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    (4..12).for_each(|token| desk.write(token));
    desk.written();
    desk.frame(0, &asking(2, &PROMPT, 5, true));
    assert_eq!((desk.written(), desk.events()), (vec![(2, 3, vec![4, 5])], vec![]));
}

/// A repeated round is known by its number alone, so another frame may come under it. It gets what the first one had.
#[test]
fn a_repeat_with_another_base_gets_the_same_text() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 8, false));
    (4..9).for_each(|token| desk.write(token));
    desk.written();
    for base in [0, 1, 5, 40] {
        let wrong = DraftFrame { send: 2, base, ..asking(1, &PROMPT, base + 8, false) };
        desk.frame(0, &wrong);
        assert_eq!((desk.written(), desk.events()), (vec![(1, 3, vec![4, 5, 6, 7, 8])], vec![]));
    }
    let mut desk = giving();
    let asked = DraftFrame { credit: asking(1, &PROMPT, 8, false).credit, ..frame(1, &PROMPT, &[4, 5]) };
    desk.round_and_job(&asked, &[4, 6, 0]);
    desk.write_now(7);
    desk.written();
    let credit = asking(1, &PROMPT, 3, false).credit;
    desk.frame(0, &DraftFrame { send: 2, base: 0, drafts: Default::default(), credit, ..asked });
    let said = desk.said();
    let [Down::Verdict(_), Down::Continuation(text)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((text.base, &text.tokens[..]), (5, &[7][..]));
}

/// Where each device has one stream, a newcomer would only take a turn that it loses again.
#[test]
fn a_newcomer_ends_no_ones_only_stream() {
    let mut desk = Desk::new(VerifierConfig { credit_tokens_max: 8, ..desk::config() });
    for number in [0, 1] {
        desk.welcome(number);
        desk.frame(number, &asking(1, &PROMPT, 11, false));
    }
    assert_eq!(desk.refusal(2, &open(desk::EPOCH, 0)), RefusalReason::Full);
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (2, 0));
}

/// A streaming session is at work all the time. Its device may not keep more of them than others by that.
#[test]
fn a_device_with_many_streams_displaces_no_one_else() {
    let config = VerifierConfig { credit_tokens_max: 8, sessions_max: 3, ..desk::config() };
    let mut desk = Desk::new(config);
    desk.welcome(1);
    desk.wait(1);
    let streams = |desk: &mut Desk, session: u8| {
        desk.wait(1);
        desk.lease(0, &Open { session, ..open(desk::EPOCH, 0) });
        desk.context(0, &Context { session, ..desk::context(&[], &PROMPT) });
        desk.frame(0, &DraftFrame { session, ..asking(1, &PROMPT, 11, false) });
    };
    (0..4).for_each(|session| streams(&mut desk, session));
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (3, 2));
    // A newcomer takes the place of one of two streams, and the next one that of the idle session.
    desk.lease(2, &open(desk::EPOCH, 0));
    assert_eq!((desk.verifier.sessions(), desk.verifier.counters().evicted), (3, 3));
    desk.events();
    let first = frame(1, &PROMPT, &[4]);
    assert_eq!(desk.round(1, &first, &[4, 5]), [desk::verdict(&first, 1, 5)]);
}

#[test]
fn drafts_with_credit_get_their_verdict_and_then_text() {
    let mut desk = giving();
    let asked = DraftFrame { credit: asking(1, &PROMPT, 8, false).credit, ..frame(1, &PROMPT, &[4, 5]) };
    assert_eq!(desk.round_and_job(&asked, &[4, 6, 0]), [desk::verdict(&asked, 1, 6)]);
    desk.write_now(7);
    assert_eq!(desk.written(), [(1, 5, vec![7])]);
    // The same frame again: the verdict and the text behind it.
    desk.frame(0, &DraftFrame { send: 2, ..asked.clone() });
    let said = desk.said();
    assert!(
        matches!(said.as_slice(), [Down::Verdict(_), Down::Continuation(text)] if text.tokens[..] == [7])
    );
}

impl Desk {
    /// Judges a frame and leaves the next job, which the credit asked for, to [`Self::write_now`].
    fn round_and_job(&mut self, asked: &DraftFrame, choices: &[TokenId]) -> Vec<Down> {
        self.frame(0, asked);
        let job = self.job();
        self.give(&job, Ok(&rows(choices)));
        self.said()
    }

    fn write_now(&mut self, token: TokenId) {
        self.write(token);
    }
}

#[test]
fn credit_out_of_range_is_rejected() {
    let stop: heapless::Vec<TokenId, 8> = [SIZE].into_iter().collect();
    let listed =
        DraftFrame { credit: Some(Credit { until: 5, again: false, stop }), ..frame(1, &PROMPT, &[]) };
    for wrong in [asking(1, &PROMPT, 12, false), listed] {
        let mut desk = giving();
        desk.frame(0, &wrong);
        assert_eq!(desk.said(), [closed(desk::EPOCH, CloseReason::Rejected)]);
    }
    let mut desk = giving();
    desk.frame(0, &asking(1, &[1, 2, 9], 5, false));
    assert_eq!(desk.said(), [resync(1, &PROMPT)]);
}

#[test]
fn a_new_prompt_ends_the_credit_and_its_job_counts_for_nothing() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    let job = desk.job();
    desk.context(0, &desk::context(&PROMPT, &[9, 9]));
    desk.give(&job, Ok(&rows(&[4])));
    desk.assert_quiet();
    let lease = desk.lease(0, &open(desk::EPOCH, 16));
    assert_eq!((lease.length, lease.digest), (5, digest(&[1, 2, 3, 9, 9]).full()));
}

#[test]
fn a_streaming_session_is_not_evicted_and_drains_with_what_is_written() {
    let mut desk = giving();
    desk.frame(0, &asking(1, &PROMPT, 11, false));
    desk.write(4);
    desk.written();
    desk.wait(10 * desk::IDLE_MS);
    desk.verifier.handle_timeout(desk.now);
    assert_eq!(desk.verifier.sessions(), 1);
    desk.write(5);
    desk.written();
    let job = desk.job();
    desk.verifier.drain();
    desk.give(&job, Ok(&rows(&[6])));
    let said = desk.said();
    let [Down::Continuation(text), end] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((&text.tokens[..], end), (&[6][..], &closed(desk::EPOCH, CloseReason::Draining)));
    assert!(desk.verifier.is_drained());
}

/// Whoever writes a token, it is the target's: the hands change at every position, by drafts and by credit in turn.
#[test]
fn a_text_may_change_hands_at_every_position() {
    let next = |text: &[TokenId]| text.iter().fold(7, |sum, token| (sum * 5 + token) % 30);
    let mut alone = PROMPT.to_vec();
    (0..24).for_each(|_| alone.push(next(&alone)));
    for change in 1..20 {
        for drafts_first in [true, false] {
            let mut desk = giving();
            let (mut text, mut round) = (PROMPT.to_vec(), 0);
            while text.len() < 20 {
                round += 1;
                let drafts = (text.len() < 3 + change) == drafts_first;
                let drafted: Vec<TokenId> = alone[text.len()..][..2].to_vec();
                let asked = match drafts {
                    // The second draft is wrong, so that the verdict corrects it.
                    true => frame(round, &text, &[drafted[0], 30]),
                    false => asking(round, &text, text.len() as u32 + 3, false),
                };
                desk.frame(0, &asked);
                desk.play(|cache| next(cache));
                for said in desk.said() {
                    match said {
                        Down::Verdict(verdict) => {
                            text.extend(asked.drafts[..verdict.accepted.into()].iter().map(|d| d.token));
                            text.push(verdict.token);
                        }
                        Down::Continuation(run) => {
                            assert!(run.base as usize <= text.len());
                            text.extend(run.tokens.iter().skip(text.len() - run.base as usize));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(text[..20], alone[..20], "a change after {change} tokens");
        }
    }
}

impl Desk {
    /// Runs every job with a target that chooses `next` behind each text.
    fn play(&mut self, next: impl Fn(&[TokenId]) -> TokenId) {
        while let Some(VerifierEvent::Verify(VerifyJob { id, keep, tokens, rows: wanted, .. })) =
            self.verifier.poll_event()
        {
            self.cache.truncate(keep);
            self.cache.extend(&tokens);
            let first = self.cache.len() + 1 - wanted;
            let choices: Vec<TokenId> =
                (first..=self.cache.len()).map(|length| next(&self.cache[..length])).collect();
            self.verifier.handle_rows(id, Ok(&rows(&choices)), self.now);
        }
    }
}
