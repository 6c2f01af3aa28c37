//! Cards of `dunlin-fleet` in a set-up file: taken whole, or refused in words that show no key.

use super::*;
use dunlin_fleet::{Fleet, FleetPlan};
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

const CERTIFICATE: &str = "dunlin/etc/tls/cert.pem";
const KEY_FILE: &str = "dunlin/credstore/dunlin.tls-key";

/// A fleet in a folder, and the cards of its boards.
struct CardMaker {
    fleet: Fleet,
    _dir: TempDir,
}

impl CardMaker {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let plan = FleetPlan {
            broker: "mqtts://broker.lan".parse().unwrap(),
            broker_dir: "/etc/mosquitto/dunlin".into(),
            services: Vec::new(),
        };
        let fleet = Fleet::init(&dir.path().join("fleet"), &plan, now()).unwrap();
        Self { fleet, _dir: dir }
    }

    fn card(&mut self, name: &str) -> String {
        self.fleet.issue(&name.parse().unwrap(), now()).unwrap();
        self.fleet.card(&name.parse().unwrap()).unwrap()
    }
}

fn now() -> OffsetDateTime {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap()).unwrap()
}

/// The value of a line of a card.
fn value<'a>(card: &'a str, key: &str) -> &'a str {
    card.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap()
}

fn with(card: &str, key: &str, value: &str) -> String {
    let line = |line: &str| match line.starts_with(&format!("{key} = ")) {
        true => format!("{key} = {value}\n"),
        false => format!("{line}\n"),
    };
    card.lines().map(line).collect()
}

fn without(card: &str, key: &str) -> String {
    card.lines()
        .filter(|line| !line.starts_with(&format!("{key} = ")))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn a_card_gives_a_board_its_identity_and_is_gone() {
    let mut maker = CardMaker::new();
    let board = Board::with(&maker.card("plover-1"));
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    assert!(!board.file().exists());
    let modes = [
        ("dunlin/etc/tls/ca.pem", PUBLIC),
        (CERTIFICATE, PUBLIC),
        (KEY_FILE, SECRET),
        ("dunlin/credstore/dunlin.seal-key", SECRET),
        ("dunlin/etc/seal/site.pub", PUBLIC),
        ("dunlin/etc/seal/seal.cert", PUBLIC),
        ("dunlin/etc/seal/collector.pub", PUBLIC),
    ];
    for (name, mode) in modes {
        assert_eq!(fs::metadata(board.data(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    // The files are those that the fleet's folder has, but for the lines of PEM.
    let folder = maker.fleet.folder(&"plover-1".parse().unwrap());
    for (name, file) in
        [(CERTIFICATE, "cert.pem"), (KEY_FILE, "key.pem"), ("dunlin/etc/tls/ca.pem", "ca.pem")]
    {
        let joined = |text: String| text.split_whitespace().collect::<String>();
        assert!(joined(board.read(name)) == joined(fs::read_to_string(folder.join(file)).unwrap()), "{name}");
    }
    insta::assert_snapshot!(board.read(AGENT));
    let before = board.files();
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done, "the boot after");
    assert_eq!(board.files(), before);
}

#[test]
fn a_card_that_is_not_whole_and_right_changes_nothing_and_shows_no_key() {
    let (mut maker, mut other) = (CardMaker::new(), CardMaker::new());
    let (card, second, foreign) = (maker.card("plover-1"), maker.card("plover-2"), other.card("plover-1"));
    let cut = &value(&card, "tls_key")[..40];
    for (text, wanted) in [
        (
            with(&card, "name", "plover-3"),
            "it is for \"plover-1\", and this board is plover-3: take its own card",
        ),
        (with(&card, "tls_key", value(&second, "tls_key")), "the key doesn't belong to the certificate"),
        (with(&card, "tls_ca", value(&foreign, "tls_ca")), "is not signed by this CA"),
        (with(&card, "tls_certificate", value(&card, "tls_key")), "tls_certificate: "),
        (with(&card, "tls_key", cut), "tls_"),
        (with(&card, "tls_key", &format!("{cut}!")), "tls_key: not whole base64: copy the whole line again"),
        (with(&card, "site_key", "AAAA"), "site_key: 3 bytes, not the 32 of a key"),
        (with(&card, "broker", "mqtt://broker.lan"), "it needs a broker with TLS: write broker = mqtts://"),
        (without(&card, "tls_ca"), "tls_ca is missing: tls_certificate needs it; copy all lines of the card"),
        (without(&card, "tls_key"), "tls_key is missing"),
        (without(&card, "seal_key"), "seal_key is missing: site_key needs it"),
        (format!("{card}tls_keys = x\n"), "unknown key \"tls_keys\": did you mean tls_key?"),
    ] {
        let board = Board::with(&text);
        let said = board.mistakes().join("\n");
        assert!(said.contains(wanted), "{wanted}: {said}");
        let files = board.files();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["fat/dunlin-problems.txt", "fat/dunlin.txt"]);
        assert!(files["fat/dunlin.txt"] == text);
        for secret in ["tls_key", "seal_key"].map(|key| &value(&card, key)[..20]) {
            assert!(!said.contains(secret) && !files["fat/dunlin-problems.txt"].contains(secret), "{wanted}");
        }
    }
}

#[test]
fn a_new_card_replaces_the_old_one_and_a_plain_broker_is_said_to_be_plain() {
    let mut maker = CardMaker::new();
    let board = Board::with("name = plover-1\nbroker = mqtt://10.0.0.1\n");
    board.boots();
    assert!(board.read(AGENT).contains("[mqtt]\ninsecure = true\n"), "{}", board.read(AGENT));
    board.fill_in(maker.card("plover-1"));
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    let (agent, first) = (board.read(AGENT), board.read(CERTIFICATE));
    assert!(
        agent.contains("broker = \"mqtts://broker.lan:8883\"\n") && !agent.contains("insecure"),
        "{agent}"
    );
    assert_eq!(maker.fleet.revoke("plover-1", now()).unwrap(), 1);
    board.fill_in(without(&without(&maker.card("plover-1"), "name"), "broker"));
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    assert!(board.read(CERTIFICATE) != first && board.read(AGENT) == agent);
    board.fill_in(without(&maker.card("plover-2"), "name"));
    assert!(board.mistakes()[0].contains("and this board is plover-1"));
    board.fill_in("broker = mqtt://127.0.0.1\n");
    assert_eq!(board.boots().outcome, ProvisionOutcome::Done);
    let agent = board.read(AGENT);
    assert!(!agent.contains("[tls]") && !agent.contains("insecure"), "{agent}");
}

#[test]
fn the_power_may_be_cut_before_any_step_of_a_card() {
    let mut maker = CardMaker::new();
    let (old, new) = (maker.card("plover-1"), {
        maker.fleet.revoke("plover-1", now()).unwrap();
        maker.card("plover-1")
    });
    let started = || {
        let board = Board::with(&old);
        board.boots();
        board.fill_in(&new);
        board
    };
    let whole = started();
    whole.boots();
    let after = whole.files();
    let mut at = 0;
    loop {
        let board = started();
        if !cut(&board, at) {
            break;
        }
        assert_eq!(board.boots().outcome, ProvisionOutcome::Done, "the boot after step {at}");
        assert!(board.files() == after, "after step {at}");
        at += 1;
    }
    assert!(at >= 40, "{at} steps");
}
