//! Loads a target on llama.cpp, in programs that were built with it.

use crate::config::Config;
#[cfg(feature = "llamacpp")]
pub(crate) use built_in::{COMMAND, load};
#[cfg(not(feature = "llamacpp"))]
pub(crate) use left_out::load;

/// Variables of the environment, and the values that the engine needs them to have.
#[cfg(feature = "llamacpp")]
pub(crate) const VARIABLES: &[(&str, &str)] = if dunlin_lm_llamacpp::LlamaBuild::LINKED.may_be_exact() {
    &[dunlin_lm_llamacpp::TILES_OFF]
} else {
    &[]
};
#[cfg(not(feature = "llamacpp"))]
pub(crate) const VARIABLES: &[(&str, &str)] = &[];

#[cfg(feature = "llamacpp")]
mod built_in {
    use super::Config;
    use crate::config::CacheType;
    use anyhow::{Context, Result};
    use dunlin_lm::{LoadProgress, ModelDir, Target};
    use dunlin_lm_llamacpp::{LlamaSettings, LlamaTarget, Rehearsed};
    use std::process::Command;

    /// The hidden command of a child process that tries a file.
    pub(crate) const COMMAND: &str = "rehearse";

    /// Loads the target in `dir`; also the engine in words.
    ///
    /// # Errors
    /// Names the file and the remedy.
    pub(crate) fn load(
        config: &Config,
        dir: &ModelDir,
        threads: usize,
        mut progress: LoadProgress,
    ) -> Result<(Box<dyn Target>, Option<String>)> {
        let settings = LlamaSettings {
            kv_bytes_max: config.kv_mib << 20,
            sessions_max: config.sessions,
            context_max: Some(config.served_context(dir.context_max)),
            threads,
            is_wide: config.cache_type() == CacheType::F32,
        };
        // The very program that runs, also where its file was replaced by an upgrade.
        let mut child = Command::new("/proc/self/exe");
        child.arg(COMMAND);
        let target = Rehearsed::in_child(dir, settings, child, &mut progress)
            .and_then(|rehearsed| LlamaTarget::load(rehearsed, progress));
        let target = target.with_context(|| format!("target {}", dir.path.display()))?;
        let described = target.description();
        Ok((Box::new(target), Some(described)))
    }
}

#[cfg(not(feature = "llamacpp"))]
mod left_out {
    use super::Config;
    use anyhow::{Result, bail};
    use dunlin_lm::{LoadProgress, ModelDir, Target};

    /// The refusal of a program without the engine.
    pub(crate) fn load(
        _: &Config,
        _: &ModelDir,
        _: usize,
        _: LoadProgress,
    ) -> Result<(Box<dyn Target>, Option<String>)> {
        bail!(crate::config::NOT_BUILT_IN)
    }
}
