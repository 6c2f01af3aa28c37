//! Parses a set-up file: lines with `key = value`, comments, and anything else.

use super::mistakes::Mistakes;
use std::collections::BTreeMap;

/// Characters of a key shown in a mistake.
const SHOWN_MAX: usize = 40;
/// Maximum edit distance at which a known key is suggested.
const TYPING_ERRORS_MAX: usize = 3;
const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('“', '”'), ('‘', '’'), ('„', '“')];

/// A key of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SetupKey {
    Name,
    Broker,
    BrokerUser,
    BrokerPassword,
    WifiSsid,
    WifiPassword,
    WifiCountry,
    Ssh,
    TlsCa,
    TlsCertificate,
    TlsKey,
    Site,
    Seal,
    SealCertificate,
    Collector,
}

/// A value and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetupEntry {
    pub(crate) line: usize,
    pub(crate) value: String,
}

/// The entries and mistakes of a file.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) entries: BTreeMap<SetupKey, SetupEntry>,
    pub(crate) mistakes: Mistakes,
}

impl SetupKey {
    pub(crate) const ALL: [Self; 15] = [
        Self::Name,
        Self::Broker,
        Self::BrokerUser,
        Self::BrokerPassword,
        Self::WifiSsid,
        Self::WifiPassword,
        Self::WifiCountry,
        Self::Ssh,
        Self::TlsCa,
        Self::TlsCertificate,
        Self::TlsKey,
        Self::Site,
        Self::Seal,
        Self::SealCertificate,
        Self::Collector,
    ];
    /// The keys of the board's certificate, which `dunlin-fleet card` writes.
    pub(crate) const TLS: [Self; 3] = [Self::TlsCa, Self::TlsCertificate, Self::TlsKey];
    /// The keys for sealed sessions, which it writes too.
    pub(crate) const SEALING: [Self; 4] = [Self::Site, Self::Seal, Self::SealCertificate, Self::Collector];

    /// Its name in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Broker => "broker",
            Self::BrokerUser => "broker_user",
            Self::BrokerPassword => "broker_password",
            Self::WifiSsid => "wifi_ssid",
            Self::WifiPassword => "wifi_password",
            Self::WifiCountry => "wifi_country",
            Self::Ssh => "ssh_key",
            Self::TlsCa => "tls_ca",
            Self::TlsCertificate => "tls_certificate",
            Self::TlsKey => "tls_key",
            Self::Site => "site_key",
            Self::Seal => "seal_key",
            Self::SealCertificate => "seal_certificate",
            Self::Collector => "collector_key",
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name().eq_ignore_ascii_case(name))
    }
}

impl Parsed {
    /// True if nothing is filled in: there is no value and no mistake.
    pub(crate) fn is_blank(&self) -> bool {
        self.mistakes.is_empty() && self.entries.values().all(|entry| entry.value.is_empty())
    }
}

/// Parses the lines.
pub(crate) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut in_private_key = false;
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if in_private_key {
            in_private_key = !text.starts_with("-----END");
        } else if text.contains("PRIVATE KEY-----") {
            in_private_key = true;
            let said = "a private key, which belongs on your own computer and nowhere else: remove it here; ssh_key \
                takes the one line of the file whose name ends with .pub";
            parsed.mistakes.push(Some(line), said);
        } else if !text.is_empty() && !text.starts_with('#') {
            parsed.take(line, text);
        }
    }
    parsed
}

