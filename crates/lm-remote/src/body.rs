//! The requests: one token behind each prefix, drawn by the rules of the session and by no others.
//!
//! Every setting that a server could bring from its own configuration or from the model's folder (penalties, min-p,
//! top-k) is sent with the value that switches it off. No request has a setting that forbids the end of a text, such as
//! llama-server's `ignore_eos`: it would change the distribution.

use crate::settings::ServerKind;
use dunlin_lm::ChoiceRequest;
use serde_json::{Value, json};

impl ServerKind {
    /// The path of requests for tokens.
    pub(crate) fn completion_path(self) -> &'static str {
        match self {
            Self::Vllm => "/v1/completions",
            Self::Sglang => "/generate",
            Self::LlamaServer => "/completion",
        }
    }

    /// The body of a request to choose the tokens of `request`.
    pub(crate) fn body(self, model: &str, request: &ChoiceRequest) -> Vec<u8> {
        let prefixes: Vec<&[u32]> = request.prefixes().collect();
        let body = match self {
            Self::Vllm => vllm(model, &prefixes, request),
            Self::Sglang => sglang(&prefixes, request),
            Self::LlamaServer => llama_server(&prefixes, request),
        };
        body.to_string().into_bytes()
    }
}

/// No seed: vLLM gives all prompts of a request the same one, and its runner V1 starts each prompt's generator with it,
/// so that all positions of a frame would be drawn with the same noise.
fn vllm(model: &str, prefixes: &[&[u32]], request: &ChoiceRequest) -> Value {
    json!({
        "model": model,
        "prompt": prefixes,
        "max_tokens": 1,
        "n": 1,
        "stream": false,
        "temperature": decimal(request.temperature),
        "top_p": decimal(request.top_p),
        "top_k": top_k_or(request, -1),
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "return_token_ids": true,
    })
}

/// The session's seed as it is: a server with deterministic inference draws with noise of seed and position, and any
/// other one ignores it.
fn sglang(prefixes: &[&[u32]], request: &ChoiceRequest) -> Value {
    json!({
        "input_ids": prefixes,
        "stream": false,
        "sampling_params": {
            "max_new_tokens": 1,
            "temperature": decimal(request.temperature),
            "top_p": decimal(request.top_p),
            "top_k": top_k_or(request, -1),
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "sampling_seed": request.seed as i64,
        },
    })
}

/// Seed −1 is a random one: the server starts each prompt's generator with its seed, so that all positions would be
/// drawn with the same noise. Only the samplers that a session has are listed, in the order of the protocol.
fn llama_server(prefixes: &[&[u32]], request: &ChoiceRequest) -> Value {
    json!({
        "prompt": prefixes,
        "n_predict": 1,
        "stream": false,
        "samplers": ["temperature", "top_k", "top_p"],
        "temperature": decimal(request.temperature),
        "top_p": decimal(request.top_p),
        "top_k": top_k_or(request, 0),
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "seed": -1,
        "cache_prompt": true,
        "return_tokens": true,
        "response_fields": ["index", "tokens", "stop_type", "truncated", "model"],
    })
}

fn top_k_or(request: &ChoiceRequest, off: i64) -> i64 {
    if request.top_k == 0 { off } else { request.top_k.into() }
}

/// The shortest decimal number that is this `f32`: 0.7 and not 0.699999988079071.
fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ChoiceRequest {
        ChoiceRequest {
            tokens: vec![1, 2, 3],
            choices: 2,
            temperature: 0.7,
            top_p: 0.95,
            top_k: 0,
            seed: u64::MAX,
        }
    }

    fn body(kind: ServerKind, request: &ChoiceRequest) -> Value {
        serde_json::from_slice(&kind.body("m", request)).unwrap()
    }

    #[test]
    fn each_server_gets_all_prefixes_at_once() {
        let prefixes = json!([[1, 2], [1, 2, 3]]);
        assert_eq!(body(ServerKind::Vllm, &request())["prompt"], prefixes);
        assert_eq!(body(ServerKind::Sglang, &request())["input_ids"], prefixes);
        assert_eq!(body(ServerKind::LlamaServer, &request())["prompt"], prefixes);
    }

    #[test]
    fn the_sampling_is_the_sessions_and_nothing_else_is_on() {
        for kind in [ServerKind::Vllm, ServerKind::Sglang, ServerKind::LlamaServer] {
            let whole = body(kind, &request());
            let text = whole.to_string();
            let sampling = if kind == ServerKind::Sglang { &whole["sampling_params"] } else { &whole };
            assert_eq!((&sampling["temperature"], &sampling["top_p"]), (&json!(0.7), &json!(0.95)));
            assert!(!text.contains("ignore_eos") && !text.contains("min_tokens"), "{text}");
            let top_k = |top_k| {
                let whole = body(kind, &ChoiceRequest { top_k, ..request() });
                whole.get("sampling_params").unwrap_or(&whole)["top_k"].as_i64()
            };
            let off = if kind == ServerKind::LlamaServer { 0 } else { -1 };
            assert_eq!((top_k(0), top_k(40)), (Some(off), Some(40)));
        }
    }

    #[test]
    fn only_noise_that_differs_by_position_has_a_seed() {
        assert_eq!(body(ServerKind::Sglang, &request())["sampling_params"]["sampling_seed"], json!(-1));
        assert_eq!(body(ServerKind::Vllm, &request()).get("seed"), None);
        assert_eq!(body(ServerKind::LlamaServer, &request())["seed"], json!(-1), "a random one each time");
    }
}
