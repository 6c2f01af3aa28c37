//! Measured energy: the driver against the chip at the level of its registers, and the ledger against the truth.
#![allow(clippy::unwrap_used)] // everything here is a test

mod driver;
mod integration;
mod ledger;
mod shapes;
mod stand;
