//! A plan: the policies, boards and channels of an evaluation, read from TOML and checked before anything runs.

use super::channel::ModelledChannel;
use super::setting::{PolicySweep, Setting};
use anyhow::{Context, Result, bail, ensure};
use dunlin_board::{Board, Modelled, Radio, amount, rate, wrong};
use dunlin_hlm::probabilities::Sampling;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;

/// The run whose cells also record the result of each token, and which includes the target-only baseline.
pub const MAIN: &str = "main";
/// Bits of a weight: four, plus a 16-bit scale for every 32 weights.
const WEIGHT_BITS: f64 = 4.5;

/// A plan, checked.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// Its name.
    pub name: String,
    /// The seed from which every session's seed is derived.
    pub seed: u64,
    /// The models' directory.
    pub pair: PathBuf,
    /// Directory of the boards.
    pub boards_dir: PathBuf,
    /// Directory of the channels.
    pub channels_dir: PathBuf,
    /// Number of prompts used.
    pub prompts: usize,
    /// Most tokens of a reply.
    pub tokens_max: usize,
    /// The modelled target.
    pub server: Server,
    /// The size of the drafter that is modelled in place of the pair's.
    pub modelled: Option<Size>,
    /// Every cell, in the order of the results.
    pub cells: Vec<Cell>,
}

/// One line of the results: all prompts and seeds under the same conditions.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Name of its run.
    pub run: String,
    /// The writer of the text.
    pub writer: Writer,
    /// Softmax temperature of both models.
    pub temperature: f64,
    /// Replies to each prompt.
    pub seeds: u32,
    /// True to record the result of each token.
    pub tokens: bool,
    /// The size of the modelled drafter, if it is not the plan's.
    pub size: Option<Size>,
    /// The modelled target.
    pub server: Server,
    /// The quantity that the device minimises.
    pub objective: Objective,
    /// True to leave out what compares texts and laws: only costs are wanted.
    pub costs_only: bool,
    /// Probability with which the target accepts a draft, whatever was drafted before it, in place of the drafter's own.
    pub acceptance: Option<f64>,
    /// True to begin with what the device learned from the same prompts under other seeds.
    pub learned: bool,
}

/// The writer of a cell's text.
#[derive(Clone, Debug)]
pub enum Writer {
    /// A device and a verifier.
    Policy(Box<Setting>, Arc<ModelledBoard>, Arc<ModelledChannel>),
    /// The target alone with another seed, to measure the distance between two of its own replies.
    TargetAgain,
}

/// A board that can be modelled.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelledBoard {
    /// Its name.
    pub name: String,
    /// Tokens of context, if fewer than the drafter's.
    pub context_tokens_max: Option<usize>,
    /// The channel of its radio.
    pub radio: Option<Radio>,
    /// Its constants.
    pub modelled: Modelled,
}

/// Times of a modelled target.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Time of a pass, whatever its size, µs.
    #[serde(deserialize_with = "amount")]
    pub pass_us: f64,
    /// Time of each token fed, µs.
    #[serde(deserialize_with = "amount")]
    pub token_us: f64,
    /// Sessions under way at once; each further one adds its tokens to every pass.
    #[serde(default = "alone", deserialize_with = "rate")]
    pub sessions: f64,
    /// Power of the server while a pass runs, W; without it no energy of the server is reported.
    #[serde(default)]
    pub watts: Option<f64>,
}

impl Server {
    /// Tokens that each further session adds to a pass: between the 1 of a stream and the 5 to 6 of a drafted frame
    /// (ours).
    const SESSION_TOKENS: f64 = 4.0;

    /// Time that the other sessions add to each pass, µs.
    pub fn others_us(&self) -> f64 {
        self.token_us * Self::SESSION_TOKENS * (self.sessions - 1.0)
    }

