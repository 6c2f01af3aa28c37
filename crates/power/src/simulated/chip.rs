//! A simulated INA219 on its own I2C bus, at register level. A driver can't distinguish it from the real chip.
//!
//! It converts shunt and bus voltage in turn, starting when its configuration is written, and averages as configured.
//! It keeps results until the next ones and reports new ones with CNVR; only reading the power register or writing
//! the mode clears CNVR. A brown-out resets its settings to the data sheet's defaults. Transactions take their real
//! time.

use super::super::timebase::Timebase;
use super::waveform::Waveform;
use dunlin_hlm::time::{Duration, Instant};
use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

/// Configuration after power-up (SBOS448).
const CONFIGURATION_RESET: u16 = 0x399f;
const OVF: u16 = 1;
const CNVR: u16 = 1 << 1;
/// Duration of a transaction on a stuck bus, until the kernel gives up.
const STUCK: Duration = Duration::from_millis(10);

/// Wiring of the chip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wiring {
    /// Its address.
    pub address: u8,
    /// The shunt, Ω.
    pub shunt_ohms: f64,
    /// Supply voltage without load, V.
    pub supply_v: f64,
    /// Resistance of the supply, Ω.
    pub supply_ohms: f64,
    /// The bus clock, Hz.
    pub bus_hz: u32,
}

/// Faults and their times.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// Share of transactions that are not acknowledged.
    pub unacknowledged: f64,
    /// Seed of these transactions.
    pub seed: u64,
    /// Intervals in which the bus is stuck.
    pub stuck: Vec<(Instant, Instant)>,
    /// Intervals in which results overflow.
    pub overflows: Vec<(Instant, Instant)>,
    /// Times at which the chip loses power.
    pub brown_outs: Vec<Instant>,
}

/// The chip and its bus.
#[derive(Debug)]
pub struct Chip<W, T> {
    waveform: W,
    time: T,
    wiring: Wiring,
    troubles: Troubles,
    configuration: u16,
    calibration: u16,
    /// Start of the current conversions.
    began: Instant,
    /// Time at which the ready flag was last cleared.
    cleared: Instant,
    /// The register that the next read returns.
    pointer: u8,
    transactions: u64,
}

/// Error of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The address was not acknowledged.
    Unacknowledged,
    /// The bus is stuck.
    Stuck,
}

impl Error for Failure {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unacknowledged => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
            Self::Stuck => ErrorKind::ArbitrationLoss,
        }
    }
}

impl Default for Wiring {
    /// A common module with 0.1 Ω, a supply of 5.1 V with 50 mΩ, and a bus clock of 100 kHz.
    fn default() -> Self {
        Self { address: 0x40, shunt_ohms: 0.1, supply_v: 5.1, supply_ohms: 0.05, bus_hz: 100_000 }
    }
}

impl<W: Waveform, T: Timebase> Chip<W, T> {
    /// A chip that has just been powered on.
    pub fn new(waveform: W, time: T, wiring: Wiring, troubles: Troubles) -> Self {
        let mut chip = Self {
            waveform,
            wiring,
            troubles,
            configuration: 0,
            calibration: 0,
            began: time.now(),
            cleared: time.now(),
            pointer: 0,
            transactions: 0,
            time,
        };
        chip.reset(chip.time.now());
        chip
    }

    fn reset(&mut self, at: Instant) {
        self.calibration = 0;
        self.configure(CONFIGURATION_RESET, at);
    }

    fn configure(&mut self, configuration: u16, at: Instant) {
        self.configuration = configuration;
        self.began = at;
        self.cleared = at;
    }

    /// Resets the chip if a brown-out happened since the last call.
    fn live_until(&mut self, now: Instant) {
        while self.troubles.brown_outs.first().is_some_and(|at| *at <= now) {
            let at = self.troubles.brown_outs.remove(0);
            self.reset(at);
        }
    }

    /// Lengths of the shunt and bus conversions, µs.
    fn conversions(&self) -> (u64, u64) {
        (conversion_us(self.configuration >> 3), conversion_us(self.configuration >> 7))
    }

    /// End of the last completed conversion, for conversions that end `offset` before each pair's end, µs.
    fn last_end(&self, offset: u64, now: Instant) -> Option<Instant> {
        let (shunt, bus) = self.conversions();
        let period = shunt + bus;
        let passed = now.since(self.began).0.checked_sub(period - offset)?;
        Some(Instant(self.began.0 + passed / period * period + (period - offset)))
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.last_end(0, now).is_some_and(|end| end > self.cleared)
    }

    /// The shunt register: the mean over the shunt's conversions, in steps of 10 µV, limited to the range.
    fn shunt(&self, now: Instant) -> i16 {
        let (shunt, bus) = self.conversions();
        let Some(end) = self.last_end(bus, now) else { return 0 };
        let current = self.current(self.waveform.mean_w(Instant(end.0 - shunt), end));
        let range = f64::from(4000_u16 << (self.configuration >> 11 & 0b11));
        (current * self.wiring.shunt_ohms / 10e-6).round().clamp(-range, range) as i16
    }

