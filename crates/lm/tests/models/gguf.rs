//! Tokenizers from the metadata of GGUF files: small made vocabularies, one for each rule, and the demo's target.

use crate::build::File;
use crate::files::demo;
use dunlin_lm::{Error, ModelDir, Tokenizer};
use std::fs;
use std::path::{Path, PathBuf};

const TEXTS: [&str; 9] = [
    "Hello, world!",
    " two  spaces\n\nand\ttabs \r\n",
    "Grüße, Jürgen. Ça va?",
    "日本語 and 한국어",
    "a dunlin 🐦 and a family 👨‍👩‍👧‍👦",
    "\u{0}\u{7f}\u{a0}\u{ad}",
    "I'd pay £1,234.56 - they'LL <|bos|> <|user|>",
    "",
    "    leading and trailing    ",
];

/// A token, its kind, and its score.
type Token = (String, i32, f32);

/// A model's file under construction.
#[derive(Clone)]
pub(crate) struct Made {
    tokens: Vec<Token>,
    file: File,
    rows: usize,
    kinds: bool,
}

impl Made {
    /// Byte-level BPE: the 256 bytes, then `tokens` with their kinds.
    pub(crate) fn byte_level(merges: &[&str], tokens: &[(&str, i32)]) -> Self {
        let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let others = (0..256).filter(|b| !printable(*b)).zip(0x100..);
        let mut all: Vec<(u32, u32)> =
            (0..256).filter(|b| printable(*b)).map(|b| (b, b)).chain(others).collect();
        all.sort_unstable();
        let bytes = all.iter().map(|(_, c)| (char::from_u32(*c).unwrap().to_string(), 1, 0.0));
        let given = tokens.iter().map(|(token, kind)| ((*token).to_string(), *kind, 0.0));
        Self::of(bytes.chain(given).collect())
            .text("tokenizer.ggml.model", "gpt2")
            .texts("tokenizer.ggml.merges", merges)
    }

    /// SentencePiece: `<unk>`, `<s>`, `</s>`, the 256 bytes, then `tokens` with kinds and scores.
    pub(crate) fn sentence_piece(tokens: &[(&str, i32, f32)]) -> Self {
        Self::spaced(tokens).text("tokenizer.ggml.model", "llama")
    }

    /// The same without the kind of tokenizer.
    fn spaced(tokens: &[(&str, i32, f32)]) -> Self {
        let first = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
        let first = first.map(|(token, kind)| (token.to_string(), kind, 0.0));
        let bytes = (0..256).map(|byte| (format!("<0x{byte:02X}>"), 6, 0.0));
        let given = tokens.iter().map(|(token, kind, score)| ((*token).to_string(), *kind, *score));
        Self::of(first.into_iter().chain(bytes).chain(given).collect())
    }

    fn of(tokens: Vec<Token>) -> Self {
        let file = File::new().text("general.architecture", "llama").key(
            "llama.context_length",
            4,
            &64u32.to_le_bytes(),
        );
        Self { rows: tokens.len(), tokens, file, kinds: true }
    }

    pub(crate) fn text(mut self, key: &str, text: &str) -> Self {
        self.file = self.file.text(key, text);
        self
    }

    pub(crate) fn texts(self, key: &str, texts: &[&str]) -> Self {
        let elements: Vec<u8> = texts.iter().flat_map(|text| self.file.string(text)).collect();
        let value = self.file.array(8, texts.len(), &elements);
        self.key(key, 9, &value)
    }