    /// Mean wait of a frame that comes while a pass runs, µs. An idle server begins at once.
    pub fn queue_us(&self) -> f64 {
        if self.sessions > 1.0 { (self.pass_us + self.others_us()) / 2.0 } else { 0.0 }
    }
}

/// The quantity that the device minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// The board's modelled energy.
    #[default]
    Joules,
    /// Time.
    Seconds,
}

impl Objective {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joules => "joules",
            Self::Seconds => "seconds",
        }
    }
}

/// The size of a drafter.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Number of parameters.
    #[serde(deserialize_with = "rate")]
    pub drafter_parameters: f64,
    /// Bits of each parameter, scales included.
    #[serde(default = "weight_bits", deserialize_with = "rate")]
    pub drafter_bits: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    name: String,
    seed: u64,
    pair: Spanned<PathBuf>,
    #[serde(default = "boards_dir")]
    boards_dir: PathBuf,
    #[serde(default = "channels_dir")]
    channels_dir: PathBuf,
    prompts: Spanned<usize>,
    tokens_max: Spanned<usize>,
    server: Server,
    modelled: Option<Size>,
    run: Spanned<Vec<Spanned<Run>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    name: Spanned<String>,
    boards: Spanned<Vec<Spanned<String>>>,
    /// The channels; `None` for each board's own radio.
    channels: Option<Spanned<Vec<Spanned<String>>>>,
    temperatures: Spanned<Vec<Spanned<f64>>>,
    #[serde(default = "one")]
    seeds: Spanned<u32>,
    snr_db: Option<Spanned<Vec<f64>>>,
    rtt_ms: Option<Spanned<Vec<f64>>>,
    /// The size of the drafter that is modelled in this run.
    modelled: Option<Size>,
    /// Sizes of drafters, each modelled in turn.
    #[serde(default)]
    drafters: Vec<Size>,
    /// Times of a target's pass in place of the plan's, ms.
    #[serde(default)]
    pass_ms: Vec<f64>,
    /// Numbers of sessions on the server in place of the plan's.
    #[serde(default)]
    sessions: Vec<f64>,
    #[serde(default)]
    objectives: Vec<Objective>,
    #[serde(default)]
    costs_only: bool,
    /// Probabilities of acceptance in place of the drafter's own.
    #[serde(default)]
    acceptance: Vec<f64>,
    #[serde(default)]
    learned: bool,
    policy: Spanned<Vec<Spanned<PolicySweep>>>,
}

/// The conditions of a cell beside policy, place and temperature.
#[derive(Clone, Copy)]
struct Condition {
    size: Option<Size>,
    server: Server,
    objective: Objective,
    acceptance: Option<f64>,
}

/// A file's text, for errors with a line number.
struct PlanText<'a> {
    path: &'a Path,
    text: String,
}

impl EvaluationPlan {
    /// Reads and checks a plan and the boards and channels that it names. Its paths are relative to the working
    /// directory.
    ///
    /// # Errors
    /// Names the file, line and key that is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let source = PlanText { path, text };
        let parsed = toml::from_str::<PlanFile>(&source.text);
        let file = parsed.map_err(|error| wrong(path, &source.text, error.span(), error.message()))?;
        let pair = file.pair.get_ref();
        for part in ["drafter", "target", "prompts.json"] {
            let part = pair.join(part);
            source.ensure(part.exists(), file.pair.span(), format!("{} is missing", part.display()))?;
        }
        for number in [&file.prompts, &file.tokens_max] {
            source.ensure(*number.get_ref() > 0, number.span(), "0 is not a number above 0")?;
        }
        source.filled(&file.run)?;
        let mut cells = Vec::new();
        let mut names = BTreeSet::new();
        for run in file.run.get_ref() {
            let name = &run.get_ref().name;
            source.ensure(names.insert(name.get_ref().clone()), name.span(), "a second run of this name")?;
            run.get_ref().expand(&source, &file, &mut cells)?;
        }
        Ok(Self {
            name: file.name,
            seed: file.seed,
            pair: file.pair.into_inner(),
            boards_dir: file.boards_dir,
            channels_dir: file.channels_dir,
            prompts: file.prompts.into_inner(),
            tokens_max: file.tokens_max.into_inner(),
            server: file.server,
            modelled: file.modelled,
            cells,
        })
    }
}

