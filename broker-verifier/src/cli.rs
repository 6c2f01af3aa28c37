//! The command line and the exit code of the process.

use crate::budget::CacheBudget;
use crate::check::check;
use crate::config::{Config, EngineName};
use crate::embedded::Embedded;
use crate::engine::{OpenedTarget, TargetEngine, open, set_variables};
use crate::exit::Exit;
use crate::reference::{Request, write};
use crate::report::End;
use crate::run::{Hooks, Served, serve};
use anyhow::{Context, Error, Result, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use dunlin_hlm::probabilities::Sampling;
use dunlin_link::{migrate, watch_certificate};
use dunlin_service::{Service, credential};
use dunlin_wire::VerifierId;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// Verify the drafts of Dunlin's devices with a large model, beside an MQTT 5 broker.
#[derive(Debug, Parser)]
#[command(name = "dunlin-verifier", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify drafts until SIGTERM or SIGINT.
    Serve(ServeArgs),
    /// Write the text of the target alone, which the lossless policy must produce.
    Reference(ReferenceArgs),
    /// Test configuration, model and broker.
    Check(ServeArgs),
    /// Rewrite a configuration file that has keys of an earlier version.
    MigrateConfig(MigrateArgs),
    /// Try a file for another process of this program, which is about to load it.
    #[cfg(feature = "llamacpp")]
    #[command(name = crate::engine::llamacpp::COMMAND, hide = true)]
    Rehearse {
        /// The order.
        order: Vec<std::ffi::OsString>,
    },
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The configuration file; options override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The broker: mqtts://host[:port] with TLS, or mqtt://[user:password@]host[:port] without.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "embedded_broker")]
    broker: Option<String>,
    /// Speak to a broker on another machine without TLS.
    #[arg(long)]
    insecure: bool,
    /// The verifier's name: a-z, 0-9 and '-', up to 32 characters.
    #[arg(long)]
    id: Option<VerifierId>,
    /// The target: a model directory or a .gguf file.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The engine that runs the target in this process.
    #[arg(long, value_enum)]
    engine: Option<EngineName>,
    /// Threads of the target [default: all cores but one].
    #[arg(long)]
    threads: Option<usize>,
    /// Maximum number of sessions.
    #[arg(long)]
    sessions: Option<usize>,
    /// Memory for the caches of all sessions, MiB.
    #[arg(long, value_name = "MIB")]
    kv_mib: Option<usize>,
    /// Run a broker in this process, reachable from this machine only.
    #[arg(long)]
    embedded_broker: bool,
    /// Address of the embedded broker; port 0 picks a free port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// File that receives the broker's host:port once devices can be answered.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// File to which the devices' energy reports are appended, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    energy_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// The configuration file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct ReferenceArgs {
    /// The target: a model directory or a .gguf file.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The prompt of the first turn.
    #[arg(long, allow_hyphen_values = true)]
    prompt: String,
    /// The system prompt; the model's chat template must take one.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Maximum length of the text in tokens.
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_tokens: usize,
    /// Softmax temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.7)]
    temperature: f32,
    /// Probability mass kept by top-p sampling, above 0 and at most 1.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Number of most likely tokens kept by top-k sampling; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// The session's seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The engine that runs the target.
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
    /// Threads of the target [default: all cores but one].
    #[arg(long)]
    threads: Option<usize>,
    /// Write one line of JSON with the tokens.
    #[arg(long)]
    json: bool,
}

/// An error, and the exit code that it leads to.
type CommandResult = Result<Exit, (Exit, Error)>;

/// Reads the command line, runs the command and prints its error.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Some(Command::Serve(args)) => run_serve(&args),
        Some(Command::Reference(args)) => run_reference(&args),
        Some(Command::Check(args)) => run_check(&args),
        Some(Command::MigrateConfig(args)) => run_migrate(&args),
        #[cfg(feature = "llamacpp")]
        Some(Command::Rehearse { order }) => run_rehearsal(&order),
        None => Cli::command().print_help().map(|()| Exit::Ok).map_err(|error| failure(error.into())),
    };
    let exit = outcome.unwrap_or_else(|(exit, error)| {
        // Ignore the error: standard error may be closed.
        let _ = writeln!(io::stderr(), "dunlin-verifier: {error:#}");
        exit
    });
    ExitCode::from(exit as u8)
}

fn failure(error: Error) -> (Exit, Error) {
    (Exit::Failure, error)
}

fn usage(error: Error) -> (Exit, Error) {
    (Exit::Usage, error)
}

