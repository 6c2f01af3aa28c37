//! Reports and telemetry in every order: checks the counters and the log.

use super::*;
use crate::logged::logged;
use crate::ration::WARNINGS_MAX;
use dunlin_wire::{MeterFaults, PhaseTotal, PhaseTotals};

/// Report number `reports` of a run, with 1 J and 10 tokens per report.
fn report(run: u32, reports: u32) -> EnergyReport {
    let total =
        |millijoules: u64| PhaseTotal { energy_uj: u64::from(reports) * millijoules * 1000, time_us: 1 };
    let (draft, wait, load, idle) = (total(700), total(300), total(30), total(20));
    EnergyReport {
        run,
        reports,
        source: PowerSource::Ina219,
        requests: reports,
        phases: PhaseTotals { draft, wait, load, idle, ..PhaseTotals::default() },
        idle_mw: None,
        uncertainty_uj: 10_000,
        committed: u64::from(reports) * 10,
        drafted: 0,
        frames: 0,
        faults: MeterFaults::default(),
    }
}

fn telemetry(run: u32, at_us: u64) -> Telemetry {
    Telemetry {
        run,
        at_us,
        source: PowerSource::Simulated,
        mean_mw: 3000,
        peak_mw: 6000,
        energy_uj: at_us,
        temperature_dc: Some(-15),
        throttling: None,
        faults: MeterFaults::default(),
    }
}

fn energy() -> EnergyCollector {
    EnergyCollector::start(None).unwrap()
}

/// The log of a report.
fn said(energy: &mut EnergyCollector, report: &EnergyReport) -> String {
    let bytes = report.encode().unwrap();
    logged(|| energy.handle_report(&"d1".parse().unwrap(), &bytes, Duration::ZERO)).1
}

/// The log of a telemetry message.
fn said_of(energy: &mut EnergyCollector, telemetry: &Telemetry) -> String {
    let bytes = telemetry.encode().unwrap();
    logged(|| energy.handle_telemetry(&"d1".parse().unwrap(), &bytes, Duration::ZERO)).1
}

#[test]
fn a_report_is_one_line_with_its_source() {
    let mut energy = energy();
    assert_eq!(
        said(&mut energy, &report(7, 1)),
        " INFO energy device=d1 source=\"measured (ina219)\" run=7 report=1 joules=1.000 committed=10 \
         joules_per_token=0.1000 idle_and_load_joules=0.050 run_joules=1.050 ± 0.010 unseen=0 faults=none\n"
    );
    let faults = MeterFaults { gaps: 2, gap_us: 1500, failed: 1, ..MeterFaults::default() };
    let after = said(&mut energy, &EnergyReport { faults, committed: 10, ..report(7, 3) });
    for part in
        ["joules=2.000 ", "joules_per_token=none", "unseen=1", "faults=2 ms of gaps, 2 gaps, 1 failed"]
    {
        assert!(after.contains(part), "{part} in {after}");
    }
    let same = said(&mut energy, &EnergyReport { faults, ..report(7, 4) });
    assert!(same.contains("joules=1.000 ") && same.contains("faults=none"), "{same}");
    assert!(same.contains("run_joules=4.200 ± 0.010"), "{same}");
}

#[test]
fn every_source_says_what_it_is_worth() {
    use PowerSource::{Hwmon, Ina219, Pmic, Powercap, Replay, Simulated};
    for source in [Ina219, Hwmon, Pmic, Powercap] {
        assert_eq!(label(source), format!("measured ({})", source.name()));
    }
    assert_eq!((label(Replay), label(Simulated)), ("replayed", "simulated (ina219)"));
    let mut energy = energy();
    let said = said(&mut energy, &EnergyReport { source: Simulated, ..report(7, 1) });
    assert!(said.contains("source=\"simulated (ina219)\""), "{said}");
}

#[test]
fn reports_in_any_order_give_no_negative_figure() {
    let mut energy = energy();
    let line = |said: &str, unseen: &str| assert!(said.contains(&format!("unseen={unseen} ")), "{said}");
    line(&said(&mut energy, &report(7, 5)), "0"); // reports before the verifier's start aren't missing
    line(&said(&mut energy, &report(7, 9)), "3");
    assert_eq!(said(&mut energy, &report(7, 9)), "", "again");
    assert_eq!(said(&mut energy, &report(7, 6)), "", "late");
    line(&said(&mut energy, &report(8, 3)), "2"); // two reports of this run were missed
    assert_eq!(said(&mut energy, &report(7, 10)), "", "of the run before");
    line(&said(&mut energy, &report(8, 4)), "0");
    line(&said(&mut energy, &report(9, 1)), "0");
    let expected =
        EnergyCounters { reports: 8, unseen: 5, late: 2, repeated: 1, ..EnergyCounters::default() };
    assert_eq!(energy.counters(), expected);
}

