//! `make demo`: a broker, a verifier and an agent on one prompt, then the target alone with the same seed.
//!
//! Its exit status is 0 only if the two texts are identical and everything it started has stopped.

use anyhow::{Context, Result, anyhow, bail, ensure};
use dunlin_hlm::policy::{Coupling, Policy};
use dunlin_stand::process::Process;
use dunlin_stand::wait::Stop;
use serde_json::{Map, Value, json};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Longest time until broker and verifier are ready, including loading and checking the target.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest time that the verifier may take to end.
const GONE_WITHIN: Duration = Duration::from_secs(15);
/// Fields of the agent's report that are copied to the demo's.
const FIELDS: [&str; 15] = [
    "text",
    "committed_tokens",
    "rounds",
    "frames_up",
    "payload_bytes_up",
    "mqtt_bytes_up",
    "mqtt_bytes_down",
    "drafted_tokens",
    "accepted_tokens",
    "acceptance",
    "seconds",
    "energy",
    "policy",
    "seed",
    "prompt",
];

/// The settings, each from an environment variable of the same name in capitals.
struct Ask {
    pair: Pair,
    prompt: String,
    policy: String,
    seed: String,
    temperature: String,
    max_tokens: String,
    power: String,
}

/// A drafter and a target that belong together.
#[derive(Clone, Copy)]
enum Pair {
    /// The one that the checkout contains whole.
    Toy,
    /// SmolLM2-135M-Instruct, which `models/smollm2/fetch.sh` fetches.
    SmolLm2,
}

/// Paths of the demo's files.
struct DemoPlaces {
    bins: PathBuf,
    drafter: PathBuf,
    target: PathBuf,
    out: PathBuf,
}

fn main() -> ExitCode {
    match Stop::on_signals().and_then(|stop| demo(&stop)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the verdict is what the program is for")]
fn demo(stop: &Stop) -> Result<()> {
    let ask = Ask::from_environment()?;
    let places = DemoPlaces::find(ask.pair)?;
    fs::create_dir_all(&places.out).with_context(|| format!("can't make {}", places.out.display()))?;
    eprintln!("demo: broker and verifier are starting (log: {})", places.out.join("verifier.log").display());
    let (mut verifier, broker) = start_verifier(&places, stop)?;
    eprintln!("demo: the agent drafts, the verifier at {broker} corrects\n");
    let report = run_agent(&ask, &places, &broker, stop)?;
    stop_verifier(&mut verifier, stop)?;
    eprintln!("\ndemo: the target alone, with the same seed");
    let reference = run_reference(&ask, &report, &places, stop)?;
    let identical = report["tokens"] == reference["tokens"];
    write_report(&places, &report, &reference, identical)?;
    let (count, path) = (&report["committed_tokens"], places.out.join("report.json"));
    if identical {
        println!("The text is identical to what the target alone writes ({count} tokens).");
    } else {
        ensure!(!promises_identity(&ask.policy), "the texts differ: see {}", path.display());
        let name = &ask.policy;
        println!(
            "The text differs from what the target alone writes, as {name} may ({count} tokens, {} trusted).",
            report["trusted_tokens"]
        );
    }
    if let Some(agreement) = agreement(&report["energy"]) {
        println!("{agreement}");
    }
    println!("Report: {}", path.display());
    Ok(())
}

/// The difference between the measured phases of a simulated board and their true energy.
fn agreement(energy: &Value) -> Option<String> {
    let truth: Vec<(&String, f64)> = energy["truth"]
        .as_object()?
        .iter()
        .filter_map(|(phase, joules)| Some((phase, joules.as_f64()?)))
        .collect();
    let whole: f64 = truth.iter().map(|(_, joules)| joules).sum();
    let off = |(phase, truth): &(&String, f64)| {
        Some((energy["phases"][phase.as_str()].as_f64()? - truth).abs() / whole * 100.0)
    };
    let worst = truth.iter().filter_map(off).fold(0.0, f64::max);
    let (source, joules) = (energy["source"].as_str()?, energy["joules"].as_f64()?);
    Some(format!("Energy {source}: {joules:.3} J; each phase is within {worst:.1} % of what it really took."))
}

/// True when a policy's text is the target's own, token for token.
fn promises_identity(policy: &str) -> bool {
    let same =
        |policy: Policy| policy.rules().is_exact() && policy.rules().coupling() == Coupling::SharedSeed;
    policy.parse().is_ok_and(same)
}

impl Ask {
    fn from_environment() -> Result<Self> {
        let get = |name: &str, default: &str| {
            env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.into())
        };
        let pair = Pair::named(&get("PAIR", "demo"))?;
        Ok(Self {
            pair,
            prompt: get("PROMPT", pair.prompt()),
            policy: get("POLICY", "lossless"),
            seed: get("SEED", "1"),
            temperature: get("TEMPERATURE", "0.8"),
            max_tokens: get("MAX_TOKENS", "96"),
            power: get("POWER", "auto"),
        })
    }
}

impl Pair {
    fn named(name: &str) -> Result<Self> {
        match name {
            "demo" => Ok(Self::Toy),
            "smollm2" => Ok(Self::SmolLm2),
            other => bail!("PAIR={} is unknown: use demo or smollm2", other.escape_debug()),
        }
    }

    /// A prompt of the kind that the pair was made for.
    fn prompt(self) -> &'static str {
        match self {
            Self::Toy => "I would like to find a restaurant in San Jose for dinner tonight.",
            Self::SmolLm2 => "Why is the sky blue?",
        }
    }

    /// The paths of drafter and target, with the checkout at `root` and what was built in `built`.
    fn models(self, root: &Path, built: &Path) -> (PathBuf, PathBuf) {
        match self {
            Self::Toy => (root.join("models/demo/drafter"), root.join("models/demo/target")),
            Self::SmolLm2 => (
                root.join("models/smollm2/drafter"),
                built.join("models/smollm2/SmolLM2-135M-Instruct-Q8_0.gguf"),
            ),
        }
    }
}