fn run_serve(args: &ServeArgs) -> CommandResult {
    let mut config = args.merged().map_err(usage)?;
    config.model().map_err(usage)?;
    if config.remote.is_none() {
        set_variables(&config).map_err(failure)?;
    }
    start_log(Log::Service);
    // SIGUSR1 must not end a verifier that still loads its target. The handler outlives this runtime.
    block_on(async { signal(SignalKind::user_defined1()).map(drop).context("SIGUSR1") }).map_err(failure)?;
    let ready = args.ready_file.clone().map(ReadyFile);
    if let Some(file) = &ready {
        file.remove().map_err(failure)?;
    }
    let mut opened = block_on(open(&config)).map_err(failure)?;
    if let Some(budget) = CacheBudget::of(&config, &opened.engine) {
        budget.check().map_err(failure)?;
        tracing::info!("{budget}");
    }
    let measured = opened.engine.warm_up().map_err(failure)?;
    let OpenedTarget { dir, engine, .. } = opened;
    let embedded = match config.embedded_broker {
        true => Some(Embedded::start(config.listen).map_err(failure)?),
        false => None,
    };
    if let Some(embedded) = &embedded {
        config.broker = embedded.address().into();
        tracing::info!(address = %config.broker, "embedded broker");
    }
    let served = Served { target: engine, name: dir.name, prefixes: dir.prefixes.into(), measured };
    let report = block_on(serve_until_signal(&config, served, ready.clone())).map_err(failure);
    if let Some(file) = &ready {
        file.remove().map_err(failure)?;
    }
    Ok(match report? {
        End::Drained => Exit::Ok,
        End::CutShort => Exit::CutShort,
    })
}

async fn serve_until_signal(config: &Config, served: Served, ready: Option<ReadyFile>) -> Result<End> {
    let (sender, stop) = mpsc::channel(2);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, sender) = (signal(kind).context("signals")?, sender.clone());
        tokio::spawn(async move { while signals.recv().await.is_some() && sender.send(()).await.is_ok() {} });
    }
    let address = config.broker.to_string();
    tracing::info!(id = %config.id, broker = %config.broker.url(), "serving");
    tokio::spawn(watch_certificate(config.security.clone(), config.broker.clone()));
    let ready = Box::new(move || ready.map_or(Ok(()), |file| file.write(&address)));
    let hooks = Hooks { stop, status: status_requests()?, ready, service: Service::from_environment() };
    Ok(serve(config, served, hooks).await?.end)
}

/// Sends a message at SIGUSR1, unless one waits already.
fn status_requests() -> Result<mpsc::Receiver<()>> {
    let (sender, requests) = mpsc::channel(1);
    let mut signals = signal(SignalKind::user_defined1()).context("SIGUSR1")?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() && !sender.is_closed() {
            // Ignore a full channel: one log answers all earlier requests.
            let _ = sender.try_send(());
        }
    });
    Ok(requests)
}

fn run_reference(args: &ReferenceArgs) -> CommandResult {
    let sampling = Sampling::new(args.temperature, args.top_p, args.top_k);
    let sampling = sampling.context("sampling").map_err(usage)?;
    let mut config = Config { model: Some(args.model.clone()), ..Config::default() };
    config.threads = args.threads;
    config.engine = args.engine;
    // One session.
    config.sessions = 1;
    config.check().map_err(usage)?;
    set_variables(&config).map_err(failure)?;
    start_log(Log::Text);
    reference(args, &config, sampling).map_err(failure)?;
    Ok(Exit::Ok)
}

fn reference(args: &ReferenceArgs, config: &Config, sampling: Sampling) -> Result<()> {
    let OpenedTarget { dir, engine, .. } = block_on(open(config))?;
    let TargetEngine::Rows(mut target) = engine else { bail!("a target on a server has no reference here") };
    let dir = dir.with_system(args.system.clone())?;
    let request = Request {
        prompt: dir.first_turn(&args.prompt).context("prompt")?,
        tokens_max: args.max_tokens,
        stop: dir.prompt.stop.clone(),
        sampling,
        seed: args.seed,
    };
    let (tokens, finish) = write(target.as_mut(), &request)?;
    let text = dir.tokenizer.decode(&tokens);
    let line = match args.json {
        true => serde_json::json!({
            "model": dir.name,
            "weights": target.identity().weights_hex(),
            "engine": target.identity().engine,
            "numerics": target.identity().numerics,
            "seed": args.seed,
            "prompt_tokens": request.prompt,
            "tokens": tokens,
            "text": text,
            "finish": finish.name(),
        })
        .to_string(),
        false => text,
    };
    writeln!(io::stdout(), "{line}").context("standard output")
}

fn run_check(args: &ServeArgs) -> CommandResult {
    let config = args.merged();
    if let Ok(config) = &config
        && config.remote.is_none()
    {
        set_variables(config).map_err(failure)?;
    }
    start_log(Log::Service);
    block_on(async { Ok(check(config).await?) }).map_err(failure)
}