    pub(crate) fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.file = self.file.key(key, kind, value);
        self
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.key(&format!("tokenizer.ggml.{key}"), 7, &[value.into()])
    }

    pub(crate) fn id(self, key: &str, id: u32) -> Self {
        self.key(&format!("tokenizer.ggml.{key}_token_id"), 4, &id.to_le_bytes())
    }

    pub(crate) fn pre(self, name: &str) -> Self {
        self.text("tokenizer.ggml.pre", name)
    }

    fn without_kinds(mut self) -> Self {
        self.kinds = false;
        self
    }

    /// The id of a token.
    pub(crate) fn of_token(&self, token: &str) -> u32 {
        self.tokens.iter().position(|(other, ..)| other == token).unwrap() as u32
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let texts: Vec<&str> = self.tokens.iter().map(|(token, ..)| token.as_str()).collect();
        let mut whole = self.clone().texts("tokenizer.ggml.tokens", &texts);
        let numbers = |of: &dyn Fn(&Token) -> [u8; 4], kind| {
            let bytes: Vec<u8> = self.tokens.iter().flat_map(of).collect();
            self.file.array(kind, self.tokens.len(), &bytes)
        };
        let (kinds, scores) = (numbers(&|t| t.1.to_le_bytes(), 5), numbers(&|t| t.2.to_le_bytes(), 6));
        if self.kinds {
            whole = whole.key("tokenizer.ggml.token_type", 9, &kinds);
        }
        whole = whole.key("tokenizer.ggml.scores", 9, &scores);
        embedded(whole.file, self.rows)
    }

    /// Writes the file to a new folder and opens it there.
    pub(crate) fn open(&self) -> Result<ModelDir, Error> {
        open_bytes(&self.bytes())
    }

    fn tokenizer(&self) -> Tokenizer {
        self.open().unwrap().tokenizer
    }

    /// The tokens of a user's text, spelled.
    fn pieces(&self, text: &str) -> Vec<String> {
        let tokenizer = self.tokenizer();
        let tokens = tokenizer.encode_text(text).unwrap();
        tokens.iter().map(|id| tokenizer.token(*id).unwrap()).collect()
    }
}

/// The bytes of a file with an embedding of `rows` rows.
pub(crate) fn embedded(file: File, rows: usize) -> Vec<u8> {
    file.tensor("token_embd.weight", &[1, rows as u64], 0, &vec![0; 4 * rows]).bytes().0
}

pub(crate) fn open_bytes(bytes: &[u8]) -> Result<ModelDir, Error> {
    let folder = tempfile::tempdir().unwrap();
    ModelDir::open(written(folder.path(), bytes))
}

