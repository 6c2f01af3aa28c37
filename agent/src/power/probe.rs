//! `power probe`: lists the sources that answer, their readings, and advice for the others.

use super::examine::{Examined, ShownReading, examine};
use super::reader::Interrupts;
use super::{advice, say};
use crate::check::{Findings, findings};
use crate::exit::{DONE, FAILED, INTERRUPTED};
use crate::flags::Common;
use crate::terminal::ColourChoice;
use anyhow::{Context, Result};
use dunlin_power::health::Health;
use dunlin_power::probe::{SEARCHED, health};
use dunlin_power::report::ThrottlingFields;
use dunlin_power::settings::{Choice, PowerSettings};
use dunlin_wire::{PowerSource, Throttling};
use serde::Serialize;

/// Flags of `power probe`.
#[derive(Debug, clap::Args)]
pub(super) struct ProbeFlags {
    /// Write the result to standard output as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// The result of a probe. Its field names are an interface.
#[derive(Debug, Serialize)]
struct Probed {
    sources: Vec<SourceFields>,
    /// The source that `auto` selects.
    auto: Option<&'static str>,
    health: HealthFields,
}

#[derive(Debug, Serialize)]
struct SourceFields {
    source: &'static str,
    answers: bool,
    #[serde(flatten)]
    shown: Option<ShownFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownFields {
    part: String,
    boundary: String,
    period_seconds: f64,
    watts: f64,
    volts: Option<f64>,
    amperes: Option<f64>,
    /// Uncertainty of a power: a share of it, plus W.
    uncertainty_relative: f64,
    uncertainty_watts: f64,
    cautions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HealthFields {
    temperature_c: Option<f64>,
    throttling: Option<ThrottlingFields>,
}

/// Examines every source; returns the exit code.
pub(super) async fn probe(args: &ProbeFlags, settings: &PowerSettings, color: ColourChoice) -> Result<u8> {
    let mut interrupts = Interrupts::listen()?;
    let mut examined = Vec::new();
    for kind in wanted(settings.choice) {
        let settings = settings.clone();
        let looking = tokio::task::spawn_blocking(move || examine(&settings, kind));
        let Some(found) = interrupts.during(looking).await else { return Ok(INTERRUPTED) };
        examined.push(found.context("the look at a source")?);
    }
    let auto =
        SEARCHED.into_iter().find(|kind| examined.iter().any(|found| found.kind == *kind && found.opens));
    let health = health(settings).read();
    if args.json {
        let probed = Probed {
            sources: examined.iter().map(|found| SourceFields::new(found, settings)).collect(),
            auto: auto.map(PowerSource::name),
            health: health.into(),
        };
        say(&serde_json::to_string(&probed)?)?;
    } else {
        tell(&examined, auto, &health, settings, &mut findings(color))?;
    }
    Ok(if examined.iter().any(|found| found.shown.is_ok()) { DONE } else { FAILED })
}

/// The sources to examine: those of `auto`, plus the one that is named.
fn wanted(choice: Choice) -> Vec<PowerSource> {
    let named = match choice {
        Choice::Only(kind) if !SEARCHED.contains(&kind) => Some(kind),
        _ => None,
    };
    SEARCHED.into_iter().chain(named).collect()
}

fn tell(
    examined: &[Examined],
    auto: Option<PowerSource>,
    health: &Health,
    settings: &PowerSettings,
    findings: &mut Findings,
) -> Result<()> {
    for found in examined {
        match &found.shown {
            Err(said) => findings
                .bad(&format!("{}: {said}", found.kind.name()), &advice::of(found.kind, said, settings))?,
            Ok(shown) => {
                findings.good(&figures(shown))?;
                for text in [boundary(shown), uncertainty(shown)] {
                    say(&format!("  {text}"))?;
                }
                for caution in &shown.cautions {
                    findings.doubtful(caution)?;
                }
            }
        }
    }
    say(&format!("health: {}", of_health(health)))?;
    say(&match auto {
        Some(kind) => format!("auto takes {}", kind.name()),
        None => "auto finds no source: nothing would be measured".into(),
    })
}

fn figures(shown: &ShownReading) -> String {
    let ShownReading { source, sample, rail, .. } = shown;
    let rail = rail.map(|(volts, amperes)| format!(" ({volts}, {amperes})")).unwrap_or_default();
    let period = source.period.as_secs_f64();
    format!(
        "{source}: {}; {:.3} W{rail}; a reading each {:.1} ms, {:.1} a second",
        source.part,
        sample.watts,
        period * 1e3,
        1.0 / period
    )
}

fn boundary(shown: &ShownReading) -> String {
    format!("boundary: {}", shown.source.boundary)
}

fn uncertainty(shown: &ShownReading) -> String {
    let off = shown.source.uncertainty;
    format!("may be off by {:.1} % and {:.0} mW", off.relative * 100.0, off.offset_w * 1e3)
}

fn of_health(health: &Health) -> String {
    let temperature = match health.temperature_c {
        Some(degrees) => format!("{degrees:.1} °C"),
        None => "no temperature is reported".into(),
    };
    let throttling = match health.throttling {
        None => "throttling is not reported".into(),
        Some(throttling) if throttling.flags() == 0 => "not throttled".into(),
        Some(throttling) => {
            format!("now: {}; since the start: {}", causes(throttling), causes(throttling.since_boot()))
        }
    };
    format!("{temperature}; {throttling}")
}

fn causes(throttling: Throttling) -> String {
    let all = [
        (throttling.under_voltage(), "under-voltage"),
        (throttling.frequency_capped(), "frequency capped"),
        (throttling.throttled(), "throttled"),
        (throttling.soft_temperature_limit(), "soft temperature limit"),
    ];
    let held: Vec<&str> = all.iter().filter(|(holds, _)| *holds).map(|(_, cause)| *cause).collect();
    if held.is_empty() { "nothing".into() } else { held.join(", ") }
}

impl SourceFields {
    fn new(found: &Examined, settings: &PowerSettings) -> Self {
        let error = found.shown.as_ref().err();
        Self {
            source: found.kind.name(),
            answers: error.is_none(),
            shown: found.shown.as_ref().ok().map(ShownFields::from),
            error: error.cloned(),
            advice: error.map(|said| advice::of(found.kind, said, settings)),
        }
    }
}

impl From<&ShownReading> for ShownFields {
    fn from(shown: &ShownReading) -> Self {
        let ShownReading { source, cautions, sample, rail } = shown;
        Self {
            part: source.part.clone(),
            boundary: source.boundary.clone(),
            period_seconds: source.period.as_secs_f64(),
            watts: sample.watts,
            volts: rail.map(|(volts, _)| volts.as_f64()),
            amperes: rail.map(|(_, amperes)| amperes.as_f64()),
            uncertainty_relative: source.uncertainty.relative,
            uncertainty_watts: source.uncertainty.offset_w,
            cautions: cautions.clone(),
        }
    }
}

impl From<Health> for HealthFields {
    fn from(health: Health) -> Self {
        let throttling = health.throttling.map(|throttling| ThrottlingFields {
            now: throttling.flags() & 0xf,
            since_start: throttling.flags() >> 4,
        });
        Self { temperature_c: health.temperature_c, throttling }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_looked_at_only_where_it_is_named() {
        assert_eq!(wanted(Choice::Auto), SEARCHED);
        assert_eq!(wanted(Choice::None), SEARCHED);
        assert_eq!(wanted(Choice::Only(PowerSource::Pmic)), SEARCHED);
        assert_eq!(wanted(Choice::Only(PowerSource::Replay)).last(), Some(&PowerSource::Replay));
        assert_eq!(wanted(Choice::Only(PowerSource::Simulated)).len(), 5);
    }

    #[test]
    fn health_in_words() {
        let said = |temperature_c, flags: Option<u8>| {
            of_health(&Health { temperature_c, throttling: flags.map(Throttling::new) })
        };
        assert_eq!(said(None, None), "no temperature is reported; throttling is not reported");
        assert_eq!(said(Some(47.71), Some(0)), "47.7 °C; not throttled");
        let throttled = said(Some(80.0), Some(0x59));
        assert_eq!(
            throttled,
            "80.0 °C; now: under-voltage, soft temperature limit; since the start: under-voltage, throttled"
        );
        assert!(said(None, Some(0x40)).ends_with("now: nothing; since the start: throttled"));
    }
}
