//! Chat templates: the Jinja text by which a published chat model writes a conversation.
//!
//! A template is foreign text and may be hostile. Each rendering runs in a thread with a stack of its own and under
//! limits, which are the constants of this module: instructions, bytes of intermediate text, bytes of result, depth.
//! So no template and no message can make this crate panic, hang or take memory without end.
//!
//! The environment is that of Hugging Face's `transformers`: blocks are trimmed, loops have `break` and `continue`,
//! `tojson` writes as Python does, and strings, lists and mappings have Python's methods. The library's own operators
//! have no limits, so [`limits`] replaces them in the compiled template.

mod date;
mod json;
mod limits;
mod methods;
mod operators;
mod source;

use crate::error::{Error, Result};
use limits::Meter;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes of a template's source, some times more than the longest that is in use has.
pub const SOURCE_BYTES_MAX: usize = 1 << 17;
/// The most bytes of a rendered conversation.
pub const RENDERED_BYTES_MAX: usize = 4 << 20;
/// The most instructions that a rendering may take.
const FUEL: u64 = 50_000;
/// The most bytes that a rendering may make on its way, all strings and lists together.
const WORK_BYTES_MAX: usize = 64 << 20;
/// The deepest nesting of macros and loops that call themselves, in the library's units.
const RECURSION_MAX: usize = 200;
/// Bytes of the stack of a rendering: the deepest value that [`FUEL`] can build must be freed on it.
const STACK_BYTES: usize = 64 << 20;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The speaker: `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The speaker's words.
    pub content: String,
}

impl Message {
    /// A message of `role` that says `content`.
    pub fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// A chat template that was compiled once without an error; a clone shares its text.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// The text as it was given.
    source: Arc<str>,
    /// The text that is compiled.
    unfolded: Arc<str>,
    names: Arc<BTreeMap<String, String>>,
    path: Option<PathBuf>,
    seconds: i64,
}

impl ChatTemplate {
    /// A template with this source. `names` are the special tokens by the names that templates use, such as
    /// `bos_token`. The source may be a JSON list of named templates, of which the one named `default` counts.
    ///
    /// # Errors
    /// The source is too long or no valid template, or a list has none named `default`.
    pub fn new(source: &str, names: BTreeMap<String, String>) -> Result<Self> {
        let source = source::default_of(source).map_err(|message| failed(None, None, message))?;
        if source.len() > SOURCE_BYTES_MAX {
            let message = format!("it has {} bytes, more than {SOURCE_BYTES_MAX}", source.len());
            return Err(failed(None, None, message));
        }
        let unfolded = limits::unfolded(&source::without_generation_tags(&source))
            .map_err(|(line, message)| failed(None, Some(line), message))?
            .into();
        let template =
            Self { source: source.into(), unfolded, names: Arc::new(names), path: None, seconds: 0 };
        template.run(Job::Compile)?;
        Ok(template)
    }

    /// The template's text; of a list, that of the one that counts.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens by the names that it may use.
    pub fn names(&self) -> &BTreeMap<String, String> {
        &self.names
    }

    /// The same template; its errors name `path`.
    pub fn from_file(self, path: &Path) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same template at another time, in seconds since 1970 in UTC, which it may write. It is 1970 without this.
    pub fn at(self, seconds: i64) -> Self {
        Self { seconds, ..self }
    }

    /// The text of a conversation; with `generation_prompt` it ends where the model's reply begins.
    ///
    /// # Errors
    /// The template refuses the conversation, has a mistake, or exceeds a limit. The error names the line.
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String> {
        self.run(Job::Render { messages, generation_prompt })
    }

    /// The error of this template that has no line.
    pub(crate) fn refused(&self, message: impl Into<String>) -> Error {
        failed(self.path.as_deref(), None, message.into())
    }

    /// Runs a job on a stack that is large enough for everything that the limits allow.
    fn run(&self, job: Job<'_>) -> Result<String> {
        let path = self.path.as_deref();
        let outcome = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
            let thread = thread
                .spawn_scoped(scope, || self.evaluate(job).map_err(|error| (error.line(), reason(&error))))
                .map_err(|error| (None, format!("no thread for it: {error}")))?;
            thread.join().unwrap_or_else(|_| Err((None, "the template's library gave up".into())))
        });
        outcome.map_err(|(line, message)| failed(path, line, message))
    }

    fn evaluate(&self, job: Job<'_>) -> std::result::Result<String, minijinja::Error> {
        let meter = Meter::new(WORK_BYTES_MAX);
        let environment = self.environment(&meter);
        let compiled = limits::compile(&environment, &self.unfolded)?;
        let Job::Render { messages, generation_prompt } = job else { return Ok(String::new()) };
        let mut environment = environment;
        environment.set_fuel(Some(limits::fuel(&compiled, FUEL, WORK_BYTES_MAX)));
        let text = limits::evaluate(&environment, &compiled, self.context(messages, generation_prompt))?;
        if text.len() > RENDERED_BYTES_MAX {
            let message = format!("the text has {} bytes, more than {RENDERED_BYTES_MAX}", text.len());
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
        }
        Ok(text)
    }

    fn environment(&self, meter: &Arc<Meter>) -> Environment<'_> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_recursion_limit(RECURSION_MAX);
        environment.add_function("raise_exception", raise_exception);
        let seconds = self.seconds;
        environment.add_function("strftime_now", move |format: &str| date::written(format, seconds));
        operators::add_to(&mut environment, meter);
        methods::add_to(&mut environment, meter);
        json::add_to(&mut environment, meter);
        environment
    }

    fn context(&self, messages: &[Message], generation_prompt: bool) -> Value {
        let message = |m: &Message| {
            Value::from_iter([("role", Value::from(m.role)), ("content", Value::from(m.content.as_str()))])
        };
        let mut context: Vec<(String, Value)> =
            self.names.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
        context.push((limits::ONE.into(), Value::from(1)));
        context.push(("messages".into(), messages.iter().map(message).collect()));
        context.push(("tools".into(), Value::from(())));
        context.push(("documents".into(), Value::from(())));
        context.push(("add_generation_prompt".into(), Value::from(generation_prompt)));
        Value::from_iter(context)
    }
}

/// The work of a template's thread.
#[derive(Clone, Copy)]
enum Job<'m> {
    Compile,
    Render { messages: &'m [Message], generation_prompt: bool },
}

fn failed(path: Option<&Path>, line: Option<usize>, message: String) -> Error {
    Error::Chat { path: path.map(Into::into), line, message }
}

/// The reason of an error in words, without what the library adds about places.
fn reason(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("it takes more than {FUEL} instructions"),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.into(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

/// The function by which a template refuses a conversation.
fn raise_exception(message: &Value) -> std::result::Result<Value, minijinja::Error> {
    let message = match message.kind() {
        ValueKind::String => message.as_str().unwrap_or_default().to_owned(),
        kind => format!("it refuses with a {kind}"),
    };
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
mod tests;
