//! Reads a source in a meter's thread until time is up, the trace has ended, or the user has had enough.

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

/// Between two looks at what the meter has read.
const LOOK: Duration = Duration::from_millis(25);

/// A receiver of a source's events.
pub(super) trait Listener {
    /// Takes what was heard.
    ///
    /// # Errors
    /// It can't be written, and the reading ends.
    fn heard(&mut self, heard: &MeterEvent) -> Result<()>;

    /// Called with the time that has passed.
    ///
    /// # Errors
    /// Nothing can be shown, and the reading ends.
    fn passed(&mut self, time: Duration) -> Result<()>;
}

/// Why reading ended.
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
    /// Listens from now on.
    ///
    /// # Errors
    /// The system takes no handler.
    pub(super) fn listen() -> Result<Self> {
        let (control, controls) = mpsc::channel(1);
        signals::forward(Control::Quit, control)?;
        Ok(Self(controls))
    }

    /// Does some work; `None` where it was interrupted.
    pub(super) async fn during<F: Future>(&mut self, work: F) -> Option<F::Output> {
        tokio::select! {
            done = work => Some(done),
            _ = self.0.recv() => None,
        }
    }
}

/// A source that is read.
pub(super) struct SensorReader {
    source: SensorSource,
    meter: Meter,
}

impl SensorReader {
    /// Starts to read the source that the settings ask for; a simulated board does what `phase` says. What makes its
    /// figures doubtful is said.
    ///
    /// # Errors
    /// None answers.
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

    /// Hands on what is read, for `span` or without end.
    ///
    /// # Errors
    /// The listener's.
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

    /// Hands on what waits; says whether the trace has ended.
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
