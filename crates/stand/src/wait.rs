//! Waiting until a condition holds.

use anyhow::{Context, Result, bail, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Interval between two checks of a condition.
const TICK: Duration = Duration::from_millis(50);

/// A request to stop, shared by all copies.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A request that SIGINT and SIGTERM set.
    ///
    /// # Errors
    /// The signal handlers can't be installed.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))
                .with_context(|| format!("no handler for signal {signal}"))?;
        }
        Ok(stop)
    }

    /// Fails after a request to stop.
    ///
    /// # Errors
    /// A stop was requested.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted; everything it started was stopped");
        Ok(())
    }

    /// Repeats `look` until it returns something.
    ///
    /// # Errors
    /// `look` failed, a stop was requested, or `what` did not appear within `limit`.
    pub fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            self.check()?;
            if started.elapsed() > limit {
                bail!("{what}: not within {} s", limit.as_secs());
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the pause between two looks at a condition that has a deadline"
            )]
            sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_what_is_found_or_with_what_is_missing() {
        let stop = Stop::default();
        let mut looks = 0;
        let found = stop.until("the third look", Duration::from_secs(60), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
        let never = stop.until("a miracle", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert_eq!(never.to_string(), "a miracle: not within 0 s");
        assert!(stop.until("x", Duration::ZERO, || bail!("broken") as Result<Option<()>>).is_err());
        stop.0.store(true, Ordering::Relaxed);
        let wanted = stop.until("a miracle", Duration::from_secs(60), || Ok(None::<()>)).unwrap_err();
        assert!(wanted.to_string().starts_with("interrupted"), "{wanted}");
    }
}
