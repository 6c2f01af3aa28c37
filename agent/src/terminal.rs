//! The reply on standard output, token by token; notices on standard error.

use crate::notice::Notice;
use crate::output::Output;
use crate::report;
use crate::screen::{Abilities, Colour, Screen};
use crate::turn::Turn;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{Commit, Origin, SayError};
use dunlin_lm::{TextStream, Tokenizer};
use dunlin_wire::Vocabulary;
use std::io::{self, IsTerminal, Stdout};
use std::ops::ControlFlow;

/// Columns assumed if the terminal doesn't report them.
const COLUMNS: usize = 80;

/// The use of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Abilities of `stream`, given the user's choice.
pub fn abilities(choice: ColourChoice, stream: &impl IsTerminal) -> Abilities {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let cursor = stream.is_terminal() && !dumb;
    let colour = match choice {
        ColourChoice::Auto => cursor && !set("NO_COLOR"),
        ColourChoice::Always => true,
        ColourChoice::Never => false,
    };
    Abilities { colour, cursor }
}

/// Columns of the terminal at standard output.
pub(crate) fn columns() -> usize {
    let size = console::Term::stdout().size_checked();
    size.map(|(_, columns)| columns.into()).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// Shows replies to a person.
pub struct Terminal {
    /// `None` writes no reply.
    screen: Option<Screen<Stdout>>,
    tokenizer: Tokenizer,
    stream: TextStream,
    errors: Abilities,
    vocabulary: Vocabulary,
    /// True if the agent ends after one reply.
    once: bool,
    /// The last turn, read after the agent has ended.
    last: Option<Turn>,
    rejected: Option<SayError>,
    failure: Option<io::Error>,
}

impl Terminal {
    /// A terminal that shows the reply as it is written if `streams`, and ends the agent after one reply if `once`.
    pub fn new(
        tokenizer: &Tokenizer,
        vocabulary: Vocabulary,
        choice: ColourChoice,
        streams: bool,
        once: bool,
    ) -> Self {
        let screen = || Screen::new(io::stdout(), abilities(choice, &io::stdout()), Box::new(columns));
        Self {
            screen: streams.then(screen),
            tokenizer: tokenizer.clone(),
            stream: TextStream::new(tokenizer),
            errors: abilities(choice, &io::stderr()),
            vocabulary,
            once,
            last: None,
            rejected: None,
            failure: None,
        }
    }

    /// The last turn, or the error that prevented it.
    pub fn into_last(self) -> (Option<Turn>, Option<SayError>) {
        (self.last, self.rejected)
    }

    /// Writes to the screen. After a failed write, nothing more is written.
    fn paint(&mut self, paint: impl FnOnce(&mut Screen<Stdout>) -> io::Result<()>) {
        if let Some(screen) = &mut self.screen
            && let Err(error) = paint(screen)
        {
            self.screen = None;
            self.failure = Some(error);
        }
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.once || self.failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Output for Terminal {
    fn committed(&mut self, commit: &Commit) {
        let text = self.stream.push(commit.token);
        self.paint(|screen| screen.commit(&text, colour(commit.origin)));
    }

    fn provisional(&mut self, tokens: &[TokenId]) {
        let mut stream = self.stream.clone();
        let text: String = tokens.iter().map(|token| stream.push(*token)).collect();
        self.paint(|screen| screen.tail(&text));
    }

    fn notice(&mut self, notice: &Notice) {
        if self.errors.cursor {
            self.paint(Screen::end_line);
        }
        report::line(self.errors, Colour::Yellow, &notice.to_string());
    }

    fn rejected(&mut self, error: &SayError) -> ControlFlow<()> {
        if !self.once {
            report::line(self.errors, Colour::Red, &error.to_string());
        }
        self.rejected = Some(*error);
        self.flow()
    }

    fn finished(&mut self, turn: &Turn) -> ControlFlow<()> {
        let rest = self.stream.finish();
        self.paint(|screen| screen.commit(&rest, Colour::Red));
        self.paint(Screen::end_line);
        self.stream = TextStream::new(&self.tokenizer);
        if !self.once {
            if let Some(problem) = turn.ending.problem(&self.vocabulary) {
                report::line(self.errors, Colour::Red, &problem);
            }
            report::summary(turn, self.errors);
        }
        self.last = Some(turn.clone());
        self.flow()
    }

    fn wanted(&self) -> bool {
        self.failure.is_none()
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

fn colour(origin: Origin) -> Colour {
    match origin {
        Origin::Accepted => Colour::Green,
        Origin::Target => Colour::Yellow,
        Origin::Unverified => Colour::Red,
        Origin::Trusted => Colour::Cyan,
    }
}
