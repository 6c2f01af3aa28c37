//! The meter: a thread that reads a sensor and passes on timed readings.
//!
//! Invariant: the thread never waits for the loop. Events for which the channel has no room are dropped and counted,
//! and lost readings appear as gaps in the ledger.

use super::clock::Clock;
use super::health::{Health, HealthReader};
use super::ledger::Sample;
use super::sensor::{PowerSensor, Reading, SensorError, SensorSource};
use super::timebase::Timebase;
use super::units::{Amperes, Joules, Volts};
use anyhow::{Context, Result};
use dunlin_hlm::time::{Duration, Instant};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Pause after a failure; doubled after each further one.
const RETRY_FIRST: Duration = Duration::from_millis(2);
/// Pause after many failures.
const RETRY_MAX: Duration = Duration::from_millis(1000);

/// Events that wait for the loop, more than eight seconds of them at 117 Hz; further ones are dropped.
const HEARD_MAX: usize = 1024;
/// Interval of readings of temperature and throttling.
const HEALTH_PERIOD: Duration = Duration::from_millis(1000);

/// An event of the meter.
#[derive(Clone, Debug, PartialEq)]
pub enum MeterEvent {
    /// A reading, with voltage and current if the source has them.
    Sample(Sample, Option<(Volts, Amperes)>),
    /// A reading that was lost.
    Lost(SensorError),
    /// The board's state.
    Health(Health),
}

/// A sensor in a thread of its own, which ends when this value is dropped.
#[derive(Debug)]
pub struct Meter {
    heard: Receiver<MeterEvent>,
    shared: Arc<MeterShared>,
}

#[derive(Debug, Default)]
struct MeterShared {
    stop: AtomicBool,
    realtime: AtomicBool,
    dropped: AtomicU64,
    cpu_us: AtomicU64,
}

impl Meter {
    /// Starts reading.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(metering: Metering<Clock>, health: HealthReader) -> Result<Self> {
        let (say, heard) = sync_channel(HEARD_MAX);
        let shared = Arc::new(MeterShared::default());
        let work = {
            let shared = Arc::clone(&shared);
            move || work(metering, health, &say, &shared)
        };
        thread::Builder::new().name("meter".into()).spawn(work).context("no thread for the meter")?;
        Ok(Self { heard, shared })
    }

    /// The next event; `None` if there is none yet.
    pub fn next(&self) -> Option<MeterEvent> {
        self.heard.try_recv().ok()
    }

    /// True if the thread has real-time priority.
    pub fn is_realtime(&self) -> bool {
        self.shared.realtime.load(Ordering::Relaxed)
    }

    /// Events dropped because the loop was too slow.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Processor time of the thread; updated once per second.
    pub fn cpu_time(&self) -> Duration {
        Duration(self.shared.cpu_us.load(Ordering::Relaxed))
    }
}

impl Drop for Meter {
    /// Tells the thread to end after its current look. Doesn't wait, because a firmware command may take long.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn work(
    mut metering: Metering<Clock>,
    mut health: HealthReader,
    say: &SyncSender<MeterEvent>,
    shared: &MeterShared,
) {
    shared.realtime.store(go_first(), Ordering::Relaxed);
    let time = metering.time;
    let mut due = Timebase::now(&time);
    while !shared.stop.load(Ordering::Relaxed) {
        let (heard, pause) = metering.look();
        if Timebase::now(&time) >= due {
            due = Timebase::now(&time) + HEALTH_PERIOD;
            hand_on(say, MeterEvent::Health(health.read()), shared);
            shared.cpu_us.store(cpu_us(), Ordering::Relaxed);
        }
        if let Some(heard) = heard {
            hand_on(say, heard, shared);
        }
        time.wait(pause);
    }
}

/// Sends an event without waiting: a slow or missing loop must not disturb the meter's timing.
fn hand_on(say: &SyncSender<MeterEvent>, heard: MeterEvent, shared: &MeterShared) {
    if say.try_send(heard).is_err() {
        shared.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Requests the lowest real-time priority: a look takes only microseconds, and a late one blurs the edges of phases.
fn go_first() -> bool {
    let Ok(lowest) = ThreadPriorityValue::try_from(1) else { return false };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let allowed =
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(lowest), policy);
    tracing::debug!("meter: real-time priority {}", if allowed.is_ok() { "given" } else { "not allowed" });
    allowed.is_ok()
}

fn cpu_us() -> u64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(spent.tv_sec * 1_000_000 + spent.tv_nsec / 1000).unwrap_or(0)
}

/// Reads a sensor at its own pace.
pub struct Metering<T> {
    sensor: Box<dyn PowerSensor>,
    time: T,
    /// The last value of an energy counter, and its time.
    counted: Option<(Joules, Instant)>,
    failures: u32,
}

impl<T: Timebase> Metering<T> {
    /// Reads `sensor`; times come from `time`.
    pub fn new(sensor: Box<dyn PowerSensor>, time: T) -> Self {
        Self { sensor, time, counted: None, failures: 0 }
    }

    /// The source.
    pub fn source(&self) -> &SensorSource {
        self.sensor.source()
    }

