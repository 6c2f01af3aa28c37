//! The values of a set-up file, checked against each other and against the present state.

use super::identity::{SealIdentity, TlsIdentity, key_line, pem, value_line};
use super::mistakes::Mistakes;
use super::parse::{Parsed, SetupEntry, SetupKey};
use super::standing::{BrokerLogin, Standing};
use super::{ssh_key, wifi};
use dunlin_link::{AddressError, BrokerAddress};
use dunlin_wire::DeviceId;
use std::collections::BTreeMap;
use wifi::Wifi;

/// Maximum length of a broker's address in bytes; a host name has at most 253.
const BROKER_BYTES_MAX: usize = 300;

/// The changes that a file requests; other settings stay.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BoardSetup {
    /// This device's name.
    pub name: Option<DeviceId>,
    /// The broker's address.
    pub broker: Option<String>,
    /// User and password at the broker.
    pub login: Option<BrokerLogin>,
    /// The wireless network.
    pub(crate) wifi: Option<Wifi>,
    /// A key that may log in over ssh.
    pub(crate) ssh_key: Option<String>,
    /// The board's certificate, its key, and the authority of the fleet.
    pub(crate) tls: Option<TlsIdentity>,
    /// The board's keys for sealed sessions.
    pub(crate) seal: Option<SealIdentity>,
}

impl BoardSetup {
    /// The broker, if it is a new one on another machine and without TLS.
    pub(crate) fn plain_broker(&self) -> Option<&str> {
        let broker = self.broker.as_deref()?;
        let address: BrokerAddress = broker.parse().ok()?;
        (!address.tls && !address.is_loopback()).then_some(broker)
    }
}

/// The valid values of `parsed`; mistakes in the others are added to its mistakes.
pub(crate) fn checked(parsed: Parsed, standing: &Standing) -> (BoardSetup, Mistakes) {
    let mut reader = SetupReader { entries: parsed.entries, mistakes: parsed.mistakes };
    reader.refuse_empty();
    let setup = BoardSetup {
        name: reader.value(SetupKey::Name, name),
        broker: reader.value(SetupKey::Broker, broker),
        login: reader.login(),
        wifi: reader.wifi(),
        ssh_key: reader
            .value(SetupKey::Ssh, |key| ssh_key::check(key).map(|()| key.into()).map_err(Into::into)),
        tls: reader.tls(),
        seal: reader.seal(),
    };
    reader.own_card(&setup, standing);
    let known =
        [(SetupKey::Name, standing.device().is_some()), (SetupKey::Broker, standing.broker().is_some())];
    for (key, _) in known.into_iter().filter(|(_, known)| !known) {
        reader.require(key, "this board has none yet");
    }
    reader.rescue(&setup, standing);
    (setup, reader.mistakes)
}

struct SetupReader {
    entries: BTreeMap<SetupKey, SetupEntry>,
    mistakes: Mistakes,
}

impl SetupReader {
    fn refuse_empty(&mut self) {
        for (key, entry) in self.entries.iter().filter(|(_, entry)| entry.value.is_empty()) {
            let said =
                format!("{} has no value: write one behind the =, or # in front of the line", key.name());
            self.mistakes.push(Some(entry.line), said);
        }
    }

    /// The value of a key after `check`; `None` if it is missing or invalid.
    fn value<T>(&mut self, key: SetupKey, check: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let entry = self.entries.get(&key).filter(|entry| !entry.value.is_empty())?;
        let wrong = |why| self.mistakes.push(Some(entry.line), format!("{}: {why}", key.name()));
        check(&entry.value).map_err(wrong).ok()
    }

    /// Adds a mistake: a required key is missing, for the reason `why`.
    fn require(&mut self, key: SetupKey, why: &str) {
        if !self.entries.contains_key(&key) {
            self.mistakes.push(None, format!("{} is missing: {why}", key.name()));
        }
    }

    /// The first of `keys` that is present.
    fn first(&self, keys: &[SetupKey]) -> Option<SetupKey> {
        keys.iter().copied().find(|key| self.entries.contains_key(key))
    }

    fn login(&mut self) -> Option<BrokerLogin> {
        let first = self.first(&[SetupKey::BrokerUser, SetupKey::BrokerPassword])?;
        for key in [SetupKey::BrokerUser, SetupKey::BrokerPassword] {
            self.require(key, &format!("{} needs it", first.name()));
        }
        let text = |text: &str| Ok(text.to_owned());
        Some(BrokerLogin {
            user: self.value(SetupKey::BrokerUser, text)?,
            password: self.value(SetupKey::BrokerPassword, text)?,
        })
    }