impl Run {
    /// Cells by temperature, then policy, then board and channel.
    fn expand(&self, source: &PlanText<'_>, file: &PlanFile, cells: &mut Vec<Cell>) -> Result<()> {
        source.filled(&self.boards)?;
        source.filled(&self.temperatures)?;
        source.filled(&self.policy)?;
        let watts = file.server.watts.is_none_or(|watts| watts.is_finite() && watts >= 0.0);
        source.ensure(watts, self.name.span(), "server.watts: expected a number of at least 0")?;
        let numbers = self.pass_ms.iter().chain(&self.sessions);
        let good = numbers.clone().all(|number| number.is_finite() && *number > 0.0);
        source.ensure(good, self.name.span(), "pass_ms and sessions: expected numbers above 0")?;
        let good = self.acceptance.iter().all(|probability| (0.0..=1.0).contains(probability));
        source.ensure(good, self.name.span(), "acceptance: expected numbers within 0 and 1")?;
        source.ensure(*self.seeds.get_ref() > 0, self.seeds.span(), "0 is not a number above 0")?;
        let (run, seeds) = (self.name.get_ref().clone(), *self.seeds.get_ref());
        let places = self.places(source, file)?;
        let settings = self.settings(source)?;
        for temperature in self.temperatures.get_ref() {
            let (span, temperature) = (temperature.span(), *temperature.get_ref());
            Sampling::new(temperature as f32, 1.0, 0).map_err(|error| source.wrong(span, error))?;
            let cell = |writer, tokens, Condition { size, server, objective, acceptance }| Cell {
                run: run.clone(),
                writer,
                temperature,
                seeds,
                tokens,
                size,
                server,
                objective,
                costs_only: self.costs_only,
                acceptance,
                learned: self.learned,
            };
            let conditions = self.conditions(file.server);
            for setting in &settings {
                for (i, (board, channel)) in places.iter().enumerate() {
                    for condition in &conditions {
                        let writer =
                            Writer::Policy(Box::new(setting.clone()), Arc::clone(board), Arc::clone(channel));
                        cells.push(cell(writer, run == MAIN && i == 0 && setting.is_default(), *condition));
                    }
                }
            }
            if run == MAIN {
                cells.push(cell(Writer::TargetAgain, false, conditions[0]));
            }
        }
        Ok(())
    }

    /// Every drafter, server, objective and acceptance of this run.
    fn conditions(&self, server: Server) -> Vec<Condition> {
        let or = |values: &[f64], own: f64| if values.is_empty() { vec![own] } else { values.to_vec() };
        let objectives = if self.objectives.is_empty() { &[Objective::Joules][..] } else { &self.objectives };
        let mut conditions = Vec::new();
        for size in each(&self.drafters, self.modelled) {
            for pass_ms in or(&self.pass_ms, server.pass_us / 1e3) {
                for sessions in or(&self.sessions, server.sessions) {
                    let server = Server { pass_us: pass_ms * 1e3, sessions, ..server };
                    for &objective in objectives {
                        let with = |acceptance| Condition { size, server, objective, acceptance };
                        conditions.extend(each(&self.acceptance, None).into_iter().map(with));
                    }
                }
            }
        }
        conditions
    }

    fn settings(&self, source: &PlanText<'_>) -> Result<Vec<Setting>> {
        let (mut settings, mut labels) = (Vec::new(), BTreeSet::new());
        for row in self.policy.get_ref() {
            for setting in
                row.get_ref().expand().map_err(|error| source.wrong(row.span(), format!("{error:#}")))?
            {
                let new = labels.insert(setting.label.clone());
                source.ensure(new, row.span(), format!("a second policy labelled {:?}", setting.label))?;
                settings.push(setting);
            }
        }
        Ok(settings)
    }

