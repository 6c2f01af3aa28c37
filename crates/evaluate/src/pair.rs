//! The two models with a memory of rows: a text that was computed before needs no pass.
//!
//! Invariant: a row depends only on the text before it. For a target that always holds. A drafter is fed each prompt at
//! once and every later token separately, whatever the memory contains, so that it holds for its rows too.

use anyhow::{Context, Result};
use dunlin_hlm::TokenId;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::device::DraftJob;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::verifier::{Slot, VerifyJob};
use dunlin_lm::{Draft, Extend, SessionId, Target};
use dunlin_sim::quiet::{DrafterRow, Models};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Digest of a text.
type TextDigest = [u8; 16];

/// Rows by the text before them, shared by all threads; when it is full it is cleared.
#[derive(Debug)]
pub struct Memory {
    bytes_max: usize,
    held: Mutex<KnownRows>,
}

#[derive(Debug, Default)]
struct KnownRows {
    drafts: HashMap<TextDigest, DrafterRow>,
    targets: HashMap<TextDigest, Arc<[f32]>>,
    bytes: usize,
}

/// Passes that were computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Passes of the drafter.
    pub draft: u64,
    /// Passes of the target.
    pub target: u64,
}

/// A drafter and a target that share a [`Memory`] with others.
pub struct Pair<'m> {
    drafter: Box<dyn Draft + 'm>,
    target: Box<dyn Target + 'm>,
    session: SessionId,
    memory: &'m Memory,
    /// Probability with which a draft is accepted, in place of the drafter's own.
    acceptance: Option<f64>,
    device: Seat,
    /// The text that the verifier believes to be in each session's cache.
    slots: BTreeMap<Slot, HashedText>,
    /// The tokens that are in the drafter's cache.
    drafter_holds: Vec<TokenId>,
    target_holds: Vec<TokenId>,
    passes: Passes,
}

/// A device's place at a pair.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    /// Tokens of the current prompt.
    prompt: usize,
    /// The text that the device believes to be in the drafter's cache.
    text: HashedText,
}

/// A text with the digest of each of its prefixes.
#[derive(Clone, Debug, Default)]
struct HashedText {
    tokens: Vec<TokenId>,
    keys: Vec<TextDigest>,
}

impl Memory {
    /// A memory for about `bytes_max` bytes of rows.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, KnownRows> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_draft(&self, key: TextDigest, row: DrafterRow) {
        let size = row.logits.len() + row.attention.as_ref().map_or(0, |weights| weights.len());
        self.room(size).drafts.insert(key, row);
    }

    fn keep_target(&self, key: TextDigest, row: Arc<[f32]>) {
        self.room(row.len()).targets.insert(key, row);
    }

    fn room(&self, floats: usize) -> MutexGuard<'_, KnownRows> {
        let mut held = self.lock();
        let bytes = floats * size_of::<f32>() + size_of::<(TextDigest, DrafterRow)>();
        if held.bytes + bytes > self.bytes_max {
            *held = KnownRows::default();
        }
        held.bytes += bytes;
        held
    }
}

impl<'m> Pair<'m> {
    /// A pair with empty caches.
    ///
    /// # Errors
    /// The target can't open a session.
    pub fn new(
        drafter: Box<dyn Draft + 'm>,
        mut target: Box<dyn Target + 'm>,
        memory: &'m Memory,
    ) -> Result<Self> {
        let session = target.open().context("the target opened no session")?;
        Ok(Self {
            drafter,
            target,
            session,
            memory,
            acceptance: None,
            device: Seat::default(),
            slots: BTreeMap::new(),
            drafter_holds: Vec::new(),
            target_holds: Vec::new(),
            passes: Passes::default(),
        })
    }

    /// Most tokens of a text, for the drafter and for the target.
    pub fn context_max(&self) -> (usize, usize) {
        (self.drafter.context_max(), self.target.context_max())
    }

    /// Passes made so far.
    pub fn passes(&self) -> Passes {
        self.passes
    }

    /// With an `acceptance`, the target accepts each draft with that probability, whatever came before it.
    pub fn accept(&mut self, acceptance: Option<f64>) {
        self.acceptance = acceptance;
    }

    /// Gives another device's place to the pair, and takes the present one's.
    pub fn swap_seat(&mut self, seat: &mut Seat) {
        std::mem::swap(&mut self.device, seat);
    }

