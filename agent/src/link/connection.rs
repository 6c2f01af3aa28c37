//! One connection after another to the broker: polls rumqttc in a task of its own and passes on what it says.
//!
//! Every connection is a new event loop: nothing queued for a lost one, and no topic alias of it, can reach the next.

use super::{LinkConfig, generation};
use crate::mqtt_bytes::{BARE_BYTES, PUBACK_BYTES, control_bytes, publish_bytes};
use crate::random;
use dunlin_wire::topic::Topic;
use dunlin_wire::{DevicePresence, Liveness, limits};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectReturnCode, DisconnectReasonCode, LastWill, Packet, PubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Requests that rumqttc holds: small, because what it holds is lost with the connection.
const REQUESTS_MAX: usize = 8;
/// QoS 1 publishes without their PUBACK.
const INFLIGHT_MAX: u16 = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A connection that lasted this long was a good one: the next attempt follows soon.
const STEADY: Duration = Duration::from_secs(5);

/// What the task says.
pub(super) enum Said {
    /// The broker took the connection.
    Connected { client: AsyncClient, connack: ConnAck, presence: Option<DevicePresence>, connect_bytes: u64 },
    /// A packet came.
    Incoming(Packet),
    /// A PUBLISH of so many bytes came, which is more than any of ours has.
    TooLarge(u64),
    /// The oldest PUBLISH that was asked for is on the wire.
    PublishSent,
    /// Control packets of so many bytes are on the wire.
    ControlSent(u64),
    /// There is no connection, or no longer.
    Lost(Loss),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// In words.
    pub reason: String,
    /// True where trying again can't help until somebody changes something.
    pub refused: bool,
}

