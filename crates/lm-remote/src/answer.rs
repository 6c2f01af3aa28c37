//! The answers: the token chosen behind each prefix, checked.
//!
//! An answer is used whole or not at all. Which token ended a text is known in each form: vLLM and llama-server list it
//! among the tokens, SGLang lists it or names it as `matched`, and vLLM's `stop_reason` names all but the usual one.

use crate::http::excerpt;
use crate::settings::ServerKind;
use dunlin_lm::EngineChoice;
use serde::Deserialize;
use serde_json::Value;

/// The facts that an answer is checked against.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Number of choices.
    pub(crate) choices: usize,
    /// Size of the vocabulary.
    pub(crate) vocabulary: u32,
    /// The id that ends a text, if the model's folder tells.
    pub(crate) eos: Option<u32>,
    /// The model's name or version that answers carry.
    pub(crate) marker: Option<String>,
}

#[derive(Deserialize)]
struct VllmAnswer {
    model: Option<String>,
    choices: Vec<VllmChoice>,
}

#[derive(Deserialize)]
struct VllmChoice {
    index: usize,
    token_ids: Option<Vec<u32>>,
    finish_reason: Option<String>,
    stop_reason: Option<Value>,
}

#[derive(Deserialize)]
struct SglangAnswer {
    output_ids: Vec<u32>,
    meta_info: SglangMeta,
}

#[derive(Deserialize)]
struct SglangMeta {
    finish_reason: Option<SglangFinish>,
    weight_version: Option<Value>,
}

#[derive(Deserialize)]
struct SglangFinish {
    #[serde(rename = "type")]
    kind: String,
    matched: Option<Value>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct LlamaAnswer {
    index: Option<usize>,
    tokens: Vec<u32>,
    stop_type: Option<String>,
    truncated: Option<bool>,
    model: Option<String>,
}

/// llama-server answers one prompt with an object and several with a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

/// One choice of an answer, before it is checked.
struct Found {
    index: usize,
    tokens: Vec<u32>,
    /// The token that ended the text, if the answer names it apart from the tokens.
    stop: Option<u32>,
    ends: bool,
    marker: Option<String>,
}

impl ServerKind {
    /// The choices of an answer, in the order of the prefixes.
    ///
    /// # Errors
    /// The first thing that is wrong with the answer.
    pub(crate) fn choices(self, body: &[u8], expected: &Expected) -> Result<Vec<EngineChoice>, String> {
        let found = match self {
            Self::Vllm => vllm(body, expected),
            Self::Sglang => sglang(body),
            Self::LlamaServer => llama_server(body),
        }?;
        checked(found, expected)
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("not the expected JSON ({error}): \"{}\"", excerpt(body)))
}

fn vllm(body: &[u8], expected: &Expected) -> Result<Vec<Found>, String> {
    let VllmAnswer { model, choices } = read(body)?;
    let found = |choice: VllmChoice| {
        let ends = choice.finish_reason.as_deref() == Some("stop");
        // `stop_reason` is null for the usual end, which then only the token itself or the model's folder tells.
        let stop = match &choice.stop_reason {
            Some(Value::Number(id)) => id.as_u64().and_then(|id| id.try_into().ok()),
            _ => expected.eos,
        };
        let tokens = choice.token_ids.unwrap_or_default();
        Found { index: choice.index, tokens, stop: stop.filter(|_| ends), ends, marker: model.clone() }
    };
    Ok(choices.into_iter().map(found).collect())
}

fn sglang(body: &[u8]) -> Result<Vec<Found>, String> {
    let answers: Vec<SglangAnswer> = read(body)?;
    let found = |(index, answer): (usize, SglangAnswer)| {
        let finish = answer.meta_info.finish_reason;
        let kind = finish.as_ref().map_or("", |finish| finish.kind.as_str());
        if kind == "abort" {
            let message = finish.and_then(|finish| finish.message).unwrap_or_default();
            return Err(format!("the server gave up: \"{}\"", excerpt(message.as_bytes())));
        }
        let ends = kind == "stop";
        let matched = finish.and_then(|finish| finish.matched?.as_u64());
        let stop = matched.and_then(|id| id.try_into().ok());
        let marker = answer.meta_info.weight_version.map(|version| match version {
            Value::String(text) => text,
            other => other.to_string(),
        });
        Ok(Found { index, tokens: answer.output_ids, stop, ends, marker })
    };
    answers.into_iter().enumerate().map(found).collect()
}

fn llama_server(body: &[u8]) -> Result<Vec<Found>, String> {
    let answers = match read(body)? {
        OneOrMany::Many(answers) => answers,
        OneOrMany::One(answer) => vec![answer],
    };
    let found = |answer: LlamaAnswer| {
        if answer.truncated == Some(true) && answer.tokens.is_empty() {
            return Err("the server's context is full: start it with a larger --ctx-size".into());
        }
        let ends = answer.stop_type.as_deref() == Some("eos");
        let index = answer.index.unwrap_or(0);
        Ok(Found { index, tokens: answer.tokens, stop: None, ends, marker: answer.model })
    };
    answers.into_iter().map(found).collect()
}

fn checked(mut found: Vec<Found>, expected: &Expected) -> Result<Vec<EngineChoice>, String> {
    let Expected { choices, vocabulary, marker, .. } = expected;
    if found.len() != *choices {
        return Err(format!("{} answers to {choices} prompts", found.len()));
    }
    found.sort_by_key(|choice| choice.index);
    let choice = |(place, found): (usize, Found)| {
        if found.index != place {
            return Err(format!("no answer, or two, to prompt {place} of {choices}"));
        }
        if let (Some(known), Some(other)) = (marker, &found.marker)
            && known != other
        {
            let other = other.escape_debug();
            return Err(format!("the server has another model now: \"{other}\"; start the verifier again"));
        }
        let token = match (found.tokens.as_slice(), found.stop) {
            ([token], _) => *token,
            ([], Some(stop)) => stop,
            ([], None) => return Err(format!("no token for prompt {place} of {choices}")),
            (many, _) => return Err(format!("{} tokens for prompt {place}, expected one", many.len())),
        };
        if token >= *vocabulary {
            return Err(format!("token {token} is outside the vocabulary of {vocabulary}"));
        }
        Ok(EngineChoice { token, ends: found.ends })
    };
    found.into_iter().enumerate().map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServerKind::{LlamaServer, Sglang, Vllm};

    fn expected(choices: usize) -> Expected {
        Expected { choices, vocabulary: 2048, eos: Some(2), marker: Some("m".into()) }
    }

    fn choices(kind: ServerKind, count: usize, body: &str) -> Result<Vec<(u32, bool)>, String> {
        let choices = kind.choices(body.as_bytes(), &expected(count))?;
        Ok(choices.into_iter().map(|choice| (choice.token, choice.ends)).collect())
    }

    /// Answers of llama-server to three prompts, the last two swapped.
    const LLAMA: &str = r#"[{"index":0,"tokens":[45],"stop_type":"limit","model":"m","truncated":false},
        {"index":2,"tokens":[2],"stop_type":"eos","model":"m","truncated":false},
        {"index":1,"tokens":[46],"stop_type":"limit","model":"m","truncated":false}]"#;

