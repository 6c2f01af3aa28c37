//! Prompts: drafted inside the machine and verified outside; the reported energy is compared with the sensor's.

use super::super::stand::{Connected, SOON, Stand};
use super::super::steps::{BootSteps, Failed, heading};
use super::BootFigures;
use anyhow::{Context, Result, ensure};
use dunlin_hlm::time::Instant;
use dunlin_power::simulated::waveform::{StepWaveform as Power, Waveform};
use serde_json::Value;

/// The powers of two replies, W.
const POWERS: [f64; 2] = [3.2, 5.6];
/// During the third reply the power alternates: half a second, in µs, at each of the two.
const HALF: u64 = 500_000;
/// Largest difference between a report's duration and that of its energy, s.
const SPAN: f64 = 0.05;

pub(super) fn play(
    stand: &mut Stand,
    steps: &mut BootSteps,
    figures: &mut BootFigures,
    connected: &mut Connected,
) -> Result<(), Failed> {
    heading("Replies and their energy");
    steps.see("the sensor is on the machine's own I2C bus", || {
        let text = stand.guest.run("cat /sys/bus/i2c/devices/i2c-*/name; ls /dev/i2c-*")?;
        ensure!(text.contains("i2c-tiny-usb"), "{text}");
        Ok(text.replace('\n', ", "))
    })?;
    let [low, high] = POWERS;
    let square = Power::new([(HALF, low), (HALF, high)]).expect("it has two steps");
    let all = [
        (format!("a reply at {low} W"), Power::constant(low), 0.0),
        (format!("a reply at {high} W"), Power::constant(high), 0.0),
        (format!("a reply at {low} and {high} W by turns"), square, high - low),
    ];
    let mut committed = 0;
    for (name, power, swing) in all {
        let reply = steps.step(&name, || {
            stand.sensor.turn(power.clone());
            let prompt = stand.prompt();
            let reply = stand.reply(&prompt)?;
            let seen = looked_at(&reply, &power, swing).with_context(|| {
                let probe = "systemctl show -p DeviceAllow dunlin-agent; ls -l /dev/i2c-*";
                [probe, "dunlin-agent power probe --config /etc/dunlin/agent.toml"]
                    .map(|script| stand.guest.attempt(script).unwrap_or_default().1)
                    .join("\n")
            })?;
            Ok((seen, reply))
        })?;
        committed += reply["committed_tokens"].as_u64().unwrap_or(0);
        figures.note(&reply);
    }
    steps.see("the verifier has it too", || {
        let verifier = stand.verifier.as_ref().context("there is no verifier")?;
        let report = connected.running.until(&stand.stop, "a report of energy", SOON, |_| {
            let last = verifier.energy()?.pop();
            Ok(last.filter(|report| report["committed"] == committed))
        })?;
        ensure!(report["source"] == "ina219", "source {}", report["source"]);
        Ok(format!("{} reports, {committed} tokens, source {}", report["reports"], report["source"]))
    })
}

impl BootFigures {
    /// Counts a reply that equalled the target-only one.
    pub(super) fn note(&mut self, reply: &Value) {
        self.identical_replies += 1;
        self.samples_per_second.extend(reply["energy"]["samples_per_second"].as_f64());
        self.acceptance.extend(reply["acceptance"].as_f64());
    }
}

