//! MQTT for every program of Dunlin: addresses and log-ins, connections and their errors in words, packet sizes.
//!
//! The only crate that names the MQTT client. A program keeps its own queue in front of a [`Publisher`] and decides
//! what a [`Message`] means; how a connection is made, kept, counted and left is the same for all and stands here.
//!
//! Invariants:
//! - Each connection is a client of its own: nothing that was queued for one, and no topic alias, reaches the next.
//! - Nothing here waits for room, and everything that is queued is bounded.
//! - No password is shown, in an error or a log.

mod address;
mod backoff;
mod connection;
mod dialer;
mod facts;
mod generation;
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

pub use address::{AddressError, BrokerAddress};
pub use connection::{Arrival, Arrivals, Arrived, Ended, Message};
pub use dialer::Dialer;
pub use facts::BrokerFacts;
pub use login::{Login, MQTT_PASSWORD, Secret};
pub use loss::Loss;
pub use migrate::{Migrated, Migration, migrate, refuse_old_keys, renewed};
pub use options::{ConnectOptions, Will};
pub use packet::{CORRELATION_BYTES, PublishShape, Traffic};
pub use probe::probe;
pub use publisher::{Alias, Outgoing, Publisher, Taken};
pub use retained::retain;
pub use settings::MqttTable;

use std::time::Duration;

/// Time limit of a goodbye, which includes sending what waits and the broker closing the connection.
pub const GOODBYE_MAX: Duration = Duration::from_secs(2);
