//! The cost of a reply: one JSON object for programs, a few lines on standard error for people.

use crate::provenance::Provenance;
use crate::screen::{Abilities, Colour};
use crate::turn::{Phases, Turn};
use dunlin_hlm::TokenId;
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::Duration;
use dunlin_power::report::{EnergyFields, MeasuredFields};
use serde::Serialize;
use std::io::Write;

/// Characters of a whole bar.
const BAR: usize = 24;

/// The report of one reply. Its field names are an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The reply's text, without control tokens.
    pub text: String,
    /// The prompt as given.
    pub prompt: String,
    /// The policy's name.
    pub policy: String,
    /// The session's seed.
    pub seed: u64,
    /// Softmax temperature.
    pub temperature: f32,
    /// Nucleus mass.
    pub top_p: f32,
    /// Number of most likely tokens kept; 0 keeps all.
    pub top_k: u32,
    /// Tokens of the reply.
    pub committed_tokens: u64,
    /// Their ids.
    pub tokens: Vec<TokenId>,
    /// Verdicts that counted.
    pub rounds: u64,
    /// Draft frames sent, retransmissions included.
    pub frames_up: u64,
    /// Bytes of the protocol's messages sent.
    pub payload_bytes_up: u64,
    /// Bytes of the protocol's messages received.
    pub payload_bytes_down: u64,
    /// Bytes of PUBLISH packets sent.
    pub mqtt_bytes_up: u64,
    /// Bytes of PUBLISH packets received.
    pub mqtt_bytes_down: u64,
    /// Bytes of all other MQTT packets sent.
    pub mqtt_control_bytes_up: u64,
    /// Bytes of all other MQTT packets received.
    pub mqtt_control_bytes_down: u64,
    /// Drafts sent to the verifier.
    pub drafted_tokens: u64,
    /// Tokens that the drafter produced, those never sent included.
    pub draft_steps: u64,
    /// Drafts the target agreed with.
    pub accepted_tokens: u64,
    /// Tokens that the verifier wrote without a draft, beyond its verdicts.
    pub streamed_tokens: u64,
    /// `accepted_tokens / drafted_tokens`; 0 if none was sent.
    pub acceptance: f64,
    /// Tokens committed without the target because nobody answered.
    pub unverified_tokens: u64,
    /// Tokens kept under the policy, unverified or against the target's choice.
    pub trusted_tokens: u64,
    /// Committed tokens that the drafter lacks; it reads its unknown token instead.
    pub foreign_tokens: u64,
    /// Times the drafter's context was full, so that it read the text's beginning and end again.
    pub drafter_refills: u64,
    /// Draft frames retransmitted.
    pub resent: u64,
    /// Times the verifier asked for context.
    pub resyncs: u64,
    /// Requests for a lease.
    pub opens: u64,
    /// Malformed messages dropped.
    pub malformed: u64,
    /// From the prompt to the end of the reply.
    pub seconds: f64,
    /// Time by phase.
    pub phases: PhaseSeconds,
    /// Prices used to choose the draft length.
    pub prices: PriceFields,
    /// Measured energy.
    pub energy: EnergyFields,
    /// The verifier that wrote last; null if none did.
    pub verifier: Option<String>,
    /// Its model's name.
    pub model: Option<String>,
    /// The engine that ran the model, and its numerics.
    pub engine: Option<String>,
    /// The target's weights and numerics, 8 bytes in hexadecimal.
    pub target: Option<String>,
    /// The target's promise: exact, distribution or approximate.
    pub promise: Option<&'static str>,
    /// The first token that the same prompt and seed need not produce again.
    pub not_reproducible_from: Option<usize>,
    /// The first token that another model wrote.
    pub model_changed_from: Option<usize>,
    /// Why the reply ended.
    pub finish: &'static str,
}

/// Seconds by the device's activity; they add up to `seconds`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PhaseSeconds {
    /// The drafter ran.
    pub draft: f64,
    /// Sampling, scores, policy and display.
    pub score: f64,
    /// Handing messages to the link.
    pub send: f64,
    /// Only an answer was missing.
    pub wait: f64,
    /// No reply was under way.
    pub idle: f64,
}

