//! The parameters of a connection.

use crate::address::BrokerAddress;
use crate::login::Login;
use crate::publisher::client_qos;
use crate::tls::Security;
use anyhow::Result;
use dunlin_wire::limits::PACKET_BYTES_ANNOUNCED;
use dunlin_wire::topic::Topic;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::LastWill;
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use std::time::Duration;

/// Time limit of connecting.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Broker, identity and limits of a connection.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The broker; a login in its address is ignored.
    pub broker: BrokerAddress,
    /// The protection of the connection; it must suit the broker's address.
    pub security: Security,
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
    /// The name by which the broker knows this client, in words.
    pub(crate) fn user(&self) -> String {
        let certificate = match &self.security {
            Security::Tls(files) => files.own().ok().flatten(),
            Security::Plain => None,
        };
        match (&self.login, certificate) {
            (Some(login), _) => login.user.escape_debug().to_string(),
            (None, Some(facts)) => format!("{}, as in its certificate", facts.common_name.escape_debug()),
            (None, None) => "no user name".into(),
        }
    }

    /// The client's options: clean start, no delay, and the announced packet limit.
    ///
    /// # Errors
    /// Names the file of TLS that is missing or invalid.
    pub(crate) fn client(&self, will: Option<Will>) -> Result<MqttOptions> {
        let mut options = match &self.security {
            Security::Plain => MqttOptions::new(&self.client_id, self.broker.url_host(), self.broker.port),
            // The client takes this host for the name in the certificate, which has no brackets.
            Security::Tls(files) => {
                let client = files.client()?;
                let mut options = MqttOptions::new(&self.client_id, &self.broker.host, self.broker.port);
                options.set_transport(Transport::Tls(TlsConfiguration::Rustls(client)));
                options
            }
        };
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
        Ok(options)
    }
}
