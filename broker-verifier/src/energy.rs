//! Energy reports of devices: decodes, orders and logs them.
//!
//! Invariant: no code here touches the protocol machine or the target, and no joules are logged without their source.
//! The time is an argument.

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

/// The last messages of a device.
#[derive(Debug, Default)]
struct State {
    report: Last<EnergyReport>,
    telemetry: Last<Telemetry>,
    /// The last known throttling flags.
    throttling: Option<Throttling>,
}

/// Counters of received messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnergyCounters {
    /// Valid energy reports.
    pub reports: u64,
    /// Valid telemetry messages.
    pub telemetry: u64,
    /// Malformed messages, or messages of another version.
    pub malformed: u64,
    /// Reports that had not arrived when a later one of their run did: lost, late, or sent to another verifier.
    pub unseen: u64,
    /// Messages older than an earlier received one.
    pub late: u64,
    /// Repeated messages.
    pub repeated: u64,
    /// Messages with a counter below that of an earlier one of their run.
    pub contradictory: u64,
    /// Devices removed to make room for others.
    pub evicted: u64,
    /// Lines that could not be written to the file.
    pub unwritten: u64,
    /// Warnings that were not logged, because there were too many.
    pub unlogged: u64,
}

/// The devices' last messages, and the log file.
pub struct EnergyCollector {
    devices: Devices<State>,
    file: Option<LogFile>,
    counters: EnergyCounters,
    contradictions: WarningRation,
    throttlings: WarningRation,
}

impl EnergyCollector {
    /// Opens the file to which lines are appended, if one is configured.
    ///
    /// # Errors
    /// Names the file that can't be opened.
    pub fn start(path: Option<&Path>) -> Result<Self> {
        let file = path.map(LogFile::open).transpose()?;
        let (contradictions, throttlings) = (WarningRation::default(), WarningRation::default());
        let counters = EnergyCounters::default();
        Ok(Self { devices: Devices::default(), file, counters, contradictions, throttlings })
    }

    /// The counters so far.
    pub fn counters(&self) -> EnergyCounters {
        self.counters
    }

    /// Handles a message on a device's energy topic that arrived at `arrived`, in Unix time.
    pub fn handle_report(&mut self, device: &DeviceId, bytes: &[u8], arrived: Duration) {
        let Some(report) = self.checked(device, EnergyReport::decode(bytes)) else { return };
        self.counters.reports += 1;
        let (state, evicted) = self.devices.get(device);
        self.counters.evicted += u64::from(evicted);
        let place = state.report.place(&report);
        let figures = match &place {
            // Reports from before this verifier's start aren't missing.
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

    /// Handles a message on a device's telemetry topic that arrived at `arrived`, in Unix time.
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

    /// Counts a message by its order; returns false if it only repeats a message that the file has.
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

/// The reliability of a source's figures, in words.
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
