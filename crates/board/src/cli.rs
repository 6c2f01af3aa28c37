//! Commands and exit codes.

use anyhow::{Context, Error, Result};
use clap::{Parser, Subcommand};
use dunlin_board::{Board, INSTALLED, Places, Tell, UnknownBoard, UnknownKey, find, flash, get, listed};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Something failed, or a board's file has a mistake.
const FAILED: u8 = 1;
/// A flag, a board's name or a key is invalid.
const USAGE: u8 = 2;

/// Read and check boards' files, and write cards.
#[derive(Debug, Parser)]
#[command(name = "dunlin-board", version)]
pub(crate) struct Cli {
    /// Folder of boards' files, searched before boards/ here and the package's.
    #[arg(long, global = true, value_name = "DIR")]
    boards: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the value of a key in a board's file: a list one entry per line, nothing if the key is missing.
    Get {
        /// A board's name, or the path of its file.
        board: PathBuf,
        /// The key with its table, for example build.target.
        key: String,
    },
    /// Check boards' files; all of them if none is named.
    Check {
        /// Boards' names, or paths of their files.
        boards: Vec<PathBuf>,
    },
    /// List the boards.
    List,
    /// Write an image to a card and compare what was written.
    Flash {
        /// The image: .img, .img.zst or .img.xz, with its .sha256 beside it.
        image: PathBuf,
        /// The card's device, for example /dev/sdX, or a file.
        device: PathBuf,
        /// Don't ask before overwriting.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs a command; its errors go to standard error.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    let own = cli.boards.clone().into_iter();
    let dirs: Vec<PathBuf> = own.chain(["boards".into(), INSTALLED.into()]).collect();
    let done = match &cli.command {
        Command::Get { board, key } => print(board, key, &dirs),
        Command::Check { boards } => check(boards, &dirs),
        Command::List => list(&dirs),
        Command::Flash { image, device, yes } => write(image, device, *yes),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            let usage = error.is::<UnknownBoard>() || error.is::<UnknownKey>();
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

fn print(board: &Path, key: &str, dirs: &[PathBuf]) -> Result<ExitCode> {
    let path = find(board, Path::new(""), dirs)?;
    get(&path, key)?.iter().try_for_each(|value| say(value))?;
    Ok(ExitCode::SUCCESS)
}

fn check(boards: &[PathBuf], dirs: &[PathBuf]) -> Result<ExitCode> {
    let paths = match boards {
        [] => listed(dirs)?.into_iter().map(|(_, path)| path).collect(),
        some => some.iter().map(|board| find(board, Path::new(""), dirs)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut code = ExitCode::SUCCESS;
    for path in paths {
        match Board::load(&path) {
            Ok(board) => say(&format!("{}: {} is valid", path.display(), board.name))?,
            Err(error) => {
                complain(&error);
                code = ExitCode::from(FAILED);
            }
        }
    }
    Ok(code)
}

fn list(dirs: &[PathBuf]) -> Result<ExitCode> {
    listed(dirs)?.iter().try_for_each(|(name, _)| say(name))?;
    Ok(ExitCode::SUCCESS)
}

fn write(image: &Path, device: &Path, yes: bool) -> Result<ExitCode> {
    let mut input = io::stdin().lock();
    let answer = (!yes).then_some(&mut input as &mut dyn BufRead);
    flash(image, device, &Places::default(), answer, &Tell::default())?;
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("standard output")
}

fn complain(error: &Error) {
    // Ignore the error: standard error may be closed.
    let _ = writeln!(io::stderr(), "dunlin-board: {error:#}");
}