/// Connects, polls, waits and connects again until it is asked to leave or nobody listens.
pub(super) async fn keep(config: LinkConfig, say: mpsc::Sender<Said>) {
    let mut backoff = BACKOFF_MIN;
    let mut generation = generation::first().await;
    loop {
        let since = Instant::now();
        let error = poll(&config, generation, &say).await;
        let Err(error) = error else { return };
        if say.send(Said::Lost(loss(&config, &error))).await.is_err() {
            return;
        }
        if since.elapsed() >= STEADY {
            backoff = BACKOFF_MIN;
        }
        tokio::time::sleep(jittered(backoff)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        generation = generation::next(generation).await;
    }
}

/// Polls one connection to its end; `Ok` where it has left or nobody listens any more.
async fn poll(config: &LinkConfig, generation: u32, say: &mpsc::Sender<Said>) -> Result<(), ConnectionError> {
    let options = options(config, generation);
    let connect_bytes = connect_bytes(&options);
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    let mut leaving = false;
    loop {
        // The only place that calls `poll`: it is not known to survive being cancelled.
        let (batch, end) = match events.poll().await {
            Ok(event) => (vec![event], None),
            // What was read together with the end of the connection is still to be told.
            Err(error) => (events.state.events.drain(..).collect(), Some(error)),
        };
        for event in batch {
            leaving |= matches!(event, Event::Outgoing(Outgoing::Disconnect));
            let said = match event {
                Event::Incoming(Packet::ConnAck(connack)) => {
                    let presence = config.announce.then(|| presence(generation, Liveness::Here));
                    Said::Connected { client: client.clone(), connack, presence, connect_bytes }
                }
                event => match translate(event) {
                    Some(said) => said,
                    None => continue,
                },
            };
            if say.send(said).await.is_err() {
                return Ok(());
            }
        }
        match end {
            // The broker hangs up first: a socket closed with an acknowledgement unread resets the connection, and a
            // DISCONNECT that the broker has not read by then is lost.
            Some(_) if leaving => return Ok(()),
            Some(error) => return Err(error),
            None => {}
        }
    }
}

fn translate(event: Event) -> Option<Said> {
    match event {
        Event::Incoming(Packet::Publish(publish))
            if publish_bytes(&publish) > u64::from(limits::PACKET_BYTES_MAX) =>
        {
            Some(Said::TooLarge(publish_bytes(&publish)))
        }
        Event::Incoming(packet) => Some(Said::Incoming(packet)),
        Event::Outgoing(Outgoing::Publish(_)) => Some(Said::PublishSent),
        Event::Outgoing(Outgoing::PubAck(_)) => Some(Said::ControlSent(PUBACK_BYTES)),
        Event::Outgoing(Outgoing::PingReq | Outgoing::Disconnect) => Some(Said::ControlSent(BARE_BYTES)),
        Event::Outgoing(_) => None,
    }
}

/// The presence message of connection `generation`.
fn presence(generation: u32, liveness: Liveness) -> DevicePresence {
    DevicePresence { generation, liveness }
}

/// The options of a connection, its last will among them.
pub(super) fn options(config: &LinkConfig, generation: u32) -> MqttOptions {
    let host = &config.broker.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let mut options = MqttOptions::new(&config.client_id, host, config.broker.port);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_clean_start(true)
        .set_keep_alive(config.keep_alive)
        .set_network_options(network)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_max_packet_size(Some(limits::PACKET_BYTES_ANNOUNCED))
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    if let Some((user, password)) = &config.credentials {
        options.set_credentials(user, password);
    }
    if let (true, Ok(lost)) = (config.announce, presence(generation, Liveness::Lost).encode()) {
        let topic = Topic::DevicePresence(config.device.clone()).name();
        options.set_last_will(LastWill::new(topic.as_str(), lost.to_vec(), QoS::AtLeastOnce, true, None));
    }
    options
}

fn connect_bytes(options: &MqttOptions) -> u64 {
    let connect = Connect {
        keep_alive: options.keep_alive().as_secs() as u16,
        client_id: options.client_id(),
        clean_start: options.clean_start(),
        properties: options.connect_properties(),
    };
    control_bytes(&Packet::Connect(connect, options.last_will(), options.credentials()))
}

/// Between half of `delay` and all of it.
fn jittered(delay: Duration) -> Duration {
    let share = random::number().map_or(0.5, |number| number as f64 / u64::MAX as f64);
    delay.mul_f64(0.5 + share / 2.0)
}

/// Why a connection ended, in plain words.
pub(super) fn loss(config: &LinkConfig, error: &ConnectionError) -> Loss {
    let at = &config.broker;
    let lost = |reason: String| Loss { reason, refused: false };
    match error {
        ConnectionError::ConnectionRefused(code) => refusal(config, *code),
        ConnectionError::Timeout(_) => lost(format!("no answer from {at} in {CONNECT_TIMEOUT:?}")),
        ConnectionError::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            lost(format!("nothing listens at {at}"))
        }
        ConnectionError::Io(error) => lost(format!("can't reach {at}: {error}")),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            lost(disconnected(config, *reason_code))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted | StateError::Io(_)) => {
            lost(format!("{at} closed the connection"))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => lost(format!("{at} fell silent")),
        error => lost(format!("connection to {at}: {error}")),
    }
}

fn refusal(config: &LinkConfig, code: ConnectReturnCode) -> Loss {
    use ConnectReturnCode as Code;
    let user = config.credentials.as_ref().map_or("no user name", |(user, _)| user.as_str());
    let (why, refused) = match code {
        Code::BadUserNamePassword => (format!("bad user name or password (user: {user})"), true),
        Code::NotAuthorized => (format!("not authorised (user: {user})"), true),
        Code::BadClientId | Code::ClientIdentifierNotValid => {
            (format!("it does not take the client id {:?}", config.client_id), true)
        }
        Code::Banned => ("this client is banned".into(), true),
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            ("it does not speak MQTT 5".into(), true)
        }
        code => (format!("{code:?}"), false),
    };
    Loss { reason: format!("the broker at {} refuses the connection: {why}", config.broker), refused }
}

fn disconnected(config: &LinkConfig, code: DisconnectReasonCode) -> String {
    let at = &config.broker;
    match code {
        DisconnectReasonCode::SessionTakenOver => {
            format!("another client uses the id {:?} at {at}: each device needs its own", config.client_id)
        }
        DisconnectReasonCode::ServerShuttingDown => format!("{at} is shutting down"),
        code => format!("{at} ended the connection: {code:?}"),
    }
}

/// Why the broker did not take a publish, where it says so.
pub(super) fn refused_publish(packet: &Packet) -> Option<PubAckReason> {
    match packet {
        Packet::PubAck(ack)
            if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) =>
        {
            Some(ack.reason)
        }
        _ => None,
    }
}
