//! TLS against a real mosquitto: what connects, and the words for what doesn't.
#![allow(clippy::unwrap_used)] // everything here is a test

mod pki;

use dunlin_link::{
    Arrival, BrokerAddress, ConnectOptions, Dialer, MqttTable, Security, TlsFiles, TlsTable, authorities,
    certificates, check_card, day, probe, round_trip,
};
use dunlin_mosquitto::Mosquitto;
use dunlin_wire::topic::Topic;
use pki::{Authority, LOCAL, LONG, Pair, Purpose};
use std::fmt::Write;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// The document whose table lists every case.
const DOCUMENT: &str = include_str!("../../../../docs/tls.md");

/// Authorities and certificates.
struct Site {
    dir: TempDir,
    ca: Authority,
    stranger: Authority,
    server: Pair,
    device: Pair,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ca, stranger) = (Authority::new(dir.path(), ""), Authority::new(dir.path(), "foreign-"));
        let server = ca.pair("broker", Purpose::Server, LONG, LOCAL);
        let device = ca.pair("plover-1", Purpose::Client, LONG, &[]);
        Self { dir, ca, stranger, server, device }
    }

    /// A mosquitto with this certificate that wants one of its clients.
    fn mosquitto(&self, server: &Pair, more: &str) -> Mosquitto {
        Mosquitto::with(&format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n{more}\n",
            self.ca.file.display(),
            server.certificate.display(),
            server.key.display(),
        ))
    }

    fn strict(&self, server: &Pair) -> Mosquitto {
        self.mosquitto(server, "tls_version tlsv1.3")
    }

    /// The words that a connection with these files ends with; empty if the broker accepts it.
    async fn words(&self, url: &str, ca: &Path, pair: Option<&Pair>) -> String {
        match self.options(url, ca, pair) {
            Err(words) => words,
            Ok(options) => match probe(&options).await {
                Ok(_) => String::new(),
                Err(loss) => loss.reason,
            },
        }
    }

    fn options(&self, url: &str, ca: &Path, pair: Option<&Pair>) -> Result<ConnectOptions, String> {
        let broker: BrokerAddress = url.parse().unwrap();
        let tls = TlsTable {
            ca_file: Some(ca.into()),
            cert_file: pair.map(|pair| pair.certificate.clone()),
            key_file: pair.map(|pair| pair.key.clone()),
        };
        let tls = if broker.tls { tls } else { TlsTable::default() };
        let security = MqttTable::default().security(&broker, &tls, Path::new("/nowhere"), None);
        Ok(ConnectOptions {
            security: security.map_err(|error| format!("{error:#}"))?,
            broker,
            login: None,
            client_id: "plover-1".into(),
            keep_alive: Duration::from_secs(5),
            inflight_max: 8,
        })
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The words without what differs from run to run.
    fn plain(&self, words: &str, port: u16) -> String {
        let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let folder = format!("{}/", self.dir.path().display());
        words.replace(&port.to_string(), "8883").replace(&day(today), "TODAY").replace(&folder, "")
    }
}

/// The table of `docs/tls.md`, made of what a user sees.
struct Table {
    site: Site,
    rows: String,
    count: usize,
}

impl Table {
    fn row(&mut self, case: &str, words: &str, port: u16) {
        assert!(!words.is_empty(), "{case}: connected");
        writeln!(self.rows, "| {case} | {} |", self.site.plain(words, port)).unwrap();
        self.count += 1;
    }

    /// Faults of the broker's certificate.
    async fn servers(&mut self) {
        let pair = |begins, ends, hosts, purpose| self.site.ca.pair("broker", purpose, (begins, ends), hosts);
        let cases = [
            ("the broker's certificate has ended", pair(2020, 2021, LOCAL, Purpose::Server)),
            ("it isn't valid yet", pair(2098, 2099, LOCAL, Purpose::Server)),
            ("it is for another name", pair(2020, 2099, &["broker.example"], Purpose::Server)),
            ("it is a client's", pair(2020, 2099, LOCAL, Purpose::Client)),
            (
                "another CA of the same name signed it",
                self.site.stranger.pair("broker", Purpose::Server, LONG, LOCAL),
            ),
        ];
        for (case, server) in cases {
            let mosquitto = self.site.strict(&server);
            let url = format!("mqtts://localhost:{}", mosquitto.port);
            let words = self.site.words(&url, &self.site.ca.file, Some(&self.site.device)).await;
            self.row(case, &words, mosquitto.port);
        }
    }

