//! The reason for a missing connection, in words.

use crate::options::{CONNECT_TIMEOUT, ConnectOptions};
use crate::tls::Security;
use crate::tls_loss;
use rumqttc::v5::mqttbytes;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};
use rumqttc::v5::{ConnectionError, StateError};
use std::io::ErrorKind;

/// The reason for a missing connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The reason in words, with the broker's address.
    pub reason: String,
    /// True if another attempt can't succeed until somebody changes the configuration.
    pub refused: bool,
}

impl Loss {
    /// A loss from which another attempt may recover.
    pub(crate) fn passing(reason: String) -> Self {
        Self { reason, refused: false }
    }

    /// Describes why the connection can't even be tried.
    pub(crate) fn unready(options: &ConnectOptions, error: &anyhow::Error) -> Self {
        Self { reason: format!("TLS to {}: {error:#}", options.broker), refused: true }
    }

    /// Describes the MQTT client's error on a connection that the broker had `accepted` or not.
    pub(crate) fn explained(options: &ConnectOptions, error: &ConnectionError, accepted: bool) -> Self {
        let at = &options.broker;
        if let Some((reason, refused)) = tls_loss::explained(options, error) {
            return Self { reason, refused };
        }
        Self::passing(match error {
            ConnectionError::ConnectionRefused(code) => return Self::refusal(options, *code),
            ConnectionError::Timeout(_) => format!("no answer from {at} in {CONNECT_TIMEOUT:?}"),
            ConnectionError::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                format!("nothing listens at {at}")
            }
            ConnectionError::Io(error) => format!("can't reach {at}: {error}"),
            ConnectionError::Tls(rumqttc::TlsError::DNSName(_)) => {
                return Self {
                    reason: format!("TLS to {at}: the host is not a name of the DNS"),
                    refused: true,
                };
            }
            // The peer hung up on the first message of the handshake.
            ConnectionError::Tls(_) => format!("the handshake failed: {}", tls_loss::no_tls(options)),
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
                disconnected(options, *reason_code)
            }
            ConnectionError::MqttState(
                StateError::ConnectionAborted
                | StateError::Io(_)
                | StateError::Deserialization(mqttbytes::Error::Io(_)),
            ) if accepted || options.security != Security::Plain => format!("{at} closed the connection"),
            ConnectionError::MqttState(
                StateError::ConnectionAborted
                | StateError::Io(_)
                | StateError::Deserialization(mqttbytes::Error::Io(_)),
            ) => format!(
                "{at} closed the connection before it answered: is it the port for TLS? It needs mqtts://"
            ),
            ConnectionError::MqttState(StateError::Deserialization(_)) | ConnectionError::NotConnAck(_)
                if !accepted =>
            {
                format!("{at} doesn't answer in MQTT: is it another service's port?")
            }
            ConnectionError::MqttState(StateError::AwaitPingResp) => format!("{at} stopped answering"),
            error => format!("connection to {at}: {error}"),
        })
    }

    fn refusal(options: &ConnectOptions, code: ConnectReturnCode) -> Self {
        use ConnectReturnCode as Code;
        let user = options.user();
        let (why, refused) = match code {
            Code::BadUserNamePassword => (format!("bad user name or password (user: {user})"), true),
            Code::NotAuthorized => (format!("not authorised (user: {user})"), true),
            Code::BadClientId | Code::ClientIdentifierNotValid => {
                (format!("it does not take the client id {:?}", options.client_id), true)
            }
            Code::Banned => ("this client is banned".into(), true),
            Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
                ("it does not speak MQTT 5".into(), true)
            }
            // Other codes, such as `ServerBusy`, may be gone at the next attempt.
            code => (format!("{code:?}"), false),
        };
        Self { reason: format!("the broker at {} refuses the connection: {why}", options.broker), refused }
    }
}

fn disconnected(options: &ConnectOptions, code: DisconnectReasonCode) -> String {
    let at = &options.broker;
    match code {
        DisconnectReasonCode::SessionTakenOver => {
            format!(
                "another client uses the id {:?} at {at}: each needs a name of its own",
                options.client_id
            )
        }
        DisconnectReasonCode::ServerShuttingDown => format!("{at} is shutting down"),
        code => format!("{at} ended the connection: {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Login, Secret};
    use std::time::Duration;

    fn options() -> ConnectOptions {
        ConnectOptions {
            broker: "h".parse().unwrap(),
            security: Security::Plain,
            login: Some(Login { user: "me".into(), password: Secret::new("hush") }),
            client_id: "pi-7".into(),
            keep_alive: Duration::from_secs(5),
            inflight_max: 8,
        }
    }

    #[test]
    fn only_what_somebody_has_to_change_counts_as_refused() {
        use ConnectReturnCode as Code;
        for (code, words, refused) in [
            (Code::NotAuthorized, "not authorised (user: me)", true),
            (Code::BadUserNamePassword, "bad user name or password (user: me)", true),
            (Code::BadClientId, "client id \"pi-7\"", true),
            (Code::RefusedProtocolVersion, "MQTT 5", true),
            (Code::ServerBusy, "ServerBusy", false),
        ] {
            let loss = Loss::explained(&options(), &ConnectionError::ConnectionRefused(code), false);
            assert!(loss.reason.contains(words) && loss.refused == refused, "{loss:?}");
            assert!(!loss.reason.contains("hush"));
        }
    }

    #[test]
    fn a_lost_connection_names_the_broker() {
        let nobody = ConnectionError::Io(ErrorKind::ConnectionRefused.into());
        assert_eq!(Loss::explained(&options(), &nobody, false).reason, "nothing listens at h:1883");
        let silent = ConnectionError::MqttState(StateError::AwaitPingResp);
        assert_eq!(Loss::explained(&options(), &silent, true).reason, "h:1883 stopped answering");
        let taken = disconnected(&options(), DisconnectReasonCode::SessionTakenOver);
        assert!(taken.starts_with("another client uses the id \"pi-7\" at h:1883"), "{taken}");
    }
}
