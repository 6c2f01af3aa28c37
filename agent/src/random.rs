//! Random numbers of the operating system: session numbers, seeds, jitter.

use anyhow::{Result, anyhow};

/// A random number.
///
/// # Errors
/// The operating system provides none.
pub fn number() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers from the system: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}
