//! A verifier whose target shows the tokens that it chose, and no rows.

mod desk;
mod machines;

use desk::{Desk, EPOCH, PROMPT, closed, config, frame, rows, verdict};
use dunlin_hlm::TokenId;
use dunlin_hlm::acceptance::{ChosenToken, JudgedFrame};
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{RowsError, Verifier, VerifierConfig, VerifierEvent, VerifyJob};
use dunlin_wire::{CloseReason, Credit, Down, DraftFrame, Entry, Row, Rows};
use machines::SIZE;
use proptest::prelude::*;

fn chosen(tokens: &[TokenId]) -> Vec<ChosenToken> {
    tokens.iter().map(|token| ChosenToken { token: *token, ends: false }).collect()
}

/// A verifier of choices with one lease, whose text is the prompt.
fn leased(config: VerifierConfig) -> Desk {
    let mut desk = Desk::new(config.clone());
    desk.verifier = Verifier::new(config).expect("valid settings").of_choices();
    desk.welcome(0);
    desk
}

impl Desk {
    fn choose(&mut self, job: &VerifyJob, choices: &[ChosenToken]) -> Vec<Down> {
        self.verifier.handle_choices(job.id, Ok(choices), self.now);
        self.said()
    }

    fn chosen_round(&mut self, asked: &DraftFrame, choices: &[ChosenToken]) -> Vec<Down> {
        self.frame(0, asked);
        let job = self.job();
        self.choose(&job, choices)
    }
}

#[test]
fn drafts_stand_while_they_equal_the_choices() {
    let mut desk = leased(config());
    let asked = frame(1, &PROMPT, &[4, 5]);
    desk.frame(0, &asked);
    let job = desk.job();
    assert_eq!((job.keep, job.tokens.as_slice(), job.rows), (0, &[1, 2, 3, 4, 5][..], 3));
    assert_eq!((job.sampling, job.seed), (Sampling::greedy(), 11), "the engine draws by itself");
    assert_eq!(desk.choose(&job, &chosen(&[4, 9, 0])), [verdict(&asked, 1, 9)]);
    let text = [1, 2, 3, 4, 9];
    let all = frame(2, &text, &[6]);
    assert_eq!(desk.chosen_round(&all, &chosen(&[6, 7])), [verdict(&all, 1, 7)], "and the bonus follows");
    desk.frame(0, &all);
    assert_eq!(desk.said(), [verdict(&all, 1, 7)], "the same answer again, without a job");
    assert_eq!((desk.events(), desk.verifier.counters().accepted), (vec![], 2));
}

#[test]
fn an_end_of_the_engines_text_ends_the_outcome_at_its_position() {
    let mut desk = leased(config());
    let asked = frame(1, &PROMPT, &[4, 31, 5]);
    let mut choices = chosen(&[4, 31, 5, 6]);
    choices[1].ends = true;
    assert_eq!(desk.chosen_round(&asked, &choices), [verdict(&asked, 1, 31)]);
    let mut desk = leased(config());
    assert_eq!(
        desk.chosen_round(&asked, &choices[..2]),
        [verdict(&asked, 1, 31)],
        "nothing behind it is due"
    );
}

#[test]
fn a_missing_or_unknown_choice_ends_the_lease() {
    for choices in [&[][..], &[4], &[4, SIZE], &[SIZE, 5], &[4, 5]] {
        let mut desk = leased(config());
        let said = desk.chosen_round(&frame(1, &PROMPT, &[4, 5]), &chosen(choices));
        assert_eq!(said, [closed(EPOCH, CloseReason::Failed)], "{choices:?}");
    }
    let mut desk = leased(config());
    desk.frame(0, &frame(1, &PROMPT, &[4]));
    let job = desk.job();
    desk.verifier.handle_choices(job.id, Err(RowsError::Failed), desk.now);
    assert_eq!(desk.said(), [closed(EPOCH, CloseReason::Failed)]);
}

#[test]
fn all_but_plain_frames_are_refused_before_the_engine_is_asked() {
    let one = DraftFrame { bonus: false, ..frame(1, &PROMPT, &[4]) };
    let row = Row { entries: [Entry { token: 4, weight: 100 }].into_iter().collect() };
    let lattice = Rows::Lattice { resolution: 100, rows: [row].into_iter().collect() };
    let cases = [
        DraftFrame { held: 1, ..one.clone() },
        DraftFrame { held: 0b10, ..frame(1, &PROMPT, &[4, 5]) },
        DraftFrame { rows: Rows::Full, ..one.clone() },
        DraftFrame { rows: lattice, ..one.clone() },
    ];
    for asked in cases {
        let mut desk = leased(config());
        desk.frame(0, &asked);
        let jobs = desk.events().iter().filter(|event| matches!(event, VerifierEvent::Verify(_))).count();
        assert_eq!((jobs, desk.said()), (0, vec![closed(EPOCH, CloseReason::Policy)]), "{asked:?}");
    }
    let mut desk = leased(config());
    assert_eq!(desk.chosen_round(&one, &chosen(&[4])), [verdict(&one, 0, 4)], "a plain one is served");
}

#[test]
fn choices_are_written_on_credit() {
    let config =
        VerifierConfig { credit_tokens_max: 8, continuation_interval: Duration::from_millis(0), ..config() };
    let mut desk = leased(config);
    let credit = Credit { until: 5, again: false, stop: Default::default() };
    desk.frame(0, &DraftFrame { credit: Some(credit), ..frame(1, &PROMPT, &[]) });
    for (at, token) in [(3, 7), (4, 8)] {
        let job = desk.job();
        let said = desk.choose(&job, &chosen(&[token]));
        let [Down::Continuation(text)] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!((text.base, text.tokens.as_slice()), (at, &[token][..]));
    }
    desk.assert_quiet();
}

proptest! {
    /// An engine of rows that chooses the same tokens gives the same verdict.
    #[test]
    fn rows_and_choices_are_judged_alike(
        drafts in prop::collection::vec(0..4u32, 0..4),
        choices in prop::collection::vec(0..4u32, 5),
        bonus: bool,
    ) {
        let frame = DraftFrame { bonus: bonus || drafts.is_empty(), ..frame(1, &PROMPT, &drafts) };
        let (seed, sampling) = (11, Sampling::greedy());
        let asked = JudgedFrame { frame: &frame, weights: &[], vocabulary: SIZE, seed, sampling };
        let by_rows = asked.judge(&rows(&choices), &mut Distribution::certain(0));
        prop_assert!(by_rows.is_some());
        prop_assert_eq!(asked.judge_choices(&chosen(&choices)), by_rows);
    }
}