#[test]
fn a_new_run_counts_from_nothing() {
    let mut energy = energy();
    said(&mut energy, &report(7, 5));
    let new = said(&mut energy, &report(8, 2));
    assert!(new.contains("joules=2.000 committed=20 "), "{new}");
}

#[test]
fn a_counter_that_falls_is_a_contradiction_and_the_count_goes_on() {
    let fallen: [fn(&mut EnergyReport); 8] = [
        |r| r.phases.draft.energy_uj = 0,
        |r| r.phases.draft.time_us = 0,
        |r| r.requests = 0,
        |r| r.committed = 0,
        |r| r.drafted = 0,
        |r| r.frames = 0,
        |r| r.faults.gap_us = 0,
        |r| r.faults.failed = 0,
    ];
    for fall in fallen {
        let mut energy = energy();
        let faults = MeterFaults { gap_us: 1, failed: 1, ..MeterFaults::default() };
        let full = |n| EnergyReport { drafted: 1, frames: 1, faults, ..report(7, n) };
        said(&mut energy, &full(1));
        let mut wrong = full(2);
        fall(&mut wrong);
        let warned = said(&mut energy, &wrong);
        assert!(warned.contains("WARN") && !warned.contains("joules"), "{warned}");
        assert!(said(&mut energy, &full(3)).contains(" INFO energy"));
        assert_eq!(energy.counters().contradictory, 1);
    }
    let mut energy = energy();
    said(&mut energy, &report(7, 1));
    said(&mut energy, &EnergyReport { committed: 11, ..report(7, 1) });
    assert_eq!(energy.counters().contradictory, 1, "the same number with another content");
}

#[test]
fn the_largest_numbers_are_figures_too() {
    let most = PhaseTotal { energy_uj: u64::MAX, time_us: u64::MAX };
    let phases = PhaseTotals { load: most, draft: most, score: most, send: most, wait: most, idle: most };
    let mut energy = energy();
    let first = said(&mut energy, &EnergyReport { phases, committed: u64::MAX, ..report(7, 1) });
    assert!(first.contains("joules=18446744073709.551"), "{first}");
    let (phases, reports) = (phases, u32::MAX);
    let last = EnergyReport { reports, phases, committed: u64::MAX, requests: 9, ..report(7, 1) };
    let after = said(&mut energy, &last);
    assert!(after.contains("joules=0.000 committed=0 joules_per_token=none"), "{after}");
    assert_eq!(energy.counters().unseen, u64::from(u32::MAX) - 2);
}

#[test]
fn telemetry_is_logged_for_who_debugs() {
    let mut energy = energy();
    assert_eq!(
        said_of(&mut energy, &telemetry(7, 1_000_000)),
        "DEBUG telemetry device=d1 source=\"simulated (ina219)\" run=7 mean_mw=3000 peak_mw=6000 \
         run_joules=1.000 celsius=-1.5 throttling=none faults=none\n"
    );
    assert_eq!(said_of(&mut energy, &telemetry(7, 1_000_000)), "", "again");
    assert_eq!(said_of(&mut energy, &telemetry(7, 999_999)), "", "late");
    let fallen = Telemetry { energy_uj: 5, ..telemetry(7, 2_000_000) };
    assert!(said_of(&mut energy, &fallen).contains("WARN"));
    assert!(said_of(&mut energy, &telemetry(8, 1)).contains("DEBUG"));
    let expected =
        EnergyCounters { telemetry: 5, late: 1, repeated: 1, contradictory: 1, ..EnergyCounters::default() };
    assert_eq!(energy.counters(), expected);
}

#[test]
fn throttling_is_warned_of_when_it_begins() {
    let mut energy = energy();
    let mut at = 0;
    let mut said = |flags: Option<u8>| {
        at += 1;
        let throttling = flags.map(Throttling::new);
        let said = said_of(&mut energy, &Telemetry { throttling, ..telemetry(7, at) });
        let warned = said.lines().find(|line| line.contains("WARN"));
        warned.map(|line| line.split_once("flags=").unwrap().1.to_owned())
    };
    let none = None::<String>;
    assert_eq!(said(None), none);
    assert_eq!(said(Some(0b0010_0000)), none, "before the first telemetry");
    assert_eq!(said(Some(0b0111_0101)), Some("under-voltage, throttled".into()));
    assert_eq!(said(Some(0b0111_0101)), none, "goes on");
    assert_eq!(said(None), none, "not known is no end");
    assert_eq!(said(Some(0b0111_0001)), none, "one ends");
    assert_eq!(said(Some(0b0111_0101)), Some("throttled".into()), "and begins again");
    assert_eq!(said(Some(0b1111_0101)), Some("soft temperature limit".into()), "between two telemetries");
    assert_eq!(said(Some(0b0000_0010)), Some("frequency capped".into()), "after a boot");
}

