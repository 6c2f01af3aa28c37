//! Measured energy: the driver against the chip at the level of its registers, and the ledger against the truth.

mod driver;
mod integration;
mod ledger;
mod process;
mod shapes;
mod stand;
