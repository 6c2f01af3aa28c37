//! What was done, for the log and for tests.

use std::time::Duration;

use dunlin_hlm::verifier::Counters;

use crate::energy::EnergyCounters;
use crate::link::LinkCounters;
use crate::setup::SetupCounters;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every lease was ended and the goodbye was sent.
    Drained,
    /// Stopped by a second signal, or because the drain took too long.
    CutShort,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// How serving ended.
    pub end: End,
    /// The machine's counters.
    pub protocol: Counters,
    /// The link's counters.
    pub link: LinkCounters,
    /// The target's.
    pub target: TargetCounters,
    /// What devices said of their energy.
    pub energy: EnergyCounters,
    /// What they said of their set-up files.
    pub setup: SetupCounters,
}

/// What the target did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetCounters {
    /// Passes.
    pub batches: u64,
    /// Frames in them.
    pub jobs: u64,
    /// Time in them.
    pub took: Duration,
}

impl Report {
    /// Writes five lines to the log.
    pub fn log(&self) {
        let Self { protocol, link, target, energy, setup, .. } = self;
        tracing::info!(
            frames = protocol.frames,
            verdicts = protocol.verdicts,
            repeated = protocol.repeated,
            accepted = protocol.accepted,
            drafts = protocol.drafts,
            resyncs = protocol.resyncs,
            malformed = protocol.malformed,
            stale = protocol.stale,
            leases = protocol.leases,
            refusals = protocol.refusals,
            evicted = protocol.evicted,
            "protocol"
        );
        tracing::info!(
            batches = target.batches,
            batch_mean = target.jobs as f64 / target.batches.max(1) as f64,
            target_ms = target.took.as_millis() as u64,
            "target"
        );
        tracing::info!(
            connections = link.connections,
            published = link.published,
            aliased = link.aliased,
            dropped = link.dropped + protocol.dropped,
            oversize = link.oversize,
            too_large = link.too_large,
            foreign = link.foreign,
            redirected = link.redirected,
            "link"
        );
        tracing::info!(
            reports = energy.reports,
            telemetry = energy.telemetry,
            malformed = energy.malformed,
            unseen = energy.unseen,
            late = energy.late,
            repeated = energy.repeated,
            contradictory = energy.contradictory,
            evicted = energy.evicted,
            unwritten = energy.unwritten,
            "energy of devices"
        );
        tracing::info!(
            reports = setup.reports,
            repeated = setup.repeated,
            settled = setup.settled,
            unlogged = setup.unlogged,
            malformed = setup.malformed,
            evicted = setup.evicted,
            "set-up of devices"
        );
    }
}