#[test]
fn warnings_that_a_device_can_cause_do_not_flood_the_log() {
    let mut energy = energy();
    let mut warnings = |message: &dyn Fn(u64) -> Telemetry| {
        let said: String = (1..=1000).map(|at| said_of(&mut energy, &message(at))).collect();
        said.matches("WARN").count()
    };
    let falls = |at| Telemetry { energy_uj: 5000 - at, ..telemetry(7, at) };
    let flags = |at| Some(Throttling::new(if at % 2 == 0 { 0 } else { 0b0001_0001 }));
    let toggles = |at| Telemetry { throttling: flags(at), ..telemetry(8, at) };
    // One more says that there are others.
    assert_eq!([warnings(&falls), warnings(&toggles)], [WARNINGS_MAX as usize + 1; 2]);
    let (contradictory, throttled) = (999, 500);
    let expected = EnergyCounters {
        telemetry: 2000,
        contradictory,
        unlogged: contradictory + throttled - 2 * u64::from(WARNINGS_MAX),
        ..EnergyCounters::default()
    };
    assert_eq!(energy.counters(), expected);
}

#[test]
fn what_is_no_message_of_the_topic_is_counted() {
    let mut energy = energy();
    let device = "d1".parse().unwrap();
    let (report, telemetry) = (report(7, 1).encode().unwrap(), telemetry(7, 1).encode().unwrap());
    energy.handle_report(&device, &telemetry, Duration::ZERO);
    energy.handle_telemetry(&device, &report, Duration::ZERO);
    energy.handle_report(&device, b"", Duration::ZERO);
    let said = logged(|| energy.handle_telemetry(&device, &telemetry[..5], Duration::ZERO)).1;
    assert!(said.contains("DEBUG") && said.contains("message truncated"), "{said}");
    assert_eq!(energy.counters(), EnergyCounters { malformed: 4, ..EnergyCounters::default() });
}

#[test]
fn devices_are_told_apart_and_the_oldest_makes_room() {
    let mut energy = energy();
    let bytes = report(7, 1).encode().unwrap();
    for i in 0..=DEVICES_MAX {
        energy.handle_report(&format!("d{i}").parse().unwrap(), &bytes, Duration::ZERO);
    }
    let counters = energy.counters();
    assert_eq!((counters.reports, counters.repeated, counters.evicted), (DEVICES_MAX as u64 + 1, 0, 1));
}

#[test]
fn the_file_has_a_line_for_each_message_with_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("energy.jsonl");
    std::fs::write(&path, "kept\n").unwrap();
    let mut energy = EnergyCollector::start(Some(&path)).unwrap();
    let (device, arrived) = ("d1".parse().unwrap(), Duration::from_millis(1_764_180_000_250));
    for message in [report(7, 2), report(7, 2), report(7, 1)] {
        energy.handle_report(&device, &message.encode().unwrap(), arrived);
    }
    let throttling = Some(Throttling::new(0x51));
    let bytes = Telemetry { throttling, ..telemetry(7, 9) }.encode().unwrap();
    energy.handle_telemetry(&device, &bytes, arrived);
    let none = r#"{"energy_uj":0,"time_us":0}"#;
    let faults = r#"{"gaps":0,"gap_us":0,"clipped":0,"overflowed":0,"reinitialised":0,"failed":0}"#;
    let start = |message| format!(r#"{{"unix_s":1764180000.25,"device":"d1","message":"{message}","run":7,"#);
    let line = |n: u64| {
        let tail =
            format!(r#""idle_mw":null,"uncertainty_uj":10000,"committed":{n}0,"drafted":0,"frames":0"#);
        let total = |millijoules: u64| format!(r#"{{"energy_uj":{},"time_us":1}}"#, n * millijoules * 1000);
        let (draft, wait, load, idle) = (total(700), total(300), total(30), total(20));
        format!(
            r#"{}"reports":{n},"source":"ina219","requests":{n},"phases":{{"load":{load},"draft":{draft},"score":{none},"send":{none},"wait":{wait},"idle":{idle}}},{tail},"faults":{faults}}}"#,
            start("energy")
        )
    };
    let last = format!(
        r#"{}"at_us":9,"source":"simulated","mean_mw":3000,"peak_mw":6000,"energy_uj":9,"temperature_dc":-15,"throttling":81,"faults":{faults}}}"#,
        start("telemetry")
    );
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, format!("kept\n{}\n{}\n{last}\n", line(2), line(1)));
    assert_eq!(energy.counters().unwritten, 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = EnergyCollector::start(Some(directory.path())).err().unwrap();
    let path = directory.path().display();
    assert!(format!("{error:#}").starts_with(&format!("energy log {path}: Is a directory")), "{error:#}");
}
