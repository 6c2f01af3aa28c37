//! A broker inside this process, for one machine: listens on loopback only and stores nothing.
//!
//! Invariant: every client uses its socket, including the verifier.

use anyhow::{Context, Result, anyhow, ensure};
use mqtt5::broker::config::{AuthConfig, RateLimitConfig, StorageConfig};
use mqtt5::broker::{BrokerConfig, BrokerShutdownHandle, MqttBroker};
use std::net::SocketAddr;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;
use tokio::runtime::{self, Runtime};

/// Packet limit in bytes. Every message of the protocol fits, and so do the fleet tool's messages to a device.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of clients.
const CLIENTS_MAX: usize = 256;
/// Messages that wait for one client.
const QUEUE_MAX: usize = 1000;
/// Retained messages: two of presence per client, doubled for reserve.
const RETAINED_MAX: usize = 4 * CLIENTS_MAX;
/// Topic aliases a client may bind.
const ALIASES_MAX: u16 = 1024;

/// A running broker; it stops when this value is dropped.
pub struct Embedded {
    address: SocketAddr,
    shutdown: BrokerShutdownHandle,
}

impl Embedded {
    /// Starts a broker on a thread of its own; port 0 picks a free one.
    ///
    /// # Errors
    /// The address isn't a loopback address, or is taken.
    pub fn start(listen: SocketAddr) -> Result<Self> {
        ensure!(
            listen.ip().is_loopback(),
            "listen: {listen} is not a loopback address: the embedded broker has no access control. \
             For other machines run a broker of its own (see mosquitto.conf)"
        );
        let (sender, started) = mpsc::sync_channel(1);
        let run = move || host(listen, &sender);
        thread::Builder::new().name("broker".into()).spawn(run).context("the embedded broker's thread")?;
        started.recv().context("the embedded broker's thread ended")?
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shutdown.shutdown();
    }
}

/// The broker's thread: binds, reports the result, and runs until told to stop.
fn host(listen: SocketAddr, started: &SyncSender<Result<Embedded>>) {
    match bind(listen) {
        // The starter waits for exactly one message, which is this one.
        Err(error) => drop(started.send(Err(anyhow!("embedded broker on {listen}: {error:#}")))),
        Ok((runtime, mut broker, address)) => {
            let shutdown = broker.shutdown_handle();
            if started.send(Ok(Embedded { address, shutdown })).is_ok()
                && let Err(error) = runtime.block_on(broker.run())
            {
                tracing::error!(%error, "the embedded broker failed");
            }
        }
    }
}

fn bind(listen: SocketAddr) -> Result<(Runtime, MqttBroker, SocketAddr)> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let broker = runtime.block_on(MqttBroker::with_config(config(listen)))?;
    let address = broker.local_addr().context("it has no address")?;
    Ok((runtime, broker, address))
}

fn config(listen: SocketAddr) -> BrokerConfig {
    let mut config = BrokerConfig::new()
        .with_bind_address(listen)
        .with_max_clients(CLIENTS_MAX)
        .with_max_packet_size(PACKET_BYTES_MAX)
        .with_client_channel_capacity(QUEUE_MAX)
        .with_max_retained_messages(RETAINED_MAX)
        .with_session_expiry(Duration::from_secs(3600))
        .with_storage(StorageConfig::new().with_persistence(false))
        .with_auth(AuthConfig {
            rate_limit: RateLimitConfig { enabled: false, ..RateLimitConfig::default() },
            ..AuthConfig::default()
        })
        .with_sys_topics_enabled(false);
    config.topic_alias_maximum = ALIASES_MAX;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_loopback_only() {
        for listen in ["0.0.0.0:0", "192.168.1.1:0", "[::]:0"] {
            let refused = Embedded::start(listen.parse().unwrap()).err().unwrap().to_string();
            assert!(refused.contains("not a loopback address"), "{refused}");
        }
    }

    #[test]
    fn it_picks_a_port_and_refuses_a_taken_one() {
        let broker = Embedded::start("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(broker.address().port(), 0);
        let refused = Embedded::start(broker.address()).err().unwrap().to_string();
        assert!(refused.contains(&broker.address().to_string()), "{refused}");
    }
}
