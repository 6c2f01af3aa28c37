//! An evaluation from plan to files, on toy models.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use anyhow::Result;
use dunlin_evaluate::cell::{EvaluationContext, References};
use dunlin_evaluate::engine::{MakePair, Options, Results, play_all};
use dunlin_evaluate::pair::{Memory, Pair};
use dunlin_evaluate::plan::{EvaluationPlan, Size};
use dunlin_evaluate::progress::PlanProgress;
use dunlin_lm::{Target, Toy};
use std::fs;
use std::path::Path;

const PLAN: &str = r#"
name = "toy"
seed = 7
pair = "PAIR"
boards_dir = "ROOT/boards"
channels_dir = "ROOT/crates/evaluate/channels"
prompts = 3
tokens_max = 12
server = { pass_us = 10000, token_us = 100 }
[[run]]
name = "main"
boards = ["rpi4"]
channels = ["wifi", "lora"]
temperatures = [0.0, 0.8]
seeds = 2
policy = [{ name = "lossless", draft_tokens_max = [1, 4] }, { name = "lossless", label = "default" }]
"#;

struct Toys(Toy);

impl MakePair for Toys {
    fn make<'m>(&self, memory: &'m Memory) -> Result<Pair<'m>> {
        Pair::new(Box::new(self.0.drafter()), Box::new(self.0.target()), memory)
    }
}

fn plan(dir: &Path) -> EvaluationPlan {
    for part in ["drafter", "target"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    fs::write(dir.join("prompts.json"), "{}").unwrap();
    let text = PLAN.replace("PAIR", &dir.display().to_string());
    let path = dir.join("toy.toml");
    fs::write(&path, text.replace("ROOT", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))).unwrap();
    EvaluationPlan::load(&path).unwrap()
}

fn run(plan: &EvaluationPlan, fingerprint: &str, options: Options<'_>) -> Results {
    let toy = Toy::new(1, 64, 0.7);
    let shared = EvaluationContext {
        plan,
        tokenizer: None,
        drafter: toy.target().vocabulary().into(),
        target: toy.target().vocabulary().into(),
        prompts: vec![vec![1, 2, 3], vec![4, 5], vec![6]],
        stop: vec![9],
        size: Size::of_bytes(1 << 20),
        references: References::default(),
        encoder: None,
    };
    let mut silence = std::io::sink();
    play_all(&shared, &Toys(toy), fingerprint, options, &PlanProgress::lines("cells", &mut silence)).unwrap()
}

fn files(out: &Path) -> [Vec<u8>; 2] {
    ["results.csv", "tokens.csv"].map(|name| fs::read(out.join(name)).unwrap())
}

#[test]
fn a_second_run_plays_nothing_and_one_thread_writes_what_two_do() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path());
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let options = Options { out: &one, fresh: false, workers: Some(1), bertscore: None };
    let first = run(&plan, "toy", options);
    assert_eq!(first.played, plan.cells.len());
    assert_eq!(first.records.len(), 2 * (3 * 2 + 1));
    let bytes = files(&one);

    let again = run(&plan, "toy", options);
    assert_eq!((again.played, &again.records), (0, &first.records));
    assert_eq!(files(&one), bytes);
    let parallel = run(&plan, "toy", Options { out: &two, workers: Some(2), ..options });
    assert_eq!((parallel.played, files(&two)), (plan.cells.len(), bytes.clone()));
    assert_eq!(run(&plan, "toy", Options { fresh: true, ..options }).played, plan.cells.len());
    assert_eq!(files(&one), bytes);
    assert_eq!(run(&plan, "another", options).played, plan.cells.len());
}

#[test]
fn a_changed_plan_plays_what_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let first = plan(dir.path());
    let options = Options { out: dir.path(), fresh: false, workers: Some(1), bertscore: None };
    run(&first, "toy", options);
    let seed = EvaluationPlan { seed: 8, ..first.clone() };
    assert_eq!(run(&seed, "toy", options).played, first.cells.len());
    let mut fewer = first.clone();
    fewer.cells.truncate(3);
    assert_eq!(run(&fewer, "toy", options).played, 0);
    // A truncated cell file is played again.
    let cells = fs::read_dir(dir.path().join("cells")).unwrap();
    cells.for_each(|cell| fs::write(cell.unwrap().path(), "{").unwrap());
    assert_eq!(run(&fewer, "toy", options).played, 3);
}

#[test]
fn the_default_policy_writes_the_targets_text_at_a_cost_that_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path());
    let results =
        run(&plan, "toy", Options { out: dir.path(), fresh: false, workers: Some(1), bertscore: None });
    for record in &results.records {
        let name = format!("{} {} {}", record.label, record.channel, record.temperature);
        assert_eq!(record.replies, 6, "{name}");
        if record.policy == "target-again" {
            assert_eq!((record.exact == 1.0, record.seconds), (record.temperature == 0.0, 0.0), "{name}");
            continue;
        }
        assert_eq!((record.exact, record.rouge_l, record.trusted), (1.0, 1.0, 0), "{name}");
        assert!(record.committed > 6 && record.committed <= 72, "{name}");
        assert!(record.payload_up < record.mqtt_up && record.mqtt_up < record.ip_up, "{name}");
        assert_eq!(record.ip_up == record.tls_up, record.channel == "lora", "{name}");
        assert!(record.messages_up >= record.frames_up && record.target_passes > 0, "{name}");
        assert!((record.idle_j - 2.3 * record.seconds).abs() < 1e-6, "{name}");
        let parts = [record.draft_j, record.score_j, record.send_j, record.wait_j, record.idle_j];
        assert!(parts.iter().all(|part| *part > 0.0), "{name}");
        assert!((record.joules() - parts.iter().sum::<f64>()).abs() < 1e-9, "{name}");
    }
    let of = |label: &str, channel: &str| {
        let wanted = |r: &&_| matches!(r, dunlin_evaluate::record::CellRecord { label: l, channel: c, .. } if l == label && c == channel);
        results.records.iter().rfind(wanted).unwrap()
    };
    // Where frames are dear, several drafts share one; on the cheap link, drafts this uncertain pay one by one.
    let (single, four) =
        (of("lossless, draft_tokens_max 1", "lora"), of("lossless, draft_tokens_max 4", "lora"));
    assert!(four.frames_up < single.frames_up && four.seconds < single.seconds);
    assert!(of("default", "lora").seconds > of("default", "wifi").seconds);
}
