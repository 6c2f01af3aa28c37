//! The program with a sensor: the energy in its report, and the reports that it publishes.

use crate::process::{SEED, alone, generate, stderr, target, tokens};
use crate::verifier::{self, Plan};
use dunlin_link::raw::RawClient;
use dunlin_lm::ModelDir;
use dunlin_mosquitto::{Mosquitto, OPEN};
use dunlin_power::phase::EnergyPhase;
use dunlin_wire::topic::Topic;
use dunlin_wire::{EnergyReport, PhaseTotal, PowerSource, Telemetry};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::process::Stdio;
use tempfile::TempDir;

/// Allowed error of the split by phase, as a share of the whole. It is large because phases here last tenths of a
/// millisecond, and the machine has other work. Tests in virtual time allow one percent.
const SPLIT: f64 = 0.05;

/// Receives the device's energy reports and telemetry.
struct Ear {
    client: RawClient,
    held: VecDeque<(String, Vec<u8>)>,
}

impl Ear {
    fn start(port: u16) -> Self {
        let topics = [energy_topic(), telemetry_topic()].map(|topic| topic.name());
        let client = RawClient::connect(port, "ear", &[&topics[0], &topics[1]]);
        Self { client, held: VecDeque::new() }
    }

    /// The next message on a topic; messages on the other topic are kept.
    fn next(&mut self, topic: &Topic) -> Vec<u8> {
        let name = topic.name();
        if let Some(at) = self.held.iter().position(|(held, _)| held == name.as_str()) {
            return self.held.remove(at).unwrap().1;
        }
        loop {
            let message = self.client.blocking_next().unwrap();
            if message.topic == name.as_str() {
                return message.payload;
            }
            self.held.push_back((message.topic, message.payload));
        }
    }
}

fn energy_topic() -> Topic {
    Topic::Energy("pi-7".parse().unwrap(), verifier::id())
}

fn telemetry_topic() -> Topic {
    Topic::Telemetry("pi-7".parse().unwrap(), verifier::id())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_simulated_sensor_measures_the_agents_own_phases() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, target(), Plan::default());
    let mut ear = Ear::start(broker.port);
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, "[power]\nsource = \"simulated\"\naveraging = 1\n").unwrap();
    let mut agent = generate(&broker.url());
    agent.args(["--idle-seconds", "0.6", "--json", "--max-tokens", "80", "--config"]).arg(&config);
    let output = agent.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Measuring may change when frames are sent, but never the text.
    let model = ModelDir::open(crate::process::demo("drafter")).unwrap();
    let expected = alone().reply(&model.first_turn(crate::process::PROMPT).unwrap(), 80, &model.prompt.stop);
    assert_eq!(tokens(&report), expected, "seed {SEED}");

    let energy = &report["energy"];
    assert_eq!(energy["source"], "simulated (ina219)");
    let (joules, whole) = (number(&energy["joules"]), number(&report["seconds"]));
    let sum = |split: &Value| split.as_object().unwrap().values().map(number).sum::<f64>();
    assert!((sum(&energy["phases"]) / joules - 1.0).abs() < 1e-9);
    let truth = sum(&energy["truth"]);
    for (phase, joules) in energy["phases"].as_object().unwrap() {
        let off = (number(joules) - number(&energy["truth"][phase])).abs();
        assert!(off <= SPLIT * truth, "{phase} is off by {off} of {truth} J: {energy:#}");
    }
    let idle = number(&energy["idle_watts"]);
    assert!((idle - 2.7).abs() < 0.05 && energy["idle_from"] == "measured", "{energy:#}");
    assert!((number(&energy["joules_above_idle"]) - (joules - idle * whole)).abs() < 0.01 * joules);
    let committed = number(&report["committed_tokens"]);
    assert!((number(&energy["joules_per_committed_token"]) * committed / joules - 1.0).abs() < 1e-9);
    assert!(number(&energy["load_joules"]) > 0.0 && number(&energy["samples"]) > 0.0);

    let told = EnergyReport::decode(&ear.next(&energy_topic())).unwrap();
    assert_eq!((told.source, told.reports, told.requests), (PowerSource::Simulated, 1, 1));
    assert_eq!(told.committed, expected.len() as u64);
    assert_eq!(told.drafted, report["draft_steps"].as_u64().unwrap());
    let micro = number(&energy["phases"]["draft"]) * 1e6;
    assert!((told.phases.draft.energy_uj as f64 - micro).abs() < 2.0, "{told:?}");
}

