//! The lines that a child process writes about the file it tries.

use crate::trial::Findings;
use std::fmt;

/// A line of a child's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Bytes of tensors that were read.
    Read(u64),
    /// Something that the user should know, though the file is no worse for it.
    Warned(String),
    /// The file was loaded and run.
    Sound(Findings),
    /// The file can't be a target: the error in words.
    Refused(String),
}

impl Answer {
    /// The answer in a line; `None` if it is something else, such as what llama.cpp prints.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        match word {
            "read" => rest.parse().ok().map(Self::Read),
            "warned" => Some(Self::Warned(rest.into())),
            "refused" => Some(Self::Refused(rest.into())),
            "sound" => {
                let (bytes, promise) = rest.split_once(' ')?;
                let is_exact = match promise {
                    "exact" => true,
                    "distribution" => false,
                    _ => return None,
                };
                Some(Self::Sound(Findings { token_bytes: bytes.parse().ok()?, is_exact }))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(bytes) => write!(f, "read {bytes}"),
            Self::Warned(words) => write!(f, "warned {}", words.replace('\n', " ")),
            Self::Refused(words) => write!(f, "refused {}", words.replace('\n', " ")),
            Self::Sound(Findings { token_bytes, is_exact }) => {
                write!(f, "sound {token_bytes} {}", if *is_exact { "exact" } else { "distribution" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_its_line() {
        for answer in [
            Answer::Read(7),
            Answer::Warned("a b".into()),
            Answer::Refused("a b".into()),
            Answer::Sound(Findings { token_bytes: 1024, is_exact: true }),
            Answer::Sound(Findings { token_bytes: 1, is_exact: false }),
        ] {
            assert_eq!(Answer::parse(&format!("{answer}\n")), Some(answer));
        }
        assert_eq!(Answer::Refused("a\nsound 1 exact".into()).to_string(), "refused a sound 1 exact");
    }

    #[test]
    fn other_lines_are_no_answer() {
        for line in ["", "read", "read x", "running 1 test", "sound 1", "sound x exact", "sound 1 better"] {
            assert_eq!(Answer::parse(line), None, "{line}");
        }
    }
}
