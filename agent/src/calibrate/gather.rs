//! Gathers judged tokens while prompts are answered.

use super::progress::CalibrationProgress;
use crate::notice::Notice;
use crate::output::Output;
use crate::screen::Colour;
use crate::turn::{Ending, Turn};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{Commit, Finish, Judged, SayError};
use dunlin_wire::VerifierId;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::Notify;

/// The reason why gathering stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// As many tokens were judged as wanted.
    Enough,
    /// Every prompt was answered.
    OutOfPrompts,
    /// The user stopped it.
    Interrupted,
    /// A reply ended otherwise.
    Failed(Ending),
}

impl Stopped {
    /// One word for the record.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Enough => "tokens",
            Self::OutOfPrompts => "prompts",
            Self::Interrupted => "interrupted",
            Self::Failed(ending) => ending.name(),
        }
    }
}

/// The result.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    /// Uncertainties, 0..=1, and whether the target chose another token.
    pub(super) samples: Vec<(f64, bool)>,
    /// Prompts that were answered, the last perhaps in part.
    pub(super) prompts: usize,
    /// The verifier that judged last.
    pub(super) verifier: Option<VerifierId>,
    /// The reason why it ended.
    pub(super) stopped: Stopped,
}

/// An output that keeps the judged tokens and drops the text.
pub(super) struct Gatherer {
    tokens_max: usize,
    prompts_max: usize,
    samples: Vec<(f64, bool)>,
    answered: usize,
    skipped: usize,
    verifier: Option<VerifierId>,
    /// The ending of the last reply, if it ended the calibration.
    last: Option<Ending>,
    progress: CalibrationProgress,
    /// Notified at every token.
    heard: Arc<Notify>,
}

impl Gatherer {
    /// Gathers up to `tokens_max` tokens from up to `prompts_max` prompts.
    pub(super) fn new(
        tokens_max: usize,
        prompts_max: usize,
        progress: CalibrationProgress,
        heard: Arc<Notify>,
    ) -> Self {
        let (samples, verifier, last) = (Vec::new(), None, None);
        Self { tokens_max, prompts_max, samples, answered: 0, skipped: 0, verifier, last, progress, heard }
    }

    /// The result, once the agent has ended.
    pub(super) fn into_gathered(self) -> Gathered {
        self.progress.end();
        let stopped = match self.last {
            _ if self.samples.len() >= self.tokens_max => Stopped::Enough,
            Some(Ending::Machine(Finish::Cancelled)) => Stopped::Interrupted,
            Some(ending) => Stopped::Failed(ending),
            None if self.answered + self.skipped < self.prompts_max => Stopped::Interrupted,
            None => Stopped::OutOfPrompts,
        };
        Gathered { samples: self.samples, prompts: self.answered, verifier: self.verifier, stopped }
    }

    fn is_enough(&self) -> bool {
        self.samples.len() >= self.tokens_max
    }
}

impl Output for Gatherer {
    fn judged(&mut self, judged: &Judged) {
        self.heard.notify_one();
        if !self.is_enough() {
            self.samples.push((judged.uncertainty.get().into(), judged.rejected));
            self.progress.at(self.samples.len(), self.answered + self.skipped + 1);
        }
    }

    fn leased(&mut self, verifier: &VerifierId) {
        self.verifier = Some(verifier.clone());
    }

    fn committed(&mut self, _commit: &Commit) {
        self.heard.notify_one();
    }

    fn provisional(&mut self, _tokens: &[TokenId]) {}

    fn notice(&mut self, notice: &Notice) {
        self.progress.line(Colour::Yellow, &notice.to_string());
    }

    fn rejected(&mut self, error: &SayError) -> ControlFlow<()> {
        self.skipped += 1;
        let number = self.answered + self.skipped;
        self.progress.line(Colour::Yellow, &format!("prompt {number} is left out: {error}"));
        ControlFlow::Continue(())
    }

    fn finished(&mut self, turn: &Turn) -> ControlFlow<()> {
        self.answered += 1;
        match &turn.ending {
            Ending::Machine(Finish::Stop | Finish::TokensMax | Finish::ContextFull) => {}
            ending => self.last = Some(ending.clone()),
        }
        if self.last.is_some() || self.is_enough() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn wanted(&self) -> bool {
        !self.is_enough()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::Provenance;
    use crate::screen::Abilities;
    use crate::turn::Phases;
    use dunlin_hlm::device::DeviceCounters;
    use dunlin_hlm::importance::RecentImportances;
    use dunlin_hlm::stop::Prices;
    use dunlin_hlm::time::Duration;
    use dunlin_hlm::uncertainty::Unit;
    use dunlin_link::Traffic;

    fn gatherer(tokens_max: usize, prompts_max: usize) -> Gatherer {
        let plain = Abilities { colour: false, cursor: false };
        let progress = CalibrationProgress::new(tokens_max, prompts_max, plain).unwrap();
        Gatherer::new(tokens_max, prompts_max, progress, Arc::new(Notify::new()))
    }

    fn judged(uncertainty: f32, rejected: bool) -> Judged {
        let uncertainty = Unit::new(uncertainty).unwrap();
        let (importance, recent) = (Unit::ZERO, RecentImportances::default());
        Judged { position: 1, uncertainty, importance, recent, held: false, rejected }
    }

    fn turn(ending: Ending) -> Turn {
        Turn {
            provenance: Provenance::default(),
            seed: 1,
            tokens: Vec::new(),
            ending,
            took: Duration(1),
            phases: Phases::default(),
            counters: DeviceCounters::default(),
            traffic: Traffic::default(),
            prices: Prices::SECONDS,
            energy: None,
        }
    }

    const DONE: Ending = Ending::Machine(Finish::Stop);
    const CANCELLED: Ending = Ending::Machine(Finish::Cancelled);

    #[test]
    fn it_wants_no_more_than_enough() {
        let mut gatherer = gatherer(2, 9);
        for uncertainty in [0.5, 0.25, 0.125] {
            gatherer.judged(&judged(uncertainty, uncertainty < 0.3));
        }
        assert!(!gatherer.wanted());
        assert!(gatherer.finished(&turn(CANCELLED)).is_break());
        let gathered = gatherer.into_gathered();
        assert_eq!(gathered.samples, [(0.5, false), (0.25, true)]);
        assert_eq!((gathered.prompts, gathered.stopped), (1, Stopped::Enough));
    }

    #[test]
    fn it_knows_why_it_ended() {
        let ended = |prompts, endings: &[Ending]| {
            let mut gatherer = gatherer(9, prompts);
            gatherer.judged(&judged(0.5, true));
            let _ = gatherer.rejected(&SayError::Empty);
            for (i, ending) in endings.iter().enumerate() {
                let flow = gatherer.finished(&turn(ending.clone()));
                assert_eq!(flow.is_break(), *ending != DONE, "{i}");
            }
            gatherer.into_gathered().stopped
        };
        assert_eq!(ended(3, &[DONE, DONE]), Stopped::OutOfPrompts);
        assert_eq!(ended(3, &[DONE, CANCELLED]), Stopped::Interrupted);
        assert_eq!(ended(3, &[DONE]), Stopped::Interrupted, "between two prompts");
        let gone = Ending::TimedOut(Some(Notice::NoVerifier));
        assert_eq!(ended(3, std::slice::from_ref(&gone)), Stopped::Failed(gone));
    }
}
