//! `check`: tests everything that a reply needs, and suggests a fix for each failure.

use crate::config::Settings;
use crate::drafter::Described;
use crate::exit::{DONE, FAILED, NO_BROKER, USAGE};
use crate::link::{Link, LinkConfig, LinkEvent};
use crate::power::advice;
use crate::terminal::{ColourChoice, abilities};
use crate::turn::described;
use crate::{provenance, random, setup};
use anyhow::Result;
use dunlin_link::{Loss, round_trip};
use dunlin_power::clock::Clock;
use dunlin_power::probe;
use dunlin_power::settings::{Choice, PowerSettings};
use dunlin_wire::topic::Topic;
use dunlin_wire::{Liveness, VerifierId, VerifierPresence, Vocabulary};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};

/// Time limit of connecting to the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(6);
/// Time limit of receiving the verifiers' presence.
const PRESENCE_TIMEOUT: Duration = Duration::from_secs(2);
/// 2025-01-01: a clock that shows an earlier date was never set.
const CLOCK_MIN: Duration = Duration::from_secs(1_735_689_600);

/// Findings on standard output.
pub(crate) type Findings = dunlin_service::Findings<io::Stdout>;

/// An empty list of findings.
pub(crate) fn findings(choice: ColourChoice) -> Findings {
    Findings::new(io::stdout(), abilities(choice, &io::stdout()).colour)
}

/// Checks everything; returns the exit code.
///
/// # Errors
/// Standard output can't be written to.
pub async fn check(settings: Result<Settings>, choice: ColourChoice) -> Result<u8> {
    let mut findings = findings(choice);
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            findings
                .bad(&format!("configuration: {error:#}"), "correct it; docs/agent.md lists every key")?;
            return Ok(USAGE);
        }
    };
    let board = settings.board.as_ref().map_or("none named", |board| board.name.as_str());
    let policy = settings.policy.name();
    findings.good(&format!("configuration: device {}, board {board}, policy {policy}", settings.device))?;
    clock(&mut findings)?;
    power(&settings.power, &mut findings)?;
    let vocabulary = model(&settings, &mut findings).await?;
    let is_bad_elsewhere = findings.is_bad();
    let is_connected = broker(&settings, vocabulary.as_ref(), &mut findings).await?;
    Ok(match findings.is_bad() {
        false => DONE,
        true if is_bad_elsewhere || is_connected => FAILED,
        true => NO_BROKER,
    })
}

fn clock(findings: &mut Findings) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if now < CLOCK_MIN {
        findings.bad(
            "clock: the system clock is before 2025",
            "set it, or run systemd-timesyncd or chrony: presence messages are ordered by it",
        )?;
        return Ok(());
    }
    Ok(findings.good("clock: set")?)
}

/// A missing sensor is not a failure; a configured one that doesn't answer is.
fn power(settings: &PowerSettings, findings: &mut Findings) -> Result<()> {
    let none = "power: no sensor found, only time is measured; `dunlin-agent power probe` says why";
    match (probe::open(settings, Clock::start()), settings.choice) {
        (Ok(Some(found)), _) => {
            let source = found.sensor.source();
            findings.good(&format!("power: {source}, {}", source.part))?;
            found.caution.map_or(Ok(()), |caution| findings.doubtful(&caution))?;
        }
        (Ok(None), Choice::None) => findings.good("power: not measured, as configured")?,
        (Ok(None), _) => findings.good(none)?,
        (Err(error), Choice::Only(kind)) => {
            let said = format!("{error:#}");
            findings.bad(&format!("power: {said}"), &advice::of(kind, &said, settings))?;
        }
        (Err(error), _) => return Err(error),
    }
    Ok(())
}

