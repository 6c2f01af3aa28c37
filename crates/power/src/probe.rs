//! The power sources of this machine, and the selection of the configured one.

use super::clock::Clock;
use super::health::HealthReader;
use super::ina219::Ina219;
use super::ina219_sensor::Ina219Sensor;
use super::meter::Metering;
use super::phase::EnergyPhase;
use super::replay::Replay;
use super::sensor::PowerSensor;
use super::settings::{Choice, PowerSettings};
use super::simulated::board::SimulatedBoard;
use super::simulated::chip::{Chip, Troubles, Wiring};
use super::{hwmon, pmic, powercap};
use anyhow::{Context, Result, anyhow, bail};
use dunlin_wire::PowerSource;
use linux_embedded_hal::I2cdev;
use std::path::Path;

/// The order in which sources are tried: those that measure most of the board come first.
pub const SEARCHED: [PowerSource; 4] =
    [PowerSource::Ina219, PowerSource::Hwmon, PowerSource::Pmic, PowerSource::Powercap];
/// Boundary of a simulated sensor.
const SIMULATED: &str = "a simulated board: its power follows the phases of this process";

/// A source that answers.
pub struct DetectedSource {
    /// Its sensor.
    pub sensor: Box<dyn PowerSensor>,
    /// A caution about its figures.
    pub caution: Option<String>,
    /// The board, if the source is simulated.
    pub board: Option<SimulatedBoard>,
}

impl DetectedSource {
    fn new(sensor: impl PowerSensor + 'static) -> Self {
        Self { sensor: Box::new(sensor), caution: None, board: None }
    }

    /// Prepares reading the sensor, with times of `clock`.
    pub fn metering(self, clock: Clock) -> Metering<Clock> {
        Metering::new(self.sensor, clock)
    }
}

/// The configured source; `None` if none is configured, or if any is allowed and none answers.
///
/// # Errors
/// The configured source doesn't answer.
pub fn open(settings: &PowerSettings, clock: Clock) -> Result<Option<DetectedSource>> {
    match settings.choice {
        Choice::None => Ok(None),
        Choice::Only(kind) => {
            let found = look(settings, kind, clock);
            found.map(Some).with_context(|| format!("power source {}", kind.name()))
        }
        Choice::Auto => {
            let mut found = SEARCHED.into_iter().map(|kind| (kind, look(settings, kind, clock)));
            Ok(found.find_map(|(kind, found)| {
                found.inspect_err(|error| tracing::debug!("power: no {}: {error:#}", kind.name())).ok()
            }))
        }
    }
}

/// Opens one source.
///
/// # Errors
/// The reason why it can't be used.
pub fn look(settings: &PowerSettings, kind: PowerSource, clock: Clock) -> Result<DetectedSource> {
    match kind {
        PowerSource::Ina219 => ina219(settings, clock),
        PowerSource::Hwmon => hwmon(settings),
        PowerSource::Pmic => Ok(DetectedSource::new(pmic::Pmic::find(&settings.vcgencmd)?)),
        PowerSource::Powercap => {
            let found = powercap::Powercap::find(&settings.sysfs)?;
            found.map(DetectedSource::new).context("the kernel has no powercap zone")
        }
        PowerSource::Replay => {
            let trace = settings.trace.as_deref().context("no power.trace is named")?;
            Ok(DetectedSource::new(Replay::open(trace, clock)?))
        }
        PowerSource::Simulated => Ok(simulated(settings, clock)),
    }
}

/// A reader of the board's state, for use with any source.
pub fn health(settings: &PowerSettings) -> HealthReader {
    HealthReader::new(&settings.sysfs)
}

fn ina219(settings: &PowerSettings, clock: Clock) -> Result<DetectedSource> {
    let (bus, address) = (settings.i2c.as_path(), settings.address);
    // Two drivers would clear each other's ready flags.
    if let Some(owner) = bus_number(bus).and_then(|n| hwmon::owner_of(&settings.sysfs, n, address.into())) {
        bail!("{address:#04x} on {} belongs to the kernel's driver {owner}: read it as hwmon", bus.display());
    }
    let open = || I2cdev::new(bus).map_err(|error| anyhow!("{}: {error}", bus.display()));
    let mut chip = Ina219::new(open()?, address, settings.ina219);
    match chip.is_there() {
        Ok(true) => {}
        Ok(false) => bail!("the chip at {address:#04x} on {} is not an INA219", bus.display()),
        Err(error) => bail!("{}: nothing answers at {address:#04x}: {error}", bus.display()),
    }
    let place = bus.display().to_string();
    let (config, correction) = (settings.ina219, settings.correction());
    Ok(DetectedSource::new(Ina219Sensor::new(chip.release(), &place, address, config, correction, clock)))
}

/// The N of `/dev/i2c-N`.
fn bus_number(bus: &Path) -> Option<u32> {
    bus.file_name()?.to_str()?.strip_prefix("i2c-")?.parse().ok()
}

fn hwmon(settings: &PowerSettings) -> Result<DetectedSource> {
    let found = hwmon::find(&settings.sysfs, &settings.rails)?;
    let hwmon = found.into_iter().next().context("the kernel has no power monitor")?;
    let caution = hwmon.caution();
    Ok(DetectedSource { caution, ..DetectedSource::new(hwmon) })
}

fn simulated(settings: &PowerSettings, clock: Clock) -> DetectedSource {
    let board = SimulatedBoard::new(EnergyPhase::Load, clock.now());
    let shunt_ohms = f64::from(settings.ina219.shunt_micro_ohms) / 1e6;
    let wiring = Wiring { address: settings.address, shunt_ohms, bus_hz: 400_000, ..Wiring::default() };
    let chip = Chip::new(board.clone(), clock, wiring, Troubles::default());
    let (config, correction) = (settings.ina219, settings.correction());
    let sensor = Ina219Sensor::new(chip, "a simulated bus", settings.address, config, correction, clock);
    let sensor = sensor.called(PowerSource::Simulated, SIMULATED);
    DetectedSource { board: Some(board), ..DetectedSource::new(sensor) }
}
