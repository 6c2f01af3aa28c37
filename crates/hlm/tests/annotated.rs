//! The verifier's rules for frames with held drafts, without a bonus, or with the distributions of their drafts.

mod desk;
mod machines;

use desk::{Desk, EPOCH, PROMPT, SESSION, closed, config, context, frame, open, rows, verdict};
use dunlin_hlm::TokenId;
use dunlin_hlm::verifier::{VerifierConfig, VerifierEvent};
use dunlin_wire::limits::CODES_MAX;
use dunlin_wire::{
    CloseReason, Codes, Context, Down, DraftFrame, Entry, Open, Reply, Row, Rows, SamplingParams, Verdict,
    Vocabulary, token_bits,
};
use machines::{SIZE, VOCABULARY, digest};

/// A vocabulary whose weights take three parts.
const WIDE: u32 = 2 * CODES_MAX as u32 + 452;

fn row(entries: &[(TokenId, u8)]) -> Row {
    Row { entries: entries.iter().map(|&(token, weight)| Entry { token, weight }).collect() }
}

/// One row per token, with all its weight on that token.
fn lattice(tokens: &[TokenId]) -> Rows {
    Rows::Lattice { resolution: 100, rows: tokens.iter().map(|token| row(&[(*token, 100)])).collect() }
}

fn audited(frame: &DraftFrame, accepted: u8, token: TokenId, missed: u16) -> Down {
    let Down::Verdict(plain) = verdict(frame, accepted, token) else { panic!("a verdict") };
    Down::Verdict(Verdict { missed, ..plain })
}

#[test]
fn held_drafts_stay_and_the_verdict_says_which_the_target_would_not_have_chosen() {
    let mut desk = Desk::leased();
    let asked = DraftFrame { held: 0b0101, ..frame(1, &PROMPT, &[4, 5, 6, 7]) };
    assert_eq!(desk.round(0, &asked, &[9, 5, 8, 7, 10]), [audited(&asked, 4, 10, 0b0101)]);
    let counters = *desk.verifier.counters();
    assert_eq!((counters.missed, counters.drafts, counters.accepted), (2, 2, 2));
    let next = frame(2, &[1, 2, 3, 4, 5, 6, 7, 10], &[]);
    assert_eq!(desk.round(0, &next, &[11]), [verdict(&next, 0, 11)], "the text is the device's");
}

#[test]
fn the_first_judged_miss_ends_the_frame_held_or_not() {
    let mut desk = Desk::leased();
    let asked = DraftFrame { held: 0b1001, ..frame(1, &PROMPT, &[4, 5, 6, 7]) };
    assert_eq!(desk.round(0, &asked, &[9, 5, 8, 9, 9]), [audited(&asked, 2, 8, 0b0001)]);
    let counters = *desk.verifier.counters();
    assert_eq!((counters.missed, counters.drafts, counters.accepted), (1, 2, 1));
}

#[test]
fn with_rows_nothing_is_said_of_held_drafts() {
    let mut desk = Desk::leased();
    let asked = DraftFrame { held: 0b0101, rows: lattice(&[5, 7]), ..frame(1, &PROMPT, &[4, 5, 6, 7]) };
    desk.frame(0, &asked);
    let job = desk.job();
    assert_eq!(
        (job.tokens.as_slice(), job.rows),
        ([1, 2, 3, 4, 5, 6, 7].as_slice(), 4),
        "not that of draft 0"
    );
    desk.give(&job, Ok(&rows(&[5, 9, 7, 10])));
    assert_eq!(desk.said(), [verdict(&asked, 4, 10)]);
}

#[test]
fn without_a_bonus_the_last_draft_is_the_token() {
    for rows_of in [Rows::None, lattice(&[4, 5])] {
        let mut desk = Desk::leased();
        let asked = DraftFrame { bonus: false, rows: rows_of.clone(), ..frame(1, &PROMPT, &[4, 5]) };
        desk.frame(0, &asked);
        let job = desk.job();
        assert_eq!(
            (job.tokens.as_slice(), job.rows),
            ([1, 2, 3, 4].as_slice(), 2),
            "none is fed that is not asked"
        );
        desk.give(&job, Ok(&rows(&[4, 5])));
        assert_eq!(desk.said(), [verdict(&asked, 1, 5)]);
        assert_eq!((desk.verifier.counters().drafts, desk.verifier.counters().accepted), (2, 2));
        let next = DraftFrame { bonus: false, rows: rows_of, ..frame(2, &[1, 2, 3, 4, 5], &[4, 5]) };
        assert_eq!(desk.round(0, &next, &[4, 9]), [verdict(&next, 1, 9)]);
        assert_eq!((desk.verifier.counters().drafts, desk.verifier.counters().accepted), (4, 3));
    }
}

