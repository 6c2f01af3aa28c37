//! Damaged files: whatever they make llama.cpp do, this process goes on, and the error is clear.

use crate::files::Random;
use crate::layout::{Layout, STRING, U32};
use crate::suite::ARCHITECTURES;
use crate::target::{complete, load, wide};
use crate::tiny::{Opened, Tiny, open};
use dunlin_lm::{Error, Extend, Target};
use dunlin_lm_candle::files::GgmlDType;
use dunlin_lm_candle::files::gguf_file::Value;
use dunlin_lm_llamacpp::LlamaSettings;
use std::collections::BTreeMap;
use std::fs;

/// Mutants of each seed file.
const MUTANTS: usize = 40;

const SMALL: LlamaSettings =
    LlamaSettings { kv_bytes_max: 1 << 24, sessions_max: 2, context_max: None, threads: 1, is_wide: false };

/// Numbers at which programs go wrong.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 3, 5, 33, 63, 255, 1 << 16, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, u64::MAX];

/// Settings that the seed files lack, and that llama.cpp reads.
const FURTHER: [&str; 16] = [
    "expert_count",
    "expert_used_count",
    "attention.sliding_window",
    "attention.value_length",
    "attention.max_alibi_bias",
    "attention.clamp_kqv",
    "attention.kv_lora_rank",
    "attention.group_norm_groups",
    "rope.dimension_count",
    "rope.dimension_sections",
    "rope.scaling.factor",
    "leading_dense_block_count",
    "ssm.conv_kernel",
    "nextn_predict_layers",
    "logit_scale",
    "pooling_type",
];

/// Architectures and tokenizers of llama.cpp's.
const NAMES: [&str; 18] = [
    "llama",
    "llama4",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "gemma3n",
    "gptneox",
    "gpt2",
    "falcon",
    "mamba",
    "rwkv7",
    "deepseek2",
    "phi3",
    "t5",
    "bert",
    "none",
    "plamo2",
    "",
];

