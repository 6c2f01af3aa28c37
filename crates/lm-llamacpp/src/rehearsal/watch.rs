//! A child process under watch: its lines, its last words, and how it ended.

use crate::journal::shown;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a line; longer ones are cut.
const LINE_BYTES_MAX: u64 = 4096;
/// Lines of standard output that wait to be heard.
const WAITING_MAX: usize = 64;
/// Last lines of standard error that are kept.
const WORDS_MAX: usize = 4;
/// Pause between two looks at a child that has closed its output and is about to end.
const PAUSE: Duration = Duration::from_millis(5);

/// The end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with success.
    Status,
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It took longer than this, and was ended.
    Late(Duration),
}

impl End {
    /// The end that a status tells.
    fn of(status: ExitStatus) -> Self {
        match (status.signal(), status.code()) {
            (Some(signal), _) => Self::Signal(signal),
            (None, Some(0)) => Self::Status,
            (None, code) => Self::Code(code.unwrap_or(-1)),
        }
    }

    /// The remedy, for the error.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Signal(9) => "if the memory ran out, lower kv_mib or take a smaller model",
            Self::Late(_) => "if the disk isn't just slow, fetch the file again or take another one",
            _ => "fetch the file again, convert it again, or take the engine candle",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried = "the process that tries it first";
        match self {
            Self::Status => write!(f, "{tried} ended without an answer"),
            Self::Code(code) => write!(f, "{tried} ended with the code {code}"),
            Self::Signal(4) => write!(f, "llama.cpp ran an unknown instruction in {tried}"),
            Self::Signal(6) => write!(f, "llama.cpp gave up in {tried}"),
            Self::Signal(7 | 11) => write!(f, "llama.cpp read outside of its memory in {tried}"),
            Self::Signal(8) => write!(f, "llama.cpp divided by zero in {tried}"),
            Self::Signal(9) => write!(f, "the system ended {tried}"),
            Self::Signal(signal) => write!(f, "{tried} was ended by the signal {signal}"),
            Self::Late(within) => write!(f, "{tried} took more than {} s", within.as_secs()),
        }
    }
}

/// An ended child.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    /// Its last lines on standard error, escaped.
    words: Vec<String>,
}

impl Ended {
    /// Its last words as a part of a message; nothing if there are none.
    pub(super) fn explain(&self) -> String {
        if self.words.is_empty() { String::new() } else { format!(" ({})", self.words.join("; ")) }
    }
}

/// Runs a child to its end, `within` this time at most, and hands each line of its standard output to `hear`.
///
/// # Errors
/// It can't be started or waited for.
pub(super) fn watch(mut child: Command, within: Duration, hear: &mut dyn FnMut(&str)) -> io::Result<Ended> {
    let deadline = Instant::now().checked_add(within);
    let mut child =
        Running(child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let (out, err) = (child.0.stdout.take(), child.0.stderr.take());
    let (sender, lines) = sync_channel(WAITING_MAX);
    let listener = thread::Builder::new().name("child's lines".into()).spawn(move || {
        out.into_iter().for_each(|out| each_line(out, |line| sender.send(line).is_ok()));
    })?;
    let reader = thread::Builder::new().name("child's words".into()).spawn(move || {
        let mut words = VecDeque::new();
        err.into_iter().for_each(|err| {
            each_line(err, |line| {
                keep(&mut words, &line);
                true
            });
        });
        Vec::from(words)
    })?;
    let end = match heard(&lines, deadline, hear) && child.ended(deadline)? {
        true => End::of(child.0.wait()?),
        false => End::Late(within),
    };
    // Ends it, if it still runs; then its pipes end, and so do the threads.
    drop(child);
    drop(lines);
    // Ignore the error: a listener that panicked has nothing more to tell.
    let _ = listener.join();
    Ok(Ended { end, words: reader.join().unwrap_or_default() })
}

/// Hands on each line until there are no more; false if the deadline comes first.
fn heard(lines: &Receiver<String>, deadline: Option<Instant>, hear: &mut dyn FnMut(&str)) -> bool {
    loop {
        match lines.recv_timeout(left(deadline)) {
            Ok(line) => hear(&line),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// Time to the deadline; a moment that no clock can tell never comes.
fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// A child that is ended when nobody waits for it any more.
struct Running(Child);

impl Running {
    /// True once it has ended; false if the deadline comes first.
    #[expect(clippy::disallowed_methods, reason = "the standard library waits for a child with no deadline")]
    fn ended(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        while self.0.try_wait()?.is_none() {
            if left(deadline).is_zero() {
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ignore the errors: it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hands on each line of a stream, cut to a bound, until the stream ends or nobody wants more.
fn each_line(stream: impl Read, mut take: impl FnMut(String) -> bool) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let read = (&mut stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let is_cut = line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n');
        if !read.is_ok_and(|bytes| bytes > 0) || (is_cut && stream.skip_until(b'\n').is_err()) {
            return;
        }
        if !take(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
    }
}

fn keep(words: &mut VecDeque<String>, line: &str) {
    let line = shown(line);
    if line.is_empty() || words.back() == Some(&line) {
        return;
    }
    if words.len() == WORDS_MAX {
        words.pop_front();
    }
    words.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Duration = Duration::from_secs(600);

    fn shell(script: &str, within: Duration) -> (Ended, Vec<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let ended = watch(command, within, &mut |line| lines.push(line.to_owned())).unwrap();
        (ended, lines)
    }

    #[test]
    fn lines_words_and_end_are_told() {
        let (ended, lines) = shell("echo a; echo b >&2; echo c; exit 3", AMPLE);
        assert_eq!(lines, ["a\n", "c\n"]);
        assert_eq!((ended.end, ended.explain().as_str()), (End::Code(3), " (b)"));
        let (ended, _) = shell("true", AMPLE);
        assert_eq!((ended.end, ended.explain().as_str()), (End::Status, ""));
    }

    #[test]
    fn a_signal_is_told_in_words() {
        for (signal, words) in [
            (6, "llama.cpp gave up"),
            (7, "outside of its memory"),
            (8, "divided by zero"),
            (9, "the system ended"),
            (11, "outside of its memory"),
            (15, "by the signal 15"),
        ] {
            let (ended, _) = shell(&format!("kill -{signal} $$; sleep 600"), AMPLE);
            assert_eq!(ended.end, End::Signal(signal));
            assert!(ended.end.to_string().contains(words), "{}", ended.end);
        }
    }

    #[test]
    fn a_child_that_does_not_end_is_ended() {
        let within = Duration::from_millis(50);
        for script in ["exec sleep 600", "exec sleep 600 >&- 2>&-", "while :; do echo x; done"] {
            assert_eq!(shell(script, within).0.end, End::Late(within), "{script}");
        }
    }

    #[test]
    fn what_it_prints_is_bounded_and_escaped() {
        let flood = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end";
        let (_, lines) = shell(flood, AMPLE);
        assert_eq!((lines.len(), lines[0].len(), lines[1].as_str()), (2, LINE_BYTES_MAX as usize, "end\n"));
        let (ended, _) = shell("for i in 1 2 3 4 5 6; do echo $i >&2; done; printf 'a\\033[2Jb' >&2", AMPLE);
        assert_eq!(ended.explain(), " (4; 5; 6; a\\u{1b}[2Jb)");
    }
}
