//! One cell: plays every prompt under one setting and sums the results to a record.
//!
//! Invariant: a cell depends only on its plan and the models. What a device learned is carried from reply to reply
//! within the cell and never beyond.

use super::channel::{ModelledChannel, ModelledLink};
use super::clock::{ModelledClock, ModelledEnergy, prices};
use super::dice::mix;
use super::law;
use super::metrics::{rouge_l, slot_counts};
use super::pair::Pair;
use super::plan::{Cell, EvaluationPlan, ModelledBoard, Objective, Size, Writer};
use super::record::{CellRecord, TokenRecord};
use super::setting::Setting;
use anyhow::{Context, Result, ensure};
use dunlin_hlm::TokenId;
use dunlin_hlm::device::{
    Device, DeviceConfig, Finish, Learned, Offline, Origin, ReplyLimits, SessionIdentity,
};
use dunlin_hlm::prefixes::Prefixes;
use dunlin_hlm::probabilities::Sampling;
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::Duration;
use dunlin_hlm::verifier::{Verifier, VerifierConfig};
use dunlin_lm::{ModelDir, Tokenizer, Vocabulary, bert_score};
use dunlin_lm_tract::Encoder;
use dunlin_sim::mqtt::MessageKind;
use dunlin_sim::quiet::{SessionOutcome, play};
use dunlin_sim::settings::{PATIENCE, verifier_config};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The board and the channel in a baseline's record.
const NOWHERE: &str = "none";
/// Sets the seeds of replies that don't count apart from all that do.
const LEARNING: u64 = u64::MAX;
/// The baseline's name.
const TARGET_AGAIN: &str = "target-again";

/// Inputs shared by all cells.
pub struct EvaluationContext<'a> {
    /// The plan.
    pub plan: &'a EvaluationPlan,
    /// The tokenizer of both models.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The drafter's tokens.
    pub drafter: KnownTokens,
    /// The target's tokens.
    pub target: KnownTokens,
    /// The prompts as tokens, in the prompt template.
    pub prompts: Vec<Vec<TokenId>>,
    /// Tokens that end a reply.
    pub stop: Vec<TokenId>,
    /// The modelled drafter.
    pub size: Size,
    /// The target's own replies requested so far.
    pub references: References,
    /// The encoder for BERTScore, if any.
    pub encoder: Option<Mutex<Encoder>>,
}

/// The tokens of a model, to be compared with another's.
#[derive(Clone, Debug)]
pub struct KnownTokens {
    /// All of them.
    pub vocabulary: Vocabulary,
    /// Fingerprints of their beginnings; empty, only equal vocabularies fit.
    pub prefixes: Prefixes,
}

/// The target's own replies.
#[derive(Debug, Default)]
pub struct References(Mutex<BTreeMap<(u64, u32), Arc<Reference>>>);

/// A reply of the target alone.
#[derive(Debug)]
pub struct Reference {
    tokens: Vec<TokenId>,
    text: String,
}

/// The results of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlayedCell {
    /// Its line in the results.
    pub record: CellRecord,
    /// The result of each token, if the plan requests it.
    pub tokens: Vec<TokenRecord>,
}

/// A cell whose prompts are answered one after the other.
pub struct CellRun<'a> {
    cell: &'a Cell,
    played: PlayedCell,
    sums: CellSums,
    learned: Learned,
}

/// One reply to write.
struct PromptTurn<'a> {
    prompt: &'a [TokenId],
    sampling: Sampling,
    seed: u64,
}

/// Sums, divided to means at the end.
#[derive(Default)]
struct CellSums {
    exact: u64,
    tv: f64,
    kl: f64,
    /// True when only a bound of the deviation is known: the misses.
    bounded: bool,
    nll: f64,
    rouge_l: f64,
    bertscore: Option<f64>,
    slots: (u64, u64),
}

impl KnownTokens {
    /// The tokens of a model's directory.
    pub fn of(model: &ModelDir) -> Self {
        Self { vocabulary: model.vocabulary, prefixes: model.prefixes.clone().into() }
    }
}

impl From<Vocabulary> for KnownTokens {
    /// A vocabulary that fits itself alone.
    fn from(vocabulary: Vocabulary) -> Self {
        Self { vocabulary, prefixes: Prefixes::default() }
    }
}

