//! Clients of `serve`: the events of their prompts, written as JSON lines.

use crate::notice::Notice;
use crate::output::Output;
use crate::report::{self, Report};
use crate::screen::{Abilities, Colour};
use crate::terminal::Terminal;
use crate::turn::Turn;
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{Commit, Origin, SayError};
use dunlin_hlm::probabilities::Sampling;
use dunlin_lm::{ModelDir, TextStream};
use dunlin_wire::Vocabulary;
use serde::Serialize;
use std::io::{self, Write};
use std::ops::ControlFlow;
use tokio::sync::{mpsc, watch};

/// One line of the answer to a prompt.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum ClientLine<'a> {
    /// A token was committed; its text is empty until a character is complete.
    Token { text: &'a str, token: TokenId, origin: &'static str },
    /// Something worth knowing.
    Notice { text: &'a str },
    /// The reply ended.
    Finished {
        #[serde(flatten)]
        report: &'a Report,
        #[serde(skip_serializing_if = "Option::is_none")]
        problem: Option<&'a str>,
    },
    /// The prompt was not taken.
    Error { text: &'a str },
}

/// The sender of a prompt.
#[derive(Clone, Debug)]
pub(crate) enum ServeClient {
    /// A person at standard input; only errors are sent here.
    Terminal,
    /// A program at standard input.
    StandardOutput,
    /// A program at the socket.
    Socket(SocketClient),
}

/// A client at the socket, whose connection ends as soon as it is gone.
#[derive(Clone, Debug)]
pub(crate) struct SocketClient {
    lines: mpsc::Sender<String>,
    gone: watch::Sender<bool>,
}

impl SocketClient {
    /// A client that may have so many unread lines, and its lines.
    pub(crate) fn new(lines_max: usize) -> (Self, mpsc::Receiver<String>) {
        let (lines, unread) = mpsc::channel(lines_max);
        (Self { lines, gone: watch::Sender::new(false) }, unread)
    }

    /// True once nothing more is written to it; the loop marks one that doesn't read, the socket one that hung up.
    pub(crate) fn gone(&self) -> watch::Sender<bool> {
        self.gone.clone()
    }

    /// Takes a line, or gives the client up: a text with a line left out would have a hole that nobody sees.
    fn take(&self, line: String) {
        if self.is_there() && self.lines.try_send(line).is_err() {
            tracing::debug!("a client does not read its answer");
            self.gone.send_replace(true);
        }
    }

    fn is_there(&self) -> bool {
        !(*self.gone.borrow() || self.lines.is_closed())
    }
}

impl ServeClient {
    /// Tells the client why its line was rejected.
    pub(crate) fn error(&self, text: &str) {
        match self {
            Self::Terminal => report::line(Abilities { colour: false, cursor: false }, Colour::Red, text),
            _ => {
                if let Err(error) = self.line(&ClientLine::Error { text }) {
                    tracing::warn!("standard output: {error}");
                }
            }
        }
    }

    /// True while the client can be reached.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(self, Self::Socket(client) if !client.is_there())
    }

    fn line(&self, line: &ClientLine<'_>) -> io::Result<()> {
        let text = serde_json::to_string(line).expect("a line has only strings and numbers");
        match self {
            Self::Terminal => {}
            Self::StandardOutput => writeln!(io::stdout(), "{text}")?,
            Self::Socket(client) => client.take(text),
        }
        Ok(())
    }
}

/// The agent loop's end of the prompt queue: the client whose prompt comes next, and a channel to report its answer.
pub(crate) struct QueueFront {
    pub(crate) next: mpsc::Receiver<(String, ServeClient)>,
    pub(crate) answer: mpsc::Sender<bool>,
}

impl QueueFront {
    fn answered(&self, taken: bool) -> ControlFlow<()> {
        // Ignore the error: a queue that has ended has no further prompt.
        let _ = self.answer.try_send(taken);
        ControlFlow::Continue(())
    }
}