/// One damage.
fn damage(file: &mut Layout, random: &mut Random) {
    let number = |random: &mut Random| NUMBERS[random.below(NUMBERS.len())];
    let name = |random: &mut Random| NAMES[random.below(NAMES.len())];
    let key = random.below(file.keys.len());
    let tensor = random.below(file.tensors.len());
    match random.below(16) {
        0 | 1 => {
            let width = file.keys[key].value.len().min(8);
            let bytes = number(random).to_le_bytes();
            file.keys[key].value[..width].copy_from_slice(&bytes[..width]);
        }
        2 => file.keys[key].kind = random.below(14) as u32,
        3 => drop(file.keys.remove(key)),
        4 | 5 => {
            let rest = FURTHER[random.below(FURTHER.len())];
            let key = format!("{}.{rest}", file.architecture());
            file.set(&key, U32, (number(random) as u32).to_le_bytes().to_vec());
        }
        6 => {
            let key = ["general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"][random.below(3)];
            let text = name(random);
            file.set(key, STRING, [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat());
        }
        7 => {
            let dimension = random.below(file.tensors[tensor].shape.len());
            let found = &mut file.tensors[tensor].shape[dimension];
            *found = [*found + 1, *found / 2, *found * 2, 1, number(random)][random.below(5)];
        }
        8 => file.tensors[tensor].shape.reverse(),
        9 => file.tensors[tensor].shape.push(1 + random.below(2) as u64),
        10 => file.tensors[tensor].kind = random.below(42) as u32,
        11 => {
            let other = random.below(file.tensors.len());
            let names = [tensor, other].map(|place| file.tensors[place].name.clone());
            file.tensors[tensor].name.clone_from(&names[1]);
            file.tensors[other].name.clone_from(&names[0]);
        }
        12 => drop(file.tensors.remove(tensor)),
        13 => {
            let other = random.below(file.tensors.len());
            file.tensors[tensor].offset = [file.tensors[other].offset, number(random)][random.below(2)];
        }
        14 => {
            let from = random.below(file.data.len());
            let to = (from + 64 + random.below(2000)).min(file.data.len());
            let fill = [0xff, 0x7f, 0x7c, 0x80][random.below(4)];
            file.data[from..to].fill(fill);
        }
        _ => {
            let value = &mut file.keys[key].value;
            let (at, count) = (random.below(value.len().max(1)), random.below(40));
            let noise: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
            value.splice(at.min(value.len())..(at + count / 2).min(value.len()), noise);
        }
    }
}

/// Tokens of a SentencePiece or a byte-level tokenizer, as llama.cpp reads them.
fn tokenizer(kind: &str, count: usize) -> Vec<(String, Value)> {
    let strings = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let key = |rest: &str| format!("tokenizer.ggml.{rest}");
    let tokens = (0..count).map(|id| match id {
        0 => "<unk>".into(),
        1 => "<s>".into(),
        2 => "</s>".into(),
        _ => format!("t{id}"),
    });
    let mut all = vec![
        (key("model"), Value::String(kind.into())),
        (key("tokens"), strings(tokens.collect())),
        (key("scores"), Value::Array((0..count).map(|id| Value::F32(-(id as f32))).collect())),
        (key("token_type"), Value::Array((0..count).map(|id| Value::I32(1 + (id < 3) as i32 * 2)).collect())),
        (key("bos_token_id"), Value::U32(1)),
        (key("eos_token_id"), Value::U32(2)),
    ];
    if kind == "gpt2" {
        all.push((key("pre"), Value::String("default".into())));
        all.push((key("merges"), strings(vec!["t 1".into(), "t 2".into()])));
    }
    all
}

/// Files that can be loaded, of several architectures, types and tokenizers.
fn seeds() -> Vec<Tiny> {
    let mut seeds: Vec<Tiny> = ARCHITECTURES.into_iter().map(|name| complete(wide(name))).collect();
    seeds.push(complete(Tiny::new(GgmlDType::Q8_0)));
    seeds.push(complete(Tiny::new(GgmlDType::Q4K)));
    for kind in ["llama", "gpt2"] {
        let metadata = tokenizer(kind, 96);
        seeds.push(complete(Tiny { metadata, layers: 1, ..Tiny::new(GgmlDType::F16) }));
    }
    seeds
}

/// Writes a seed with a tokenizer beside it; the mutants are written in its place.
fn planted(tiny: &Tiny) -> (Opened, Layout) {
    let plain = Tiny { metadata: Vec::new(), ..tiny.clone() };
    let own = |(key, _): &&(String, Value)| !key.starts_with("tokenizer.");
    let metadata = tiny.metadata.iter().filter(own).cloned().collect();
    let opened = open(&complete(Tiny { metadata, ..plain }));
    tiny.write(opened.folder.path());
    let layout = Layout::parse(&fs::read(opened.folder.path().join("model.gguf")).unwrap());
    (opened, layout)
}

/// Runs what a target is asked for: a context, drafts, a rollback, and another session.
fn run(target: &mut dyn Target) {
    let sessions = [(); 2].map(|()| target.open().unwrap());
    for (session, keep, count) in [(0, 0, 50), (0, 50, 5), (0, 51, 5), (1, 0, 3)] {
        let tokens = &Random(keep as u64).tokens(count, 96);
        // Ignore the answer: a small context may be full, and rows that aren't numbers are an error.
        let _ = target.extend(&[Extend { session: sessions[session], keep, tokens, rows: count.min(5) }]);
    }
}

/// The part of the program that noticed a damage.
fn outcome(opened: &Opened) -> &'static str {
    match load(opened, SMALL) {
        Ok(mut target) => {
            run(&mut target);
            "loaded"
        }
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("model.gguf") && !words.contains(char::is_control), "{words}");
            match error {
                Error::Tried(_) => "refused by the child",
                _ if words.contains("tries it first") => "the end of the child",
                _ => "refused by our reader",
            }
        }
    }
}

#[test]
fn a_damaged_file_is_loaded_or_a_clear_error() {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for (seed, tiny) in seeds().into_iter().enumerate() {
        let (opened, whole) = planted(&tiny);
        let path = opened.folder.path().join("model.gguf");
        assert_eq!(outcome(&opened), "loaded", "{tiny:?}");
        for mutant in 0..MUTANTS {
            let random = &mut Random((seed * MUTANTS + mutant) as u64);
            let mut file = whole.clone();
            (0..=random.below(2)).for_each(|_| damage(&mut file, random));
            fs::write(&path, file.bytes()).unwrap();
            *outcomes.entry(outcome(&opened)).or_default() += 1;
        }
    }
    // Each of them occurs, or else the damages test less than they seem to.
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    assert_eq!(outcomes.values().sum::<usize>(), seeds().len() * MUTANTS);
}