    /// The target's rows for the last `rows` tokens of a text.
    ///
    /// # Errors
    /// The target fails.
    pub fn target_rows(&mut self, text: &[TokenId], rows: usize) -> Result<Vec<Arc<[f32]>>> {
        let mut own = HashedText::default();
        own.extend(text);
        self.rows(&own, rows)
    }

    /// The drafter's row after a text that starts with the current prompt.
    ///
    /// # Errors
    /// The drafter fails.
    pub fn drafter_row(&mut self, text: &[TokenId]) -> Result<DrafterRow> {
        let mut own = HashedText::default();
        own.extend(text);
        self.row(&own)
    }

    /// The reply that the target alone writes to `prompt`; see `dunlin-verifier reference`.
    ///
    /// # Errors
    /// The target fails or returns invalid rows.
    pub fn reference(
        &mut self,
        prompt: &[TokenId],
        tokens_max: usize,
        stop: &[TokenId],
        sampling: &Sampling,
        seed: u64,
    ) -> Result<Vec<TokenId>> {
        let mut text = HashedText::default();
        text.extend(prompt);
        let room = self.target.context_max().saturating_sub(prompt.len());
        for _ in 0..tokens_max.min(room) {
            let row = self.rows(&text, 1)?.pop().context("the target gave no row")?;
            let distribution = Distribution::from_logits(&row, sampling).context("the target's logits")?;
            let token = couple(&distribution, seed, text.tokens.len() as u64);
            text.extend(&[token]);
            if stop.contains(&token) {
                break;
            }
        }
        Ok(text.tokens.split_off(prompt.len()))
    }

    fn rows(&mut self, text: &HashedText, rows: usize) -> Result<Vec<Arc<[f32]>>> {
        let first = text.tokens.len() - rows;
        let known: Vec<Option<Arc<[f32]>>> = {
            let held = self.memory.lock();
            text.keys[first..].iter().map(|key| held.targets.get(key).cloned()).collect()
        };
        let Some(missing) = known.iter().position(Option::is_none) else {
            return Ok(known.into_iter().flatten().collect());
        };
        let from = first + missing;
        let keep = shared(&self.target_holds, &text.tokens).min(from);
        let (tokens, rows) = (&text.tokens[keep..], text.tokens.len() - from);
        let part = Extend { session: self.session, keep, tokens, rows };
        self.passes.target += 1;
        self.target_holds.clear();
        let logits = self.target.extend(&[part]).pop().context("the target gave no answer")??;
        self.target_holds.clone_from(&text.tokens);
        let made: Vec<Arc<[f32]>> = logits.chunks_exact(logits.len() / rows).map(Into::into).collect();
        for (key, row) in text.keys[from..].iter().zip(&made) {
            self.memory.keep_target(*key, Arc::clone(row));
        }
        Ok(known.into_iter().take(missing).flatten().chain(made).collect())
    }

    /// A row whose draft the target accepts with a given probability: the target's own row, or one whose tokens are
    /// others. The coin is the text's digest, so the same text has the same row.
    fn scripted_row(&mut self, text: &HashedText, acceptance: f64) -> Result<DrafterRow> {
        let key = text.keys.last().context("a row of no text")?;
        let coin = key.iter().take(8).fold(0u64, |coin, byte| coin << 8 | u64::from(*byte));
        let mut logits = self.rows(text, 1)?.pop().context("the target gave no row")?.to_vec();
        if coin as f64 / 2f64.powi(64) >= acceptance {
            let half = logits.len() / 2;
            logits.rotate_left(half);
        }
        Ok(DrafterRow { logits: logits.into(), attention: None })
    }

    /// The drafter's row for the last token of a text that starts with the current prompt.
    fn row(&mut self, text: &HashedText) -> Result<DrafterRow> {
        let key = text.keys.last().context("a row of no text")?;
        if let Some(row) = self.memory.lock().drafts.get(key) {
            return Ok(row.clone());
        }
        let length = text.tokens.len();
        let prompt = self.device.prompt.clamp(1, length);
        let mut held = shared(&self.drafter_holds, &text.tokens).min(length - 1);
        if held < prompt {
            held = 0;
        }
        self.drafter.truncate(held);
        self.drafter_holds.truncate(held);
        loop {
            let next = if held == 0 { prompt } else { held + 1 };
            let tokens = &text.tokens[held..next];
            self.passes.draft += 1;
            let rows = self.drafter.extend(tokens)?;
            self.drafter_holds.extend_from_slice(tokens);
            let last = rows.len() - 1;
            let attention = rows.attention(last).map(Into::into);
            let row = DrafterRow { logits: rows.logits(last).into(), attention };
            self.memory.keep_draft(text.keys[next - 1], row.clone());
            held = next;
            if held == length {
                return Ok(row);
            }
        }
    }
}

