//! `dunlin-agent`: see `docs/agent.md`.

use clap::Parser;
use dunlin_agent::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(Cli::parse())
}
