//! The target alone: the text that the lossless policy must produce, token by token.
//!
//! Invariant: the text is a function of target, prompt, sampling and seed. No protocol code is used here, so that the
//! two can be compared.

use anyhow::{Context, Result, ensure};
use dunlin_hlm::coupling::couple;
use dunlin_hlm::probabilities::{Distribution, Sampling};
use dunlin_lm::{Extend, Target};
use dunlin_wire::limits::SESSION_TOKENS_MAX;

/// A text to continue, and the rules for it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The session's tokens so far, including the prompt in its form.
    pub prompt: Vec<u32>,
    /// Maximum number of tokens to write.
    pub tokens_max: usize,
    /// Tokens that end the reply.
    pub stop: Vec<u32>,
    /// The sampling of the target.
    pub sampling: Sampling,
    /// The session's seed.
    pub seed: u64,
}

/// The reason why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was written.
    Stop,
    /// The requested number of tokens was written.
    TokensMax,
    /// The target's context is full.
    ContextFull,
}

impl Finish {
    /// The reason as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::TokensMax => "tokens-max",
            Self::ContextFull => "context-full",
        }
    }
}

/// Continues a text with the target alone. A token's position is the number of tokens before it in the session.
///
/// # Errors
/// The prompt is empty or doesn't fit the target's context, or the target fails.
pub fn write(target: &mut dyn Target, request: &Request) -> Result<(Vec<u32>, Finish)> {
    let context_max = target.context_max().min(SESSION_TOKENS_MAX as usize);
    ensure!(!request.prompt.is_empty(), "the prompt has no tokens");
    ensure!(
        request.prompt.len() < context_max,
        "the prompt has {} tokens, the target's context holds {context_max}",
        request.prompt.len()
    );
    let session = target.open().context("the target opened no session")?;
    let mut reply: Vec<u32> = Vec::new();
    let mut fed = 0;
    let finish = loop {
        let length = request.prompt.len() + reply.len();
        match reply.last() {
            Some(last) if request.stop.contains(last) => break Finish::Stop,
            _ if reply.len() >= request.tokens_max => break Finish::TokensMax,
            _ if length >= context_max => break Finish::ContextFull,
            _ => {}
        }
        let tokens = if reply.is_empty() { &request.prompt } else { &reply[reply.len() - 1..] };
        let part = Extend { session, keep: fed, tokens, rows: 1 };
        let row = target.extend(&[part]).pop().context("the target gave no answer")??;
        fed = length;
        let distribution =
            Distribution::from_logits(&row, &request.sampling).context("the target's logits")?;
        reply.push(couple(&distribution, request.seed, length as u64));
    };
    target.close(session);
    Ok((reply, finish))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_lm::Toy;

    fn request(tokens_max: usize) -> Request {
        let sampling = Sampling::new(1.0, 0.9, 0).unwrap();
        Request { prompt: vec![1, 2, 3], tokens_max, stop: Vec::new(), sampling, seed: 5 }
    }

    fn toy() -> Toy {
        Toy::new(1, 64, 0.5)
    }

    #[test]
    fn a_text_depends_on_its_seed_and_on_nothing_else() {
        let (whole, finish) = write(&mut toy().target(), &request(32)).unwrap();
        assert_eq!((whole.len(), finish), (32, Finish::TokensMax));
        let (again, _) = write(&mut toy().target(), &request(32)).unwrap();
        assert_eq!(whole, again);
        let (other, _) = write(&mut toy().target(), &Request { seed: 6, ..request(32) }).unwrap();
        assert_ne!(whole, other);
        // A later turn continues the same positions.
        let mut later = request(16);
        later.prompt.extend(&whole[..16]);
        assert_eq!(write(&mut toy().target(), &later).unwrap().0, whole[16..]);
    }

    #[test]
    fn it_stops_where_it_should() {
        let (whole, _) = write(&mut toy().target(), &request(8)).unwrap();
        let stop = Request { stop: vec![whole[3]], ..request(8) };
        let (reply, finish) = write(&mut toy().target(), &stop).unwrap();
        let first = whole.iter().position(|token| *token == whole[3]).unwrap();
        assert_eq!((reply.as_slice(), finish), (&whole[..=first], Finish::Stop));
        let small = Toy { context_max: 6, ..toy() };
        let (reply, finish) = write(&mut small.target(), &request(8)).unwrap();
        assert_eq!((reply.len(), finish), (3, Finish::ContextFull));
    }

    #[test]
    fn a_prompt_that_cannot_be_continued_is_refused() {
        let empty = Request { prompt: Vec::new(), ..request(1) };
        assert!(write(&mut toy().target(), &empty).unwrap_err().to_string().contains("no tokens"));
        let long = Request { prompt: vec![0; 4096], ..request(1) };
        assert!(write(&mut toy().target(), &long).unwrap_err().to_string().contains("4096 tokens"));
    }
}
