//! The settings of a target, and the order to a child process: which file to try, for a target with which settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Settings of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LlamaSettings {
    /// Bytes that the caches of all sessions may take. All of them are taken when the target is loaded.
    pub kv_bytes_max: usize,
    /// The most sessions that are open at once; fewer if the caches hold fewer.
    pub sessions_max: usize,
    /// The most tokens of a session, below those of the model.
    pub context_max: Option<usize>,
    /// Threads of a pass.
    pub threads: usize,
    /// True for caches of 32-bit floats, which take twice the memory of 16 bits.
    pub is_wide: bool,
}

/// A file to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// The GGUF file.
    pub(crate) weights: PathBuf,
    /// Rows of the embedding, which llama.cpp must find too.
    pub(crate) rows: u32,
    /// The most tokens of a session.
    pub(crate) context_max: usize,
    pub(crate) settings: LlamaSettings,
}

impl Order {
    /// Its words on a command line. None begins with a dash: a test's harness would take it for a flag.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let LlamaSettings { kv_bytes_max, sessions_max, threads, is_wide, .. } = self.settings;
        let numbers = [self.rows as usize, self.context_max, kv_bytes_max, sessions_max, threads];
        let numbers = numbers.iter().map(|number| OsString::from(number.to_string()));
        let cache = OsString::from(if is_wide { "f32" } else { "f16" });
        let weights = match self.weights.is_absolute() {
            true => self.weights.clone(),
            false => Path::new(".").join(&self.weights),
        };
        numbers.chain([cache, weights.into()]).collect()
    }

    /// The order in these words; `None` if they are another program's.
    pub(crate) fn parse(arguments: &[OsString]) -> Option<Self> {
        let [numbers @ .., cache, weights] = arguments else { return None };
        let numbers: Option<Vec<usize>> = numbers.iter().map(|word| word.to_str()?.parse().ok()).collect();
        let [rows, context_max, kv_bytes_max, sessions_max, threads] = numbers?[..] else { return None };
        let is_wide = match cache.to_str()? {
            "f32" => true,
            "f16" => false,
            _ => return None,
        };
        let settings =
            LlamaSettings { kv_bytes_max, sessions_max, context_max: Some(context_max), threads, is_wide };
        Some(Self { weights: weights.into(), rows: u32::try_from(rows).ok()?, context_max, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_command_line() {
        let settings = LlamaSettings {
            kv_bytes_max: 1 << 40,
            sessions_max: 8,
            context_max: Some(128),
            threads: 3,
            is_wide: true,
        };
        let order = Order { weights: "/a b/-c.gguf".into(), rows: 96, context_max: 128, settings };
        assert_eq!(Order::parse(&order.arguments()), Some(order.clone()));
        let relative = Order { weights: "-c.gguf".into(), ..order };
        assert!(relative.arguments().iter().all(|word| !word.to_string_lossy().starts_with('-')));
    }

    #[test]
    fn other_words_are_no_order() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(Order::parse(&words("96 128 1024 8 1 f16 model.gguf")).is_some());
        for text in [
            "",
            "model.gguf",
            "96 128 1024 8 1 f8 model.gguf",
            "96 128 1024 8 f16 model.gguf",
            "96 128 1024 8 1 1 f16 model.gguf",
            "4294967296 128 1024 8 1 f16 model.gguf",
            "96 x 1024 8 1 f16 model.gguf",
        ] {
            assert_eq!(Order::parse(&words(text)), None, "{text}");
        }
    }
}
