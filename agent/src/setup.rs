//! Builds a running agent from settings, in two steps: [`Parts`] has model and meter, [`Loaded`] also a drafter.

use crate::config::Settings;
use crate::drafter::{Worker, WorkingDrafter};
use crate::import::loadable;
use crate::link::Link;
use crate::memory::Memory;
use crate::run::{Agent, Control, Say, SessionSettings, User};
use crate::{random, signals};
use anyhow::Result;
use dunlin_hlm::device::{DeviceConfig, DraftJob, DraftJobId, Offline};
use dunlin_hlm::prefixes::Prefixes;
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::Duration;
use dunlin_lm::{Draft, ModelDir, Rows};
use dunlin_lm_tract::Drafter;
use dunlin_power::EnergyAccount;
use dunlin_power::phase::EnergyPhase;
use dunlin_service::LoadingView;
use dunlin_wire::Vocabulary;
use dunlin_wire::limits::SESSION_TOKENS_MAX;
use tokio::sync::mpsc;
use tracing::warn;

/// Controls that wait for the loop: a signal, that time is up, and two of what comes without limit, which are requests
/// for the status and clients that are gone.
const CONTROLS_MAX: usize = 4;

/// Rules under which an agent's sessions run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conduct {
    /// Every session's seed; `None` for random ones.
    pub(crate) seed: Option<u64>,
    /// The behaviour when no verifier answers.
    pub(crate) offline: Offline,
    /// Silence after which `offline` applies.
    pub(crate) give_up_after: std::time::Duration,
    /// True to end the reply if the broker refuses the device.
    pub(crate) ends_on_refusal: bool,
    /// True to let a verifier with another model continue a text.
    pub(crate) accept_model_change: bool,
}

/// The drafter of a policy that drafts nothing.
struct Absent {
    vocabulary: Vocabulary,
    context_max: usize,
}

impl Draft for Absent {
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    fn context_max(&self) -> usize {
        self.context_max
    }

    fn len(&self) -> usize {
        0
    }

    fn truncate(&mut self, _: usize) {}

    fn extend(&mut self, _: &[u32]) -> dunlin_lm::Result<Rows> {
        Err(dunlin_lm::Error::NoDrafter)
    }
}

/// The model's directory. A policy that drafts nothing needs a tokenizer alone.
///
/// # Errors
/// The directory is invalid.
pub(crate) fn model_of(settings: &Settings) -> Result<ModelDir> {
    let path = settings.model()?;
    let model = match settings.rules.drafts() {
        true => ModelDir::open(loadable(path)?)?,
        false => ModelDir::open_tokenizer(path)?,
    };
    let model = model.with_system(settings.system.clone())?;
    if model.prompt.stop.is_empty() {
        warn!("{}: no token that ends a text is known, so a reply ends at its length", path.display());
    }
    Ok(model)
}

/// Loads the drafter of `model` in a thread, if the board has enough memory.
///
/// # Errors
/// Names the file that is wrong, or two files that don't match.
pub(crate) async fn worker(settings: &Settings, model: &ModelDir) -> Result<Worker> {
    if !settings.rules.drafts() {
        // Its context is no limit: only the target reads the text.
        let absent = Absent { vocabulary: model.vocabulary, context_max: SESSION_TOKENS_MAX as usize };
        return Worker::start(move || {
            let drafter: Box<dyn Draft> = Box::new(absent);
            Ok(drafter.into())
        })
        .await;
    }
    settings.memory(&model.weights, model.vocabulary.size)?;
    let model = model.clone();
    let (context_max, head) = (settings.context_tokens_max(model.context_max), model.head_tokens()?);
    Worker::start(move || {
        let mut view = LoadingView::new("drafter");
        let mut progress = |done, total| view.show("packing weights", done, total);
        let (drafter, warnings) = Drafter::load_with(&model, &mut progress)?;
        drop(view);
        for warning in &warnings {
            warn!("{warning}");
        }
        let drafter: Box<dyn Draft> = Box::new(drafter);
        Ok(WorkingDrafter { drafter, context_max, head })
    })
    .await
}

/// Distinguishes drafters well enough: what is learned with one is a poor start for another, but no mistake.
fn drafter_name(model: &ModelDir) -> String {
    let bytes = model.weights.metadata().map_or(0, |weights| weights.len());
    format!("{} of {bytes} bytes", model.name)
}

