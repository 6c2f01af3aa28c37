//! A chat template, the last line of the bytes as the user's prompt: whatever it does is within the limits, and nothing
//! gives up.
#![no_main]

use dunlin_lm::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|text: &str| {
    let (source, prompt) = text.rsplit_once('\n').unwrap_or((text, "Hello"));
    let names = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let messages = [Message::new("user", prompt), Message::new("assistant", "Hi."), Message::new("user", prompt)];
    let rendered = ChatTemplate::new(source, names).and_then(|template| template.render(&messages, true));
    if let Err(error) = rendered {
        assert!(!error.to_string().contains("gave up"), "{error}");
    }
});
