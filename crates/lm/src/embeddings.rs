//! Embeddings of a text: one vector per token.

/// One row of numbers per token of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    width: usize,
    rows: Vec<f32>,
    special: Vec<bool>,
}

impl Embeddings {
    /// No rows yet, of `width` numbers each.
    pub fn new(width: usize) -> Self {
        Self { width, rows: Vec::new(), special: Vec::new() }
    }

    /// Appends the row of a token; `special` says whether the tokenizer puts that token around texts, as it does
    /// `[CLS]` and `[SEP]`.
    ///
    /// # Panics
    /// When `row` hasn't `width` numbers.
    pub fn push(&mut self, row: &[f32], special: bool) {
        assert_eq!(row.len(), self.width, "a row of another width");
        self.rows.extend_from_slice(row);
        self.special.push(special);
    }

    /// Numbers in each row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows, those of special tokens included.
    pub fn len(&self) -> usize {
        self.special.len()
    }

    /// True where there is no row.
    pub fn is_empty(&self) -> bool {
        self.special.is_empty()
    }

    /// Row `index`.
    ///
    /// # Panics
    /// When `index` isn't less than [`len`](Self::len).
    pub fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.width..(index + 1) * self.width]
    }

    /// True where the token of row `index` is one of those that the tokenizer puts around texts, also where the text
    /// itself spells it.
    ///
    /// # Panics
    /// When `index` isn't less than [`len`](Self::len).
    pub fn is_special(&self, index: usize) -> bool {
        self.special[index]
    }
}
