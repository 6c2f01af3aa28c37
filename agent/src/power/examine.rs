//! Examines one power source: its answer, and one reading.

use dunlin_hlm::time::{Duration, Instant};
use dunlin_power::clock::Clock;
use dunlin_power::ledger::Sample;
use dunlin_power::meter::{MeterEvent, Metering};
use dunlin_power::phase::EnergyPhase;
use dunlin_power::probe;
use dunlin_power::sensor::{SensorError, SensorSource};
use dunlin_power::settings::PowerSettings;
use dunlin_power::timebase::Timebase;
use dunlin_power::units::{Amperes, Volts};
use dunlin_wire::PowerSource;

/// Minimum time to wait for a reading; slow sources get a number of their periods.
const WAIT_MIN: Duration = Duration::from_millis(3000);
const WAIT_PERIODS: u64 = 4;
/// Currents below this can't be a sensor's offset, A: an INA219 with 10 mΩ has at most 20 mA.
const BACKWARDS_A: f64 = -0.02;

/// The result of examining a source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Examined {
    /// The source.
    pub(super) kind: PowerSource,
    /// True if a meter would use it.
    pub(super) opens: bool,
    /// Its reading, or the error.
    pub(super) shown: Result<ShownReading, String>,
}

/// A reading that is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShownReading {
    /// The source's description.
    pub(super) source: SensorSource,
    /// A caution about its figures.
    pub(super) cautions: Vec<String>,
    /// One reading.
    pub(super) sample: Sample,
    /// Voltage and current of it.
    pub(super) rail: Option<(Volts, Amperes)>,
}

/// Opens a source and reads it once. Takes as long as the source needs, within bounds.
pub(super) fn examine(settings: &PowerSettings, kind: PowerSource) -> Examined {
    let clock = Clock::start();
    let found = match probe::look(settings, kind, clock) {
        Ok(found) => found,
        Err(error) => return Examined { kind, opens: false, shown: Err(format!("{error:#}")) },
    };
    if let Some(board) = &found.board {
        board.mark(EnergyPhase::Idle, clock.now());
    }
    let caution = found.caution.clone();
    let mut metering = found.metering(clock);
    let shown = reading(&mut metering, &clock).map(|(sample, rail)| ShownReading {
        source: metering.source().clone(),
        cautions: caution.into_iter().chain(cautions(&sample, rail)).collect(),
        sample,
        rail,
    });
    Examined { kind, opens: true, shown }
}

/// The first reading, or, without one in time, the last error.
fn reading<T: Timebase>(
    metering: &mut Metering<T>,
    time: &T,
) -> Result<(Sample, Option<(Volts, Amperes)>), String> {
    let wait = Duration(WAIT_MIN.0.max(WAIT_PERIODS * metering.source().period.0));
    let until: Instant = time.now() + wait;
    let mut trouble = format!("no reading within {} s", wait.as_secs_f64());
    while time.now() < until {
        let (heard, pause) = metering.look();
        match heard {
            Some(MeterEvent::Sample(sample, rail)) => return Ok((sample, rail)),
            Some(MeterEvent::Lost(error @ SensorError::Ended(_))) => return Err(error.to_string()),
            Some(MeterEvent::Lost(error)) => trouble = error.to_string(),
            Some(MeterEvent::Health(_)) | None => {}
        }
        time.wait(pause);
    }
    Err(trouble)
}

fn cautions(sample: &Sample, rail: Option<(Volts, Amperes)>) -> Vec<String> {
    let mut cautions = Vec::new();
    if rail.is_some_and(|(_, current)| current.as_f64() < BACKWARDS_A) {
        cautions.push("the current is negative: VIN+ and VIN- are swapped".into());
    }
    if sample.clipped {
        cautions.push("the reading is at the end of the range: take a smaller shunt".into());
    }
    cautions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::tally::tests::source;
    use dunlin_power::sensor::{PowerSensor, Reading};
    use dunlin_power::timebase::VirtualTime;
    use dunlin_power::units::Watts;

    /// A sensor that gives nothing, fails, or always gives the same current.
    struct Scripted(SensorSource, Result<Option<f64>, SensorError>);

    impl PowerSensor for Scripted {
        fn source(&self) -> &SensorSource {
            &self.0
        }

        fn read(&mut self) -> Result<Option<Reading>, SensorError> {
            let (ended, lasted) = (Duration(0), Duration(0));
            let reading = |amperes| Reading::Power {
                power: Watts::from_f64(5.0 * amperes),
                rail: Some((Volts::from_f64(5.0), Amperes::from_f64(amperes))),
                clipped: amperes > 3.0,
                ended,
                lasted,
            };
            self.1.clone().map(|amperes| amperes.map(reading))
        }
    }

    fn read(given: Result<Option<f64>, SensorError>, period: Duration) -> (Result<Vec<String>, String>, u64) {
        let time = VirtualTime::default();
        let sensor = Scripted(SensorSource { period, ..source() }, given);
        let mut metering = Metering::new(Box::new(sensor), time.clone());
        let read = reading(&mut metering, &time).map(|(sample, rail)| cautions(&sample, rail));
        (read, time.now().0)
    }

    #[test]
    fn a_reading_is_waited_for_within_bounds() {
        let short = Duration(10_000);
        assert_eq!(read(Ok(Some(0.5)), short), (Ok(vec![]), 0));
        assert_eq!(read(Ok(None), short), (Err("no reading within 3 s".into()), 3_000_000));
        let (said, waited) = read(Ok(None), Duration(2_000_000));
        assert_eq!((said, waited), (Err("no reading within 8 s".into()), 8_000_000));
        let failed = SensorError::Failed { place: "bus".into(), reason: "stuck".into() };
        let (said, waited) = read(Err(failed), short);
        assert!(said == Err("bus: stuck".into()) && waited >= 3_000_000, "{waited}");
        let ended = SensorError::Ended("a.csv".into());
        assert_eq!(read(Err(ended), short), (Err("a.csv: the trace has ended".into()), 0));
    }

    #[test]
    fn a_current_that_flows_backwards_is_said() {
        let said = |amperes| read(Ok(Some(amperes)), Duration(10_000)).0.unwrap();
        assert!(said(-0.5)[0].contains("VIN+ and VIN- are swapped"));
        assert_eq!(said(-0.015), Vec::<String>::new(), "an offset");
        assert!(said(3.2)[0].contains("smaller shunt"));
    }
}
