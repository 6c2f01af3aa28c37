//! Whether a verifier could serve here: configuration, target, broker, each in plain words.

use std::io::{self, Write};

use anyhow::Result;
use dunlin_wire::limits::PACKET_BYTES_MAX;

use crate::config::Config;
use crate::engine::{load, memory_mib, warm_up};
use crate::link::{self, BrokerFacts};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The target can be loaded.
    pub target: bool,
    /// The broker can be reached and used.
    pub broker: bool,
}

/// Checks target and broker of a checked configuration and writes a line for each to `out`.
///
/// # Errors
/// When `out` can't be written to.
pub async fn check(config: &Config, out: &mut dyn Write) -> io::Result<Found> {
    writeln!(out, "configuration  ok: {}, {} sessions", config.id, config.sessions)?;
    let target = line(out, "target", target(config))?;
    let broker = if config.embedded_broker {
        line(out, "broker", Ok(format!("ok: embedded, on {}", config.listen)))?
    } else {
        line(out, "broker", broker(config).await)?
    };
    Ok(Found { target, broker })
}

fn line(out: &mut dyn Write, name: &str, result: Result<String>) -> io::Result<bool> {
    match &result {
        Ok(text) => writeln!(out, "{name:<13}  {text}")?,
        Err(error) => writeln!(out, "{name:<13}  FAILED: {error:#}")?,
    }
    Ok(result.is_ok())
}

fn target(config: &Config) -> Result<String> {
    let (dir, mut target) = load(config)?;
    warm_up(target.as_mut())?;
    let memory = memory_mib().map_or_else(|| "unknown".into(), |mib| format!("{mib} MiB"));
    let tokens = (config.kv_mib as u64) << 20;
    let tokens = tokens.checked_div(target.cache_bytes_per_token()).unwrap_or(u64::MAX);
    Ok(format!(
        "ok: {}, {}, context {}; memory {memory}; caches of {} MiB hold {tokens} tokens of all sessions",
        target.identity(),
        dir.vocabulary,
        target.context_max(),
        config.kv_mib,
    ))
}

async fn broker(config: &Config) -> Result<String> {
    let facts = link::probe(&config.broker, config.login().as_ref(), &config.id).await?;
    let BrokerFacts { packet_max, alias_max, shares } = facts;
    anyhow::ensure!(shares, "broker {}: it has no shared subscriptions", config.broker);
    let too_small = packet_max.filter(|max| *max < PACKET_BYTES_MAX);
    if let Some(max) = too_small {
        anyhow::bail!(
            "broker {}: it takes packets of {max} bytes, {PACKET_BYTES_MAX} are needed",
            config.broker
        );
    }
    let packets = packet_max.map_or("of any size".into(), |max| format!("up to {max} bytes"));
    Ok(format!("ok: {} answers; packets {packets}, {alias_max} topic aliases", config.broker))
}
