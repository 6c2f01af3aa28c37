//! The target's promise: the same tokens give the same bits, however they are batched, cut or rolled back.

use crate::files::{Random, demo};
use crate::suite::{
    ARCHITECTURES, bad_parts_fail_alone, bits, chunks_are_exact, extend, forks_are_exact,
    lone_rows_of_long_contexts_are_exact, long_prompts_are_exact, ragged_batches_are_exact,
    rollbacks_are_exact,
};
use crate::tiny::{KINDS, Tiny, open};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use dunlin_lm::{Extend, ModelDir, Promise, Target};
use dunlin_lm_candle::{CandleTarget, KvType, THREADS_VARIABLE};
use std::{env, process};

#[test]
fn a_bare_gguf_file_opens() {
    let model = open(&Tiny::new(GgmlDType::F32));
    assert_eq!((model.dir.vocabulary.size, model.dir.context_max), (53, 128));
    assert_eq!(model.dir.weights, model.folder.path().join("model.gguf"));
}

#[test]
fn random_ragged_batches_have_the_bits_of_single_tokens() {
    for kind in KINDS {
        let model = open(&Tiny { context: 256, ..Tiny::new(kind) });
        let mut target = model.target();
        for seed in 0..2 {
            ragged_batches_are_exact(&mut target, seed, 96, 8);
        }
    }
}

/// Shapes that candle's fast kernels don't support: inner sizes that aren't a multiple of 256, odd numbers of rows.
#[test]
fn odd_shapes_have_the_bits_of_single_tokens() {
    let narrow = Tiny { hidden: 96, inner: 160, head_dim: 24, vocabulary: 67, ..Tiny::new(GgmlDType::Q8_0) };
    for kind in [GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::F32] {
        let model = open(&Tiny { kind, ..narrow.clone() });
        ragged_batches_are_exact(&mut model.target(), 5, 67, 8);
    }
}

/// The window of 9 lies within the walks' lengths, so that rollbacks and chunks cross its edge.
#[test]
fn every_architecture_has_the_bits_of_single_tokens() {
    for architecture in ARCHITECTURES {
        let tiny = Tiny { window: Some(9), has_biases: true, context: 256, ..Tiny::of(architecture) };
        let model = open(&tiny);
        for seed in 0..2 {
            ragged_batches_are_exact(&mut model.target(), seed, tiny.vocabulary, 8);
        }
    }
}

/// With its last layer's window of 9 and no other layer, a text of 40 tokens depends on its last 9 alone: rows of sessions
/// with different beginnings are equal from there on.
#[test]
fn what_a_window_hides_has_no_effect() {
    let tiny = Tiny { layers: 1, window: Some(9), ..Tiny::of("qwen2") };
    let mut target = open(&tiny).target();
    let width = target.vocabulary().size as usize;
    let one = Random(4).tokens(40, tiny.vocabulary);
    let mut other = one.clone();
    other[0] = (one[0] + 1) % tiny.vocabulary as u32;
    let [one, other] = [one, other].map(|tokens| {
        let session = target.open().unwrap();
        bits(&extend(&mut target, session, 0, &tokens))
    });
    assert_eq!(one[9 * width..], other[9 * width..]);
    assert!((0..9).all(|row| one[row * width..][..width] != other[row * width..][..width]));
}

#[test]
fn the_demo_target_is_exact() {
    let dir = ModelDir::open(demo("target")).unwrap();
    let mut target = CandleTarget::load(&dir, usize::MAX).unwrap();
    ragged_batches_are_exact(&mut target, 9, dir.vocabulary.size as usize, 6);
}

#[test]
fn a_long_prompt_has_the_bits_of_single_tokens() {
    let model = open(&Tiny { context: 320, ..Tiny::new(GgmlDType::Q8_0) });
    long_prompts_are_exact(&mut model.target(), 96);
    lone_rows_of_long_contexts_are_exact(&mut model.target(), 96);
}

#[test]
fn a_context_has_the_same_bits_in_chunks_of_any_size() {
    for kind in [KvType::F32, KvType::F16] {
        let model = open(&Tiny { context: 320, ..Tiny::new(GgmlDType::Q8_0) });
        chunks_are_exact(&mut model.target().with_kv_type(kind), 96);
    }
}

