//! The number of a connection. It is greater than the numbers of all earlier connections, also of earlier processes.
//!
//! It counts time, so it requires a correct date. It wraps to 0 in 2043.
//!
//! Invariant: no number is ahead of the calendar, and a process's first number is from a tick that began after its
//! start.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// The start of 2026, where the count starts.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Time per number; 32 bits last 17 years.
const TICK: Duration = Duration::from_millis(125);

/// The number of a process's first connection: the next tick. Waits until that tick has begun.
pub(crate) async fn first() -> u32 {
    let (tick, rest) = now();
    sleep(rest).await;
    tick.wrapping_add(1)
}

/// The number after `last`. Waits until its tick has begun.
pub(crate) async fn next(last: u32) -> u32 {
    let (tick, rest) = now();
    // Two connections in one tick would share a number, so wait for the next tick.
    if tick <= last {
        sleep(rest).await;
    }
    last.wrapping_add(1).max(now().0)
}

/// The current tick, and the time until it ends.
fn now() -> (u32, Duration) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(EPOCH);
    let (millis, tick) = (since.as_millis(), TICK.as_millis());
    ((millis / tick) as u32, Duration::from_millis((tick - millis % tick) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_grow_from_connection_to_connection_and_from_process_to_process() {
        let mut last = 0;
        for _ in 0..3 {
            let fresh = first().await;
            assert!(fresh > last);
            last = next(fresh).await;
            assert!(last > fresh && last <= now().0);
        }
        assert_eq!(next(u32::MAX - 1).await, u32::MAX);
    }
}
