//! `dunlin-board`: reads and checks boards' files for people and scripts, and writes cards.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(&cli::Cli::parse())
}
