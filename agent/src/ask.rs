//! `ask`: one prompt to the agent that serves on this device, over its socket.
//!
//! It knows the lines of [`serve`](crate::serve) and nothing else: no model, no broker, no configuration. Ending
//! `ask` ends the reply, because the agent sees that nobody reads it any more.

use crate::exit::{DONE, FAILED, INTERRUPTED, NO_BROKER, REFUSED, TIMED_OUT};
use crate::flags::positive;
use crate::generate;
use crate::request::PromptRequest;
use crate::socket::LINE_BYTES_MAX;
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The service's socket, as its unit has it.
const SOCKET: &str = "/run/dunlin/agent.sock";

/// Flags of `ask`.
#[derive(Debug, clap::Args)]
pub struct AskFlags {
    /// The prompt; - reads standard input.
    #[arg(value_name = "PROMPT", allow_hyphen_values = true)]
    prompt: String,
    /// The service's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Maximum length of the reply in tokens; by default the service's.
    #[arg(long, value_name = "N", value_parser = positive)]
    max_tokens: Option<usize>,
    /// Begin a new session with this prompt.
    #[arg(long)]
    new: bool,
    /// Write the service's JSON lines as they arrive.
    #[arg(long)]
    json: bool,
}

/// A line of the answer, as far as it is shown.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum AnswerLine {
    Token { text: String },
    Notice { text: String },
    Finished { finish: String, problem: Option<String>, unverified_tokens: u64 },
    Error { text: String },
}

/// Sends the prompt and writes the reply as it arrives; returns the exit code.
///
/// # Errors
/// No agent can be reached, it ends in the middle of the reply, or standard output can't be written to.
pub fn ask(args: &AskFlags) -> Result<u8> {
    let request = PromptRequest::new(generate::prompt(&args.prompt)?, args.max_tokens, args.new);
    let mut line = serde_json::to_string(&request).context("prompt")?;
    line.push('\n');
    if line.len() as u64 > LINE_BYTES_MAX {
        bail!("the prompt has {} bytes; a request may have {LINE_BYTES_MAX} in all", request.prompt.len());
    }
    let mut stream = connect(&args.socket)?;
    stream.write_all(line.as_bytes()).with_context(|| args.socket.display().to_string())?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        answer.read_line(&mut line).with_context(|| args.socket.display().to_string())?;
        // A line without its end is one that the agent did not finish.
        let Some(line) = line.strip_suffix('\n') else { break };
        if let Some(code) = show(line, args.json)? {
            return Ok(code);
        }
    }
    bail!("the agent ended before the reply did, or gave up a client that did not read; ask again")
}

fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => "its group may ask: add this user with `adduser USER dunlin`",
            _ => "no agent serves there; `systemctl status dunlin-agent` says why",
        };
        anyhow!("{}: {error}: {advice}", path.display())
    })
}

/// Shows a line; returns the exit code if the line is the last one.
fn show(line: &str, json: bool) -> Result<Option<u8>> {
    let heard =
        serde_json::from_str(line).with_context(|| format!("invalid answer from the agent: {line:?}"))?;
    let (mut out, mut errors) = (io::stdout(), io::stderr());
    if json {
        writeln!(out, "{line}").context("standard output")?;
        return Ok(last(&heard));
    }
    let code = last(&heard);
    match heard {
        AnswerLine::Token { text } => write!(out, "{text}").and_then(|()| out.flush()),
        AnswerLine::Notice { text } | AnswerLine::Error { text } => writeln!(errors, "dunlin-agent: {text}"),
        AnswerLine::Finished { problem: Some(problem), .. } => {
            writeln!(out).and_then(|()| writeln!(errors, "dunlin-agent: {problem}"))
        }
        AnswerLine::Finished { unverified_tokens: 1.., .. } => writeln!(out).and_then(|()| {
            writeln!(errors, "dunlin-agent: some tokens are unverified: no verifier answered for a while")
        }),
        AnswerLine::Finished { .. } => writeln!(out),
    }
    .context("standard output")?;
    Ok(code)
}

/// The exit code, if no further line follows.
fn last(heard: &AnswerLine) -> Option<u8> {
    match heard {
        AnswerLine::Token { .. } | AnswerLine::Notice { .. } => None,
        AnswerLine::Error { .. } => Some(FAILED),
        AnswerLine::Finished { finish, .. } => Some(exit_code(finish)),
    }
}

/// The exit code for how a reply ended, by the report's word for it.
fn exit_code(finish: &str) -> u8 {
    match finish {
        "stop" | "tokens_max" | "context_full" => DONE,
        "cancelled" => INTERRUPTED,
        "refused" | "rejected" | "lossy_refused" | "other_model" | "unknown_token" => REFUSED,
        "broker_refused" => NO_BROKER,
        "timed_out" => TIMED_OUT,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::Ending;
    use dunlin_hlm::device::Finish;
    use dunlin_wire::RefusalReason;

    #[test]
    fn a_reply_that_was_asked_for_ends_as_one_that_was_generated() {
        for finish in [
            Finish::Stop,
            Finish::TokensMax,
            Finish::ContextFull,
            Finish::Cancelled,
            Finish::Refused(RefusalReason::Full),
            Finish::Rejected,
            Finish::LossyRefused,
            Finish::DrafterFailed,
        ] {
            let ending = Ending::Machine(finish);
            assert_eq!(exit_code(ending.name()), generate::exit_code(&ending), "{ending:?}");
        }
        for ending in
            [Ending::TimedOut(None), Ending::DrafterFailed("x".into()), Ending::BrokerRefused("x".into())]
        {
            assert_eq!(exit_code(ending.name()), generate::exit_code(&ending), "{ending:?}");
        }
    }

    #[test]
    fn a_line_that_is_cut_is_the_agents_end() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            BufReader::new(&client).read_line(&mut String::new()).unwrap();
            client.write_all(b"{\"event\":\"notice\",\"text\":\"x\"}\n{\"event\":\"tok").unwrap();
        });
        let args = AskFlags { prompt: "x".into(), socket, max_tokens: None, new: false, json: false };
        let error = format!("{:#}", ask(&args).unwrap_err());
        assert!(error.contains("the agent ended before the reply did"), "{error}");
        agent.join().unwrap();
    }

    #[test]
    fn what_no_agent_would_say_is_shown_as_it_came() {
        let error = format!("{:#}", show("HTTP/1.1 400 Bad Request", false).unwrap_err());
        assert!(error.contains("invalid answer from the agent: \"HTTP/1.1 400"), "{error}");
        assert!(show(r#"{"event":"token"}"#, true).is_err());
    }
}
