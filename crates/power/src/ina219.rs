//! The INA219 current and power monitor (Texas Instruments SBOS448), on any I2C bus of embedded-hal 1.0.
//!
//! The driver reads shunt and bus voltage and multiplies them in integers, because the chip's own power register
//! rounds down to twenty current steps. It writes the chip's calibration nevertheless, because a reset clears it: a
//! power register of 0 with a shunt voltage above 0 reveals a brown-out at the next reading.
//!
//! Invariant: no operating system, no allocation, no clock. A transaction is a register's address and its two bytes.

use super::units::{Amperes, Volts, Watts};
use core::fmt;
use embedded_hal::i2c::I2c;

/// One 12-bit conversion, ns (SBOS448, table 5: eight take 4.26 ms).
const CONVERSION_NS: u64 = 532_000;
/// Step of the shunt register, µV.
const SHUNT_STEP_UV: i64 = 10;
/// Step of the bus register, mV.
const BUS_STEP_MV: i64 = 4;
/// End of the bus register's 32 V range, in its steps.
const BUS_STEPS_MAX: u16 = 8000;
/// Bus register: a result is ready.
const CNVR: u16 = 1 << 1;
/// Bus register: the result is invalid because of an overflow.
const OVF: u16 = 1;
/// Configuration: bus range of 32 V; shunt and bus are measured in turn, continuously.
const CONTINUOUS_32_V: u16 = 1 << 13 | 0b111;
/// At or above this many steps, the power register can't be 0.
const POWER_STEPS_SURE: i64 = 4;

/// The chip's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    /// Ranges, averaging and mode.
    Configuration = 0,
    /// Voltage across the shunt.
    Shunt = 1,
    /// Voltage of the supply at the load's side, and two flags.
    Bus = 2,
    /// Power by the chip's own arithmetic; reading it clears the ready flag.
    Power = 3,
    /// Factor by which the chip multiplies the shunt voltage.
    Calibration = 5,
}

/// Number of 12-bit conversions per reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Averaging(u8);

/// The largest voltage across the shunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuntRange {
    /// ±40 mV
    Mv40,
    /// ±80 mV
    Mv80,
    /// ±160 mV
    Mv160,
    /// ±320 mV
    Mv320,
}

/// Settings of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shunt's resistance, µΩ, above 0.
    pub shunt_micro_ohms: u32,
    /// The range of the shunt voltage.
    pub range: ShuntRange,
    /// Averaging of the shunt voltage.
    pub shunt: Averaging,
    /// Averaging of the bus voltage.
    pub bus: Averaging,
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// Voltage at the load's side.
    pub bus: Volts,
    /// Current through the shunt; negative if the shunt is wired in reverse.
    pub current: Amperes,
    /// Their product.
    pub power: Watts,
    /// True if a range was at its end, so that the true value may be larger.
    pub clipped: bool,
}

/// A result that is ready but not yet taken: the bus register that reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(u16);

/// The reason why a reading is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// A transaction failed.
    Bus {
        /// The register of the transaction.
        register: Register,
        /// The bus's error.
        error: E,
    },
    /// The chip reported an overflow of its arithmetic.
    Overflow,
    /// The chip had lost its settings; they were written again.
    Reinitialised,
}

impl<E: fmt::Debug> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus { register, error } => {
                write!(f, "{register:?} register ({:#04x}): {error:?}", *register as u8)
            }
            Self::Overflow => f.write_str("the result overflowed"),
            Self::Reinitialised => f.write_str("the settings were lost and written again"),
        }
    }
}

impl Averaging {
    /// Averaging of 1, 2, 4, 8, 16, 32, 64 or 128 conversions; `None` for any other number.
    pub const fn of(conversions: u8) -> Option<Self> {
        if conversions.is_power_of_two() { Some(Self(conversions)) } else { None }
    }

    /// Length of a reading, µs.
    pub const fn micros(self) -> u64 {
        self.0 as u64 * CONVERSION_NS / 1000
    }

    /// The four bits in the configuration register.
    const fn code(self) -> u16 {
        0b1000 | self.0.trailing_zeros() as u16
    }
}

impl ShuntRange {
    /// The end of the range, in steps of the shunt register.
    const fn steps(self) -> u16 {
        4000 << self as u16
    }

    /// The calibration with which the current register uses its 15 bits for the whole range.
    ///
    /// `trunc(0.04096 / (I_LSB · R))` with `I_LSB · R` the range over 2^15: the resistance cancels. Bit 0 is always 0.
    const fn calibration(self) -> u16 {
        let range_uv = self.steps() as u64 * SHUNT_STEP_UV as u64;
        ((40_960 << 15) / range_uv) as u16 & !1
    }
}

impl Config {
    /// The content of the configuration register.
    pub const fn register(&self) -> u16 {
        CONTINUOUS_32_V | (self.range as u16) << 11 | self.bus.code() << 7 | self.shunt.code() << 3
    }

    /// Time between readings, µs: the shunt voltage is measured first, then the bus voltage.
    pub const fn period_micros(&self) -> u64 {
        self.shunt.micros() + self.bus.micros()
    }