    #[test]
    fn answers_are_put_in_order() {
        assert_eq!(choices(LlamaServer, 3, LLAMA), Ok(vec![(45, false), (46, false), (2, true)]));
        let one = r#"{"index":0,"tokens":[45],"stop_type":"limit","model":"m"}"#;
        assert_eq!(choices(LlamaServer, 1, one), Ok(vec![(45, false)]));
        let vllm = r#"{"model":"m","choices":[{"index":1,"text":"b","token_ids":[9],"finish_reason":"length"},
            {"index":0,"text":"a","token_ids":[8],"finish_reason":"length","stop_reason":null}]}"#;
        assert_eq!(choices(Vllm, 2, vllm), Ok(vec![(8, false), (9, false)]));
        let sglang = r#"[{"text":"a","output_ids":[8],"meta_info":{"finish_reason":{"type":"length","length":1},
            "weight_version":"m"}},{"text":"","output_ids":[9],"meta_info":{"finish_reason":null}}]"#;
        assert_eq!(choices(Sglang, 2, sglang), Ok(vec![(8, false), (9, false)]));
    }

    #[test]
    fn the_token_that_ends_a_text_is_recovered() {
        let vllm = |ids: &str, reason: &str| {
            let body = format!(
                r#"{{"choices":[{{"index":0,"text":"","token_ids":{ids},"finish_reason":"stop",
                    "stop_reason":{reason}}}]}}"#
            );
            choices(Vllm, 1, &body)
        };
        assert_eq!(vllm("[7]", "null"), Ok(vec![(7, true)]));
        assert_eq!(vllm("null", "5"), Ok(vec![(5, true)]), "named by the reason");
        assert_eq!(vllm("[]", "null"), Ok(vec![(2, true)]), "the usual end of the model's folder");
        let sglang = |ids: &str, matched: &str| {
            let body = format!(
                r#"[{{"output_ids":{ids},"meta_info":{{"finish_reason":{{"type":"stop","matched":{matched}}}}}}}]"#
            );
            choices(Sglang, 1, &body)
        };
        assert_eq!(sglang("[7]", "7"), Ok(vec![(7, true)]));
        assert_eq!(sglang("[]", "7"), Ok(vec![(7, true)]));
        assert!(sglang("[]", "\"word\"").unwrap_err().contains("no token for prompt 0"));
    }

    #[test]
    fn an_answer_is_used_whole_or_not_at_all() {
        let llama = |tokens: &str, rest: &str| {
            let body = format!(r#"{{"index":0,"tokens":{tokens},"stop_type":"limit"{rest}}}"#);
            choices(LlamaServer, 1, &body).unwrap_err()
        };
        assert_eq!(llama("[2048]", ""), "token 2048 is outside the vocabulary of 2048");
        assert_eq!(llama("[1,2]", ""), "2 tokens for prompt 0, expected one");
        assert_eq!(llama("[]", ""), "no token for prompt 0 of 1");
        assert!(llama("[]", r#","truncated":true"#).contains("--ctx-size"));
        assert!(llama("[1]", r#","model":"other""#).contains("another model now: \"other\""));
        assert!(llama("[-1]", "").contains("not the expected JSON"));
        assert_eq!(choices(LlamaServer, 2, LLAMA), Err("3 answers to 2 prompts".into()));
        let twice = LLAMA.replace("\"index\":2", "\"index\":0");
        assert!(choices(LlamaServer, 3, &twice).unwrap_err().contains("or two, to prompt"));
        for kind in [Vllm, Sglang, LlamaServer] {
            for body in ["", "<html>\u{1b}[2J", "{}", "[]", "null", "{\"choices\":[]}", "[[[[[["] {
                let error = choices(kind, 1, body).unwrap_err();
                assert!(!error.contains('\u{1b}'), "{error}");
            }
        }
        let abort = r#"[{"output_ids":[],"meta_info":{"finish_reason":{"type":"abort","message":"full"}}}]"#;
        assert_eq!(choices(Sglang, 1, abort), Err("the server gave up: \"full\"".into()));
    }
}
