//! A power that a test changes while it is measured, and its true energy.

use dunlin_hlm::time::Instant;
use dunlin_power::simulated::waveform::{StepWaveform, Waveform};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An adjustable power, shared by all copies.
#[derive(Clone, Debug)]
pub struct Dial(Arc<Mutex<Vec<DialTurn>>>);

/// A setting of the dial, with its start.
#[derive(Clone, Debug)]
struct DialTurn {
    begin: Instant,
    /// Energy up to its start, J.
    joules: f64,
    power: StepWaveform,
}

impl Dial {
    /// A dial that is at `power` from time 0.
    pub fn new(power: StepWaveform) -> Self {
        Self(Arc::new(Mutex::new(vec![DialTurn { begin: Instant(0), joules: 0.0, power }])))
    }

    /// Sets `power` from `at` on, where its steps begin; a time before the last turn is moved to that.
    pub fn turn(&self, power: StepWaveform, at: Instant) {
        let mut turns = self.turns();
        let begin = turns.last().expect("never empty").begin.max(at);
        let joules = joules(&turns, begin);
        turns.push(DialTurn { begin, joules, power });
    }

    fn turns(&self) -> MutexGuard<'_, Vec<DialTurn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waveform for Dial {
    fn joules(&self, at: Instant) -> f64 {
        joules(&self.turns(), at)
    }
}

fn joules(turns: &[DialTurn], at: Instant) -> f64 {
    let turn = turns.partition_point(|turn| turn.begin <= at).saturating_sub(1);
    let DialTurn { begin, joules, power } = &turns[turn];
    joules + power.joules(Instant(at.since(*begin).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_counts_from_its_moment() {
        let dial = Dial::new(StepWaveform::constant(2.0));
        let copy = dial.clone();
        copy.turn(StepWaveform::new([(1_000_000, 4.0), (1_000_000, 6.0)]).unwrap(), Instant(3_000_000));
        let joules = |us| dial.joules(Instant(us));
        assert_eq!((joules(0), joules(1_500_000), joules(3_000_000)), (0.0, 3.0, 6.0));
        assert_eq!((joules(4_000_000), joules(4_500_000), joules(5_000_000)), (10.0, 13.0, 16.0));
        assert_eq!(dial.mean_w(Instant(2_000_000), Instant(4_000_000)), 3.0);
        // A turn before the last one takes effect at the time of the last one.
        dial.turn(StepWaveform::constant(1.0), Instant(0));
        assert_eq!((joules(3_000_000), joules(4_000_000)), (6.0, 7.0));
    }
}
