//! A wireless network: checks of its name and password, and the file for wpa_supplicant.

use std::fmt::Write;

/// Maximum length of a network's name in bytes.
const SSID_BYTES_MAX: usize = 32;
/// The value of the password that means an open network.
const OPEN: &str = "open";

/// A network to join.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wifi {
    ssid: String,
    password: Password,
    country: Option<String>,
}

/// Authentication of a network.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Password {
    /// No password.
    Open,
    /// A passphrase of 8 to 63 bytes.
    Phrase(String),
    /// The key itself, as 64 hexadecimal digits.
    Key(String),
}

impl Wifi {
    /// A network with checked values.
    pub(crate) fn new(ssid: String, password: Password, country: Option<String>) -> Self {
        Self { ssid, password, country }
    }

    /// The network's name.
    pub(crate) fn ssid(&self) -> &str {
        &self.ssid
    }

    /// The file for wpa_supplicant.
    pub(crate) fn file(&self) -> String {
        let mut text =
            String::from("# From dunlin.txt; the next one that names a network replaces this file.\n");
        text += "ctrl_interface=/run/wpa_supplicant\n";
        if let Some(country) = &self.country {
            let _ = writeln!(text, "country={country}");
        }
        // wpa_supplicant ends a quoted string at the last quote of its line, so nothing needs escaping.
        let _ = writeln!(text, "network={{\n\tssid=\"{}\"", self.ssid);
        let _ = match &self.password {
            Password::Open => writeln!(text, "\tkey_mgmt=NONE"),
            Password::Phrase(phrase) => writeln!(text, "\tpsk=\"{phrase}\""),
            Password::Key(key) => writeln!(text, "\tpsk={key}"),
        };
        text + "}\n"
    }
}

/// Checks a network's name.
///
/// # Errors
/// The length of the name, if invalid.
pub(crate) fn check_ssid(ssid: &str) -> Result<(), String> {
    match ssid.len() {
        1..=SSID_BYTES_MAX => Ok(()),
        bytes => Err(format!("{bytes} bytes long, and a network's name has {SSID_BYTES_MAX} at most")),
    }
}

/// Classifies a password.
///
/// # Errors
/// The length of the password, if invalid.
pub(crate) fn password(text: &str) -> Result<Password, String> {
    match text.len() {
        _ if text == OPEN => Ok(Password::Open),
        8..=63 => Ok(Password::Phrase(text.into())),
        64 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Password::Key(text.into())),
        bytes => Err(format!(
            "{bytes} bytes long, and a network's password has 8 to 63, or is a key of 64 hexadecimal digits; for a \
             network without one write wifi_password = {OPEN}"
        )),
    }
}

/// The country codes of ISO 3166-1. A radio would silently keep its world-wide channels with another one.
const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY \
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK \
    FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR \
    IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK \
    ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM \
    PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF \
    TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Parses a country code, and converts it to capitals.
///
/// # Errors
/// The expected form.
pub(crate) fn country(text: &str) -> Result<String, String> {
    let code = text.to_ascii_uppercase();
    if code == "UK" {
        return Err("not a country code: the United Kingdom's is GB".into());
    }
    if COUNTRIES.split(' ').any(|known| known == code) {
        return Ok(code);
    }
    Err("not a country code: two letters, such as DE or US, as ISO 3166 has them".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_a_file() {
        let wifi = |password| Wifi::new("Müller \"5\" #1".into(), password, Some("DE".into())).file();
        insta::assert_snapshot!(wifi(Password::Phrase("it's \"so\" \\ # so".into())));
        assert!(wifi(Password::Open).contains("\"\n\tkey_mgmt=NONE\n}\n"));
        assert!(wifi(Password::Key("0".repeat(64))).contains(&format!("\n\tpsk={}\n", "0".repeat(64))));
        assert!(!Wifi::new("a".into(), Password::Open, None).file().contains("country"));
    }

    #[test]
    fn names_and_passwords_have_their_lengths() {
        assert!(check_ssid(&"é".repeat(16)).is_ok() && check_ssid(&"é".repeat(17)).is_err());
        assert!(check_ssid("").is_err());
        let kind = |text: &str| match password(text) {
            Ok(Password::Open) => "open",
            Ok(Password::Phrase(_)) => "phrase",
            Ok(Password::Key(_)) => "key",
            Err(_) => "none",
        };
        assert_eq!(
            [7, 8, 63, 64, 65].map(|length| kind(&"x".repeat(length))),
            ["none", "phrase", "phrase", "none", "none"]
        );
        assert_eq!([63, 64, 65].map(|length| kind(&"aF".repeat(33)[..length])), ["phrase", "key", "none"]);
        assert_eq!((kind("open"), kind("Open"), kind("")), ("open", "none", "none"));
        assert!(!password("secret").err().unwrap().contains("secret"));
    }

    #[test]
    fn a_country_is_two_letters() {
        assert_eq!(country("de").as_deref(), Ok("DE"));
        assert!(country("uk").unwrap_err().contains("GB"));
        assert!(COUNTRIES.split(' ').all(|code| country(code).as_deref() == Ok(code)));
        assert_eq!(COUNTRIES.split(' ').count(), 249);
        for wrong in ["", " ", "D", "DEU", "D1", "дe", "Germany", "XX", "EN", "DE US"] {
            assert!(country(wrong).unwrap_err().contains("two letters"), "{wrong}");
        }
    }
}