    fn wifi(&mut self) -> Option<Wifi> {
        let first = self.first(&[SetupKey::WifiSsid, SetupKey::WifiPassword, SetupKey::WifiCountry])?;
        self.require(SetupKey::WifiSsid, &format!("{} needs it", first.name()));
        self.require(SetupKey::WifiPassword, "a network without one needs wifi_password = open");
        let ssid = self.value(SetupKey::WifiSsid, |ssid| wifi::check_ssid(ssid).map(|()| ssid.into()));
        let password = self.value(SetupKey::WifiPassword, wifi::password);
        let country = self.value(SetupKey::WifiCountry, wifi::country);
        Some(Wifi::new(ssid?, password?, country))
    }

    /// Requires all of `keys` if one is present; returns true if one is.
    fn all_of(&mut self, keys: &[SetupKey]) -> bool {
        let Some(first) = self.first(keys) else { return false };
        for key in keys {
            self.require(*key, &format!("{} needs it; copy all lines of the card", first.name()));
        }
        true
    }

    fn tls(&mut self) -> Option<TlsIdentity> {
        if !self.all_of(&SetupKey::TLS) {
            return None;
        }
        let authority = self.value(SetupKey::TlsCa, |value| pem("CERTIFICATE", value));
        let certificate = self.value(SetupKey::TlsCertificate, |value| pem("CERTIFICATE", value));
        let key = self.value(SetupKey::TlsKey, |value| pem("PRIVATE KEY", value));
        Some(TlsIdentity { authority: authority?, certificate: certificate?, key: key? })
    }

    fn seal(&mut self) -> Option<SealIdentity> {
        if !self.all_of(&SetupKey::SEALING) {
            return None;
        }
        let site = self.value(SetupKey::Site, key_line);
        let key = self.value(SetupKey::Seal, key_line);
        let certificate = self.value(SetupKey::SealCertificate, value_line);
        let collector = self.value(SetupKey::Collector, key_line);
        Some(SealIdentity { site: site?, key: key?, certificate: certificate?, collector: collector? })
    }

    /// Checks that a card is whole, valid, this board's, and for a broker with TLS.
    fn own_card(&mut self, setup: &BoardSetup, standing: &Standing) {
        let Some(tls) = &setup.tls else { return };
        let line = self.entries.get(&SetupKey::TlsCertificate).map(|entry| entry.line);
        match (tls.name(), setup.name.clone().or_else(|| standing.device())) {
            (Err(error), _) => self.mistakes.push(line, format!("tls_certificate: {error}")),
            (Ok(own), Some(name)) if own != name.as_str() => {
                let own: String = own.chars().take(40).collect();
                let said = format!(
                    "tls_certificate: it is for {own:?}, and this board is {name}: take its own card"
                );
                self.mistakes.push(line, said);
            }
            (Ok(_), _) => {}
        }
        let broker = setup.broker.clone().or_else(|| standing.broker());
        if broker.is_some_and(|broker| broker.parse::<BrokerAddress>().is_ok_and(|broker| !broker.tls)) {
            let said =
                "tls_certificate: it needs a broker with TLS: write broker = mqtts://…, as on the card";
            self.mistakes.push(line, said);
        }
    }

    /// A configuration that can't be read may be replaced only by a complete one.
    fn rescue(&mut self, setup: &BoardSetup, standing: &Standing) {
        let Some((_, why)) = &standing.unreadable else { return };
        if setup.name.is_none() || setup.broker.is_none() {
            self.mistakes.push(None, format!("{why}: set both name and broker here to replace it"));
        }
    }
}

fn name(text: &str) -> Result<DeviceId, String> {
    let rule = "a name has a-z, 0-9 and '-', at most 32 of them, and begins and ends with a letter or digit";
    let shown: String = text.chars().take(40).collect();
    let wrong = format!("{shown:?} is invalid: {rule}");
    if text.starts_with('-') || text.ends_with('-') { Err(wrong) } else { text.parse().map_err(|_| wrong) }
}

fn broker(url: &str) -> Result<String, String> {
    if url.len() > BROKER_BYTES_MAX {
        return Err(format!("longer than {BROKER_BYTES_MAX} bytes"));
    }
    if url.contains('@') {
        return Err("leave user and password out of it: they are broker_user and broker_password".into());
    }
    if url.contains([' ', '\t', '#']) {
        return Err("text after the address: write a comment on a line of its own".into());
    }
    let wrong = |error: AddressError| error.to_string().trim_start_matches("broker ").to_owned();
    url.parse::<BrokerAddress>().map_err(wrong)?;
    Ok(url.into())
}
