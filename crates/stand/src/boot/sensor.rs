//! The power sensor of an emulated machine: a simulated INA219 on USB that measures a given power.

use crate::usb::dial::Dial;
use crate::usb::peer::{CableCounters, Peer};
use anyhow::Result;
use dunlin_power::clock::Clock;
use dunlin_power::simulated::chip::{Chip, Troubles, Wiring};
use dunlin_power::simulated::waveform::StepWaveform;
use std::path::Path;

/// The shunt of common modules, Ω.
const SHUNT_OHMS: f64 = 0.1;

/// A sensor in this process.
#[derive(Debug)]
pub struct Sensor {
    peer: Peer,
    dial: Dial,
    clock: Clock,
}

impl Sensor {
    /// A plugged-in sensor that measures `power`, for virtual machines that connect to a socket at `path`.
    ///
    /// # Errors
    /// The socket can't be created.
    pub fn start(path: &Path, power: StepWaveform) -> Result<Self> {
        let (dial, clock) = (Dial::new(power), Clock::start());
        let wiring = Wiring { shunt_ohms: SHUNT_OHMS, bus_hz: 400_000, ..Wiring::default() };
        let chip = Chip::new(dial.clone(), clock, wiring, Troubles::default());
        let peer = Peer::listen(path, chip)?;
        peer.plug(true);
        Ok(Self { peer, dial, clock })
    }

    /// Measures `power` from now on.
    pub fn turn(&self, power: StepWaveform) {
        self.dial.turn(power, self.clock.now());
    }

    /// Plugs it in or unplugs it.
    pub fn plug(&self, plugged: bool) {
        self.peer.plug(plugged);
    }

    /// The traffic on the cable.
    pub fn counted(&self) -> CableCounters {
        self.peer.counted()
    }
}
