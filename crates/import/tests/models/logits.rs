//! An imported drafter gives the logits of its source.

use crate::files::Random;
use crate::small::{Small, Tensors, differences, imported, safetensors};
use dunlin_import::{
    Agreement, BLOCK, HeadBits, Import, ImportReport, Kept, LayerChoice, QUESTION, REPLY, TEMPERATURE, Watch,
    import, quantize_block,
};
use dunlin_lm::{Draft, Extend, ModelDir, Role, Target};
use dunlin_lm_candle::CandleTarget;
use dunlin_lm_tract::Drafter;
use std::fs;
use std::path::Path;

/// The largest accepted difference of logits, as a part of their spread: 32-bit sums in another order.
const LOGITS: f64 = 2e-5;
/// The largest accepted difference of attention.
const ATTENTION: f64 = 1e-5;

fn close(small: &Small, tensors: &Tensors, out: &Path, layers: &[usize]) {
    let (logits, attention) = differences(small, tensors, out, layers);
    assert!(logits < LOGITS && attention < ATTENTION, "{logits} of logits, {attention} of attention");
}

/// Imports a GGUF file whose matrices have the type `kind` into `folder/kind`, and compares it with the reference.
fn gguf_is_close(small: &Small, folder: &Path, kind: &str) -> ImportReport {
    let (source, out) = (folder.join(format!("{kind}.gguf")), folder.join(kind));
    fs::write(&source, small.gguf(kind)).unwrap();
    let report = imported(&source, &out, LayerChoice::All).unwrap();
    close(small, &small.tensors(), &out, &[0, 1]);
    report
}

fn hugging_face_is_close(small: &Small, kind: &str, files: usize) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    small.safetensors(folder.path(), kind, files);
    imported(folder.path(), &out, LayerChoice::All).unwrap();
    close(small, &small.tensors(), &out, &[0, 1]);
}

/// The weights are such that 4 bits hold them, whatever the file's type: nothing may be lost.
#[test]
fn each_type_of_a_gguf_file_gives_the_same_weights() {
    let (small, folder) = (Small::new("llama"), tempfile::tempdir().unwrap());
    let data = |kind: &str| fs::read(folder.path().join(kind).join("model.onnx_data")).unwrap();
    for kind in ["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_K"] {
        let report = gguf_is_close(&small, folder.path(), kind);
        assert!(report.tensors.iter().all(|tensor| tensor.error < 1e-7), "{:?}", report.worst());
        assert_eq!(data(kind), data("F32"), "{kind}");
        let twice = report.tensors.iter().filter(|tensor| tensor.is_rounded_twice()).count();
        // 7 matrices in each layer and the head; the embedding is kept as floats.
        assert_eq!(twice, if kind.starts_with('Q') { 15 } else { 0 }, "{kind}");
    }
    let report = gguf_is_close(&small, folder.path(), "Q4_0");
    assert!(report.tensors.iter().all(|tensor| tensor.kept == Kept::Codes && tensor.error == 0.0));
    assert!(data("Q4_0").len() < data("F32").len());
}

#[test]
fn each_type_of_safetensors_gives_the_same_logits() {
    for (kind, files) in [("F32", 1), ("F16", 3), ("BF16", 1)] {
        hugging_face_is_close(&Small::new("llama"), kind, files);
    }
}

#[test]
fn biases_and_norms_of_heads_count() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in ["qwen2", "qwen3"] {
        let small = Small::new(architecture);
        gguf_is_close(&small, &folder.path().join(""), "F16");
        fs::remove_dir_all(folder.path().join("F16")).unwrap();
        hugging_face_is_close(&small, "F32", 2);
    }
    // Llama's converter permutes biases, too.
    gguf_is_close(&Small { has_bias: true, ..Small::new("llama") }, folder.path(), "F32");
    hugging_face_is_close(&Small::new("mistral"), "BF16", 1);
}

