//! A comparison of tokens with true ids: for each `FILE.gguf` given, of the texts in `FILE.gguf.inp` with the ids in
//! `FILE.gguf.out`, as in llama.cpp's `models/ggml-vocab-*`.

#![allow(clippy::print_stdout, reason = "it reports to a person")]

use dunlin_gguf::Header;
use dunlin_lm::Tokenizer;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut all_equal = true;
    for file in std::env::args().skip(1) {
        match compare(&file) {
            Ok((equal, texts)) => {
                all_equal &= equal == texts;
                println!("{file}: {equal} of {texts} texts equal");
            }
            Err(error) => {
                println!("{error}");
            }
        }
    }
    Ok(if all_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The number of texts whose ids are equal, and of all texts.
fn compare(file: &str) -> Result<(usize, usize), Box<dyn Error>> {
    let bytes = fs::read(file)?;
    let header = Header::read(&mut bytes.as_slice(), bytes.len() as u64)?;
    let tokenizer = Tokenizer::from_gguf(Path::new(file), &header)?;
    let texts = fs::read_to_string(format!("{file}.inp"))?;
    let ids = fs::read_to_string(format!("{file}.out"))?;
    let (mut equal, mut count) = (0, 0);
    for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(ids.lines()) {
        let expected: Vec<u32> = ids.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let found = tokenizer.encode_text(text)?;
        count += 1;
        if found == expected {
            equal += 1;
        } else {
            println!("{text:?}\n  found    {found:?}\n  expected {expected:?}");
        }
    }
    Ok((equal, count))
}
