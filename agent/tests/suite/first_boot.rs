//! `first-boot` as a process: the board's console output, and the reports that a broker keeps.

use crate::process::stderr;
use dunlin_agent::config::{Overrides, Settings};
use dunlin_link::raw::{RawClient, RawMessage};
use dunlin_mosquitto::{Mosquitto, MosquittoOptions, OPEN, free_port, url};
use dunlin_wire::SetupReport;
use dunlin_wire::topic::SETUP_FILTER;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const PASSWORD: &str = "correct horse";

struct Board(TempDir);

impl Board {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("dunlin.txt")
    }

    fn command(&self, text: &str, within: &str, flags: &[&str]) -> Command {
        fs::write(self.file(), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin-agent"));
        command.args(["first-boot", "--report-within", within]).args(flags);
        command.arg("--file").arg(self.file()).arg("--data").arg(self.0.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn boots(&self, text: &str, flags: &[&str]) -> Output {
        self.command(text, "20", flags).output().unwrap()
    }

    fn is_marked(&self) -> bool {
        self.0.path().join("data/dunlin/setup-reported").exists()
    }
}

fn good(port: u16) -> String {
    format!("name = pi-7\nbroker = {}\nbroker_user = pi-7\nbroker_password = {PASSWORD}\n", url(port))
}

fn wrong(port: u16) -> String {
    good(port) + "wifi_pasword = hunter2hunter2\n"
}

/// Receives the devices' set-up reports, starting with the retained ones.
struct Heard(RawClient);

impl Heard {
    fn at(port: u16) -> Self {
        Self(RawClient::logged_in(port, "watch", PASSWORD, &[SETUP_FILTER]))
    }

    fn next(&mut self) -> RawMessage {
        self.0.blocking_next().unwrap()
    }
}

/// A broker that requires user names and lets each device write only under its own topics.
fn strict() -> Mosquitto {
    let options = MosquittoOptions {
        accounts: &["pi-7", "watch"].map(|user| (user, PASSWORD)),
        acl: "pattern write dl1/d/%u/u/#\nuser watch\ntopic read dl1/d/+/u/#\n",
        ..MosquittoOptions::default()
    };
    Mosquitto::started(&options).unwrap()
}

#[test]
fn the_agent_loads_the_configuration_that_a_file_leaves() {
    let board = Board::new();
    let flags = ["--only", "take", "--board", "rpi4", "--model", "/models/drafter"];
    let output = board.boots("name = plover-1\nbroker = mqtt://10.0.0.1\n", &flags);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let rpi4 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/rpi4.toml");
    let overrides = Overrides { board: Some(rpi4), ..Overrides::default() };
    let settings =
        Settings::load(Some(&board.0.path().join("data/dunlin/etc/agent.toml")), &overrides).unwrap();
    assert_eq!((settings.device.as_str(), settings.broker.to_string()), ("plover-1", "10.0.0.1:1883".into()));
    assert_eq!(settings.model().unwrap(), Path::new("/models/drafter"));
}

#[test]
fn a_brokers_address_is_checked_by_the_links_own_grammar() {
    for (wrong, what) in [
        (
            "http://host",
            "unknown scheme \"http\"; expected mqtts://[user:password@]host[:port], or mqtt:// without TLS",
        ),
        ("wss://host", "this build doesn't speak wss://"),
        ("mqtt://host:0", "1 to 65535"),
    ] {
        let output = Board::new().boots(&format!("name = pi-7\nbroker = {wrong}\n"), &["--only", "take"]);
        let said = stderr(&output);
        assert!(said.contains("line 2: broker: ") && said.contains(what), "{said}");
    }
}

#[test]
fn a_broker_is_told_what_is_wrong_until_it_no_longer_is() {
    let broker = strict();
    let board = Board::new();
    let output = board.boots(&wrong(broker.port), &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("\nline 5: unknown key \"wifi_pasword\": did you mean wifi_password?\n"), "{said}");
    let mut heard = Heard::at(broker.port);
    let kept = heard.next();
    let report = SetupReport::decode(&kept.payload).unwrap();
    assert!(kept.retain && kept.topic == "dl1/d/pi-7/u/su" && board.is_marked());
    assert_eq!(report.mistakes, 1);
    assert_eq!(report.text, "line 5: unknown key \"wifi_pasword\": did you mean wifi_password?");
    let problems = fs::read_to_string(board.0.path().join("dunlin-problems.txt")).unwrap();
    for text in [&said, &problems, report.text.as_str()] {
        assert!(!text.contains("hunter2") && !text.contains(PASSWORD), "a password is shown: {text}");
    }
    let output = board.boots(&good(broker.port), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(heard.next().payload.is_empty(), "it was taken back");
    assert!(!board.is_marked() && !board.file().exists());
}

#[test]
fn a_broker_that_refuses_ends_it_at_once() {
    let broker = strict();
    let text = wrong(broker.port);
    for (text, what) in [
        (text.replace(PASSWORD, "another"), "not authorised (user: pi-7)"),
        (text.replace("name = pi-7", "name = pi-8"), "takes nothing on dl1/d/pi-8/u/su: NotAuthorized"),
    ] {
        // An hour, which is longer than any test may take.
        let output = Board::new().command(&text, "3600", &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
    }
}

#[test]
fn the_two_halves_may_be_apart() {
    let broker = Mosquitto::with(OPEN);
    let board = Board::new();
    let output = board.boots(&wrong(broker.port), &["--only", "take"]);
    assert!(output.status.code() == Some(2) && !board.is_marked());
    let output = board.boots(&wrong(broker.port), &["--only", "report"]);
    assert!(output.status.code() == Some(0) && board.is_marked(), "{}", stderr(&output));
    assert!(!Heard::at(broker.port).next().payload.is_empty());
    let output = board.boots(&good(broker.port), &["--only", "report"]);
    assert!(board.file().exists(), "it takes nothing");
    let kept = SetupReport::decode(&Heard::at(broker.port).next().payload).unwrap();
    assert!(kept.text.contains("was not applied"), "{} {}", kept.text, stderr(&output));
    let output = board.boots(&good(broker.port), &["--only", "take"]);
    assert!(output.status.code() == Some(0) && !board.file().exists() && board.is_marked());
    let output = board.boots("", &["--only", "report"]);
    assert!(output.status.code() == Some(0) && !board.is_marked(), "{}", stderr(&output));
}

#[test]
fn a_boot_rewrites_keys_of_an_earlier_version() {
    let board = Board::new();
    let config = board.0.path().join("data/dunlin/etc/agent.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "device = \"pi-7\"\n# slow\nkeep_alive_s = 20\n").unwrap();
    let output = board.boots("", &["--only", "report"]);
    assert!(stderr(&output).contains("agent.toml: rewritten with today's keys"), "{}", stderr(&output));
    let rewritten = fs::read_to_string(&config).unwrap();
    assert_eq!(rewritten, "device = \"pi-7\"\n\n[mqtt]\n# slow\nkeep_alive_seconds = 20\n");
    assert!(!stderr(&board.boots("", &["--only", "report"])).contains("rewritten"), "once is enough");
}

#[test]
fn a_good_file_is_said_in_one_line() {
    let output = Board::new().boots(&good(1), &["--only", "take"]);
    let said = "this board is set up: name pi-7, broker mqtt://127.0.0.1:1, user \"pi-7\" at the broker\n";
    assert_eq!(stderr(&output), said);
}

#[test]
fn an_absent_broker_is_waited_for_and_not_for_ever() {
    let board = Board::new();
    let port = free_port();
    let output = board.command(&wrong(port), "0.2", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("the broker was not notified: nothing listens at 127.0.0.1:"),
        "{}",
        stderr(&output)
    );
    let output = board.command("name = pi-7\n", "0.2", &[]).output().unwrap();
    assert!(stderr(&output).contains("the broker was not notified: its address"), "{}", stderr(&output));
    let mut broker = Mosquitto::new(&MosquittoOptions::default()).unwrap();
    let waiting = board.command(&wrong(broker.port), "600", &[]).spawn().unwrap();
    broker.start().unwrap();
    let output = waiting.wait_with_output().unwrap();
    assert!(stderr(&output).contains("reported to the broker"), "{}", stderr(&output));
}

#[test]
fn a_report_is_taken_back_from_where_it_lies() {
    let (first, second) = (Mosquitto::with(OPEN), Mosquitto::with(OPEN));
    let board = Board::new();
    board.boots(&wrong(first.port), &[]);
    board.command(&wrong(free_port()), "0.2", &[]).output().unwrap();
    board.boots(&wrong(second.port).replace("pi-7", "pi-8"), &[]);
    let mut heard = [first.port, second.port].map(Heard::at);
    assert!(heard.iter_mut().all(|heard| !heard.next().payload.is_empty()));
    let output = board.command(&good(second.port), "3", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(heard.iter_mut().all(|heard| heard.next().payload.is_empty()));
    assert!(!board.is_marked(), "what never reached a broker is not tried for ever");
}

#[test]
fn a_report_that_lies_with_an_absent_broker_is_taken_back_later() {
    let mut broker = Mosquitto::with(OPEN);
    let board = Board::new();
    board.boots(&wrong(broker.port), &[]);
    broker.kill();
    let output = board.command(&good(broker.port), "0.2", &[]).output().unwrap();
    assert!(output.status.code() == Some(0) && board.is_marked(), "{}", stderr(&output));
    broker.start().unwrap();
    board.boots("", &["--only", "report"]);
    assert!(!board.is_marked());
}