    /// Converts two register values.
    fn measurement(&self, shunt: i16, bus: u16) -> Measurement {
        let (shunt_uv, steps) = (i64::from(shunt) * SHUNT_STEP_UV, bus >> 3);
        let (bus_mv, resistance) = (i64::from(steps) * BUS_STEP_MV, i64::from(self.shunt_micro_ohms.max(1)));
        Measurement {
            bus: Volts::from_micro(bus_mv * 1000),
            current: Amperes::from_micro(shunt_uv * 1_000_000 / resistance),
            power: Watts::from_micro(shunt_uv * bus_mv * 1000 / resistance),
            clipped: shunt.unsigned_abs() >= self.range.steps() || steps >= BUS_STEPS_MAX,
        }
    }

    /// True if the power register can't be 0 at these voltages. Its step is 20 current steps times 1 V, for every
    /// shunt.
    fn shows_power(&self, shunt: i16, bus: u16) -> bool {
        // A current step is the shunt range divided by 2^15; here as a share of the shunt register's steps.
        let current = i64::from(shunt) * (1 << 15) / i64::from(self.range.steps());
        let bus_steps = i64::from(bus >> 3);
        (current * bus_steps).abs() / 5000 >= POWER_STEPS_SURE
    }
}

/// An INA219 on a bus.
#[derive(Debug)]
pub struct Ina219<I> {
    i2c: I,
    address: u8,
    config: Config,
    /// True if the settings may be lost.
    suspect: bool,
}

impl<I: I2c> Ina219<I> {
    /// The chip at `address`. Nothing is sent yet; the first measurement configures it.
    pub const fn new(i2c: I, address: u8, config: Config) -> Self {
        Self { i2c, address, config, suspect: true }
    }

    /// The settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// True if the chip that answers may be an INA219: the reserved bit of its configuration is clear.
    ///
    /// # Errors
    /// Nothing answers.
    pub fn is_there(&mut self) -> Result<bool, Error<I::Error>> {
        let configuration = self.read(Register::Configuration)?;
        Ok(configuration & 1 << 14 == 0 && configuration != 0)
    }

    /// Writes the settings; conversions start again.
    ///
    /// # Errors
    /// A register could not be written.
    pub fn configure(&mut self) -> Result<(), Error<I::Error>> {
        self.write(Register::Calibration, self.config.range.calibration())?;
        self.write(Register::Configuration, self.config.register())?;
        self.suspect = false;
        Ok(())
    }

    /// Checks for a new result, in a single transaction, so that the caller knows the exact time of the check.
    ///
    /// # Errors
    /// The bus failed, or the chip had to be configured again.
    pub fn look(&mut self) -> Result<Option<Ready>, Error<I::Error>> {
        if self.suspect {
            self.restore()?;
        }
        let bus = self.read(Register::Bus)?;
        Ok((bus & CNVR != 0).then_some(Ready(bus)))
    }

    /// Takes the result that [`look`](Self::look) found.
    ///
    /// # Errors
    /// The bus failed, the result overflowed, or the chip had to be configured again. The reading is lost.
    pub fn take(&mut self, Ready(bus): Ready) -> Result<Measurement, Error<I::Error>> {
        let shunt = self.read(Register::Shunt)?.cast_signed();
        // Reading the power register clears the ready flag, so that the next ready flag means a new result.
        let power = self.read(Register::Power)?;
        if bus & OVF != 0 {
            return Err(Error::Overflow);
        }
        // The calibration is probably 0, as after a brown-out, so check the settings.
        if power == 0 && self.config.shows_power(shunt, bus) {
            self.restore()?;
        }
        Ok(self.config.measurement(shunt, bus))
    }

    /// Writes the settings if the chip doesn't have them.
    fn restore(&mut self) -> Result<(), Error<I::Error>> {
        let kept = self.read(Register::Configuration)? == self.config.register()
            && self.read(Register::Calibration)? == self.config.range.calibration();
        if kept {
            self.suspect = false;
            return Ok(());
        }
        self.configure()?;
        Err(Error::Reinitialised)
    }

    /// Returns the bus.
    pub fn release(self) -> I {
        self.i2c
    }

    fn read(&mut self, register: Register) -> Result<u16, Error<I::Error>> {
        let mut bytes = [0; 2];
        match self.i2c.write_read(self.address, &[register as u8], &mut bytes) {
            Ok(()) => Ok(u16::from_be_bytes(bytes)),
            Err(error) => Err(self.failed(register, error)),
        }
    }

    fn write(&mut self, register: Register, value: u16) -> Result<(), Error<I::Error>> {
        let [high, low] = value.to_be_bytes();
        self.i2c
            .write(self.address, &[register as u8, high, low])
            .map_err(|error| self.failed(register, error))
    }

    /// Marks the settings as possibly lost: a chip that doesn't answer may have lost its power.
    fn failed(&mut self, register: Register, error: I::Error) -> Error<I::Error> {
        self.suspect = true;
        Error::Bus { register, error }
    }
}
