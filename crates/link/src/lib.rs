//! MQTT for all programs of Dunlin: addresses and logins, TLS, connections and their errors in words, packet sizes.
//!
//! No other crate names the MQTT client. A program keeps its own queue in front of a [`Publisher`] and interprets
//! each [`Message`]. Opening, keeping, counting and leaving a connection is the same for all programs and is done
//! here.
//!
//! Invariants:
//! - Each connection is a new client: no queued message and no topic alias reaches the next connection.
//! - No call waits for room, and every queue is bounded.
//! - No password and no private key appears in an error or a log.

mod address;
mod backoff;
mod clock;
mod connection;
mod dialer;
mod facts;
mod generation;
mod identity;
mod login;
mod loss;
mod migrate;
mod options;
mod packet;
mod probe;
mod publisher;
#[cfg(feature = "raw-client")]
pub mod raw;
mod retained;
mod settings;
mod tls;
mod tls_loss;

pub use address::{AddressError, BrokerAddress};
pub use connection::{Arrival, Arrivals, ConnectionEnd, CountedArrival, Message};
pub use dialer::Dialer;
pub use facts::BrokerFacts;
pub use identity::{
    CertificateFacts, IdentityError, authorities, certificates, check_card, day, key_pair, private_key,
};
pub use login::{Login, MQTT_PASSWORD, Secret};
pub use loss::Loss;
pub use migrate::{Migrated, Migration, migrate, refuse_old_keys, renewed};
pub use options::{ConnectOptions, Will};
pub use packet::{CORRELATION_BYTES, PublishShape, Traffic};
pub use probe::{probe, round_trip};
pub use publisher::{Alias, Outgoing, Publisher, SendOutcome};
pub use retained::retain;
pub use settings::MqttTable;
pub use tls::{Security, TLS_INSTALLED, TLS_KEY, TlsFiles, TlsTable, watch_certificate};

use std::time::Duration;

/// Time limit of leaving: sending the queued messages, and the broker's closing of the connection.
pub const GOODBYE_MAX: Duration = Duration::from_secs(2);
