//! How many rows of a model on llama.cpp have the bits that they have alone, over the choices that a context has.
//!
//! `cargo run --release -p dunlin-lm-llamacpp --example bits -- FILE.gguf` prints a line for each choice and case.

#![allow(clippy::print_stdout, reason = "a program whose output is a table")]
#![allow(clippy::unwrap_used, reason = "a measurement that can't go on stops")]

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use std::num::NonZeroU32;
use std::time::Instant;

const ROWS: usize = 8;
const LENGTHS: [usize; 3] = [20, 37, 290];

/// Choices of a context.
#[derive(Clone, Copy, Debug)]
struct Choice {
    threads: i32,
    flash: bool,
    shared: bool,
    f32_cache: bool,
    pass_rows: u32,
}

struct Bench<'m> {
    context: LlamaContext<'m>,
    vocabulary: usize,
}

type Part<'a> = (i32, usize, &'a [LlamaToken], usize);
type Rows = Vec<Vec<f32>>;

impl<'m> Bench<'m> {
    fn new(model: &'m LlamaModel, backend: &LlamaBackend, sequences: u32, choice: Choice) -> Self {
        let kind = if choice.f32_cache { KvCacheType::F32 } else { KvCacheType::F16 };
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(1024 * sequences))
            .with_n_seq_max(sequences)
            .with_kv_unified(choice.shared)
            .with_n_batch(1024)
            .with_n_ubatch(choice.pass_rows)
            .with_n_threads(choice.threads)
            .with_n_threads_batch(choice.threads)
            .with_type_k(kind)
            .with_type_v(kind)
            .with_flash_attention_policy(i32::from(choice.flash))
            .with_swa_full(true);
        let context = model.new_context(backend, params).unwrap();
        Self { context, vocabulary: model.n_vocab() as usize }
    }

    fn decode(&mut self, parts: &[Part<'_>]) -> Vec<Rows> {
        let mut batch = LlamaBatch::new(1024, 1);
        let mut places: Vec<Vec<i32>> = Vec::new();
        for (sequence, position, tokens, rows) in parts {
            let mut wanted = Vec::new();
            for (i, token) in tokens.iter().enumerate() {
                let is_wanted = i + rows >= tokens.len();
                if is_wanted {
                    wanted.push(batch.n_tokens());
                }
                batch.add(*token, (position + i) as i32, &[*sequence], is_wanted).unwrap();
            }
            places.push(wanted);
        }
        self.context.decode(&mut batch).unwrap();
        let row = |place: i32| self.context.get_logits_ith(place).to_vec();
        places.into_iter().map(|wanted| wanted.into_iter().map(row).collect()).collect()
    }

    fn read(&mut self, sequence: i32, text: u32, count: usize) {
        let tokens = self.tokens(text, 0, count);
        self.decode(&[(sequence, 0, &tokens, 0)]);
    }

    fn keep(&mut self, sequence: u32, length: usize) {
        assert!(self.context.clear_kv_cache_seq(Some(sequence), Some(length as u32), None).unwrap());
    }

    fn tokens(&self, text: u32, from: usize, count: usize) -> Vec<LlamaToken> {
        let token = |i: usize| (text as usize * 7919 + i * 104_729 + i * i * 31) % self.vocabulary;
        (from..from + count).map(|i| LlamaToken::new(token(i) as i32)).collect()
    }
}