    /// The current for a given power of the load, with the supply's resistance taken into account.
    fn current(&self, watts: f64) -> f64 {
        let Wiring { supply_v, supply_ohms, .. } = self.wiring;
        let root = (supply_v * supply_v - 4.0 * supply_ohms * watts).max(0.0).sqrt();
        2.0 * watts / (supply_v + root)
    }

    fn bus(&self, now: Instant) -> u16 {
        let (_, bus) = self.conversions();
        let Some(end) = self.last_end(0, now) else { return 0 };
        let current = self.current(self.waveform.mean_w(Instant(end.0 - bus), end));
        let volts = self.wiring.supply_v - self.wiring.supply_ohms * current;
        let steps = (volts / 4e-3).round().clamp(0.0, 8000.0) as u16;
        let overflowed = self.troubles.overflows.iter().any(|(from, until)| (*from..*until).contains(&now));
        let flag = |set: bool, bit| if set { bit } else { 0 };
        steps << 3 | flag(self.is_ready(now), CNVR) | flag(overflowed, OVF)
    }

    fn current_register(&self, now: Instant) -> i16 {
        (i32::from(self.shunt(now)) * i32::from(self.calibration) / 4096)
            .clamp(i16::MIN.into(), i16::MAX.into()) as i16
    }

    fn power_register(&self, now: Instant) -> u16 {
        let steps = u32::from(self.current_register(now).unsigned_abs()) * u32::from(self.bus(now) >> 3);
        (steps / 5000) as u16
    }

    fn read(&mut self, now: Instant) -> u16 {
        match self.pointer {
            0 => self.configuration,
            1 => self.shunt(now).cast_unsigned(),
            2 => self.bus(now),
            3 => {
                let power = self.power_register(now);
                self.cleared = now;
                power
            }
            4 => self.current_register(now).cast_unsigned(),
            5 => self.calibration,
            _ => 0,
        }
    }

    fn write(&mut self, value: u16, now: Instant) {
        match self.pointer {
            0 if value & 1 << 15 != 0 => self.reset(now),
            0 => self.configure(value, now),
            5 => self.calibration = value & !1,
            _ => {}
        }
    }

    /// Lets the transaction's time pass; fails if a fault is due.
    fn carry(&mut self, address: u8, bytes: usize) -> Result<Instant, Failure> {
        self.transactions += 1;
        let stuck =
            self.troubles.stuck.iter().any(|(from, until)| (*from..*until).contains(&self.time.now()));
        if stuck {
            self.time.wait(STUCK);
            return Err(Failure::Stuck);
        }
        // Nine bits per byte, plus start and stop.
        let bits = bytes as u64 * 9 + 2;
        self.time.wait(Duration(bits * 1_000_000 / u64::from(self.wiring.bus_hz.max(1))));
        let now = self.time.now();
        self.live_until(now);
        let lost = unit(self.troubles.seed, self.transactions) < self.troubles.unacknowledged;
        if lost || address != self.wiring.address { Err(Failure::Unacknowledged) } else { Ok(now) }
    }
}

impl<W, T> ErrorType for Chip<W, T> {
    type Error = Failure;
}

impl<W: Waveform, T: Timebase> I2c for Chip<W, T> {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Failure> {
        let lengths = operations.iter().map(|operation| match operation {
            Operation::Read(bytes) => bytes.len() + 1,
            Operation::Write(bytes) => bytes.len() + 1,
        });
        let now = self.carry(address, lengths.sum())?;
        for operation in operations {
            match operation {
                Operation::Write([pointer, value @ ..]) => {
                    self.pointer = *pointer;
                    if let [high, low] = value {
                        self.write(u16::from_be_bytes([*high, *low]), now);
                    }
                }
                Operation::Write([]) => {}
                Operation::Read(bytes) => {
                    let value = self.read(now).to_be_bytes();
                    bytes.iter_mut().zip(value.into_iter().cycle()).for_each(|(byte, value)| *byte = value);
                }
            }
        }
        Ok(())
    }
}

/// Length of a conversion, µs, by its four configuration bits (SBOS448, table 5).
fn conversion_us(code: u16) -> u64 {
    match code & 0b1111 {
        0b0000 | 0b0100 => 84,
        0b0001 | 0b0101 => 148,
        0b0010 | 0b0110 => 276,
        code @ 0b1001.. => 532 << (code & 0b0111),
        _ => 532,
    }
}

/// A pseudo-random number in 0..1 from a seed and a counter (splitmix64).
fn unit(seed: u64, index: u64) -> f64 {
    let mut x = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 31) >> 11) as f64 / (1_u64 << 53) as f64
}
