//! From settings to a running agent, in two steps: [`Parts`] are model and meter, [`Loaded`] has a drafter too.

use crate::config::Settings;
use crate::drafter::Worker;
use crate::link::Link;
use crate::run::{Agent, Control, Say, Seat, User};
use crate::{random, signals};
use anyhow::Result;
use dunlin_hlm::device::{DeviceConfig, Offline};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::Duration;
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use dunlin_power::Energy;
use dunlin_power::phase::EnergyPhase;
use dunlin_wire::Vocabulary;
use tokio::sync::mpsc;
use tracing::warn;

/// Controls that wait for the loop: a signal, that time is up, and two of what comes without limit, which are requests
/// for the status and clients that are gone.
const CONTROLS_MAX: usize = 4;

/// How the sessions of an agent are held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conduct {
    /// Every session's seed; random where it is left out.
    pub(crate) seed: Option<u64>,
    /// What to do when nobody answers.
    pub(crate) offline: Offline,
    /// Silence after which nobody answers.
    pub(crate) give_up_after: std::time::Duration,
    /// Whether a broker that refuses the device ends the reply.
    pub(crate) ends_on_refusal: bool,
    /// Whether a verifier with another model may go on with a text.
    pub(crate) accept_model_change: bool,
}

/// Loads the drafter of `model` in a thread of its own, where the board has room for it.
///
/// # Errors
/// Names the file that is wrong, or the two that don't go together.
pub(crate) async fn worker(settings: &Settings, model: &ModelDir) -> Result<Worker> {
    settings.memory(&model.weights)?;
    let model = model.clone();
    Worker::start(move || {
        let (drafter, warnings) = Drafter::load(&model)?;
        for warning in &warnings {
            warn!("{warning}");
        }
        let drafter: Box<dyn Draft> = Box::new(drafter);
        Ok(drafter)
    })
    .await
}

/// Model and meter of an agent, before its drafter is loaded.
pub(crate) struct Parts<'a> {
    settings: &'a Settings,
    pub(crate) model: ModelDir,
    pub(crate) energy: Energy,
}

impl<'a> Parts<'a> {
    /// Opens the model's directory and starts the meter that the settings name.
    ///
    /// # Errors
    /// The directory or the power source is wrong.
    pub(crate) fn open(settings: &'a Settings) -> Result<Self> {
        let model = ModelDir::open(settings.model()?)?;
        let energy = Energy::start(&settings.power, random::number()? as u32, EnergyPhase::Load)?;
        Ok(Self { settings, model, energy })
    }

    /// The same without a meter, whatever the settings name.
    ///
    /// # Errors
    /// The directory is wrong.
    pub(crate) fn unmetered(settings: &'a Settings) -> Result<Self> {
        let model = ModelDir::open(settings.model()?)?;
        Ok(Self { settings, model, energy: Energy::unmetered(EnergyPhase::Load) })
    }

    /// Loads the drafter; what that takes is measured.
    ///
    /// # Errors
    /// Names the file that is wrong, or the two that don't go together.
    pub(crate) async fn load(self) -> Result<Loaded<'a>> {
        let Self { settings, model, mut energy } = self;
        let worker = energy.during(worker(settings, &model)).await?;
        let vocabulary = worker.described().vocabulary;
        Ok(Loaded { settings, vocabulary, worker, energy })
    }
}

/// An agent's drafter at work, before there is a link.
pub(crate) struct Loaded<'a> {
    settings: &'a Settings,
    pub(crate) vocabulary: Vocabulary,
    worker: Worker,
    energy: Energy,
}

impl Loaded<'_> {
    /// An agent that connects, with a first session.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn agent(self, conduct: &Conduct, sampling: Sampling) -> Result<Agent> {
        let Self { settings, vocabulary, worker, energy } = self;
        let give_up_after = u64::try_from(conduct.give_up_after.as_micros()).unwrap_or(u64::MAX);
        let device = DeviceConfig {
            vocabulary,
            policy: settings.rules,
            offline: conduct.offline,
            give_up_after: Duration(give_up_after),
            context_tokens_max: settings.context_tokens_max(worker.described().context_max),
            accept_model_change: conduct.accept_model_change,
        };
        let Conduct { seed, ends_on_refusal, .. } = *conduct;
        let seat = Seat { device, sampling, seed, ends_on_refusal };
        Ok(Agent::new(seat, worker, Link::start(settings.link()))?.metered(energy))
    }
}

/// A user whose prompts come from `prompts`; `at_signal` is sent at the first signal, and others by who holds the
/// sender.
///
/// # Errors
/// The system takes no handler of signals.
pub(crate) fn user(
    prompts: mpsc::Receiver<Say>,
    at_signal: Control,
) -> Result<(User, mpsc::Sender<Control>)> {
    let (control, controls) = mpsc::channel(CONTROLS_MAX);
    signals::forward(at_signal, control.clone())?;
    signals::forward_status(control.clone())?;
    Ok((User { prompts, controls }, control))
}
