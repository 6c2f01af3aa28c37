//! `dunlin-evaluate pair`: known figures of scripted pairs, the demo pair through the program, and pairs that don't fit.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use dunlin_evaluate::cell::KnownTokens;
use dunlin_evaluate::channel::ModelledChannel;
use dunlin_evaluate::pair::{Memory, Pair};
use dunlin_evaluate::progress::PlanProgress;
use dunlin_evaluate::worth::agreement::AgreementSums;
use dunlin_evaluate::worth::conditions::{PairConditions, board};
use dunlin_evaluate::worth::figures::PairFigures;
use dunlin_evaluate::worth::speed::{GivenTimes, PairSpeed};
use dunlin_evaluate::worth::{LoadedPair, figures};
use dunlin_hlm::probabilities::{Distribution, Sampling, total_variation};
use dunlin_lm::{Draft, Rows, Toy, ToyDrafter, Vocabulary};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A drafter that reads a token which it does not know as token 0, as an engine does.
struct Clipped(ToyDrafter);

impl Draft for Clipped {
    fn vocabulary(&self) -> Vocabulary {
        self.0.vocabulary()
    }

    fn context_max(&self) -> usize {
        self.0.context_max()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn extend(&mut self, tokens: &[u32]) -> dunlin_lm::Result<Rows> {
        self.0.extend(&tokens.iter().map(|token| known(*token, self.vocabulary().size)).collect::<Vec<_>>())
    }
}

fn known(token: u32, size: u32) -> u32 {
    if token < size { token } else { 0 }
}

fn toy(vocabulary: u32) -> Toy {
    Toy::new(3, vocabulary, 0.7)
}

/// The tokens of a toy, whose beginnings have the fingerprints of their length.
fn tokens(size: u32) -> KnownTokens {
    let fingerprint = |size: u32| (u64::from(size) + 1).to_le_bytes();
    let prefixes: Vec<[u8; 8]> = (1..=size).map(fingerprint).collect();
    KnownTokens {
        vocabulary: Vocabulary { size, fingerprint: fingerprint(size) },
        prefixes: std::sync::Arc::<[[u8; 8]]>::from(prefixes).into(),
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn conditions() -> PairConditions {
    PairConditions {
        tokens_max: 24,
        temperature: 0.8,
        seed: 5,
        rtt_ms: vec![10.0, 600.0],
        given: GivenTimes { draft_ms: Some(4.0), pass_ms: Some(40.0) },
        board: board(&root().join("boards/rpi4.toml")).unwrap(),
        channel: ModelledChannel::load(&root().join("crates/evaluate/channels/wifi.toml")).unwrap(),
    }
}

/// Speeds that are always the same, so that the figures are.
fn speed() -> PairSpeed {
    PairSpeed {
        processor: "a toy".into(),
        target_threads: 1,
        draft_us: 1_000.0,
        draft_fastest_us: 1_000.0,
        prompt_us: 500.0,
        score_us: 100.0,
        pass_us: 10_000.0,
        pass_fastest_us: 10_000.0,
        wide_pass_us: 17_000.0,
        wide_tokens: 8,
    }
}

fn toy_figures(drafter: u32, target: u32, conditions: &PairConditions) -> PairFigures {
    let loaded = LoadedPair {
        drafter: Box::new(Clipped(toy(drafter).drafter())),
        target: Box::new(toy(target).target()),
        drafter_tokens: tokens(drafter),
        target_tokens: tokens(target),
        tokenizer: None,
        prompts: (0..12).map(|i| (i..i + 6).collect()).collect(),
        stop: vec![1, 2],
        speed: Some(speed()),
    };
    figures(loaded, conditions, &PlanProgress::lines("prompts", &mut std::io::sink())).unwrap()
}

/// Both ways at each round trip, without what depends on the last bits of an `exp`.
fn table(figures: &PairFigures) -> String {
    let mut text = String::new();
    writeln!(text, "alpha {:.4}, greedy {:.4}", figures.agreement.alpha, figures.agreement.greedy).unwrap();
    for figures in &figures.round_trips {
        for (name, way) in [("lossless", &figures.lossless), ("stream", &figures.stream)] {
            let rtt = figures.rtt_ms;
            writeln!(
                text,
                "{rtt} ms {name}: {:.2} tokens/s, {:.3} frames, {:.1} up, {:.1} down, {:.1} TLS, {:.3} passes, {} own",
                way.tokens_per_s, way.frames, way.mqtt_up, way.mqtt_down, way.tls_up, way.passes, way.identical
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn a_toy_pair_has_the_same_figures_everywhere() {
    insta::assert_snapshot!("toy", table(&toy_figures(64, 64, &conditions())));
    insta::assert_snapshot!("toy_prefix", table(&toy_figures(48, 64, &conditions())));
    insta::assert_snapshot!("toy_longer_drafter", table(&toy_figures(64, 48, &conditions())));
}

/// α from the definition, by the scripts alone: no cache, no memory of rows.
#[test]
fn the_acceptance_is_one_minus_the_distance_over_the_targets_replies() {
    for (own, other, temperature) in [(64, 64, 0.8), (64, 64, 0.0), (48, 64, 0.8), (64, 48, 1.3)] {
        let sampling = Sampling::new(temperature, 1.0, 0).unwrap();
        let memory = Memory::new(1 << 20);
        let drafter = Box::new(Clipped(toy(own).drafter()));
        let mut pair = Pair::new(drafter, Box::new(toy(other).target()), &memory).unwrap();
        let shared = own.min(other);
        let (mut sums, mut distance, mut agreed, mut count) = (AgreementSums::new(shared), 0.0, 0, 0);
        for i in 0..10 {
            let prompt: Vec<u32> = (i..i + 5).collect();
            let reply = pair.reference(&prompt, 20, &[1], &sampling, i.into()).unwrap();
            sums.add(&mut pair, &prompt, &reply, &sampling).unwrap();
            let text = [&prompt[..], &reply].concat();
            for end in prompt.len()..text.len() {
                let read: Vec<u32> = text[..end].iter().map(|token| known(*token, own)).collect();
                let p = toy(other).target_logits(&text[..end]);
                let q = toy(own).draft_logits(&read)[..shared as usize].to_vec();
                let law = |row: &[f32]| Distribution::from_logits(row, &sampling).unwrap();
                distance += total_variation(&law(&p), &law(&q));
                let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
                agreed += usize::from(best(&p) == best(&q));
                count += 1;
            }
        }
        let (found, count) = (sums.settle(), count as f64);
        assert_eq!((found.replies, found.tokens as f64), (10, count));
        assert!(
            (found.alpha - (1.0 - distance / count)).abs() < 1e-9,
            "{own} {other} {temperature}: {found:?}"
        );
        assert!((found.greedy - agreed as f64 / count).abs() < 1e-12);
        assert!(
            found.alpha > 0.2 && found.alpha < 0.95,
            "a pair that neither always agrees nor never: {found:?}"
        );
    }
}

#[test]
fn a_slow_pass_makes_drafting_pay_and_a_quick_one_does_not() {
    let with = |draft, pass| {
        let given = GivenTimes { draft_ms: Some(draft), pass_ms: Some(pass) };
        let pays = toy_figures(64, 64, &PairConditions { given, ..conditions() }).round_trips;
        pays.iter().map(|figures| figures.pays).collect::<Vec<_>>()
    };
    assert_eq!(with(4.0, 400.0), [true, true]);
    assert_eq!(with(4.0, 40.0), [true, false], "a round trip of 600 ms is dearer than a pass");
    assert_eq!(with(200.0, 5.0), [false, false]);
}

#[test]
fn replies_end_where_a_context_does() {
    let short = Toy { context_max: 26, ..toy(64) };
    let loaded = |prompt: u32| LoadedPair {
        drafter: Box::new(short.drafter()),
        target: Box::new(toy(64).target()),
        drafter_tokens: tokens(64),
        target_tokens: tokens(64),
        tokenizer: None,
        prompts: vec![(0..6).collect(), (0..prompt).collect()],
        stop: Vec::new(),
        speed: Some(speed()),
    };
    let mut silence = std::io::sink();
    let progress = PlanProgress::lines("prompts", &mut silence);
    let found = figures(loaded(10), &conditions(), &progress).unwrap();
    assert_eq!((found.tokens_max, found.agreement.tokens), (16, 32));
    let error = figures(loaded(11), &conditions(), &progress).unwrap_err().to_string();
    assert!(error.contains("a prompt has 11 tokens in its form, and a context holds 26"), "{error}");
}

fn demo(part: &str) -> String {
    root().join("models/demo").join(part).display().to_string()
}

/// Runs the program in the repository.
fn evaluate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin-evaluate")).current_dir(root()).args(arguments).output().unwrap()
}

fn pair(drafter: &str, target: &str, out: &Path, more: &[&str]) -> (i32, String, String) {
    let out = out.display().to_string();
    let output = evaluate(&[&["pair", drafter, target, "--out", &out], more].concat());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn json(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("pair.json")).unwrap()).unwrap()
}

#[test]
fn the_demo_pair_is_reported_with_its_known_acceptance() {
    let out = tempfile::tempdir().unwrap();
    let given = ["--draft-ms", "2", "--pass-ms", "60", "--count", "8", "--tokens", "32", "--rtt-ms", "10"];
    let (status, text, progress) = pair(&demo("drafter"), &demo("target"), out.path(), &given);
    assert_eq!(status, 0, "{text}{progress}");
    for line in
        ["acceptance α", "a target's pass", "lossless", "modelled J", "Drafting pays by tokens per second"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(progress.contains("8/8 prompts"), "{progress}");
    let report = json(out.path());
    assert_eq!(report["verdict"], "pays");
    assert_eq!(report["fit"]["tokens"], json!({ "fit": "equal" }));
    assert_eq!((&report["fit"]["same_form"], &report["remarks"]["0"]), (&json!(true), &Value::Null));
    // models/README.md: 0.82 on held-out dialogues. Eight short replies lie around it.
    let figures = &report["figures"];
    let alpha = figures["agreement"]["alpha"].as_f64().unwrap();
    assert!((0.75..0.93).contains(&alpha), "{alpha}");
    let [lossless, stream] = ["lossless", "stream"].map(|way| &figures["round_trips"][0][way]);
    assert_eq!((&lossless["identical"], &stream["identical"]), (&json!(1.0), &json!(1.0)));
    let of = |way: &Value, key: &str| way[key].as_f64().unwrap();
    assert!((0.2..0.45).contains(&of(lossless, "frames")) && of(stream, "frames") < 0.15, "{figures}");
    assert!(of(lossless, "passes") < 0.5 && of(stream, "passes") > 0.9);
    assert!(fs::read_to_string(out.path().join("pair.svg")).unwrap().contains("round trip, ms"));
    // A drafter that is slower than the target can't pay.
    let slow = ["--draft-ms", "50", "--pass-ms", "1", "--count", "2", "--tokens", "8"];
    let (status, text, _) = pair(&demo("drafter"), &demo("target"), out.path(), &slow);
    assert_eq!(status, 4, "{text}");
    assert!(text.contains("Drafting does not pay") && json(out.path())["verdict"] == "does-not-pay");
}

#[test]
fn a_target_too_slow_to_be_waited_for_is_refused() {
    let loaded = |token_us: f64| LoadedPair {
        drafter: Box::new(toy(64).drafter()),
        target: Box::new(toy(64).target()),
        drafter_tokens: tokens(64),
        target_tokens: tokens(64),
        tokenizer: None,
        prompts: vec![(0..24).collect()],
        stop: Vec::new(),
        speed: Some(PairSpeed { pass_us: token_us, wide_pass_us: 8.0 * token_us, ..speed() }),
    };
    let conditions = PairConditions { given: GivenTimes::default(), ..conditions() };
    let mut silence = std::io::sink();
    let progress = PlanProgress::lines("prompts", &mut silence);
    // 24 tokens and a full frame of 16 at 0.6 s, and the round trip; at 0.7 s they take longer than 25 s.
    figures(loaded(600_000.0), &conditions, &progress).unwrap();
    let error = figures(loaded(700_000.0), &conditions, &progress).unwrap_err().to_string();
    assert!(error.contains("the target takes 28.6 s to answer a prompt of 24 tokens"), "{error}");
}

/// A folder with the demo drafter, its files changed by `change`.
fn drafter_with(tokenizer: impl Fn(&mut Value), config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut json: Value = serde_json::from_str(&fs::read_to_string(demo("tokenizer.json")).unwrap()).unwrap();
    tokenizer(&mut json);
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    fs::copy(demo("drafter/drafter.onnx"), dir.path().join("model.onnx")).unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    dir
}

const CONFIG: &str = r#"{"vocab_size": 2048, "max_position_embeddings": 512, "eos_token_id": 2}"#;

#[test]
fn vocabularies_that_part_end_with_status_3_and_words() {
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("pair.svg"), "of an earlier pair").unwrap();
    let swapped = drafter_with(
        |json| {
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            let at =
                |id: u64| vocabulary.iter().find(|(_, value)| value.as_u64() == Some(id)).unwrap().0.clone();
            let (one, other) = (at(2000), at(2001));
            vocabulary.insert(one, json!(2001));
            vocabulary.insert(other, json!(2000));
        },
        CONFIG,
    );
    let drafter = swapped.path().display().to_string();
    let (status, text, words) = pair(&drafter, &demo("target"), out.path(), &[]);
    assert_eq!(status, 3, "{text}{words}");
    assert!(words.contains("evaluate: the vocabularies part at token 2000: "), "{words}");
    assert!(words.contains("take a drafter with the target's tokenizer"), "{words}");
    assert!(text.contains("different from token 2000 on") && !text.contains("acceptance"), "{text}");
    let report = json(out.path());
    assert_eq!((&report["verdict"], &report["figures"]), (&json!("misfit"), &Value::Null));
    assert_eq!(report["fit"]["tokens"]["id"], 2000);
    assert!(!out.path().join("pair.svg").exists());
}

#[test]
fn a_drafter_that_lacks_the_last_token_writes_the_targets_text() {
    let out = tempfile::tempdir().unwrap();
    let shorter = drafter_with(
        |json| {
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            let last = vocabulary.iter().find(|(_, id)| id.as_u64() == Some(2047)).unwrap().0.clone();
            vocabulary.remove(&last);
            let makes = |merge: &Value| match merge {
                Value::String(parts) => parts.replace(' ', "") == last,
                parts => {
                    parts.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect::<String>()
                        == last
                }
            };
            json["model"]["merges"].as_array_mut().unwrap().retain(|merge| !makes(merge));
        },
        CONFIG,
    );
    let drafter = shorter.path().display().to_string();
    let few = ["--count", "2", "--tokens", "12", "--draft-ms", "2", "--pass-ms", "60", "--rtt-ms", "10"];
    let (_, text, words) = pair(&drafter, &demo("target"), out.path(), &few);
    assert!(text.contains("the drafter's are the first ones; 1 only of the target"), "{text}{words}");
    let report = json(out.path());
    assert_eq!(report["fit"]["tokens"], json!({ "fit": "drafter-is-prefix", "more": 1 }));
    assert_eq!(report["figures"]["round_trips"][0]["lossless"]["identical"], 1.0);
}

#[test]
fn forms_and_stops_that_differ_are_remarked() {
    let out = tempfile::tempdir().unwrap();
    let base = drafter_with(|_| (), CONFIG);
    let drafter = base.path().display().to_string();
    let few = ["--count", "2", "--tokens", "8", "--draft-ms", "2", "--pass-ms", "60", "--rtt-ms", "10"];
    let (_, text, words) = pair(&drafter, &demo("target"), out.path(), &few);
    for remark in [
        "Note: the prompt forms differ: the device writes \"Hello\"",
        "Note: the target also ends a reply with 3 \"<|user|>\", which the device does not stop at.",
        "Note: the drafter's context of 512 tokens is shorter than the target's 1024",
    ] {
        assert!(text.contains(remark), "{remark}: {text}{words}");
    }
}

#[test]
fn bad_arguments_end_with_status_2_and_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.json");
    fs::write(&file, "[\"Hello\", 2]").unwrap();
    let file = file.display().to_string();
    let cases: [(&[&str], &str); 10] = [
        (&["--prompts", &file], "p.json: prompt 2 of the list is no string: 2"),
        (&["--prompts", "no/such/file"], "no/such/file: No such file"),
        (&["--temperature", "11"], "temperature 11 is not within 0 and 10"),
        (&["--rtt-ms", "10,nan"], "a round trip of NaN ms is not within 0"),
        (&["--rtt-ms", "10001"], "a round trip of 10001 ms is not within 0 and 10000"),
        (&["--pass-ms", "0"], "a time of 0 ms is not above 0"),
        (&["--tokens", "0"], "0 is not in 1.."),
        (&["--count", "0"], "0 is not in 1.."),
        (&["--board", "boards/none.toml"], "boards/none.toml"),
        (&["--channel", "boards/rpi4.toml"], "boards/rpi4.toml:"),
    ];
    for (arguments, expected) in cases {
        let (status, text, words) = pair(&demo("drafter"), &demo("target"), dir.path(), arguments);
        assert_eq!((status, text.as_str()), (2, ""), "{arguments:?}: {words}");
        assert!(words.contains(expected), "{arguments:?}: {words}");
    }
    assert_eq!(evaluate(&["--plan", "no/plan.toml"]).status.code(), Some(2));
    assert_eq!(evaluate(&["--fresh", "pair", "a", "b"]).status.code(), Some(2));
}

#[test]
fn models_of_the_wrong_kind_fail_in_words() {
    let out = tempfile::tempdir().unwrap();
    let garbage = out.path().join("garbage.gguf");
    std::fs::write(&garbage, "garbage").unwrap();
    let cases = [
        (garbage.display().to_string(), "target", "not a usable GGUF file"),
        (demo("drafter"), "drafter/drafter.onnx", "an ONNX file can't be a target"),
        (demo("none"), "target", "none: No such file"),
    ];
    for (drafter, target, expected) in cases {
        let (status, _, words) = pair(&drafter, &demo(target), out.path(), &["--count", "1"]);
        assert!(status == 1 && words.contains(expected), "{drafter}: {status} {words}");
    }
}
