//! An INA219 as a power source: the driver, the times of its windows, and the calibration.

use super::calibration::Correction;
use super::ina219::{Config, Error, Ina219, Measurement};
use super::rhythm::Rhythm;
use super::sensor::{PowerSensor, Reading, SensorError, SensorSource, Uncertainty};
use super::timebase::Timebase;
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::PowerSource;
use embedded_hal::i2c::I2c;

/// Relative uncertainty: gain of current and of bus voltage, each at most 1 % for an INA219A over temperature
/// (SBOS448), and 1 % for a common shunt, combined in quadrature.
const GAIN: f64 = 0.0173;
/// Maximum offset of the shunt voltage, V (SBOS448, INA219A at ±320 mV).
const OFFSET_V: f64 = 200e-6;
/// Number of looks for a result per period.
const LOOKS: u64 = 8;
/// Maximum time between two looks.
const POLL_MAX: Duration = Duration::from_millis(1);

/// The sensor.
pub struct Ina219Sensor<I, T> {
    chip: Ina219<I>,
    time: T,
    source: SensorSource,
    correction: Correction,
    set_up: bool,
    /// The last time at which no result was ready, or at which one was taken.
    looked: Instant,
    rhythm: Rhythm,
}

impl<I: I2c, T: Timebase> Ina219Sensor<I, T> {
    /// The chip at `address` of `bus`, whose name appears in errors. Nothing is sent yet.
    pub fn new(i2c: I, bus: &str, address: u8, config: Config, correction: Correction, time: T) -> Self {
        let period = Duration(config.period_micros());
        let ohms = f64::from(config.shunt_micro_ohms.max(1)) / 1e6;
        let source = SensorSource {
            kind: PowerSource::Ina219,
            part: format!("{address:#04x} on {bus}, shunt {} mΩ", ohms * 1e3),
            boundary: "all that is fed through the shunt; the supply's own loss is not".into(),
            uncertainty: correction
                .uncertainty
                .unwrap_or(Uncertainty { relative: GAIN, offset_w: OFFSET_V / ohms * correction.supply_v }),
            period,
            poll: Duration(POLL_MAX.0.min(period.0 / LOOKS)),
        };
        let looked = time.now();
        let rhythm = Rhythm::new(period.0);
        Self {
            chip: Ina219::new(i2c, address, config),
            time,
            source,
            correction,
            set_up: false,
            looked,
            rhythm,
        }
    }

    /// Changes the kind of source: a simulated sensor must not count as measured.
    #[must_use]
    pub fn called(mut self, kind: PowerSource, boundary: &str) -> Self {
        self.source.kind = kind;
        self.source.boundary = boundary.into();
        self
    }

    /// Configures the chip. At the first start, lost settings are normal and not an error.
    fn set_up(&mut self) -> Result<(), SensorError> {
        self.chip.configure().map_err(|error| lost(&self.source.part, &error))?;
        self.looked = self.time.now();
        self.set_up = true;
        Ok(())
    }

    /// The reading of a measurement whose result was seen at `seen`; `None` if its window can't be determined.
    fn reading(&mut self, measured: Measurement, seen: Instant) -> Option<Reading> {
        let now = self.time.now();
        let end = self.rhythm.ended(self.looked, seen);
        self.looked = seen;
        let shunt_end = self.shunt_end(end, seen, now)?;
        let config = self.chip.config();
        let Measurement { bus, current, clipped, .. } = measured;
        let current = self.correction.corrected(current);
        Some(Reading::Power {
            power: if self.correction.is_none() { measured.power } else { bus * current },
            rail: Some((bus, current)),
            clipped,
            ended: now.since(shunt_end),
            lasted: Duration(config.shunt.micros()),
        })
    }
}

impl<I: I2c, T: Timebase> Ina219Sensor<I, T> {
    /// The end of the window of a shunt voltage that was read between `from` and `until`. `end` is the end of the
    /// conversions of shunt and bus.
    ///
    /// The chip measures the bus voltage after the shunt voltage. The bus voltage is nearly constant, so the window
    /// of the shunt voltage counts. A late read gets the next shunt voltage; a read across its end may get either,
    /// and gives `None`.
    fn shunt_end(&self, end: Instant, from: Instant, until: Instant) -> Option<Instant> {
        let config = self.chip.config();
        let next = end + Duration(config.shunt.micros());
        if until < next { Some(end - Duration(config.bus.micros())) } else { (from >= next).then_some(next) }
    }
}

impl<I: I2c + Send, T: Timebase> PowerSensor for Ina219Sensor<I, T> {
    fn source(&self) -> &SensorSource {
        &self.source
    }

    fn read(&mut self) -> Result<Option<Reading>, SensorError> {
        if !self.set_up {
            self.set_up()?;
            return Ok(None);
        }
        let looked = self.chip.look();
        let seen = self.time.now();
        let measured = match looked {
            Ok(None) => {
                self.looked = seen;
                return Ok(None);
            }
            Ok(Some(ready)) => self.chip.take(ready),
            Err(error) => Err(error),
        };
        match measured {
            Ok(measured) => Ok(self.reading(measured, seen)),
            Err(error) => {
                if matches!(error, Error::Reinitialised) {
                    self.rhythm.restart();
                }
                Err(lost(&self.source.part, &error))
            }
        }
    }
}

fn lost<E: std::fmt::Debug>(part: &str, error: &Error<E>) -> SensorError {
    let part = || format!("INA219 {part}");
    match error {
        Error::Overflow => SensorError::Overflow(part()),
        Error::Reinitialised => SensorError::Reinitialised(part()),
        Error::Bus { .. } => SensorError::Failed { place: part(), reason: error.to_string() },
    }
}
