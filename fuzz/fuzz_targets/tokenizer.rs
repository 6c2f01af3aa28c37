//! The tokenizer of a GGUF file's metadata: one that is built encodes what it decodes without a panic.
#![no_main]

use dunlin_gguf::Header;
use dunlin_lm::Tokenizer;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::read(&mut &bytes[..], bytes.len() as u64) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(Path::new("model.gguf"), &header) else { return };
    if let Ok(tokens) = tokenizer.encode_text("Hello, <|user|> wörld\n\n  42") {
        tokenizer.decode(&tokens);
    }
});
