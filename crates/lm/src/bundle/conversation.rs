//! A model's conversation: what is said to it, written by its chat template or by the prompt form of `model.toml`.

use super::{ModelDir, PromptForm};
use crate::chat::{ChatTemplate, Message};
use crate::error::{Error, Result};
use crate::tokenizer::REPLY;

/// The user's words where only what is around them counts.
const WORDS: &str = "Hello";
/// A system prompt by which to see whether a template writes it.
const PROBE: &str = "dunlin-system-prompt";

impl ModelDir {
    /// Tokens of a context's first turn with `prompt` in it, up to the place where the reply begins.
    ///
    /// # Errors
    /// The chat template refuses the conversation, or the prompt would become a control token.
    pub fn first_turn(&self, prompt: &str) -> Result<Vec<u32>> {
        match &self.chat {
            None => self.tokenizer.encode_prompt(&self.prompt.form, prompt),
            Some(chat) => {
                let prompt = self.tokenizer.shield(prompt)?;
                self.tokenizer.encode_chat(&chat.render(&self.opening(prompt)?, true)?)
            }
        }
    }

    /// Tokens at the beginning of every first turn, whatever its prompt: the system prompt is part of them.
    ///
    /// # Errors
    /// As [`Self::first_turn`].
    pub fn head_tokens(&self) -> Result<usize> {
        let (one, other) = (self.first_turn("a")?, self.first_turn("0")?);
        Ok(one.iter().zip(&other).take_while(|(one, other)| one == other).count())
    }

    /// Tokens of a later turn with `prompt` in it: all that comes behind the text of a reply. With a chat template
    /// they begin with the token by which it ends a reply; a caller leaves that out if the reply has it already.
    ///
    /// # Errors
    /// As [`Self::first_turn`], and if the chat template does not write a reply exactly once.
    pub fn next_turn(&self, prompt: &str) -> Result<Vec<u32>> {
        match &self.chat {
            None => self.tokenizer.encode_prompt(&self.prompt.next_turn, prompt),
            Some(chat) => {
                let prompt = self.tokenizer.shield(prompt)?;
                let tokens = self.after_a_reply(chat, Some(prompt))?;
                // Some templates write a blank before the token that ends a reply. A reply that ended by itself has
                // that token and the blank already, or the model wrote none.
                let blanks = self.blanks(&tokens);
                let is_ended = tokens.get(blanks).is_some_and(|token| self.prompt.stop.contains(token));
                Ok(tokens[if is_ended { blanks } else { 0 }..].to_vec())
            }
        }
    }

    /// The form of a conversation in which the user says "Hello", as text. Control characters are as they are.
    ///
    /// # Errors
    /// The chat template refuses it.
    pub fn shown_form(&self) -> Result<String> {
        match &self.chat {
            None => Ok(self.prompt.form.replacen("{prompt}", WORDS, 1)),
            Some(chat) => {
                let system = self.system.clone().map(|text| Message::new("system", text));
                let messages: Vec<Message> =
                    system.into_iter().chain([Message::new("user", WORDS)]).collect();
                chat.render(&messages, true)
            }
        }
    }

    /// The same model with a system prompt before every conversation, or with none.
    ///
    /// # Errors
    /// The model has no chat template, or its template refuses a system prompt or leaves it out.
    pub fn with_system(mut self, system: Option<String>) -> Result<Self> {
        if let Some(text) = &system {
            let Some(chat) = &self.chat else {
                let found = "none, so a system prompt has no place";
                return Err(Error::value(
                    &self.path,
                    "chat template",
                    "one that takes a system prompt",
                    found,
                ));
            };
            self.tokenizer.shield(text)?;
            let probe = [Message::new("system", PROBE), Message::new("user", WORDS)];
            let written = chat
                .render(&probe, true)
                .map_err(|error| chat.refused(format!("a system prompt is refused: {error}")))?;
            if !written.contains(PROBE) {
                return Err(chat.refused("it leaves a system prompt out"));
            }
        }
        self.system = system;
        Ok(self)
    }