#[test]
fn a_tied_head_is_the_embedding() {
    let small = Small { is_tied: true, ..Small::new("llama") };
    let folder = tempfile::tempdir().unwrap();
    gguf_is_close(&small, folder.path(), "Q4_0");
    let size = |kind: &str| fs::metadata(folder.path().join(kind).join("model.onnx_data")).unwrap().len();
    let tied = size("Q4_0");
    gguf_is_close(&Small { is_tied: false, ..small.clone() }, &folder.path().join(""), "F16");
    // 16 bytes of codes and 2 of scale for 32 numbers: the tied matrix is in the file once.
    let table = (small.vocabulary * small.hidden / 32 * 18) as u64;
    let matrices = (1024 * 256 + 512 * 256 + 3 * 512 * 256) * 2 / 32 * 18;
    assert!(tied < matrices + table + 16_384, "{tied} of {matrices} and {table}");
    hugging_face_is_close(&small, "F32", 1);
}

#[test]
fn as_many_key_heads_as_query_heads_work() {
    let folder = tempfile::tempdir().unwrap();
    gguf_is_close(&Small { kv_heads: 4, head_dim: 64, ..Small::new("llama") }, folder.path(), "F32");
}

/// 172, as stories260K has it, is no multiple of 32.
#[test]
fn an_inner_width_of_parts_of_blocks_is_filled_up() {
    let small = Small { inner: 172, ..Small::new("llama") };
    let folder = tempfile::tempdir().unwrap();
    gguf_is_close(&small, folder.path(), "F32");
    hugging_face_is_close(&small, "F16", 1);
}

#[test]
fn rotary_positions_are_scaled() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Small { base: 50_000.0, ..Small::new("llama") };
    let linear = Small { factor: 4.0, ..plain.clone() };
    gguf_is_close(&linear, folder.path(), "F32");
    hugging_face_is_close(&linear, "F32", 1);
    let llama3 = plain.with_llama3();
    gguf_is_close(&llama3, folder.path(), "F16");
    hugging_face_is_close(&llama3, "F32", 1);
}

#[test]
fn chosen_layers_make_a_smaller_drafter() {
    let small = Small { layers: 4, ..Small::new("llama") };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, small.gguf("Q8_0")).unwrap();
    let choices = [(LayerChoice::Only(vec![0, 1, 3]), "only"), (LayerChoice::Without(vec![2]), "without")];
    for (choice, name) in choices {
        let report = imported(&source, &folder.path().join(name), choice).unwrap();
        assert_eq!((report.layers.as_slice(), report.source_layers), (&[0, 1, 3][..], 4));
        close(&small, &small.tensors(), &folder.path().join(name), &[0, 1, 3]);
        assert_eq!(ModelDir::open(folder.path().join(name)).unwrap().name, "m (3 of 4 layers)");
    }
}

/// The target's engine reads the same file by other code.
#[test]
fn the_targets_engine_gives_the_same_logits() {
    let (small, folder) = (Small::new("llama"), tempfile::tempdir().unwrap());
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, small.gguf("F32")).unwrap();
    imported(&source, &out, LayerChoice::All).unwrap();
    let (mut drafter, _) = Drafter::load(&ModelDir::open(&out).unwrap()).unwrap();
    let mut target = CandleTarget::load(&ModelDir::open(&source).unwrap(), usize::MAX).unwrap();
    let tokens = Random(9).tokens(30, small.vocabulary);
    let session = target.open().unwrap();
    let all = [Extend { session, keep: 0, tokens: &tokens, rows: tokens.len() }];
    let expected = target.extend(&all).pop().unwrap().unwrap();
    let rows = drafter.extend(&tokens).unwrap();
    let found: Vec<f32> = (0..rows.len()).flat_map(|row| rows.logits(row).to_vec()).collect();
    let spread = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
    let most = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(most < 1e-4 * spread, "{most} of {spread}");
}

