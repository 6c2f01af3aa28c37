//! The number of a connection, greater than that of every earlier one, of an earlier process too.
//!
//! It counts by the calendar, so it holds as long as the date is right, until 2043, when it starts at 0 again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

/// The start of 2026, where the count starts.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// How fast it counts: 32 bits of this last 17 years.
const TICK: Duration = Duration::from_millis(125);

/// The number of a process's first connection: that of the next tick, once it has begun.
pub(super) async fn first() -> u32 {
    let (tick, rest) = now();
    sleep(rest).await;
    tick.wrapping_add(1)
}

/// The number after `last`; pauses between connections keep it from running ahead of the calendar.
pub(super) fn next(last: u32) -> u32 {
    last.wrapping_add(1).max(now().0)
}

/// The tick it is now, and how long it still lasts.
fn now() -> (u32, Duration) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(EPOCH);
    let (millis, tick) = (since.as_millis(), TICK.as_millis());
    ((millis / tick) as u32, Duration::from_millis((tick - millis % tick) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_grow_from_process_to_process() {
        let mut last = first().await;
        for _ in 0..3 {
            let fresh = first().await;
            assert!(fresh > last);
            last = fresh;
        }
        assert_eq!(next(u32::MAX - 1), u32::MAX);
        assert!(next(0) >= last);
    }
}
