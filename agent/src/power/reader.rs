//! Reads a source in a meter's thread until time is up, the trace has ended, or the user interrupts.

use crate::exit::{DONE, INTERRUPTED};
use crate::report;
use crate::run::Control;
use crate::screen::{Abilities, Colour};
use crate::signals;
use anyhow::{Result, bail};
use dunlin_power::clock::Clock;
use dunlin_power::meter::{Meter, MeterEvent};
use dunlin_power::phase::EnergyPhase;
use dunlin_power::probe;
use dunlin_power::sensor::{SensorError, SensorSource};
use dunlin_power::settings::{Choice, PowerSettings};
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;

/// Interval at which new readings are fetched from the meter.
const LOOK: Duration = Duration::from_millis(25);

/// A receiver of a source's events.
pub(super) trait Listener {
    /// Takes an event of the source.
    ///
    /// # Errors
    /// The event can't be written; the reading ends.
    fn heard(&mut self, heard: &MeterEvent) -> Result<()>;

    /// Called with the elapsed time.
    ///
    /// # Errors
    /// The progress can't be shown; the reading ends.
    fn passed(&mut self, time: Duration) -> Result<()>;
}

/// The reason why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadingEnd {
    /// Time is up.
    Time,
    /// The trace has no more readings.
    Trace,
    /// The user interrupted it.
    Interrupt,
}

impl ReadingEnd {
    /// The exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Time | Self::Trace => DONE,
            Self::Interrupt => INTERRUPTED,
        }
    }
}

/// The user's interrupts.
pub(super) struct Interrupts(mpsc::Receiver<Control>);

impl Interrupts {
    /// Starts to listen for interrupts.
    ///
    /// # Errors
    /// The handler can't be installed.
    pub(super) fn listen() -> Result<Self> {
        let (control, controls) = mpsc::channel(1);
        signals::forward(Control::Quit, control)?;
        Ok(Self(controls))
    }

    /// Runs some work; `None` if it was interrupted.
    pub(super) async fn during<F: Future>(&mut self, work: F) -> Option<F::Output> {
        tokio::select! {
            done = work => Some(done),
            _ = self.0.recv() => None,
        }
    }
}

/// A source that is being read.
pub(super) struct SensorReader {
    source: SensorSource,
    meter: Meter,
}

impl SensorReader {
    /// Starts to read the configured source; a simulated board behaves as in `phase`. Cautions about the figures are
    /// printed.
    ///
    /// # Errors
    /// No source answers.
    pub(super) fn open(settings: &PowerSettings, phase: EnergyPhase, errors: Abilities) -> Result<Self> {
        let clock = Clock::start();
        let Some(found) = probe::open(settings, clock)? else {
            if settings.choice == Choice::None {
                bail!("power.source is \"none\": name one with --power");
            }
            bail!("no power source answers; `dunlin-agent power probe` shows why");
        };
        if let Some(board) = &found.board {
            board.mark(phase, clock.now());
        }
        if let Some(caution) = &found.caution {
            report::line(errors, Colour::Yellow, caution);
        }
        let metering = found.metering(clock);
        let source = metering.source().clone();
        let meter = Meter::start(metering, probe::health(settings))?;
        Ok(Self { source, meter })
    }

    /// The source that is read.
    pub(super) fn source(&self) -> &SensorSource {
        &self.source
    }

    /// Passes on the readings, for `span` or without end.
    ///
    /// # Errors
    /// The listener fails.
    pub(super) async fn read(
        &self,
        span: Option<Duration>,
        interrupts: &mut Interrupts,
        listener: &mut impl Listener,
    ) -> Result<ReadingEnd> {
        let begin = tokio::time::Instant::now();
        loop {
            let time = begin.elapsed();
            if self.hand_on(listener)? {
                return Ok(ReadingEnd::Trace);
            }
            listener.passed(span.map_or(time, |span| span.min(time)))?;
            let left = span.map_or(LOOK, |span| span.saturating_sub(time));
            if left.is_zero() {
                return Ok(ReadingEnd::Time);
            }
            if interrupts.during(tokio::time::sleep(left.min(LOOK))).await.is_none() {
                return Ok(ReadingEnd::Interrupt);
            }
        }
    }

    /// Passes on the waiting events; returns true if the trace has ended.
    fn hand_on(&self, listener: &mut impl Listener) -> Result<bool> {
        while let Some(heard) = self.meter.next() {
            if matches!(heard, MeterEvent::Lost(SensorError::Ended(_))) {
                return Ok(true);
            }
            listener.heard(&heard)?;
        }
        Ok(false)
    }
}