impl Models for Pair<'_> {
    /// The first `prompt` tokens of the session will be fed at once.
    fn begin(&mut self, prompt: usize) {
        self.device = Seat { prompt, text: HashedText::default() };
    }

    fn release(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    fn draft(&mut self, job: &DraftJob) -> Result<DrafterRow> {
        let mut text = std::mem::take(&mut self.device.text);
        text.truncate(job.keep);
        text.extend(&job.tokens);
        let row = match self.acceptance {
            Some(acceptance) => self.scripted_row(&text, acceptance),
            None => self.row(&text),
        };
        self.device.text = text;
        row
    }

    fn verify(&mut self, job: &VerifyJob) -> Result<Vec<f32>> {
        let mut text = self.slots.remove(&job.slot).unwrap_or_default();
        text.truncate(job.keep);
        text.extend(&job.tokens);
        let rows = self.rows(&text, job.rows)?;
        self.slots.insert(job.slot, text);
        Ok(rows.iter().flat_map(|row| row.iter().copied()).collect())
    }
}

impl HashedText {
    fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.keys.truncate(length);
    }

    fn extend(&mut self, tokens: &[TokenId]) {
        for token in tokens {
            let before = self.keys.last().copied().unwrap_or_default();
            let digest = Sha256::new().chain_update(before).chain_update(token.to_le_bytes()).finalize();
            let mut key = TextDigest::default();
            key.copy_from_slice(&digest[..size_of::<TextDigest>()]);
            self.tokens.push(*token);
            self.keys.push(key);
        }
    }
}