impl Parsed {
    fn take(&mut self, line: usize, text: &str) {
        let Some((name, value)) = text.split_once('=') else {
            let said = "no = in it: a line is `key = value`, or a comment that begins with #";
            return self.mistakes.push(Some(line), said);
        };
        let Some(key) = SetupKey::find(name.trim()) else {
            return self.mistakes.push(Some(line), unknown(name.trim()));
        };
        let value = unquoted(value.trim());
        if value.chars().any(char::is_control) {
            let said = format!("{} has a control character in its value: type it again", key.name());
            return self.mistakes.push(Some(line), said);
        }
        if let Some(first) = self.entries.get(&key) {
            let said = format!("{} is in line {} already: keep one of the two", key.name(), first.line);
            return self.mistakes.push(Some(line), said);
        }
        self.entries.insert(key, SetupEntry { line, value: value.into() });
    }
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> &str {
    let inner = |(open, close)| value.strip_prefix(open)?.strip_suffix(close);
    QUOTES.into_iter().find_map(inner).unwrap_or(value)
}

fn unknown(name: &str) -> String {
    let lower = name.to_ascii_lowercase().replace(['-', ' '], "_");
    let shown: String = name.chars().take(SHOWN_MAX).collect();
    let near = |key: &SetupKey| lower.len() > 2 && key.name().contains(&lower);
    let mut meant: Vec<_> = SetupKey::ALL.into_iter().filter(near).map(SetupKey::name).collect();
    if meant.is_empty() {
        let by_distance = |key: &SetupKey| strsim::osa_distance(&lower, key.name());
        let nearest = SetupKey::ALL.into_iter().min_by_key(by_distance);
        meant.extend(nearest.filter(|key| by_distance(key) <= TYPING_ERRORS_MAX).map(SetupKey::name));
    }
    match meant.as_slice() {
        [] => format!("unknown key {shown:?}; known are {}", SetupKey::ALL.map(SetupKey::name).join(", ")),
        meant => format!("unknown key {shown:?}: did you mean {}?", meant.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(&'static str, String)> {
        let parsed = parse(text);
        assert!(parsed.mistakes.is_empty(), "{:?}", parsed.mistakes);
        parsed.entries.into_iter().map(|(key, entry)| (key.name(), entry.value)).collect()
    }

    fn said(text: &str) -> Vec<String> {
        parse(text).mistakes.lines()
    }

    #[test]
    fn quotes_of_every_keyboard_are_no_part_of_a_value() {
        for quoted in ["\"a b\"", "'a b'", "“a b”", "‘a b’", "„a b“", "a b"] {
            assert_eq!(unquoted(quoted), "a b", "{quoted}");
        }
        for kept in ["Ann’s", "‘a", "a\"b", "“a“"] {
            assert_eq!(unquoted(kept), kept);
        }
    }

    #[test]
    fn lines_are_keys_with_values() {
        let text = "# a comment\n\n  NAME=plover-1  \nbroker = mqtt://h:1 \n\t# more\nwifi_ssid = \" a = b # \"\n\
            wifi_password = 'it''s'\nbroker_password = \"\n";
        let expected = [
            ("name", "plover-1"),
            ("broker", "mqtt://h:1"),
            ("broker_password", "\""),
            ("wifi_ssid", " a = b # "),
            ("wifi_password", "it''s"),
        ];
        assert_eq!(values(text), expected.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn every_mistake_is_said_with_its_line() {
        let text = "name = a\nplover\nwifi_pasword = secret\nssid = x\nname = b\npassword = p\nzzz = 1\n\
            broker = a\u{7}b\n";
        assert_eq!(
            said(text),
            [
                "line 2: no = in it: a line is `key = value`, or a comment that begins with #",
                "line 3: unknown key \"wifi_pasword\": did you mean wifi_password?",
                "line 4: unknown key \"ssid\": did you mean wifi_ssid?",
                "line 5: name is in line 1 already: keep one of the two",
                "line 6: unknown key \"password\": did you mean broker_password or wifi_password?",
                "line 7: unknown key \"zzz\"; known are name, broker, broker_user, broker_password, wifi_ssid, \
                 wifi_password, wifi_country, ssh_key, tls_ca, tls_certificate, tls_key, site_key, seal_key, \
                 seal_certificate, collector_key",
                "line 8: broker has a control character in its value: type it again",
            ]
        );
        let long = said(&format!("{}\u{1b}[2J = 1", "x".repeat(100)));
        assert!(long[0].contains(&format!("{:?};", "x".repeat(SHOWN_MAX))), "{long:?}");
        assert!(!said("\u{1b}[2J = 1")[0].contains('\u{1b}'), "nothing reaches a terminal as it is");
    }

    #[test]
    fn a_private_key_is_one_mistake_and_is_not_shown() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\nAAAA==\n-----END OPENSSH PRIVATE KEY-----";
        let lines = said(&format!("name = a\nssh_key = {key}\nbrocker = x\n"));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("line 2: a private key") && lines[1].contains("line 6: unknown key"));
        assert!(!lines[0].contains("b3Bl"));
        assert_eq!(said(&key[..60]).len(), 1, "without an end");
    }

    #[test]
    fn a_file_without_values_is_blank() {
        for text in ["", "# name = a\n", "name =\nbroker = \"\"\n"] {
            assert!(parse(text).is_blank(), "{text}");
        }
        assert!(!parse("name = a").is_blank() && !parse("nothing").is_blank());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_taken_apart(text in "(name|broker|x|#|=|\"| |\n|-----|PRIVATE KEY-----|.|\\PC){0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(values in prop::collection::btree_map(0..15usize, "\\PC{0,20}", 0..15)) {
            let line = |(key, value): (&usize, &String)| format!("{} = \"{value}\"\n", SetupKey::ALL[*key].name());
            let text: String = values.iter().map(line).collect();
            let parsed = parse(&text);
            prop_assert!(parsed.mistakes.is_empty());
            let read: BTreeMap<_, _> = parsed.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
            prop_assert_eq!(read, values.into_iter().map(|(key, value)| (SetupKey::ALL[key], value)).collect());
        }
    }
}
