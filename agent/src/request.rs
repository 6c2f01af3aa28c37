//! A prompt for a serving agent, as one line.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A prompt as a line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptRequest {
    pub(crate) prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<usize>,
    #[serde(default)]
    pub(crate) new_session: bool,
}

impl PromptRequest {
    pub(crate) fn new(prompt: String, max_tokens: Option<usize>, new_session: bool) -> Self {
        Self { prompt, max_tokens, new_session }
    }

    /// Parses a line: a JSON object, or the prompt itself.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        if line.starts_with('{') {
            return serde_json::from_str(line).context("the line is no request");
        }
        Ok(Self { prompt: line.into(), ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_prompt_or_an_object() {
        assert_eq!(PromptRequest::parse("Hello {x}").unwrap().prompt, "Hello {x}");
        let request =
            PromptRequest::parse(r#"{"prompt": "a", "max_tokens": 3, "new_session": true}"#).unwrap();
        assert_eq!(request, PromptRequest { prompt: "a".into(), max_tokens: Some(3), new_session: true });
        assert!(PromptRequest::parse(r#"{"promt": "a"}"#).is_err());
        assert!(PromptRequest::parse("{").is_err());
    }
}
