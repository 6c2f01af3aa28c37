//! The child's side: limits of its own, then everything that its parent is about to do with the file.

use super::answer::Answer;
use crate::facts::Facts;
use crate::load::rehearse as run;
use crate::order::Order;
use rustix::io::Result;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use std::ffi::OsString;
use std::io::{Write, stdout};

/// Memory beside weights and caches: buffers of a pass, tokens, and threads.
const MEMORY_BESIDE: u64 = 4 << 30;

/// Tries a file as a child process: loads it, runs it, and writes the outcome to standard output. The arguments are those
/// with which [`Rehearsed::in_child`](super::Rehearsed::in_child) starts it.
///
/// # Errors
/// The arguments are none of an order.
pub fn rehearse(arguments: &[OsString]) -> std::result::Result<(), &'static str> {
    let order = Order::parse(arguments)
        .ok_or("this command is for dunlin-verifier itself, before it loads a target")?;
    let outcome = Facts::read(&order.weights).and_then(|facts| {
        if let Err(error) = confine(&order, &facts) {
            say(&Answer::Warned(format!("the process that tries the file runs without limits: {error}")));
        }
        run(&order, &facts, |bytes| say(&Answer::Read(bytes)))
    });
    say(&match outcome {
        Ok(findings) => Answer::Sound(findings),
        Err(error) => Answer::Refused(error.to_string()),
    });
    Ok(())
}

/// Writes a line. False if nobody reads it.
fn say(answer: &Answer) -> bool {
    let mut out = stdout();
    writeln!(out, "{answer}").and_then(|()| out.flush()).is_ok()
}

/// Bounds the memory of this process, keeps it from dumping a core, and ends it with its parent.
fn confine(order: &Order, facts: &Facts) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::Core, 0)?;
    // A driver of a GPU reserves any amount of addresses.
    if !crate::build::LlamaBuild::LINKED.uses_gpu {
        limit(Resource::Data, memory_max(order, facts.tensor_bytes))?;
    }
    Ok(())
}

/// Weights are packed beside the mapped file at most; caches of the trial and of the sessions are never held together.
fn memory_max(order: &Order, tensor_bytes: u64) -> u64 {
    let caches = order.settings.kv_bytes_max as u64;
    tensor_bytes.saturating_mul(2).saturating_add(caches).saturating_add(MEMORY_BESIDE)
}

/// Lowers a limit; one that is lower already stays.
fn limit(resource: Resource, max: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let max = Some(maximum.unwrap_or(u64::MAX).min(max).min(current.unwrap_or(u64::MAX)));
    setrlimit(resource, Rlimit { current: max, maximum: max })
}
