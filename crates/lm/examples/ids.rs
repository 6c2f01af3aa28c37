//! Ids of conversations and texts, for comparisons with other libraries: reads one request a line from standard input
//! and answers each with one line, both in JSON.
//!
//! - `{"model": FOLDER, "messages": [{"role": ROLE, "content": TEXT}, …]}`: the conversation as a device would send it,
//!   up to the place where the reply begins: `{"ids": […], "text": RENDERED}`.
//! - `{"vocabulary": FILE, "texts": [TEXT, …]}`: of a GGUF file or a `tokenizer.json` alone, the ids of each text and
//!   the text that a stream makes of them, token by token: `{"ids": [[…], …], "streamed": [TEXT, …]}`.
//!
//! A failure is answered with `{"error": WORDS}`.

#![allow(clippy::print_stdout, reason = "it answers another program")]

use dunlin_gguf::Header;
use dunlin_lm::{Message, ModelDir, TextStream, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Chat { model: PathBuf, messages: Vec<Said> },
    Texts { vocabulary: PathBuf, texts: Vec<String> },
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut last: Option<ModelDir> = None;
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::Chat { model, messages } => chat(&mut last, &model, &messages),
            Request::Texts { vocabulary, texts } => encoded(&vocabulary, &texts),
        };
        println!("{}", answer.unwrap_or_else(|error| json!({"error": error.to_string()})));
    }
    Ok(())
}

/// The ids of a conversation. The last model stays open, since a tokenizer takes a second to read.
fn chat(last: &mut Option<ModelDir>, model: &Path, messages: &[Said]) -> Result<Value, Box<dyn Error>> {
    let dir = match last.take().filter(|dir| dir.path == model) {
        Some(dir) => last.insert(dir),
        None => last.insert(ModelDir::open_tokenizer(model)?),
    };
    let messages: Vec<Message> = messages
        .iter()
        .map(|said| Ok(Message::new(role(&said.role)?, dir.tokenizer.shield(&said.content)?)))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let text = dir.chat.as_ref().ok_or("no chat template")?.render(&messages, true)?;
    Ok(json!({"ids": dir.tokenizer.encode_chat(&text)?, "text": text}))
}

fn role(name: &str) -> Result<&'static str, String> {
    let known = ["system", "user", "assistant"];
    known.into_iter().find(|role| *role == name).ok_or_else(|| format!("unknown role {name:?}"))
}

/// The ids of texts, and the texts that streams make of them.
fn encoded(vocabulary: &Path, texts: &[String]) -> Result<Value, Box<dyn Error>> {
    let tokenizer = match vocabulary.extension().is_some_and(|extension| extension == "gguf") {
        true => {
            let file = File::open(vocabulary)?;
            let bytes = file.metadata()?.len();
            Tokenizer::from_gguf(vocabulary, &Header::read(&mut BufReader::new(file), bytes)?)?
        }
        false => Tokenizer::open(vocabulary)?,
    };
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| tokenizer.encode_text(text)).collect::<Result<_, _>>()?;
    let streamed: Vec<String> = ids.iter().map(|ids| streamed(&tokenizer, ids)).collect();
    Ok(json!({"ids": ids, "streamed": streamed}))
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = TextStream::new(tokenizer);
    let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
    text.push_str(&stream.finish());
    text
}