    /// Faults of this program's certificate.
    async fn clients(&mut self) {
        let site = &self.site;
        let revoked = site.ca.pair("plover-1", Purpose::Client, LONG, &[]);
        let list = site.ca.revocations(&[&revoked]);
        let more = format!("tls_version tlsv1.3\ncrlfile {}", list.display());
        let mosquitto = site.mosquitto(&site.server, &more);
        let url = format!("mqtts://localhost:{}", mosquitto.port);
        let strange = site.stranger.pair("plover-1", Purpose::Client, LONG, &[]);
        let ended = site.ca.pair("plover-1", Purpose::Client, (2020, 2021), &[]);
        let early = site.ca.pair("plover-1", Purpose::Client, (2098, 2099), &[]);
        let server = site.ca.pair("plover-1", Purpose::Server, LONG, LOCAL);
        assert_eq!(site.words(&url, &site.ca.file, Some(&site.device)).await, "", "a valid certificate");
        for (case, pair) in [
            ("no certificate is configured", None),
            ("another CA of the same name signed this program's certificate", Some(&strange)),
            ("it has ended", Some(&ended)),
            ("it isn't valid yet for the broker", Some(&early)),
            ("it was revoked", Some(&revoked)),
            ("it is a server's", Some(&server)),
        ] {
            let words = self.site.words(&url, &self.site.ca.file, pair).await;
            self.row(case, &words, mosquitto.port);
        }
    }

    /// Faults of addresses and ports.
    async fn ports(&mut self) {
        let old = old_server();
        let plain = Mosquitto::with("allow_anonymous true\n");
        let strict = self.site.strict(&self.site.server);
        let nobody = dunlin_mosquitto::free_port();
        for (case, scheme, port) in [
            ("the broker speaks TLS 1.2 only", "mqtts", old),
            ("mqtts:// to a port for plain MQTT", "mqtts", plain.port),
            ("mqtt:// to a port for TLS", "mqtt", strict.port),
            ("nothing listens", "mqtts", nobody),
        ] {
            let url = format!("{scheme}://localhost:{port}");
            let words = self.site.words(&url, &self.site.ca.file, Some(&self.site.device)).await;
            self.row(case, &words, port);
        }
    }

    /// Faults of files.
    async fn files(&mut self) {
        let site = &self.site;
        let text = fs::read(&site.device.certificate).unwrap();
        let other = site.ca.pair("plover-2", Purpose::Client, LONG, &[]);
        let keyless = site.file("keyless.pem", &text);
        let open = site.file("open.key", fs::read(&site.device.key).unwrap());
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        let pair = |certificate: &Path, key: &Path| {
            let serial = 1.into();
            Some(Pair { certificate: certificate.into(), key: key.into(), serial })
        };
        let Pair { certificate, key, .. } = &site.device;
        let ca = site.ca.file.as_path();
        let missing = site.dir.path().join("missing-ca.pem");
        let broken = site.file("broken.pem", String::from_utf8(text.clone()).unwrap().replace("MII", "M!!"));
        let cut = site.file("cut.pem", &text[..text.len() / 2]);
        let der = site.file("not-der.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let empty = site.file("empty.pem", "");
        let cases = [
            ("the CA's file is missing", missing.as_path(), None),
            ("the CA's file holds no certificate", empty.as_path(), None),
            ("the certificate is broken", ca, pair(&broken, key)),
            ("the certificate is cut off", ca, pair(&cut, key)),
            ("the certificate is another kind of data", ca, pair(&der, key)),
            ("the key is missing in its file", ca, pair(certificate, &keyless)),
            ("the key is that of another certificate", ca, pair(certificate, &other.key)),
            ("everybody can read the key", ca, pair(certificate, &open)),
        ];
        let mut found = Vec::new();
        for (case, ca, pair) in cases {
            found.push((case, site.words("mqtts://localhost:8883", ca, pair.as_ref()).await));
        }
        for (case, words) in found {
            self.row(case, &words, 8883);
        }
    }
}

/// A server that answers one client as one without TLS 1.3 does: with the alert `protocol_version`. Returns its port.
fn old_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut hello = [0; 5];
        client.read_exact(&mut hello).unwrap();
        client.read_exact(&mut vec![0; u16::from_be_bytes([hello[3], hello[4]]).into()]).unwrap();
        client.write_all(&[21, 3, 3, 0, 2, 2, 70]).unwrap();
    });
    port
}

