//! The folder of a fleet: what is in it, what is refused, and what `check` finds.

#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use dunlin_fleet::{CertificateState, Fleet, FleetPlan, SERVER_NAME, Weight, check, list};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

struct TestFleet {
    dir: TempDir,
    fleet: Fleet,
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn plan() -> FleetPlan {
    let services = ["v.verifier-1", "o.anna"].map(|name| name.parse().unwrap()).to_vec();
    FleetPlan {
        broker: "mqtts://broker.lan".parse().unwrap(),
        broker_dir: "/etc/mosquitto/dunlin".into(),
        services,
    }
}

impl TestFleet {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let mut fleet = Fleet::init(&dir.path().join("fleet"), &plan(), now()).unwrap();
        assert!(fleet.issue(&"plover-1".parse().unwrap(), now()).unwrap());
        Self { dir, fleet }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("fleet").join(name)
    }

    fn findings(&self, at: OffsetDateTime) -> Vec<String> {
        check(&self.fleet, at)
            .into_iter()
            .map(|finding| format!("{:?}: {}", finding.weight, finding.text))
            .collect()
    }

    /// The one finding after a change of the folder.
    #[track_caller]
    fn one_finding(&self) -> String {
        let mut findings = self.findings(now());
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }
}

/// All files under a folder, with their modes.
fn modes(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.clone(), fs::metadata(&path).unwrap().permissions().mode() & 0o777));
        if path.is_dir() {
            found.extend(modes(&path));
        }
    }
    found
}

