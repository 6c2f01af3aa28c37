//! Targets of folders of safetensors.

use crate::files::Random;
use crate::small::{Small, imported};
use dunlin_import::{HeadBits, Import, ImportReport, Kept, LayerChoice, Watch, import};
use dunlin_lm::{Error, Extend, ModelDir, Role, Target};
use dunlin_lm_candle::CandleTarget;
use std::fs;
use std::path::Path;

/// The largest accepted root of the mean squared difference of logits, as a part of their spread: 8 bits lose some,
/// another order of rows loses all.
const LOGITS: f64 = 0.05;

fn target_of(source: &Path, out: &Path) -> Result<ImportReport, Error> {
    let job = Import {
        source: source.into(),
        out: out.into(),
        name: None,
        role: Role::Target,
        layers: LayerChoice::All,
        head: HeadBits::Measured,
    };
    import(&job, &mut Watch::new(&mut |done, total| done <= total))
}

/// Imports the model and compares its logits with those of the reference.
fn is_close(small: &Small, kind: &str) -> ImportReport {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    small.safetensors(folder.path(), kind, 2);
    let report = target_of(folder.path(), &out).unwrap();
    let dir = ModelDir::open(&out).unwrap();
    assert_eq!(dir.role, Some(Role::Target));
    let mut target = CandleTarget::load(&dir, usize::MAX).unwrap();
    let tokens = Random(9).tokens(30, small.vocabulary);
    let session = target.open().unwrap();
    let all = [Extend { session, keep: 0, tokens: &tokens, rows: tokens.len() }];
    let found = target.extend(&all).pop().unwrap().unwrap();
    let layers: Vec<usize> = (0..small.layers).collect();
    let expected = small.reference(&small.tensors(), &tokens, &layers);
    // Rows behind the last token in use are no part of what a target gives.
    let used = dir.vocabulary.size as usize;
    let expected: Vec<f64> = expected.iter().flat_map(|row| row.0[..used].to_vec()).collect();
    assert_eq!(found.len(), expected.len());
    let spread = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let lost: f64 = found.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum();
    assert!(lost.sqrt() < LOGITS * spread, "{}, {kind}: {}", small.architecture, lost.sqrt() / spread);
    report
}

#[test]
fn a_target_gives_the_logits_of_its_source() {
    for (kind, is_tied) in [("F32", false), ("F16", true), ("BF16", false)] {
        let small = Small { is_exact: false, is_tied, ..Small::new("llama") };
        let report = is_close(&small, kind);
        assert!(report.tensors.iter().all(|tensor| tensor.kept == Kept::Bytes), "{:?}", report.tensors);
        assert!(
            report.tensors.iter().all(|tensor| (1e-4..0.01).contains(&tensor.error)),
            "{:?}",
            report.worst()
        );
        assert_eq!(report.tensors.len(), 14 + if is_tied { 1 } else { 2 });
    }
    is_close(&Small { is_exact: false, ..Small::new("mistral") }, "BF16");
    // Biases, and norms of heads; the rows of their heads stay as they are.
    for architecture in ["qwen2", "qwen3"] {
        is_close(&Small { is_exact: false, ..Small::new(architecture) }, "F32");
    }
}

#[test]
fn rows_of_parts_of_blocks_are_kept_in_16_bits() {
    let report = is_close(&Small { inner: 172, is_exact: false, ..Small::new("llama") }, "F32");
    let kept = |name: &str| {
        let tensor = report.tensors.iter().find(|tensor| tensor.name.ends_with(name)).unwrap();
        tensor.kept
    };
    assert_eq!((kept("0.mlp.down_proj.weight"), kept("0.mlp.up_proj.weight")), (Kept::Halves, Kept::Bytes));
}

#[test]
fn a_target_has_the_positions_of_its_source() {
    let plain = Small { base: 50_000.0, is_exact: false, ..Small::new("llama") };
    is_close(&plain, "F32");
    is_close(&Small { factor: 4.0, ..plain.clone() }, "F32");
    is_close(&plain.with_llama3(), "F32");
}

#[test]
fn other_sources_and_forms_are_refused() {
    let (small, folder) = (Small::new("llama"), tempfile::tempdir().unwrap());
    let (source, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
    fs::write(&source, small.gguf("F16")).unwrap();
    let refused = target_of(&source, &out).unwrap_err().to_string();
    assert!(refused.contains("a GGUF file is a target as it is"), "{refused}");
    small.safetensors(folder.path(), "F32", 1);
    let job = |layers, head| Import {
        source: folder.path().into(),
        out: out.clone(),
        name: None,
        role: Role::Target,
        layers,
        head,
    };
    let some = LayerChoice::Only(vec![0]);
    for job in [job(some, HeadBits::Measured), job(LayerChoice::All, HeadBits::Four)] {
        let refused = import(&job, &mut Watch::new(&mut |_, _| true)).unwrap_err().to_string();
        assert!(refused.contains("all layers, and no bits of the head"), "{refused}");
    }
    // The other way round the folder says what it is.
    target_of(folder.path(), &out).unwrap();
    let again = imported(&out, &folder.path().join("again"), LayerChoice::All);
    assert!(again.is_ok(), "a target is a source of drafters: {again:?}");
}
