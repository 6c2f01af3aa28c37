//! BERTScore (Zhang et al., 2020, arXiv 1904.09675, equations 1 to 3): the similarity of two texts, by the best cosine
//! between the embeddings of their tokens.
//!
//! It is computed as in the Python package bert-score 0.3.13 for one pair, without IDF weights and without rescaling to
//! a baseline. The tokens around a text, such as `[CLS]` and `[SEP]`, have no weight, but others may match them. Here
//! these are all tokens that the tokenizer adds around texts; the package knows the two by name (so T5's `</s>`
//! counts). The package also uses a layer chosen for each model: to get its figures, export the encoder up to that
//! layer. Even unrelated texts score far above 0, so compare only scores of the same encoder.

use crate::embeddings::Embeddings;
use crate::vector::dot;

/// The similarity of a candidate to a reference, each part in -1..=1 up to rounding; near 1 for a good candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BertScore {
    /// The mean, over the candidate's tokens, of the highest cosine with a token of the reference.
    pub precision: f64,
    /// The mean, over the reference's tokens, of the highest cosine with a token of the candidate.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
}

/// The BERTScore of `candidate` against `reference`; all zeros if one of them has only special tokens.
///
/// The cosine of a row of zeros with any other counts as 0.
///
/// # Panics
/// When the rows of the two differ in width.
pub fn bert_score(candidate: &Embeddings, reference: &Embeddings) -> BertScore {
    assert_eq!(candidate.width(), reference.width(), "embeddings of two encoders");
    let (candidate_rows, reference_rows) = (unit_rows(candidate), unit_rows(reference));
    let mut candidate_best = vec![f32::NEG_INFINITY; candidate.len()];
    let mut reference_best = vec![f32::NEG_INFINITY; reference.len()];
    for (row, candidate_best) in candidate_rows.iter().zip(&mut candidate_best) {
        for (other, reference_best) in reference_rows.iter().zip(&mut reference_best) {
            let cosine = dot(row, other);
            *candidate_best = candidate_best.max(cosine);
            *reference_best = reference_best.max(cosine);
        }
    }
    match (mean(candidate, &candidate_best), mean(reference, &reference_best)) {
        (Some(precision), Some(recall)) => BertScore { precision, recall, f1: f1(precision, recall) },
        _ => BertScore::default(),
    }
}

/// The rows, each divided by its norm.
fn unit_rows(embeddings: &Embeddings) -> Vec<Vec<f32>> {
    let unit = |row: &[f32]| {
        let norm = dot(row, row).sqrt();
        row.iter().map(|x| if norm > 0.0 { x / norm } else { 0.0 }).collect()
    };
    (0..embeddings.len()).map(|index| unit(embeddings.row(index))).collect()
}

/// The mean of `best` over the tokens that aren't special; `None` when there is none.
fn mean(embeddings: &Embeddings, best: &[f32]) -> Option<f64> {
    let counted = || best.iter().enumerate().filter(|(index, _)| !embeddings.is_special(*index));
    let sum: f64 = counted().map(|(_, best)| f64::from(*best)).sum();
    let count = counted().count();
    (count > 0).then(|| sum / count as f64)
}

fn f1(precision: f64, recall: f64) -> f64 {
    let sum = precision + recall;
    if sum == 0.0 { 0.0 } else { 2.0 * precision * recall / sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(rows: &[([f32; 2], bool)]) -> Embeddings {
        let mut embeddings = Embeddings::new(2);
        rows.iter().for_each(|(row, special)| embeddings.push(row, *special));
        embeddings
    }

    fn close(score: BertScore, expected: [f64; 3]) {
        let found = [score.precision, score.recall, score.f1];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{score:?} {expected:?}");
    }

    const WORD: bool = false;
    const FRAME: bool = true;

    #[test]
    fn by_hand() {
        // Cosines: east-east 1, east-slope 0.6, north-east 0, north-slope 0.8; the lengths of the vectors don't matter.
        let candidate = embeddings(&[([2.0, 0.0], WORD), ([0.0, 0.5], WORD)]);
        let reference = embeddings(&[([0.1, 0.0], WORD), ([30.0, 40.0], WORD), ([4.0, 0.0], WORD)]);
        let (precision, recall) = ((1.0 + 0.8) / 2.0, (1.0 + 0.8 + 1.0) / 3.0);
        let f1 = 2.0 * precision * recall / (precision + recall);
        close(bert_score(&candidate, &reference), [precision, recall, f1]);
        close(bert_score(&reference, &candidate), [recall, precision, f1]);
        close(bert_score(&reference, &reference), [1.0; 3]);
    }

    #[test]
    fn special_tokens_are_matched_but_not_counted() {
        let candidate = embeddings(&[([0.0, 1.0], FRAME), ([1.0, 0.0], WORD)]);
        let reference = embeddings(&[([1.0, 0.0], FRAME), ([3.0, 4.0], WORD)]);
        // The candidate's word matches the reference's frame token best, and the reference's word the candidate's.
        close(bert_score(&candidate, &reference), [1.0, 0.8, 1.6 / 1.8]);
    }

    #[test]
    fn opposites_are_below_zero() {
        let score = bert_score(&embeddings(&[([1.0, 0.0], WORD)]), &embeddings(&[([-1.0, 0.0], WORD)]));
        close(score, [-1.0; 3]);
        let across = bert_score(&embeddings(&[([1.0, 0.0], WORD)]), &embeddings(&[([0.0, 1.0], WORD)]));
        close(across, [0.0; 3]);
    }

    #[test]
    fn nothing_scores_zero() {
        let word = embeddings(&[([1.0, 0.0], WORD)]);
        for nothing in [embeddings(&[]), embeddings(&[([1.0, 0.0], FRAME), ([1.0, 0.0], FRAME)])] {
            assert_eq!(bert_score(&nothing, &word), BertScore::default());
            assert_eq!(bert_score(&word, &nothing), BertScore::default());
        }
        close(bert_score(&embeddings(&[([0.0, 0.0], WORD)]), &word), [0.0; 3]);
    }
}
