//! The commands of `power`, with a simulated sensor, replayed traces and made-up kernel trees.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A folder with a configuration under which no source answers.
struct Bench(TempDir);

impl Bench {
    fn new(power: &str) -> Self {
        let bench = Self(TempDir::new().unwrap());
        let (bus, sysfs, vcgencmd) = (bench.at("i2c-9"), bench.at("sys"), bench.at("vcgencmd"));
        let config = format!("[power]\ni2c = {bus:?}\nsysfs = {sysfs:?}\nvcgencmd = {vcgencmd:?}\n{power}\n");
        fs::write(bench.at("agent.toml"), config).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), text).unwrap();
    }

    /// Adds an INA219 with a kernel driver.
    fn with_hwmon(self, milliamperes: i64) -> Self {
        for (file, text) in [
            ("name", "ina219".to_string()),
            ("in1_input", "5060".into()),
            ("curr1_input", milliamperes.to_string()),
            ("power1_input", (5060 * milliamperes.abs()).to_string()),
            ("shunt_resistor", "10000".into()),
        ] {
            self.write(&format!("sys/class/hwmon/hwmon0/{file}"), &format!("{text}\n"));
        }
        self
    }

    /// A `power` command with its flags; file names are taken as paths in the folder.
    fn power(&self, flags: &[&str]) -> Command {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
        agent.arg("power").args(flags).args(["--device", "pi-7", "--config"]).arg(self.at("agent.toml"));
        agent.current_dir(self.0.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        agent
    }

    fn run(&self, flags: &[&str]) -> (i32, String, String) {
        said(self.power(flags).output().unwrap())
    }

    /// Names of all files in the folder, hidden ones included.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Waits for something of a child, then interrupts it.
fn interrupted(mut child: Child) -> Output {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    drop(child.stdin.take());
    child.wait_with_output().unwrap()
}

/// Window lengths, s, and powers, W, of a trace.
fn rows(path: &Path) -> Vec<(f64, f64)> {
    let text = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        ((cells[1] - cells[0]) / 1e6, cells[2])
    };
    text.lines().skip(2).map(row).collect()
}

fn joules(rows: &[(f64, f64)]) -> f64 {
    rows.iter().map(|(seconds, watts)| seconds * watts).sum()
}

const HEAD: &str = "# dunlin power trace 1 {\"source\":\"measured (ina219)\",\"part\":\"0x40\",\"boundary\":\"all\",\
                    \"period_us\":8512,\"relative\":0.01,\"offset_w\":0.0}\n";
const COLUMNS: &str = "from_us,until_us,watts,volts,amperes,clipped\n";

