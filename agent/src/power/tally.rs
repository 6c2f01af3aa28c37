//! Readings of a source so far: its energy, the range of its power, and its losses.
//!
//! Invariant: energy comes from the readings' own windows. None is added before the first or after the last.

use dunlin_hlm::time::{Duration, Instant};
use dunlin_power::books::Books;
use dunlin_power::ledger::{ReadingFaults, Sample};
use dunlin_power::meter::MeterEvent;
use dunlin_power::phase::EnergyPhase;
use dunlin_power::sensor::{SensorError, SensorSource};
use dunlin_power::units::{Amperes, Volts};

/// The sums.
#[derive(Debug)]
pub(super) struct Tally {
    source: SensorSource,
    books: Books,
    /// Start of the first window and end of the last.
    window: Option<(Instant, Instant)>,
    /// The middle of the last window.
    middle: Instant,
    readings: u64,
    range_w: (f64, f64),
    /// Sum and number of powers since the last call of [`take_lately_w`](Self::take_lately_w), W.
    lately: (f64, u32),
    /// Sum and number of currents, A.
    amperes: (f64, u64),
    rail: Option<(Volts, Amperes)>,
    said: Option<SensorError>,
}

impl Tally {
    /// An empty tally of `source`. Its clock begins at 0, because a meter may have read before anybody listened.
    pub(super) fn new(source: &SensorSource) -> Self {
        Self {
            source: source.clone(),
            books: Books::new(EnergyPhase::Idle, Instant(0), source.period, None),
            window: None,
            middle: Instant(0),
            readings: 0,
            range_w: (f64::INFINITY, f64::NEG_INFINITY),
            lately: (0.0, 0),
            amperes: (0.0, 0),
            rail: None,
            said: None,
        }
    }

    /// Takes an event; returns a message for the user if it is an error that differs from the last one.
    pub(super) fn hear(&mut self, heard: &MeterEvent) -> Option<String> {
        match heard {
            MeterEvent::Sample(sample, rail) => {
                self.take(sample, *rail);
                None
            }
            MeterEvent::Lost(error) => {
                self.books.handle_loss(error);
                let is_new = self.said.as_ref() != Some(error);
                self.said = Some(error.clone());
                is_new.then(|| error.to_string())
            }
            MeterEvent::Health(_) => None,
        }
    }

    fn take(&mut self, sample: &Sample, rail: Option<(Volts, Amperes)>) {
        if self.window.is_none() {
            // Close the time before the first window as a span of its own; otherwise the ledger would charge it with
            // a power that is found later. End it 1 µs early: a reading without length would otherwise fall into the
            // span that is already charged.
            self.close_at(Instant(sample.from.0.saturating_sub(1)));
        }
        let (from, until) = self.window.unwrap_or((sample.from, sample.until));
        self.window = Some((from, until.max(sample.until)));
        self.books.handle_sample(sample);
        if !sample.watts.is_finite() {
            return;
        }
        self.middle = self.middle.max(sample.middle());
        self.readings += 1;
        self.range_w = (self.range_w.0.min(sample.watts), self.range_w.1.max(sample.watts));
        self.lately = (self.lately.0 + sample.watts, self.lately.1 + 1);
        self.rail = rail;
        if let Some((_, current)) = rail {
            self.amperes = (self.amperes.0 + current.as_f64(), self.amperes.1 + 1);
        }
    }

    /// Charges the energy up to the middle of the last reading, for [`Self::joules`] and [`Self::faults`].
    pub(super) fn close(&mut self) {
        self.close_at(self.middle);
    }

    /// Charges the energy up to the end of the last window. No event may follow.
    pub(super) fn finish(&mut self) {
        self.close_at(self.window.map_or(self.middle, |(_, until)| until));
    }

    fn close_at(&mut self, at: Instant) {
        self.books.tick(at);
        self.books.settle(at);
    }

    /// The source.
    pub(super) fn source(&self) -> &SensorSource {
        &self.source
    }

    /// Number of readings.
    pub(super) fn readings(&self) -> u64 {
        self.readings
    }

    /// Energy, J.
    pub(super) fn joules(&self) -> f64 {
        self.books.total().total_j()
    }

    /// Uncertainty of the energy, J.
    pub(super) fn uncertainty_j(&self) -> f64 {
        self.source.uncertainty.of(self.joules(), self.time())
    }

    /// Losses.
    pub(super) fn faults(&self) -> ReadingFaults {
        self.books.total().faults
    }

    /// Time from the start of the first window to the end of the last.
    pub(super) fn time(&self) -> Duration {
        self.window.map(|(from, until)| until.since(from)).unwrap_or_default()
    }

    /// Mean power up to the point where energy is charged, W; 0 before that.
    pub(super) fn mean_w(&self) -> f64 {
        let from = self.window.map_or(self.middle, |(from, _)| from);
        let seconds = self.books.total().until.since(from).as_secs_f64();
        if seconds > 0.0 { self.joules() / seconds } else { 0.0 }
    }

    /// The smallest and the largest power, W.
    pub(super) fn range_w(&self) -> (f64, f64) {
        self.range_w
    }

