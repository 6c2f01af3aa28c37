//! Power over time with exactly known energy.

use dunlin_hlm::time::Instant;

/// Power as a function of time.
pub trait Waveform: Send {
    /// Energy from time 0 to `at`, J.
    fn joules(&self, at: Instant) -> f64;

    /// Mean power between two times, W; 0 if they are equal.
    fn mean_w(&self, from: Instant, until: Instant) -> f64 {
        let span = until.since(from).as_secs_f64();
        if span > 0.0 { (self.joules(until) - self.joules(from)) / span } else { 0.0 }
    }
}

/// A repeating sequence of power steps.
#[derive(Clone, Debug, PartialEq)]
pub struct StepWaveform {
    /// End of each step, µs from the start of a repetition, and the energy up to it.
    ends: Vec<(u64, f64)>,
    /// Power of each step, W.
    watts: Vec<f64>,
}

impl StepWaveform {
    /// Steps of (µs, W); steps without length are left out. `None` if no step is left.
    pub fn new(steps: impl IntoIterator<Item = (u64, f64)>) -> Option<Self> {
        let (mut ends, mut watts, mut at, mut joules) = (Vec::new(), Vec::new(), 0, 0.0);
        for (span, power) in steps.into_iter().filter(|(span, _)| *span > 0) {
            at += span;
            joules += span as f64 / 1e6 * power;
            ends.push((at, joules));
            watts.push(power);
        }
        (!ends.is_empty()).then_some(Self { ends, watts })
    }

    /// Constant power.
    pub fn constant(watts: f64) -> Self {
        Self { ends: vec![(1_000_000, watts)], watts: vec![watts] }
    }
}

impl Waveform for StepWaveform {
    fn joules(&self, at: Instant) -> f64 {
        let (period, whole) = *self.ends.last().expect("there is a step");
        let (rounds, within) = (at.0 / period, at.0 % period);
        let step = self.ends.partition_point(|(end, _)| *end <= within);
        let (begin, before) = if step == 0 { (0, 0.0) } else { self.ends[step - 1] };
        rounds as f64 * whole + before + (within - begin) as f64 / 1e6 * self.watts[step]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_by_hand() {
        let steps = StepWaveform::new([(2_000_000, 3.0), (0, 9.0), (1_000_000, 6.0)]).unwrap();
        let joules = |us| steps.joules(Instant(us));
        assert_eq!((joules(0), joules(1_000_000), joules(2_000_000)), (0.0, 3.0, 6.0));
        assert_eq!((joules(2_500_000), joules(3_000_000), joules(7_000_000)), (9.0, 12.0, 27.0));
        assert_eq!(steps.mean_w(Instant(1_500_000), Instant(2_500_000)), 4.5);
        assert_eq!(steps.mean_w(Instant(5), Instant(5)), 0.0);
        assert_eq!(StepWaveform::constant(2.5).joules(Instant(10_500_000)), 26.25);
        assert_eq!(StepWaveform::new([(0, 1.0)]), None);
    }
}