    /// Takes a chat template. The token by which it ends a reply becomes one that stops a reply.
    pub(super) fn adopt(&mut self, chat: ChatTemplate) {
        let end = self.end_of_turn(&chat);
        if let Some(end) = end.filter(|end| !self.prompt.stop.contains(end)) {
            self.prompt.stop.push(end);
            let token = self.tokenizer.token(end).unwrap_or_default();
            tracing::info!(
                path = %self.path.display(),
                "the chat template ends a reply with {token:?} ({end}): it stops a reply too"
            );
        }
        self.chat = Some(chat);
    }

    /// Checks that a conversation can begin, and warns if it can't go on or if its form is doubtful.
    pub(super) fn check_conversation(&self) -> Result<()> {
        let PromptForm { form, next_turn, .. } = &self.prompt;
        let Some(chat) = &self.chat else {
            for form in [form, next_turn] {
                self.check_tokens(&self.tokenizer.encode_prompt(form, "")?)?;
            }
            self.warn_of_markers();
            return Ok(());
        };
        self.check_tokens(&self.first_turn(WORDS)?)?;
        match self.after_a_reply(chat, Some(WORDS.into())) {
            Ok(tokens) => self.check_tokens(&tokens)?,
            Err(error) => tracing::warn!("a conversation of this model has one turn only: {error}"),
        }
        Ok(())
    }

    /// Warns once of control tokens in a form that the tokenizer does not know as such.
    fn warn_of_markers(&self) {
        let mut markers = self.tokenizer.plain_markers(&self.prompt.form);
        markers.extend(self.tokenizer.plain_markers(&self.prompt.next_turn));
        markers.sort_unstable();
        markers.dedup();
        if !markers.is_empty() {
            let path = self.path.display();
            tracing::warn!(%path, "no tokens of the tokenizer, so they are encoded as plain text: {markers:?}");
        }
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let size = self.vocabulary.size;
        match tokens.iter().find(|token| **token >= size) {
            Some(&token) => Err(Error::Token { token, vocabulary: size }),
            None => Ok(()),
        }
    }

    /// The messages before the first reply. `prompt` is shielded.
    fn opening(&self, prompt: String) -> Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(4);
        if let Some(system) = &self.system {
            messages.push(Message::new("system", self.tokenizer.shield(system)?));
        }
        messages.push(Message::new("user", prompt));
        Ok(messages)
    }

    /// Tokens behind a reply's text in a conversation that ends with it, or goes on with a shielded prompt.
    fn after_a_reply(&self, chat: &ChatTemplate, next: Option<String>) -> Result<Vec<u32>> {
        let mut messages = self.opening(WORDS.into())?;
        messages.push(Message::new("assistant", REPLY));
        let goes_on = next.is_some();
        messages.extend(next.map(|prompt| Message::new("user", prompt)));
        let text = chat.render(&messages, goes_on)?;
        let mut places = text.match_indices(REPLY).map(|(at, reply)| at + reply.len());
        match (places.next(), places.next()) {
            (Some(end), None) => self.tokenizer.encode_chat_after(&text, end),
            (None, _) => Err(chat.refused("it leaves out a reply before the last prompt")),
            (Some(_), Some(_)) => {
                Err(chat.refused("it writes a reply before the last prompt more than once"))
            }
        }
    }

    /// The control token that a template writes directly behind a reply, apart from blanks.
    fn end_of_turn(&self, chat: &ChatTemplate) -> Option<u32> {
        // A template without an end of its own may begin the next turn with a token, which then ends the reply.
        [None, Some(WORDS.to_owned())].into_iter().find_map(|next| {
            let tokens = self.after_a_reply(chat, next).ok()?;
            let first = tokens.get(self.blanks(&tokens)).copied()?;
            self.tokenizer.is_markup(first).then_some(first)
        })
    }

    /// The number of blank tokens at the beginning.
    fn blanks(&self, tokens: &[u32]) -> usize {
        let is_blank = |token: &&u32| {
            let bytes = self.tokenizer.token_bytes(**token);
            !bytes.is_empty() && bytes.iter().all(u8::is_ascii_whitespace)
        };
        tokens.iter().take_while(is_blank).count()
    }
}
