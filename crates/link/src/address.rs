//! A broker's address: `[mqtt://][user[:password]@]host[:port]`, or `mqtts://` for TLS.

use crate::login::{Login, Secret};
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The port of MQTT without TLS.
const PORT: u16 = 1883;
/// The port of MQTT over TLS.
const TLS_PORT: u16 = 8883;
/// Schemes that an address may be meant to have; before another one, a `://` may be part of a login.
const SCHEMES: [&str; 6] = ["mqtt", "tcp", "mqtts", "ssl", "ws", "wss"];

/// A broker's host and port, and the login in its address; displayed without the login.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BrokerAddress {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// True for TLS.
    pub tls: bool,
    /// User and password in the address.
    pub login: Option<Login>,
}

/// An invalid address, displayed without its login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("broker {shown:?}: {problem}; expected mqtts://[user:password@]host[:port], or mqtt:// without TLS")]
pub struct AddressError {
    shown: String,
    problem: String,
}

impl BrokerAddress {
    /// The host in the form of a URL: an IPv6 address has brackets.
    pub(crate) fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The address as a URL, without its login.
    pub fn url(&self) -> String {
        format!("{}://{self}", if self.tls { "mqtts" } else { "mqtt" })
    }

    /// True if the host is this machine.
    pub fn is_loopback(&self) -> bool {
        let is_local = |address: IpAddr| address.to_canonical().is_loopback();
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse().is_ok_and(is_local)
    }
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = scheme_and_rest(text);
        let scheme = scheme.unwrap_or("mqtt");
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let invalid = |problem: String| AddressError { shown: shown(text), problem };
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            "ws" | "wss" => return Err(invalid(format!("this build doesn't speak {scheme}://"))),
            _ => return Err(invalid(format!("unknown scheme {scheme:?}"))),
        };
        let port = if tls { TLS_PORT } else { PORT };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = host_and_port(place, port).map_err(invalid)?;
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            Login { user: user.into(), password: Secret::new(password) }
        });
        Ok(Self { host, port, tls, login })
    }
}

/// The scheme, if there is one, and the rest. A `://` inside a password doesn't end a scheme.
fn scheme_and_rest(text: &str) -> (Option<&str>, &str) {
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => (Some(scheme), rest),
        _ => (None, text),
    }
}

/// The host and the port in `place`, or else the `usual` port.
fn host_and_port(place: &str, usual: u16) -> Result<(String, u16), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or("no closing bracket")?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err("text after the bracket".into());
            }
            (host, port)
        }
        None => match place.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Err("an IPv6 address belongs in brackets".into());
            }
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err("no host".into());
    }
    if host
        .contains(|c: char| matches!(c, '/' | '?' | '#' | '[' | ']') || c.is_whitespace() || c.is_control())
    {
        return Err("the host is not a name or an address".into());
    }
    let number = |port: &str| port.parse().ok().filter(|port| *port != 0);
    let port = port.map_or(Some(usual), number).ok_or("the port is not a number from 1 to 65535")?;
    Ok((host.into(), port))
}

/// The address without its login, for errors.
fn shown(text: &str) -> String {
    let (scheme, rest) = scheme_and_rest(text);
    match (scheme, rest.rsplit_once('@')) {
        (Some(scheme), Some((_login, place))) => format!("{scheme}://***@{place}"),
        (None, Some((_login, place))) => format!("***@{place}"),
        (Some(scheme), None) if !SCHEMES.contains(&scheme) => format!("{scheme}://***"),
        (Some(scheme), None) => format!("{scheme}://{}", without_password(rest)),
        (None, None) => without_password(text),
    }
}

/// A place with a port; what follows the colon where it is no port may be the password of a login without its place.
fn without_password(place: &str) -> String {
    match place.split_once(':') {
        Some((user, port)) if !port.chars().all(|c| c.is_ascii_digit() || c == ':') => format!("{user}:***"),
        _ => place.into(),
    }
}

impl TryFrom<String> for BrokerAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<SocketAddr> for BrokerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port(), tls: false, login: None }
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.url_host(), self.port)
    }
}

