//! The results of serving, for the log and for tests.

use crate::energy::EnergyCounters;
use crate::link::LinkCounters;
use crate::setup::SetupCounters;
use crate::worker::Batch;
use dunlin_hlm::verifier::VerifierCounters;
use dunlin_status::{MetricUnit, Snapshot};
use std::time::Duration;

/// The way serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every lease was ended, and the queued messages were sent before disconnecting.
    Drained,
    /// Stopped by a second signal, or because the drain took too long.
    CutShort,
}

/// The results of serving.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The way serving ended.
    pub end: End,
    /// The machine's counters.
    pub protocol: VerifierCounters,
    /// The link's counters.
    pub link: LinkCounters,
    /// The target's counters.
    pub target: TargetCounters,
    /// Counters of energy reports.
    pub energy: EnergyCounters,
    /// Counters of set-up reports.
    pub setup: SetupCounters,
}

/// The present state of the verifier.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    /// Time since the start.
    pub up: Duration,
    /// Sessions kept.
    pub sessions: usize,
    /// Sessions that still have a free slot.
    pub slots_free: usize,
    /// True while connected to the broker.
    pub connected: bool,
}

/// Counters of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetCounters {
    /// Passes of the target.
    pub batches: u64,
    /// Frames that these passes answered.
    pub jobs: u64,
    /// Parts of contexts in these passes that later passes continued.
    pub chunks: u64,
    /// Tokens fed.
    pub tokens: u64,
    /// Tokens of new contexts that were copied from another session with the same beginning.
    pub shared: u64,
    /// Jobs dropped before their pass because their session ended.
    pub cancelled: u64,
    /// Duration of these passes.
    pub took: Duration,
}

impl TargetCounters {
    /// Counts a batch.
    pub fn count(&mut self, batch: &Batch) {
        self.batches += u64::from(batch.size.jobs > 0);
        self.jobs += batch.rows.len() as u64;
        self.chunks += batch.chunks as u64;
        self.tokens += batch.size.tokens as u64;
        self.shared += batch.shared as u64;
        self.cancelled += batch.dropped.len() as u64;
        self.took += batch.took;
    }
}

impl Report {
    /// All counters, with the present state.
    pub fn snapshot(&self, gauges: Gauges) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let Gauges { up, sessions, slots_free, connected } = gauges;
        snapshot
            .group("verifier")
            .gauge("up", MetricUnit::Seconds, up.as_secs_f64(), "Time since the start.")
            .gauge("sessions", MetricUnit::Count, sessions as u64, "Sessions kept.")
            .gauge("slots_free", MetricUnit::Count, slots_free as u64, "Sessions that still find a place.")
            .gauge(
                "connected",
                MetricUnit::Count,
                u64::from(connected),
                "1 while the broker is connected, else 0.",
            );
        of_protocol(&mut snapshot, &self.protocol);
        of_target(&mut snapshot, &self.target);
        of_link(&mut snapshot, &self.link);
        of_energy(&mut snapshot, &self.energy);
        of_setup(&mut snapshot, &self.setup);
        snapshot
    }
}

// Destructure by name, so that a new counter fails to compile until it is added to its function.

fn of_protocol(snapshot: &mut Snapshot, counters: &VerifierCounters) {
    let VerifierCounters {
        frames,
        verdicts,
        repeated,
        drafts,
        accepted,
        missed,
        leases,
        refusals,
        resyncs,
        evicted,
        displaced,
        returned,
        malformed,
        stale,
        dropped,
        written,
        continuations,
        working,
    } = *counters;
    snapshot
        .group("protocol")
        .count("frames", frames, "Draft frames decoded.")
        .count("verdicts", verdicts, "Verdicts given, repeated ones left out.")
        .count("repeated", repeated, "Answers given again to a frame that came again.")
        .count("drafts", drafts, "Drafts judged.")
        .count("accepted", accepted, "Drafts that the target agreed with.")
        .count("missed", missed, "Kept drafts that differed from the target's choice.")
        .count("leases", leases, "Leases given.")
        .count("refusals", refusals, "Requests for a lease refused.")
        .count("resyncs", resyncs, "Requests for context sent.")
        .count("evicted", evicted, "Sessions that ended for another, or for their silence.")
        .count("displaced", displaced, "Those of them that ended because the caches were full.")
        .count("returned", returned, "Those of these that came back and were read again.")
        .count("malformed", malformed, "Invalid messages received.")
        .count("stale", stale, "Messages received of an older round, or of no lease.")
        .count("dropped", dropped, "Answers dropped because the link had no room.")
        .count("written", written, "Tokens written on credit.")
        .count("continuations", continuations, "Messages with them.")
        .count("working", working, "Messages that an answer takes longer than announced.");
}