#[tokio::test]
async fn every_failure_of_tls_has_the_documented_words() {
    let mut table = Table { site: Site::new(), rows: String::new(), count: 0 };
    table.servers().await;
    table.clients().await;
    table.ports().await;
    table.files().await;
    assert!(table.count >= 20, "{}", table.rows);
    assert!(DOCUMENT.contains(&table.rows), "docs/tls.md lacks this table:\n{}", table.rows);
}

#[tokio::test]
async fn a_broker_is_reached_by_name_and_by_both_kinds_of_address() {
    let site = Site::new();
    let mosquitto = site.strict(&site.server);
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("mqtts://{host}:{}", mosquitto.port);
        assert_eq!(site.words(&url, &site.ca.file, Some(&site.device)).await, "", "{host}");
    }
}

#[tokio::test]
async fn an_address_of_version_six_is_the_name_in_the_certificate() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("This machine has no IPv6, so there is nothing to connect to.");
        return;
    }
    let site = Site::new();
    let port = dunlin_mosquitto::free_port();
    let more = format!(
        "listener {port} ::1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
         use_identity_as_username true",
        site.ca.file.display(),
        site.server.certificate.display(),
        site.server.key.display()
    );
    let _mosquitto = site.mosquitto(&site.server, &more);
    let url = format!("mqtts://[::1]:{port}");
    assert_eq!(site.words(&url, &site.ca.file, Some(&site.device)).await, "");
}

#[test]
fn a_connection_is_described_and_warned_of() {
    let site = Site::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let day_seconds = 24 * 3600;
    for (days, warned) in [(29, true), (31, false)] {
        let pair = site.ca.pair_until("v.a", now + Duration::from_secs(days * day_seconds + 60));
        let options = site.options("mqtts://localhost", &site.ca.file, Some(&pair)).unwrap();
        let (broker, security) = (&options.broker, &options.security);
        let until = day(now.as_secs() + days * day_seconds + 60);
        assert_eq!(security.described(broker).unwrap(), format!("TLS 1.3, as v.a until {until}"));
        let caution = security.caution(broker).unwrap();
        let expected = format!(
            "the certificate of \"v.a\" ends on {until}, in 29 days: renew it with `dunlin-fleet renew`"
        );
        assert_eq!(caution, warned.then_some(expected));
    }
    let elsewhere: BrokerAddress = "192.168.1.10".parse().unwrap();
    assert_eq!(Security::Plain.described(&elsewhere).unwrap(), "without TLS");
    let caution = Security::Plain.caution(&elsewhere).unwrap().unwrap();
    assert!(caution.contains("everybody on the way to mqtt://192.168.1.10:1883 can read"), "{caution}");
    let local: BrokerAddress = "localhost".parse().unwrap();
    assert_eq!(Security::Plain.caution(&local).unwrap(), None);
}

#[test]
fn a_card_is_of_its_authority_and_has_not_ended() {
    let site = Site::new();
    let ended = site.ca.pair("plover-1", Purpose::Client, (2020, 2021), &[]);
    let checked = |authority: &Authority, pair: &Pair, floor| {
        let of = |path: &Path| certificates(&fs::read(path).unwrap()).unwrap();
        let roots = authorities(&of(&authority.file)).unwrap();
        check_card(roots, &of(&pair.certificate), floor).map_err(|error| error.to_string())
    };
    assert_eq!(checked(&site.ca, &site.device, None).unwrap().common_name, "plover-1");
    let early = checked(&site.ca, &ended, None).unwrap_err();
    assert!(
        early.starts_with("the certificate of \"plover-1\" ended on 2021-01-01, and the clock says 20"),
        "{early}"
    );
    // 2100: the floor counts where the clock is earlier.
    let late = checked(&site.ca, &site.device, Some(4_102_444_800)).unwrap_err();
    assert!(late.contains("ended on 2099-01-01, and the clock says 2100-01-01"), "{late}");
    let foreign = checked(&site.stranger, &site.device, None).unwrap_err();
    assert!(foreign.contains("not signed by this CA"), "{foreign}");
    let server = checked(&site.ca, &site.server, None).unwrap_err();
    assert!(server.contains("\"broker\""), "{server}");
}

