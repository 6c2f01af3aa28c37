//! The identity of targets, and of their weights in files of any form.

use crate::files::demo;
use crate::tiny::{Tiny, open};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use dunlin_lm::identity::weights_digest;
use dunlin_lm::{Extend, LoadStep, ModelDir, Promise, Target};
use dunlin_lm_candle::CandleTarget;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

type Named<'t> = (&'t str, &'t QTensor);

fn write(path: &Path, tensors: &[Named<'_>], name: &str) -> PathBuf {
    let mut file = fs::File::create(path).unwrap();
    gguf_file::write(&mut file, &[("general.name", &Value::String(name.into()))], tensors).unwrap();
    path.into()
}

fn digest(paths: &[&Path]) -> [u8; 32] {
    weights_digest(paths, &mut |_, _| {}).unwrap()
}

#[test]
fn weights_are_the_same_in_any_order_and_number_of_files() {
    let model = open(&Tiny::new(GgmlDType::Q8_0));
    let folder = model.folder.path();
    let mut tensors: Vec<Named<'_>> =
        model.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let whole = digest(&[&folder.join("model.gguf")]);
    tensors.reverse();
    let reversed = write(&folder.join("reversed.gguf"), &tensors, "another name");
    assert_ne!(fs::read(folder.join("model.gguf")).unwrap(), fs::read(&reversed).unwrap());
    assert_eq!(digest(&[&reversed]), whole);
    let (one, two) = tensors.split_at(7);
    let one = write(&folder.join("1.gguf"), one, "part");
    let two = write(&folder.join("2.gguf"), two, "part");
    assert_eq!(digest(&[&one, &two]), whole);
    assert_eq!(digest(&[&two, &one]), whole);
    assert_ne!(digest(&[&one]), whole);
    let twice = weights_digest(&[&one, &two, &one], &mut |_, _| {}).unwrap_err().to_string();
    assert!(twice.contains("is in another file as well"), "{twice}");
}

#[test]
fn names_types_shapes_and_bytes_are_part_of_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |kind: GgmlDType, shape: (usize, usize), fill: f32| {
        let numbers = candle_core::Tensor::full(fill, shape, &candle_core::Device::Cpu).unwrap();
        QTensor::quantize(&numbers, kind).unwrap()
    };
    let of = |name: &str, tensor: &QTensor| {
        digest(&[&write(&folder.path().join("x.gguf"), &[(name, tensor)], "x")])
    };
    let mut all = vec![
        of("a", &tensor(GgmlDType::F32, (2, 32), 0.0)),
        of("b", &tensor(GgmlDType::F32, (2, 32), 0.0)),
        of("a", &tensor(GgmlDType::F32, (1, 64), 0.0)),
        of("a", &tensor(GgmlDType::F32, (2, 32), 1.0)),
        // Two types with the same bytes.
        of("a", &tensor(GgmlDType::F16, (2, 32), 0.0)),
        of("a", &tensor(GgmlDType::BF16, (2, 32), 0.0)),
    ];
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn progress_ends_with_all_bytes() {
    let model = open(&Tiny::new(GgmlDType::F16));
    let mut seen = Vec::new();
    let path = model.folder.path().join("model.gguf");
    weights_digest(&[&path], &mut |done, total| seen.push((done, total))).unwrap();
    let total = seen[0].1;
    assert!(seen.is_sorted() && seen.iter().all(|(_, of)| *of == total));
    assert_eq!(*seen.last().unwrap(), (total, total));
}

#[test]
fn loading_reports_both_steps_up_to_all_bytes() {
    let model = open(&Tiny::new(GgmlDType::Q8_0));
    let steps = Rc::new(RefCell::new(Vec::new()));
    let seen = steps.clone();
    let progress = Box::new(move |step, done, total| seen.borrow_mut().push((step, done, total)));
    CandleTarget::load_with(&model.dir, usize::MAX, progress).unwrap();
    let steps = steps.borrow();
    for step in [LoadStep::Reading, LoadStep::Hashing] {
        let of: Vec<(u64, u64)> =
            steps.iter().filter(|(s, ..)| *s == step).map(|(_, d, t)| (*d, *t)).collect();
        assert!(of.len() > 10 && of.is_sorted(), "{step:?}: {of:?}");
        assert!(of.last().is_some_and(|(done, total)| done == total), "{step:?}: {of:?}");
    }
}

#[test]
fn a_target_has_an_identity_and_a_promise() {
    let dir = ModelDir::open(demo("target")).unwrap();
    let target = CandleTarget::load(&dir, usize::MAX).unwrap();
    let identity = target.identity();
    assert_eq!(identity.model, dir.name);
    assert_ne!(identity.weights, digest(&[&dir.weights]), "the metadata counts as well");
    assert!(identity.engine.starts_with("candle ") && identity.numerics.ends_with(" f32"), "{identity}");
    assert_eq!(target.promise(), Promise::Exact);
}

/// The identity's digest of a model with these metadata, and that of its tensors alone.
fn with(metadata: &[(&str, Value)]) -> ([u8; 32], [u8; 32]) {
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    let model = open(&Tiny { metadata, ..Tiny::new(GgmlDType::F32) });
    (model.target().identity().weights, digest(&[&model.dir.weights]))
}

#[test]
fn each_number_of_the_metadata_that_a_pass_uses_is_part_of_the_weights() {
    let linear = |factor| {
        [
            ("llama.rope.scaling.type", Value::String("linear".into())),
            ("llama.rope.scaling.factor", Value::F32(factor)),
        ]
    };
    let yarn = |fast| {
        [
            ("llama.rope.scaling.type", Value::String("yarn".into())),
            ("llama.rope.scaling.factor", Value::F32(2.0)),
            ("llama.rope.scaling.yarn_beta_fast", Value::F32(fast)),
        ]
    };
    let (plain, tensors) = with(&[]);
    let others = [
        with(&[("llama.rope.freq_base", Value::F32(500_000.0))]),
        with(&[("llama.rope.dimension_count", Value::U32(32))]),
        with(&linear(2.0)),
        with(&[("llama.attention.sliding_window", Value::U32(9))]),
        with(&[("llama.attention.sliding_window", Value::U32(10))]),
        with(&yarn(32.0)),
        with(&yarn(16.0)),
        with(&[("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-6))]),
        // Other heads of the same tensors.
        with(&[
            ("llama.attention.head_count", Value::U32(8)),
            ("llama.attention.head_count_kv", Value::U32(4)),
            ("llama.attention.key_length", Value::U32(32)),
        ]),
    ];
    assert!(others.iter().all(|(_, of)| *of == tensors), "the tensors are the same");
    let mut all: Vec<[u8; 32]> = others.map(|(weights, _)| weights).into();
    all.push(plain);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10);
}

#[test]
fn metadata_that_no_pass_uses_are_not_part_of_the_weights() {
    let (plain, _) = with(&[]);
    for same in [
        ("general.name", Value::String("another".into())),
        ("llama.context_length", Value::U32(64)),
        ("llama.rope.scaling.type", Value::String("none".into())),
        ("llama.rope.scaling.factor", Value::F32(1.0)),
        // As long as the context.
        ("llama.attention.sliding_window", Value::U32(128)),
    ] {
        assert_eq!(with(std::slice::from_ref(&same)).0, plain, "{same:?}");
    }
}

#[test]
fn a_token_takes_the_cache_bytes_that_are_said() {
    let model = open(&Tiny::new(GgmlDType::F32));
    let bytes = model.target().cache_bytes_per_token();
    // 2 layers of 128 keys and 128 values of 4 bytes.
    assert_eq!(bytes, 2 * 2 * 128 * 4);
    // Room is made for 64 tokens at a time.
    let mut target = CandleTarget::load(&model.dir, 64 * bytes as usize).unwrap();
    let session = target.open().unwrap();
    let tokens = vec![1; 65];
    let mut extend = |count: usize| {
        let part = Extend { session, keep: 0, tokens: &tokens[..count], rows: 0 };
        target.extend(&[part]).pop().unwrap()
    };
    assert!(extend(64).is_ok());
    assert!(extend(65).is_err());
}
