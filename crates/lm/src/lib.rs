//! Language models for Dunlin without an engine: the interfaces of drafter and target, model directories, tokenizers,
//! scripted toys, and BERTScore.
//!
//! The engines are crates of their own, `dunlin-lm-tract` (drafter, encoder), `dunlin-lm-candle` and
//! `dunlin-lm-llamacpp` (targets) and `dunlin-lm-remote` (a target on a server), and map their failures into this crate's [`Error`]. Only [`tokenizer`] uses
//! the library `tokenizers`, and only [`chat`] the library `minijinja`. Everything else is plain slices of `u32` tokens
//! and `f32` logits. Of the protocol it knows only the vocabulary.
//!
//! Invariants:
//! - Nothing here knows a frame, a policy, a clock, a socket or a random number: a model is a function of
//!   the tokens it was given. One exception: a model's directory notes when it is opened, because some chat templates
//!   write the date.
//! - A [`Target`] makes a promise about its choices. If that is [`Promise::Exact`], its logits don't depend on the rest
//!   of the batch, on the chunks of a prompt, or on earlier rollbacks.
//! - No file's content can make this crate panic: an invalid file is an [`Error`] that names it.

pub mod bertscore;
pub mod bundle;
pub mod chat;
pub mod chooser;
pub mod draft;
pub mod embeddings;
mod error;
pub mod guard;
pub mod identity;
mod loading;
mod plain;
mod session;
pub mod target;
pub mod tokenizer;
pub mod toy;
pub mod vector;
pub mod window;
mod with_extend;
mod zeros;

pub use bertscore::{BertScore, bert_score};
pub use bundle::{ModelDir, PromptForm, Role, SpecialIds};
pub use chat::{ChatTemplate, Message};
pub use chooser::{ChoiceFuture, ChoiceRequest, Chooser, EngineChoice};
pub use draft::{Draft, Rows};
pub use dunlin_wire::{CouplingProfile, Promise, Vocabulary};
pub use embeddings::Embeddings;
pub use error::{Error, Result};
pub use identity::TargetIdentity;
pub use loading::{LoadProgress, LoadStep};
pub use plain::check_plain;
pub use session::SessionId;
pub use target::{Extend, Target};
pub use tokenizer::{TextStream, Tokenizer};
pub use toy::{Toy, ToyDrafter, ToyTarget};
pub use window::{Window, WindowRows};
pub use with_extend::WithExtend;
pub use zeros::{ZeroRun, ZeroSearch};
