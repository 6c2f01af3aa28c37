//! From settings to a running agent: model, drafter's thread, link, session.

use crate::config::Settings;
use crate::drafter::Worker;
use crate::link::Link;
use crate::run::{Agent, Seat};
use anyhow::Result;
use dunlin_hlm::device::{DeviceConfig, Offline};
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::time::Duration;
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use dunlin_power::Energy;
use dunlin_wire::Vocabulary;
use tracing::warn;

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

/// An agent that connects, with a first session.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn agent(
    settings: &Settings,
    conduct: &Conduct,
    sampling: Sampling,
    worker: Worker,
    energy: Energy,
) -> Result<Agent> {
    let drafter = worker.described();
    let give_up_after = u64::try_from(conduct.give_up_after.as_micros()).unwrap_or(u64::MAX);
    let device = DeviceConfig {
        vocabulary: on_wire(&drafter.vocabulary),
        policy: settings.rules,
        offline: conduct.offline,
        give_up_after: Duration(give_up_after),
        context_tokens_max: settings.context_tokens_max(drafter.context_max),
    };
    let Conduct { seed, ends_on_refusal, .. } = *conduct;
    let seat = Seat { device, sampling, seed, ends_on_refusal };
    Ok(Agent::new(seat, worker, Link::start(settings.link()))?.metered(energy))
}

/// A model's vocabulary as the protocol names it.
pub(crate) fn on_wire(vocabulary: &dunlin_lm::Vocabulary) -> Vocabulary {
    Vocabulary { size: vocabulary.size, fingerprint: vocabulary.fingerprint }
}