/// Assumed cost of a second when the draft length was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PriceFields {
    /// While the drafter runs.
    pub draft: f64,
    /// While only an answer is missing.
    pub wait: f64,
    /// `J/s` if a sensor knows the power, otherwise `s/s`.
    pub unit: &'static str,
}

impl From<Prices> for PriceFields {
    fn from(prices: Prices) -> Self {
        let unit = if prices == Prices::SECONDS { "s/s" } else { "J/s" };
        Self { draft: prices.draft(), wait: prices.wait(), unit }
    }
}

impl From<Phases> for PhaseSeconds {
    fn from(phases: Phases) -> Self {
        Self {
            draft: phases.draft.as_secs_f64(),
            score: phases.score.as_secs_f64(),
            send: phases.send.as_secs_f64(),
            wait: phases.wait.as_secs_f64(),
            idle: phases.idle.as_secs_f64(),
        }
    }
}

impl Report {
    /// The report of `turn`, with the reply's `text`.
    pub fn new(turn: &Turn, prompt: &str, text: String, policy: &str, sampling: &Sampling) -> Self {
        let (counted, writer) = (&turn.counters, turn.provenance.writer.as_ref());
        Self {
            text,
            prompt: prompt.into(),
            policy: policy.into(),
            seed: turn.seed,
            temperature: sampling.temperature(),
            top_p: sampling.top_p(),
            top_k: sampling.top_k(),
            committed_tokens: counted.committed,
            tokens: turn.tokens.clone(),
            rounds: counted.rounds,
            frames_up: counted.frames_up,
            payload_bytes_up: counted.payload_bytes_up,
            payload_bytes_down: counted.payload_bytes_down,
            mqtt_bytes_up: turn.traffic.publish_up,
            mqtt_bytes_down: turn.traffic.publish_down,
            mqtt_control_bytes_up: turn.traffic.control_up,
            mqtt_control_bytes_down: turn.traffic.control_down,
            drafted_tokens: counted.sent_drafts,
            draft_steps: counted.drafted,
            accepted_tokens: counted.accepted,
            streamed_tokens: counted.streamed,
            acceptance: share(counted.accepted, counted.sent_drafts),
            unverified_tokens: counted.unverified,
            trusted_tokens: turn.counters.trusted,
            foreign_tokens: counted.foreign,
            drafter_refills: counted.refills,
            resent: counted.resent,
            resyncs: counted.resyncs,
            opens: counted.opens,
            malformed: counted.malformed,
            seconds: turn.took.as_secs_f64(),
            phases: turn.phases.into(),
            prices: turn.prices.into(),
            energy: EnergyFields::new(turn.energy.as_ref(), counted),
            verifier: writer.map(|writer| writer.verifier.to_string()),
            model: writer.map(|writer| writer.model.clone()),
            engine: writer.map(|writer| writer.engine.clone()),
            target: writer.map(|writer| writer.target.to_string()),
            promise: writer.map(|writer| writer.promise.name()),
            not_reproducible_from: turn.provenance.not_reproducible_from,
            model_changed_from: turn.provenance.model_changed_from,
            finish: turn.ending.name(),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Writes one line to standard error.
pub fn line(abilities: Abilities, colour: Colour, text: &str) {
    let text = match abilities.colour {
        true => format!("{}{text}{}", colour.begin(), Colour::Plain.begin()),
        false => text.into(),
    };
    // Ignore the error: standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes the cost of a reply to standard error.
pub fn summary(turn: &Turn, abilities: Abilities) {
    for text in counts(turn) {
        line(abilities, Colour::Plain, &text);
    }
    for (name, colour, spent) in bars(&turn.phases) {
        line(abilities, colour, &bar(name, spent, turn.took));
    }
    let energy = EnergyFields::new(turn.energy.as_ref(), &turn.counters);
    if let Some(measured) = &energy.measured {
        for (colour, text) in energy_lines(&energy.source, measured) {
            line(abilities, colour, &text);
        }
    }
}

/// Lines for the energy: joules and their source, joules per token, phases, and doubts about the figures.
fn energy_lines(source: &str, measured: &MeasuredFields) -> Vec<(Colour, String)> {
    let mut lines = vec![(
        Colour::Plain,
        format!(
            "energy {source}: {:.3} J ± {:.3} J, {} a token{}",
            measured.joules,
            measured.uncertainty_joules,
            joules(measured.joules_per_committed_token),
            match (measured.joules_above_idle, measured.idle_watts) {
                (Some(above), Some(idle)) =>
                    format!("; {above:.3} J above the {idle:.2} W of the idle board"),
                _ => "; what the idle board draws is not known".into(),
            }
        ),
    )];
    let split: Vec<String> =
        measured.phases.named().iter().map(|(name, joules)| format!("{name} {joules:.3} J")).collect();
    lines.push((Colour::Plain, format!("energy {source} by phase: {}", split.join(", "))));
    if let Some(truth) = &measured.truth {
        let split: Vec<String> =
            truth.named().iter().map(|(name, joules)| format!("{name} {joules:.3} J")).collect();
        lines.push((Colour::Plain, format!("simulated truth by phase: {}", split.join(", "))));
    }
    let doubts = measured.doubts();
    if !doubts.is_empty() {
        lines.push((Colour::Yellow, format!("energy {source} in doubt: {}", doubts.join(", "))));
    }
    lines
}

fn joules(figure: Option<f64>) -> String {
    figure.map_or("no J".into(), |joules| format!("{joules:.4} J"))
}

fn counts(turn: &Turn) -> Vec<String> {
    let c = &turn.counters;
    let acceptance = 100.0 * share(c.accepted, c.sent_drafts);
    let mut lines = vec![
        format!(
            "{} tokens in {:.2} s, {} rounds, {} frames ({} again), ended: {}",
            c.committed,
            turn.took.as_secs_f64(),
            c.rounds,
            c.frames_up,
            c.resent,
            turn.ending.name()
        ),
        format!(
            "up {} B payload, {} B MQTT; down {} B payload, {} B MQTT",
            c.payload_bytes_up, turn.traffic.publish_up, c.payload_bytes_down, turn.traffic.publish_down
        ),
        format!(
            "accepted {} of {} drafts sent ({acceptance:.0} %), {:.2} drafter steps per token",
            c.accepted,
            c.sent_drafts,
            share(c.drafted, c.committed)
        ),
    ];
    let Provenance { writer, not_reproducible_from, model_changed_from } = &turn.provenance;
    lines.extend(writer.as_ref().map(|writer| format!("written by {}", writer.described())));
    lines.extend(model_changed_from.map(|token| format!("another model wrote from token {token} on")));
    lines.extend(not_reproducible_from.map(|token| format!("not reproducible from token {token} on")));
    if turn.counters.trusted > 0 {
        lines.push(format!("{} of the tokens are trusted, not the target's word", turn.counters.trusted));
    }
    if c.unverified > 0 {
        lines.push(format!("{} of the tokens are unverified", c.unverified));
    }
    lines
}

fn bars(phases: &Phases) -> [(&'static str, Colour, Duration); 5] {
    [
        ("draft", Colour::Green, phases.draft),
        ("score", Colour::Green, phases.score),
        ("send", Colour::Yellow, phases.send),
        ("wait", Colour::Red, phases.wait),
        ("idle", Colour::Plain, phases.idle),
    ]
}

fn bar(name: &str, spent: Duration, whole: Duration) -> String {
    let share = share(spent.0, whole.0).min(1.0);
    let full = (share * BAR as f64).round() as usize;
    let (full, empty) = ("█".repeat(full), "·".repeat(BAR - full));
    format!("{name:>5} {full}{empty} {:>4.0} % {:>8.3} s", share * 100.0, spent.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_its_share() {
        let bar = bar("wait", Duration(250_000), Duration(1_000_000));
        assert_eq!(bar, " wait ██████··················   25 %    0.250 s");
    }

    #[test]
    fn nothing_of_nothing_is_no_share() {
        assert_eq!(share(0, 0), 0.0);
    }
}