impl EvaluationContext<'_> {
    /// Plays a cell.
    ///
    /// # Errors
    /// A model fails, or a reply ends for another reason than its length or a stop token.
    pub fn play(&self, pair: &mut Pair<'_>, cell: &Cell) -> Result<PlayedCell> {
        let mut run = self.begin(pair, cell)?;
        for prompt in 0..self.prompts.len() {
            self.answer(pair, &mut run, prompt)?;
        }
        Ok(run.end())
    }

    /// A cell without replies, whose device knows what it knows before the first one.
    ///
    /// # Errors
    /// A model fails in replies that don't count.
    pub fn begin<'c>(&self, pair: &mut Pair<'_>, cell: &'c Cell) -> Result<CellRun<'c>> {
        let mut played = PlayedCell { record: blank(cell), tokens: Vec::new() };
        played.record.drafter_parameters = cell.size.unwrap_or(self.size).drafter_parameters;
        let mut learned = Learned::default();
        self.warm_up(cell, &mut learned);
        if cell.learned {
            self.learn(pair, cell, &mut learned)?;
        }
        Ok(CellRun { cell, played, sums: CellSums::default(), learned })
    }

    /// Answers a prompt, given by its index, with each of the cell's seeds.
    ///
    /// # Errors
    /// As [`Self::play`].
    pub fn answer(&self, pair: &mut Pair<'_>, run: &mut CellRun<'_>, prompt: usize) -> Result<()> {
        let CellRun { cell, played: done, sums, learned } = run;
        let index = prompt as u64;
        let prompt = self.prompts[prompt].as_slice();
        for j in 0..u64::from(cell.seeds) {
            let sampling = Sampling::new(cell.temperature as f32, 1.0, 0)?;
            let seed = mix(&[self.plan.seed, index, j]);
            let turn = PromptTurn { prompt, sampling, seed };
            let reply = match &cell.writer {
                Writer::TargetAgain => {
                    self.reference(pair, &PromptTurn { seed: mix(&[seed, 1]), ..turn })?.tokens.clone()
                }
                Writer::Policy(setting, board, channel) => {
                    let size = cell.size.unwrap_or(self.size);
                    let place = (setting.as_ref(), board.as_ref(), channel.as_ref(), size);
                    let (outcome, server_seconds) = self.reply(pair, cell, place, &turn, learned)?;
                    add_costs(&mut done.record, &outcome);
                    done.record.target_seconds += server_seconds;
                    done.record.server_j += server_seconds * cell.server.watts.unwrap_or(0.0);
                    add_energy(&mut done.record, ModelledEnergy::of(&outcome, &board.modelled, channel));
                    if cell.tokens {
                        done.tokens.extend(fates(&outcome, prompt.len(), cell.temperature));
                    }
                    outcome.commits.iter().map(|commit| commit.token).collect()
                }
            };
            done.record.replies += 1;
            done.record.committed += reply.len() as u64;
            if !cell.costs_only {
                self.compare(pair, cell, &turn, &reply, sums)?;
            }
        }
        Ok(())
    }

    /// An agent runs its drafter once when it has loaded it, so it knows the time of a token before the first reply.
    fn warm_up(&self, cell: &Cell, learned: &mut Learned) {
        if let Writer::Policy(_, board, _) = &cell.writer {
            let Size { drafter_parameters, drafter_bits } = cell.size.unwrap_or(self.size);
            let us = board.modelled.draft_us(drafter_parameters, drafter_bits, 1);
            learned.stop.start_at(Duration(us.round() as u64));
        }
    }

    /// Plays every prompt with seeds that don't count.
    fn learn(&self, pair: &mut Pair<'_>, cell: &Cell, learned: &mut Learned) -> Result<()> {
        let Writer::Policy(setting, board, channel) = &cell.writer else { return Ok(()) };
        let place = (setting.as_ref(), board.as_ref(), channel.as_ref(), cell.size.unwrap_or(self.size));
        for (i, prompt) in self.prompts.iter().enumerate() {
            let sampling = Sampling::new(cell.temperature as f32, 1.0, 0)?;
            let turn = PromptTurn { prompt, sampling, seed: mix(&[self.plan.seed, i as u64, LEARNING]) };
            self.reply(pair, cell, place, &turn, learned)?;
        }
        Ok(())
    }

    /// One reply by a device and a verifier, and its share of the target's passes, s.
    fn reply(
        &self,
        pair: &mut Pair<'_>,
        cell: &Cell,
        (setting, board, channel, drafter): (&Setting, &ModelledBoard, &ModelledChannel, Size),
        turn: &PromptTurn<'_>,
        learned: &mut Learned,
    ) -> Result<(SessionOutcome, f64)> {
        let (drafter_max, target_max) = pair.context_max();
        let KnownTokens { vocabulary, prefixes } = self.drafter.clone();
        let config = DeviceConfig {
            vocabulary,
            prefixes,
            policy: setting.rules,
            offline: Offline::Wait,
            give_up_after: PATIENCE,
            context_tokens_max: board.context_tokens_max.unwrap_or(drafter_max).min(drafter_max),
            accept_model_change: false,
        };
        let session = SessionIdentity {
            number: 1,
            epoch: 1,
            nonce: turn.seed,
            seed: turn.seed,
            sampling: turn.sampling,
        };
        let mut device = Device::new(config, session, std::mem::take(learned))?;
        let prices = prices(&board.modelled, channel);
        device.set_prices(match cell.objective {
            Objective::Joules => prices.with_context(|| format!("{} on {}", board.name, channel.name))?,
            Objective::Seconds => Prices::SECONDS,
        });
        let KnownTokens { vocabulary: whole, prefixes } = self.target.clone();
        let verifier = VerifierConfig { prefixes, ..verifier_config(whole, target_max, 1) };
        let mut verifier = Verifier::new(verifier)?;
        let mut clock = ModelledClock {
            board,
            size: drafter,
            vocabulary: vocabulary.size,
            server: cell.server,
            link: ModelledLink::new(channel, mix(&[turn.seed, 2])),
            passed_us: 0,
            server_us: 0.0,
        };
        let reply = ReplyLimits { tokens_max: self.plan.tokens_max, stop: self.stop.clone() };
        pair.accept(cell.acceptance);
        let outcome = play(&mut device, &mut verifier, pair, &mut clock, turn.prompt, reply)?;
        let ended = matches!(outcome.finish, Finish::Stop | Finish::TokensMax | Finish::ContextFull);
        ensure!(ended, "{}: a reply ended with {:?}", setting.label, outcome.finish);
        *learned = device.learned();
        Ok((outcome, clock.server_us / 1e6))
    }

    fn reference(&self, pair: &mut Pair<'_>, turn: &PromptTurn<'_>) -> Result<Arc<Reference>> {
        // The seed identifies prompt and replica.
        let key = (turn.seed, turn.sampling.temperature().to_bits());
        if let Some(known) = self.references.lock().get(&key) {
            return Ok(Arc::clone(known));
        }
        let tokens =
            pair.reference(turn.prompt, self.plan.tokens_max, &self.stop, &turn.sampling, turn.seed)?;
        let reference = Arc::new(Reference { text: self.text(&tokens), tokens });
        self.references.lock().insert(key, Arc::clone(&reference));
        Ok(reference)
    }

    /// Compares the reply with the target's own.
    fn compare(
        &self,
        pair: &mut Pair<'_>,
        cell: &Cell,
        turn: &PromptTurn<'_>,
        reply: &[TokenId],
        sums: &mut CellSums,
    ) -> Result<()> {
        let reference = self.reference(pair, turn)?;
        sums.exact += u64::from(reference.tokens == reply);
        let text = self.text(reply);
        sums.rouge_l += rouge_l(&text, &reference.text);
        if let Some(encoder) = &self.encoder {
            let mut encoder = encoder.lock().unwrap_or_else(PoisonError::into_inner);
            let (own, other) = (encoder.encode(&text)?, encoder.encode(&reference.text)?);
            *sums.bertscore.get_or_insert(0.0) += bert_score(&own, &other).f1;
        }
        let (found, total) = slot_counts(&text, &reference.text);
        sums.slots = (sums.slots.0 + found, sums.slots.1 + total);
        let whole = [turn.prompt, reply].concat();
        let rows = pair.target_rows(&whole[..whole.len() - 1], reply.len())?;
        sums.nll += rows.iter().zip(reply).map(|(row, token)| surprise(row, *token)).sum::<f64>();
        if let Writer::Policy(setting, ..) = &cell.writer {
            match law::deviation(&setting.rules, &turn.sampling, pair, &whole, turn.prompt.len())? {
                Some(law::Deviation { tv, kl }) => {
                    sums.tv += tv;
                    sums.kl += kl;
                }
                None => sums.bounded = true,
            }
        }
        Ok(())
    }

    /// A reply without control tokens.
    fn text(&self, reply: &[TokenId]) -> String {
        let Some(tokenizer) = self.tokenizer else {
            return reply.iter().map(|token| format!("{token} ")).collect();
        };
        let shown = reply.iter().filter(|token| !tokenizer.is_control(**token) && !self.stop.contains(token));
        tokenizer.decode(&shown.copied().collect::<Vec<_>>())
    }
}

