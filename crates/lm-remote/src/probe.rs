//! The comparison at the start: what the server reports about itself, beside the model's folder here.

use crate::http::{Attempt, excerpt};
use crate::server::Server;
use crate::settings::{RemoteSettings, ServerKind, refused};
use dunlin_lm::{ModelDir, Result};
use serde_json::{Value, json};

/// Text whose tokens are compared: words, digits, blanks, several scripts.
const PROBE: &str = "Hello, world! In 1998 it was 42.5%.\n\n  def f(x):\treturn naïve + 東京";
/// Tokens at the beginning of that text that may differ: some tokenizers put a blank before a text.
const PROBE_SLACK: usize = 2;
/// Most names of models that an error lists.
const NAMES_MAX: usize = 8;

/// The result of comparing a server with the model's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Facts that agree.
    pub agree: Vec<String>,
    /// Facts that the server doesn't report, so that nobody compared them.
    pub unknown: Vec<String>,
}

/// The facts about a server that requests and the identity need.
#[derive(Debug)]
pub(crate) struct ServerFacts {
    pub(crate) model: String,
    /// Text of every answer that would change with the model.
    pub(crate) marker: Option<String>,
    /// Version of the weights, if the server counts them.
    pub(crate) weights: Option<String>,
    pub(crate) engine: String,
    pub(crate) context_max: usize,
    pub(crate) comparison: Comparison,
}

/// Asks the server about itself and compares the answers.
///
/// # Errors
/// The server can't be reached or used, or has another model than the folder.
pub(crate) async fn probe(server: &Server, settings: &RemoteSettings, dir: &ModelDir) -> Result<ServerFacts> {
    let kind = settings.kind;
    let models = server.get("/v1/models").await.map_err(|fault| refused(fault.reason))?;
    let models = models.get("data").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let card = chosen_model(models, settings.model.as_deref())?;
    let model = text(card, "/id").unwrap_or_default();
    let mut comparison = Comparison::default();
    match &settings.model {
        Some(name) => comparison.agree.push(format!("model \"{}\"", name.escape_debug())),
        None => comparison.unknown.push("the model's name: remote.model is not set".into()),
    }
    let about = about(server, kind).await?;
    compare_size(card, dir, &mut comparison)?;
    compare_tokens(server, kind, &model, dir, &mut comparison).await?;
    comparison.unknown.push("the weights: no server reports their digest".into());
    let reported = [number(card, "/max_model_len"), number(&about, "/default_generation_settings/n_ctx")];
    let reported = reported.into_iter().flatten().min();
    if reported.is_none() {
        comparison.unknown.push("the longest context; that of the model's folder is assumed".into());
    }
    let limits = [reported, settings.context, Some(dir.context_max)];
    let context_max = limits.into_iter().flatten().min().unwrap_or(dir.context_max);
    let (version, weights) = match kind {
        ServerKind::Vllm | ServerKind::Sglang => (text(&about, "/version"), text(&about, "/weight_version")),
        ServerKind::LlamaServer => (text(&about, "/build_info"), None),
    };
    let is_seeded =
        kind == ServerKind::Sglang && about.pointer("/enable_deterministic_inference") == Some(&json!(true));
    if is_seeded {
        comparison.agree.push("the seed: deterministic inference is on".into());
    }
    if settings.shared_noise && !is_seeded {
        return Err(refused(
            "remote.shared_noise: the server draws without the session's seed; start it with \
             --enable-deterministic-inference, or remove the key",
        ));
    }
    let version = version.unwrap_or_else(|| "of unknown version".into());
    let marker = if kind == ServerKind::Sglang { weights.clone() } else { Some(model.clone()) };
    let engine = format!("{} {version}", kind.name());
    Ok(ServerFacts { model, marker, weights, engine, context_max, comparison })
}

