//! `first-boot`: sets a board up from a text file on the card's FAT partition, and reports a wrong one to the broker.

use crate::exit::{DONE, FAILED, USAGE};
use crate::flags::seconds;
use anyhow::Result;
use dunlin_link::{Migrated, migrate};
use dunlin_provision::broker_report::{ReportTarget, report_mistakes, withdraw_reports};
use dunlin_provision::disk::DataDisk;
use dunlin_provision::standing::{DataPlaces, Standing};
use dunlin_provision::{Card, Defaults, ProvisionOutcome, SetupFile, board_of, look, say, take, untaken};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Flags of `first-boot`.
#[derive(Debug, clap::Args)]
pub struct FirstBootFlags {
    /// The text file with the settings.
    #[arg(long, value_name = "FILE", default_value = "/boot/firmware/dunlin.txt")]
    file: PathBuf,
    /// Directory where the board keeps its set-up.
    #[arg(long, value_name = "DIR", default_value = "/data")]
    data: PathBuf,
    /// The board's name, for a configuration that names none.
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// File with the board's name, used without --board.
    #[arg(long, value_name = "FILE", default_value = "/etc/dunlin-board")]
    board_file: PathBuf,
    /// The drafter's directory, for a configuration that names none.
    #[arg(long, value_name = "DIR", default_value = "/usr/share/dunlin/models/demo/drafter")]
    model: PathBuf,
    /// Do only one part: apply the file before the network is up, or report to the broker afterwards.
    #[arg(long, value_enum, value_name = "HALF")]
    only: Option<Half>,
    /// Time limit for the report to the broker.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    report_within: Duration,
}

/// Half of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    /// Check and apply the file, or report its mistakes.
    Take,
    /// Report the mistakes to the broker, or withdraw an earlier report.
    Report,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// The existing set-up can't be read.
pub async fn first_boot(args: &FirstBootFlags) -> Result<u8> {
    let board = args.board.clone().or_else(|| board_of(&args.board_file));
    let defaults = Defaults { board, model: args.model.clone() };
    let card = Card { file: args.file.clone(), places: DataPlaces::of(&args.data), defaults };
    renew(&card.places.agent_toml());
    let standing = Standing::read(&card.places)?;
    let found = look(&card.file, &standing)?;
    let taken = match args.only {
        Some(Half::Report) => untaken(&card.file, &found),
        _ => take(&card, &standing, &found, &mut DataDisk::new()),
    };
    if args.only != Some(Half::Take) {
        let reported = match (&taken.wrong, &found) {
            (None, _) => withdraw_reports(&card.places, args.report_within).await,
            (Some(wrong), SetupFile::Invalid(setup, _) | SetupFile::Valid(setup)) => {
                let recipient = ReportTarget::of(setup, &standing);
                report_mistakes(wrong, recipient, &card.places, args.report_within).await
            }
            (Some(_), _) => Ok(()),
        };
        if let Err(error) = reported {
            say(&format!("{error:#}"));
        }
    }
    Ok(match taken.outcome {
        ProvisionOutcome::Done => DONE,
        ProvisionOutcome::Invalid => USAGE,
        ProvisionOutcome::Failed => FAILED,
    })
}

/// Renames keys of an earlier version to today's: the agent would refuse to start with them.
fn renew(config: &Path) {
    if !config.exists() {
        return;
    }
    match migrate(config) {
        Ok(Migrated::Unchanged) => {}
        Ok(migrated) => say(&migrated.report(config)),
        Err(error) => say(&format!("{error:#}")),
    }
}
