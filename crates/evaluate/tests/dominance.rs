//! Relations between the policies on the demo pair that must hold whatever the exact figures.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dunlin_evaluate::engine::{Options, run};
use dunlin_evaluate::plan::EvaluationPlan;
use dunlin_evaluate::progress::PlanProgress;
use dunlin_evaluate::record::CellRecord;
use std::path::Path;

const PLAN: &str = r#"
name = "dominance"
seed = 1
pair = "ROOT/models/demo"
boards_dir = "ROOT/boards"
channels_dir = "ROOT/crates/evaluate/channels"
prompts = 30
tokens_max = 32
server = { pass_us = 25000, token_us = 300 }
[[run]]
name = "main"
boards = ["rpi4"]
channels = ["wifi"]
temperatures = [0.8]
policy = [
    { name = "hlm" }, { name = "u-hlm" }, { name = "cu-hlm" }, { name = "importance" }, { name = "importance-or" },
    { name = "random" }, { name = "lossless" }, { name = "lossless-sparse" }, { name = "risk", epsilon = 0.5 },
    { name = "local" }, { name = "remote" },
]
"#;

fn records(out: &Path) -> Vec<CellRecord> {
    let path = out.join("plan.toml");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::fs::write(&path, PLAN.replace("ROOT", root)).unwrap();
    let mut silence = std::io::sink();
    let options = Options { out, fresh: false, workers: None, bertscore: None };
    run(&EvaluationPlan::load(&path).unwrap(), options, &PlanProgress::lines("cells", &mut silence))
        .unwrap()
        .records
}

#[test]
fn lossless_deviates_nowhere_at_fewer_frames_than_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(dir.path());
    let of = |policy: &str| records.iter().find(|record| record.policy == policy).unwrap();
    let lossless = of("lossless");
    for policy in ["u-hlm", "cu-hlm", "importance", "importance-or", "random"] {
        let other = of(policy);
        assert!(lossless.upload_rate() < other.upload_rate(), "{policy} sends less");
        assert!(other.tv > 0.001 && other.kl.unwrap() > 0.0, "{policy}: TV {}", other.tv);
        assert!(other.trusted > 0 && other.trusted + other.frames_up >= other.committed, "{policy}");
    }
    for policy in ["hlm", "lossless", "lossless-sparse", "remote"] {
        let exact = of(policy);
        assert_eq!((exact.tv, exact.kl, exact.trusted), (0.0, Some(0.0), 0), "{policy}");
    }
    for policy in ["lossless", "remote"] {
        assert_eq!(of(policy).exact, 1.0, "{policy} writes the target's own text");
    }
    let local = of("local");
    assert_eq!((local.frames_up, local.trusted), (0, local.committed));
    assert!(
        records.iter().all(|record| record.tv <= local.tv),
        "nothing deviates more than the drafter alone"
    );
    assert_eq!(of("remote").drafted, 0);
    let risk = of("risk");
    assert!(risk.missed > 0 && risk.missed <= risk.audited && risk.kl.is_none());
    let kept = risk.missed as f64 / risk.committed as f64;
    assert!((risk.tv - kept).abs() < 1e-12, "a kept miss is what may differ: {} against {kept}", risk.tv);
    assert!(of("hlm").joules() / of("hlm").committed as f64 > lossless.joules() / lossless.committed as f64);
}