#[test]
fn what_rides_in_front_costs_no_row() {
    let mut desk = Desk::leased();
    let asked =
        DraftFrame { held: 0b0111, bonus: false, rows: lattice(&[7]), ..frame(1, &PROMPT, &[4, 5, 6, 7]) };
    desk.frame(0, &asked);
    let job = desk.job();
    assert_eq!((job.tokens.as_slice(), job.rows), ([1, 2, 3, 4, 5, 6].as_slice(), 1));
    desk.give(&job, Ok(&rows(&[9])));
    assert_eq!(desk.said(), [verdict(&asked, 3, 9)]);
    let next = DraftFrame {
        held: 0b01,
        bonus: false,
        rows: lattice(&[5]),
        ..frame(2, &[1, 2, 3, 4, 5, 6, 9], &[4, 5])
    };
    desk.frame(0, &next);
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice(), job.rows), (6, [9, 4].as_slice(), 1));
}

#[test]
fn a_held_last_draft_without_a_bonus_is_the_token_too() {
    for (held, choices, answer) in [(0b11, [9, 9], (1, 0b01)), (0b10, [4, 9], (1, 0)), (0b11, [4, 5], (1, 0))]
    {
        let mut desk = Desk::leased();
        let asked = DraftFrame { held, bonus: false, ..frame(1, &PROMPT, &[4, 5]) };
        assert_eq!(desk.round(0, &asked, &choices), [audited(&asked, answer.0, 5, answer.1)], "{held:b}");
    }
}

#[test]
fn a_frame_without_a_bonus_may_end_the_context() {
    let long: Vec<TokenId> = (1..=15).collect();
    for (bonus, served) in [(false, true), (true, false)] {
        let mut desk = Desk::leased();
        desk.context(0, &context(&PROMPT, &long[3..]));
        let asked = DraftFrame { bonus, rows: lattice(&[4]), ..frame(1, &long, &[4]) };
        desk.frame(0, &asked);
        let events = desk.events();
        assert_eq!(matches!(events.as_slice(), [VerifierEvent::Verify(_)]), served, "{events:?}");
        let rejected = if served { vec![] } else { vec![closed(EPOCH, CloseReason::Rejected)] };
        assert_eq!(desk.said(), rejected);
    }
}

#[test]
fn an_entry_outside_the_vocabulary_is_rejected() {
    let outside = row(&[(4, 55), (SIZE, 200)]);
    let heaviest = row(&[(4, 55), (SIZE, 255)]);
    let rows_of = [
        Rows::TopK([outside.clone()].into_iter().collect()),
        Rows::TopKSampled([heaviest].into_iter().collect()),
        Rows::Lattice { resolution: 255, rows: [outside].into_iter().collect() },
    ];
    for rows_of in rows_of {
        let mut desk = Desk::leased();
        desk.frame(0, &DraftFrame { rows: rows_of, ..frame(1, &PROMPT, &[4]) });
        assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Rejected)]);
        assert_eq!(desk.verifier.sessions(), 0);
    }
}

#[test]
fn a_verifier_that_takes_no_lossy_policy_says_so_and_serves_the_exact_ones() {
    let even = Rows::TopK([row(&[(4, 200)])].into_iter().collect());
    let sampled = Rows::TopKSampled([row(&[(4, 255)])].into_iter().collect());
    let one = frame(1, &PROMPT, &[4]);
    let cases = [
        (DraftFrame { rows: even, ..one.clone() }, false),
        (DraftFrame { held: 1, ..one.clone() }, false),
        (DraftFrame { held: 1, rows: lattice(&[5]), ..frame(1, &PROMPT, &[4, 5]) }, false),
        (DraftFrame { rows: sampled, ..one.clone() }, true),
        (DraftFrame { rows: lattice(&[4]), ..one.clone() }, true),
        (DraftFrame { bonus: false, ..one.clone() }, true),
        (one, true),
    ];
    for (asked, served) in cases {
        let mut desk = Desk::new(VerifierConfig { lossy: false, ..config() });
        desk.welcome(0);
        desk.frame(0, &asked);
        let events = desk.events();
        assert_eq!(matches!(events.as_slice(), [VerifierEvent::Verify(_)]), served, "{events:?}");
        let refused = if served { vec![] } else { vec![closed(EPOCH, CloseReason::Policy)] };
        assert_eq!((desk.said(), desk.verifier.sessions()), (refused, usize::from(served)));
        let mut desk = Desk::leased();
        desk.frame(0, &asked);
        assert!(
            matches!(desk.events().as_slice(), [VerifierEvent::Verify(_)]),
            "and with lossy policies all of them"
        );
    }
}

