//! Compares the demo drafter's tokens and their scores with a file that holds for all kinds of machine. A board's
//! processor has other kernels, which sum in another order.
//!
//! `DUNLIN_GOLDEN=write` rewrites the file; `DUNLIN_GOLDEN_PROMPTS=N` compares only the first N prompts.

use crate::files::demo;
use dunlin_hlm::coupling::couple;
use dunlin_hlm::importance;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_hlm::uncertainty::{Form, to_score4, uncertainty};
use dunlin_lm::{Draft, ModelDir};
use dunlin_lm_tract::Drafter;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Most tokens drafted for each prompt.
const TOKENS_MAX: usize = 20;

/// One in so many codes may differ. A code is the index of a bin, and the last bit of a sum decides on which side of a
/// bin's edge a number near it falls. Sums differ by about 1e-6 of their size between kernels, and a number is that
/// near to one of the 15 edges once in 10 000 times.
const CODES_PER_DIFFERENCE: usize = 1000;

/// The draft after one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
struct Drafted {
    prompt: String,
    text: String,
    /// One hexadecimal digit per token.
    uncertainty: String,
    importance: String,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/golden.txt")
}

fn prompts() -> Vec<String> {
    let text = std::fs::read_to_string(demo("prompts.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["prompts"].as_array().unwrap().iter().map(|prompt| prompt.as_str().unwrap().into()).collect()
}

fn draft(drafter: &mut Drafter, dir: &ModelDir, prompt: &str) -> Drafted {
    let greedy = Sampling::greedy();
    let mut all = dir.first_turn(prompt).unwrap();
    let (prompt_tokens, mut fed) = (all.len(), 0);
    let mut drafted = Drafted { prompt: prompt.into(), ..Drafted::default() };
    drafter.truncate(0);
    while all.len() < prompt_tokens + TOKENS_MAX {
        let rows = drafter.extend(&all[fed..]).unwrap();
        fed = all.len();
        let last = rows.len() - 1;
        let logits = &rows.logits(last)[..dir.vocabulary.size as usize];
        let position = all.len() as u64;
        let token = couple(&Distribution::from_logits(logits, &greedy).unwrap(), 0, position);
        let unsure = uncertainty(Form::Quadrature, logits, token, 1.0, 0, position);
        write!(drafted.uncertainty, "{:x}", to_score4(unsure).get()).unwrap();
        let weight = importance::row(rows.attention(last).unwrap());
        write!(drafted.importance, "{:x}", to_score4(weight).get()).unwrap();
        all.push(token);
        if dir.prompt.stop.contains(&token) {
            break;
        }
    }
    drafted.text = format!("{:?} {:?}", dir.tokenizer.decode(&all[prompt_tokens..]), &all[prompt_tokens..]);
    drafted
}

fn write(all: &[Drafted]) -> String {
    all.iter().fold(String::new(), |mut text, Drafted { prompt, text: said, uncertainty, importance }| {
        writeln!(text, "> {prompt}\n= {said}\nu {uncertainty}\ni {importance}").unwrap();
        text
    })
}

fn read(text: &str) -> Vec<Drafted> {
    let lines: Vec<&str> = text.lines().map(|line| line.split_at(2).1).collect();
    let drafted = |block: &[&str]| {
        let [prompt, text, uncertainty, importance] = block.try_into().unwrap();
        let [prompt, text] = [prompt, text].map(String::from);
        Drafted { prompt, text, uncertainty: uncertainty.into(), importance: importance.into() }
    };
    lines.chunks(4).map(drafted).collect()
}

/// The number of codes that differ, and of those that differ by more than one.
fn differences(here: &str, golden: &str) -> (usize, usize) {
    assert_eq!(here.len(), golden.len(), "{here} has another number of codes than {golden}");
    let digit = |c: u8| i32::from_str_radix(std::str::from_utf8(&[c]).unwrap(), 16).unwrap();
    let apart = here.bytes().zip(golden.bytes()).map(|(a, b)| (digit(a) - digit(b)).abs());
    apart.fold((0, 0), |(any, far), by| (any + usize::from(by > 0), far + usize::from(by > 1)))
}

#[test]
#[allow(clippy::print_stdout, reason = "the count of differences is what it is run for")]
fn the_drafter_drafts_the_same_on_every_machine() {
    let dir = ModelDir::open(demo("drafter")).unwrap();
    let (mut drafter, _) = Drafter::load(&dir).unwrap();
    let count = std::env::var("DUNLIN_GOLDEN_PROMPTS").map_or(usize::MAX, |count| count.parse().unwrap());
    let here: Vec<Drafted> =
        prompts().iter().take(count).map(|prompt| draft(&mut drafter, &dir, prompt)).collect();
    if std::env::var("DUNLIN_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(golden(), write(&here)).unwrap();
    }
    let golden = read(&std::fs::read_to_string(golden()).unwrap());
    let (mut codes, mut any, mut far) = (0, [0; 2], 0);
    for (here, golden) in here.iter().zip(&golden) {
        assert_eq!((&here.prompt, &here.text), (&golden.prompt, &golden.text), "another text was drafted");
        let pairs = [(&here.uncertainty, &golden.uncertainty), (&here.importance, &golden.importance)];
        for (which, (here, golden)) in pairs.into_iter().enumerate() {
            let (differ, differ_far) = differences(here, golden);
            codes += here.len();
            any[which] += differ;
            far += differ_far;
        }
    }
    let prompts = here.len();
    println!(
        "{}: {prompts} prompts drafted as on every machine; of {codes} codes of scores, differ",
        std::env::consts::ARCH
    );
    println!("  uncertainty: {}, importance: {}, by more than one: {far}", any[0], any[1]);
    assert!(prompts > 0 && golden.len() >= prompts, "the file has {} prompts", golden.len());
    assert_eq!(far, 0, "a code differs by more than one");
    assert!(any[0] + any[1] <= codes / CODES_PER_DIFFERENCE, "{any:?} of {codes} codes differ");
}
