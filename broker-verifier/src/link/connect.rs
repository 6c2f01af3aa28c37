//! Connecting: the options every connection has, its errors in plain words, and a trial connection.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use dunlin_wire::VerifierId;
use dunlin_wire::limits::PACKET_BYTES_ANNOUNCED;
use dunlin_wire::topic::{ENERGY_FILTER, SETUP_FILTER, TELEMETRY_FILTER};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectReturnCode, DisconnectReasonCode, Packet, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::REQUESTS_MAX;
use crate::config::{Broker, Login};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Publishes at least once that wait for their acknowledgement.
const INFLIGHT_MAX: u16 = 64;
/// Subscriptions without which there is no serving: frames and requests, asked for first.
const NEEDED: usize = 2;
/// The ones after them.
const OTHERS: [&str; 3] = [ENERGY_FILTER, TELEMETRY_FILTER, SETUP_FILTER];

/// The options of a connection: a clean start, no delay, and the largest packets that a broker should let through.
pub(super) fn connect_options(broker: &Broker, login: Option<&Login>, id: &VerifierId) -> MqttOptions {
    let client_id = format!("dunlin-verifier-{id}");
    let mut options = MqttOptions::new(client_id, broker.host.clone(), broker.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    options.set_network_options(network);
    options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    options.set_clean_start(true);
    options.set_max_packet_size(Some(PACKET_BYTES_ANNOUNCED));
    options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    if let Some(login) = login {
        options.set_credentials(login.username.clone(), login.password.0.clone());
    }
    options
}

/// Bytes of a packet that the broker takes.
pub(super) fn packet_max(properties: Option<&ConnAckProperties>) -> usize {
    properties.and_then(|p| p.max_packet_size).map_or(usize::MAX, |max| max as usize)
}

/// Checks that every needed subscription was granted; the refused ones among the others.
pub(super) fn subscribed(ack: &SubAck) -> Result<Vec<(&'static str, SubscribeReasonCode)>> {
    let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
    let (needed, others) = ack.return_codes.split_at(NEEDED.min(ack.return_codes.len()));
    match needed.iter().find(|code| !granted(code)) {
        None => {
            let others = OTHERS.into_iter().zip(others.iter().copied());
            Ok(others.filter(|(_, code)| !granted(code)).collect())
        }
        Some(code) => Err(anyhow!("the broker refused a subscription: {code:?}")),
    }
}

/// A connection's error in plain words.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Timeout(_) => "no answer in time".into(),
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refuses the connection: {}", refusal(*code))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".into()
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker stopped answering".into(),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => "another verifier uses this name".into(),
            code => format!("the broker ended the connection: {code:?}"),
        },
        error => error.to_string(),
    }
}

fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => "wrong username or password".into(),
        ConnectReturnCode::NotAuthorized => "not authorised (is there a username and password?)".into(),
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            "it does not speak MQTT 5".into()
        }
        code => format!("{code:?}"),
    }
}

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Bytes of a packet it takes, where it has a limit.
    pub packet_max: Option<u32>,
    /// Topic aliases it allows.
    pub alias_max: u16,
    /// Whether it shares subscriptions.
    pub shares: bool,
}

/// Connects once, as a client of its own, and leaves again.
///
/// # Errors
/// Says in plain words why there is no connection.
pub async fn probe(broker: &Broker, login: Option<&Login>, id: &VerifierId) -> Result<BrokerFacts> {
    let mut options = connect_options(broker, login, id);
    options.set_client_id(format!("dunlin-check-{id}-{}", std::process::id()));
    let mut eventloop = EventLoop::new(options, REQUESTS_MAX);
    loop {
        let event = eventloop.poll().await.map_err(|error| anyhow!(explain(&error)));
        if let Event::Incoming(Packet::ConnAck(ack)) = event.with_context(|| format!("broker {broker}"))? {
            let properties = ack.properties.as_ref();
            return Ok(BrokerFacts {
                packet_max: properties.and_then(|p| p.max_packet_size),
                alias_max: properties.and_then(|p| p.topic_alias_max).unwrap_or(0),
                shares: properties.and_then(|p| p.shared_subscription_available) != Some(0),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SubscribeReasonCode::{NotAuthorized, Success};
    use rumqttc::v5::mqttbytes::QoS::{AtLeastOnce, AtMostOnce};

    fn answered(return_codes: &[SubscribeReasonCode]) -> Result<Vec<&'static str>> {
        let ack = SubAck { pkid: 1, return_codes: return_codes.to_vec(), properties: None };
        Ok(subscribed(&ack)?.into_iter().map(|(filter, _)| filter).collect())
    }

    #[test]
    fn a_refusal_ends_a_connection_only_where_serving_needs_the_subscription() {
        let (once, at_most) = (Success(AtLeastOnce), Success(AtMostOnce));
        let granted = [at_most, once, once, at_most, once];
        assert!(answered(&granted).unwrap().is_empty());
        for (at, refused) in [Err(()), Err(()), Ok(ENERGY_FILTER), Ok(TELEMETRY_FILTER), Ok(SETUP_FILTER)]
            .into_iter()
            .enumerate()
        {
            let mut codes = granted;
            codes[at] = NotAuthorized;
            assert_eq!(answered(&codes).map_err(drop), refused.map(|filter| vec![filter]), "{at}");
        }
        assert!(answered(&[]).unwrap().is_empty());
    }
}
