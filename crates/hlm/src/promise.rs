//! The time after which a verifier that has not answered says that it works: one rule for both ends.
//!
//! A device knows the price of a verifier's work from its lease and its answers. The verifier remembers what it told each
//! session, so both ends compute the same time for a frame. A device that receives nothing for that time and a round trip
//! knows that the verifier hangs or that a message was lost, however slow the target is.

use crate::time::Duration;
use dunlin_wire::{LogTime, Price};

/// Time of a pass before one is announced.
const UNKNOWN_PASS: Duration = Duration::from_millis(1_000);
/// Most time that a device waits for on a verifier's word.
const PROMISE_MAX: Duration = Duration::from_millis(30_000);
/// Time beyond the announced one after which a verifier says that it works. An answer that is a little late needs no message.
pub(crate) const GRACE: Duration = Duration::from_millis(100);
/// Messages that it works in the time of a pass.
const WORKING_SHARE: u64 = 4;
/// Least time between two messages that it works.
const WORKING_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Most time between two messages that it works.
const WORKING_INTERVAL_MAX: Duration = Duration::from_millis(10_000);
/// Time after which a device no longer believes a verifier that only says that it works.
pub(crate) const WORKED_MAX: Duration = Duration::from_millis(600_000);

/// Time of a frame at this price, from its arrival to its answer: the wait, a pass, and `rows` further rows in it.
pub(crate) fn frame_time(price: Price, rows: usize) -> Duration {
    let us = |time: LogTime| time.us().unwrap_or(0);
    let pass = price.pass.us().unwrap_or(UNKNOWN_PASS.0);
    let further = us(price.row).saturating_mul(rows as u64);
    Duration(us(price.queue).saturating_add(pass).saturating_add(further).min(PROMISE_MAX.0))
}

/// Time between two messages that the verifier works, at this price, as the wire can say it.
pub(crate) fn working_interval(price: Price) -> LogTime {
    let us = price.pass.us().map_or(UNKNOWN_PASS.0, |pass| pass / WORKING_SHARE);
    LogTime::of_us(us.clamp(WORKING_INTERVAL_MIN.0, WORKING_INTERVAL_MAX.0))
}

/// Time from a frame's arrival to the first word on it: its answer, or a message that the verifier works.
pub(crate) fn word_time(price: Price, rows: usize) -> Duration {
    (frame_time(price, rows) + GRACE).min(believed(working_interval(price)))
}

/// Time that a device waits for after such a message; a peer's number is cut to the longest interval.
pub(crate) fn believed(wait: LogTime) -> Duration {
    Duration(wait.us().unwrap_or(0)).min(WORKING_INTERVAL_MAX)
}

/// True if the verifier says that it works before the answer to each frame.
pub(crate) fn is_slow(price: Price) -> bool {
    frame_time(price, 0) + GRACE > believed(working_interval(price))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(pass_ms: u64, row_ms: u64, queue_ms: u64) -> Price {
        let [pass, row, queue] = [pass_ms, row_ms, queue_ms].map(|ms| LogTime::of_us(ms * 1000));
        Price { pass, row, queue }
    }

    #[test]
    fn a_frame_takes_the_queue_a_pass_and_its_rows() {
        let known = price(512, 16, 64);
        let us = |time: LogTime| time.us().expect("known");
        let expected = us(known.queue) + us(known.pass) + 3 * us(known.row);
        assert_eq!(frame_time(known, 3), Duration(expected));
        assert_eq!(frame_time(Price::default(), 3), UNKNOWN_PASS);
        let forever = Price { pass: LogTime(255), row: LogTime(255), queue: LogTime(255) };
        assert_eq!(frame_time(forever, usize::MAX), PROMISE_MAX);
    }

    #[test]
    fn a_verifier_speaks_in_each_quarter_of_a_pass_within_two_bounds() {
        let ms = |pass_ms| believed(working_interval(price(pass_ms, 0, 9_000))).0 / 1000;
        assert_eq!((ms(1), ms(1_000), ms(2_000), ms(5_000)), (240, 240, 480, 1_246));
        assert_eq!((ms(60_000), believed(LogTime(255))), (9_975, WORKING_INTERVAL_MAX));
        assert_eq!(believed(working_interval(Price::default())).0 / 1000, 961, "before the first pass");
    }

    #[test]
    fn the_first_word_is_the_answer_of_a_quick_target_and_a_quarter_of_a_pass_from_a_slow_one() {
        let quick = price(64, 1, 32);
        assert!(!is_slow(quick));
        assert_eq!(word_time(quick, 5), frame_time(quick, 5) + GRACE);
        let slow = price(2_000, 1, 500);
        assert!(is_slow(slow));
        assert_eq!(word_time(slow, 5), believed(working_interval(slow)));
    }
}