impl DemoPlaces {
    /// Finds the other programs beside this one and the models in the checkout.
    fn find(pair: Pair) -> Result<Self> {
        let own = env::current_exe().context("can't tell where this program is")?;
        let bins = own.parent().context("this program lies in no folder")?.to_path_buf();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().context("the checkout was moved: build again")?;
        let built = bins.parent().unwrap_or(&bins);
        let (out, (drafter, target)) = (built.join("demo"), pair.models(&root, built));
        ensure!(
            target.exists(),
            "{} is missing: run `make demo PAIR=smollm2`, which fetches it",
            target.display()
        );
        Ok(Self { bins, drafter, target, out })
    }

    fn command(&self, name: &str) -> Result<Command> {
        let path = self.bins.join(name);
        ensure!(path.is_file(), "{} is missing: run `make build`", path.display());
        Ok(Command::new(path))
    }
}

fn start_verifier(places: &DemoPlaces, stop: &Stop) -> Result<(Process, String)> {
    let (log, ready) = (places.out.join("verifier.log"), places.out.join("broker"));
    let _ = fs::remove_file(&ready);
    let file = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
    let mut command = places.command("dunlin-verifier")?;
    command.args(["serve", "--embedded-broker", "--listen", "127.0.0.1:0", "--model"]);
    command.arg(&places.target).arg("--ready-file").arg(&ready);
    let mut verifier = Process::start(command.stdout(Stdio::null()).stderr(file))?;
    let broker = stop.until("dunlin-verifier is ready", READY_WITHIN, || {
        if let Some(status) = verifier.ended()? {
            bail!("dunlin-verifier ended with {status}");
        }
        Ok(fs::read_to_string(&ready).ok())
    });
    let broker = broker.map_err(|error| anyhow!("{error:#}:\n{}", tail(&log)))?;
    Ok((verifier, broker.trim().to_owned()))
}

fn run_agent(ask: &Ask, places: &DemoPlaces, broker: &str, stop: &Stop) -> Result<Value> {
    let path = places.out.join("agent.json");
    let _ = fs::remove_file(&path);
    let mut command = places.command("dunlin-agent")?;
    command.arg("generate").arg("--model").arg(&places.drafter);
    command.args(["--broker", &format!("mqtt://{broker}"), "--device", "demo", "--prompt", &ask.prompt]);
    command.args(["--policy", &ask.policy, "--seed", &ask.seed, "--temperature", &ask.temperature]);
    command.args(["--max-tokens", &ask.max_tokens, "--power", &ask.power]).arg("--report").arg(&path);
    if ask.power == "simulated" {
        // On a fast machine, phases take a fraction of a millisecond, so no conversion of the sensor may be missed.
        let config = places.out.join("agent.toml");
        fs::write(&config, "[power]\naveraging = 1\n")
            .with_context(|| format!("can't write {}", config.display()))?;
        command.args(["--idle-seconds", "0.6", "--config"]).arg(config);
    }
    let mut agent = Process::start(&mut command)?;
    finish(&mut agent, "dunlin-agent", stop)?;
    read_json(&fs::read_to_string(&path).with_context(|| format!("dunlin-agent left no {}", path.display()))?)
}

fn stop_verifier(verifier: &mut Process, stop: &Stop) -> Result<()> {
    verifier.terminate().context("can't stop dunlin-verifier")?;
    let status = stop.until("dunlin-verifier stops", GONE_WITHIN, || verifier.ended())?;
    ensure!(status.success(), "dunlin-verifier ended with {status} when asked to stop");
    Ok(())
}

/// Runs the target alone with the sampling that the agent reported.
fn run_reference(ask: &Ask, report: &Value, places: &DemoPlaces, stop: &Stop) -> Result<Value> {
    let path = places.out.join("reference.json");
    let out = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let prompt = report["prompt"].as_str().context("the agent's report has no prompt")?;
    let mut command = places.command("dunlin-verifier")?;
    command.arg("reference").arg("--model").arg(&places.target).args(["--json", "--prompt", prompt]);
    let flags =
        ["temperature", "top_p", "top_k", "seed"].map(|name| (format!("--{}", name.replace('_', "-")), name));
    for (flag, name) in flags {
        command.arg(flag).arg(report[name].to_string());
    }
    command.arg("--max-tokens").arg(&ask.max_tokens);
    let mut child = Process::start(command.stdout(out))?;
    finish(&mut child, "the reference", stop)?;
    read_json(&fs::read_to_string(&path)?)
}

/// Waits for a process without a time limit.
fn finish(child: &mut Process, name: &str, stop: &Stop) -> Result<()> {
    let status = stop.until(name, Duration::MAX, || child.ended())?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

fn write_report(places: &DemoPlaces, report: &Value, reference: &Value, identical: bool) -> Result<()> {
    let mut fields: Map<String, Value> =
        FIELDS.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect();
    fields.insert("reference_text".into(), reference["text"].clone());
    fields.insert("identical".into(), json!(identical));
    let path = places.out.join("report.json");
    let text = serde_json::to_string_pretty(&fields)?;
    fs::write(&path, text + "\n").with_context(|| format!("can't write {}", path.display()))
}

fn read_json(text: &str) -> Result<Value> {
    serde_json::from_str(text.trim()).context("not the JSON that was asked for")
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