    fn boards(&self, source: &PlanText<'_>, file: &PlanFile) -> Result<Vec<Arc<ModelledBoard>>> {
        let load = |called: &Spanned<String>| {
            let path = file.boards_dir.join(format!("{}.toml", called.get_ref()));
            source.ensure(path.exists(), called.span(), format!("{} is missing", path.display()))?;
            let Board { name, drafter, link, modelled, .. } = Board::load(&path)?;
            let Some(modelled) = modelled else { bail!("{}: a board without [modelled]", path.display()) };
            let context_tokens_max = drafter.context_tokens_max;
            Ok(Arc::new(ModelledBoard { name, context_tokens_max, radio: link.radio, modelled }))
        };
        self.boards.get_ref().iter().map(load).collect()
    }

    /// Every board on every channel, or on the channel of its own radio.
    fn places(
        &self,
        source: &PlanText<'_>,
        file: &PlanFile,
    ) -> Result<Vec<(Arc<ModelledBoard>, Arc<ModelledChannel>)>> {
        let boards = self.boards(source, file)?;
        let mut places = Vec::new();
        let Some(names) = &self.channels else {
            for board in boards {
                let span = self.boards.span();
                let nothing = || format!("{} has no link.radio, and this run names no channels", board.name);
                let radio = board.radio.ok_or_else(|| source.wrong(span.clone(), nothing()))?;
                let own = channel(source, file, radio.name(), span)?;
                let channels = self.swept(source, vec![own])?;
                places.extend(channels.into_iter().map(|channel| (Arc::clone(&board), channel)));
            }
            return Ok(places);
        };
        source.filled(names)?;
        let load = |name: &Spanned<String>| channel(source, file, name.get_ref(), name.span());
        let channels = names.get_ref().iter().map(load).collect::<Result<Vec<_>>>()?;
        let channels = self.swept(source, channels)?;
        for board in boards {
            places.extend(channels.iter().map(|channel| (Arc::clone(&board), Arc::clone(channel))));
        }
        Ok(places)
    }

    /// Every channel with every value that this run substitutes.
    fn swept(
        &self,
        source: &PlanText<'_>,
        mut channels: Vec<ModelledChannel>,
    ) -> Result<Vec<Arc<ModelledChannel>>> {
        if let Some(snr) = &self.snr_db {
            let radio = channels.iter().all(|channel| channel.snr_db.is_some());
            source.ensure(radio, snr.span(), "a channel of this run is no radio")?;
            let good = !snr.get_ref().is_empty() && snr.get_ref().iter().all(|snr| snr.is_finite());
            source.ensure(good, snr.span(), "expected finite numbers, at least one")?;
            channels = swept(&channels, snr.get_ref(), |channel, snr| channel.snr_db = Some(snr));
        }
        if let Some(rtt) = &self.rtt_ms {
            let good =
                !rtt.get_ref().is_empty() && rtt.get_ref().iter().all(|rtt| rtt.is_finite() && *rtt >= 0.0);
            source.ensure(good, rtt.span(), "expected numbers of at least 0, at least one")?;
            channels = swept(&channels, rtt.get_ref(), |channel, rtt| channel.rtt_ms = rtt);
        }
        Ok(channels.into_iter().map(Arc::new).collect())
    }
}

/// Loads a channel by name.
fn channel(
    source: &PlanText<'_>,
    file: &PlanFile,
    name: &str,
    place: Range<usize>,
) -> Result<ModelledChannel> {
    let path = file.channels_dir.join(format!("{name}.toml"));
    source.ensure(path.exists(), place.clone(), format!("{} is missing", path.display()))?;
    let channel = ModelledChannel::load(&path)?;
    let own = &channel.name;
    source.ensure(own == name, place, format!("{} calls itself {own}", path.display()))?;
    Ok(channel)
}

