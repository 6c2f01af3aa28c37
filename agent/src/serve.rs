//! `serve`: answers prompts, one per line, from a Unix socket or standard input, in one continuing session.

use crate::client::{AttendedTerminal, ClientOutput, QueueFront, ServeClient};
use crate::config::Settings;
use crate::exit::DONE;
use crate::flags::ReplyFlags;
use crate::output::Output;
use crate::request::PromptRequest;
use crate::run::{Control, Say, User};
use crate::setup::{self, Parts};
use crate::socket;
use crate::supervised::Supervised;
use crate::terminal::Terminal;
use anyhow::{Context, Result};
use dunlin_hlm::device::ReplyLimits;
use dunlin_hlm::probabilities::Sampling;
use dunlin_link::watch_certificate;
use dunlin_lm::ModelDir;
use dunlin_service::Service;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tracing::info;

/// Waiting requests of all clients together.
const REQUESTS_MAX: usize = 16;
/// Begins a new session, on standard input.
const NEW: &str = "/new";

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeFlags {
    /// Read prompts from a Unix socket at this path instead of standard input.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Give the agent's group access to the socket; by default only the agent's user has access.
    #[arg(long, requires = "socket")]
    socket_for_group: bool,
    /// Write events as JSON lines to standard output.
    #[arg(long, conflicts_with = "socket")]
    json: bool,
    #[command(flatten)]
    pub(crate) reply: ReplyFlags,
}

/// Serves until its input ends or it is interrupted; returns the exit code.
///
/// # Errors
/// The model can't be loaded, the socket can't be created, or standard output can't be written to.
pub async fn serve(args: &ServeFlags, settings: &Settings, sampling: Sampling) -> Result<u8> {
    let parts = Parts::open(settings)?;
    let model = parts.model.clone();
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    // Create the socket before the slow loading of the model, so that a path in use is reported at once.
    let mode = if args.socket_for_group { socket::FOR_GROUP } else { socket::FOR_USER };
    let listening = args.socket.as_ref().map(|path| socket::listen(path, mode)).transpose()?;
    let loaded = parts.load().await?;
    let vocabulary = loaded.vocabulary;
    let supervised = Supervised::by(Service::from_environment(), &settings.broker, &model.name);
    tokio::spawn(watch_certificate(settings.security.clone(), settings.broker.clone()));
    let agent = loaded.agent(&args.reply.conduct(false), sampling)?;
    let (desk, user, controls, front) = desk(&model, args.reply.text.max_tokens, waiting)?;
    match &listening {
        Some(listening) => {
            socket::accept(listening, requests, controls)?;
            info!("listening at {}", listening.path().display());
        }
        None => read_standard_input(requests, args.json)?,
    }
    let mut out: Box<dyn Output> = if args.socket.is_some() || args.json {
        Box::new(ClientOutput::new(front, &model, vocabulary, settings.policy.name(), sampling))
    } else {
        let terminal = Terminal::new(&model.tokenizer, vocabulary, args.reply.color(), true, false);
        Box::new(AttendedTerminal::new(terminal, front))
    };
    tokio::spawn(desk.attend());
    agent.supervised(supervised).logging_status().run(&mut { user }, out.as_mut()).await?;
    match out.failure() {
        Some(error) => Err(error).context("standard output"),
        None => Ok(DONE),
    }
}

/// Turns requests into prompts, in order; the next one waits until the previous one is answered.
struct PromptQueue {
    model: ModelDir,
    tokens_max: usize,
    waiting: mpsc::Receiver<(PromptRequest, ServeClient)>,
    clients: mpsc::Sender<(String, ServeClient)>,
    says: mpsc::Sender<Say>,
    /// True where the prompt was accepted.
    answered: mpsc::Receiver<bool>,
}

fn desk(
    model: &ModelDir,
    tokens_max: usize,
    waiting: mpsc::Receiver<(PromptRequest, ServeClient)>,
) -> Result<(PromptQueue, User, mpsc::Sender<Control>, QueueFront)> {
    let (clients, next) = mpsc::channel(1);
    let (says, prompts) = mpsc::channel(1);
    let (answer, answered) = mpsc::channel(1);
    let (user, controls) = setup::user(prompts, Control::Quit)?;
    let desk = PromptQueue { model: model.clone(), tokens_max, waiting, clients, says, answered };
    Ok((desk, user, controls, QueueFront { next, answer }))
}

impl PromptQueue {
    async fn attend(mut self) {
        let mut fresh = true;
        while let Some((request, client)) = self.waiting.recv().await {
            let new_session = request.new_session;
            match self.say(&request, fresh || new_session) {
                Err(error) => client.error(&format!("{error:#}")),
                Ok(say) => {
                    // The client goes first: the output takes it from its channel when the prompt begins.
                    let handed = self.clients.send((request.prompt, client)).await.is_ok();
                    if !handed || self.says.send(say).await.is_err() {
                        return;
                    }
                    let Some(taken) = self.answered.recv().await else { return };
                    // If the first prompt of a session is rejected, the session is still empty and the next prompt is
                    // the first again.
                    fresh = !taken && (fresh || new_session);
                }
            }
        }
    }

    fn say(&self, request: &PromptRequest, first: bool) -> Result<Say> {
        let prompt = &request.prompt;
        let opening = self.model.first_turn(prompt)?;
        let (tokens, opening) =
            if first { (opening, None) } else { (self.model.next_turn(prompt)?, Some(opening)) };
        let tokens_max = request.max_tokens.unwrap_or(self.tokens_max);
        let reply = ReplyLimits { tokens_max, stop: self.model.prompt.stop.clone() };
        Ok(Say { tokens, first: opening, reply, new_session: request.new_session })
    }
}

/// Reads lines in a thread, because a read of standard input can't be interrupted.
fn read_standard_input(requests: mpsc::Sender<(PromptRequest, ServeClient)>, json: bool) -> Result<()> {
    let client = if json { ServeClient::StandardOutput } else { ServeClient::Terminal };
    let read = move || {
        let mut new_session = false;
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let line = line.trim();
            if line == NEW {
                new_session = true;
            } else if !line.is_empty() {
                match PromptRequest::parse(line) {
                    Err(error) => client.error(&format!("{error:#}")),
                    Ok(mut request) => {
                        request.new_session |= std::mem::take(&mut new_session);
                        if requests.blocking_send((request, client.clone())).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    };
    if io::stdin().is_terminal() {
        info!("one prompt a line; {NEW} begins a new session");
    }
    std::thread::Builder::new().name("input".into()).spawn(read).context("no thread for standard input")?;
    Ok(())
}
