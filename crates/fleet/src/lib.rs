//! The identities and the access of a fleet: an offline certificate authority, the cards of boards, and the broker's files.
//!
//! Invariants:
//! - Nothing here opens a socket: the folder of a fleet belongs on a computer of the operator's, not beside the broker.
//! - A file is written whole or not at all, and a key is never written over.
//! - A certificate stands in the register before it exists, so that it can be revoked whatever happens.
//! - No private key is printed, and no type that holds one derives `Debug`.

mod address;
mod authority;
mod broker;
mod card;
mod check;
pub mod cli;
mod files;
mod fleet;
mod issue;
mod keys;
mod list;
mod register;
mod seal;
mod x509;

pub use address::{BrokerUrl, UrlError};
pub use broker::{AclFormat, acl};
pub use check::{Finding, Weight, check};
pub use fleet::{BROKER, Fleet, FleetPlan, SERVER_NAME};
pub use list::{CertificateState, Listed, list};