/// Checks that a reply was drafted and corrected and that its energy is within bounds. `swing` is the change of power
/// every half second, W.
fn looked_at(reply: &Value, power: &Power, swing: f64) -> Result<String> {
    let number = |value: &Value, name: &str| {
        value[name].as_f64().with_context(|| format!("the report has no {name}: {value}"))
    };
    let (rounds, acceptance) = (number(reply, "rounds")?, number(reply, "acceptance")?);
    ensure!(rounds > 0.0 && acceptance > 0.0, "nothing was drafted and accepted: {reply}");
    let energy = &reply["energy"];
    let source = energy["source"].as_str().unwrap_or_default();
    ensure!(source == "measured (ina219)", "source of the energy: {source}");
    let part = energy["part"].as_str().unwrap_or_default();
    ensure!(part.contains("/dev/i2c-"), "part: {part}");
    ensure!(energy["meter"]["realtime"] == true, "the service may not give the meter real-time priority");
    let (joules, seconds, rate) =
        (number(energy, "joules")?, number(reply, "seconds")?, number(energy, "samples_per_second")?);
    ensure!(rate > 0.0, "the sensor gave no reading");
    let off = number(energy, "uncertainty_joules")? + unseen(swing, seconds, rate);
    let (least, most) = bounds(power, seconds);
    ensure!(
        (least - off..=most + off).contains(&joules),
        "{joules:.3} J ± {off:.3} J in {seconds:.2} s, where {least:.3} to {most:.3} J were drawn"
    );
    Ok(format!(
        "{} tokens as the target alone writes them, {:.0} % accepted; {joules:.2} J ± {off:.2} J where {least:.2} to \
         {most:.2} J were drawn, {:.0} readings a second of {part}",
        reply["committed_tokens"],
        acceptance * 100.0,
        rate,
    ))
}

/// Energy error from changes of power between two readings, J: each change may be anywhere between them, but is assumed
/// to be in the middle.
fn unseen(swing: f64, seconds: f64, rate: f64) -> f64 {
    let changes = seconds * 1e6 / HALF as f64;
    swing * changes / rate / 2.0
}

/// The least and the most energy of any window of so many seconds, J.
fn bounds(power: &Power, seconds: f64) -> (f64, f64) {
    let span = |seconds: f64| (seconds.max(0.0) * 1e6) as u64;
    let (short, long) = (span(seconds - SPAN), span(seconds + SPAN));
    let between = |from: u64, length: u64| power.joules(Instant(from + length)) - power.joules(Instant(from));
    // Power changes at whole milliseconds.
    (0..2 * HALF).step_by(1000).fold((f64::INFINITY, 0.0_f64), |(least, most), from| {
        (least.min(between(from, short)), most.max(between(from, long)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_by_hand() {
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-3 && (b - d).abs() < 1e-3;
        assert!(near(bounds(&Power::constant(2.0), 1.0), (1.9, 2.1)));
        let square = Power::new([(HALF, 1.0), (HALF, 3.0)]).unwrap();
        // A window of 0.95 s may contain the whole low half, one of 1.05 s the whole high half.
        assert!(near(bounds(&square, 1.0), (0.5 + 0.45 * 3.0, 1.5 + 0.5 + 0.05 * 3.0)));
        assert!(near(bounds(&square, 0.0), (0.0, 0.15)));
    }

    #[test]
    fn a_change_hides_half_of_what_lies_between_two_readings() {
        // Four changes of 2 W in 2 s, with 0.1 s between two readings.
        assert!((unseen(2.0, 2.0, 10.0) - 0.4).abs() < 1e-9);
        assert!(unseen(0.0, 2.0, 10.0) == 0.0);
    }

    #[test]
    fn a_reply_with_another_energy_is_seen() {
        let reply = |joules: f64, acceptance: f64, source: &str| {
            json!({
                "rounds": 3, "acceptance": acceptance, "seconds": 2.0, "committed_tokens": 9,
                "energy": {"source": source, "part": "0x40 on /dev/i2c-0", "joules": joules,
                    "uncertainty_joules": 0.1, "samples_per_second": 12.0, "meter": {"realtime": true}},
            })
        };
        let mut silent = reply(6.0, 0.5, "measured (ina219)");
        silent["energy"]["samples_per_second"] = json!(0.0);
        let mut late = reply(6.0, 0.5, "measured (ina219)");
        late["energy"]["meter"]["realtime"] = json!(false);
        let look = |reply: &Value| looked_at(reply, &Power::constant(3.0), 0.0);
        assert!(look(&reply(6.2, 0.5, "measured (ina219)")).is_ok());
        assert!(look(&silent).is_err());
        assert!(look(&late).is_err());
        assert!(look(&reply(6.3, 0.5, "measured (ina219)")).is_err());
        assert!(look(&reply(5.7, 0.5, "measured (ina219)")).is_err());
        assert!(look(&reply(6.0, 0.0, "measured (ina219)")).is_err());
        assert!(look(&reply(6.0, 0.5, "simulated (ina219)")).is_err());
    }
}
