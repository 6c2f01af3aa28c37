//! Commands and exit codes.

use crate::address::BrokerUrl;
use crate::authority::Authority;
use crate::broker::{AclFormat, acl};
use crate::card::write_into;
use crate::check::{Weight, check};
use crate::fleet::{Fleet, FleetPlan, SERVER_NAME};
use crate::list::{CertificateState, list};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use dunlin_wire::{BrokerRole, DeviceId, Identity};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use time::OffsetDateTime;

/// Something failed, or `check` found a problem. A wrong command line is 2.
const FAILED: u8 = 1;

/// Identities and access of a fleet: certificates, cards of boards, the broker's access list.
///
/// The folder of a fleet contains keys that nobody else may have: keep it on a computer of your own, with a backup, and not on the
/// broker's machine.
#[derive(Debug, Parser)]
#[command(name = "dunlin-fleet", version)]
pub struct Cli {
    /// Folder of the fleet.
    #[arg(long, global = true, value_name = "DIR", default_value = "fleet")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a fleet in a new folder: authority, keys, the broker's files, a verifier and an operator.
    Init(InitArgs),
    /// Make a board's identity, or take the one that it has, and write it for dunlin.txt or for a package.
    Card(CardArgs),
    /// Make the identity of a further verifier.
    Verifier {
        /// The verifier's id in its configuration, without v.
        name: DeviceId,
    },
    /// Make the identity of an operator, a watcher, a store or of enrolment.
    Service {
        /// o.NAME, w.NAME, s.NAME or e.NAME.
        #[arg(value_parser = service)]
        name: Identity,
    },
    /// Print the broker's access list.
    Acl {
        /// The broker that the list is for.
        #[arg(long = "for", value_enum, value_name = "BROKER", default_value_t)]
        format: AclFormat,
    },
    /// Make the broker's files again: access list, configuration, list of revoked certificates.
    Broker,
    /// Revoke a board's or a service's certificates, and remove its keys here.
    Revoke {
        /// The name in the certificate, for example plover-1 or v.verifier-2.
        name: Identity,
    },
    /// Give certificates a new end: those of the broker and of services that end within 30 days, or a named one.
    Renew {
        /// The name in the certificate; b.broker is the broker's own.
        name: Option<String>,
    },
    /// List the certificates.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check files, modes, keys, ends, and the broker's files.
    Check,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The new folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The broker by the name or address with which boards reach it: mqtts://HOST[:8883].
    #[arg(long, value_name = "URL")]
    broker: BrokerUrl,
    /// Id of the first verifier.
    #[arg(long, value_name = "NAME", default_value = "verifier-1")]
    verifier: DeviceId,
    /// Name of the first operator [default: the user's].
    #[arg(long, value_name = "NAME")]
    operator: Option<DeviceId>,
    /// Folder of the broker's files on the broker's machine.
    #[arg(long, value_name = "DIR", default_value = "/etc/mosquitto/dunlin", value_parser = absolute)]
    broker_dir: PathBuf,
}

#[derive(Debug, Args)]
struct CardArgs {
    /// The board's name: a-z, 0-9 and "-", at most 32 characters.
    #[arg(value_parser = device)]
    name: DeviceId,
    /// Write the lines into this dunlin.txt, and keep its other lines; without it, they go to standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    into: Option<PathBuf>,
    /// Write files into this folder instead, for a board with a package.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
}

fn device(text: &str) -> Result<DeviceId, String> {
    let rule =
        "a board's name has a-z, 0-9 and '-', at most 32 of them, and begins and ends with a letter or digit";
    if text.starts_with('-') || text.ends_with('-') {
        return Err(rule.into());
    }
    text.parse().map_err(|_| {
        if text.contains('.') { format!("{rule}; names with a dot are services'") } else { rule.into() }
    })
}