fn of_target(snapshot: &mut Snapshot, counters: &TargetCounters) {
    let TargetCounters { batches, jobs, chunks, tokens, shared, cancelled, took } = *counters;
    snapshot
        .group("target")
        .count("batches", batches, "Passes of the target.")
        .count("jobs", jobs, "Frames that they answered.")
        .count("chunks", chunks, "Parts of long contexts in them.")
        .count("tokens", tokens, "Tokens fed.")
        .count("shared", shared, "Tokens copied from a session with the same beginning.")
        .count("cancelled", cancelled, "Jobs dropped because their session ended.")
        .counter("busy", MetricUnit::Seconds, took.as_secs_f64(), "Time in them.");
}

fn of_link(snapshot: &mut Snapshot, counters: &LinkCounters) {
    let LinkCounters {
        connections,
        published,
        aliased,
        dropped,
        oversize,
        too_large,
        foreign,
        redirected,
        not_taken,
        unlogged,
    } = *counters;
    snapshot
        .group("link")
        .count("connections", connections, "Connections that were subscribed.")
        .count("published", published, "Messages handed to the MQTT client.")
        .count("aliased", aliased, "Verdicts whose topic was an alias alone.")
        .count("dropped", dropped, "Messages dropped: no connection, or the outbox was full.")
        .count("oversize", oversize, "Messages left out because the broker takes no packets of their size.")
        .count("too_large", too_large, "Messages received that were larger than any of the protocol.")
        .count("foreign", foreign, "Messages received on unknown topics.")
        .count("redirected", redirected, "Requests whose response topic was not their device's own.")
        .count("not_taken", not_taken, "Messages that the broker did not take.")
        .count("unlogged", unlogged, "Warnings of them that were not logged, because there were too many.");
}

fn of_energy(snapshot: &mut Snapshot, counters: &EnergyCounters) {
    let EnergyCounters {
        reports,
        telemetry,
        malformed,
        unseen,
        late,
        repeated,
        contradictory,
        evicted,
        unwritten,
        unlogged,
    } = *counters;
    snapshot
        .group("energy")
        .count("reports", reports, "Energy reports received.")
        .count("telemetry", telemetry, "Telemetry messages received.")
        .count("malformed", malformed, "Invalid messages received.")
        .count("unseen", unseen, "Reports that this verifier missed.")
        .count("late", late, "Messages older than one received before.")
        .count("repeated", repeated, "Messages received again.")
        .count("contradictory", contradictory, "Messages with a counter below an earlier one of their run.")
        .count("evicted", evicted, "Devices forgotten to make room for others.")
        .count("unwritten", unwritten, "Lines that could not be written to the energy log.")
        .count("unlogged", unlogged, "Warnings that were not logged, because there were too many.");
}

fn of_setup(snapshot: &mut Snapshot, counters: &SetupCounters) {
    let SetupCounters { reports, repeated, settled, unlogged, malformed, evicted } = *counters;
    snapshot
        .group("setup")
        .count("reports", reports, "Set-up reports received.")
        .count("repeated", repeated, "Reports that repeat the device's last one.")
        .count("settled", settled, "Reports taken back: the device is set up.")
        .count("unlogged", unlogged, "Reports that were not logged, because there were too many.")
        .count("malformed", malformed, "Invalid messages received.")
        .count("evicted", evicted, "Devices forgotten to make room for others.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_has_a_key_of_its_own_and_a_place() {
        let report = Report {
            end: End::Drained,
            protocol: VerifierCounters { frames: 7, ..VerifierCounters::default() },
            link: LinkCounters::default(),
            target: TargetCounters {
                batches: 2,
                jobs: 5,
                took: Duration::from_millis(1500),
                ..TargetCounters::default()
            },
            energy: EnergyCounters::default(),
            setup: SetupCounters::default(),
        };
        let gauges = Gauges { up: Duration::from_secs(60), sessions: 3, slots_free: 5, connected: true };
        let snapshot = report.snapshot(gauges);
        let keys: BTreeSet<_> =
            snapshot.metrics().iter().map(|metric| (metric.group, metric.key())).collect();
        assert_eq!((keys.len(), snapshot.left_out()), (snapshot.metrics().len(), 0));
        let lines = snapshot.lines();
        assert_eq!(lines[0], "verifier up_seconds=60.000000 sessions=3 slots_free=5 connected=1");
        assert!(lines[1].starts_with("protocol frames=7 verdicts=0 "), "{lines:?}");
        assert_eq!(
            lines[2],
            "target batches=2 jobs=5 chunks=0 tokens=0 shared=0 cancelled=0 busy_seconds=1.500000"
        );
        assert_eq!(lines.len(), 6);
    }
}