fn total_variation(one: &[f32], other: &[f32]) -> f64 {
    let softmax = |row: &[f32]| -> Vec<f64> {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let shares: Vec<f64> = row.iter().map(|logit| f64::from(logit - most).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|share| share / sum).collect()
    };
    softmax(one).iter().zip(softmax(other)).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

fn compare(name: &str, expected: &[Vec<f32>], found: &[Vec<f32>]) {
    let same =
        |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
    let pairs = || expected.iter().zip(found);
    let count = pairs().filter(|pair| same(*pair)).count();
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    let flips = pairs().filter(|(a, b)| best(a) != best(b)).count();
    let most = pairs().map(|(a, b)| total_variation(a, b)).fold(0.0, f64::max);
    println!(
        "  {name:42} {count:2} of {:2} rows, best token of {flips} differs, TV up to {most:.0e}",
        found.len()
    );
}

fn measure(model: &LlamaModel, backend: &LlamaBackend, choice: Choice) {
    println!("{choice:?}");
    let mut expected: Vec<Rows> = Vec::new();
    for (text, length) in (0..).zip(LENGTHS) {
        let mut alone = Bench::new(model, backend, 1, choice);
        alone.read(0, text, length);
        let tokens = alone.tokens(text, length, ROWS);
        expected.push(
            (0..ROWS).map(|i| alone.decode(&[(0, length + i, &tokens[i..=i], 1)])[0][0].clone()).collect(),
        );
        alone.keep(0, length);
        compare(
            &format!("{length} + chunk of 8"),
            &expected[text as usize],
            &alone.decode(&[(0, length, &tokens, 8)])[0],
        );
        alone.keep(0, 0);
        let all = alone.tokens(text, 0, length);
        (0..length).for_each(|i| drop(alone.decode(&[(0, i, &all[i..=i], 0)])));
        let rows = alone.decode(&[(0, length, &tokens, 8)]).remove(0);
        compare(&format!("{length} read one by one + chunk of 8"), &expected[text as usize], &rows);
        alone.keep(0, length);
        let wrong = alone.tokens(9, 0, 6);
        alone.decode(&[(0, length, &wrong, 6)]);
        alone.keep(0, length);
        let mut rows = alone.decode(&[(0, length, &tokens[..4], 4)]).remove(0);
        rows.extend(alone.decode(&[(0, length + 4, &tokens[4..], 4)]).remove(0));
        compare(&format!("{length} + rollback + 4 + 4"), &expected[text as usize], &rows);
    }
    let mut many = Bench::new(model, backend, 4, choice);
    (0..).zip(LENGTHS).for_each(|(text, length)| many.read(text as i32, text, length));
    let drafts: Vec<Vec<LlamaToken>> =
        (0..).zip(LENGTHS).map(|(text, length)| many.tokens(text, length, ROWS)).collect();
    let beside = many.tokens(3, 0, 250);
    let parts = [
        (0, LENGTHS[0], &drafts[0][..8], 8),
        (1, LENGTHS[1], &drafts[1][..3], 3),
        (2, LENGTHS[2], &drafts[2][..1], 1),
        (3, 0, &beside[..], 0),
    ];
    let rows = many.decode(&parts);
    for (text, rows) in rows[..3].iter().enumerate() {
        compare(&format!("ragged: {} + {}", LENGTHS[text], rows.len()), &expected[text], rows);
    }
    // A neighbour goes, and its cells are used again by one that stays.
    many.keep(0, 0);
    many.keep(1, LENGTHS[1]);
    let rows = many.decode(&[(1, LENGTHS[1], &drafts[1], 8)]).remove(0);
    compare("after a neighbour has gone: 37 + 8", &expected[1], &rows);
    speed(model, backend, choice);
}

fn speed(model: &LlamaModel, backend: &LlamaBackend, choice: Choice) {
    let mut line = String::from("  ms a pass:");
    for (sequences, rows) in [(1, 1), (1, 4), (1, 8), (4, 4), (8, 4)] {
        let mut bench = Bench::new(model, backend, sequences, choice);
        (0..sequences).for_each(|s| bench.read(s as i32, s, 64));
        let texts: Vec<_> = (0..sequences).map(|s| bench.tokens(s, 64, rows)).collect();
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let parts: Vec<Part<'_>> =
                    (0..sequences as usize).map(|s| (s as i32, 64, &texts[s][..], rows)).collect();
                let started = Instant::now();
                bench.decode(&parts);
                let took = started.elapsed().as_secs_f64() * 1e3;
                (0..sequences).for_each(|s| bench.keep(s, 64));
                took
            })
            .collect();
        times.sort_by(f64::total_cmp);
        line += &format!(" {sequences} x {rows}: {:.1};", times[2]);
    }
    let mut bench = Bench::new(model, backend, 1, choice);
    let tokens = bench.tokens(0, 0, 256);
    let started = Instant::now();
    bench.decode(&[(0, 0, &tokens, 1)]);
    println!("{line} 256 read: {:.0}", started.elapsed().as_secs_f64() * 1e3);
}

fn main() {
    let file = std::env::args().nth(1).expect("a GGUF file");
    send_logs_to_tracing(LogOptions::default().with_logs_enabled(false));
    let backend = LlamaBackend::init().unwrap();
    let model = LlamaModel::load_from_file(&backend, &file, &LlamaModelParams::default()).unwrap();
    println!("{file}: {:?}", dunlin_lm_llamacpp::LlamaBuild::LINKED);
    let exact = Choice { threads: 1, flash: true, shared: false, f32_cache: false, pass_rows: 32 };
    for choice in [
        exact,
        Choice { threads: 2, ..exact },
        Choice { pass_rows: 512, ..exact },
        Choice { shared: true, ..exact },
        Choice { shared: true, pass_rows: 512, ..exact },
        Choice { flash: false, ..exact },
        Choice { f32_cache: true, ..exact },
    ] {
        measure(&model, &backend, choice);
    }
}