#[test]
fn a_new_fleet_is_in_order_and_its_keys_are_their_owners() {
    let test = TestFleet::new();
    assert_eq!(test.findings(now()), Vec::<String>::new());
    let private = |path: &Path| {
        path.is_dir() || path.extension().is_some_and(|end| end == "key") || path.ends_with("key.pem")
    };
    let found = modes(&test.path("."));
    assert!(found.iter().filter(|(path, _)| path.is_file() && private(path)).count() >= 11, "{found:?}");
    for (path, mode) in found {
        if private(&path) {
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
        assert!(!path.file_name().unwrap().to_string_lossy().starts_with('.'), "{} was left", path.display());
    }
    assert_eq!(fs::metadata(test.path(".")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_with_files_is_no_place_for_a_fleet() {
    let test = TestFleet::new();
    let before = fs::read(test.path("ca.key")).unwrap();
    let error = Fleet::init(&test.path("."), &plan(), now()).err().unwrap().to_string();
    assert!(error.contains("is not empty"), "{error}");
    assert!(fs::read(test.path("ca.key")).unwrap() == before);
    let error = Fleet::init(Path::new("/proc/fleet"), &plan(), now()).err().unwrap();
    assert!(format!("{error:#}").starts_with("/proc can't be written"), "{error:#}");
}

#[test]
fn a_clock_that_was_never_set_issues_nothing() {
    let dir = TempDir::new().unwrap();
    let error = Fleet::init(&dir.path().join("fleet"), &plan(), OffsetDateTime::UNIX_EPOCH).err().unwrap();
    assert!(error.to_string().contains("the clock of this computer says 1970-01-01: set it"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of the attempt");
}

#[test]
fn one_program_at_a_time_works_on_a_fleet() {
    let test = TestFleet::new();
    let error = Fleet::open(&test.path(".")).err().unwrap().to_string();
    assert!(error.contains("another dunlin-fleet works on"), "{error}");
}

#[test]
fn a_name_keeps_its_identity_until_it_is_revoked() {
    let mut test = TestFleet::new();
    let name = "plover-1".parse().unwrap();
    let card = |fleet: &Fleet| fleet.card(&"plover-1".parse().unwrap()).unwrap();
    let first = card(&test.fleet);
    assert!(!test.fleet.issue(&name, now()).unwrap());
    assert!(card(&test.fleet) == first, "the same card again");
    assert_eq!(test.fleet.revoke("plover-1", now()).unwrap(), 1);
    assert!(!test.path("devices/plover-1").exists());
    assert!(test.fleet.card(&"plover-1".parse().unwrap()).is_err());
    assert!(test.fleet.issue(&name, now()).unwrap());
    assert!(card(&test.fleet) != first);
    let rows = list(&test.fleet, now());
    let rows: Vec<_> = rows.iter().filter(|row| row.name == "plover-1").collect();
    assert_eq!(
        rows.iter().map(|row| row.state).collect::<Vec<_>>(),
        [CertificateState::Revoked, CertificateState::Valid]
    );
    assert_ne!(rows[0].serial, rows[1].serial);
    assert_eq!(test.findings(now()), Vec::<String>::new());
}

#[test]
fn an_unknown_name_is_not_revoked() {
    let mut test = TestFleet::new();
    let error = test.fleet.revoke("plover-2", now()).unwrap_err().to_string();
    assert!(error.ends_with("known names are b.broker, o.anna, plover-1, v.verifier-1"), "{error}");
    assert!(test.fleet.revoke(SERVER_NAME, now()).unwrap_err().to_string().contains("make a new fleet"));
    assert!(test.fleet.renew("plover-2", now()).is_err());
}

#[test]
fn certificates_of_services_are_due_30_days_before_they_end() {
    let mut test = TestFleet::new();
    let day = |days| now() + Duration::days(days);
    assert_eq!(test.fleet.due(day(334)), Vec::<String>::new());
    assert_eq!(test.fleet.due(day(335)), [SERVER_NAME, "o.anna", "v.verifier-1"]);
    let warnings = check(&test.fleet, day(340));
    assert!(warnings.iter().all(|finding| finding.weight == Weight::Warning));
    assert_eq!(
        warnings[0].text,
        "the certificate of b.broker ends in 25 days: run `dunlin-fleet renew b.broker`"
    );
    assert_eq!(warnings.len(), 3);
    let ended = check(&test.fleet, day(366));
    assert_eq!(ended.iter().filter(|finding| finding.weight == Weight::Problem).count(), 3);
    let states = list(&test.fleet, day(366)).into_iter().map(|row| row.state).collect::<Vec<_>>();
    assert_eq!(
        states,
        [CertificateState::Ended, CertificateState::Ended, CertificateState::Valid, CertificateState::Ended]
    );
    for name in test.fleet.due(day(340)) {
        test.fleet.renew(&name, day(340)).unwrap();
    }
    assert_eq!(test.findings(day(366)), Vec::<String>::new());
    test.fleet.renew("plover-1", day(340)).unwrap();
    assert_eq!(test.findings(day(340)), Vec::<String>::new());
    assert_eq!(test.fleet.revoke("plover-1", day(341)).unwrap(), 2, "the renewed one and the one before");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let mut test = TestFleet::new();
    for name in ["ca.key", "devices/plover-1/key.pem", "site.key", "broker/server.key"] {
        fs::set_permissions(test.path(name), Permissions::from_mode(0o644)).unwrap();
        let findings = test.findings(now());
        let wanted = format!("{name} is open to others (mode 0644): run `chmod 600 ");
        assert!(findings.iter().any(|finding| finding.contains(&wanted)), "{findings:#?}");
        if name == "ca.key" {
            let error = test.fleet.issue(&"plover-2".parse().unwrap(), now()).unwrap_err();
            assert!(format!("{error:#}").contains(&wanted), "{error:#}");
        }
        if name == "devices/plover-1/key.pem" {
            let error = test.fleet.card(&"plover-1".parse().unwrap()).unwrap_err();
            assert!(format!("{error:#}").contains(&wanted), "{error:#}");
        }
        fs::set_permissions(test.path(name), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(test.findings(now()), Vec::<String>::new());
    }
    fs::set_permissions(test.path("devices"), Permissions::from_mode(0o755)).unwrap();
    assert!(test.one_finding().contains("devices is open to others (mode 0755): run `chmod 700 "));
}

#[test]
fn what_is_missing_or_broken_is_found() {
    let damages: [(&str, Option<&str>, &str); 12] = [
        ("ca.pem", None, "No such file"),
        ("ca.pem", Some("no PEM"), "is not PEM"),
        (
            "ca.key",
            Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "is not a private key in PEM",
        ),
        ("release.key", Some("AAAA\n"), "is not an Ed25519 key"),
        ("rollout.pub", Some("!\n"), "is not base64"),
        ("collector.key", Some("AAAA\n"), "is not an X25519 key of 32 bytes"),
        ("devices/plover-1/cert.pem", Some("garbage"), "is not PEM"),
        ("devices/plover-1/ca.pem", Some("garbage"), "is not the fleet's ca.pem"),
        ("devices/plover-1/seal.cert", Some("AAAA"), "it is too short for a certificate of keys"),
        (
            "broker/acl",
            Some("topic readwrite #\n"),
            "is not what this program makes: run `dunlin-fleet broker`",
        ),
        ("broker/mosquitto.conf", None, "run `dunlin-fleet broker`"),
        ("broker/crl.pem", Some("garbage"), "is not PEM"),
    ];
    let test = TestFleet::new();
    for (name, damage, wanted) in damages {
        let path = test.path(name);
        let whole = fs::read(&path).unwrap();
        match damage {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let finding = test.one_finding();
        assert!(finding.contains(wanted) && finding.starts_with("Problem: "), "{name}: {finding}");
        fs::write(&path, whole).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    fs::remove_dir_all(test.path("devices/plover-1")).unwrap();
    assert!(test.one_finding().contains("is missing: take it from a backup"));
}

#[test]
fn files_of_another_identity_are_found() {
    let mut test = TestFleet::new();
    test.fleet.issue(&"plover-2".parse().unwrap(), now()).unwrap();
    let swap = |one: &str, other: &str| {
        let [one, other] = [one, other].map(|name| test.path(name));
        let (first, second) = (fs::read(&one).unwrap(), fs::read(&other).unwrap());
        fs::write(&one, second).unwrap();
        fs::write(&other, first).unwrap();
    };
    for (file, wanted) in [
        ("key.pem", "is the key of another certificate than"),
        ("cert.pem", "is not the newest certificate of plover-"),
        ("seal.cert", "is for another name or key"),
        ("seal.key", "seal.key does not belong to seal.pub"),
    ] {
        let [one, other] = ["plover-1", "plover-2"].map(|name| format!("devices/{name}/{file}"));
        swap(&one, &other);
        let findings = test.findings(now());
        assert!(
            findings.len() == 2 && findings.iter().all(|finding| finding.contains(wanted)),
            "{findings:#?}"
        );
        swap(&one, &other);
    }
    swap("site.key", "release.key");
    assert_eq!(test.findings(now()).len(), 2);
    swap("site.key", "release.key");
    let other = TestFleet::new();
    fs::copy(other.path("ca.key"), test.path("ca.key")).unwrap();
    assert!(test.one_finding().contains("is not the key of"));
    fs::copy(other.path("ca.pem"), test.path("ca.pem")).unwrap();
    let findings = test.findings(now());
    assert!(
        findings.iter().any(|finding| finding.contains("is not signed by this fleet's ca.pem")),
        "{findings:#?}"
    );
}

#[test]
fn the_broker_of_a_fleet_denies_by_default() {
    let test = TestFleet::new();
    let text = fs::read_to_string(test.path("broker/mosquitto.conf")).unwrap();
    for line in [
        "allow_anonymous false",
        "acl_file /etc/mosquitto/dunlin/acl",
        "listener 8883",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.3",
        "crlfile /etc/mosquitto/dunlin/crl.pem",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
}