impl CellRun<'_> {
    /// The results of all prompts answered so far.
    pub fn end(self) -> PlayedCell {
        let Self { mut played, sums, .. } = self;
        sums.settle(&mut played.record);
        played
    }
}

impl References {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u64, u32), Arc<Reference>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CellSums {
    fn settle(&self, record: &mut CellRecord) {
        let mean = |sum: f64, count: u64| sum / count.max(1) as f64;
        record.exact = mean(self.exact as f64, record.replies);
        record.rouge_l = mean(self.rouge_l, record.replies);
        record.bertscore = self.bertscore.map(|sum| mean(sum, record.replies));
        // The distribution can differ only at kept misses, and by at most 1 at each.
        let deviation = if self.bounded { record.missed as f64 } else { self.tv };
        record.tv = mean(deviation, record.committed);
        record.kl = (!self.bounded).then(|| mean(self.kl, record.committed));
        record.nll = mean(self.nll, record.committed);
        let (found, total) = self.slots;
        record.slots = if total == 0 { 1.0 } else { found as f64 / total as f64 };
    }
}

/// Negative log-likelihood of a token at temperature 1, nats.
fn surprise(logits: &[f32], token: TokenId) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - highest)
}

fn blank(cell: &Cell) -> CellRecord {
    let mut record = CellRecord {
        run: cell.run.clone(),
        pass_ms: cell.server.pass_us / 1e3,
        sessions: cell.server.sessions,
        objective: cell.objective.name().into(),
        acceptance: cell.acceptance,
        learned: cell.learned,
        policy: TARGET_AGAIN.into(),
        label: TARGET_AGAIN.into(),
        temperature: cell.temperature,
        channel: NOWHERE.into(),
        board: NOWHERE.into(),
        ..CellRecord::default()
    };
    if let Writer::Policy(setting, board, channel) = &cell.writer {
        let [uncertainty_max, importance_lambda, random_rate, epsilon] =
            setting.thresholds().map(|x| x.map(shortest));
        record = CellRecord {
            policy: setting.policy.clone(),
            label: setting.label.clone(),
            uncertainty_max,
            importance_lambda,
            random_rate,
            epsilon,
            channel: channel.name.clone(),
            board: board.name.clone(),
            snr_db: channel.snr_db,
            rtt_ms: channel.rtt_ms,
            ..record
        };
    }
    record
}