/// The entry of the model to use.
fn chosen_model<'a>(models: &'a [Value], wanted: Option<&str>) -> Result<&'a Value> {
    let id = |model: &'a Value| model.get("id").and_then(Value::as_str).unwrap_or_default();
    let names = || {
        let names =
            models.iter().take(NAMES_MAX).map(|model| format!("\"{}\"", excerpt(id(model).as_bytes())));
        names.collect::<Vec<_>>().join(", ")
    };
    match (wanted, models) {
        (_, []) => Err(refused("the server's /v1/models lists no model; see remote.url and remote.kind")),
        (Some(wanted), _) => models.iter().find(|model| id(model) == wanted).ok_or_else(|| {
            refused(format!(
                "remote.model: \"{}\" isn't one of the server's: {}",
                wanted.escape_debug(),
                names()
            ))
        }),
        (None, [one]) => Ok(one),
        (None, _) => Err(refused(format!("remote.model: the server has several, name one: {}", names()))),
    }
}

/// The version and limits that each kind of server reports; empty where it reports none.
async fn about(server: &Server, kind: ServerKind) -> Result<Value> {
    let path = match kind {
        ServerKind::Vllm => "/version",
        ServerKind::Sglang => "/server_info",
        ServerKind::LlamaServer => "/props",
    };
    optional(server.get(path).await)
}

/// An answer that a server may lack.
fn optional(answer: Attempt<Value>) -> Result<Value> {
    match answer {
        Err(fault) if matches!(fault.status, Some(403..=405 | 501)) => Ok(Value::Null),
        other => other.map_err(|fault| refused(fault.reason)),
    }
}

/// Compares the size of the vocabulary.
fn compare_size(card: &Value, dir: &ModelDir, comparison: &mut Comparison) -> Result<()> {
    let Some(theirs) = number(card, "/meta/n_vocab") else {
        comparison.unknown.push("the size of the vocabulary".into());
        return Ok(());
    };
    let (least, rows) = (dir.vocabulary.size as usize, dir.rows as usize);
    // Models of one family are padded to different sizes; what is behind the tokens in use nobody writes.
    if theirs < least {
        let path = dir.path.display();
        return Err(refused(format!(
            "the server's model has {theirs} tokens, and {path} {rows}: another model"
        )));
    }
    comparison.agree.push(format!("vocabulary of {theirs} tokens"));
    Ok(())
}

/// Compares the tokens of a text.
async fn compare_tokens(
    server: &Server,
    kind: ServerKind,
    model: &str,
    dir: &ModelDir,
    comparison: &mut Comparison,
) -> Result<()> {
    let body = match kind {
        ServerKind::Vllm | ServerKind::Sglang => {
            json!({ "model": model, "prompt": PROBE, "add_special_tokens": false })
        }
        ServerKind::LlamaServer => json!({ "content": PROBE, "add_special": false, "parse_special": false }),
    };
    let answer = optional(server.post("/tokenize", body.to_string().into_bytes()).await)?;
    let Some(theirs) = answer.get("tokens").and_then(Value::as_array) else {
        comparison.unknown.push("the tokenizer: the server has no /tokenize".into());
        return Ok(());
    };
    let theirs: Vec<Option<u64>> = theirs.iter().map(Value::as_u64).collect();
    let ours: Vec<Option<u64>> =
        dir.tokenizer.encode_text(PROBE)?.into_iter().map(|token| Some(token.into())).collect();
    let same = ours.iter().rev().zip(theirs.iter().rev()).take_while(|(a, b)| a == b).count();
    if same + PROBE_SLACK < ours.len().max(theirs.len()) {
        let path = dir.path.display();
        return Err(refused(format!(
            "the server's tokenizer is not that of {path}: a text has {} tokens there and {} here, and the last \
             {same} are equal; name the folder of the server's model",
            theirs.len(),
            ours.len()
        )));
    }
    comparison.agree.push(format!("tokens of a text of {} tokens", ours.len()));
    Ok(())
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

fn number(value: &Value, pointer: &str) -> Option<usize> {
    value.pointer(pointer)?.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_where_a_server_has_several() {
        let two = [json!({ "id": "a" }), json!({ "id": "b\u{1b}" })];
        let error = |models: &[Value], wanted| chosen_model(models, wanted).unwrap_err().to_string();
        assert!(error(&two, None).contains("the server has several, name one: \"a\", \"b\\u{1b}\""));
        assert!(error(&two, Some("c")).contains("\"c\" isn't one of the server's: \"a\""));
        assert!(error(&[], None).contains("lists no model"));
        assert_eq!(chosen_model(&two, Some("a")).unwrap(), &two[0]);
        assert_eq!(chosen_model(&two[..1], None).unwrap(), &two[0]);
    }
}