#[test]
fn decisions_are_in_joules_once_power_by_phase_is_known() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("agent.toml");
    let power = "[power]\nsource = \"simulated\"\naveraging = 1\ncalibration = \"power.toml\"\n";
    fs::write(&config, power).unwrap();
    fs::write(dir.path().join("power.toml"), "[idle]\nwatts = 2.5\nseconds = 30.0\n").unwrap();
    // A policy without a verifier drafts without pauses.
    let mut agent = crate::process::serve("mqtt://127.0.0.1:1");
    agent.args(["--policy", "local", "--json", "--config"]).arg(&config);
    let mut child = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut prompts = child.stdin.take().unwrap();
    (0..30).for_each(|_| writeln!(prompts, "/new\n{}", crate::process::PROMPT).unwrap());
    drop(prompts);
    let output = child.wait_with_output().unwrap();
    let events: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["event"] == "finished")
        .collect();
    assert_eq!(events.len(), 30);
    let prices = &events[29]["prices"];
    assert_eq!(prices["unit"], "J/s");
    assert!((number(&prices["draft"]) - 6.8).abs() < 1.0, "{prices}");
    // Once enough is measured, it replaces the calibration file's power.
    assert!((2.4..2.8).contains(&number(&prices["wait"])), "{prices}");
}

#[test]
fn counters_grow_from_reply_to_reply_and_telemetry_comes_between() {
    let broker = Mosquitto::with(OPEN);
    let _verifier = verifier::start(broker.port, target(), Plan::default());
    let mut ear = Ear::start(broker.port);
    let mut agent = crate::process::serve(&broker.url());
    agent.args(["--power", "simulated", "--json"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = agent.spawn().unwrap();
    let mut prompts = child.stdin.take().unwrap();
    writeln!(prompts, "{}", crate::process::PROMPT).unwrap();
    let first = EnergyReport::decode(&ear.next(&energy_topic())).unwrap();
    let telemetry: Vec<Telemetry> =
        (0..2).map(|_| Telemetry::decode(&ear.next(&telemetry_topic())).unwrap()).collect();
    writeln!(prompts, "For two people.").unwrap();
    let second = EnergyReport::decode(&ear.next(&energy_topic())).unwrap();
    drop(prompts);
    assert!(child.wait().unwrap().success());
    assert_eq!((first.run, first.reports, second.reports), (second.run, 1, 2));
    for ((_, before), (name, after)) in first.phases.named().into_iter().zip(second.phases.named()) {
        let PhaseTotal { energy_uj, time_us } = after;
        assert!(energy_uj >= before.energy_uj && time_us >= before.time_us, "{name}");
    }
    assert!(second.phases.draft.energy_uj > first.phases.draft.energy_uj);
    assert!(telemetry[1].energy_uj > telemetry[0].energy_uj && telemetry[1].at_us > telemetry[0].at_us);
    assert!((2000..7000).contains(&telemetry[1].mean_mw), "{telemetry:?}");
    assert!(second.idle_mw.is_some_and(|idle| (2600..2800).contains(&idle)), "{second:?}");
    assert_eq!(EnergyPhase::ALL.map(EnergyPhase::name), second.phases.named().map(|(name, _)| name));
}

#[test]
fn a_kernels_monitor_is_found_and_said() {
    let (broker, dir) = (Mosquitto::with(OPEN), TempDir::new().unwrap());
    let _verifier = verifier::start(broker.port, target(), Plan::default());
    let chip = dir.path().join("sys/class/hwmon/hwmon3");
    fs::create_dir_all(&chip).unwrap();
    for (file, text) in
        [("name", "ina226"), ("power1_input", "3500000"), ("in1_input", "5000"), ("curr1_input", "700")]
    {
        fs::write(chip.join(file), text).unwrap();
    }
    let config = dir.path().join("agent.toml");
    fs::write(&config, format!("[power]\nsysfs = {:?}\ni2c = \"none\"\n", dir.path().join("sys"))).unwrap();
    let zone = dir.path().join("sys/class/thermal/thermal_zone0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("type"), "cpu-thermal\n").unwrap();
    fs::write(zone.join("temp"), "61234\n").unwrap();
    let file = dir.path().join("report.json");
    let mut agent = generate(&broker.url());
    agent.args(["--max-tokens", "40", "--config"]).arg(&config).arg("--report").arg(&file);
    let output = agent.output().unwrap();
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["energy"]["temperature_c"], 61.234);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("energy measured (hwmon): "), "{said}");
    let watts = said.lines().find(|line| line.contains("by phase")).unwrap();
    assert!(watts.starts_with("energy measured (hwmon) by phase: draft "), "{watts}");
}

#[test]
fn a_source_that_is_named_and_not_there_ends_it() {
    let mut agent = generate("mqtt://127.0.0.1:1");
    let output = agent.args(["--power", "ina219"]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("power source ina219: ") && said.contains("/dev/i2c-1"), "{said}");
    let output = generate("mqtt://127.0.0.1:1").args(["--power", "magic"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("--power: unknown power source \"magic\"; known are auto, none, ina219")
    );
}