async fn model(settings: &Settings, findings: &mut Findings) -> Result<Option<Vocabulary>> {
    match run_model(settings).await {
        Err(error) => {
            findings.bad(&format!("model: {error:#}"), "name a drafter's directory with --model DIR")?;
            Ok(None)
        }
        Ok(Tried { name, context, step, memory, vocabulary, form }) => {
            let pace = match step {
                Some((step, _)) => format!("{:.1} ms a token", step.as_secs_f64() * 1e3),
                None => "drafts nothing under this policy".into(),
            };
            let text = described(&vocabulary);
            findings.good(&format!("model: {name}, context of {context} tokens, {pace}, {text}"))?;
            if let Some((step, tokens)) = step {
                let seconds = step.as_secs_f64() * tokens as f64;
                findings.good(&format!(
                    "a longer text: when {context} tokens are full, the drafter reads {tokens} again, {seconds:.1} s at most"
                ))?;
            }
            findings.good(&format!("a one-line chat: \"{}\"", form.escape_debug()))?;
            if let Some(memory) = memory {
                findings.good(&format!("memory: {memory}"))?;
            }
            Ok(Some(vocabulary))
        }
    }
}

/// The measurements of a drafter that ran one step.
struct Tried {
    name: String,
    context: usize,
    /// Time of a drafted token, and the tokens that the drafter reads again when its context is full; `None` if the policy
    /// drafts nothing.
    step: Option<(Duration, usize)>,
    /// Its share of the board's memory, in words.
    memory: Option<String>,
    vocabulary: Vocabulary,
    /// The form of a conversation in which the user says "Hello".
    form: String,
}

/// Loads the drafter and lets it take a step behind its prompt form.
async fn run_model(settings: &Settings) -> Result<Tried> {
    let model = setup::model_of(settings)?;
    let form = model.shown_form()?;
    if !settings.rules.drafts() {
        let (context, vocabulary) = (settings.context_tokens_max(model.context_max), model.vocabulary);
        return Ok(Tried { name: model.name, context, step: None, memory: None, vocabulary, form });
    }
    let mut worker = setup::worker(settings, &model).await?;
    let step = setup::time_of_a_token(&mut worker, &model).await?;
    let Described { context_max: context, refill_tokens, cache_bytes_per_token, .. } = worker.described();
    let memory = settings.memory(&model.weights, model.vocabulary.size)?;
    let cache = (context as u64).saturating_mul(cache_bytes_per_token).div_ceil(1 << 20);
    let memory = memory
        .map(|weights| format!("{weights}; a full context of {context} tokens takes up to {cache} MiB more"));
    Ok(Tried {
        name: model.name,
        context,
        step: Some((Duration::from_micros(step.0), refill_tokens)),
        memory,
        vocabulary: model.vocabulary,
        form,
    })
}

/// Checks the broker and its verifiers; true if the broker was reached.
async fn broker(settings: &Settings, own: Option<&Vocabulary>, findings: &mut Findings) -> Result<bool> {
    let mut link = visitor(settings)?;
    let mut seen = Presences::new();
    let connected = connect(&mut link, &mut seen).await;
    match &connected {
        Err(Loss { reason, refused: true }) => {
            findings
                .bad(&format!("broker: {reason}"), "docs/tls.md and docs/access.md explain the causes")?;
        }
        Err(Loss { reason, refused: false }) => {
            let advice = format!("start the broker at {}, or name another with --broker", settings.broker);
            findings.bad(&format!("broker: {reason}"), &advice)?;
        }
        Ok(()) => {
            let how = settings.security.described(&settings.broker)?;
            findings.good(&format!("broker: connected to {} ({how})", settings.broker))?;
            settings
                .security
                .caution(&settings.broker)?
                .map_or(Ok(()), |caution| findings.doubtful(&caution))?;
            let options = visitor_config(settings)?.options;
            match round_trip(&options, &Topic::DeviceProbe(settings.device.clone())).await {
                Ok(()) => findings.good("access: the broker passes this device's messages")?,
                Err(why) => findings.doubtful(&format!("access: {why}"))?,
            }
            presences(&mut link, own, &mut seen).await;
            verifiers(&seen, own, findings)?;
        }
    }
    link.close().await;
    Ok(connected.is_ok())
}

/// The verifiers' models, from their presence; empty if the broker can't be reached.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) async fn models(settings: &Settings, own: &Vocabulary) -> Result<BTreeMap<VerifierId, String>> {
    let mut link = visitor(settings)?;
    let mut seen = Presences::new();
    match connect(&mut link, &mut seen).await {
        Ok(()) => presences(&mut link, Some(own), &mut seen).await,
        Err(_) => seen.clear(),
    }
    link.close().await;
    Ok(seen.into_iter().map(|(verifier, presence)| (verifier, presence.model.to_string())).collect())
}

