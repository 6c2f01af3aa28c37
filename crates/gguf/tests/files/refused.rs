//! Files with one mistake each, and the error for it.

use crate::build::{File, read, whole};
use dunlin_gguf::limits::{ARRAY_ELEMENTS_MAX, KEYS_MAX, STRING_BYTES_MAX, TENSORS_MAX};

fn message(file: &File) -> String {
    file.read().unwrap_err().to_string()
}

#[test]
fn other_formats_are_refused_by_their_first_bytes() {
    for bytes in [&b""[..], b"GG", b"garbage of some length"] {
        assert_eq!(read(bytes).unwrap_err().to_string(), "it doesn't begin with GGUF");
    }
    let (mut bytes, _) = whole(3).bytes();
    bytes[4..8].reverse();
    assert!(read(&bytes).unwrap_err().to_string().contains("big-endian machine: convert it"));
    assert_eq!(message(&File::of_version(4)), "version 4 is unknown, expected 1 to 3");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (bytes, data) = whole(3).bytes();
    for length in 0..bytes.len() {
        // The last tensor has 288 bytes, the file ends with it.
        assert!(read(&bytes[..length]).is_err(), "cut at {length} of {}, data from {data}", bytes.len());
    }
    let cut = &bytes[..bytes.len() - 1];
    let message = read(cut).unwrap_err().to_string();
    assert!(message.starts_with("tensor output.weight: expected 288 bytes at 160"), "{message}");
}

#[test]
fn repeated_names_are_refused() {
    let twice = File::new().key("a", 0, &[1]).key("a", 0, &[2]);
    assert_eq!(message(&twice), "key \"a\" occurs twice");
    let twice = File::new().tensor("t", &[1], 0, &[0; 4]).tensor("t", &[1], 0, &[0; 4]);
    assert_eq!(message(&twice), "tensor \"t\" occurs twice");
}

#[test]
fn unknown_types_are_named_with_their_place() {
    assert_eq!(message(&File::new().key("a.b", 13, &[0; 8])), "a.b has the unknown type 13");
    assert_eq!(
        message(&File::new().tensor("blk.0.ffn_up.weight", &[32], 77, &[0; 64])),
        "tensor blk.0.ffn_up.weight: expected a known type (requantize the model, such as to Q8_0 or Q4_K_M), found type 77"
    );
    let array = File::new().array(99, 1, &[0; 8]);
    assert_eq!(message(&File::new().key("list", 9, &array)), "list has the unknown type 99");
}

#[test]
fn counts_have_bounds() {
    let over = |max: u64| (max + 1).to_le_bytes();
    let head = |tensors: [u8; 8], keys: [u8; 8]| {
        let bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &tensors, &keys].concat();
        read(&bytes).unwrap_err().to_string()
    };
    assert!(head(over(TENSORS_MAX), [0; 8]).contains("65537 tensors, at most 65536 are allowed"));
    assert!(head([0; 8], over(KEYS_MAX)).contains("65537 keys, at most 65536 are allowed"));
    let string = File::new().key("s", 8, &over(STRING_BYTES_MAX));
    assert_eq!(message(&string), "s: 16777217 bytes of a string, at most 16777216 are allowed");
    let array = [&0u32.to_le_bytes()[..], &over(ARRAY_ELEMENTS_MAX)].concat();
    assert_eq!(
        message(&File::new().key("l", 9, &array)),
        "l: 16777217 elements, at most 16777216 are allowed"
    );
    let nested =
        (0..5).fold(vec![1], |inner, _| File::new().array(if inner == [1] { 0 } else { 9 }, 1, &inner));
    assert_eq!(
        message(&File::new().key("deep", 9, &nested)),
        "deep: 5 arrays within arrays, at most 4 are allowed"
    );
    // A count within the bounds, but with more elements than the file has.
    let array = [&0u32.to_le_bytes()[..], &ARRAY_ELEMENTS_MAX.to_le_bytes()].concat();
    assert_eq!(message(&File::new().key("l", 9, &array)), "it is cut off in l");
    let string = File::new().key("s", 8, &STRING_BYTES_MAX.to_le_bytes());
    assert_eq!(message(&string), "it is cut off in s");
}

#[test]
fn shapes_are_checked() {
    let shape = |dimensions: &[u64], kind| message(&File::new().tensor("t", dimensions, kind, &[0; 64]));
    assert_eq!(shape(&[], 0), "tensor t: expected 1 to 4 dimensions, found 0");
    assert_eq!(shape(&[1; 5], 0), "tensor t: expected 1 to 4 dimensions, found 5");
    let blocks = "tensor t: expected a shape of whole blocks of 32 numbers of type Q8_0, found ";
    assert_eq!(shape(&[33], 8), format!("{blocks}[33]"));
    // The elements fill whole blocks, but those of one row don't.
    assert_eq!(shape(&[16, 2], 8), format!("{blocks}[2, 16]"));
    assert_eq!(shape(&[0, 2], 8), format!("{blocks}[2, 0]"));
    assert!(shape(&[1 << 62, 8], 0).contains("whole blocks of 1 numbers of type F32"));
}

#[test]
fn places_outside_the_file_are_refused() {
    for offset in [64, u64::MAX, u64::MAX - 100] {
        let mut file = File::new().tensor_at("t", &[8], 0, offset);
        file.data = vec![0; 64];
        let message = message(&file);
        let expected = format!("tensor t: expected 32 bytes at {offset} of its data, found a file of ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn truth_values_and_alignments_are_checked() {
    assert_eq!(message(&File::new().key("b", 7, &[2])), "b: expected 0 or 1 as a truth value, found 2");
    for alignment in [0u32, 24, 1 << 21] {
        let file = File::new().key("general.alignment", 4, &alignment.to_le_bytes());
        assert!(message(&file).starts_with("general.alignment: expected a power of 2 up to"));
    }
}

#[test]
fn a_long_text_is_shown_in_part() {
    let header =
        File::new().text("general.architecture", "llama").text("n", &"x".repeat(500)).read().unwrap();
    let message = header.u32("n").unwrap_err().to_string();
    assert!(message.contains("xxx…") && message.len() < 150, "{message}");
}

#[test]
fn an_embedding_must_be_a_matrix() {
    let header = File::new().tensor("token_embd.weight", &[2], 0, &[0; 8]).read().unwrap();
    let message = header.vocabulary_size().unwrap_err().to_string();
    assert_eq!(message, "tensor token_embd.weight: expected a matrix, found [2]");
}
