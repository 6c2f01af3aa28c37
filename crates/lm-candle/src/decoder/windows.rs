//! Sliding windows: which layers look back how far.

use super::architecture::Architecture;
use crate::gguf::Gguf;
use dunlin_lm::{Error, Result};

const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";

/// The number of positions that one sees in each layer, its own included; `None` for all.
pub(super) fn windows(gguf: &Gguf, architecture: &Architecture, layers: usize) -> Result<Vec<Option<usize>>> {
    let found = gguf.optional_u32(&architecture.key(WINDOW))?.map(|window| window as usize);
    // A window of 0 means none.
    let window = found.or(architecture.window).filter(|window| *window > 0);
    let pattern = pattern(gguf, architecture, layers)?;
    Ok(pattern.into_iter().map(|has_window| window.filter(|_| has_window)).collect())
}

/// For each layer, true if it has a window.
fn pattern(gguf: &Gguf, architecture: &Architecture, layers: usize) -> Result<Vec<bool>> {
    let key = architecture.key(PATTERN);
    if let Some(flags) = gguf.flags(&key)? {
        if flags.len() == layers {
            return Ok(flags);
        }
        return Err(Error::value(gguf.path(), key, format!("{layers} values, one a layer"), flags.len()));
    }
    let step = gguf.optional_u32(&key)?.map_or(architecture.unwindowed_step, |step| Some(step as usize));
    // A step of 0 means that all have one.
    let step = step.filter(|step| *step > 0);
    Ok((1..=layers).map(|number| step.is_none_or(|step| !number.is_multiple_of(step))).collect())
}
