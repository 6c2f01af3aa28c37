//! Pauses between the repetitions of a request, and the log of a server that doesn't answer.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest pause that repetitions reach by themselves.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest pause that a server may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Time after which a server that still doesn't answer is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The pauses of one request: they double, each with jitter, so that many requests don't return at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Self {
        Self { pause: first }
    }

    /// The next pause, from half of its length on; at least the one that the server `asked` for, up to 30 s.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let pause = self.pause.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause.max(asked.unwrap_or_default().min(ASKED_PAUSE_MAX))
    }
}

/// The state of the server as the log knows it: an outage is one line when it begins, one each minute, and one when it
/// ends, however many requests fail in it.
#[derive(Debug, Default)]
pub(crate) struct OutageLog(Mutex<Option<Outage>>);

#[derive(Debug)]
struct Outage {
    began: Instant,
    logged: Instant,
    failures: u64,
}

impl OutageLog {
    /// Notes a failed attempt; true if it was logged.
    pub(crate) fn note_failure(&self, reason: &str, now: Instant) -> bool {
        let Ok(mut outage) = self.0.lock() else { return false };
        let begins = outage.is_none();
        let outage = outage.get_or_insert(Outage { began: now, logged: now, failures: 0 });
        outage.failures += 1;
        if !begins && now.saturating_duration_since(outage.logged) < LOG_INTERVAL {
            return false;
        }
        outage.logged = now;
        let failures = outage.failures;
        tracing::warn!(%reason, failures, "the target's server fails; frames wait and are asked again");
        true
    }

    /// Notes an answer; true if it ended an outage.
    pub(crate) fn note_answer(&self, now: Instant) -> bool {
        let Some(Outage { began, failures, .. }) = self.0.lock().ok().and_then(|mut outage| outage.take())
        else {
            return false;
        };
        let seconds = now.saturating_duration_since(began).as_secs_f32();
        tracing::info!(seconds, failures, "the target's server answers again");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(100));
        for nominal in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = backoff.next(None).as_millis();
            assert!((nominal / 2..=nominal).contains(&pause), "{pause} of {nominal}");
        }
    }

    #[test]
    fn a_server_may_ask_for_a_longer_pause_within_reason() {
        let next = |asked| Backoff::new(Duration::from_millis(1)).next(Some(Duration::from_secs(asked)));
        assert_eq!(next(3), Duration::from_secs(3));
        assert_eq!(next(86_400), Duration::from_secs(30));
    }

    #[test]
    fn an_outage_is_logged_at_its_beginning_each_minute_and_at_its_end() {
        let (log, start) = (OutageLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!log.note_answer(at(0)), "there was none");
        let logged: Vec<bool> =
            [0, 1, 59, 60, 61, 119, 120].map(|second| log.note_failure("gone", at(second))).into();
        assert_eq!(logged, [true, false, false, true, false, false, true]);
        assert!(log.note_answer(at(121)) && !log.note_answer(at(122)));
        assert!(log.note_failure("gone", at(123)), "a new one");
    }
}
