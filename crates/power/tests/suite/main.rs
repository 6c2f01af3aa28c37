//! Measured energy: the driver with the simulated chip, and the ledger against exact energies.
#![allow(clippy::unwrap_used)] // everything here is a test

mod driver;
mod integration;
mod ledger;
mod shapes;
mod stand;