#[test]
fn a_cache_of_16_bits_is_exact_too_but_another_target() {
    let model = open(&Tiny { context: 256, ..Tiny::new(GgmlDType::Q8_0) });
    let mut target = model.target().with_kv_type(KvType::F16);
    for seed in 0..3 {
        ragged_batches_are_exact(&mut target, seed, 96, 8);
    }
    let mut wide = model.target();
    assert_eq!(target.cache_bytes_per_token() * 2, wide.cache_bytes_per_token());
    assert_eq!((target.promise(), wide.promise()), (Promise::Exact, Promise::Exact));
    let (identity, other) = (target.identity().clone(), wide.identity().clone());
    assert_eq!(identity.weights, other.weights);
    assert_ne!(identity.numerics_digest(), other.numerics_digest());
    assert!(identity.numerics.ends_with(" f16") && other.numerics.ends_with(" f32"), "{identity}");
    let (a, b) = (target.open().unwrap(), wide.open().unwrap());
    let tokens = Random(8).tokens(40, 96);
    let (narrow, full) = (extend(&mut target, a, 0, &tokens), extend(&mut wide, b, 0, &tokens));
    assert_ne!(bits(&narrow), bits(&full), "their numbers differ");
    let most = narrow.iter().zip(&full).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = full.iter().fold(0.0_f32, |most, number| most.max(number.abs()));
    assert!(most < 0.05 * size, "{most} of {size}");
}

#[test]
fn a_fork_has_the_bits_of_a_session_that_read_its_tokens() {
    for kind in [KvType::F32, KvType::F16] {
        let model = open(&Tiny::new(GgmlDType::Q8_0));
        forks_are_exact(&mut model.target().with_kv_type(kind), 96);
    }
}

/// The name of the test below whose process prints its bits.
const PRINTS: &str = "DUNLIN_PRINT_BITS";

/// candle and the attention use as many threads as the process was started with, so each number has a process.
#[test]
fn one_thread_and_two_give_the_same_bits() {
    if env::var_os(PRINTS).is_some() {
        let model = open(&Tiny { context: 512, ..Tiny::new(GgmlDType::Q8_0) });
        let mut target = model.target();
        ragged_batches_are_exact(&mut target, 2, 96, 6);
        let session = target.open().unwrap();
        // Long enough for the attention of one pass to be divided.
        let rows = bits(&extend(&mut target, session, 0, &Random(6).tokens(500, 96)));
        let digest = rows.iter().fold(0_u64, |sum, bits| sum.rotate_left(5) ^ u64::from(*bits));
        println!("bits {digest:016x} with {} threads", dunlin_lm_candle::threads());
        return;
    }
    let found = ["1", "2"].map(|threads| {
        let mut child = process::Command::new(env::current_exe().unwrap());
        child.args(["--exact", "target::one_thread_and_two_give_the_same_bits", "--nocapture"]);
        let output = child.env(PRINTS, "1").env(THREADS_VARIABLE, threads).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let (_, line) = output.split_once("bits ").unwrap_or_else(|| panic!("{output}"));
        let (digest, used) = line.split_once(" with ").unwrap();
        assert!(used.starts_with(&format!("{threads} threads")), "{output}");
        digest.to_owned()
    });
    assert_eq!(found[0], found[1]);
}

#[test]
fn a_rollback_leaves_no_trace() {
    rollbacks_are_exact(&mut open(&Tiny::new(GgmlDType::Q4K)).target());
}

#[test]
fn a_bad_part_fails_alone() {
    bad_parts_fail_alone(&mut open(&Tiny::new(GgmlDType::F32)).target());
}

#[test]
fn the_cache_has_a_budget() {
    let tiny = Tiny::new(GgmlDType::F32);
    let model = open(&tiny);
    // 64 positions of 2 layers × 2 × 128 numbers of 4 bytes.
    let step = 64 * 2 * 2 * 128 * 4;
    let mut target = CandleTarget::load(&model.dir, 2 * step).unwrap();
    let (a, b) = (target.open().unwrap(), target.open().unwrap());
    let tokens = vec![1; 65];
    extend(&mut target, a, 0, &tokens);
    let batch = [Extend { session: b, keep: 0, tokens: &[1], rows: 1 }];
    let refused = target.extend(&batch).pop().unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "cache full: {step} bytes more than the {} in use exceed the budget of {} bytes",
            2 * step,
            2 * step
        )
    );
    target.close(a);
    extend(&mut target, b, 0, &[1]);
}

