//! `calibrate`: sends held-out prompts through broker and verifier, and measures how well the pair agrees.
//!
//! Invariant: the drafts are judged under the lossless policy, whatever the configuration names, so that every
//! verdict is the target's own.

mod chart;
mod files;
mod gather;
mod progress;
mod prompts;
mod record;
mod table;

use crate::config::Settings;
use crate::exit::{DONE, FAILED, INTERRUPTED};
use crate::flags::{Common, PolicyFlags, TextFlags, positive, seconds};
use crate::generate::exit_code;
use crate::run::{Control, Say, User};
use crate::screen::{Abilities, Colour};
use crate::setup::{self, Conduct, Parts};
use crate::terminal::abilities;
use crate::{check, report};
use anyhow::{Context, Result};
use dunlin_hlm::device::{Offline, ReplyLimits};
use dunlin_hlm::fit::Fit;
use dunlin_hlm::policy::{Policy, PolicyTable, Rules};
use dunlin_hlm::probabilities::Sampling;
use dunlin_lm::ModelDir;
use dunlin_wire::Vocabulary;
use gather::{Gathered, Gatherer, Stopped};
use progress::CalibrationProgress;
use record::CalibrationRecord;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// With fewer judged tokens than this, the shares are too uncertain to use.
const TOKENS_FEW: usize = 200;

/// Flags of `calibrate`.
#[derive(Debug, clap::Args)]
pub struct CalibrateFlags {
    /// The prompts, held out from training: one per line, or a JSON object with a list `prompts`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Directory of calibration.json and calibration.svg; earlier files are replaced.
    #[arg(long, value_name = "DIR", default_value = "calibration")]
    out: PathBuf,
    /// Stop after this many judged tokens.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = positive)]
    tokens: usize,
    /// Allowed share of misses among the trusted tokens, 0 to 1, for which a threshold is proposed; can be repeated.
    #[arg(long = "miss-rate", value_name = "R", default_values_t = [0.01, 0.05, 0.1], value_parser = miss_rate)]
    miss_rates: Vec<f64>,
    /// After this much silence, give up and write the results so far.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    text: TextFlags,
    #[command(flatten)]
    common: Common,
}

impl CalibrateFlags {
    /// The settings and the sampling.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub(crate) fn checked(&self) -> Result<(Settings, Sampling)> {
        Ok((judging(self.common.settings(&PolicyFlags::default())?)?, self.text.sampling()?))
    }

    fn conduct(&self) -> Conduct {
        let (seed, give_up_after) = (self.text.seed, self.timeout);
        let (offline, ends_on_refusal, accept_model_change) = (Offline::Wait, true, false);
        Conduct { seed, offline, give_up_after, ends_on_refusal, accept_model_change }
    }
}

/// The settings with the plain lossless policy; only the forms of both scores are kept from the configuration.
fn judging(settings: Settings) -> Result<Settings> {
    let table = PolicyTable {
        uncertainty_form: Some(settings.rules.uncertainty_form()),
        importance_form: Some(settings.rules.importance_form()),
        ..Policy::Lossless.table()
    };
    Ok(Settings { policy: table.policy(), rules: Rules::new(&table)?, ..settings })
}

/// Measures a pair and writes the results; returns the exit code.
///
/// # Errors
/// The prompts can't be read, the model can't be loaded, or the files can't be written.
pub async fn calibrate(args: &CalibrateFlags, settings: &Settings, sampling: Sampling) -> Result<u8> {
    let prompts = prompts::read(&args.prompts)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let parts = Parts::unmetered(settings)?;
    let model = parts.model.clone();
    let says = says(args, &model, &prompts)?;
    let loaded = parts.load().await?;
    let vocabulary = loaded.vocabulary;
    let models = check::models(settings, &vocabulary).await?;
    let agent = loaded.agent(&args.conduct(), sampling)?.reseeding();
    let errors = abilities(args.common.color, &io::stderr());
    let heard = Arc::new(Notify::new());
    let progress = CalibrationProgress::new(args.tokens, says.len(), errors)?;
    let mut out = Gatherer::new(args.tokens, says.len(), progress, Arc::clone(&heard));
    // Until the files are written: a first interrupt that nobody hears ends the process.
    let mut user = user(says, args.timeout, heard)?;
    agent.run(&mut user, &mut out).await?;
    let gathered = out.into_gathered();
    let code = ended(&gathered, &vocabulary, errors);
    let Some(fit) = Fit::new(gathered.samples.iter().copied()) else {
        report::line(errors, Colour::Red, "dunlin-agent: no verdict was received, so nothing is written");
        return Ok(if code == DONE { FAILED } else { code });
    };
    let target = gathered.verifier.as_ref().and_then(|verifier| models.get(verifier));
    let record = CalibrationRecord::new(args, &model, target, sampling, settings, &gathered, &fit);
    publish(args, &record)?;
    if fit.count() < TOKENS_FEW {
        let text = format!(
            "only {} tokens were judged: below {TOKENS_FEW} the thresholds are a guess; give more prompts or a larger --max-tokens",
            fit.count()
        );
        report::line(errors, Colour::Yellow, &text);
    }
    Ok(code)
}

