//! The `check` command: tests configuration, target and broker, and suggests a remedy for each failure.

use crate::config::Config;
use crate::engine::{Comparison, OpenedTarget, PLAIN_ONLY, TargetEngine, memory_mib, open};
use crate::exit::Exit;
use anyhow::{Result, anyhow, ensure};
use dunlin_link::{BrokerFacts, probe};
use dunlin_service::Findings;
use dunlin_wire::limits::PACKET_BYTES_MAX;
use std::io::{self, IsTerminal};

/// Checks configuration, target and broker, and writes what it finds to standard output.
///
/// # Errors
/// Standard output can't be written to.
pub async fn check(config: Result<Config>) -> io::Result<Exit> {
    let out = io::stdout();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let mut findings = Findings::new(out, colour);
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let advice = "correct it; docs/verifier.md lists every key";
            findings.bad(&format!("configuration: {error:#}"), advice)?;
            return Ok(Exit::Usage);
        }
    };
    findings.good(&format!("configuration: verifier {}, {} sessions", config.id, config.sessions))?;
    match target(&config).await {
        Ok(text) => findings.good(&format!("model: {text}"))?,
        Err(error) => {
            let advice = match &config.remote {
                None => "name a target with --model DIR, or `model` in the configuration",
                Some(_) => "start the server and correct [remote]; docs/verifier.md lists every key",
            };
            findings.bad(&format!("model: {error:#}"), advice)?;
        }
    }
    let is_bad_elsewhere = findings.is_bad();
    match broker(&config).await {
        Ok(text) => findings.good(&format!("broker: {text}"))?,
        Err(error) => {
            let advice = format!("start the broker at {}, or name another with --broker", config.broker);
            findings.bad(&format!("broker: {error:#}"), &advice)?;
        }
    }
    Ok(match findings.is_bad() {
        false => Exit::Ok,
        true if is_bad_elsewhere => Exit::Failure,
        true => Exit::Broker,
    })
}

async fn target(config: &Config) -> Result<String> {
    let OpenedTarget { dir, engine, comparison } = open(config).await?;
    let known = format!("{}, {}, context {}", engine.identity(), dir.vocabulary, engine.context_max());
    let Some(Comparison { agree, unknown }) = comparison else {
        return Ok(format!("{known}; {}", memory(config, &engine)));
    };
    let (agree, unknown) = (agree.join(", "), unknown.join(", "));
    Ok(format!(
        "{known}; compared with {}: {agree}; not compared: {unknown}; {PLAIN_ONLY}",
        dir.path.display()
    ))
}

fn memory(config: &Config, engine: &TargetEngine) -> String {
    let used = memory_mib().map_or_else(|| "unknown".into(), |mib| format!("{mib} MiB"));
    let TargetEngine::Rows(target) = engine else { return format!("memory {used}") };
    let tokens = (config.kv_mib as u64) << 20;
    let tokens = tokens.checked_div(target.cache_bytes_per_token()).unwrap_or(u64::MAX);
    format!("memory {used}; caches of {} MiB hold {tokens} tokens of all sessions", config.kv_mib)
}

async fn broker(config: &Config) -> Result<String> {
    if config.embedded_broker {
        return Ok(format!("embedded, on {}", config.listen));
    }
    let options = config.connect_options(&format!("dunlin-check-{}", std::process::id()))?;
    let facts = probe(&options).await.map_err(|loss| anyhow!(loss.reason))?;
    let BrokerFacts { packet_bytes_max, alias_max, shares } = facts;
    ensure!(shares, "{} has no shared subscriptions", config.broker);
    let enough = packet_bytes_max.is_none_or(|max| max >= PACKET_BYTES_MAX);
    let packets = packet_bytes_max.map_or("of any size".into(), |max| format!("up to {max} bytes"));
    ensure!(enough, "{} takes packets {packets}, {PACKET_BYTES_MAX} are needed", config.broker);
    Ok(format!("connected to {}; packets {packets}, {alias_max} topic aliases", config.broker))
}
