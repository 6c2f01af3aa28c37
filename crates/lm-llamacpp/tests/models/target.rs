//! The suite of all engines on llama.cpp, and what is its own: threads, budgets, and what it promises.

use crate::files::{Random, demo};
use crate::suite::{
    ARCHITECTURES, bad_parts_fail_alone, bits, chunks_are_exact, extend, forks_are_exact,
    lone_rows_of_long_contexts_are_exact, long_prompts_are_exact, ragged_batches_are_exact,
    rollbacks_are_exact,
};
use crate::tiny::{KINDS, Opened, Tiny, open};
use dunlin_lm::{Error, Extend, LoadProgress, LoadStep, ModelDir, Promise, SessionId, Target};
use dunlin_lm_candle::files::GgmlDType;
use dunlin_lm_candle::files::gguf_file::Value;
use dunlin_lm_llamacpp::{LlamaBuild, LlamaSettings, LlamaTarget, Rehearsed, TILES_OFF, rehearse};
use std::cell::RefCell;
use std::env;
use std::ffi::OsString;
use std::process::Command;
use std::rc::Rc;

pub(crate) const ROOMY: LlamaSettings = LlamaSettings {
    kv_bytes_max: usize::MAX,
    sessions_max: 8,
    context_max: None,
    threads: 1,
    is_wide: false,
};

/// The keys that llama.cpp needs and candle doesn't.
pub(crate) fn complete(mut tiny: Tiny) -> Tiny {
    let number = |size: usize| Value::U32(size as u32);
    let added = [
        tiny.key("vocab_size", number(tiny.vocabulary)),
        tiny.key("attention.value_length", number(tiny.head_dim)),
        ("tokenizer.ggml.model".into(), Value::String("none".into())),
    ];
    for (key, value) in added {
        if tiny.metadata.iter().all(|(known, _)| *known != key) {
            tiny.metadata.push((key, value));
        }
    }
    tiny
}

/// The test that a child process runs.
const CHILD: &str = "target::a_child_process_tries_the_file_of_its_order";
/// The variable with which it does so.
const CHILD_VARIABLE: &str = "DUNLIN_TEST_REHEARSAL";

/// The program of these tests as a child.
pub(crate) fn child() -> Command {
    let mut child = Command::new("/proc/self/exe");
    child.args(["-q", "--nocapture", "--exact", CHILD]).env(CHILD_VARIABLE, "1");
    child
}

#[test]
fn a_child_process_tries_the_file_of_its_order() {
    if env::var_os(CHILD_VARIABLE).is_some() {
        // The order stands behind the name of this test, where the harness takes it for names of other tests.
        let order: Vec<OsString> = env::args_os().skip_while(|word| word != CHILD).skip(1).collect();
        rehearse(&order).unwrap();
    } else {
        assert!(rehearse(&[]).unwrap_err().contains("for dunlin-verifier itself"));
    }
}

pub(crate) fn load(model: &Opened, settings: LlamaSettings) -> Result<LlamaTarget, Error> {
    load_with(&model.dir, settings, Box::new(|_, _, _| {}))
}

fn load_with(
    dir: &ModelDir,
    settings: LlamaSettings,
    mut progress: LoadProgress,
) -> Result<LlamaTarget, Error> {
    let rehearsed = Rehearsed::in_child(dir, settings, child(), &mut progress)?;
    LlamaTarget::load(rehearsed, progress)
}

fn target(tiny: Tiny, threads: usize) -> LlamaTarget {
    let target = load(&open(&complete(tiny)), LlamaSettings { threads, ..ROOMY }).unwrap();
    assert_eq!(target.promise() == Promise::Exact, LlamaBuild::LINKED.may_be_exact());
    target
}

/// True where bits are promised; a fast build runs the tests of the rest alone.
fn is_exact() -> bool {
    LlamaBuild::LINKED.may_be_exact()
}

