//! The open sessions of a target: which sequence of the context each has, and how many tokens it holds.

use crate::decoder::{Decoder, Layout, Part};
use dunlin_lm::target::check_part;
use dunlin_lm::{Error, Result, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// The name under which the engine's errors are reported.
const ENGINE: &str = "llama.cpp";

/// One session's part of a batch, with tokens of its own: it is handed to another thread.
#[derive(Clone, Debug)]
pub(crate) struct OwnedExtend {
    pub(crate) session: SessionId,
    pub(crate) keep: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) rows: usize,
}

/// Limits of each session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) context_max: usize,
    /// Logits of a row that are given out; what is behind them is padding.
    pub(crate) vocabulary: u32,
    /// Rows of the model's embedding.
    pub(crate) rows: u32,
    pub(crate) token_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    sequence: usize,
    length: usize,
    /// Positions that the session may reach in the batch that runs.
    reserved: usize,
}

/// The sessions of one context.
pub(crate) struct Sessions<'m> {
    decoder: Decoder<'m>,
    limits: Limits,
    open: BTreeMap<SessionId, Held>,
    free: BTreeSet<usize>,
    next: u64,
}

impl<'m> Sessions<'m> {
    pub(crate) fn new(decoder: Decoder<'m>, limits: Limits) -> Self {
        let free = (0..decoder.shape().sequences).collect();
        Self { decoder, limits, open: BTreeMap::new(), free, next: 0 }
    }

    /// Opens an empty session.
    ///
    /// # Errors
    /// All sequences are in use.
    pub(crate) fn open(&mut self) -> Result<SessionId> {
        let Some(sequence) = self.free.pop_first() else {
            return Err(self.full(self.decoder.shape().cells));
        };
        let session = SessionId::new(self.next);
        self.next += 1;
        self.open.insert(session, Held { sequence, length: 0, reserved: 0 });
        Ok(session)
    }

    /// Opens a session with the first `length` tokens of another.
    ///
    /// # Errors
    /// The other holds fewer, or there is no room.
    pub(crate) fn fork(&mut self, session: SessionId, length: usize) -> Result<SessionId> {
        let Held { sequence: from, length: held, .. } = *self.get(session)?;
        if length > held {
            return Err(Error::Keep { keep: length, length: held });
        }
        let fork = self.open()?;
        let copied = self.reserve(fork, length).and_then(|()| {
            let to = self.get(fork)?.sequence;
            self.decoder.copy(from, to, length).map_err(|error| Error::engine(ENGINE, error))
        });
        if let Err(error) = copied {
            self.close(fork);
            return Err(error);
        }
        self.get_mut(fork)?.length = length;
        Ok(fork)
    }

    /// Runs a batch; each part has an answer of its own.
    pub(crate) fn extend(&mut self, batch: &[OwnedExtend]) -> Vec<Result<Vec<f32>>> {
        let views: Vec<dunlin_lm::Extend<'_>> = batch
            .iter()
            .map(|OwnedExtend { session, keep, tokens, rows }| dunlin_lm::Extend {
                session: *session,
                keep: *keep,
                tokens,
                rows: *rows,
            })
            .collect();
        let mut answers: Vec<Result<Vec<f32>>> = Vec::with_capacity(batch.len());
        let (mut parts, mut admitted) = (Vec::new(), Vec::new());
        for (index, part) in batch.iter().enumerate() {
            // A part that is refused fails alone; the others still run.
            let sequence = self.admit(&views, index);
            if let Ok(sequence) = sequence {
                admitted.push(index);
                parts.push(Part { sequence, position: part.keep, tokens: &part.tokens, rows: part.rows });
            }
            answers.push(sequence.map(|_| Vec::new()));
        }
        match self.decoder.run(&parts) {
            Ok(rows) => {
                for (index, rows) in admitted.into_iter().zip(rows) {
                    answers[index] = self.finish(&batch[index], &rows);
                }
            }
            Err(message) => {
                for index in admitted {
                    let undone = self.truncate(batch[index].session, batch[index].keep);
                    answers[index] = undone.and(Err(Error::engine(ENGINE, &message)));
                }
            }
        }
        answers
    }

