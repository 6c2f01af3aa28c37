//! The meter: a thread that reads a sensor and hands on what it read, with when it was.
//!
//! Invariant: nobody waits for the loop here. What it does not take in time is dropped and counted, and shows in the
//! ledger as a gap.

use super::ledger::Sample;
use super::sensor::{PowerSensor, Reading, SensorError, Source};
use super::timebase::Timebase;
use super::units::Joules;
use dunlin_hlm::time::{Duration, Instant};

/// Pause after a failure; doubled with each one that follows.
const RETRY_FIRST: Duration = Duration::from_millis(2);
/// Pause after many failures.
const RETRY_MAX: Duration = Duration::from_millis(1000);

/// What the meter hands on.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A reading.
    Sample(Sample),
    /// A reading that was lost.
    Lost(SensorError),
}

/// Reads a sensor at its own pace.
pub struct Metering<T> {
    sensor: Box<dyn PowerSensor>,
    time: T,
    /// The last value of an energy counter, and when it was read.
    counted: Option<(Joules, Instant)>,
    failures: u32,
}

impl<T: Timebase> Metering<T> {
    /// Reads `sensor`, with times of `time`'s.
    pub fn new(sensor: Box<dyn PowerSensor>, time: T) -> Self {
        Self { sensor, time, counted: None, failures: 0 }
    }

    /// What is read.
    pub fn source(&self) -> &Source {
        self.sensor.source()
    }

    /// One look at the sensor: what it gave, and how long to wait until the next.
    pub fn look(&mut self) -> (Option<Heard>, Duration) {
        let before = self.time.now();
        let (period, poll) = (self.source().period, self.source().poll);
        match self.sensor.read() {
            Ok(None) => (None, poll),
            Ok(Some(reading)) => {
                self.failures = 0;
                let sample = self.sample(reading, before);
                // Some looks before the next one is due, for clocks differ and threads wake late.
                let pause = Duration(period.0.saturating_sub(3 * poll.0).max(poll.0));
                (sample.map(Heard::Sample), pause)
            }
            Err(error) => {
                let pause = Duration(RETRY_FIRST.0 << self.failures.min(9)).min(RETRY_MAX);
                self.failures = self.failures.saturating_add(1);
                (Some(Heard::Lost(error)), pause)
            }
        }
    }

    fn sample(&mut self, reading: Reading, before: Instant) -> Option<Sample> {
        let now = self.time.now();
        match reading {
            Reading::Power { power, clipped, ended, lasted, .. } if lasted.0 > 0 => {
                let until = now - ended;
                Some(Sample { from: until - lasted, until, watts: power.as_f64(), clipped })
            }
            Reading::Power { power, clipped, ended, .. } => {
                // A value of one moment: of the middle of the call that read it.
                let at = Instant(before.0 + now.since(before).0 / 2) - ended;
                Some(Sample { from: at, until: at, watts: power.as_f64(), clipped })
            }
            Reading::Energy(joules) => {
                let at = Instant(before.0 + now.since(before).0 / 2);
                let (counted, from) = self.counted.replace((joules, at))?;
                let seconds = at.since(from).as_secs_f64();
                let watts = (joules.micro() - counted.micro()) as f64 / 1e6 / seconds;
                (seconds > 0.0).then_some(Sample { from, until: at, watts, clipped: false })
            }
        }
    }
}
