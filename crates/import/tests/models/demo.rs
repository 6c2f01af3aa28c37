//! The demo's target as a drafter of itself.

use crate::files::demo;
use crate::small::imported;
use dunlin_import::{HeadBits, Import, Kept, LayerChoice, Watch, import};
use dunlin_lm::{Draft, Extend, ModelDir, Role, Target};
use dunlin_lm_candle::CandleTarget;
use dunlin_lm_tract::Drafter;
use std::path::Path;

/// Tokens that the target writes behind each prompt.
const TOKENS: usize = 24;
const PROMPTS: [&str; 3] = ["I need a seat on the bus.", "What's my balance?", "Tell me about birds."];

fn probabilities(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[test]
fn the_demo_target_drafts_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let report = imported(&demo("target"), &out, LayerChoice::All).unwrap();
    assert!(report.tensors.iter().all(|tensor| tensor.error < 0.1), "{:?}", report.worst());
    let with_4 = acceptance(&out);
    assert!(with_4 > 0.85, "acceptance {with_4}");
    let out = folder.path().join("wide");
    let job = Import {
        source: demo("target"),
        out,
        name: None,
        role: Role::Drafter,
        layers: LayerChoice::All,
        head: HeadBits::Eight,
    };
    let report = import(&job, &mut Watch::new(&mut |_, _| true)).unwrap();
    let head = report.tensors.iter().find(|tensor| tensor.kept == Kept::RoundedTo8).unwrap();
    assert!(head.error < 0.008, "{head}");
    let with_8 = acceptance(&job.out);
    assert!(with_8 > with_4, "acceptance {with_8} and {with_4}");
}

/// The mean of 1 − TV at temperature 1 over the target's own greedy replies.
fn acceptance(out: &Path) -> f64 {
    let source = ModelDir::open(demo("target")).unwrap();
    let dir = ModelDir::open(out).unwrap();
    assert_eq!((dir.vocabulary, &dir.prompt), (source.vocabulary, &source.prompt));
    let (mut drafter, warnings) = Drafter::load(&dir).unwrap();
    assert_eq!(warnings, []);
    let mut target = CandleTarget::load(&source, usize::MAX).unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for prompt in PROMPTS {
        let mut tokens = source.first_turn(prompt).unwrap();
        let session = target.open().unwrap();
        let (mut keep, mut added) = (0, tokens.clone());
        drafter.truncate(0);
        for _ in 0..TOKENS {
            let batch = [Extend { session, keep, tokens: &added, rows: 1 }];
            let wanted = probabilities(&target.extend(&batch).pop().unwrap().unwrap());
            let rows = drafter.extend(&added).unwrap();
            let drafted = probabilities(rows.logits(rows.len() - 1));
            sum += wanted.iter().zip(&drafted).map(|(p, q)| p.min(*q)).sum::<f64>();
            count += 1;
            keep = tokens.len();
            let next = (0..wanted.len()).max_by(|a, b| wanted[*a].total_cmp(&wanted[*b])).unwrap() as u32;
            tokens.push(next);
            added = vec![next];
        }
        target.close(session);
    }
    sum / f64::from(count)
}