#[test]
fn probe_without_any_source_says_what_each_lacks() {
    let bench = Bench::new("");
    let (code, out, _) = bench.run(&["probe"]);
    assert_eq!((code, out.matches('✗').count(), out.matches('→').count()), (1, 4, 4), "{out}");
    for expected in [
        "✗ ina219: ",
        "dtparam=i2c_arm=on",
        "✗ hwmon: the kernel has no power monitor",
        "✗ pmic: ",
        "✗ powercap: the kernel has no powercap zone",
        "no temperature is reported; throttling is not reported",
        "auto finds no source",
    ] {
        assert!(out.contains(expected), "no {expected:?} in {out}");
    }
    assert!(!out.contains('\x1b') && !out.contains("simulated"), "{out}");
    let (code, out, _) = bench.run(&["probe", "--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["auto"]), (1, &Value::Null));
    assert_eq!(found["health"], serde_json::json!({"temperature_c": null, "throttling": null}));
    let sources = found["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 4);
    assert!(sources.iter().all(|source| source["answers"] == false && source["advice"].is_string()), "{out}");
}

#[test]
fn probe_reads_what_the_kernel_shows() {
    let bench = Bench::new("").with_hwmon(500);
    bench.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
    bench.write("sys/class/thermal/thermal_zone0/temp", "47712\n");
    bench.write("sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n");
    let (code, out, _) = bench.run(&["probe", "--color", "always"]);
    assert_eq!(code, 0, "{out}");
    for expected in [
        "\x1b[32m✓\x1b[0m measured (hwmon): ina219 hwmon0; 2.530 W (5.060 V, 0.500 A); a reading each 10.0 ms",
        "boundary: what flows through the shunt of hwmon0",
        "may be off by 2.0 % and 20 mW",
        "\x1b[33m!\x1b[0m the kernel takes the shunt",
        "health: 47.7 °C; now: nothing; since the start: under-voltage, throttled",
        "auto takes hwmon",
    ] {
        assert!(out.contains(expected), "no {expected:?} in {out}");
    }
    let (code, out, _) = bench.run(&["probe", "--json", "--power", "none"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, found["auto"].as_str()), (0, Some("hwmon")));
    let hwmon = &found["sources"][1];
    assert_eq!(
        (&hwmon["watts"], &hwmon["volts"], &hwmon["amperes"]),
        (&2.53.into(), &5.06.into(), &0.5.into())
    );
    assert_eq!((hwmon["answers"].as_bool(), hwmon["cautions"].as_array().unwrap().len()), (Some(true), 1));
    assert_eq!(found["health"]["throttling"], serde_json::json!({"now": 0, "since_start": 5}));
}

#[test]
fn probe_says_that_a_current_flows_backwards() {
    let (code, out, _) = Bench::new("").with_hwmon(-500).run(&["probe"]);
    assert!(code == 0 && out.contains("VIN+ and VIN- are swapped"), "{out}");
}

#[test]
fn probe_tells_a_source_that_opens_and_gives_no_reading() {
    let bench = Bench::new("").with_hwmon(500);
    bench.write("sys/class/hwmon/hwmon0/power1_input", "N/A\n");
    let (code, out, _) = bench.run(&["probe"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("power1_input: \"N/A\" is not a whole number"), "{out}");
    assert!(out.contains("→ make its files") && out.contains("auto takes hwmon"), "{out}");
}

#[test]
fn probe_looks_at_what_is_made_up_where_it_is_named() {
    let bench = Bench::new("");
    let (code, out, _) = bench.run(&["probe", "--power", "simulated"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains(
            "✓ simulated (ina219): 0x40 on a simulated bus, shunt 100 mΩ; 2.699 W (5.072 V, 0.532 A)"
        ),
        "{out}"
    );
    assert!(out.contains("auto finds no source"), "{out}");
    bench.write("trace.csv", &format!("{HEAD}{COLUMNS}0,0,2.5,,,0\n"));
    bench.write("agent.toml", "[power]\ntrace = \"trace.csv\"\n");
    let (_, out, _) = bench.run(&["probe", "--power", "replay"]);
    assert!(out.contains("✓ replayed: ") && out.contains("; 2.500 W; a reading each 8.5 ms"), "{out}");
}

#[test]
fn watch_writes_lines_to_a_pipe() {
    let bench = Bench::new("");
    let (code, out, errors) = bench.run(&["watch", "--seconds", "0.3", "--power", "simulated"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 1, "less than a second has one line, at its end: {out}");
    for expected in [
        "simulated (ina219) 2.699 W  0.",
        " J in 0.",
        "  mean 2.699 W  min 2.699 W  max 2.699 W  5.072 V  0.532 A",
    ] {
        assert!(lines[0].contains(expected), "no {expected:?} in {out}");
    }
    assert!(!out.contains(['\x1b', '\r', '▁']), "{out}");
    let (_, out, _) = bench.run(&["watch", "--seconds", "1.2", "--power", "simulated"]);
    assert_eq!(out.lines().count(), 2, "{out}");
}

#[test]
fn watch_without_a_source_fails() {
    let bench = Bench::new("");
    let (code, out, errors) = bench.run(&["watch"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(errors.contains("no power source answers; `dunlin-agent power probe` shows why"), "{errors}");
    let (code, _, errors) = bench.run(&["watch", "--power", "none"]);
    assert!(code == 1 && errors.contains("power.source is \"none\""), "{errors}");
    let (code, _, errors) = bench.run(&["watch", "--power", "hwmon"]);
    assert!(code == 1 && errors.contains("power source hwmon: the kernel has no power monitor"), "{errors}");
}

#[test]
fn watch_ends_at_an_interrupt() {
    let bench = Bench::new("");
    let mut child = bench.power(&["watch", "--power", "simulated"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("simulated (ina219) "), "{first}");
    let (code, rest, _) = said(interrupted(child));
    assert_eq!(code, 130);
    assert!(rest.is_empty() || rest.starts_with("simulated (ina219) "), "{rest}");
}

#[test]
fn a_recorded_trace_can_be_replayed() {
    let bench = Bench::new("trace = \"first.csv\"");
    let record = |source, out, seconds| ["record", "--power", source, "--out", out, "--seconds", seconds];
    let (code, out, errors) = bench.run(&record("simulated", "first.csv", "0.4"));
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("recording: 0.4 of 0.4 s, ") && !errors.contains('\x1b'), "{errors}");
    let first = rows(&bench.at("first.csv"));
    assert!(out.starts_with(&format!("simulated (ina219): {} readings over 0.", first.len())), "{out}");
    assert!(out.contains(" W on average") && out.ends_with("written: first.csv\n"), "{out}");
    // The trace ends long before the 600 s are up.
    let (code, out, errors) = bench.run(&record("replay", "second.csv", "600"));
    assert_eq!(code, 0, "{errors}");
    assert!(out.starts_with("replayed: ") && errors.contains("the trace has ended"), "{out}{errors}");
    let second = rows(&bench.at("second.csv"));
    assert_eq!(second.len(), first.len());
    let (recorded, replayed) = (joules(&first), joules(&second));
    assert!(recorded > 0.1 && (replayed / recorded - 1.0).abs() < 0.005, "{replayed} J of {recorded} J");
    assert_eq!(bench.files(), ["agent.toml", "first.csv", "second.csv"]);
    let (code, out, _) = bench.run(&["watch", "--power", "replay"]);
    assert!(code == 0 && out.lines().last().unwrap().starts_with("replayed 2.699 W"), "{out}");
}

#[test]
fn an_interrupted_recording_is_kept() {
    let bench = Bench::new("");
    let mut record = bench.power(&["record", "--power", "simulated", "--out", "a.csv", "--seconds", "20"]);
    let mut child = record.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("recording: 2.0 of 20.0 s"), "{line}");
    let (code, out, errors) = said(interrupted(child));
    assert_eq!(code, 130);
    assert!(errors.contains("interrupted; the readings so far are kept"), "{errors}");
    let kept = rows(&bench.at("a.csv"));
    assert!(out.starts_with(&format!("simulated (ina219): {} readings", kept.len())), "{out}");
    assert_eq!(bench.files(), ["a.csv", "agent.toml"]);
}

#[test]
fn a_recording_that_was_interrupted_before_its_first_reading_is_none() {
    let bench = Bench::new("trace = \"trace.csv\"");
    bench.write("trace.csv", &format!("{HEAD}{COLUMNS}0,600000000,2.5,,,0\n"));
    let mut record = bench.power(&["record", "--power", "replay", "--out", "a.csv", "--seconds", "5"]);
    let mut child = record.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "recording: 0.5 of 5.0 s, 0 readings\n");
    let (code, out, _) = said(interrupted(child));
    assert_eq!((code, out.as_str()), (130, ""));
    assert_eq!(bench.files(), ["agent.toml", "trace.csv"]);
}

#[test]
fn traces_that_are_none_are_named() {
    let bench = Bench::new("trace = \"trace.csv\"");
    let run = |text: &str| {
        bench.write("trace.csv", text);
        bench.run(&["record", "--power", "replay", "--out", "out.csv", "--seconds", "9"])
    };
    let truncated = &HEAD[..60];
    for (text, expected) in [
        ("\u{1f40c}\0garbage", "trace.csv: line 1 does not begin with"),
        ("", "trace.csv: line 1 does not begin with"),
        (truncated, "trace.csv: line 1: "),
        (&format!("{HEAD}from_us,until_us,joules\n"), "trace.csv: the columns are not "),
        (&HEAD.replace("8512", "0"), "trace.csv: line 1: period_us 0"),
        (&format!("{HEAD}{COLUMNS}"), "no reading came"),
        (&format!("{HEAD}{COLUMNS}0,10,1e9,,,0\n"), "no reading came"),
    ] {
        let (code, out, errors) = run(text);
        assert_eq!((code, out.as_str()), (1, ""), "{text}: {errors}");
        assert!(errors.contains(expected), "{text}: {errors}");
        assert_eq!(bench.files(), ["agent.toml", "trace.csv"]);
    }
    let rows = "0,4000,2.5,,,0\n5000,9000,x,,,0\n9000,8000,2.5,,,0\n9000,13000,2.5,,,0\n14000,18000";
    let (code, out, errors) = run(&format!("{HEAD}{COLUMNS}{rows}"));
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("2 readings"), "{out}");
    for expected in
        ["trace.csv:4: ", "trace.csv:5: a window that ends before it begins", "trace.csv:7: ", "3 failed"]
    {
        assert!(errors.contains(expected), "no {expected:?} in {errors}");
    }
}

#[test]
fn mistakes_are_named() {
    let bench = Bench::new("");
    let check = |flags: &[&str], code: i32, expected: &str| {
        let (exit, out, errors) = bench.run(flags);
        assert!(exit == code && errors.contains(expected), "{flags:?}: {exit} {out}{errors}");
    };
    check(
        &["watch", "--power", "ina218"],
        2,
        "unknown power source \"ina218\"; known are auto, none, ina219",
    );
    check(&["watch", "--power", "replay"], 2, "needs power.trace");
    check(&["watch", "--seconds", "0"], 2, "expected seconds above 0");
    check(&["record", "--seconds", "1"], 2, "--out");
    check(
        &["record", "--seconds", "1", "--power", "simulated", "--out", "none/a.csv"],
        1,
        "none/a.csv: No such file",
    );
    let calibrate =
        |loads: &[&'static str]| [&["calibrate", "--power", "simulated", "--out", "p.toml"], loads].concat();
    check(&calibrate(&["--load", "1"]), 2, "--load is given 1 times: two loads make a line");
    check(&calibrate(&["--load", "1", "--load", "2", "--load", "3"]), 2, "--load is given 3 times");
    check(&calibrate(&["--load", "1", "--load", "1.01"]), 2, "the two loads are 0.010 A apart");
    check(&calibrate(&["--load", "NaN", "--load", "1"]), 2, "expected amperes");
    let careless = ["--load", "1", "--load", "2", "--meter-uncertainty", "0.7"];
    check(&calibrate(&careless), 2, "meter_uncertainty 0.7 is not within");
    check(&["calibrate", "--power", "simulated", "--out", "none/p.toml"], 1, "none/p.toml: No such file");
    assert_eq!(bench.files(), ["agent.toml"]);
    bench.write("p.toml", "[current]\ngain = 9.0\noffset_a = 0.0\nmeter_uncertainty = 0.0\n");
    check(&calibrate(&[]), 1, "p.toml:1: gain 9 is not within");
    bench.write("agent.toml", "[power]\nsorce = \"auto\"\n");
    check(&["probe"], 2, "agent.toml:2: unknown field `sorce`");
}

const QUICK: [&str; 8] =
    ["calibrate", "--out", "power.toml", "--seconds", "0.3", "--idle-seconds", "0.3", "--color=never"];

fn calibration(bench: &Bench) -> toml::Table {
    fs::read_to_string(bench.at("power.toml")).unwrap().parse().unwrap()
}

#[test]
fn calibrate_measures_the_idle_board_and_keeps_the_current() {
    let bench = Bench::new("source = \"simulated\"");
    let (code, out, errors) = bench.run(&QUICK);
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("simulated (ina219): the idle board draws 2.699 W"), "{out}");
    let found = calibration(&bench);
    assert!((found["idle"]["watts"].as_float().unwrap() - 2.7).abs() < 0.01, "{found}");
    assert!(found["idle"]["seconds"].as_float().unwrap() > 0.1 && !found.contains_key("current"), "{found}");
    // The lines that the command proposes for the configuration must be valid there.
    let (_, power) = out.split_once("in the configuration:\n\n").unwrap();
    bench.write("agent.toml", &format!("{power}source = \"simulated\"\n"));
    assert_eq!(bench.run(&["watch", "--seconds", "0.3"]).0, 0);
    let current = "[current]\ngain = 1.25\noffset_a = 0.0\nmeter_uncertainty = 0.01\n";
    bench.write("power.toml", current);
    let (code, _, errors) = bench.run(&QUICK);
    assert_eq!(code, 0, "{errors}");
    let found = calibration(&bench);
    assert_eq!(found["current"]["gain"].as_float(), Some(1.25));
    let idle = found["idle"]["watts"].as_float().unwrap();
    assert!((idle - 1.25 * 2.7).abs() < 0.02, "the idle power is as the file corrects it: {idle}");
    assert_eq!(bench.files(), ["agent.toml", "power.toml"]);
}

#[test]
fn calibrate_draws_the_line_through_two_loads() {
    // A configured calibration must not affect the measurement of a new one.
    let bench = Bench::new("source = \"simulated\"\ncalibration = \"old.toml\"");
    bench.write("old.toml", "[current]\ngain = 1.4\noffset_a = 0.1\nmeter_uncertainty = 0.0\n");
    let (code, out, errors) =
        bench.run(&[&QUICK[..], &["--yes", "--load", "0.5322", "--load", "1.3512"]].concat());
    assert_eq!(code, 0, "{errors}");
    assert!(out.contains("simulated (ina219): 0.5322 A shown at 0.5322 A"), "{out}");
    assert!(!errors.contains("press Enter"), "{errors}");
    let found = calibration(&bench);
    let of = |key: &str| found["current"][key].as_float().unwrap();
    assert!((of("gain") - 1.0).abs() < 1e-3 && of("offset_a").abs() < 1e-3, "{found}");
    assert_eq!(of("meter_uncertainty"), 0.005);
    assert!((found["idle"]["watts"].as_float().unwrap() - 2.7).abs() < 0.02, "{found}");
}

#[test]
fn calibrate_waits_for_each_load() {
    let bench = Bench::new("source = \"simulated\"");
    // The loads are 10 % above the readings, with the larger one first.
    let flags = [&QUICK[..], &["--load", "1.48632", "--load", "0.58542"]].concat();
    let mut calibrate = bench.power(&flags);
    let mut child =
        calibrate.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\n\n\n").unwrap();
    let (code, _, errors) = said(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{errors}");
    let prompts: Vec<&str> = errors.lines().filter(|line| line.ends_with("press Enter")).collect();
    assert_eq!(
        prompts,
        [
            "set the load to 1.48632 A and press Enter",
            "set the load to 0.58542 A and press Enter",
            "take the loads off, leave the board idle and press Enter"
        ]
    );
    let found = calibration(&bench);
    assert!((found["current"]["gain"].as_float().unwrap() - 1.1).abs() < 1e-3, "{found}");
    assert!((found["idle"]["watts"].as_float().unwrap() - 1.1 * 2.7).abs() < 0.02, "{found}");
    let (code, _, errors) = bench.run(&flags);
    assert!(code == 1 && errors.contains("standard input ended before"), "{errors}");
}

#[test]
fn a_calibration_that_can_not_be_writes_nothing() {
    let bench = Bench::new("").with_hwmon(500);
    let loads = [&QUICK[..], &["--yes", "--load", "0.5", "--load", "3.5"]].concat();
    let (code, _, errors) = bench.run(&[&loads[..], &["--power", "simulated"]].concat());
    assert!(code == 1 && errors.contains("is shunt_milliohms right?"), "{errors}");
    let (code, _, errors) = bench.run(&loads);
    assert!(code == 1 && errors.contains("measured (hwmon): only the current of an INA219"), "{errors}");
    assert_eq!(bench.files(), ["agent.toml", "sys"]);
    let (code, out, errors) = bench.run(&QUICK);
    assert!(code == 0 && out.contains("measured (hwmon): the idle board draws 2.530 W"), "{out}{errors}");
    assert!(errors.contains("the kernel takes the shunt"), "{errors}");
}

#[test]
fn a_power_below_zero_is_no_idle_power() {
    let bench = Bench::new("source = \"replay\"\ntrace = \"trace.csv\"");
    bench.write("trace.csv", &format!("{HEAD}{COLUMNS}0,4000,-2.5,,,0\n8000,12000,-2.5,,,0\n"));
    let (code, _, errors) = bench.run(&QUICK);
    assert!(code == 1 && errors.contains("the measurements give no valid calibration"), "{errors}");
    assert_eq!(bench.files(), ["agent.toml", "trace.csv"]);
}

#[test]
fn an_interrupt_at_the_idle_board_keeps_the_line() {
    let bench = Bench::new("source = \"simulated\"");
    let flags = ["calibrate", "--out", "power.toml", "--seconds", "0.3", "--idle-seconds", "10", "--yes"];
    let interrupt = |loads: &[&str]| {
        let mut calibrate = bench.power(&[&flags[..], loads].concat());
        let mut child = calibrate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(errors.any(|line| line.starts_with("idle board: 1.0 of 10.0 s")));
        let (code, _, _) = said(interrupted(child));
        (code, errors.last().unwrap())
    };
    assert_eq!(interrupt(&[]), (130, "interrupted: nothing is written".into()));
    assert_eq!(bench.files(), ["agent.toml"]);
    let (code, last) = interrupt(&["--load", "0.5322", "--load", "1.3512"]);
    assert_eq!((code, last.as_str()), (130, "interrupted: the idle board was not measured"));
    let found = calibration(&bench);
    assert!(found.contains_key("current") && !found.contains_key("idle"), "{found}");
}

#[test]
fn an_interrupted_calibration_leaves_what_was_there() {
    let bench = Bench::new("source = \"simulated\"");
    bench.write("power.toml", "[idle]\nwatts = 9.0\nseconds = 30.0\n");
    let mut calibrate = bench.power(&["calibrate", "--out", "power.toml", "--load", "0.5", "--load", "1.5"]);
    let mut child =
        calibrate.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "set the load to 0.5 A and press Enter\n");
    // Standard input stays open, so that only the interrupt can end the program.
    let input = child.stdin.take();
    let (code, _, errors) = said(interrupted(child));
    drop(input);
    assert!(code == 130 && errors.contains("interrupted: nothing is written"), "{errors}");
    assert_eq!(calibration(&bench)["idle"]["watts"].as_float(), Some(9.0));
    assert_eq!(bench.files(), ["agent.toml", "power.toml"]);
}

#[test]
fn check_names_the_source() {
    let check = |bench: &Bench, source: &str| {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
        agent.args([
            "check",
            "--device",
            "pi-7",
            "--broker",
            "mqtt://127.0.0.1:1",
            "--power",
            source,
            "--config",
        ]);
        said(agent.arg(bench.at("agent.toml")).stdin(Stdio::null()).output().unwrap()).1
    };
    let bench = Bench::new("");
    assert!(check(&bench, "auto").contains("✓ power: no sensor found, only time is measured"));
    assert!(check(&bench, "none").contains("✓ power: not measured, as configured"));
    assert!(check(&bench, "simulated").contains("✓ power: simulated (ina219), 0x40 on a simulated bus"));
    let said = check(&bench, "hwmon");
    assert!(
        said.contains("✗ power: power source hwmon: the kernel has no power monitor")
            && said.contains("  → "),
        "{said}"
    );
    let said = check(&bench.with_hwmon(500), "auto");
    assert!(
        said.contains("✓ power: measured (hwmon), ina219 hwmon0") && said.contains("! the kernel takes"),
        "{said}"
    );
}
