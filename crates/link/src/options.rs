//! The parameters of a connection.

use crate::address::BrokerAddress;
use crate::login::Login;
use crate::publisher::client_qos;
use dunlin_wire::limits::PACKET_BYTES_ANNOUNCED;
use dunlin_wire::topic::Topic;
use rumqttc::NetworkOptions;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::LastWill;
use std::time::Duration;

/// Time limit of connecting.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Broker, identity and limits of a connection.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The broker; a login in its address is ignored.
    pub broker: BrokerAddress,
    /// User name and password.
    pub login: Option<Login>,
    /// The MQTT client id. A second client with the same id takes over the connection.
    pub client_id: String,
    /// Silence after which the connection is tested, at least 5 s.
    pub keep_alive: Duration,
    /// Unacknowledged QoS 1 publishes.
    pub inflight_max: u16,
}

/// A message that the broker publishes if a connection is lost.
#[derive(Clone, Debug)]
pub struct Will {
    /// The topic; it also defines QoS and retention.
    pub topic: Topic,
    /// The message.
    pub payload: Vec<u8>,
}

impl ConnectOptions {
    /// The client's options: clean start, no delay, and the announced packet limit.
    pub(crate) fn client(&self, will: Option<Will>) -> MqttOptions {
        let mut options = MqttOptions::new(&self.client_id, self.broker.url_host(), self.broker.port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        options
            .set_clean_start(true)
            .set_keep_alive(self.keep_alive)
            .set_network_options(network)
            .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
            .set_max_packet_size(Some(PACKET_BYTES_ANNOUNCED))
            .set_outgoing_inflight_upper_limit(self.inflight_max);
        if let Some(login) = &self.login {
            options.set_credentials(&login.user, login.password.expose());
        }
        if let Some(Will { topic, payload }) = will {
            let delivery = topic.delivery();
            let (name, qos) = (topic.name(), client_qos(delivery.qos));
            options.set_last_will(LastWill::new(name.as_str(), payload, qos, delivery.retain, None));
        }
        options
    }
}