    /// Mean power of the readings since the last call, W.
    pub(super) fn take_lately_w(&mut self) -> Option<f64> {
        let (sum, count) = std::mem::take(&mut self.lately);
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Voltage and current of the last reading.
    pub(super) fn rail(&self) -> Option<(Volts, Amperes)> {
        self.rail
    }

    /// Mean current, A.
    pub(super) fn mean_a(&self) -> Option<f64> {
        let (sum, count) = self.amperes;
        (count > 0).then(|| sum / count as f64)
    }
}

/// Losses in words; `None` if there are none.
pub(super) fn in_words(faults: &ReadingFaults) -> Option<String> {
    let counted = [
        (faults.clipped, "clipped"),
        (faults.overflowed, "overflowed"),
        (faults.reinitialised, "times set up again"),
        (faults.failed, "failed"),
    ];
    let gaps = (faults.gaps > 0)
        .then(|| format!("{} gaps of {:.2} s in all", faults.gaps, faults.gap_time.as_secs_f64()));
    let others =
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let words: Vec<String> = gaps.into_iter().chain(others).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use dunlin_power::sensor::Uncertainty;
    use dunlin_wire::PowerSource;

    /// A source that reads every 10 ms.
    pub(in super::super) fn source() -> SensorSource {
        SensorSource {
            kind: PowerSource::Ina219,
            part: "0x40".into(),
            boundary: "all".into(),
            uncertainty: Uncertainty { relative: 0.01, offset_w: 0.1 },
            period: Duration(10_000),
            poll: Duration(1_000),
        }
    }

    /// A reading whose window begins at `ms`.
    pub(in super::super) fn reading(ms: u64, watts: f64) -> MeterEvent {
        let (from, until) = (Instant(ms * 1000), Instant(ms * 1000 + 10_000));
        let rail = (Volts::from_f64(5.0), Amperes::from_f64(watts / 5.0));
        MeterEvent::Sample(Sample { from, until, watts, clipped: false }, Some(rail))
    }

    #[test]
    fn energy_is_that_of_the_windows() {
        let mut tally = Tally::new(&source());
        for ms in (500..1500).step_by(10) {
            assert_eq!(tally.hear(&reading(ms, if ms < 1000 { 2.0 } else { 4.0 })), None);
        }
        tally.close();
        assert!((tally.mean_w() - 3.0).abs() < 0.02, "{}", tally.mean_w());
        assert!((tally.joules() - (3.0 - 0.02)).abs() < 1e-5, "up to the middle of the last window");
        tally.finish();
        assert!((tally.joules() - 3.0).abs() < 1e-5, "{}", tally.joules());
        assert!((tally.mean_w() - 3.0).abs() < 1e-5, "{}", tally.mean_w());
        assert_eq!((tally.readings(), tally.time(), tally.range_w()), (100, Duration(1_000_000), (2.0, 4.0)));
        assert!((tally.uncertainty_j() - 0.13).abs() < 1e-5);
        assert!((tally.mean_a().unwrap() - 0.6).abs() < 1e-9);
        assert_eq!(tally.take_lately_w(), Some(3.0));
        assert_eq!(tally.take_lately_w(), None);
        assert_eq!(in_words(&tally.faults()), None);
    }

    #[test]
    fn the_first_reading_of_one_moment_counts() {
        let mut tally = Tally::new(&source());
        for (ms, watts) in [(1000, 2.0), (1010, 4.0)] {
            let at = Instant(ms * 1000);
            tally.hear(&MeterEvent::Sample(Sample { from: at, until: at, watts, clipped: false }, None));
        }
        tally.finish();
        assert!((tally.joules() - 0.03).abs() < 1e-5, "{}", tally.joules());
        assert_eq!((tally.time(), tally.rail(), tally.mean_a()), (Duration(10_000), None, None));
    }

    #[test]
    fn the_same_trouble_is_said_once_and_counted_each_time() {
        let mut tally = Tally::new(&source());
        let failed = |reason: &str| {
            MeterEvent::Lost(SensorError::Failed { place: "bus".into(), reason: reason.into() })
        };
        assert_eq!(tally.hear(&failed("no answer")), Some("bus: no answer".into()));
        assert_eq!(tally.hear(&failed("no answer")), None);
        assert_eq!(tally.hear(&failed("stuck")), Some("bus: stuck".into()));
        tally.close();
        assert_eq!(in_words(&tally.faults()).as_deref(), Some("3 failed"));
        tally.hear(&reading(100, 2.0));
        tally.hear(&reading(200, 2.0));
        tally.hear(&MeterEvent::Lost(SensorError::Overflow("chip".into())));
        tally.finish();
        let words = in_words(&tally.faults()).unwrap();
        assert_eq!(words, "1 gaps of 0.10 s in all, 1 overflowed, 3 failed");
        assert!((tally.joules() - 0.22).abs() < 1e-5, "{}", tally.joules());
    }

    #[test]
    fn a_power_that_is_none_is_a_fault_and_no_reading() {
        let mut tally = Tally::new(&source());
        tally.hear(&reading(0, f64::NAN));
        tally.finish();
        assert_eq!((tally.readings(), tally.faults().failed, tally.joules()), (0, 1, 0.0));
        assert_eq!((tally.mean_a(), tally.take_lately_w()), (None, None));
    }
}