/// Weights that 4 bits don't hold: the drafter has the weights of [`quantize_block`], and the report its errors.
#[test]
fn rounded_weights_are_the_reported_ones() {
    let small = Small { is_exact: false, is_tied: true, ..Small::new("qwen3") };
    let folder = tempfile::tempdir().unwrap();
    small.safetensors(folder.path(), "F32", 1);
    let out = folder.path().join("out");
    let report = imported(folder.path(), &out, LayerChoice::All).unwrap();
    let mut tensors = small.tensors();
    for (name, (shape, numbers)) in &mut tensors {
        if shape.len() == 1 {
            continue;
        }
        let rounded = rounded(numbers);
        let (mut error, mut square) = (0.0, 0.0);
        for (before, after) in numbers.iter().zip(&rounded) {
            error += f64::from(before - after).powi(2);
            square += f64::from(*before).powi(2);
        }
        let all = report.tensors.iter().filter(|tensor| tensor.name == *name && tensor.kept == Kept::Rounded);
        let reported: Vec<f64> = all.map(|tensor| tensor.error).collect();
        assert!((reported[0] - (error / square).sqrt()).abs() < 1e-9 && reported.len() == 1, "{name}");
        assert!((0.05..0.09).contains(&reported[0]), "{name}: {}", reported[0]);
        if name != "model.embed_tokens.weight" {
            *numbers = rounded;
        }
    }
    // The embedding is kept as floats, and rounded where it is the head.
    let head = rounded(&tensors["model.embed_tokens.weight"].1);
    tensors.insert("lm_head.weight".into(), (vec![small.vocabulary, small.hidden], head));
    close(&Small { is_tied: false, ..small }, &tensors, &out, &[0, 1]);
}

/// The built-in text as `dir` splits it, and the first token whose successor is compared.
fn text(dir: &ModelDir) -> (Vec<u32>, usize) {
    let mut tokens = dir.first_turn(QUESTION).unwrap();
    let first = tokens.len() - 1;
    tokens.extend(dir.tokenizer.encode_text(REPLY).unwrap());
    let skipped = tokens.len().saturating_sub(192.min(dir.context_max));
    (tokens.split_off(skipped), first.saturating_sub(skipped))
}

fn probabilities(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| ((logit - most) / TEMPERATURE).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn overlap(one: &[f64], other: &[f64]) -> f64 {
    probabilities(one).iter().zip(probabilities(other)).map(|(p, q)| p.min(q)).sum()
}

/// Imports `source` with the bits of the head that are measured, and compares the measured agreement with that of the
/// reference and of the drafter's engine.
fn agreement_is_right(small: &Small, source: &Path, layers: LayerChoice, taken: &[usize]) -> Agreement {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("four");
    imported(source, &out, layers.clone()).unwrap();
    let dir = ModelDir::open(&out).unwrap();
    let (tokens, first) = text(&dir);
    let used = dir.vocabulary.size as usize;
    let tensors = small.tensors();
    let mut body = tensors.clone();
    let tables = ["model.embed_tokens.weight", "lm_head.weight"];
    for (_, (shape, numbers)) in body.iter_mut().filter(|(name, _)| !tables.contains(&name.as_str())) {
        if shape.len() == 2 {
            *numbers = rounded(numbers);
        }
    }
    let all: Vec<usize> = (0..small.layers).collect();
    let target = small.reference(&tensors, &tokens, &all);
    let own = small.reference(&body, &tokens, taken);
    let (mut drafter, _) = Drafter::load(&dir).unwrap();
    let rows = drafter.extend(&tokens).unwrap();
    let (mut four, mut eight, mut count) = (0.0, 0.0, 0);
    for at in first.min(tokens.len() - 2)..tokens.len() - 1 {
        let drafted: Vec<f64> = rows.logits(at).iter().map(|x| f64::from(*x)).collect();
        four += overlap(&target[at].0[..used], &drafted[..used]);
        eight += overlap(&target[at].0[..used], &own[at].0[..used]);
        count += 1;
    }
    let (four, eight) = (four / f64::from(count), eight / f64::from(count));
    let job = Import {
        source: source.into(),
        out: folder.path().join("measured"),
        name: None,
        role: Role::Drafter,
        layers,
        head: HeadBits::Measured,
    };
    let report = import(&job, &mut Watch::new(&mut |done, total| done <= total)).unwrap();
    let found = report.agreement.unwrap();
    assert_eq!(found.tokens, count as usize);
    assert!((found.four - four).abs() < 1e-3, "{found}: {four}");
    assert!((found.own - eight).abs() < 1e-3, "{found}: {eight}");
    let is_8 = report.tensors.iter().any(|tensor| tensor.kept == Kept::RoundedTo8);
    assert_eq!(is_8, found.needs_eight_bits());
    found
}

#[test]
fn the_agreement_is_that_of_both_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for architecture in ["llama", "qwen2"] {
        let small = Small { is_exact: false, layers: 3, ..Small::new(architecture) };
        fs::write(path("m.gguf"), small.gguf("F32")).unwrap();
        let found = agreement_is_right(&small, &path("m.gguf"), LayerChoice::All, &[0, 1, 2]);
        assert!(found.four < found.own && found.own < 1.0, "{found}");
        agreement_is_right(&small, &path("m.gguf"), LayerChoice::Without(vec![1]), &[0, 2]);
    }
    let small = Small { is_exact: false, inner: 172, is_tied: true, ..Small::new("qwen3") };
    fs::write(path("m.gguf"), small.gguf("F32")).unwrap();
    agreement_is_right(&small, &path("m.gguf"), LayerChoice::All, &[0, 1]);
}

