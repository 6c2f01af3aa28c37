//! `dunlin-fleet`: certificates, cards of boards and the access list of a fleet.

use clap::Parser;
use dunlin_fleet::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(&Cli::parse())
}