fn visitor(settings: &Settings) -> Result<Link> {
    Ok(Link::start(visitor_config(settings)?))
}

/// A connection under a client id of its own, so that a running agent of the same device keeps its connection.
fn visitor_config(settings: &Settings) -> Result<LinkConfig> {
    let client_id = format!("{}-check-{:04x}", settings.device, random::number()? & 0xffff);
    let mut config = settings.link();
    (config.options.client_id, config.announce) = (client_id, false);
    Ok(config)
}

/// Waits until the link is up; a broker may send what it retains before it answers the subscription.
async fn connect(link: &mut Link, seen: &mut Presences) -> Result<(), Loss> {
    let deadline = Instant::now() + BROKER_TIMEOUT;
    loop {
        match timeout_at(deadline, link.next()).await {
            Ok(LinkEvent::Down(loss)) => return Err(loss),
            Ok(event) => note(seen, event),
            Err(_) => {
                let reason = format!("no answer within {BROKER_TIMEOUT:?}");
                return Err(Loss { reason, refused: false });
            }
        }
        if link.is_up() {
            return Ok(());
        }
    }
}

type Presences = BTreeMap<VerifierId, VerifierPresence>;

/// Takes in the verifiers that say they are there, until one that suits is seen or time is up.
async fn presences(link: &mut Link, own: Option<&Vocabulary>, seen: &mut Presences) {
    let deadline = Instant::now() + PRESENCE_TIMEOUT;
    while !seen.values().any(|presence| suits(presence, own)) {
        let Ok(event) = timeout_at(deadline, link.next()).await else { return };
        note(seen, event);
    }
}

fn note(seen: &mut Presences, event: LinkEvent) {
    let LinkEvent::Presence(presences) = event else { return };
    for (verifier, bytes) in presences {
        match VerifierPresence::decode(&bytes) {
            Ok(presence) => seen.insert(verifier, presence),
            Err(_) => seen.remove(&verifier),
        };
    }
}

fn suits(presence: &VerifierPresence, own: Option<&Vocabulary>) -> bool {
    let speaks = own.is_none_or(|own| *own == presence.vocabulary);
    presence.liveness == Liveness::Here && !presence.draining && speaks
}

fn verifiers(seen: &Presences, own: Option<&Vocabulary>, findings: &mut Findings) -> io::Result<()> {
    if seen.is_empty() {
        return findings.bad(
            "verifier: none is announced at this broker",
            "start dunlin-verifier; if it runs, the broker's access list may hide dl1/v/+/st from this device",
        );
    }
    if let Some((name, presence)) = seen.iter().find(|(_, presence)| suits(presence, own)) {
        return findings.good(&format!("verifier: {name} with {}", target_described(presence)));
    }
    for (name, presence) in seen {
        let (what, advice) = unsuited(presence, own);
        findings.bad(&format!("verifier: {name} {what}"), advice)?;
    }
    Ok(())
}

/// Describes a verifier's target; the names come from outside, so they are escaped.
fn target_described(presence: &VerifierPresence) -> String {
    let VerifierPresence { target, promise, load, .. } = presence;
    let (model, engine) = (provenance::model(&presence.model), provenance::engine(presence));
    let (engine, promise) = (engine.escape_debug(), promise.name());
    let load = u32::from(*load) * 100 / 255;
    format!("{model} ({target}; {engine}; {promise}), {load} % of its sessions in use")
}

fn unsuited(presence: &VerifierPresence, own: Option<&Vocabulary>) -> (String, &'static str) {
    match presence.liveness {
        Liveness::Left => ("has left".into(), "start it again"),
        Liveness::Lost => ("lost its connection".into(), "check that it runs and reaches the broker"),
        Liveness::Here if presence.draining => {
            ("is draining".into(), "start another, or wait until it is back")
        }
        Liveness::Here => {
            let own = own.map_or("unknown".into(), described);
            let target = described(&presence.vocabulary);
            let what = format!("has another vocabulary: {target}; the drafter's is {own}");
            (what, "use a drafter and a target with the same vocabulary")
        }
    }
}
