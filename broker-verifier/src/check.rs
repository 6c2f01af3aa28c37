//! The `check` command: tests configuration, target and broker, and suggests a remedy for each failure.

use crate::budget::CacheBudget;
use crate::config::Config;
use crate::engine::{Comparison, OpenedTarget, PLAIN_ONLY, memory_mib, open};
use crate::exit::Exit;
use anyhow::{Result, anyhow, ensure};
use dunlin_link::{BrokerFacts, Security, probe, round_trip};
use dunlin_service::Findings;
use dunlin_wire::limits::PACKET_BYTES_MAX;
use dunlin_wire::topic::Topic;
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
        Ok((text, budget)) => {
            findings.good(&format!("model: {text}"))?;
            if let Some(budget) = budget {
                memory(&mut findings, &config, budget)?;
            }
        }
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
        Ok((text, cautions)) => {
            findings.good(&format!("broker: {text}"))?;
            cautions.iter().try_for_each(|caution| findings.doubtful(caution))?;
        }
        Err(error) => {
            let advice = match &config.security {
                Security::Plain => {
                    format!("start the broker at {}, or name another with --broker", config.broker)
                }
                Security::Tls(_) => format!(
                    "start the broker at {}; docs/tls.md and docs/access.md explain other causes",
                    config.broker
                ),
            };
            findings.bad(&format!("broker: {error:#}"), &advice)?;
        }
    }
    Ok(match findings.is_bad() {
        false => Exit::Ok,
        true if is_bad_elsewhere => Exit::Failure,
        true => Exit::Broker,
    })
}

/// Opens and warms up the target: its description, and its budget if its caches are here.
async fn target(config: &Config) -> Result<(String, Option<CacheBudget>)> {
    let OpenedTarget { dir, mut engine, described, comparison } = open(config).await?;
    let (identity, context, promise) = (engine.identity(), engine.context_max(), engine.promise().name());
    let known = format!("{identity}, {}, context {context}, promise {promise}", dir.vocabulary);
    let known = described.map_or(known.clone(), |described| format!("{known}; {described}"));
    if let Some(Comparison { agree, unknown }) = comparison {
        let (agree, unknown) = (agree.join(", "), unknown.join(", "));
        let folder = dir.path.display();
        let compared = format!("compared with {folder}: {agree}; not compared: {unknown}; {PLAIN_ONLY}");
        return Ok((format!("{known}; {compared}"), None));
    }
    let budget = CacheBudget::of(config, &engine);
    // A budget that is too small is reported by itself; the pass may find no room in it.
    let warm = budget.is_none_or(|budget| budget.check().is_ok());
    if warm {
        engine.warm_up()?;
    }
    let memory = memory_mib().map_or_else(|| "unknown".into(), |mib| format!("{mib} MiB"));
    let when = if warm { "after the first pass" } else { "before the first pass" };
    Ok((format!("{known}; memory {memory} {when}"), budget))
}

/// Reports the memory for caches, and keys of which it is too little.
fn memory(findings: &mut Findings<impl io::Write>, config: &Config, budget: CacheBudget) -> io::Result<()> {
    if let Err(error) = budget.check() {
        return findings.bad(&error.to_string(), "docs/verifier.md says what a context costs");
    }
    let full = budget.sessions(budget.context);
    let sessions = config.sessions as u64;
    let less = format!("; {sessions} sessions may be open, and those beyond it drop each other");
    findings.good(&format!("memory: {budget}{}", if full < sessions { less.as_str() } else { "" }))
}

/// The description of the broker, and warnings about the connection.
async fn broker(config: &Config) -> Result<(String, Vec<String>)> {
    if config.embedded_broker {
        return Ok((format!("embedded, on {}", config.listen), Vec::new()));
    }
    let options = config.connect_options(&format!("dunlin-check-{}", std::process::id()))?;
    let facts = probe(&options).await.map_err(|loss| anyhow!(loss.reason))?;
    let BrokerFacts { packet_bytes_max, alias_max } = facts;
    let enough = packet_bytes_max.is_none_or(|max| max >= PACKET_BYTES_MAX);
    let packets = packet_bytes_max.map_or("of any size".into(), |max| format!("up to {max} bytes"));
    ensure!(enough, "{} takes packets {packets}, {PACKET_BYTES_MAX} are needed", config.broker);
    let Config { broker, security, .. } = config;
    let how = security.described(broker)?;
    let text = format!("connected to {broker} ({how}); packets {packets}, {alias_max} topic aliases");
    let access = round_trip(&options, &Topic::VerifierProbe(config.id.clone())).await;
    let access = access.err().map(|why| format!("access: {why}"));
    Ok((text, security.caution(broker)?.into_iter().chain(access).collect()))
}