/// Every prompt in a session of its own.
fn says(args: &CalibrateFlags, model: &ModelDir, prompts: &[prompts::Prompt]) -> Result<Vec<Say>> {
    let say = |prompt: &prompts::Prompt| {
        let tokens = model.first_turn(&prompt.text);
        let tokens = tokens.with_context(|| format!("{}: {}", args.prompts.display(), prompt.place))?;
        let reply = ReplyLimits { tokens_max: args.text.max_tokens, stop: model.prompt.stop.clone() };
        Ok(Say { tokens, first: None, reply, new_session: true })
    };
    prompts.iter().map(say).collect()
}

/// A user who gives one prompt after the other, can interrupt, and gives up after a silence of `timeout`.
fn user(says: Vec<Say>, timeout: Duration, heard: Arc<Notify>) -> Result<User> {
    let (prompt, prompts) = mpsc::channel(1);
    let (user, control) = setup::user(prompts, Control::Quit)?;
    tokio::spawn(async move {
        for say in says {
            if prompt.send(say).await.is_err() {
                return; // the agent has ended
            }
        }
    });
    tokio::spawn(async move {
        while tokio::time::timeout(timeout, heard.notified()).await.is_ok() {}
        // Ignore the error: an agent that has ended needs no reminder.
        let _ = control.try_send(Control::TimedOut);
    });
    Ok(user)
}

/// Prints why the calibration ended early, if it did; returns the exit code.
fn ended(gathered: &Gathered, own: &Vocabulary, errors: Abilities) -> u8 {
    match &gathered.stopped {
        Stopped::Enough | Stopped::OutOfPrompts => DONE,
        Stopped::Interrupted => INTERRUPTED,
        Stopped::Failed(ending) => {
            if let Some(problem) = ending.problem(own) {
                report::line(errors, Colour::Red, &format!("dunlin-agent: {problem}"));
            }
            exit_code(ending)
        }
    }
}

/// Writes both files and the table.
fn publish(args: &CalibrateFlags, record: &CalibrationRecord) -> Result<()> {
    let json = args.out.join("calibration.json");
    files::replace(&json, &(serde_json::to_string_pretty(record)? + "\n"))?;
    let svg = args.out.join("calibration.svg");
    files::replace(&svg, &chart::draw(record)?)?;
    let stdout = io::stdout();
    let mut lines = table::lines(record, abilities(args.common.color, &stdout));
    lines.extend([&json, &svg].map(|path| format!("written: {}", path.display())));
    lines.extend(table::advice(record));
    files::say(&mut stdout.lock(), &lines)
}

/// Parses a share of misses, 0 to 1.
fn miss_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "expected a share between 0 and 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use dunlin_hlm::policy::ImportanceForm;
    use dunlin_hlm::uncertainty::Form;

    #[test]
    fn drafts_are_judged_under_the_plain_lossless_policy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let policy = "draft_tokens_max = 3\nuncertainty_max = 0.1\nuncertainty_form = \"one-minus-q\"\n\
                      importance_form = \"received\"\n";
        std::fs::write(&path, format!("device = \"a\"\n[policy]\n{policy}")).unwrap();
        let settings = judging(Settings::load(Some(&path), &Overrides::default()).unwrap()).unwrap();
        let plain = PolicyTable {
            uncertainty_form: Some(Form::OneMinusQ),
            importance_form: Some(ImportanceForm::Received),
            ..PolicyTable::default()
        };
        assert_eq!(settings.rules, Rules::new(&plain).unwrap());
        assert_eq!(settings.policy, Policy::Lossless);
    }

    #[test]
    fn a_miss_rate_is_a_share() {
        assert_eq!((miss_rate("0"), miss_rate("0.05"), miss_rate("1")), (Ok(0.0), Ok(0.05), Ok(1.0)));
        for wrong in ["-0.1", "1.1", "NaN", "5%", ""] {
            assert!(miss_rate(wrong).is_err(), "{wrong}");
        }
    }
}