    /// Checks part `index` of a batch, reserves its room, rolls its session back and returns its sequence.
    fn admit(&mut self, batch: &[dunlin_lm::Extend<'_>], index: usize) -> Result<usize> {
        let part = &batch[index];
        let Limits { context_max, rows, .. } = self.limits;
        let held = *self.get(part.session)?;
        check_part(batch, index, held.length, context_max, rows)?;
        // Before the rollback, so that a part that is refused leaves its session as it was.
        self.reserve(part.session, part.keep + part.tokens.len())?;
        self.truncate(part.session, part.keep)?;
        Ok(held.sequence)
    }

    /// Notes what a part added, and returns its rows without padding.
    fn finish(&mut self, part: &OwnedExtend, rows: &[f32]) -> Result<Vec<f32>> {
        let width = self.limits.vocabulary as usize;
        self.get_mut(part.session)?.length = part.keep + part.tokens.len();
        if part.rows == 0 {
            return Ok(Vec::new());
        }
        let each = rows.len() / part.rows;
        Ok(rows.chunks_exact(each).flat_map(|row| &row[..width]).copied().collect())
    }

    /// Reserves the cells of `length` positions for a session.
    ///
    /// # Errors
    /// [`Error::CacheFull`].
    fn reserve(&mut self, session: SessionId, length: usize) -> Result<()> {
        let shape = self.decoder.shape();
        let others = match shape.layout {
            Layout::Apart => 0,
            Layout::Shared => {
                self.open.iter().filter(|(id, _)| **id != session).map(|(_, held)| held.reserved).sum()
            }
        };
        // One cell stays free for the company of a lone row.
        if length + others + 1 > shape.cells {
            return Err(self.full(length + others + 1 - shape.cells));
        }
        self.get_mut(session)?.reserved = length;
        Ok(())
    }

    /// The error of a session that needs `cells` more than there are.
    fn full(&self, cells: usize) -> Error {
        let bytes = |cells: usize| cells.saturating_mul(self.limits.token_bytes as usize);
        let shape = self.decoder.shape();
        let used = match shape.layout {
            Layout::Apart => self.open.len() * shape.cells,
            Layout::Shared => self.open.values().map(|held| held.reserved).sum(),
        };
        Error::CacheFull { needed: bytes(cells), used: bytes(used), max: bytes(shape.cells_of_all()) }
    }

    /// Keeps the first `length` tokens of a session.
    ///
    /// # Errors
    /// The session isn't open, or can't be rolled back.
    pub(crate) fn truncate(&mut self, session: SessionId, length: usize) -> Result<()> {
        let held = *self.get(session)?;
        // Even where nothing is known to be behind `length`: a batch that failed may have left something there.
        self.decoder
            .keep(held.sequence, held.length.min(length))
            .map_err(|error| Error::engine(ENGINE, error))?;
        self.get_mut(session)?.length = held.length.min(length);
        Ok(())
    }

    /// The number of tokens that a session holds.
    ///
    /// # Errors
    /// The session isn't open.
    pub(crate) fn len(&self, session: SessionId) -> Result<usize> {
        Ok(self.get(session)?.length)
    }

    /// Closes a session.
    pub(crate) fn close(&mut self, session: SessionId) {
        if let Some(held) = self.open.remove(&session) {
            // A whole sequence can always be removed.
            let _ = self.decoder.keep(held.sequence, 0);
            self.free.insert(held.sequence);
        }
    }

    fn get(&self, session: SessionId) -> Result<&Held> {
        self.open.get(&session).ok_or(Error::UnknownSession(session))
    }

    fn get_mut(&mut self, session: SessionId) -> Result<&mut Held> {
        self.open.get_mut(&session).ok_or(Error::UnknownSession(session))
    }
}