/// The `f64` with the same shortest decimal digits.
fn shortest(x: f32) -> f64 {
    format!("{x}").parse().unwrap_or(f64::from(x))
}

fn add_costs(record: &mut CellRecord, outcome: &SessionOutcome) {
    let kept = |origin| !matches!(origin, Origin::Accepted | Origin::Target);
    record.trusted += outcome.commits.iter().filter(|commit| kept(commit.origin)).count() as u64;
    let count = |held, rejected: Option<bool>| {
        let told = outcome.fates.iter().filter(|fate| fate.held == held);
        told.filter(|fate| rejected.is_none_or(|rejected| fate.rejected == rejected)).count() as u64
    };
    record.judged += count(false, None);
    record.accepted += count(false, Some(false));
    record.audited += count(true, None);
    record.missed += count(true, Some(true));
    record.drafted += outcome.counters.drafted;
    record.streamed += outcome.counters.streamed;
    record.frames_up += outcome.counters.frames_up;
    record.target_passes += outcome.account.target_passes;
    record.target_tokens += outcome.account.target_tokens;
    record.seconds += outcome.took.as_secs_f64();
    let opening =
        outcome.carried.iter().position(|sent| matches!(sent.kind, MessageKind::Draft | MessageKind::Other));
    let (opening, rest) = outcome.carried.split_at(opening.unwrap_or(outcome.carried.len()));
    record.opening_up +=
        opening.iter().filter(|sent| sent.kind.is_up()).map(|sent| sent.mqtt as u64).sum::<u64>();
    for sent in rest {
        record.ip_up += sent.passage.up.ip as u64;
        record.tls_up += sent.passage.up.tls as u64;
        if sent.kind.is_up() {
            record.messages_up += 1;
            record.payload_up += sent.payload as u64;
            record.mqtt_up += sent.mqtt as u64;
        } else {
            record.payload_down += sent.payload as u64;
            record.mqtt_down += sent.mqtt as u64;
        }
    }
}

fn add_energy(record: &mut CellRecord, energy: ModelledEnergy) {
    record.draft_j += energy.draft_j;
    record.score_j += energy.score_j;
    record.send_j += energy.send_j;
    record.wait_j += energy.wait_j;
    record.idle_j += energy.idle_j;
}

fn fates(outcome: &SessionOutcome, prompt: usize, temperature: f64) -> impl Iterator<Item = TokenRecord> {
    outcome.fates.iter().map(move |fate| TokenRecord {
        temperature,
        position: fate.position.saturating_sub(prompt) as u64,
        uncertainty: shortest(fate.uncertainty),
        importance: shortest(fate.importance),
        threshold: fate.importance_mean,
        rejected: fate.rejected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surprise_by_hand() {
        // Two equally likely tokens: ln 2. A token three times as likely as the other: ln 4 - ln 3.
        assert!((surprise(&[1.0, 1.0], 0) - std::f64::consts::LN_2).abs() < 1e-12);
        assert!((surprise(&[0.0, 3f32.ln()], 1) - (4f64 / 3.0).ln()).abs() < 1e-6);
        assert!(surprise(&[-1e30, 0.0], 1).abs() < 1e-12);
    }

    #[test]
    fn a_threshold_keeps_its_digits() {
        assert_eq!(shortest(0.1), 0.1);
        assert_eq!(shortest(-1.5), -1.5);
    }
}