#[test]
fn a_head_that_4_bits_cost_much_gets_8() {
    let small = Small { is_exact: false, head_scale: 16.0, ..Small::new("llama") };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("m.gguf");
    fs::write(&source, small.gguf("F32")).unwrap();
    let found = agreement_is_right(&small, &source, LayerChoice::All, &[0, 1]);
    assert!(found.needs_eight_bits(), "{found}");
}

/// The fixture's tokenizer has few words. The import goes on without a measurement, and says so.
#[test]
fn a_model_without_words_is_not_measured() {
    let (small, folder) = (Small::new("llama"), tempfile::tempdir().unwrap());
    small.safetensors(folder.path(), "F32", 1);
    let (source, out) = (folder.path().into(), folder.path().join("out"));
    let job = Import {
        source,
        out,
        name: None,
        role: Role::Drafter,
        layers: LayerChoice::All,
        head: HeadBits::Measured,
    };
    let report = import(&job, &mut Watch::new(&mut |done, total| done <= total)).unwrap();
    assert_eq!(report.agreement, None);
    assert!(report.tensors.iter().all(|tensor| tensor.kept != Kept::RoundedTo8));
    let notice = report.notices.iter().find(|notice| notice.contains("not chosen by measurement"));
    assert!(notice.unwrap().contains("<unk>"), "{:?}", report.notices);
}

/// Nothing is lost, so nothing is gained by more bits.
#[test]
fn a_head_that_4_bits_hold_gets_no_more() {
    let (small, folder) = (Small::new("llama"), tempfile::tempdir().unwrap());
    let source = folder.path().join("m.gguf");
    fs::write(&source, small.gguf("F16")).unwrap();
    let found = agreement_is_right(&small, &source, LayerChoice::All, &[0, 1]);
    assert!(found.four > 0.999 && !found.needs_eight_bits(), "{found}");
}

fn rounded(numbers: &[f32]) -> Vec<f32> {
    let blocks = numbers.as_chunks::<BLOCK>().0;
    blocks
        .iter()
        .flat_map(|block| {
            let (scale, codes) = quantize_block(block);
            codes.map(|code| (f32::from(code) - 8.0) * scale)
        })
        .collect()
}

/// A table of more than 16 MiB as floats is stored in 4 bits.
#[test]
fn a_large_embedding_is_stored_in_4_bits() {
    let small = Small {
        vocabulary: 66_000,
        hidden: 64,
        inner: 64,
        is_tied: true,
        heads: 1,
        kv_heads: 1,
        head_dim: 64,
        layers: 1,
        ..Small::new("llama")
    };
    let folder = tempfile::tempdir().unwrap();
    small.safetensors(folder.path(), "F16", 1);
    let out = folder.path().join("out");
    let report = imported(folder.path(), &out, LayerChoice::All).unwrap();
    assert_eq!(report.tensors.iter().filter(|tensor| tensor.name.contains("embed")).count(), 1);
    assert_eq!(report.tensors[0].kept, Kept::Rounded);
    close(&small, &small.tensors(), &out, &[0]);
    let mut tensors = small.tensors();
    tensors.retain(|name, _| name != "model.norm.weight");
    fs::write(folder.path().join("model.safetensors"), safetensors(&tensors, "F16")).unwrap();
    assert!(imported(folder.path(), &folder.path().join("b"), LayerChoice::All).is_err());
}