    /// Looks once at the sensor; returns the event, if any, and the pause before the next look.
    pub fn look(&mut self) -> (Option<MeterEvent>, Duration) {
        let before = self.time.now();
        let (period, poll) = (self.source().period, self.source().poll);
        match self.sensor.read() {
            Ok(None) => (None, poll),
            Ok(Some(reading)) => {
                self.failures = 0;
                let rail = match reading {
                    Reading::Power { rail, .. } => rail,
                    Reading::Energy(_) => None,
                };
                let sample = self.sample(reading, before);
                // Start looking a little early, because clocks differ and threads wake late.
                let pause = Duration(period.0.saturating_sub(3 * poll.0).max(poll.0));
                (sample.map(|sample| MeterEvent::Sample(sample, rail)), pause)
            }
            Err(error) => {
                let pause = Duration(RETRY_FIRST.0 << self.failures.min(9)).min(RETRY_MAX);
                self.failures = self.failures.saturating_add(1);
                (Some(MeterEvent::Lost(error)), pause)
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
                // A value without a window: use the middle of the call that read it.
                let at = Instant(before.0 + now.since(before).0 / 2) - ended;
                Some(Sample { from: at, until: at, watts: power.as_f64(), clipped })
            }
            Reading::Energy(joules) => {
                let at = Instant(before.0 + now.since(before).0 / 2);
                // The first value only sets the start of the count.
                let (counted, from) = self.counted.replace((joules, at))?;
                let seconds = at.since(from).as_secs_f64();
                let watts = (joules.micro() - counted.micro()) as f64 / 1e6 / seconds;
                (seconds > 0.0).then_some(Sample { from, until: at, watts, clipped: false })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sensor::Uncertainty;
    use super::super::timebase::VirtualTime;
    use super::super::units::Watts;
    use super::*;
    use dunlin_wire::PowerSource;

    /// A sensor that returns the given results, one per look.
    struct Scripted {
        source: SensorSource,
        answers: Vec<Result<Option<Reading>, SensorError>>,
    }

    impl PowerSensor for Scripted {
        fn source(&self) -> &SensorSource {
            &self.source
        }

        fn read(&mut self) -> Result<Option<Reading>, SensorError> {
            self.answers.remove(0)
        }
    }

    fn metering(answers: Vec<Result<Option<Reading>, SensorError>>) -> (Metering<VirtualTime>, VirtualTime) {
        let source = SensorSource {
            kind: PowerSource::Hwmon,
            part: "a test".into(),
            boundary: "nothing".into(),
            uncertainty: Uncertainty::default(),
            period: Duration(10_000),
            poll: Duration(1_000),
        };
        let time = VirtualTime::default();
        (Metering::new(Box::new(Scripted { source, answers }), time.clone()), time)
    }

    fn failed() -> Result<Option<Reading>, SensorError> {
        Err(SensorError::Failed { place: "a file".into(), reason: "it is gone".into() })
    }

    fn energy(joules: f64) -> Result<Option<Reading>, SensorError> {
        Ok(Some(Reading::Energy(Joules::from_f64(joules))))
    }

    #[test]
    fn a_counter_of_energy_becomes_mean_power_between_two_looks() {
        let (mut metering, time) = metering(vec![energy(5.0), Ok(None), energy(5.5), energy(5.5)]);
        assert_eq!(metering.look(), (None, Duration(7_000)), "one value tells no power");
        time.wait(Duration(150_000));
        assert_eq!(metering.look(), (None, Duration(1_000)));
        time.wait(Duration(100_000));
        let sample = Sample { from: Instant(0), until: Instant(250_000), watts: 2.0, clipped: false };
        assert_eq!(metering.look().0, Some(MeterEvent::Sample(sample, None)));
        assert_eq!(metering.look().0, None, "no time passed");
    }

    #[test]
    fn a_reading_lies_where_its_window_was() {
        let reading = |lasted| Reading::Power {
            power: Watts::from_f64(3.0),
            rail: None,
            clipped: true,
            ended: Duration(2_000),
            lasted: Duration(lasted),
        };
        let (mut metering, time) = metering(vec![Ok(Some(reading(4_000))), Ok(Some(reading(0)))]);
        time.wait(Duration(50_000));
        let window =
            |from, until| Sample { from: Instant(from), until: Instant(until), watts: 3.0, clipped: true };
        assert_eq!(metering.look().0, Some(MeterEvent::Sample(window(44_000, 48_000), None)));
        assert_eq!(metering.look().0, Some(MeterEvent::Sample(window(48_000, 48_000), None)));
    }

    #[test]
    fn failures_are_told_and_tried_again_ever_more_slowly() {
        let answers = (0..14).map(|_| failed()).chain([energy(1.0), failed()]).collect();
        let (mut metering, _) = metering(answers);
        let pauses: Vec<u64> = (0..14)
            .map(|_| {
                let (heard, Duration(pause)) = metering.look();
                assert!(matches!(heard, Some(MeterEvent::Lost(SensorError::Failed { .. }))));
                pause
            })
            .collect();
        assert_eq!(pauses[..4], [2_000, 4_000, 8_000, 16_000]);
        assert_eq!(pauses[13], 1_000_000);
        metering.look();
        assert_eq!(metering.look().1, Duration(2_000), "a reading ends the doubling");
    }
}