fn shared(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hlm::device::DraftJobId;
    use dunlin_hlm::verifier;
    use dunlin_lm::Toy;

    fn toy() -> Toy {
        Toy::new(1, 64, 0.5)
    }

    fn pair(memory: &Memory) -> Pair<'_> {
        Pair::new(Box::new(toy().drafter()), Box::new(toy().target()), memory).unwrap()
    }

    fn draft(keep: usize, tokens: &[u32]) -> DraftJob {
        DraftJob { id: DraftJobId(0), keep, tokens: tokens.to_vec() }
    }

    fn verify(keep: usize, tokens: &[u32], rows: usize) -> VerifyJob {
        VerifyJob {
            device: "d".parse().unwrap(),
            id: verifier::VerifyJobId(0),
            slot: Slot(0),
            keep,
            tokens: tokens.to_vec(),
            rows,
            sampling: Sampling::greedy(),
            seed: 0,
        }
    }

    #[test]
    fn a_text_read_before_costs_no_pass_and_gives_the_same_rows() {
        let memory = Memory::new(1 << 20);
        let mut pair = pair(&memory);
        let play = |pair: &mut Pair<'_>| {
            pair.begin(3);
            let drafts = [draft(0, &[1, 2, 3]), draft(3, &[4]), draft(3, &[5, 6]), draft(2, &[3, 4])];
            let drafts = drafts.map(|job| pair.draft(&job).unwrap());
            let rows = [verify(0, &[1, 2, 3, 4], 1), verify(4, &[5, 6], 2), verify(3, &[4, 5, 7], 3)];
            (drafts, rows.map(|job| pair.verify(&job).unwrap()))
        };
        let (drafts, rows) = play(&mut pair);
        for (row, text) in drafts.iter().zip([&[1, 2, 3][..], &[1, 2, 3, 4], &[1, 2, 3, 5, 6], &[1, 2, 3, 4]])
        {
            assert_eq!(*row.logits, *toy().draft_logits(text), "{text:?}");
            assert_eq!(row.attention.as_ref().unwrap().len(), text.len());
        }
        let text = [1, 2, 3, 4, 5, 7];
        let expected: Vec<f32> = (4..=6).flat_map(|end| toy().target_logits(&text[..end])).collect();
        assert_eq!(rows[2], expected);
        // Passes of the drafter: the prompt, 4, 5 and 6. The last draft and the rows of 1..4 and 1..5 were known.
        assert_eq!(pair.passes(), Passes { draft: 4, target: 3 });
        assert_eq!(play(&mut pair), (drafts.clone(), rows.clone()));
        assert_eq!(pair.passes(), Passes { draft: 4, target: 3 });

        let nothing = Memory::new(0);
        let mut forgetful = self::pair(&nothing);
        assert_eq!(play(&mut forgetful), (drafts, rows));
        assert!(forgetful.passes().target > 2 && forgetful.passes().draft > 4);
    }

    /// With an acceptance, a draft agrees with the target in that share of the texts, and a text always has the same row.
    #[test]
    fn a_scripted_draft_agrees_as_often_as_it_should() {
        let memory = Memory::new(1 << 24);
        let mut pair = pair(&memory);
        let text = |i: u32| [1, 2, i % 64, i / 64 % 64];
        for acceptance in [0.0, 0.3, 0.9, 1.0] {
            pair.begin(3);
            pair.accept(Some(acceptance));
            let mut agreed = 0;
            for i in 0..2000 {
                let row = pair.draft(&draft(0, &text(i))).unwrap().logits;
                assert_eq!(row, pair.draft(&draft(0, &text(i))).unwrap().logits);
                let own = toy().target_logits(&text(i));
                let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                agreed += u32::from(best(&row) == best(&own));
            }
            let share = f64::from(agreed) / 2000.0;
            assert!((share - acceptance).abs() < 0.04, "{acceptance}: {share}");
        }
    }

    /// A drafter that records the start and the length of each chunk.
    struct Spy<'a>(dunlin_lm::ToyDrafter, &'a Mutex<Vec<(usize, usize)>>);

    impl Draft for Spy<'_> {
        fn vocabulary(&self) -> dunlin_lm::Vocabulary {
            self.0.vocabulary()
        }

        fn context_max(&self) -> usize {
            self.0.context_max()
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn truncate(&mut self, len: usize) {
            self.0.truncate(len);
        }

        fn extend(&mut self, tokens: &[u32]) -> dunlin_lm::Result<dunlin_lm::Rows> {
            self.1.lock().unwrap().push((self.0.len(), tokens.len()));
            self.0.extend(tokens)
        }
    }

    #[test]
    fn a_drafter_gets_a_prompt_at_once_and_tokens_one_by_one() {
        let (memory, chunks) = (Memory::new(0), Mutex::new(Vec::new()));
        let spy = Box::new(Spy(toy().drafter(), &chunks));
        let mut pair = Pair::new(spy, Box::new(toy().target()), &memory).unwrap();
        pair.begin(3);
        pair.draft(&draft(0, &[1, 2, 3])).unwrap();
        pair.draft(&draft(3, &[4, 5])).unwrap();
        // Another prompt with the same beginning is still fed as a whole.
        pair.begin(4);
        pair.draft(&draft(0, &[1, 2, 3, 6])).unwrap();
        assert_eq!(*chunks.lock().unwrap(), [(0, 3), (3, 1), (4, 1), (0, 4)]);
    }

    #[test]
    fn a_full_memory_starts_again() {
        let row = size_of::<(TextDigest, DrafterRow)>() + 64 * 4;
        let memory = Memory::new(2 * row);
        let mut pair = pair(&memory);
        for end in 1..=3 {
            pair.target_rows(&[1, 2, 3][..end], 1).unwrap();
        }
        assert_eq!(memory.lock().targets.len(), 1);
        pair.target_rows(&[1, 2, 3], 1).unwrap();
        assert_eq!(pair.passes().target, 3);
        pair.target_rows(&[1], 1).unwrap();
        assert_eq!(pair.passes().target, 4);
    }

    #[test]
    fn the_reference_is_what_the_verifier_writes_alone() {
        let sampling = Sampling::new(0.9, 1.0, 0).unwrap();
        let request = dunlin_verifier::reference::Request {
            prompt: vec![1, 2, 3],
            tokens_max: 20,
            stop: vec![9],
            sampling,
            seed: 5,
        };
        let (expected, _) = dunlin_verifier::reference::write(&mut toy().target(), &request).unwrap();
        let memory = Memory::new(1 << 20);
        let reply = pair(&memory).reference(&[1, 2, 3], 20, &[9], &sampling, 5).unwrap();
        assert_eq!(reply, expected);
    }
}
