//! A drafter whose context is shorter than the text.
//!
//! When its context is full, the drafter reads again: the text's first tokens, which hold the beginning of the
//! conversation, and its last ones, as many as fill half of what is left. Positions count from 0 again, so drafts stay
//! good. Only drafts depend on this, never the text: the target reads all of it.

use crate::draft::{Draft, Rows};
use crate::error::Result;

/// The head takes at most this part of the context, so that room is left for the text's end.
const HEAD_SHARE: usize = 4;

/// A drafter that takes texts of any length.
pub struct Window {
    drafter: Box<dyn Draft>,
    context_max: usize,
    /// Tokens of the text's beginning that stay in the context.
    head: usize,
    text: Vec<u32>,
    /// Tokens behind the head that the context leaves out.
    gap: usize,
}

/// The result of [`Window::run`].
#[derive(Clone, Debug)]
pub struct WindowRows {
    /// The last row; its attention covers the whole text, with 0 for what the context leaves out.
    pub rows: Rows,
    /// True if the context was full, so that the text's head and end were read again.
    pub refilled: bool,
}

impl Window {
    /// A window of `context_max` tokens that keeps the first `head` tokens of a text, or fewer.
    pub fn new(drafter: Box<dyn Draft>, context_max: usize, head: usize) -> Self {
        let context_max = context_max.min(drafter.context_max()).max(1);
        Self { drafter, context_max, head: head.min(context_max / HEAD_SHARE), text: Vec::new(), gap: 0 }
    }

    /// Most tokens in the context.
    pub fn context_max(&self) -> usize {
        self.context_max
    }

    /// Tokens that are read again at once when the context is full.
    pub fn refill_tokens(&self) -> usize {
        self.head + self.tail()
    }

    /// Keeps the first `keep` tokens of the text, appends `tokens`, at least one, and returns the last row. The drafter
    /// reads at most `chunk` tokens at a time; `step` is called after each.
    ///
    /// # Errors
    /// The drafter's. What it read before stays in its context.
    pub fn run(
        &mut self,
        keep: usize,
        tokens: &[u32],
        chunk: usize,
        mut step: impl FnMut(),
    ) -> Result<WindowRows> {
        self.roll_back(keep);
        self.text.truncate(keep);
        self.text.extend(tokens);
        let refilled = self.refill();
        let mut rows = Rows::new(1, 0);
        for piece in self.missing().chunks(chunk.max(1)) {
            let fed = self.drafter.extend(piece);
            step();
            rows = fed?;
        }
        Ok(WindowRows { rows: self.spread(rows), refilled })
    }

    /// Tokens of the text's end in a context that was filled anew.
    fn tail(&self) -> usize {
        ((self.context_max - self.head) / 2).max(1)
    }

    /// Tokens of the text that are in the context or left out of it.
    fn covered(&self) -> usize {
        self.drafter.len() + self.gap
    }

    /// Removes from the context what is behind the first `keep` tokens of the text.
    fn roll_back(&mut self, keep: usize) {
        // Behind a rollback into the gap, the context's end belongs to nothing that is left.
        if keep < self.head + self.gap {
            self.drafter.truncate(keep.min(if self.gap > 0 { self.head } else { keep }));
            self.gap = 0;
        } else {
            self.drafter.truncate(keep - self.gap);
        }
    }

    /// Makes room for the text's end where the context has none; true if it did.
    fn refill(&mut self) -> bool {
        let missing = self.text.len() - self.covered();
        if self.drafter.len() + missing <= self.context_max {
            return false;
        }
        // A short prompt may have left the head incomplete.
        self.drafter.truncate(self.head);
        self.gap = self.text.len() - self.head - self.tail();
        true
    }

    /// The tokens that the context lacks.
    fn missing(&self) -> Vec<u32> {
        let held = self.drafter.len();
        if self.gap == 0 || held >= self.head {
            return self.text[self.covered()..].to_vec();
        }
        [&self.text[held..self.head], &self.text[self.head + self.gap..]].concat()
    }