/// The time of one drafted token behind a prompt.
///
/// # Errors
/// The drafter failed.
pub(crate) async fn time_of_a_token(worker: &mut Worker, model: &ModelDir) -> Result<Duration> {
    let tokens = model.first_turn("Hello")?;
    step(worker, 0, tokens.clone()).await?;
    // The first run behind a prompt may still set something up, so the second counts.
    step(worker, tokens.len(), tokens[..1].to_vec()).await?;
    step(worker, tokens.len() + 1, tokens[..1].to_vec()).await
}

async fn step(worker: &mut Worker, keep: usize, tokens: Vec<u32>) -> Result<Duration> {
    worker.run(0, DraftJob { id: DraftJobId(0), keep, tokens });
    let done = worker.next().await?;
    done.last_row()?;
    Ok(done.took)
}

/// Model and meter of an agent, before its drafter is loaded.
pub(crate) struct Parts<'a> {
    settings: &'a Settings,
    pub(crate) model: ModelDir,
    pub(crate) energy: EnergyAccount,
}

impl<'a> Parts<'a> {
    /// Opens the model's directory and starts the meter that the settings name.
    ///
    /// # Errors
    /// The directory or the power source is invalid.
    pub(crate) fn open(settings: &'a Settings) -> Result<Self> {
        let model = model_of(settings)?;
        let energy = EnergyAccount::start(&settings.power, random::number()? as u32, EnergyPhase::Load)?;
        Ok(Self { settings, model, energy })
    }

    /// Opens the model's directory without a meter, whatever the settings name.
    ///
    /// # Errors
    /// The directory is invalid.
    pub(crate) fn unmetered(settings: &'a Settings) -> Result<Self> {
        let model = ModelDir::open(loadable(settings.model()?)?)?;
        Ok(Self { settings, model, energy: EnergyAccount::unmetered(EnergyPhase::Load) })
    }

    /// Loads the drafter, and measures the energy of loading.
    ///
    /// # Errors
    /// Names the file that is wrong, or two files that don't match.
    pub(crate) async fn load(self) -> Result<Loaded<'a>> {
        let Self { settings, model, mut energy } = self;
        let mut worker = energy.during(worker(settings, &model)).await?;
        let vocabulary = worker.described().vocabulary;
        let draft_time = match settings.rules.auto() {
            true => Some(energy.during(time_of_a_token(&mut worker, &model)).await?),
            false => None,
        };
        let drafter = drafter_name(&model);
        let (prefixes, printable) = (model.prefixes.clone().into(), model.tokenizer.size());
        Ok(Loaded { settings, drafter, vocabulary, prefixes, printable, worker, energy, draft_time })
    }
}

/// An agent's drafter, loaded and running, before there is a link.
pub(crate) struct Loaded<'a> {
    settings: &'a Settings,
    drafter: String,
    pub(crate) vocabulary: Vocabulary,
    prefixes: Prefixes,
    /// Number of ids that the tokenizer knows.
    printable: u32,
    worker: Worker,
    energy: EnergyAccount,
    draft_time: Option<Duration>,
}

impl Loaded<'_> {
    /// An agent that connects, with its first session. It goes on from what was learned before with this drafter.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub(crate) fn agent(self, conduct: &Conduct, sampling: Sampling) -> Result<Agent> {
        let Self { settings, drafter, vocabulary, prefixes, printable, worker, energy, draft_time } = self;
        let give_up_after = u64::try_from(conduct.give_up_after.as_micros()).unwrap_or(u64::MAX);
        let device = DeviceConfig {
            vocabulary,
            prefixes,
            policy: settings.rules,
            offline: conduct.offline,
            give_up_after: Duration(give_up_after),
            // The drafter reads on when its context is full, so only the target's limits a text.
            context_tokens_max: SESSION_TOKENS_MAX as usize,
            accept_model_change: conduct.accept_model_change,
        };
        let Conduct { seed, ends_on_refusal, .. } = *conduct;
        let seat = SessionSettings { device, sampling, seed, ends_on_refusal, draft_time, printable };
        let memory = Memory::open(settings.state.as_deref(), settings.broker.to_string(), drafter);
        Ok(Agent::new(seat, worker, Link::start(settings.link()))?.metered(energy).remembering(memory))
    }
}

/// A user whose prompts come from `prompts`. `at_signal` is sent at the first signal; the holder of the returned
/// sender can send other controls.
///
/// # Errors
/// The signal handlers can't be installed.
pub(crate) fn user(
    prompts: mpsc::Receiver<Say>,
    at_signal: Control,
) -> Result<(User, mpsc::Sender<Control>)> {
    let (control, controls) = mpsc::channel(CONTROLS_MAX);
    signals::forward(at_signal, control.clone())?;
    signals::forward_status(control.clone())?;
    Ok((User { prompts, controls }, control))
}
