//! The address of a fleet's broker: `mqtts://host[:port]`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The port of MQTT with TLS.
const PORT: u16 = 8883;
/// Bytes of a host's name.
const HOST_BYTES_MAX: usize = 253;

/// A broker with TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BrokerUrl {
    /// The name or address that stands in the broker's certificate; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A text that is not such an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem}; expected mqtts://host[:{PORT}], with the name or address by which boards reach the broker"
)]
pub struct UrlError {
    problem: String,
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parsed(text).map_err(|problem| UrlError { problem })
    }
}

fn parsed(text: &str) -> Result<BrokerUrl, String> {
    let place = match text.split_once("://") {
        Some(("mqtts", place)) => place,
        Some((scheme, _)) => return Err(format!("a fleet's broker has TLS, and {scheme:?} is not mqtts")),
        None => text,
    };
    if place.contains('@') {
        return Err("a certificate replaces user and password".into());
    }
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or("no closing bracket")?;
            host.parse::<Ipv6Addr>().map_err(|_| "an IPv6 address belongs in the brackets")?;
            (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
        }
        None => match place.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address belongs in brackets".into()),
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let number = |port: &str| port.parse().ok().filter(|port| *port != 0);
    let port = port.map_or(Some(PORT), number).ok_or("the port is not a number from 1 to 65535")?;
    let host = match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) if is_dns_name(host) => host.to_ascii_lowercase(),
        Err(_) => return Err("the host is not a name or an address".into()),
    };
    Ok(BrokerUrl { host, port })
}

fn is_dns_name(host: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    // A last label of digits would be the rest of an IPv4 address.
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= HOST_BYTES_MAX
        && host.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl TryFrom<String> for BrokerUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<BrokerUrl> for String {
    fn from(url: BrokerUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "mqtts://[{host}]:{port}")
        } else {
            write!(f, "mqtts://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_may_have_a_port() {
        for (text, shown) in [
            ("mqtts://Broker.LAN", "mqtts://broker.lan:8883"),
            ("broker", "mqtts://broker:8883"),
            ("mqtts://192.168.1.10:1", "mqtts://192.168.1.10:1"),
            ("mqtts://[fd00:0::1]/", "mqtts://[fd00::1]:8883"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse(), Ok(url));
        }
    }

    #[test]
    fn an_invalid_address_is_refused_in_words() {
        for (text, words) in [
            ("mqtt://broker", "\"mqtt\" is not mqtts"),
            ("mqtts://", "not a name"),
            ("mqtts://me:hush@broker", "a certificate replaces"),
            ("mqtts://broker:0", "1 to 65535"),
            ("mqtts://broker:x", "1 to 65535"),
            ("mqtts://::1", "brackets"),
            ("mqtts://[::1", "closing bracket"),
            ("mqtts://[broker]", "IPv6"),
            ("mqtts://[::1]x", "1 to 65535"),
            ("mqtts://bro ker", "not a name"),
            ("mqtts://-a", "not a name"),
            ("mqtts://10.0.0.300", "not a name"),
            ("mqtts://a..b", "not a name"),
            ("mqtts://bro\u{1b}ker", "not a name"),
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(
                error.contains(words) && !error.contains("hush") && !error.contains('\u{1b}'),
                "{text}: {error}"
            );
        }
    }
}