/// The error of loading a file.
fn refusal(tiny: &Tiny) -> String {
    CandleTarget::load(&open(tiny).dir, usize::MAX).unwrap_err().to_string()
}

fn with(key: &str, value: Value) -> Tiny {
    Tiny { metadata: vec![(key.into(), value)], ..Tiny::new(GgmlDType::F32) }
}

#[test]
fn files_of_other_models_are_refused_by_name() {
    let refused = |tiny: Tiny, parts: &[&str]| {
        let message = refusal(&tiny);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let plain = Tiny::new(GgmlDType::F32);
    refused(with("llama.rope.scaling.type", Value::String("dynamic".into())), &["dynamic", "not supported"]);
    refused(
        with("llama.attention.head_count_kv", Value::U32(3)),
        &["head_count_kv", "a divisor of 4", "found 3"],
    );
    refused(with("llama.attention.head_count", Value::U32(0)), &["head_count", "found 0"]);
    refused(
        with("llama.attention.head_count", Value::String("x".into())),
        &["head_count", "an unsigned integer"],
    );
    refused(with("llama.attention.value_length", Value::U32(32)), &["value_length", "64", "found 32"]);
    refused(with("llama.rope.dimension_count", Value::U32(66)), &["dimension_count", "found 66"]);
    refused(with("llama.rope.freq_base", Value::F32(-1.0)), &["freq_base", "above 0", "-1"]);
    refused(
        with("llama.embedding_length", Value::U32(128)),
        &["tensor token_embd.weight", "[96, 128]", "[96, 256]"],
    );
    refused(with("llama.block_count", Value::U32(3)), &["tensor blk.2.", "found nothing"]);
    refused(with("llama.block_count", Value::U32(1)), &["tensor blk.1.", "not supported"]);
    refused(
        Tiny { without: Some("blk.1.attn_q.weight"), ..plain.clone() },
        &["blk.1.attn_q.weight", "nothing"],
    );
    refused(
        Tiny { extra: Some("blk.0.attn_q_norm.weight"), ..plain.clone() },
        &["tensor blk.0.attn_q_norm.weight is not supported: use a dense model"],
    );
    refused(
        Tiny { extra: Some("blk.0.attn_norm.bias"), ..plain.clone() },
        &["tensor blk.0.attn_norm.bias is not supported"],
    );
    refused(
        Tiny { without: Some("blk.1.attn_k_norm.weight"), ..Tiny::of("qwen3") },
        &["blk.1.attn_k_norm.weight", "nothing"],
    );
    refused(
        with("llama.attention.sliding_window_pattern", Value::Array(vec![Value::Bool(true)])),
        &["sliding_window_pattern", "2 values", "found 1"],
    );
    refused(Tiny { frequency_factors: Some(vec![0.0; 32]), ..plain }, &["rope_freqs.weight", "above 0"]);
}

/// A setting that isn't applied would give another text; one that changes nothing is taken.
#[test]
fn settings_that_are_not_applied_are_refused() {
    let foreign = [
        ("llama.attention.scale", Value::F32(0.5)),
        ("llama.attention.clamp_kqv", Value::F32(8.0)),
        ("llama.attention.causal", Value::Bool(false)),
        ("llama.logit_scale", Value::F32(0.25)),
        ("llama.embedding_scale", Value::F32(12.0)),
        ("llama.residual_scale", Value::F32(0.2)),
        ("llama.attn_logit_softcapping", Value::F32(50.0)),
        ("llama.final_logit_softcapping", Value::F32(30.0)),
        ("llama.use_parallel_residual", Value::Bool(true)),
        ("llama.rope.scaling.attn_factor", Value::F32(1.2)),
        ("llama.expert_count", Value::U32(8)),
        ("llama.rope.scaling.yarn_log_multiplier", Value::F32(1.0)),
        ("llama.attention.temperature_scale", Value::F32(0.1)),
        ("llama.rope.freq_base_swa", Value::F32(10000.0)),
        ("llama.unheard_of", Value::U32(3)),
        ("llama.logit_scale", Value::String("x".into())),
        ("llama.logit_scale", Value::F32(f32::NAN)),
    ];
    for (key, value) in foreign {
        let message = refusal(&with(key, value));
        assert!(message.contains(&format!("{key} of ")) && message.contains("not supported"), "{message}");
    }
    let metadata = [
        // The heads of these files have 64 numbers.
        ("llama.attention.scale", Value::F32(0.125)),
        ("llama.attention.causal", Value::Bool(true)),
        ("llama.logit_scale", Value::F32(1.0)),
        ("llama.expert_count", Value::U32(0)),
        ("llama.use_parallel_residual", Value::Bool(false)),
        ("llama.unheard_of", Value::U32(0)),
        ("llama.rope.scaling.finetuned", Value::Bool(true)),
        ("qwen2.unheard_of", Value::U32(3)),
    ];
    let metadata = metadata.map(|(key, value)| (key.into(), value)).into();
    let tiny = Tiny { metadata, ..Tiny::new(GgmlDType::F32) };
    CandleTarget::load(&open(&tiny).dir, usize::MAX).unwrap();
}

/// YaRN whose result isn't that of transformers.
#[test]
fn odd_yarn_is_refused() {
    let yarn = |key: &str, value: Value| {
        let mut tiny = with("llama.rope.scaling.type", Value::String("yarn".into()));
        tiny.metadata.push((key.into(), value));
        refusal(&tiny)
    };
    let mixed = yarn("llama.rope.scaling.yarn_ext_factor", Value::F32(0.5));
    assert!(mixed.contains("yarn_ext_factor of 0.5 is not supported"), "{mixed}");
    let short = yarn("llama.rope.scaling.original_context_length", Value::U32(0));
    assert!(short.contains("original_context_length: expected at least 1"), "{short}");
    let base = yarn("llama.rope.freq_base", Value::F32(1.0));
    assert!(base.contains("freq_base: expected a number above 1"), "{base}");
}

/// The other factors apply to all positions of a longer text, so that its keys would have to be computed again.
#[test]
fn of_two_sets_of_rotary_angles_the_first_limits_the_context() {
    let tiny = Tiny { long_factors: Some(vec![1.5; 8]), ..Tiny::of("phi3") };
    let metadata = vec![tiny.key("rope.scaling.original_context_length", Value::U32(40))];
    let tiny = Tiny { metadata, ..tiny };
    assert_eq!(open(&tiny).target().context_max(), 40);
    let mut odd = tiny.clone();
    odd.metadata.push(tiny.key("rope.scaling.type", Value::String("longrope".into())));
    open(&odd).target();
    odd.metadata.push(tiny.key("rope.scaling.factor", Value::F32(4.0)));
    assert!(refusal(&odd).contains("rope.scaling.factor of 4 is not supported"));
    let lone = Tiny { without: Some("rope_factors_short.weight"), ..tiny.clone() };
    assert!(refusal(&lone).contains("rope_factors_short.weight"));
    let other = Tiny { architecture: "qwen2", metadata: vec![], ..tiny };
    assert!(refusal(&other).contains("tensor rope_factors_long.weight is not supported"));
}

/// A bound that a file of Gemma 2 doesn't name is not guessed; one that no other architecture has is refused.
#[test]
fn bounds_are_named_or_refused() {
    let bare = Tiny { metadata: vec![], ..Tiny::of("gemma2") };
    let refused = refusal(&bare);
    assert!(refused.contains("gemma2.attn_logit_softcapping: expected a number"), "{refused}");
    for (architecture, key) in [("gemma3", "attn_logit_softcapping"), ("gemma", "final_logit_softcapping")] {
        let tiny = Tiny::of(architecture);
        let metadata = vec![tiny.key(key, Value::F32(30.0))];
        let refused = refusal(&Tiny { metadata, ..tiny });
        assert!(refused.contains(&format!("{architecture}.{key} of 30 is not supported")), "{refused}");
    }
}

#[test]
fn another_architecture_is_refused_by_name() {
    let refused = refusal(&Tiny::of("mamba"));
    assert!(refused.contains("architecture \"mamba\" is not supported"), "{refused}");
    assert!(ARCHITECTURES.iter().all(|architecture| refused.contains(architecture)), "{refused}");
}

/// candle writes no file of such a type, so the type's number is changed in the file.
#[test]
fn a_type_that_is_not_computed_with_is_refused_by_name() {
    let model = open(&Tiny::new(GgmlDType::Q4_0));
    let path = model.folder.path().join("model.gguf");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"blk.1.ffn_down.weight";
    let begin = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // Behind the name: the number of dimensions, two of them, the type.
    let kind = begin + 4 + 2 * 8;
    assert_eq!(bytes[kind], 2);
    // IQ4_NL has blocks of the same size.
    bytes[kind] = 20;
    std::fs::write(&path, bytes).unwrap();
    let refused = CandleTarget::load(&model.dir, usize::MAX).unwrap_err().to_string();
    assert!(refused.contains("model.gguf: tensor blk.1.ffn_down.weight of type IQ4_NL"), "{refused}");
    assert!(refused.contains("requantize the model to Q4_K_M or Q8_0"), "{refused}");
}

/// A damaged file is either still a model or an error, never a panic, neither when it is loaded nor when it runs.
#[test]
fn spoilt_headers_of_every_architecture_do_no_harm() {
    for architecture in ARCHITECTURES {
        let model = open(&Tiny { has_biases: true, ..Tiny::of(architecture) });
        let path = model.folder.path().join("model.gguf");
        let whole = std::fs::read(&path).unwrap();
        let header = whole.windows(11).rposition(|w| w == b"output_norm").unwrap();
        let random = &mut Random(2);
        for _ in 0..60 {
            let mut spoilt = whole.clone();
            for _ in 0..4 {
                spoilt[random.below(header + 64)] = random.below(256) as u8;
            }
            std::fs::write(&path, &spoilt).unwrap();
            let Ok(mut target) = CandleTarget::load(&model.dir, 1 << 24) else { continue };
            let session = target.open().unwrap();
            let _ = target.extend(&[Extend { session, keep: 0, tokens: &[1, 2, 3], rows: 3 }]);
        }
    }
}

/// An unfinished download may leave zeros in a file of the full length.
#[test]
fn a_hole_in_the_weights_is_an_error() {
    for kind in [GgmlDType::F32, GgmlDType::Q8_0, GgmlDType::Q4K] {
        let model = open(&Tiny::new(kind));
        let path = model.folder.path().join("model.gguf");
        let mut bytes = std::fs::read(&path).unwrap();
        let place = bytes.len() / 2;
        bytes[place..place + 20_000].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let refused = CandleTarget::load(&model.dir, usize::MAX).unwrap_err().to_string();
        assert!(
            refused.contains("model.gguf") && refused.contains("has zeros alone from its byte"),
            "{refused}"
        );
    }
}

#[test]
fn spoilt_files_are_errors() {
    let model = open(&Tiny::new(GgmlDType::Q8_0));
    let path = model.folder.path().join("model.gguf");
    let whole = std::fs::read(&path).unwrap();
    let header = whole.windows(11).rposition(|w| w == b"output_norm").unwrap();
    let random = &mut Random(2);
    let cuts = (0..40).map(|i| whole[..random.below(if i < 20 { header } else { whole.len() })].to_vec());
    for cut in cuts {
        std::fs::write(&path, &cut).unwrap();
        assert!(CandleTarget::load(&model.dir, usize::MAX).is_err(), "cut at {}", cut.len());
    }
    std::fs::write(&path, b"garbage").unwrap();
    let refused = CandleTarget::load(&model.dir, usize::MAX).unwrap_err().to_string();
    assert!(refused.contains("not a usable GGUF file"), "{refused}");
    let mut swapped = whole;
    swapped[4..8].reverse();
    std::fs::write(&path, &swapped).unwrap();
    let refused = CandleTarget::load(&model.dir, usize::MAX).unwrap_err().to_string();
    assert!(refused.contains("it is of a big-endian machine: convert it"), "{refused}");
}
