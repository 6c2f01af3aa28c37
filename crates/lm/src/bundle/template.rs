//! The chat template that a folder brings, with the names of its special tokens.

use super::hugging_face::read_json;
use super::{ModelDir, read_text};
use crate::chat::{ChatTemplate, SOURCE_BYTES_MAX};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A template in a file of its own; it wins over one in [`CONFIG`].
const TEMPLATE: &str = "chat_template.jinja";
/// The file that names special tokens, and may hold a template.
const CONFIG: &str = "tokenizer_config.json";

impl ModelDir {
    /// The same model with the stop token and the chat template of its folder. Without a template it says so: its
    /// prompts are then continued as plain text.
    ///
    /// # Errors
    /// A file can't be read, or the template is invalid.
    pub(super) fn prompted(mut self) -> Result<Self> {
        let config = config(&self.path)?;
        self.stop_at(&config);
        match found(&self.path, &config)? {
            Some((path, source)) => self.adopt_source(&source, &path, &config)?,
            None => tracing::warn!("no chat template: the prompt is continued as plain text"),
        }
        Ok(self)
    }

    /// The same model with the chat template in a file's metadata, such as a GGUF's; `path` is that file. The special
    /// tokens are those of [`Self::special`].
    ///
    /// # Errors
    /// The text is no valid template.
    pub(super) fn with_template(mut self, source: &str, path: &Path) -> Result<Self> {
        self.adopt_source(source, path, &Map::new())?;
        Ok(self)
    }

    /// The same model with the chat template in a file of its own, and special tokens by the names that it uses.
    ///
    /// # Errors
    /// The file can't be read or is no valid template.
    pub(super) fn with_template_file(
        mut self,
        path: &Path,
        tokens: BTreeMap<String, String>,
    ) -> Result<Self> {
        let names = tokens.into_iter().map(|(name, token)| (name, Value::from(token))).collect();
        self.adopt_source(&read_template(path)?, path, &names)?;
        Ok(self)
    }

    fn adopt_source(&mut self, source: &str, path: &Path, config: &Map<String, Value>) -> Result<()> {
        let named = |error| match error {
            Error::Chat { line, message, .. } => Error::Chat { path: Some(path.into()), line, message },
            other => other,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let chat = ChatTemplate::new(source, self.names(config)).map_err(named)?;
        self.adopt(chat.from_file(path).at(i64::try_from(now).unwrap_or(i64::MAX)));
        Ok(())
    }

    /// Stops replies at the token that the tokenizer's configuration says ends a text.
    fn stop_at(&mut self, config: &Map<String, Value>) {
        let Some(end) = config.get("eos_token").and_then(spelling) else { return };
        let Some(id) = self.tokenizer.id(end) else { return };
        self.special.eos = self.special.eos.or(Some(id));
        if !self.prompt.stop.contains(&id) {
            self.prompt.stop.push(id);
        }
    }

    /// The special tokens by the names that templates use.
    fn names(&self, config: &Map<String, Value>) -> BTreeMap<String, String> {
        let ids = [
            ("bos_token", self.special.bos),
            ("eos_token", self.special.eos),
            ("pad_token", self.special.pad),
        ];
        let from_ids =
            ids.into_iter().filter_map(|(name, id)| Some((name.into(), self.tokenizer.token(id?)?)));
        let mut names: BTreeMap<String, String> = from_ids.collect();
        for (name, value) in config {
            let Some(token) = spelling(value).filter(|_| name.ends_with("_token")) else { continue };
            names.insert(name.clone(), token.into());
        }
        names
    }
}

/// The tokenizer's configuration; empty if there is none.
fn config(folder: &Path) -> Result<Map<String, Value>> {
    let path = folder.join(CONFIG);
    if path.exists() { read_json(&path) } else { Ok(Map::new()) }
}

/// A token's spelling, which a configuration gives as a string or as a table with `content`.
fn spelling(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn read_template(path: &Path) -> Result<String> {
    let bytes = path.metadata().map_err(|e| Error::io(path, e))?.len();
    if bytes > SOURCE_BYTES_MAX as u64 {
        return Err(Error::value(path, "size", format!("at most {SOURCE_BYTES_MAX} bytes"), bytes));
    }
    read_text(path)
}

/// The text of a folder's template and the file that holds it. A list of named ones is still in JSON.
fn found(folder: &Path, config: &Map<String, Value>) -> Result<Option<(PathBuf, String)>> {
    let path = folder.join(TEMPLATE);
    if path.exists() {
        let text = read_template(&path)?;
        return Ok(Some((path, text)));
    }
    let path = folder.join(CONFIG);
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some((path, source.clone()))),
        Some(list @ Value::Array(_)) => Ok(Some((path, list.to_string()))),
        Some(_) => {
            Err(Error::value(&path, "chat_template", "a text or a list of named texts", "another value"))
        }
    }
}
