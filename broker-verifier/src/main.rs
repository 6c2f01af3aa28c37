//! `dunlin-verifier`: see `dunlin-verifier --help` and `docs/verifier.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dunlin_verifier::cli::main()
}