fn service(text: &str) -> Result<Identity, String> {
    match text.parse::<Identity>() {
        Ok(identity) if identity.role == BrokerRole::Device => {
            Err("boards have cards: dunlin-fleet card NAME".into())
        }
        Ok(identity) => Ok(identity),
        Err(error) => Err(error.to_string()),
    }
}

/// A path for mosquitto's configuration, which can't quote.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("an absolute path without spaces".into());
    }
    Ok(path.into())
}

/// Runs a command; its errors go to standard error.
pub fn run(cli: &Cli) -> ExitCode {
    match command(cli, OffsetDateTime::now_utc()) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn command(cli: &Cli, now: OffsetDateTime) -> Result<ExitCode> {
    if let Command::Init(args) = &cli.command {
        return init(args, now);
    }
    let mut fleet = Fleet::open(&cli.dir)?;
    match &cli.command {
        Command::Init(_) => unreachable!("init was run above"),
        Command::Card(args) => card(&mut fleet, args, now),
        Command::Verifier { name } => {
            issue(&mut fleet, &Identity { role: BrokerRole::Verifier, id: name.clone() }, now)
        }
        Command::Service { name } => issue(&mut fleet, name, now),
        Command::Acl { format } => print(&acl(&fleet.services(), *format)),
        Command::Broker => {
            fleet.write_broker(&Authority::open(&fleet.dir)?)?;
            say(&format!(
                "{} is as the register says. {}",
                fleet.broker_folder().display(),
                install(&fleet, "reload")
            ))
        }
        Command::Revoke { name } => revoke(&mut fleet, name, now),
        Command::Renew { name } => renew(&mut fleet, name.as_deref(), now),
        Command::List { json } => show_list(&fleet, *json, now),
        Command::Check => show_check(&fleet, now),
    }
}

fn init(args: &InitArgs, now: OffsetDateTime) -> Result<ExitCode> {
    let operator = args.operator.clone().or_else(user).unwrap_or("admin".parse().expect("an id"));
    let services = vec![
        Identity { role: BrokerRole::Verifier, id: args.verifier.clone() },
        Identity { role: BrokerRole::Operator, id: operator },
    ];
    let plan = FleetPlan { broker: args.broker.clone(), broker_dir: args.broker_dir.clone(), services };
    let fleet = Fleet::init(&args.folder, &plan, now)?;
    say(&format!(
        "{} is the folder of a new fleet. Keep a backup of it, and keep it to yourself: who has it can be every board.\n{}\n\
         The files of {} are in {}.\nA board's card: dunlin-fleet --dir {} card NAME --into dunlin.txt",
        args.folder.display(),
        install(&fleet, "restart"),
        plan.services[0],
        fleet.folder(&plan.services[0]).display(),
        args.folder.display(),
    ))
}

/// The user's name, if it is an id.
fn user() -> Option<DeviceId> {
    std::env::var("USER").ok()?.to_ascii_lowercase().parse().ok()
}

/// The commands that bring the broker's files to the broker.
fn install(fleet: &Fleet, verb: &str) -> String {
    let (from, to) = (fleet.broker_folder(), fleet.register.broker_dir.display());
    let from = from.display();
    format!(
        "On the broker's machine:\n  \
         sudo install -D -o mosquitto -m 0640 -t {to} {from}/*\n  \
         sudo ln -sf {to}/mosquitto.conf /etc/mosquitto/conf.d/dunlin.conf\n  \
         sudo systemctl {verb} mosquitto"
    )
}

fn card(fleet: &mut Fleet, args: &CardArgs, now: OffsetDateTime) -> Result<ExitCode> {
    let name = Identity { role: BrokerRole::Device, id: args.name.clone() };
    if args.into.is_none() && args.files.is_none() && io::stdout().is_terminal() {
        bail!("the card contains keys, which don't belong on a screen: name a file with --into FILE");
    }
    let new = fleet.issue(&name, now)?;
    let which = if new { "a new identity" } else { "the identity that it has" };
    if let Some(dir) = &args.files {
        let files = fleet.copy_files(&name, dir)?;
        return say(&format!("{} has {which} of {name}: {}", dir.display(), files.join(", ")));
    }
    let lines = fleet.card(&args.name)?;
    match &args.into {
        Some(file) => {
            write_into(file, &lines)?;
            say(&format!("{} has {which} of {name}; the board takes it and erases it there", file.display()))
        }
        None => print(&lines),
    }
}

fn issue(fleet: &mut Fleet, name: &Identity, now: OffsetDateTime) -> Result<ExitCode> {
    let folder = fleet.folder(name);
    if !fleet.issue(name, now)? {
        bail!(
            "{name} has an identity, in {}; `renew` gives it a new end, and `revoke` makes it invalid",
            folder.display()
        );
    }
    say(&format!(
        "{} has the files of {name}. The access list has changed. {}",
        folder.display(),
        install(fleet, "reload")
    ))
}

fn revoke(fleet: &mut Fleet, name: &Identity, now: OffsetDateTime) -> Result<ExitCode> {
    let count = fleet.revoke(&name.to_string(), now)?;
    say(&format!(
        "revoked what {name} had ({count} in all), and removed its keys here. {}\n\
         Only a restart ends the connection that it may have now.",
        install(fleet, "restart")
    ))
}

fn renew(fleet: &mut Fleet, name: Option<&str>, now: OffsetDateTime) -> Result<ExitCode> {
    let names = name.map_or_else(|| fleet.due(now), |name| vec![name.into()]);
    if names.is_empty() {
        return say(
            "no certificate of the broker or of a service ends within 30 days; name one to renew it now",
        );
    }
    for name in &names {
        let until = fleet.renew(name, now)?;
        let next = match name.parse::<Identity>() {
            _ if name == SERVER_NAME => install(fleet, "reload"),
            Ok(identity) if identity.role == BrokerRole::Device => "Write its card again.".into(),
            Ok(identity) => {
                format!("Copy {} to it, and restart it.", fleet.folder(&identity).join("cert.pem").display())
            }
            Err(error) => bail!("{name:?}: {error}"),
        };
        say(&format!("the certificate of {name} now ends on {}. {next}", until.date()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_list(fleet: &Fleet, json: bool, now: OffsetDateTime) -> Result<ExitCode> {
    let rows = list(fleet, now);
    if json {
        return say(&serde_json::to_string_pretty(&rows).context("JSON")?);
    }
    say(&format!("{:<34} {:<9} {:<10} state", "name", "role", "until"))?;
    for row in rows {
        let state = match row.state {
            CertificateState::Valid => "valid".into(),
            CertificateState::EndsSoon => {
                format!("ends in {} days: dunlin-fleet renew {}", row.days, row.name)
            }
            CertificateState::Ended => format!("ended: dunlin-fleet renew {}", row.name),
            CertificateState::Revoked => "revoked".into(),
        };
        say(&format!("{:<34} {:<9} {:<10} {state}", row.name, row.role, row.until))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_check(fleet: &Fleet, now: OffsetDateTime) -> Result<ExitCode> {
    let findings = check(fleet, now);
    for finding in &findings {
        let weight = if finding.weight == Weight::Problem { "problem" } else { "warning" };
        complain(&format!("{weight}: {}", finding.text));
    }
    if findings.iter().any(|finding| finding.weight == Weight::Problem) {
        return Ok(ExitCode::from(FAILED));
    }
    say(&format!(
        "{} is in order: {} certificates, broker {}",
        fleet.dir.display(),
        fleet.register.names().len(),
        fleet.broker()
    ))
}

fn say(text: &str) -> Result<ExitCode> {
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<ExitCode> {
    io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn complain(text: &str) {
    // Ignore the error: standard error may be closed.
    let _ = writeln!(io::stderr(), "dunlin-fleet: {text}");
}