#[test]
fn random_ragged_batches_have_the_bits_of_single_tokens() {
    for kind in KINDS.into_iter().filter(|_| is_exact()) {
        let mut target = target(Tiny { context: 256, ..Tiny::new(kind) }, 1);
        ragged_batches_are_exact(&mut target, 1, 96, 8);
    }
    if is_exact() {
        ragged_batches_are_exact(&mut target(Tiny { layers: 1, ..Tiny::new(GgmlDType::Q8_0) }, 2), 2, 96, 2);
    }
}

/// Tiles of products are off where the variable says so; elsewhere passes are too small for any.
#[test]
fn rows_are_exact_without_the_variable_too() {
    let (variable, off) = TILES_OFF;
    let name = "target::random_ragged_batches_have_the_bits_of_single_tokens";
    let run = |command: &mut Command| command.args(["--exact", name]).output().unwrap();
    let program = || Command::new(env::current_exe().unwrap());
    for output in [run(program().env_remove(variable)), run(program().env(variable, off))] {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}

/// The window of 9 lies within the walks' lengths, so that rollbacks and chunks cross its edge.
#[test]
fn every_architecture_has_the_bits_of_single_tokens() {
    for architecture in ARCHITECTURES.into_iter().filter(|_| is_exact()) {
        let tiny = Tiny { context: 256, ..wide(architecture) };
        ragged_batches_are_exact(&mut target(tiny, 1), 3, 96, 8);
    }
}

/// A small model of an architecture whose heads are as wide as llama.cpp requires.
pub(crate) fn wide(architecture: &'static str) -> Tiny {
    // A window where llama.cpp has one.
    let window = ["gemma2", "gemma3"].contains(&architecture).then_some(9);
    Tiny { head_dim: 16, window, ..Tiny::of(architecture) }
}

#[test]
fn the_demo_target_is_exact() {
    let dir = ModelDir::open(demo("target")).unwrap();
    let mut target = load_with(&dir, ROOMY, Box::new(|_, _, _| {})).unwrap();
    if is_exact() {
        ragged_batches_are_exact(&mut target, 9, dir.vocabulary.size as usize, 6);
    }
}

/// llama.cpp divides a lone row's keys over threads where there are more than 256 of them, unless the row has company.
#[test]
fn long_contexts_have_the_bits_of_single_tokens_on_one_thread_and_two() {
    for threads in [1, 2].into_iter().filter(|_| is_exact()) {
        let tiny = Tiny { context: 512, layers: 1, ..Tiny::new(GgmlDType::Q4K) };
        lone_rows_of_long_contexts_are_exact(&mut target(tiny, threads), 96);
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let rows = [1, 2].map(|threads| {
        let mut target = target(Tiny { context: 512, layers: 1, ..Tiny::new(GgmlDType::Q8_0) }, threads);
        let session = target.open().unwrap();
        let identity = target.identity().numerics_digest();
        (bits(&extend(&mut target, session, 0, &Random(6).tokens(300, 96))), identity)
    });
    assert_eq!(rows[0].1, rows[1].1);
    assert!(!is_exact() || rows[0].0 == rows[1].0);
}

#[test]
fn prompts_chunks_forks_and_rollbacks_have_the_bits_of_single_tokens() {
    let long = || Tiny { context: 320, ..Tiny::new(GgmlDType::Q8_0) };
    if is_exact() {
        long_prompts_are_exact(&mut target(long(), 1), 96);
        chunks_are_exact(&mut target(long(), 1), 96);
        forks_are_exact(&mut target(Tiny::new(GgmlDType::Q8_0), 1), 96);
        rollbacks_are_exact(&mut target(Tiny::new(GgmlDType::Q4K), 1));
    }
}

/// More sessions than a pass has rows.
#[test]
fn many_sessions_are_open_at_once() {
    let model = open(&complete(Tiny { context: 64, ..Tiny::new(GgmlDType::F32) }));
    let mut target = load(&model, LlamaSettings { sessions_max: 300, ..ROOMY }).unwrap();
    assert_eq!(target.sessions_max(), Some(256), "llama.cpp's own limit");
    let sessions: Vec<SessionId> = (0..256).map(|_| target.open().unwrap()).collect();
    assert!(matches!(target.open(), Err(Error::CacheFull { .. })));
    let batch: Vec<Extend<'_>> =
        sessions.iter().map(|s| Extend { session: *s, keep: 0, tokens: &[1, 2], rows: 1 }).collect();
    let answers: Vec<Vec<f32>> = target.extend(&batch).into_iter().map(Result::unwrap).collect();
    assert!(!is_exact() || answers.iter().all(|rows| bits(rows) == bits(&answers[0])));
}

/// A session that goes leaves its cells to another one; the order in which others use them has no effect.
#[test]
fn sessions_that_come_and_go_change_no_bits() {
    let mut target = target(Tiny { context: 128, ..Tiny::new(GgmlDType::Q8_0) }, 1);
    let tokens = Random(7).tokens(60, 96);
    let alone = target.open().unwrap();
    let expected = bits(&extend(&mut target, alone, 0, &tokens)[..]);
    let width = target.vocabulary().size as usize;
    let [gone, stays] = [(); 2].map(|()| target.open().unwrap());
    extend(&mut target, gone, 0, &tokens);
    extend(&mut target, stays, 0, &tokens[..20]);
    target.close(gone);
    let rest = bits(&extend(&mut target, stays, 20, &tokens[20..]));
    assert!(!is_exact() || rest == expected[20 * width..]);
}

#[test]
fn a_bad_part_fails_alone() {
    bad_parts_fail_alone(&mut target(Tiny::new(GgmlDType::F32), 1));
}

/// The same file has near rows on both engines.
#[test]
fn rows_are_near_those_of_candle() {
    for architecture in ARCHITECTURES {
        let model = open(&complete(wide(architecture)));
        let mut ours = load(&model, ROOMY).unwrap();
        let mut other = model.target();
        let tokens = Random(2).tokens(30, 96);
        let rows: [Vec<f32>; 2] = [&mut ours as &mut dyn Target, &mut other].map(|target| {
            let session = target.open().unwrap();
            extend(target, session, 0, &tokens)
        });
        let largest = rows[1].iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        let off = rows[0].iter().zip(&rows[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.01 * largest, "{architecture}: {off} of {largest}");
    }
}

#[test]
fn the_caches_have_a_budget_and_return_what_they_took() {
    let model = open(&complete(Tiny::new(GgmlDType::F32)));
    let bytes = load(&model, ROOMY).unwrap().cache_bytes_per_token() as usize;
    // 2 layers of 128 keys and 128 values of 2 bytes, and what llama.cpp notes of each.
    assert!((1024..1024 + 64).contains(&bytes), "{bytes}");
    let settings = LlamaSettings { kv_bytes_max: 512 * bytes, ..ROOMY };
    let mut target = load(&model, settings).unwrap();
    if is_exact() {
        assert_eq!(
            target.sessions_max(),
            Some(2),
            "a full context has 129 cells, which are rounded up to 256"
        );
        let sessions = [(); 2].map(|()| target.open().unwrap());
        assert!(matches!(target.open(), Err(Error::CacheFull { .. })));
        extend(&mut target, sessions[0], 0, &[1; 128]);
        target.close(sessions[0]);
        let next = target.open().unwrap();
        assert_eq!(target.len(next).unwrap(), 0);
        extend(&mut target, next, 0, &[1; 128]);
    } else {
        let sessions = [(); 4].map(|()| target.open().unwrap());
        let all = [1; 128];
        let batch: Vec<Extend<'_>> =
            sessions.iter().map(|s| Extend { session: *s, keep: 0, tokens: &all, rows: 1 }).collect();
        let answers = target.extend(&batch);
        assert!(answers[..3].iter().all(Result::is_ok));
        assert!(matches!(answers[3], Err(Error::CacheFull { .. })));
        assert_eq!(target.len(sessions[3]).unwrap(), 0);
        target.close(sessions[0]);
        extend(&mut target, sessions[3], 0, &all);
    }
}

#[test]
fn a_budget_below_one_context_still_opens_a_session() {
    let model = open(&complete(Tiny { context: 1024, ..Tiny::new(GgmlDType::F32) }));
    let mut target = load(&model, LlamaSettings { kv_bytes_max: 1, ..ROOMY }).unwrap();
    let session = target.open().unwrap();
    let tokens = [1; 300];
    let refused = target.extend(&[Extend { session, keep: 0, tokens: &tokens, rows: 1 }]).pop().unwrap();
    assert!(matches!(refused, Err(Error::CacheFull { .. })));
    assert_eq!(target.len(session).unwrap(), 0);
    extend(&mut target, session, 0, &tokens[..100]);
}

#[test]
fn a_target_has_an_identity() {
    let with = |metadata: Vec<(String, Value)>| {
        let mut tiny = Tiny::new(GgmlDType::F32);
        tiny.metadata = metadata;
        let target = target(tiny, 1);
        (target.identity().clone(), target.context_max())
    };
    let (plain, context) = with(vec![]);
    assert_eq!(context, 128);
    assert!(
        plain.engine.starts_with("llama.cpp of llama-cpp-sys-2 0.") && plain.numerics.contains(" f16 "),
        "{plain}"
    );
    let (other, _) = with(vec![("llama.rope.freq_base".into(), Value::F32(500_000.0))]);
    assert_ne!(plain.weights, other.weights);
    let (named, _) = with(vec![("general.name".into(), Value::String("x".into()))]);
    assert_eq!(plain.weights, named.weights);
    let short = LlamaSettings { context_max: Some(50), ..ROOMY };
    assert_eq!(load(&open(&complete(Tiny::new(GgmlDType::F32))), short).unwrap().context_max(), 50);
}

/// A child's proof is of the file that it tried.
#[test]
fn a_file_that_changes_after_the_trial_is_refused() {
    let model = open(&complete(Tiny::new(GgmlDType::F32)));
    let mut progress: LoadProgress = Box::new(|_, _, _| {});
    let rehearsed = Rehearsed::in_child(&model.dir, ROOMY, child(), &mut progress).unwrap();
    let path = model.folder.path().join("model.gguf");
    std::fs::write(&path, std::fs::read(&path).unwrap()).unwrap();
    let refused = LlamaTarget::load(rehearsed, progress).unwrap_err();
    assert!(matches!(refused, Error::Changed { .. }), "{refused}");
}

/// A child without a word, and one that can't be started.
#[test]
fn a_child_that_tries_nothing_is_an_error() {
    let model = open(&complete(Tiny::new(GgmlDType::F32)));
    for (program, words) in [("true", "ended without an answer"), ("/nonexistent", "can't be started")] {
        let mut progress: LoadProgress = Box::new(|_, _, _| {});
        let refused =
            Rehearsed::in_child(&model.dir, ROOMY, Command::new(program), &mut progress).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn loading_reports_each_step_up_to_all_bytes() {
    let model = open(&complete(Tiny::new(GgmlDType::Q8_0)));
    let steps = Rc::new(RefCell::new(Vec::new()));
    let seen = steps.clone();
    let progress = Box::new(move |step, done, total| seen.borrow_mut().push((step, done, total)));
    load_with(&model.dir, ROOMY, progress).unwrap();
    for step in [LoadStep::Searching, LoadStep::Trying, LoadStep::Reading, LoadStep::Hashing] {
        let last = steps.borrow().iter().rfind(|(found, ..)| *found == step).copied();
        assert!(last.is_some_and(|(_, done, total)| done == total && total > 0), "{step:?}: {last:?}");
    }
}