fn run_migrate(args: &MigrateArgs) -> CommandResult {
    let migrated = migrate(&args.file).map_err(failure)?;
    writeln!(io::stdout(), "{}", migrated.report(&args.file)).context("standard output").map_err(failure)?;
    Ok(Exit::Ok)
}

#[cfg(feature = "llamacpp")]
fn run_rehearsal(order: &[std::ffi::OsString]) -> CommandResult {
    dunlin_lm_llamacpp::rehearse(order).map_err(|message| usage(Error::msg(message)))?;
    Ok(Exit::Ok)
}

impl ServeArgs {
    /// The file's configuration, overridden by the command line and checked.
    fn merged(&self) -> Result<Config> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        if let Some(broker) = &self.broker {
            config.broker = broker.parse()?;
            config.embedded_broker = false;
        }
        config.mqtt.insecure |= self.insecure;
        config.embedded_broker |= self.embedded_broker;
        if self.listen.is_some() && !config.embedded_broker {
            bail!("--listen is the embedded broker's address: add --embedded-broker, or say --broker");
        }
        config.id = self.id.clone().unwrap_or(config.id);
        config.model = self.model.clone().or(config.model);
        config.engine = self.engine.unwrap_or(config.engine);
        config.threads = self.threads.or(config.threads);
        config.sessions = self.sessions.unwrap_or(config.sessions);
        config.kv_mib = self.kv_mib.unwrap_or(config.kv_mib);
        config.listen = self.listen.unwrap_or(config.listen);
        config.energy_log = self.energy_log.clone().or(config.energy_log);
        config.check()?;
        config.with_access(credential)
    }
}

/// A file whose appearance reports that devices can be served.
#[derive(Clone, Debug)]
struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Writes the file in one step, so that readers never see a part of it.
    fn write(&self, address: &str) -> Result<()> {
        let mut unfinished = self.0.clone().into_os_string();
        unfinished.push(".tmp");
        let unfinished = Path::new(&unfinished);
        let written =
            fs::write(unfinished, format!("{address}\n")).and_then(|()| fs::rename(unfinished, &self.0));
        written.with_context(|| format!("ready file {}", self.0.display()))
    }

    fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("ready file {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The lines of a log, unless `RUST_LOG` chooses others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    /// A service's course, with the time of each line.
    Service,
    /// Warnings beside a text that somebody reads.
    Text,
}

fn start_log(log: Log) {
    let default = if log == Log::Service { "info,mqtt5=warn" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colour = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour);
    match log {
        Log::Service => lines.init(),
        Log::Text => lines.without_time().init(),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime: Runtime = runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let result = runtime.block_on(work);
    // Don't let a pending name lookup delay the exit.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::env;

    fn package() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/package/verifier")
    }

    /// The files of a folder, by name.
    fn files(dir: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
            })
            .collect()
    }

    /// The pages are committed so that packaging doesn't need to run the tests of this crate.
    #[test]
    fn the_manual_pages_say_what_the_flags_are() {
        let (fresh, kept) = (tempfile::tempdir().unwrap(), package().join("man"));
        clap_mangen::generate_to(Cli::command(), fresh.path()).unwrap();
        if env::var("INSTA_UPDATE").is_ok_and(|wish| wish == "always") {
            let _ = fs::remove_dir_all(&kept);
            fs::create_dir(&kept).unwrap();
            for (name, page) in files(fresh.path()) {
                fs::write(kept.join(name), page).unwrap();
            }
        }
        assert!(
            files(fresh.path()) == files(&kept),
            "boards/package/verifier/man is behind the flags: run this test with INSTA_UPDATE=always"
        );
    }

    /// The package's configuration names every key of the manual, and each example is valid.
    #[test]
    fn the_packages_configuration_is_the_one_of_the_manual() {
        let text = fs::read_to_string(package().join("verifier.toml")).unwrap();
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) => key,
            _ => line,
        });
        let whole = lines.map(|line| format!("{line}\n")).collect::<String>();
        let config = toml::from_str::<Config>(&whole).unwrap();
        assert!(config.check().unwrap_err().to_string().starts_with("threads: "), "not beside [remote]");
        Config { threads: None, ..config }.check().unwrap();
        assert!(toml::from_str::<Config>(&text).unwrap().model.is_none(), "nothing is configured");
        let mut table: toml::Table = whole.parse().unwrap();
        for name in ["mqtt", "remote", "tls"] {
            let Some(toml::Value::Table(keys)) = table.remove(name) else { panic!("no [{name}]") };
            table.extend(keys.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
        }
        let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verifier.md"));
        let manual = manual.unwrap();
        let (_, section) = manual.split_once("| key | default | meaning |").unwrap();
        let (section, _) = section.split_once("\n\n").unwrap();
        let named: BTreeSet<&str> = section
            .lines()
            .filter_map(|row| row.split('|').nth(1))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), named);
    }
}