/// Sends the answer to each prompt to the client that sent it.
pub(crate) struct ClientOutput {
    front: QueueFront,
    model: ModelDir,
    vocabulary: Vocabulary,
    policy: &'static str,
    sampling: Sampling,
    stream: TextStream,
    current: Option<(String, ServeClient)>,
    failure: Option<io::Error>,
}

impl ClientOutput {
    pub(crate) fn new(
        front: QueueFront,
        model: &ModelDir,
        vocabulary: Vocabulary,
        policy: &'static str,
        sampling: Sampling,
    ) -> Self {
        let stream = TextStream::new(&model.tokenizer);
        Self {
            front,
            model: model.clone(),
            vocabulary,
            policy,
            sampling,
            stream,
            current: None,
            failure: None,
        }
    }

    fn line(&mut self, line: &ClientLine<'_>) {
        let Some((_, client)) = &self.current else { return };
        if let Err(error) = client.line(line) {
            self.failure = Some(error);
        }
    }

    /// Continues with the next prompt, unless the answer could not be written.
    fn answered(&self, taken: bool) -> ControlFlow<()> {
        if self.failure.is_some() { ControlFlow::Break(()) } else { self.front.answered(taken) }
    }
}

impl Output for ClientOutput {
    fn begin(&mut self) {
        self.current = self.front.next.try_recv().ok();
        self.stream = TextStream::new(&self.model.tokenizer);
    }

    fn committed(&mut self, commit: &Commit) {
        let text = self.stream.push(commit.token);
        let origin = match commit.origin {
            Origin::Accepted => "accepted",
            Origin::Target => "target",
            Origin::Unverified => "unverified",
            Origin::Trusted => "trusted",
        };
        self.line(&ClientLine::Token { text: &text, token: commit.token, origin });
    }

    fn provisional(&mut self, _tokens: &[TokenId]) {}

    fn notice(&mut self, notice: &Notice) {
        self.line(&ClientLine::Notice { text: &notice.to_string() });
    }

    fn rejected(&mut self, error: &SayError) -> ControlFlow<()> {
        self.line(&ClientLine::Error { text: &error.to_string() });
        self.current = None;
        self.answered(false)
    }

    fn finished(&mut self, turn: &Turn) -> ControlFlow<()> {
        if let Some((prompt, _)) = &self.current {
            let text = self.model.tokenizer.decode(&turn.tokens);
            let report = Report::new(turn, prompt, text, self.policy, &self.sampling);
            let problem = turn.ending.problem(&self.vocabulary);
            self.line(&ClientLine::Finished { report: &report, problem: problem.as_deref() });
        }
        self.current = None;
        self.answered(true)
    }

    fn wanted(&self) -> bool {
        self.failure.is_none() && self.current.as_ref().is_none_or(|(_, client)| client.is_there())
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

/// A person's terminal, whose prompts also go through the queue.
pub(crate) struct AttendedTerminal {
    terminal: Terminal,
    front: QueueFront,
}

impl AttendedTerminal {
    pub(crate) fn new(terminal: Terminal, front: QueueFront) -> Self {
        Self { terminal, front }
    }
}

impl Output for AttendedTerminal {
    fn begin(&mut self) {
        // The client's name isn't needed, but its entry must be taken: the channel holds only one.
        let _ = self.front.next.try_recv();
    }

    fn committed(&mut self, commit: &Commit) {
        self.terminal.committed(commit);
    }

    fn provisional(&mut self, tokens: &[TokenId]) {
        self.terminal.provisional(tokens);
    }

    fn notice(&mut self, notice: &Notice) {
        self.terminal.notice(notice);
    }

    fn rejected(&mut self, error: &SayError) -> ControlFlow<()> {
        let _ = self.terminal.rejected(error);
        self.front.answered(false)
    }

    fn finished(&mut self, turn: &Turn) -> ControlFlow<()> {
        match self.terminal.finished(turn) {
            ControlFlow::Break(()) => ControlFlow::Break(()),
            ControlFlow::Continue(()) => self.front.answered(true),
        }
    }

    fn wanted(&self) -> bool {
        self.terminal.wanted()
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.terminal.failure()
    }
}
