//! An output that records everything, and runs a test's hooks at each token and notice.

use dunlin_agent::notice::Notice;
use dunlin_agent::output::Output;
use dunlin_agent::turn::Turn;
use dunlin_hlm::device::{Commit, Judged, SayError};
use std::ops::ControlFlow;

type Hook<'a, T> = Box<dyn FnMut(&T) + 'a>;

pub(crate) struct Recorder<'a> {
    pub(crate) commits: Vec<Commit>,
    pub(crate) judged: Vec<Judged>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) turns: Vec<Turn>,
    /// Prompts that were not taken; `None` where there must be none.
    pub(crate) rejected: Option<Vec<SayError>>,
    /// Number of turns after which the agent ends.
    turns_max: usize,
    /// Called with the number of tokens so far.
    pub(crate) at_commit: Hook<'a, usize>,
    pub(crate) at_notice: Hook<'a, Notice>,
}

impl Recorder<'_> {
    pub(crate) fn new(turns_max: usize) -> Self {
        let (at_commit, at_notice) = (Box::new(|_: &usize| {}), Box::new(|_: &Notice| {}));
        let (commits, judged, notices, turns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { commits, judged, notices, turns, rejected: None, turns_max, at_commit, at_notice }
    }
}

impl Output for Recorder<'_> {
    fn committed(&mut self, commit: &Commit) {
        self.commits.push(*commit);
        (self.at_commit)(&self.commits.len());
    }

    fn judged(&mut self, judged: &Judged) {
        self.judged.push(*judged);
    }

    fn provisional(&mut self, _tokens: &[u32]) {}

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
        (self.at_notice)(notice);
    }

    fn rejected(&mut self, error: &SayError) -> ControlFlow<()> {
        let Some(rejected) = &mut self.rejected else { panic!("the prompt was not taken: {error}") };
        rejected.push(*error);
        ControlFlow::Continue(())
    }

    fn finished(&mut self, turn: &Turn) -> ControlFlow<()> {
        self.turns.push(turn.clone());
        if self.turns.len() < self.turns_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
