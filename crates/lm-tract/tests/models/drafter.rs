//! The drafter on the demo pair and on a Hugging Face export with grouped-query attention.

use crate::files::{Random, demo, fixture};
use dunlin_lm::{Draft, Error, ModelDir, Rows};
use dunlin_lm_tract::Drafter;

fn load_demo() -> Drafter {
    let (drafter, warnings) = Drafter::load(&ModelDir::open(demo("drafter")).unwrap()).unwrap();
    assert_eq!(warnings, []);
    drafter
}

fn load_hugging_face() -> Drafter {
    Drafter::load(&ModelDir::open(fixture("hf-llama")).unwrap()).unwrap().0
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn bits(rows: &Rows) -> Vec<u32> {
    (0..rows.len()).flat_map(|row| rows.logits(row)).map(|logit| logit.to_bits()).collect()
}

fn needs_send<T: Send>(value: T) -> T {
    value
}

fn a_chunk_equals_single_tokens(mut drafter: Drafter, count: usize) {
    let tokens = Random(4).tokens(count, drafter.vocabulary().size as usize);
    let chunk = drafter.extend(&tokens).unwrap();
    assert_eq!((chunk.len(), drafter.len()), (count, count));
    drafter.truncate(0);
    for (row, token) in tokens.iter().enumerate() {
        let single = drafter.extend(&[*token]).unwrap();
        let difference = largest_difference(single.logits(0), chunk.logits(row));
        assert!(difference < 1e-4, "row {row}: {difference}");
        if let (Some(single), Some(chunk)) = (single.attention(0), chunk.attention(row)) {
            assert!(largest_difference(single, chunk) < 1e-5, "row {row}");
        }
    }
}

#[test]
fn chunks_equal_single_tokens() {
    a_chunk_equals_single_tokens(load_demo(), 40);
    a_chunk_equals_single_tokens(load_hugging_face(), 40);
}

/// A prompt with more tokens than one run takes.
#[test]
fn a_long_prompt_is_cut() {
    a_chunk_equals_single_tokens(load_demo(), 300);
}

fn a_rollback_leaves_no_trace_in(mut drafter: Drafter) {
    let drafted = drafter.vocabulary().size - 1;
    drafter.extend(&[1, 3, 10, 11, 12]).unwrap();
    let never_drafted = drafter.extend(&[20, 21]).unwrap();
    let after = drafter.extend(&[22]).unwrap();
    drafter.truncate(0);
    assert!(drafter.is_empty());
    drafter.extend(&[1, 3, 10, 11, 12]).unwrap();
    drafter.extend(&[drafted]).unwrap();
    drafter.extend(&[drafted, 5, 6]).unwrap();
    drafter.truncate(7);
    drafter.truncate(5);
    assert_eq!(drafter.len(), 5);
    let rolled_back = drafter.extend(&[20, 21]).unwrap();
    assert_eq!(bits(&rolled_back), bits(&never_drafted));
    assert_eq!(rolled_back.attention(1), never_drafted.attention(1));
    assert_eq!(bits(&drafter.extend(&[22]).unwrap()), bits(&after));
}

#[test]
fn a_rollback_leaves_no_trace() {
    a_rollback_leaves_no_trace_in(needs_send(load_demo()));
    a_rollback_leaves_no_trace_in(load_hugging_face());
}

#[test]
fn attention_rows_sum_to_one() {
    let mut drafter = load_demo();
    drafter.extend(&[1, 3, 100, 200, 300]).unwrap();
    let rows = drafter.extend(&[400, 500, 600]).unwrap();
    for row in 0..3 {
        let attention = rows.attention(row).unwrap();
        assert_eq!(attention.len(), 5 + row + 1);
        assert!(attention.iter().all(|weight| (0.0..=1.0).contains(weight)));
        let sum: f32 = attention.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "row {row}: {sum}");
    }
}

#[test]
fn a_model_without_attention_says_so() {
    assert_eq!(load_hugging_face().extend(&[1, 2]).unwrap().attention(1), None);
}

/// Compares with PyTorch's logits, written by the script that exported the model.
#[test]
fn logits_are_those_of_pytorch() {
    let expected = std::fs::read_to_string(fixture("hf-llama/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(expected["tokens"].clone()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(expected["logits"].clone()).unwrap();
    let rows = load_hugging_face().extend(&tokens).unwrap();
    for (row, expected) in logits.iter().enumerate() {
        // The model has 64 rows for the tokenizer's 53 tokens: the rest is padding.
        let difference = largest_difference(rows.logits(row), &expected[..53]);
        assert!(difference < 1e-4, "row {row}: {difference}");
    }
}

#[test]
fn impossible_requests_change_nothing() {
    let mut drafter = load_hugging_face();
    assert_eq!(drafter.context_max(), 128);
    drafter.extend(&[1, 2]).unwrap();
    let full = drafter.extend(&[1; 127]).unwrap_err();
    assert!(matches!(full, Error::ContextFull { length: 2, added: 127, max: 128 }), "{full}");
    assert_eq!(drafter.len(), 2);
    assert_eq!(drafter.extend(&[1; 126]).unwrap().len(), 126);
    assert!(drafter.extend(&[]).unwrap().is_empty());
}

/// The target may have tokens that the drafter has no row for.
#[test]
fn a_token_without_a_row_is_read_as_the_unknown_one() {
    let dir = ModelDir::open(fixture("hf-llama")).unwrap();
    let unknown = dir.unknown();
    let after = |token| load_hugging_face().extend(&[5, token, 6]).unwrap();
    assert_eq!(bits(&after(64)), bits(&after(unknown)));
    assert_eq!(bits(&after(u32::MAX)), bits(&after(unknown)));
    assert_ne!(bits(&after(63)), bits(&after(unknown)), "a row of padding is a row");
}

#[test]
fn a_target_is_no_drafter() {
    let refused = Drafter::load(&ModelDir::open(demo("target")).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("role: expected drafter, found target"), "{refused}");
}
