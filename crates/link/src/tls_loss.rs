//! The reason for a failed TLS handshake, in words that name cause and remedy.

use crate::identity::{day, shown_name};
use crate::options::ConnectOptions;
use crate::tls::{Security, TlsFiles};
use rumqttc::v5::{ConnectionError, StateError};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::error::Error;
use std::io;

/// The TLS error among `error` and its causes.
fn tls_error(error: &ConnectionError) -> Option<&TlsError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(match error {
        // The client doesn't name its cause.
        ConnectionError::MqttState(StateError::Deserialization(cause)) => cause,
        error => error,
    });
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<TlsError>() {
            return Some(found);
        }
        // The standard library names the cause of what an I/O error holds, not what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// The reason for a failure of TLS, and true if another attempt can't succeed until somebody changes something; `None`
/// for another kind of failure.
pub(crate) fn explained(options: &ConnectOptions, error: &ConnectionError) -> Option<(String, bool)> {
    let at = &options.broker;
    let Security::Tls(files) = &options.security else { return None };
    Some(match tls_error(error)? {
        TlsError::AlertReceived(alert) => alerted(options, files, *alert),
        TlsError::InvalidCertificate(error) => (certificate_refused(options, files, error), true),
        TlsError::InvalidMessage(_) => (no_tls(options), true),
        TlsError::PeerIncompatible(_) => (too_old(options), true),
        error => (format!("TLS to {at}: {error}"), false),
    })
}

/// The words for a port that answers without TLS.
pub(crate) fn no_tls(options: &ConnectOptions) -> String {
    format!("{} doesn't speak TLS: is it the port for plain MQTT? TLS has 8883 by custom", options.broker)
}

/// The words for a broker without TLS 1.3.
fn too_old(options: &ConnectOptions) -> String {
    format!(
        "the broker at {} doesn't speak TLS 1.3: allow it there (mosquitto: tls_version tlsv1.3)",
        options.broker
    )
}

/// The words for an alert that the broker sent.
fn alerted(options: &ConnectOptions, files: &TlsFiles, alert: AlertDescription) -> (String, bool) {
    use AlertDescription as Alert;
    let at = &options.broker;
    let own = files.own().ok().flatten();
    let name = own.as_ref().map_or("this program".into(), |facts| shown_name(&facts.common_name));
    let text = match alert {
        // OpenSSL before 3.2 reports a missing certificate as a failed handshake.
        Alert::CertificateRequired | Alert::HandshakeFailure if own.is_none() => format!(
            "the broker at {at} wants a certificate, and none is configured: set tls.cert_file and tls.key_file \
             (`dunlin-fleet card` makes them)"
        ),
        // A CA of the same name that isn't the broker's signed something that the broker can't verify.
        Alert::UnknownCA | Alert::DecryptError => format!(
            "the broker at {at} doesn't know the CA that signed the certificate of {name}: take a card of the \
             broker's own site (`dunlin-fleet card`)"
        ),
        Alert::CertificateExpired => format!(
            "the broker at {at} says that the certificate of {name} has ended{}: make a new card with `dunlin-fleet \
             card`, or set the broker's clock",
            own.map_or(String::new(), |facts| format!(" (on {})", day(facts.ends)))
        ),
        Alert::CertificateRevoked => format!(
            "the broker at {at} says that the certificate of {name} was revoked: make a new card with `dunlin-fleet card`"
        ),
        Alert::UnsupportedCertificate => format!(
            "the broker at {at} refuses the certificate of {name}, which is not one for a client: take a card of \
             `dunlin-fleet card`"
        ),
        Alert::BadCertificate | Alert::CertificateUnknown => format!(
            "the broker at {at} refuses the certificate of {name} ({alert:?}): {}",
            own.map_or("make a new card with `dunlin-fleet card`".into(), |facts| format!(
                "it is valid from {} to {}, so look at the broker's clock and log",
                day(facts.begins),
                day(facts.ends)
            ))
        ),
        Alert::ProtocolVersion => too_old(options),
        // The broker's own trouble may be gone at the next attempt.
        alert => return (format!("the broker at {at} ended the TLS handshake: {alert:?}"), false),
    };
    (text, true)
}

/// The words for a broker's certificate that this program refuses.
fn certificate_refused(options: &ConnectOptions, files: &TlsFiles, error: &CertificateError) -> String {
    use CertificateError as Wrong;
    let at = &options.broker;
    let date = |time: &UnixTime| day(time.as_secs());
    let renew = "renew it with `dunlin-fleet renew`, or set this machine's clock";
    match error {
        Wrong::ExpiredContext { time, not_after } => format!(
            "the certificate of the broker at {at} ended on {}, and the clock says {}: {renew}",
            date(not_after),
            date(time)
        ),
        Wrong::Expired => format!("the certificate of the broker at {at} has ended: {renew}"),
        Wrong::NotValidYetContext { time, not_before } => format!(
            "the certificate of the broker at {at} begins on {}, and the clock says {}: set this machine's clock",
            date(not_before),
            date(time)
        ),
        Wrong::NotValidYet => {
            format!("the certificate of the broker at {at} isn't valid yet: set this machine's clock")
        }
        Wrong::UnknownIssuer | Wrong::BadSignature => format!(
            "the certificate of the broker at {at} is not signed by {}: set tls.ca_file to the CA of its site, and \
             beware of a stranger who answers in its place",
            files.trusted()
        ),
        Wrong::NotValidForName => not_for_name(options, &[]),
        Wrong::NotValidForNameContext { presented, .. } => not_for_name(options, presented),
        Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. } => format!(
            "the certificate of the broker at {at} is not one for a server: make it with `dunlin-fleet`, not with a \
             client's card"
        ),
        error => format!("the certificate of the broker at {at} is invalid: {error}"),
    }
}

fn not_for_name(options: &ConnectOptions, presented: &[String]) -> String {
    // The library writes a name as `DnsName("x")`.
    let names = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name));
    let names: Vec<_> = names.map(|name| name.escape_debug().to_string()).collect();
    let names = match names.is_empty() {
        true => "another name".into(),
        false => names.join(", "),
    };
    format!(
        "the certificate of the broker at {} is for {names}: write that name in `broker`, or make the broker a \
         certificate for {:?}",
        options.broker, options.broker.host
    )
}