    /// The last of `rows`, with its attention at the text's positions.
    fn spread(&self, rows: Rows) -> Rows {
        let Some(last) = rows.len().checked_sub(1) else { return rows };
        // The row of each drafted token needs no copy.
        if last == 0 && self.gap == 0 {
            return rows;
        }
        let logits = rows.logits(last);
        let mut spread = Rows::new(logits.len(), self.text.len() - 1);
        spread.push_logits(logits);
        if let Some(attention) = rows.attention(last) {
            let (head, end) = attention.split_at(if self.gap > 0 { self.head } else { 0 });
            spread.push_attention(&[head, &vec![0.0; self.gap], end].concat());
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Toy;

    /// Looks back 3 tokens, so its logits are the same whatever is left out before them.
    const TOY: Toy = Toy { seed: 5, vocabulary: 40, order: 3, context_max: 24, agreement: 1.0 };

    fn window(head: usize) -> Window {
        Window::new(Box::new(TOY.drafter()), usize::MAX, head)
    }

    fn text(length: usize) -> Vec<u32> {
        (0..length as u32).map(|at| (at * at + 3 * at) % 40).collect()
    }

    #[test]
    fn a_text_of_any_length_has_the_rows_of_a_drafter_that_holds_it() {
        for head in [0, 1, 4, 9] {
            let mut window = window(head);
            let (text, mut refills) = (text(200), 0);
            for at in 0..text.len() {
                let found = window.run(at, &text[at..=at], 8, || ()).unwrap();
                assert_eq!(found.rows.logits(0), TOY.draft_logits(&text[..=at]), "head {head} at {at}");
                refills += usize::from(found.refilled);
            }
            let (head, tail) = (window.head, window.tail());
            assert_eq!(refills, (200 - 24usize).div_ceil(24 - head - tail + 1), "head {head}, tail {tail}");
        }
    }

    #[test]
    fn rollbacks_across_the_head_the_gap_and_the_end_leave_no_trace() {
        for (keep, refilled) in [
            (0, false),
            (2, false),
            (5, false),
            (12, false),
            (20, false),
            (30, true),
            (150, true),
            (197, false),
        ] {
            let mut window = window(4);
            window.run(0, &text(200), 8, || ()).unwrap();
            let other: Vec<u32> = [&text(200)[..keep], &[7, 9]].concat();
            let found = window.run(keep, &[7, 9], 8, || ()).unwrap();
            assert_eq!(found.rows.logits(0), TOY.draft_logits(&other), "kept {keep}");
            assert_eq!(found.refilled, refilled, "kept {keep}");
            let held = window.drafter.len();
            assert!(held <= 24 && held + window.gap == other.len(), "kept {keep}: {held}");
        }
    }

    #[test]
    fn attention_lies_at_the_texts_positions() {
        let mut window = window(4);
        window.run(0, &text(100), 8, || ()).unwrap();
        let row = window.run(100, &[3], 8, || ()).unwrap().rows;
        let attention = row.attention(0).unwrap();
        assert_eq!(attention.len(), 101);
        assert!((attention.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        let gap = window.gap;
        assert!(gap > 0 && attention[4..4 + gap].iter().all(|weight| *weight == 0.0));
        assert!(attention[..4].iter().chain(&attention[4 + gap..]).all(|weight| *weight > 0.0));
    }

    #[test]
    fn a_long_text_is_read_in_chunks_and_only_its_head_and_end() {
        let mut window = window(4);
        let mut steps = 0;
        window.run(0, &text(1000), 8, || steps += 1).unwrap();
        assert_eq!((window.drafter.len(), steps), (window.refill_tokens(), 14usize.div_ceil(8)));
    }

    #[test]
    fn chunks_change_nothing() {
        let toy = Toy::new(1, 64, 1.0);
        let tokens: Vec<u32> = (0..150).map(|token| token % 64).collect();
        for length in [1, 64, 65, 150] {
            let mut window = Window::new(Box::new(toy.drafter()), usize::MAX, 4);
            let mut steps = 0;
            let found = window.run(0, &tokens[..length], 64, || steps += 1).unwrap();
            assert_eq!((steps, found.refilled), (length.div_ceil(64), false));
            assert_eq!(found.rows.logits(found.rows.len() - 1), toy.draft_logits(&tokens[..length]));
            assert_eq!(window.drafter.len(), length);
        }
    }

    #[test]
    fn a_failure_leaves_a_window_that_goes_on() {
        let mut window = window(4);
        window.run(0, &text(100), 8, || ()).unwrap();
        assert!(window.run(100, &[40], 8, || ()).is_err(), "the toy has no token 40");
        let found = window.run(0, &text(50), 8, || ()).unwrap();
        assert_eq!(found.rows.logits(0), TOY.draft_logits(&text(50)));
    }

    #[test]
    fn the_smallest_context_still_drafts() {
        let mut window = Window::new(Box::new(TOY.drafter()), 1, 3);
        for at in 0..5 {
            assert_eq!(window.run(at, &[1], 8, || ()).unwrap().rows.len(), 1);
        }
    }
}
