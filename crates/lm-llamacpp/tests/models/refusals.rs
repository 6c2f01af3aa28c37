//! Files that can't be targets: each is refused with its name and the reason, and none ends the program.

use crate::files::Random;
use crate::target::{ROOMY, complete, load};
use crate::tiny::{Tiny, open};
use dunlin_lm_candle::files::GgmlDType;
use dunlin_lm_candle::files::gguf_file::Value;
use std::fs;

fn refusal(tiny: Tiny) -> String {
    load(&open(&complete(tiny)), ROOMY).unwrap_err().to_string()
}

fn with(key: &str, value: Value) -> Tiny {
    Tiny { metadata: vec![(key.into(), value)], ..Tiny::new(GgmlDType::F32) }
}

#[test]
fn models_that_are_no_decoders_are_refused_by_name() {
    for (architecture, reason) in [
        ("bert", "an encoder, which writes no text"),
        ("gemma-embedding", "an encoder"),
        ("t5", "an encoder of its own"),
        ("llada", "a diffusion model"),
    ] {
        let refused = refusal(Tiny { architecture, ..Tiny::new(GgmlDType::F32) });
        let named = format!("model.gguf: architecture \"{architecture}\"");
        assert!(refused.contains(&named) && refused.contains(reason), "{refused}");
        assert!(refused.contains("take a decoder"), "{refused}");
    }
}

#[test]
fn a_row_that_depends_on_later_tokens_is_refused() {
    let refused = refusal(with("llama.attention.causal", Value::Bool(false)));
    assert!(refused.contains("a token's row depends on later tokens"), "{refused}");
}

#[test]
fn what_llama_cpp_refuses_has_its_own_words() {
    let refused = refusal(Tiny { architecture: "of-tomorrow", ..Tiny::new(GgmlDType::F32) });
    assert!(refused.contains("model.gguf: not a usable GGUF file: llama.cpp can't load it"), "{refused}");
    assert!(refused.contains("unknown model architecture: 'of-tomorrow'"), "{refused}");
    let missing = refusal(Tiny { without: Some("blk.1.attn_q.weight"), ..Tiny::new(GgmlDType::F32) });
    assert!(missing.contains("blk.1.attn_q"), "{missing}");
}

#[test]
fn sizes_that_can_not_be_right_are_refused() {
    for (key, value) in [
        ("llama.block_count", Value::U32(0)),
        ("llama.block_count", Value::U32(u32::MAX)),
        ("llama.embedding_length", Value::U32(0)),
        ("llama.attention.head_count", Value::U32(0)),
        ("llama.attention.head_count", Value::String("x".into())),
        ("llama.embedding_length", Value::U32(128)),
        ("llama.block_count", Value::U32(3)),
        ("llama.vocab_size", Value::U32(95)),
    ] {
        let refused = refusal(with(key, value.clone()));
        assert!(refused.contains("model.gguf"), "{key} {value:?}: {refused}");
    }
}

#[test]
fn spoilt_files_are_errors() {
    let model = open(&complete(Tiny::new(GgmlDType::Q8_0)));
    let path = model.folder.path().join("model.gguf");
    let whole = fs::read(&path).unwrap();
    let random = &mut Random(2);
    for _ in 0..30 {
        let cut = random.below(whole.len());
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(load(&model, ROOMY).is_err(), "cut at {cut}");
    }
    fs::write(&path, b"garbage").unwrap();
    let refused = load(&model, ROOMY).unwrap_err().to_string();
    assert!(refused.contains("model.gguf: not a usable GGUF file"), "{refused}");
}

/// An assertion, and an exception that llama.cpp doesn't catch: in this process, each would be its end.
#[test]
fn a_file_that_ends_llama_cpp_is_an_error_with_its_words() {
    let refused = refusal(with("llama.expert_used_count", Value::U32(5)));
    assert!(refused.contains("model.gguf: not a usable GGUF file: llama.cpp gave up"), "{refused}");
    assert!(refused.contains("GGML_ASSERT") && refused.contains("fetch the file again"), "{refused}");
}

/// An unfinished download may leave zeros in a file of the full length.
#[test]
fn a_hole_in_the_weights_is_an_error() {
    for kind in [GgmlDType::F32, GgmlDType::Q8_0, GgmlDType::Q4K] {
        let model = open(&complete(Tiny::new(kind)));
        let path = model.folder.path().join("model.gguf");
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.len() / 2;
        bytes[place..place + 20_000].fill(0);
        fs::write(&path, &bytes).unwrap();
        let refused = load(&model, ROOMY).unwrap_err().to_string();
        assert!(
            refused.contains("model.gguf") && refused.contains("has zeros alone from its byte"),
            "{refused}"
        );
    }
}

/// Settings with which llama.cpp computes another text than the published model, without a word.
#[test]
fn settings_that_llama_cpp_does_not_apply_are_refused() {
    let yarn = |rest: &str, value| {
        let key = |rest: &str| format!("llama.rope.scaling.{rest}");
        let metadata = vec![
            (key("type"), Value::String("yarn".into())),
            (key("factor"), Value::F32(2.0)),
            (key(rest), Value::F32(value)),
        ];
        Tiny { metadata, ..Tiny::new(GgmlDType::F32) }
    };
    for (tiny, named) in [
        (Tiny { window: Some(9), ..Tiny::new(GgmlDType::F32) }, "llama.attention.sliding_window of 9"),
        (yarn("yarn_beta_fast", 8.0), "llama.rope.scaling.yarn_beta_fast of 8"),
        (yarn("attn_factor", 1.3), "llama.rope.scaling.attn_factor of 1.3"),
        (
            Tiny { long_factors: Some(vec![1.0; 32]), ..Tiny::new(GgmlDType::F32) },
            "tensor rope_factors_long.weight",
        ),
    ] {
        let refused = refusal(tiny);
        assert!(refused.contains(named) && refused.contains("take the engine candle"), "{refused}");
    }
    for tiny in [
        yarn("yarn_beta_fast", 32.0),
        Tiny { window: Some(128), ..Tiny::new(GgmlDType::F32) },
        Tiny { window: Some(9), head_dim: 16, ..Tiny::of("gemma2") },
    ] {
        load(&open(&complete(tiny)), ROOMY).unwrap();
    }
}
