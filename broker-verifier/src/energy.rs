//! What devices say of their energy: decoded, put in order, logged.
//!
//! Invariant: nothing here reaches the protocol machine or the target, and no joules are written without their
//! source. Time is an argument.

mod figures;
mod file;
mod order;

use anyhow::Result;
use dunlin_wire::{DecodeError, DeviceId, EnergyReport, PowerSource, Telemetry, Throttling};
use figures::{Faults, Figures, Flags, begun};
use file::LogFile;
use order::{Last, Place};
use std::path::Path;
use std::time::Duration;

pub use crate::devices::DEVICES_MAX;
use crate::devices::Devices;
use crate::ration::WarningRation;

/// What was last heard of a device.
#[derive(Debug, Default)]
struct State {
    report: Last<EnergyReport>,
    telemetry: Last<Telemetry>,
    /// The last flags that were known.
    throttling: Option<Throttling>,
}

/// What came of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnergyCounters {
    /// Reports that were one.
    pub reports: u64,
    /// Telemetry that was one.
    pub telemetry: u64,
    /// Messages that were neither, or of another version.
    pub malformed: u64,
    /// Reports that did not come here by the time a later one of their run did: lost, late, or another verifier's.
    pub unseen: u64,
    /// Messages older than one that came before.
    pub late: u64,
    /// Messages that came again.
    pub repeated: u64,
    /// Messages with a counter below that of an earlier one of their run.
    pub contradictory: u64,
    /// Devices that made room for others.
    pub evicted: u64,
    /// Lines that could not be written.
    pub unwritten: u64,
    /// Warnings that were not logged, because there were too many.
    pub unlogged: u64,
}

/// The devices, what was heard of them, and where it is written to.
pub struct Energy {
    devices: Devices<State>,
    file: Option<LogFile>,
    counters: EnergyCounters,
    contradictions: WarningRation,
    throttlings: WarningRation,
}

impl Energy {
    /// Opens the file that lines are appended to, where there is one.
    ///
    /// # Errors
    /// Names the file that can't be opened.
    pub fn start(path: Option<&Path>) -> Result<Self> {
        let file = path.map(LogFile::open).transpose()?;
        let (contradictions, throttlings) = (WarningRation::default(), WarningRation::default());
        let counters = EnergyCounters::default();
        Ok(Self { devices: Devices::default(), file, counters, contradictions, throttlings })
    }

    /// What came so far.
    pub fn counters(&self) -> EnergyCounters {
        self.counters
    }

    /// Takes what came on a device's energy topic at `arrived`, in Unix time.
    pub fn handle_report(&mut self, device: &DeviceId, bytes: &[u8], arrived: Duration) {
        let Some(report) = self.checked(device, EnergyReport::decode(bytes)) else { return };
        self.counters.reports += 1;
        let (state, evicted) = self.devices.get(device);
        self.counters.evicted += u64::from(evicted);
        let place = state.report.place(&report);
        let figures = match &place {
            Place::First => Some(Figures { unseen: 0, ..Figures::of_run(&report) }),
            Place::NewRun => Some(Figures::of_run(&report)),
            Place::After(last) => Some(Figures::since(last, &report)),
            Place::Repeated | Place::Late | Place::Contradictory => None,
        };
        if let Some(figures) = figures {
            self.counters.unseen += u64::from(figures.unseen);
            log_report(device, &report, &figures);
        }
        if self.counted(device, &place, arrived) {
            self.write(|file| file.append(arrived, device, "energy", &report));
        }
    }

    /// Takes what came on a device's telemetry topic at `arrived`, in Unix time.
    pub fn handle_telemetry(&mut self, device: &DeviceId, bytes: &[u8], arrived: Duration) {
        let Some(telemetry) = self.checked(device, Telemetry::decode(bytes)) else { return };
        self.counters.telemetry += 1;
        let (state, evicted) = self.devices.get(device);
        self.counters.evicted += u64::from(evicted);
        let place = state.telemetry.place(&telemetry);
        if matches!(place, Place::First | Place::NewRun | Place::After(_)) {
            log_telemetry(device, &telemetry);
            if let Some(now) = telemetry.throttling {
                let begun = begun(state.throttling.replace(now), now);
                if begun != Throttling::default() {
                    if self.throttlings.take("boards that are slowed down", arrived) {
                        warn_of_throttling(device, begun);
                    } else {
                        self.counters.unlogged += 1;
                    }
                }
            }
        }
        if self.counted(device, &place, arrived) {
            self.write(|file| file.append(arrived, device, "telemetry", &telemetry));
        }
    }

    fn checked<M>(&mut self, device: &DeviceId, decoded: Result<M, DecodeError>) -> Option<M> {
        let report = |error: &DecodeError| {
            tracing::debug!(%device, %error, "no message of energy");
        };
        self.counters.malformed += u64::from(decoded.is_err());
        decoded.inspect_err(report).ok()
    }

    /// Counts a message that is out of order; whether it says something that the file lacks.
    fn counted<M>(&mut self, device: &DeviceId, place: &Place<M>, arrived: Duration) -> bool {
        match place {
            Place::Repeated => self.counters.repeated += 1,
            Place::Late => self.counters.late += 1,
            Place::Contradictory => {
                self.counters.contradictory += 1;
                if self.contradictions.take("counters of energy that fell", arrived) {
                    tracing::warn!(%device, "counters of energy fell within a run; counting from here");
                } else {
                    self.counters.unlogged += 1;
                }
            }
            Place::First | Place::NewRun | Place::After(_) => {}
        }
        !matches!(place, Place::Repeated)
    }

    fn write(&mut self, append: impl FnOnce(&mut LogFile) -> bool) {
        if let Some(file) = &mut self.file {
            self.counters.unwritten += u64::from(!append(file));
        }
    }
}

/// How much a figure from a source is worth, in words.
fn label(source: PowerSource) -> &'static str {
    match source {
        PowerSource::Ina219 => "measured (ina219)",
        PowerSource::Hwmon => "measured (hwmon)",
        PowerSource::Pmic => "measured (pmic)",
        PowerSource::Powercap => "measured (powercap)",
        PowerSource::Replay => "replayed",
        PowerSource::Simulated => "simulated (ina219)",
    }
}

fn log_report(device: &DeviceId, report: &EnergyReport, figures: &Figures) {
    tracing::info!(
        %device,
        source = label(report.source),
        run = report.run,
        report = report.reports,
        joules = %figures.joules,
        committed = figures.committed,
        joules_per_token = %figures.per_token,
        idle_and_load_joules = %figures.apart,
        run_joules = %figures.run,
        unseen = figures.unseen,
        faults = %figures.faults,
        "energy"
    );
}

fn log_telemetry(device: &DeviceId, telemetry: &Telemetry) {
    tracing::debug!(
        %device,
        source = label(telemetry.source),
        run = telemetry.run,
        mean_mw = telemetry.mean_mw,
        peak_mw = telemetry.peak_mw,
        run_joules = %figures::joules(telemetry.energy_uj),
        celsius = telemetry.temperature_dc.map(|dc| f64::from(dc) / 10.0),
        throttling = %Flags(telemetry.throttling.unwrap_or_default()),
        faults = %Faults(telemetry.faults),
        "telemetry"
    );
}

fn warn_of_throttling(device: &DeviceId, begun: Throttling) {
    tracing::warn!(%device, flags = %Flags(begun), "the board is slowed down: its energy is not that of full speed");
}

#[cfg(test)]
mod tests;
