//! Power measured on the board, and charged to what the board was doing.
//!
//! A [meter](meter) thread reads a [sensor](sensor); the loop marks its phases here and takes what the meter read; the
//! [books](books) and the [ledger](ledger) below them make joules of both. Without a sensor only time is counted.
//!
//! Invariant: nothing here says a joule without its source, and no call waits for a sensor.

pub mod books;
pub mod calibration;
pub mod clock;
pub mod fit;
pub mod health;
pub mod hwmon;
pub mod ina219;
pub mod ina219_sensor;
pub mod ledger;
pub mod meter;
mod metered;
pub mod phase;
pub mod pmic;
pub mod powercap;
pub mod probe;
pub mod replay;
pub mod report;
mod rhythm;
pub mod sensor;
pub mod settings;
pub mod simulated;
mod sysfs;
pub mod timebase;
pub mod units;

use anyhow::Result;
use books::Idle;
use clock::Clock;
use dunlin_hlm::device::Counters;
use dunlin_hlm::stop::Prices;
use dunlin_hlm::time::Instant;
use dunlin_wire::{EnergyReport, Telemetry};
use ledger::Span;
use metered::Metered;
use phase::{ByPhase, Phase};
use report::TurnEnergy;
use settings::PowerSettings;
use std::future::Future;
use std::time::Duration;

/// How often readings are taken in while the loop does something else.
const TAKE_IN: Duration = Duration::from_millis(200);

/// Time and, where there is a sensor, energy by what the agent is doing.
#[derive(Debug)]
pub struct Energy {
    clock: Clock,
    phase: Phase,
    since: Instant,
    micros: ByPhase<u64>,
    metered: Option<Metered>,
}

impl Energy {
    /// Counts time alone, from now on.
    pub fn unmetered(phase: Phase) -> Self {
        let clock = Clock::start();
        Self { clock, phase, since: clock.now(), micros: ByPhase::default(), metered: None }
    }

    /// Starts the meter that the settings ask for, if there is one; reports carry the random number `run`, by which
    /// counts of one start of the program are told from those of another.
    ///
    /// # Errors
    /// The source that they name does not answer, or the system gives no thread.
    pub fn start(settings: &PowerSettings, run: u32, phase: Phase) -> Result<Self> {
        let mut energy = Self::unmetered(phase);
        energy.metered = Metered::start(settings, run, phase, energy.clock)?;
        Ok(energy)
    }

    /// The clock that all times are of.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What is done from now on.
    pub fn mark(&mut self, phase: Phase, now: Instant) {
        self.micros[self.phase] += now.since(self.since).0;
        self.since = now;
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        tracing::trace!(phase = phase.name(), at_us = now.0);
        if let Some(metered) = &mut self.metered {
            metered.mark(phase, now);
        }
    }

    /// Time of each phase up to the last mark, µs.
    pub fn micros(&self) -> ByPhase<u64> {
        self.micros
    }

    /// A reply begins.
    pub fn begin_reply(&mut self, now: Instant) {
        if let Some(metered) = &mut self.metered {
            metered.begin_reply(now);
        }
    }

    /// A reply ends, with what was counted for it. [`Self::poll_reply`] gives its energy when it is known.
    pub fn end_reply(&mut self, counted: &Counters, now: Instant) {
        if let Some(metered) = &mut self.metered {
            metered.end_reply(counted, now);
        }
    }

    /// Whether the energy of a reply that ended is still to come.
    pub fn is_open(&self) -> bool {
        self.metered.as_ref().is_some_and(Metered::is_open)
    }

    /// The energy of the reply that ended, once a reading has come behind its end or has been waited for long enough.
    pub fn poll_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        self.metered.as_mut()?.poll_reply(now)
    }

    /// The energy of the reply that ended, without waiting any longer.
    pub fn force_reply(&mut self, now: Instant) -> Option<TurnEnergy> {
        self.metered.as_mut()?.force_reply(now)
    }

    /// Takes in what the meter read, and closes what is due.
    pub fn take_in(&mut self, now: Instant) {
        if let Some(metered) = &mut self.metered {
            metered.take_in(now);
        }
    }

    /// When to call [`Self::take_in`] again at the latest.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.metered.as_ref().map(|metered| metered.deadline(now))
    }

    /// What is to be told of the last reply, once.
    pub fn poll_report(&mut self) -> Option<EnergyReport> {
        self.metered.as_mut()?.poll_report()
    }

    /// What is to be told of the last moments, once.
    pub fn poll_telemetry(&mut self) -> Option<Telemetry> {
        self.metered.as_mut()?.poll_telemetry()
    }

    /// What a second costs, J, where that is known.
    pub fn prices(&self) -> Option<Prices> {
        self.metered.as_ref()?.prices()
    }

    /// What the idle board draws, where that is known.
    pub fn idle(&self) -> Option<Idle> {
        self.metered.as_ref()?.idle()
    }

    /// Energy and faults since the start, as far as they are known.
    pub fn total(&self) -> Option<&Span> {
        self.metered.as_ref().map(Metered::total)
    }

    /// Takes readings in while something else is done.
    pub async fn during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TAKE_IN), if self.metered.is_some() => self.take_in(self.clock.now()),
            }
        }
    }

    /// Measures the idle board for so long; without a sensor nothing is waited for.
    pub async fn measure_idle(&mut self, span: Duration) {
        if self.metered.is_none() {
            return;
        }
        let before = self.phase;
        self.mark(Phase::Idle, self.clock.now());
        self.during(tokio::time::sleep(span)).await;
        self.mark(before, self.clock.now());
        if let Some(metered) = &mut self.metered {
            metered.close(self.clock.now());
        }
    }
}