pub(crate) fn written(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("model.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_demo_target_alone_has_the_tokens_of_its_tokenizer_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::copy(demo("target/target.gguf"), &path).unwrap();
    let alone = ModelDir::open(&path).unwrap();
    let whole = ModelDir::open(demo("target")).unwrap();
    for text in TEXTS {
        let expected = whole.tokenizer.encode_text(text).unwrap();
        assert_eq!(alone.tokenizer.encode_text(text).unwrap(), expected, "{text:?}");
        assert_eq!(alone.tokenizer.decode(&expected), text);
    }
    let form = "<|bos|><|user|>{prompt}<|assistant|>";
    let of = |dir: &ModelDir| dir.tokenizer.encode_prompt(form, "Hi, <|eos|>").unwrap();
    assert_eq!(of(&alone), of(&whole));
    assert_eq!(alone.vocabulary, whole.vocabulary);
    assert_eq!((alone.name.as_str(), alone.context_max), ("dunlin-demo-target", 1024));
    assert_eq!((alone.prompt.form.as_str(), alone.prompt.stop), ("{prompt}", vec![2]));
    // The same file with the tokenizer.json beside it is the same model.
    fs::copy(demo("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(ModelDir::open(&path).unwrap().vocabulary, whole.vocabulary);
}

fn hello() -> Made {
    let letters = ["▁", "h", "e", "l", "o"].map(|letter| (letter, 1, -9.0));
    let words = [("he", 1, -4.0), ("ll", 1, -1.0), ("el", 1, -2.0), ("hell", 1, -5.0), ("▁hell", 1, -6.0)];
    Made::sentence_piece(&[&letters[..], &words[..]].concat())
}

#[test]
fn scores_say_what_is_merged_first() {
    let made = hello();
    // "ll" has a higher score than "el", so "hell" comes of "he" and "ll".
    assert_eq!(made.pieces("hello"), ["▁hell", "o"]);
    assert_eq!(made.pieces("hel o"), ["▁", "h", "el", "▁", "o"]);
    let dir = made.open().unwrap();
    assert_eq!((dir.prompt.form.as_str(), dir.prompt.stop.as_slice()), ("<s>{prompt}", &[2][..]));
    assert_eq!((dir.special.bos, dir.special.eos, dir.name.as_str()), (Some(1), Some(2), "model"));
}

#[test]
fn a_character_without_a_token_is_its_bytes() {
    let made = hello();
    assert_eq!(made.pieces("é"), ["▁", "<0xC3>", "<0xA9>"]);
    let tokenizer = made.tokenizer();
    for text in TEXTS {
        assert_eq!(tokenizer.decode(&tokenizer.encode_text(text).unwrap()), text);
    }
}

#[test]
fn gemma_4_has_merges_and_no_space_before_a_text() {
    let tokens = ["▁", "a", "\n", "▁a", "a\n", "\n\n"].map(|token| (token, 1, 0.0));
    let made = Made::spaced(&tokens).text("tokenizer.ggml.model", "gemma4").id("bos", 1);
    let made = made.texts("tokenizer.ggml.merges", &["a \n", "▁ a", "\n \n"]);
    // A line's end is merged with other ends only.
    assert_eq!(made.pieces("a a\n\né"), ["a", "▁a", "\n\n", "<0xC3>", "<0xA9>"]);
    let dir = made.open().unwrap();
    assert_eq!(dir.prompt.form, "<s>{prompt}");
    assert_eq!(dir.tokenizer.decode(&dir.tokenizer.encode_text(" a\né").unwrap()), " a\né");
}

#[test]
fn spaces_are_as_the_flags_say() {
    assert_eq!(hello().flag("add_space_prefix", false).pieces("hell"), ["hell"]);
    assert_eq!(hello().pieces("h  o "), ["▁", "h", "▁", "▁", "o", "▁"]);
    assert_eq!(hello().flag("remove_extra_whitespaces", true).pieces(" h  o "), ["▁", "h", "▁", "o"]);
    let dir = hello().flag("add_bos_token", false).flag("add_eos_token", true).open().unwrap();
    assert_eq!(dir.prompt.form, "{prompt}");
}

#[test]
fn no_text_makes_a_control_token() {
    let tokens = [("<|", 1), ("|>", 1), ("END", 3), ("<|y|>", 4), ("__", 4), ("<|x|>", 3)];
    // With this pre-tokenizer a whole piece that is a token is that token, so "END" would be one.
    let made = Made::byte_level(&["< |", "| >"], &tokens).pre("llama-bpe");
    assert_eq!(made.pieces("END"), ["E", "N", "D"]);
    assert_eq!(made.pieces("<|x|>"), ["<|", "x", "|>"]);
    // A user-defined token that looks like a control token is none for a user; another one is.
    assert_eq!(made.pieces("<|y|>"), ["<|", "y", "|>"]);
    assert_eq!(made.pieces("a__b"), ["a", "__", "b"]);
    assert_eq!(Made::byte_level(&[], &[("b_", 4)]).pre("qwen2").pieces("ab_c"), ["a", "b_", "c"]);
    let tokenizer = made.tokenizer();
    let form = tokenizer.encode_prompt("<|x|>END<|y|>{prompt}", "").unwrap();
    assert_eq!(form, ["<|x|>", "END", "<|y|>"].map(|token| made.of_token(token)));
    assert_eq!(tokenizer.decode(&form), "<|y|>");
    let spelled = [("▁", 1, 0.0), ("<", 1, 0.0), ("s", 1, 0.0), (">", 1, 0.0), ("<s", 1, -1.0)];
    assert_eq!(Made::sentence_piece(&spelled).pieces("<s>"), ["▁", "<s", ">"]);
}

#[test]
fn a_pre_tokenizer_goes_by_its_name() {
    let made =
        Made::byte_level(&["1 2", "12 3"], &[("12", 1), ("123", 1), ("ab", 1), ("<s>", 3)]).id("bos", 259);
    assert_eq!(made.clone().pre("gpt-2").pieces("1234"), ["123", "4"]);
    assert_eq!(made.clone().pre("qwen2").pieces("1234"), ["1", "2", "3", "4"]);
    // A file without a name has llama.cpp's default, in which three digits are a piece.
    assert_eq!(made.pieces("x123"), made.clone().pre("default").pieces("x123"));
    // "ab" has no merge: it is a token only where whole pieces count.
    assert_eq!(made.clone().pre("qwen2").pieces("ab"), ["a", "b"]);
    assert_eq!(made.clone().pre("llama-bpe").pieces("ab"), ["ab"]);
    let form = |made: Made| made.open().unwrap().prompt.form;
    let made = Made::byte_level(&[], &[("<s>", 3)]).id("bos", 256);
    assert_eq!(form(made.clone().pre("llama-bpe")), "<s>{prompt}");
    assert_eq!(form(made.clone().pre("llama-bpe").flag("add_bos_token", false)), "{prompt}");
    assert_eq!(form(made.clone().pre("qwen2")), "{prompt}");
    assert_eq!(form(made.pre("qwen2").flag("add_bos_token", true)), "<s>{prompt}");
}

#[test]
fn a_text_is_composed_where_the_models_own_tokenizer_does_it() {
    let made = Made::byte_level(&["Ã ©"], &[("Ã©", 1)]);
    for name in ["qwen2", "qwen35", "command-r", "mpt", "olmo"] {
        assert_eq!(made.clone().pre(name).pieces("e\u{301}"), ["Ã©"], "{name}");
    }
    for name in ["gpt-2", "llama-bpe", "starcoder", "deepseek-r1-qwen"] {
        assert_eq!(made.clone().pre(name).pieces("e\u{301}"), ["e", "Ì", "ģ"], "{name}");
    }
}

#[test]
fn a_user_may_write_html() {
    let made = Made::byte_level(&[], &[("<b>", 4), ("</b>", 4), ("<think>", 4), ("</s>", 4)]).pre("qwen2");
    assert_eq!(made.pieces("<b>x</b>"), ["<b>", "x", "</b>"]);
    assert_eq!(made.pieces("<think>").len(), 7);
    assert_eq!(made.pieces("</s>").len(), 4);
    let tokenizer = made.tokenizer();
    assert_eq!(tokenizer.shield("<b></b>").unwrap(), "<b></b>");
    assert_ne!(tokenizer.shield("<think>").unwrap(), "<think>");
}

#[test]
fn the_first_of_two_equal_merges_counts() {
    let made = Made::byte_level(&["a b", "b c", "a b"], &[("ab", 1), ("bc", 1)]).pre("gpt-2");
    assert_eq!(made.pieces("abc"), ["ab", "c"]);
}

#[test]
fn a_reply_ends_at_each_of_its_ends() {
    let tokens =
        [("<|im_end|>", 3), ("<|x|>", 3), ("<e>", 3), ("<|eot_id|>", 1), ("</s>", 3), ("<|end|>", 3)];
    let made = Made::byte_level(&[], &tokens).pre("gpt-2").id("eos", 258).id("eot", 257).id("eom", 258);
    let dir = made.open().unwrap();
    // A token with the name of an end counts as control even if the file calls it normal; `</s>` isn't such a name.
    assert_eq!(dir.prompt.stop, [256, 257, 258, 259, 261]);
    assert!(dir.tokenizer.is_control(259));
    let messages = Made::byte_level(&[], &[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3)]).pre("gpt-4o");
    assert_eq!(messages.open().unwrap().prompt.stop, [257, 258]);
}

#[test]
fn without_kinds_only_ids_with_a_role_are_control() {
    let made = Made::byte_level(&[], &[("<s>", 3), ("<t>", 3)]).pre("gpt-2").id("bos", 256).without_kinds();
    let tokenizer = made.tokenizer();
    assert!(tokenizer.is_control(256) && !tokenizer.is_control(257));
}

#[test]
fn padding_is_no_token() {
    let made = Made::byte_level(&[], &[("[PAD256]", 4), ("", 5), ("[PAD9]", 1)]).pre("gpt-2");
    let tokenizer = made.tokenizer();
    assert_eq!((tokenizer.token(256), tokenizer.token(257)), (None, None));
    assert_eq!(tokenizer.token(258).as_deref(), Some("[PAD9]"));
}

#[test]
fn name_and_template_are_the_files() {
    let template = "{{ messages[0].content }}";
    let made = Made::byte_level(&[], &[]).pre("gpt-2").text("tokenizer.chat_template", template);
    let dir = made.clone().text("general.name", "A model").open().unwrap();
    assert_eq!(dir.name, "A model");
    let asked = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
    let bare = Made::byte_level(&[], &[]).pre("gpt-2");
    let asked = bare.clone().text("tokenizer.chat_template", asked);
    assert!(
        asked.open().unwrap().shown_form().unwrap().contains("[Hello]"),
        "the file's own template prompts"
    );
    let invalid = bare.text("tokenizer.chat_template", "{{").open().unwrap_err().to_string();
    assert!(invalid.contains("model.gguf: chat template, line 1: "), "{invalid}");
    for unusable in [" ", "two\nlines", &"long".repeat(20)] {
        assert_eq!(made.clone().text("general.name", unusable).open().unwrap().name, "model");
    }
    assert!(ModelDir::open(demo("target")).unwrap().chat.is_none(), "a manifest's form wins");
}

/// The error of a file, which names it.
fn refusal(made: Made) -> String {
    let message = made.open().unwrap_err().to_string();
    assert!(message.contains("model.gguf: "), "{message}");
    message
}

#[test]
fn what_is_not_built_is_named() {
    let has = |made: Made, parts: &[&str]| {
        let message = refusal(made);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let of = |model| Made::of(vec![("a".into(), 1, 0.0)]).text("tokenizer.ggml.model", model);
    has(of("t5"), &["t5 (SentencePiece's unigram)", "put the model's own tokenizer.json"]);
    has(of("bert"), &["bert (WordPiece)", "can be built"]);
    has(of("rwkv\u{1b}"), &["\"rwkv\\u{1b}\""]);
    has(Made::of(vec![("a".into(), 1, 0.0)]), &["without tokenizer.ggml.model"]);
    has(Made::byte_level(&[], &[]).pre("new-one"), &["tokenizer.ggml.pre \"new-one\"", "qwen2", "llama-bpe"]);
}

#[test]
fn a_damaged_vocabulary_is_refused_with_its_key() {
    let has = |made: Made, parts: &[&str]| {
        let message = refusal(made);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let bytes = |tokens: &[(&str, i32)]| Made::byte_level(&[], tokens).pre("gpt-2");
    has(bytes(&[("q", 1)]), &["tokens: expected each token once", "\"q\" at 113 and 256"]);
    has(bytes(&[(&"x".repeat(5000), 3)]), &["tokens: expected at most 4096 bytes a token", "5000 at 256"]);
    has(bytes(&[("x1", 7)]), &["token_type: expected 0 to 6, found 7 at 256"]);
    has(bytes(&[]).id("bos", 256), &["bos_token_id: expected an id below 256, found 256"]);
    has(bytes(&[]).id("eot", u32::MAX), &["eot_token_id: expected an id below 256"]);
    has(bytes(&[]).text("tokenizer.ggml.bos_token_id", "1"), &["bos_token_id: expected an unsigned integer"]);
    has(bytes(&[]).text("tokenizer.ggml.add_bos_token", "yes"), &["add_bos_token: expected true or false"]);
    has(
        bytes(&[]).flag("x", true).key("tokenizer.chat_template", 7, &[1]),
        &["chat_template: expected a string"],
    );
    let merges = |merges: &[&str], tokens: &[(&str, i32)]| Made::byte_level(merges, tokens).pre("gpt-2");
    has(merges(&["a zz"], &[]), &["merges: expected two tokens of the file's list, found \"a zz\" at 0"]);
    has(merges(&["a b"], &[]), &["merges: expected two tokens whose union is a token"]);
    has(merges(&["ab"], &[("ab", 1)]), &["merges: expected two tokens with a space between them"]);
    has(merges(&[""], &[]), &["merges: expected two tokens with a space"]);
    has(Made::sentence_piece(&[("a", 1, f32::NAN)]), &["scores: expected numbers, found NaN at 259"]);
    has(Made::of(vec![(String::new(), 1, 0.0)]), &["tokens: expected at least one token with a text"]);
    has(
        Made::of(vec![("a".into(), 1, 0.0)]).text("tokenizer.ggml.model", "llama"),
        &["unknown_token_id: expected a token"],
    );
    let mut short = bytes(&[("x1", 1)]);
    short.rows = 200;
    has(short, &["vocabulary size: expected at least the tokenizer's 257, found 200"]);
}

#[test]
fn lists_of_other_lengths_types_and_bytes_are_refused() {
    let base = || File::new().text("general.architecture", "llama").text("tokenizer.ggml.model", "llama");
    let tokens = |file: File, texts: &[&[u8]]| {
        let one = |text: &&[u8]| [&(text.len() as u64).to_le_bytes(), *text].concat();
        let elements: Vec<u8> = texts.iter().flat_map(one).collect();
        let value = file.array(8, texts.len(), &elements);
        file.key("tokenizer.ggml.tokens", 9, &value)
    };
    let has = |file: File, part: &str| {
        let message = open_bytes(&embedded(file, 4)).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    let numbers = |file: File, key: &str, kind: u32, count: usize| {
        let value = file.array(kind, count, &vec![0; 4 * count]);
        file.key(&format!("tokenizer.ggml.{key}"), 9, &value)
    };
    has(tokens(base(), &[]), "tokens: expected 1 to 1048576 tokens, found 0");
    has(tokens(base(), &[b"\xff\xfe"]), "tokens: expected UTF-8, found other bytes");
    has(base().text("tokenizer.ggml.tokens", "a"), "tokens: expected an array of strings");
    has(tokens(base(), &[b"a", b"b"]), "scores: expected 2 numbers, found nothing");
    has(numbers(tokens(base(), &[b"a", b"b"]), "token_type", 5, 1), "token_type: expected one for each of 2");
    has(
        numbers(tokens(base(), &[b"a", b"b"]), "token_type", 6, 2),
        "token_type: expected an array of integers",
    );
    has(
        numbers(tokens(base(), &[b"a", b"b"]), "scores", 6, 3),
        "scores: expected one for each of 2 tokens, found 3",
    );
    let gpt2 = File::new().text("general.architecture", "llama").text("tokenizer.ggml.model", "gpt2");
    has(
        tokens(gpt2.text("tokenizer.ggml.pre", "gpt-2"), &[b"a"]),
        "merges: expected a list of merges, found nothing",
    );
    has(base(), "no tokenizer.ggml.tokens, is not supported: put the model's own tokenizer.json");
}

#[test]
fn no_damage_makes_a_panic() {
    let made = Made::byte_level(&["a b", "ab c"], &[("ab", 1), ("abc", 1), ("<s>", 3)])
        .pre("llama-bpe")
        .id("bos", 258);
    let random = &mut crate::files::Random(5);
    for whole in [made.bytes(), hello().bytes()] {
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            if let Ok(dir) = open_bytes(&bytes) {
                let _ = dir.tokenizer.encode_text("abc hello <s> 12");
            }
        }
    }
}