#[test]
fn the_same_annotated_frame_gets_the_same_answer() {
    let mut desk = Desk::leased();
    let asked = DraftFrame { held: 0b01, ..frame(1, &PROMPT, &[4, 5]) };
    let first = desk.round(0, &asked, &[9, 8, 0]);
    assert_eq!(first, [audited(&asked, 1, 8, 0b01)]);
    desk.frame(0, &asked);
    assert_eq!((desk.events(), desk.said()), (vec![], first));
    assert_eq!((desk.verifier.counters().repeated, desk.verifier.counters().missed), (1, 1));
}

/// A verifier with a large vocabulary whose target is uniform, so that the sent weights decide.
struct Wide(Desk);

fn codes(round: u32, part: u8, weights: &[u8]) -> Codes {
    Codes { session: SESSION, epoch: EPOCH, round, part, codes: weights.iter().copied().collect() }
}

/// The parts of weights that are 0 for all but one token.
fn parts(round: u32, on: TokenId) -> Vec<Codes> {
    let weights: Vec<u8> = (0..WIDE).map(|token| if token == on { 255 } else { 0 }).collect();
    (0..).zip(weights.chunks(CODES_MAX)).map(|(part, weights)| codes(round, part, weights)).collect()
}

impl Wide {
    fn new() -> Self {
        let vocabulary = Vocabulary { size: WIDE, ..VOCABULARY };
        let mut desk = Desk::new(VerifierConfig { vocabulary, ..config() });
        let sampling = SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0 };
        let lease = desk.open(0, &Open { vocabulary, sampling, ..open(EPOCH, PROMPT.len()) });
        assert!(matches!(lease, Some(Reply::Lease(_))));
        desk.context(0, &Context { token_bits: token_bits(WIDE), ..context(&[], &PROMPT) });
        Self(desk)
    }

    /// A frame that asks about token 4 behind the prompt.
    fn asked(round: u32) -> DraftFrame {
        let one = frame(round, &PROMPT, &[4]);
        DraftFrame { bonus: false, rows: Rows::Full, token_bits: token_bits(WIDE), ..one }
    }

    fn codes(&mut self, codes: &Codes) {
        self.0.send(0, &codes.encode().expect("a valid part"));
    }

    fn all_codes(&mut self, round: u32, on: TokenId) {
        parts(round, on).iter().for_each(|codes| self.codes(codes));
    }

    fn frame(&mut self, round: u32) {
        self.0.frame(0, &Self::asked(round));
    }

    /// Runs the only job; returns the verdict's round and token.
    fn token(&mut self) -> (u32, TokenId) {
        let job = self.0.job();
        assert_eq!((job.rows, job.tokens.last()), (1, Some(&3)));
        self.0.give(&job, Ok(&vec![0.0; WIDE as usize]));
        match self.0.said()[..] {
            [Down::Verdict(verdict)] => (verdict.round, verdict.token),
            ref other => panic!("{other:?} is not one verdict"),
        }
    }
}

/// A token that its distribution made improbable is accepted; one that it made certain is not.
#[test]
fn weights_decide() {
    for (on, kept) in [(5, true), (4, false)] {
        let mut wide = Wide::new();
        wide.all_codes(1, on);
        wide.frame(1);
        assert_eq!(wide.token().1 == 4, kept);
    }
}

#[test]
fn a_frame_waits_for_its_weights_in_any_order() {
    let parts = parts(1, 5);
    for order in 0..24usize {
        let mut left: Vec<usize> = (0..4).collect();
        let order: Vec<usize> =
            [order / 6, order / 2 % 3, order % 2, 0].into_iter().map(|pick| left.remove(pick)).collect();
        let mut wide = Wide::new();
        for (step, &message) in order.iter().enumerate() {
            assert_eq!(wide.0.events(), [], "{order:?} before step {step}");
            if message == 3 { wide.frame(1) } else { wide.codes(&parts[message]) }
        }
        assert_eq!(wide.token(), (1, 4), "{order:?}");
        assert_eq!((wide.0.verifier.counters().frames, wide.0.verifier.counters().stale), (1, 0));
    }
}

#[test]
fn where_a_part_is_lost_the_frame_gets_no_answer_until_all_is_sent_again() {
    for lost in 0..3 {
        let mut wide = Wide::new();
        let parts = parts(1, 5);
        (0..3).filter(|part| *part != lost).for_each(|part| wide.codes(&parts[part]));
        wide.frame(1);
        wide.0.assert_quiet();
        // The frame without its weights is answered with nothing.
        wide.frame(1);
        wide.0.assert_quiet();
        wide.all_codes(1, 5);
        wide.frame(1);
        assert_eq!(wide.token(), (1, 4));
        // Once the frame is answered, other weights don't change the answer.
        wide.all_codes(1, 4);
        wide.frame(1);
        let said = wide.0.said();
        assert!(matches!(said[..], [Down::Verdict(Verdict { token: 4, .. })]), "{said:?}");
        assert_eq!(wide.0.events(), []);
    }
}

