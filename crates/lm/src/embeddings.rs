//! Embeddings of a text: one vector per token.

/// One row of numbers per token of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    width: usize,
    rows: Vec<f32>,
    special: Vec<bool>,
}

impl Embeddings {
    /// Embeddings without rows, for rows of `width` numbers.
    pub fn new(width: usize) -> Self {
        Self { width, rows: Vec::new(), special: Vec::new() }
    }

    /// Appends the row of a token; `special` is true for a token that the tokenizer adds around texts, such as `[CLS]`
    /// and `[SEP]`.
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

    /// The number of rows, including those of special tokens.
    pub fn len(&self) -> usize {
        self.special.len()
    }

    /// True when there is no row.
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

    /// True when the token of row `index` is one of those that the tokenizer adds around texts, even if the text itself
    /// contains it.
    ///
    /// # Panics
    /// When `index` isn't less than [`len`](Self::len).
    pub fn is_special(&self, index: usize) -> bool {
        self.special[index]
    }
}
