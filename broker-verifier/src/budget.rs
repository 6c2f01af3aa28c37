//! The memory for the sessions' caches: the number of sessions it holds, and warnings when it is too small.
//!
//! Invariant: time is an argument, and the amount logged per time is bounded.

use crate::config::{CacheType, Config};
use crate::engine::TargetEngine;
use anyhow::{Result, ensure};
use dunlin_hlm::verifier::VerifierCounters;
use dunlin_lm::Target;
use std::fmt;
use std::time::Duration;

/// Tokens of a typical session: a system prompt, and some turns of a conversation.
pub const TYPICAL_TOKENS: usize = 512;
/// Least time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The memory for caches, and the need of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheBudget {
    /// Configured mebibytes.
    pub mib: usize,
    /// Bytes of each token.
    pub token_bytes: u64,
    /// Most tokens of a session.
    pub context: usize,
    /// Most sessions that the target can have open; `None` if only their memory is bounded.
    pub open_max: Option<usize>,
    /// True if caches of half the size can be configured.
    pub is_halvable: bool,
}

impl CacheBudget {
    /// The budget of a target under a configuration.
    pub fn new(config: &Config, target: &dyn Target) -> Self {
        Self {
            mib: config.kv_mib,
            token_bytes: target.cache_bytes_per_token().max(1),
            context: config.served_context(target.context_max()),
            open_max: target.sessions_max(),
            is_halvable: config.cache_type() == CacheType::F32,
        }
    }

    /// The budget of an engine that has its caches here.
    pub fn of(config: &Config, engine: &TargetEngine) -> Option<Self> {
        match engine {
            TargetEngine::Rows(target) => Some(Self::new(config, target.as_ref())),
            TargetEngine::Choices(_) => None,
        }
    }

    /// The number of tokens that it holds.
    pub fn tokens(&self) -> u64 {
        ((self.mib as u64) << 20) / self.token_bytes
    }

    /// The number of sessions of so many tokens that it holds.
    pub fn sessions(&self, tokens: usize) -> u64 {
        let fitting = self.tokens() / (tokens.min(self.context).max(1) as u64);
        fitting.min(self.open_max.map_or(u64::MAX, |most| most as u64))
    }

    /// Checks that a session can reach its full context.
    ///
    /// # Errors
    /// Not one fits: names the keys that change that.
    pub fn check(&self) -> Result<()> {
        let needed = (self.context as u64).saturating_mul(self.token_bytes).div_ceil(1 << 20);
        ensure!(
            self.sessions(self.context) > 0,
            "kv_mib: {} MiB hold {} tokens at {} bytes each, but one session may have {}: set kv_mib to {needed} or \
             more{}, or context_tokens to fewer tokens",
            self.mib,
            self.tokens(),
            self.token_bytes,
            self.context,
            if self.is_halvable { ", kv_type to \"f16\" for half the bytes" } else { "" },
        );
        Ok(())
    }
}

impl fmt::Display for CacheBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mib, token_bytes, context, .. } = *self;
        let (tokens, full, typical) = (self.tokens(), self.sessions(context), self.sessions(TYPICAL_TOKENS));
        write!(
            f,
            "caches of {mib} MiB hold {tokens} tokens of all sessions at {token_bytes} bytes each: {full} "
        )?;
        write!(
            f,
            "sessions of a full context ({context} tokens), or {typical} of {}",
            TYPICAL_TOKENS.min(context)
        )
    }
}

/// The part of a verifier that notices when sessions are dropped for memory.
#[derive(Debug, Default)]
pub struct MemoryWatch {
    warned: Option<Duration>,
    /// Counts at the last warning.
    dropped: u64,
    returned: u64,
}

impl MemoryWatch {
    /// Warns of sessions that were dropped for memory since the last warning, at most once in a minute. `now` is
    /// counted from any fixed moment.
    pub fn look(&mut self, counters: &VerifierCounters, budget: CacheBudget, now: Duration) {
        let (dropped, returned) = (counters.displaced - self.dropped, counters.returned - self.returned);
        let is_early = self.warned.is_some_and(|at| now.saturating_sub(at) < WARNING_INTERVAL);
        if dropped == 0 || is_early {
            return;
        }
        (self.warned, self.dropped, self.returned) = (Some(now), counters.displaced, counters.returned);
        let CacheBudget { mib, .. } = budget;
        let typical = budget.sessions(TYPICAL_TOKENS);
        if returned > 0 {
            tracing::warn!(
                dropped,
                returned,
                kv_mib = mib,
                sessions_of_512_tokens = typical,
                "sessions drop each other's caches and read their contexts again: raise kv_mib, or lower sessions"
            );
        } else {
            tracing::warn!(
                dropped,
                kv_mib = mib,
                sessions_of_512_tokens = typical,
                "sessions were dropped because the caches are full; if they come back, raise kv_mib"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;

    const BUDGET: CacheBudget =
        CacheBudget { mib: 512, token_bytes: 36_864, context: 2048, open_max: None, is_halvable: true };

    #[test]
    fn a_budget_counts_the_sessions_that_fit() {
        let text = "caches of 512 MiB hold 14563 tokens of all sessions at 36864 bytes each: 7 sessions of a full \
                    context (2048 tokens), or 28 of 512";
        assert_eq!(BUDGET.to_string(), text);
        let short = CacheBudget { context: 100, ..BUDGET };
        assert_eq!(
            short.sessions(TYPICAL_TOKENS),
            short.sessions(100),
            "no session is longer than the context"
        );
    }

    #[test]
    fn a_budget_without_room_for_one_context_is_refused() {
        let wide = CacheBudget { token_bytes: 1 << 20, context: 4096, ..BUDGET };
        let error = wide.check().unwrap_err().to_string();
        assert!(error.starts_with("kv_mib: 512 MiB hold 512 tokens at 1048576 bytes each"), "{error}");
        assert!(error.contains("set kv_mib to 4096 or more, kv_type to \"f16\""), "{error}");
        let halved = CacheBudget { is_halvable: false, ..wide }.check().unwrap_err().to_string();
        assert!(
            halved.ends_with("set kv_mib to 4096 or more, or context_tokens to fewer tokens"),
            "{halved}"
        );
        assert!(CacheBudget { mib: 4096, ..wide }.check().is_ok());
        assert!(CacheBudget { mib: 4095, ..wide }.check().is_err());
        assert!(CacheBudget { context: 512, ..wide }.check().is_ok());
    }

    #[test]
    fn dropped_sessions_are_warned_of_once_a_minute() {
        let mut watch = MemoryWatch::default();
        let mut look = |displaced, returned, seconds| {
            let counters = VerifierCounters { displaced, returned, ..VerifierCounters::default() };
            logged(|| watch.look(&counters, BUDGET, Duration::from_secs(seconds))).1
        };
        assert_eq!(look(0, 0, 0), "");
        assert!(
            look(3, 0, 1).contains("because the caches are full; if they come back, raise kv_mib dropped=3")
        );
        assert_eq!(look(900, 700, 60), "", "within a minute");
        let later = look(901, 700, 61);
        assert!(
            later.contains("raise kv_mib, or lower sessions dropped=898 returned=700 kv_mib=512"),
            "{later}"
        );
        assert_eq!(look(901, 700, 1000), "", "nothing since");
    }
}