#[test]
fn weights_of_an_older_round_are_ignored() {
    let mut wide = Wide::new();
    wide.codes(&parts(2, 5)[0]);
    wide.all_codes(1, 4);
    assert_eq!(wide.0.verifier.counters().stale, 3);
    parts(2, 5)[1..].iter().for_each(|codes| wide.codes(codes));
    wide.frame(1);
    wide.0.assert_quiet();
    wide.frame(2);
    assert_eq!(wide.token(), (2, 4));
}

#[test]
fn weights_that_are_none_of_the_vocabulary_are_ignored() {
    let mut wide = Wide::new();
    let whole = vec![1; CODES_MAX];
    let bad =
        [codes(1, 3, &whole), codes(1, 2, &whole), codes(1, 0, &whole[1..]), codes(1, 2, &whole[..451])];
    bad.iter().for_each(|codes| wide.codes(codes));
    assert_eq!(wide.0.verifier.counters().stale, 4);
    parts(1, 5)[..2].iter().for_each(|codes| wide.codes(codes));
    wide.frame(1);
    wide.0.assert_quiet();
    wide.codes(&parts(1, 5)[2]);
    assert_eq!(wide.token(), (1, 4));
    let mut wide = Wide::new();
    wide.codes(&Codes { epoch: EPOCH - 1, ..parts(1, 5).remove(0) });
    wide.0.assert_quiet(); // the frame behind them will be answered
    assert_eq!(wide.0.verifier.counters().stale, 1);
}

#[test]
fn weights_of_a_newer_round_end_those_of_the_older_one() {
    let mut wide = Wide::new();
    parts(1, 4)[..2].iter().for_each(|codes| wide.codes(codes));
    wide.frame(1);
    wide.all_codes(2, 5);
    wide.0.assert_quiet();
    wide.frame(2);
    assert_eq!(wide.token(), (2, 4), "nothing of the older weights is left");
    wide.frame(1);
    wide.codes(&parts(1, 4)[2]);
    wide.0.assert_quiet();
}

#[test]
fn a_part_that_is_there_already_changes_nothing() {
    let mut wide = Wide::new();
    wide.all_codes(1, 5);
    wide.all_codes(1, 4);
    wide.frame(1);
    assert_eq!(wide.token(), (1, 4), "as the first ones say");
}

#[test]
fn an_older_frame_does_not_take_the_place_of_the_one_that_waits() {
    let mut wide = Wide::new();
    wide.frame(2);
    wide.frame(1);
    assert_eq!(wide.0.verifier.counters().stale, 1);
    wide.all_codes(2, 5);
    assert_eq!(wide.token(), (2, 4));
}

#[test]
fn weights_of_a_newer_round_void_the_work_on_the_older_one() {
    let mut wide = Wide::new();
    wide.all_codes(1, 5);
    wide.frame(1);
    let job = wide.0.job();
    wide.codes(&parts(2, 5)[0]);
    wide.0.give(&job, Ok(&vec![0.0; WIDE as usize]));
    wide.0.assert_quiet();
    assert_eq!((wide.0.verifier.counters().stale, wide.0.verifier.counters().verdicts), (1, 0));
    wide.all_codes(2, 5);
    wide.frame(2);
    assert_eq!(wide.token(), (2, 4));
}

#[test]
fn weights_without_any_mass_end_the_lease() {
    let mut wide = Wide::new();
    wide.all_codes(1, WIDE);
    wide.frame(1);
    let job = wide.0.job();
    wide.0.give(&job, Ok(&vec![0.0; WIDE as usize]));
    assert_eq!(wide.0.said(), [closed(EPOCH, CloseReason::Failed)]);
}

#[test]
fn a_new_epoch_forgets_weights_and_waiting_frames() {
    let mut wide = Wide::new();
    wide.frame(1);
    parts(1, 5)[..2].iter().for_each(|codes| wide.codes(codes));
    let vocabulary = Vocabulary { size: WIDE, ..VOCABULARY };
    wide.0.open(0, &Open { vocabulary, ..open(EPOCH + 1, PROMPT.len()) });
    wide.codes(&Codes { epoch: EPOCH + 1, ..parts(1, 5).remove(2) });
    wide.0.assert_quiet();
    wide.0.frame(0, &DraftFrame { epoch: EPOCH + 1, ..Wide::asked(1) });
    wide.0.assert_quiet();
    assert_eq!(digest(&PROMPT).short(), Wide::asked(1).prefix);
}