fn swept(
    channels: &[ModelledChannel],
    values: &[f64],
    set: impl Fn(&mut ModelledChannel, f64),
) -> Vec<ModelledChannel> {
    let each = channels.iter().flat_map(|channel| values.iter().map(move |value| (channel.clone(), *value)));
    each.map(|(mut channel, value)| {
        set(&mut channel, value);
        channel
    })
    .collect()
}

impl PlanText<'_> {
    fn wrong(&self, span: Range<usize>, what: impl Display) -> anyhow::Error {
        wrong(self.path, &self.text, Some(span), what)
    }

    fn ensure(&self, good: bool, span: Range<usize>, what: impl Display) -> Result<()> {
        if good { Ok(()) } else { Err(self.wrong(span, what)) }
    }

    fn filled<T>(&self, list: &Spanned<Vec<T>>) -> Result<()> {
        self.ensure(!list.get_ref().is_empty(), list.span(), "an empty list")
    }
}

impl Size {
    /// The size of a drafter whose weights have `bytes` bytes.
    pub fn of_bytes(bytes: u64) -> Self {
        Self { drafter_parameters: bytes as f64 * 8.0 / WEIGHT_BITS, drafter_bits: WEIGHT_BITS }
    }
}

/// Reads the first `count` held-out prompts of a pair.
///
/// # Errors
/// The file is missing, is not `{"prompts": [...]}`, or holds fewer.
pub fn prompts(pair: &Path, count: usize) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct PromptsFile {
        prompts: Vec<String>,
    }
    let path = pair.join("prompts.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut file: PromptsFile = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let held = file.prompts.len();
    ensure!(held >= count, "{} holds {held} prompts, the plan wants {count}", path.display());
    file.prompts.truncate(count);
    Ok(file.prompts)
}

fn boards_dir() -> PathBuf {
    "boards".into()
}

fn channels_dir() -> PathBuf {
    "crates/evaluate/channels".into()
}

fn weight_bits() -> f64 {
    WEIGHT_BITS
}

/// Each value of a run in turn, or its own if it has no list.
fn each<T: Copy>(values: &[T], own: Option<T>) -> Vec<Option<T>> {
    if values.is_empty() { vec![own] } else { values.iter().copied().map(Some).collect() }
}

fn alone() -> f64 {
    1.0
}

fn one() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan with the boards and channels of this repository and a model pair of empty files.
    const PLAN: &str = r#"name = "p"
