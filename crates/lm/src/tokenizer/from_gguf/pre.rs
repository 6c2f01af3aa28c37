//! The pre-tokenizers of byte-level BPE by the names that `tokenizer.ggml.pre` has for them.
//!
//! Names and expressions are llama.cpp's (`llama-vocab.cpp`). Where llama.cpp had to adapt a model's own expression,
//! the model's own one is used here.

/// A pre-tokenizer: expressions that split a text one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PreTokenizing {
    /// The expressions.
    pub(super) splits: &'static [&'static str],
    /// True when a piece that is a token isn't merged from its parts.
    pub(super) whole: bool,
    /// True when a text is brought to Unicode's composed form (NFC) first. The file doesn't say so, and llama.cpp doesn't
    /// do it, but the model's own tokenizer does.
    pub(super) composed: bool,
    /// True when a context begins with a token even if the file doesn't say so.
    pub(super) begins: bool,
}

/// The name that a file without `tokenizer.ggml.pre` is taken to have.
pub(super) const DEFAULT: &str = "default";

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);

const DEEPSEEK3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];

/// Scripts of one case, as DeepSeek names them.
const HAN_AND_HANGUL: &str = r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";

/// The letters that DeepSeek LLM counts as such: those of scripts with two cases.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z",
    r"\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}",
    r"\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}",
    r"\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}",
    r"\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}",
    r"\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}",
    r"\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}",
    r"\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}",
    r"\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}",
    r"\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}",
    r"\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}",
    r"\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}",
    r"\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}",
    r"\u{1E900}-\u{1E943}",
    r"]+"
);

const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+";

const fn plain(splits: &'static [&'static str]) -> PreTokenizing {
    PreTokenizing { splits, whole: false, composed: false, begins: false }
}

/// The names of one pre-tokenizer, and the pre-tokenizer.
type Row = (&'static [&'static str], PreTokenizing);

const TABLE: &[Row] = &[
    (&[DEFAULT], plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"])),
    (
        &[
            "gpt-2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        plain(&[GPT2]),
    ),
    (&["mpt", "olmo"], PreTokenizing { composed: true, ..plain(&[GPT2]) }),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        PreTokenizing { whole: true, begins: true, ..plain(&[LLAMA3]) },
    ),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], plain(&[LLAMA3])),
    (&["glm4", "glm5"], PreTokenizing { whole: true, ..plain(&[LLAMA3]) }),
    (
        &["deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "grok-2", "solar-open"],
        plain(&[QWEN2]),
    ),
    (&["qwen2"], PreTokenizing { composed: true, ..plain(&[QWEN2]) }),
    (&["qwen35"], PreTokenizing { composed: true, ..plain(&[QWEN35]) }),
    (
        &["deepseek-llm"],
        plain(&[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
            r"\s+$",
            HAN_AND_HANGUL,
            r"\p{N}+",
        ]),
    ),
    (&["deepseek-coder"], plain(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_AND_HANGUL, r"\p{N}"])),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm"], plain(&DEEPSEEK3)),
    (&["falcon"], plain(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"])),
    (
        &["starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        plain(&[r"\p{N}", GPT2]),
    ),
    (&["command-r"], PreTokenizing { composed: true, ..plain(&[r"\p{N}", GPT2]) }),
    (&["tekken"], PreTokenizing { whole: true, begins: true, ..plain(&[TEKKEN]) }),
    (&["gpt-4o", "llama4", "kanana2", "minimax-m2"], plain(&[GPT4O])),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], plain(&[BAILING])),
    (&["seed-coder"], plain(&[SEED_CODER])),
    (&["poro-chat", "bloom", "gpt3-finnish"], plain(&[BLOOM])),
    (&["viking"], plain(&[BLOOM, r"\p{N}"])),
];

/// The pre-tokenizer with this name.
pub(super) fn named(name: &str) -> Option<PreTokenizing> {
    TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, pre)| *pre)
}

/// All names, sorted.
pub(super) fn names() -> String {
    let mut names: Vec<&str> = TABLE.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    };

    fn pieces(name: &str, text: &str) -> Vec<String> {
        let mut split = PreTokenizedString::from(text);
        for expression in named(name).unwrap().splits {
            let pattern = SplitPattern::Regex((*expression).into());
            let step = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap();
            step.pre_tokenize(&mut split).unwrap();
        }
        let pieces = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(piece, ..)| piece.into()).collect()
    }

    #[test]
    fn every_expression_compiles_and_every_name_is_one() {
        let all: Vec<&str> = TABLE.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for name in all {
            assert_eq!(pieces(name, "It's 1234 a\n\n b").concat(), "It's 1234 a\n\n b", "{name}");
        }
        assert_eq!(named("no-such"), None);
        assert!(names().contains("qwen2, qwen35"), "{}", names());
    }

    #[test]
    fn digits_go_together_as_the_name_says() {
        let digits = |name| pieces(name, "12345");
        assert_eq!(digits("gpt-2"), ["12345"]);
        assert_eq!(digits("llama-bpe"), ["123", "45"]);
        assert_eq!(digits("qwen2"), ["1", "2", "3", "4", "5"]);
        assert_eq!(digits("starcoder"), ["1", "2", "3", "4", "5"]);
        assert_eq!(digits("falcon"), ["123", "45"]);
        assert_eq!(digits("deepseek-v3"), ["123", "45"]);
    }

    #[test]
    fn spaces_and_capitals_go_together_as_the_name_says() {
        assert_eq!(pieces("gpt-2", "a  b'LL"), ["a", " ", " b", "'", "LL"]);
        assert_eq!(pieces("llama-bpe", "a  b'LL"), ["a", " ", " b", "'LL"]);
        assert_eq!(pieces("tekken", "fooBar"), ["foo", "Bar"]);
        assert_eq!(pieces("gpt-4o", "fooBar's"), ["foo", "Bar's"]);
        assert_eq!(pieces("bloom", "a.b c"), ["a", ".", "b", " c"]);
        assert!(named("llama-bpe").unwrap().whole && !named("qwen2").unwrap().whole);
    }
}