#[tokio::test]
async fn a_message_to_oneself_shows_whether_the_access_list_has_the_name() {
    let site = Site::new();
    let list = site.file("acl", "pattern readwrite dl1/d/%u/p\n");
    let more = format!("tls_version tlsv1.3\nacl_file {}", list.display());
    let mosquitto = site.mosquitto(&site.server, &more);
    let url = format!("mqtts://localhost:{}", mosquitto.port);
    let options = site.options(&url, &site.ca.file, Some(&site.device)).unwrap();
    let own = Topic::DeviceProbe("plover-1".parse().unwrap());
    assert_eq!(round_trip(&options, &own).await, Ok(()));
    let refused = round_trip(&options, &Topic::DeviceProbe("plover-2".parse().unwrap())).await.unwrap_err();
    assert!(refused.contains("dl1/d/plover-2/p: the broker refuses it (NotAuthorized)"), "{refused}");
    assert!(refused.contains("lack this name (plover-1, as in its certificate)"), "{refused}");
}

#[tokio::test]
async fn certificates_at_hand_connect_and_are_not_shown() {
    let site = Site::new();
    let mosquitto = site.strict(&site.server);
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let (ca, key) = (text(&site.ca.file), text(&site.device.key));
    let given = TlsFiles::given(&ca, &text(&site.device.certificate), &key).unwrap();
    assert!(!format!("{given:?}").contains("BEGIN"), "{given:?}");
    let url = format!("mqtts://localhost:{}", mosquitto.port);
    let options = site.options(&url, &site.ca.file, Some(&site.device)).unwrap();
    let options = ConnectOptions { security: Security::Tls(given), ..options };
    assert_eq!(probe(&options).await.map_err(|loss| loss.reason).err(), None);
    let other = text(&site.server.certificate);
    let error = format!("{:#}", TlsFiles::given(&ca, &other, &key).unwrap_err());
    assert!(error.contains("the card") && error.contains("doesn't belong"), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_the_next_connection_on() {
    let site = Site::new();
    let revoked = site.ca.revocations(&[&site.device]);
    let mosquitto =
        site.mosquitto(&site.server, &format!("tls_version tlsv1.3\ncrlfile {}", revoked.display()));
    let url = format!("mqtts://localhost:{}", mosquitto.port);
    let options = site.options(&url, &site.ca.file, Some(&site.device)).unwrap();
    let mut dialer = Dialer::start(options).await;
    assert!(dialer.dial(None).next().await.is_err(), "it was revoked");
    let renewed = site.ca.pair("plover-1", Purpose::Client, LONG, &[]);
    fs::rename(&renewed.certificate, &site.device.certificate).unwrap();
    fs::rename(&renewed.key, &site.device.key).unwrap();
    let arrived = dialer.dial(None).next().await.unwrap_or_else(|_| panic!("the renewed one is valid"));
    assert!(matches!(arrived.arrival, Arrival::Accepted(_)));
    fs::remove_file(&site.device.key).unwrap();
    let end = format!("{:?}", dialer.dial(None).next().await.err().unwrap());
    assert!(end.contains("No such file") && end.contains("refused: true"), "{end}");
}

#[tokio::test]
async fn a_stored_floor_moves_an_early_clock_and_an_invalid_one_is_refused() {
    let site = Site::new();
    let mosquitto = site.strict(&site.server);
    let url = format!("mqtts://localhost:{}", mosquitto.port);
    let words = async || site.words(&url, &site.ca.file, Some(&site.device)).await;
    let floor = site.file("time-floor", "4102444800\n");
    let late = words().await;
    assert!(late.contains("ended on 2099-01-01, and the clock says 2100-01-01: renew"), "{late}");
    fs::write(&floor, "0\n").unwrap();
    assert_eq!(words().await, "", "the floor is no earlier than the build");
    fs::write(&floor, "soon\n").unwrap();
    let invalid = words().await;
    assert!(invalid.contains("time-floor: not a number of seconds since 1970"), "{invalid}");
}