seed = 1
pair = "PAIR"
boards_dir = "ROOT/boards"
channels_dir = "ROOT/crates/evaluate/channels"
prompts = 2
tokens_max = 8
server = { pass_us = 10, token_us = 1 }
[[run]]
name = "main"
boards = ["rpi4", "rpi5"]
channels = ["wifi", "lte-m"]
temperatures = [0.0, 0.8]
[[run.policy]]
name = "lossless"
draft_tokens_max = [4, 16]
[[run]]
name = "snr"
boards = ["rpi4"]
channels = ["wifi", "lte-m"]
temperatures = [0.5]
seeds = 2
snr_db = [0, 10]
rtt_ms = [5, 50, 500]
policy = [{ name = "lossless" }]
"#;

    /// Reads a plan whose text names `PAIR` and `ROOT`.
    pub(crate) fn load(text: &str) -> Result<EvaluationPlan> {
        let dir = tempfile::tempdir().unwrap();
        for part in ["pair/drafter", "pair/target"] {
            std::fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        std::fs::write(dir.path().join("pair/prompts.json"), "{}").unwrap();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let pair = dir.path().join("pair").display().to_string();
        let path = dir.path().join("p.toml");
        std::fs::write(&path, text.replace("PAIR", &pair).replace("ROOT", root)).unwrap();
        EvaluationPlan::load(&path)
    }

    #[test]
    fn a_plan_is_every_combination() {
        let plan = load(PLAN).unwrap();
        let main: Vec<&Cell> = plan.cells.iter().filter(|cell| cell.run == MAIN).collect();
        // 2 temperatures, each with 2 settings on 2 boards and 2 channels, and the target-only baseline.
        assert_eq!(main.len(), 2 * (2 * 2 * 2 + 1));
        let default = |cell: &&&Cell| cell.tokens;
        assert_eq!(main.iter().filter(default).count(), 2, "one of each temperature");
        assert_eq!(main.iter().filter(|cell| matches!(cell.writer, Writer::TargetAgain)).count(), 2);
        let swept: Vec<_> = plan.cells.iter().filter(|cell| cell.run == "snr").collect();
        assert_eq!(swept.len(), 2 * 2 * 3);
        let places: Vec<(String, f64, f64)> = swept
            .iter()
            .filter_map(|cell| match &cell.writer {
                Writer::Policy(_, _, channel) => {
                    Some((channel.name.clone(), channel.snr_db?, channel.rtt_ms))
                }
                Writer::TargetAgain => None,
            })
            .collect();
        assert_eq!(places[0], ("wifi".into(), 0.0, 5.0));
        assert_eq!(places[11], ("lte-m".into(), 10.0, 500.0));
        assert!(swept.iter().all(|cell| cell.seeds == 2 && !cell.tokens));
    }

    #[test]
    fn a_run_without_channels_takes_each_boards_radio() {
        let none = "boards = [\"rpi4\", \"jetson-orin-nano\"]\ntemperatures = [0.5]\nseeds = 2\n\
            rtt_ms = [5, 50]\npolicy = [{ name = \"lossless\" }]\n";
        let (head, _) = PLAN.split_once("[[run]]\nname = \"snr\"\n").unwrap();
        let plan = load(&format!("{head}[[run]]\nname = \"own\"\n{none}")).unwrap();
        let places: Vec<(String, String, f64)> = plan
            .cells
            .iter()
            .filter(|cell| cell.run == "own")
            .filter_map(|cell| match &cell.writer {
                Writer::Policy(_, board, channel) => {
                    Some((board.name.clone(), channel.name.clone(), channel.rtt_ms))
                }
                Writer::TargetAgain => None,
            })
            .collect();
        let place = |board: &str, channel: &str, rtt| (board.to_owned(), channel.to_owned(), rtt);
        assert_eq!(
            places,
            [
                place("rpi4", "wifi", 5.0),
                place("rpi4", "wifi", 50.0),
                place("jetson-orin-nano", "ethernet", 5.0),
                place("jetson-orin-nano", "ethernet", 50.0)
            ]
        );
    }

    #[test]
    fn every_radio_is_a_channel() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("channels");
        for radio in Radio::ALL {
            let channel = ModelledChannel::load(&dir.join(format!("{}.toml", radio.name()))).unwrap();
            assert_eq!(channel.name, radio.name());
        }
    }

    #[test]
    fn a_board_without_a_radio_needs_channels() {
        let dir = tempfile::tempdir().unwrap();
        let board = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards/rpi4.toml"));
        std::fs::write(dir.path().join("rpi4.toml"), board.unwrap().replace("radio = \"wifi\"\n", ""))
            .unwrap();
        let (head, _) = PLAN.split_once("[[run]]").unwrap();
        let head = head.replace("ROOT/boards", &dir.path().display().to_string());
        let run = "[[run]]\nname = \"own\"\nboards = [\"rpi4\"]\ntemperatures = [0.5]\npolicy = [{ name = \"lossless\" }]\n";
        let error = load(&format!("{head}{run}")).unwrap_err().to_string();
        assert!(
            error.contains("p.toml:11: rpi4 has no link.radio, and this run names no channels (boards"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        let cases = [
            ("name = \"lossless\"\ndraft", "name = \"losless\"\ndraft", "p.toml:14: name: unknown policy"),
            ("draft_tokens_max = [4, 16]", "draft_tokens_max = [4, 17]", "p.toml:14: draft_tokens_max"),
            (
                "draft_tokens_max = [4, 16]",
                "draft_tokens_max = [4, 4]",
                "p.toml:14: a second policy labelled",
            ),
            ("draft_tokens_max", "drafts", "p.toml:14: drafts: unknown field `drafts`"),
            ("seed = 1", "sed = 1", "p.toml:2: unknown field `sed`"),
            ("pair = \"PAIR\"", "pair = \"nowhere\"", "p.toml:3: nowhere/drafter is missing"),
            ("prompts = 2", "prompts = 0", "p.toml:6: 0 is not a number above 0 (prompts = 0)"),
            ("tokens_max = 8", "tokens_max = 0", "p.toml:7: 0 is not a number above 0 (tokens_max = 0)"),
            ("pass_us = 10", "pass_us = -10", "p.toml:8: -10 is not a number of at least 0 (server"),
            (
                "[\"rpi4\", \"rpi5\"]",
                "[\"rpi4\", \"rpi9\"]",
                "p.toml:11: ROOT/boards/rpi9.toml is missing (boards",
            ),
            ("[\"rpi4\", \"rpi5\"]", "[\"host\"]", "boards/host.toml: a board without [modelled]"),
            ("[\"rpi4\", \"rpi5\"]", "[]", "p.toml:11: an empty list (boards = [])"),
            (
                "channels = [\"wifi\", \"lte-m\"]\ntemperatures = [0.0",
                "channels = [\"wire\"]\ntemperatures = [0.0",
                "channels/wire.toml is missing (channels",
            ),
            ("temperatures = [0.0, 0.8]", "temperatures = []", "p.toml:13: an empty list"),
            ("temperatures = [0.0, 0.8]", "temperatures = [-0.1]", "p.toml:13: temperature"),
            ("temperatures = [0.0, 0.8]", "temperatures = [nan]", "p.toml:13: temperature"),
            ("seeds = 2", "seeds = 0", "p.toml:22: 0 is not a number above 0 (seeds = 0)"),
            ("snr_db = [0, 10]", "snr_db = []", "p.toml:23: expected finite numbers"),
            ("snr_db = [0, 10]", "snr_db = [inf]", "p.toml:23: expected finite numbers"),
            ("rtt_ms = [5, 50, 500]", "rtt_ms = [-5]", "p.toml:24: expected numbers of at least 0"),
            (
                "[\"wifi\", \"lte-m\"]\ntemperatures = [0.5]",
                "[\"ethernet\"]\ntemperatures = [0.5]",
                "p.toml:23: a channel of this run is no radio",
            ),
            ("policy = [{ name = \"lossless\" }]", "policy = []", "p.toml:25: an empty list"),
            ("name = \"snr\"", "name = \"main\"", "p.toml:18: a second run of this name"),
        ];
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        for (from, to, expected) in cases {
            assert!(PLAN.contains(from), "{from}");
            let error = format!("{:#}", load(&PLAN.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(&expected.replace("ROOT", root)), "{to}: {error}");
        }
        let none = PLAN.split("[[run]]").next().unwrap();
        assert!(
            load(&format!("{none}run = []\n")).unwrap_err().to_string().contains("p.toml:9: an empty list")
        );
    }

    #[test]
    fn more_prompts_than_there_are_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prompts.json"), r#"{"about": "x", "prompts": ["a", "b"]}"#).unwrap();
        assert_eq!(prompts(dir.path(), 1).unwrap(), ["a"]);
        assert!(
            prompts(dir.path(), 3).unwrap_err().to_string().contains("holds 2 prompts, the plan wants 3")
        );
    }
}