impl fmt::Debug for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> String {
        text.parse::<BrokerAddress>().map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn an_address_has_a_host_and_may_have_the_rest() {
        assert_eq!(parsed("localhost"), "localhost:1883");
        assert_eq!(parsed("mqtt://host"), "host:1883");
        assert_eq!(parsed("tcp://host:42/"), "host:42");
        assert_eq!(parsed("mqtts://host"), "host:8883");
        assert_eq!(parsed("ssl://host:42"), "host:42");
        assert_eq!(parsed("[::1]"), "[::1]:1883");
        assert_eq!(parsed("mqtt://[::1]:7"), "[::1]:7");
        let v6: SocketAddr = "[::1]:7".parse().unwrap();
        assert_eq!(Ok(BrokerAddress::from(v6)), "[::1]:7".parse());
    }

    #[test]
    fn a_login_ends_at_the_last_at_and_is_not_shown() {
        let address: BrokerAddress = "mqtt://me:a:b@c@host:42".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), ("host", 42));
        let login = address.login.clone().unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("me", "a:b@c"));
        assert_eq!(format!("{address} {address:?}"), "host:42 host:42");
        let bare: BrokerAddress = "me@host".parse().unwrap();
        assert_eq!(bare.login, Some(Login { user: "me".into(), password: Secret::new("") }));
    }

    #[test]
    fn an_address_keeps_its_scheme_as_a_url() {
        for (text, url) in [
            ("host", "mqtt://host:1883"),
            ("mqtts://me:pw@host", "mqtts://host:8883"),
            ("ssl://[::1]:7", "mqtts://[::1]:7"),
        ] {
            let address: BrokerAddress = text.parse().unwrap();
            assert_eq!(address.url(), url);
            let again: BrokerAddress = url.parse().unwrap();
            assert_eq!((again.tls, again.port), (address.tls, address.port));
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, local) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example", false),
            ("192.168.1.10", false),
            ("127.0.0.1.example", false),
            ("[::2]", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(host.parse::<BrokerAddress>().unwrap().is_loopback(), local, "{host}");
        }
    }

    #[test]
    fn an_invalid_address_is_refused_in_words() {
        for (text, words) in [
            ("wss://host", "speak wss://"),
            ("http://host", "unknown scheme"),
            ("mqtt://", "no host"),
            ("mqtt://:1", "no host"),
            ("mqtt://host:0", "1 to 65535"),
            ("mqtt://host:70000", "1 to 65535"),
            ("mqtt://host:x", "1 to 65535"),
            ("::1:1883", "brackets"),
            ("mqtt://[::1", "closing bracket"),
            ("mqtt://[::1]x", "text after"),
            ("mqtt://host/path", "not a name"),
            ("mqtt://ho\u{1b}st", "not a name"),
        ] {
            let error = text.parse::<BrokerAddress>().unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("expected mqtts://[user:"), "{text}: {error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }

    #[test]
    fn what_may_be_the_password_of_a_login_without_a_place_is_not_shown() {
        for (text, shown) in [
            ("mqtt://me:hush", "mqtt://me:***"),
            ("me:hu:sh", "me:***"),
            ("me://hush", "me://***"),
            ("mqtt://host:70000", "mqtt://host:70000"),
            ("::1:1883", "::1:1883"),
        ] {
            assert!(parsed(text).starts_with(&format!("broker {shown:?}: ")), "{}", parsed(text));
        }
    }

    proptest! {
        #[test]
        fn no_refusal_shows_the_password_of_a_login_without_a_place(
            scheme in "(mqtt://|mqtts://|http://|x|)",
            password in "(:|/|://|[0-9]){0,4}hush(:|/|://|[0-9]){0,4}",
        ) {
            let error = format!("{scheme}me:{password}").parse::<BrokerAddress>().unwrap_err();
            prop_assert!(!format!("{error} {error:?}").contains("hush"), "{}", error);
        }

        #[test]
        fn no_refusal_shows_a_password(
            scheme in "(mqtt://|mqtts://|http://|x|)",
            password in "(@|:|/|://|[0-9]){0,4}hush(@|:|/|://|[0-9]){0,4}",
            place in "(host|host:0|:|\\[::1|)",
        ) {
            let shown = match format!("{scheme}me:{password}@{place}").parse::<BrokerAddress>() {
                Err(error) => format!("{error} {error:?}"),
                Ok(address) => format!("{address} {address:?}"),
            };
            prop_assert!(!shown.contains("hush"), "{}", shown);
        }
    }
}
