//! The agent's counters, as a [`Snapshot`], logged every ten minutes, on SIGUSR1, and at the end.

use dunlin_hlm::device::DeviceCounters;
use dunlin_hlm::time::Instant;
use dunlin_link::Traffic;
use dunlin_power::EnergyAccount;
use dunlin_power::ledger::ReadingFaults;
use dunlin_status::{MetricUnit, Schedule, Snapshot};

/// Counters beyond those of machine, link and meter, and the schedule of the log.
#[derive(Debug, Default)]
pub(crate) struct StatusLog {
    /// Counters of earlier sessions' machines.
    past: DeviceCounters,
    sessions: u64,
    replies: u64,
    /// The schedule of unrequested logs; `None` logs only on request.
    schedule: Option<Schedule>,
}

/// The state of the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkState {
    pub(crate) up: bool,
    pub(crate) traffic: Traffic,
    /// Messages that exceeded the broker's packet limit.
    pub(crate) oversize: u64,
    /// Received messages that exceeded the protocol's limit.
    pub(crate) too_large: u64,
}

impl StatusLog {
    /// The status of a long-running agent: logged at its end and every ten minutes from `now`.
    pub(crate) fn logged(now: Instant) -> Self {
        Self { schedule: Some(Schedule::start(now)), ..Self::default() }
    }

    /// Adds the counters of a session's machine that has ended.
    pub(crate) fn session_ended(&mut self, counters: &DeviceCounters) {
        self.past.add(counters);
        self.sessions += 1;
    }

    /// A reply ended.
    pub(crate) fn reply_ended(&mut self) {
        self.replies += 1;
    }

    /// Time to call [`Self::is_due`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.schedule.map(|schedule| schedule.deadline())
    }

    /// Returns true if a log is due.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.schedule.as_mut().is_some_and(|schedule| schedule.is_due(now))
    }

    /// True if the status is logged at the agent's end.
    pub(crate) fn logs_end(&self) -> bool {
        self.schedule.is_some()
    }

    /// All counters, including those of the current session's machine.
    pub(crate) fn snapshot(
        &self,
        current: &DeviceCounters,
        link: LinkState,
        energy: &EnergyAccount,
        now: Instant,
    ) -> Snapshot {
        let mut counters = self.past;
        counters.add(current);
        let mut snapshot = Snapshot::default();
        snapshot
            .group("agent")
            .gauge("up", MetricUnit::Seconds, now.since(Instant(0)).as_secs_f64(), "Time since the start.")
            .count("sessions", self.sessions + 1, "Sessions begun.")
            .count("replies", self.replies, "Replies that ended.");
        device(&mut snapshot, &counters);
        of_link(&mut snapshot, link);
        of_energy(&mut snapshot, energy, now);
        snapshot
    }
}

fn device(snapshot: &mut Snapshot, counters: &DeviceCounters) {
    // Destructure by name, so that a new counter of the machine fails to compile until it is added here.
    let DeviceCounters {
        committed,
        unverified,
        trusted,
        foreign,
        refills,
        audited,
        missed,
        rounds,
        frames_up,
        resent,
        context_up,
        opens,
        payload_bytes_up,
        payload_bytes_down,
        drafted,
        sent_drafts,
        accepted,
        resyncs,
        malformed,
        stale,
        streamed,
        credits,
        contradicted,
        working,
        lessors_lost,
    } = *counters;
    snapshot
        .group("device")
        .count("committed", committed, "Tokens committed.")
        .count("unverified", unverified, "Committed tokens that no verifier checked, because none answered.")
        .count("trusted", trusted, "Committed tokens that the policy kept without the target's choice.")
        .count("foreign", foreign, "Committed tokens that the drafter lacks.")
        .count("refills", refills, "Times the drafter's full context was filled anew.")
        .count("audited", audited, "Kept drafts that were compared with the target's choice.")
        .count("missed", missed, "Audited drafts that differed from the target's choice.")
        .count("drafted", drafted, "Tokens that the drafter proposed.")
        .count("sent_drafts", sent_drafts, "Drafts sent in frames.")
        .count("accepted", accepted, "Sent drafts that the target agreed with.")
        .count("rounds", rounds, "Verdicts that were applied.")
        .count("frames", frames_up, "Draft frames sent, retransmissions included.")
        .count("resent", resent, "Draft frames sent again.")
        .count("context_chunks", context_up, "Chunks of context sent.")
        .count("opens", opens, "Leases requested.")
        .count("resyncs", resyncs, "Requests for context that were answered.")
        .count("malformed", malformed, "Invalid messages received.")
        .count("stale", stale, "Messages received too late to be applied.")
        .count("streamed", streamed, "Tokens that a verifier wrote beyond its verdicts.")
        .count("credits", credits, "Frames that asked a verifier to go on writing.")
        .count("contradicted", contradicted, "Continuations that contradicted the committed text.")
        .count("working", working, "Messages that a verifier was still at work.")
        .count(
            "lessors_lost",
            lessors_lost,
            "Leases given up because the verifier's presence said that it is gone.",
        )
        .counter("payload_up", MetricUnit::Bytes, payload_bytes_up, "Payload sent.")
        .counter("payload_down", MetricUnit::Bytes, payload_bytes_down, "Payload received.");
}

fn of_link(snapshot: &mut Snapshot, link: LinkState) {
    let LinkState { up, traffic, oversize, too_large } = link;
    let Traffic { publish_up, publish_down, control_up, control_down } = traffic;
    snapshot
        .group("link")
        .gauge("connected", MetricUnit::Count, u64::from(up), "1 while the broker is connected, else 0.")
        .count("oversize", oversize, "Messages left out because the broker takes no packets of their size.")
        .count("too_large", too_large, "Messages received that were larger than any of the protocol.")
        .counter("publish_up", MetricUnit::Bytes, publish_up, "PUBLISH packets sent.")
        .counter("publish_down", MetricUnit::Bytes, publish_down, "PUBLISH packets received.")
        .counter("control_up", MetricUnit::Bytes, control_up, "Other MQTT packets sent.")
        .counter("control_down", MetricUnit::Bytes, control_down, "Other MQTT packets received.");
}

fn of_energy(snapshot: &mut Snapshot, energy: &EnergyAccount, now: Instant) {
    snapshot.group("time");
    for (phase, micros) in energy.micros_until(now).iter() {
        let seconds = *micros as f64 / 1e6;
        snapshot.counter(phase.name(), MetricUnit::Seconds, seconds, "Time in this phase.");
    }
    let Some(total) = energy.total() else { return };
    snapshot.group("energy");
    for (phase, joules) in total.joules.iter() {
        snapshot.counter(phase.name(), MetricUnit::Joules, *joules, "Energy in this phase.");
    }
    let ReadingFaults { gaps, gap_time, clipped, overflowed, reinitialised, failed } = total.faults;
    snapshot
        .count("samples", total.samples, "Readings of the power sensor.")
        .count("gaps", gaps, "Stretches without a reading, bridged by a straight line.")
        .counter("gap", MetricUnit::Seconds, gap_time.as_secs_f64(), "Length of these stretches.")
        .count("clipped", clipped, "Readings at the end of the sensor's range.")
        .count("overflowed", overflowed, "Readings that overflowed in the sensor.")
        .count("reinitialised", reinitialised, "Times that the sensor was set up again.")
        .count("failed", failed, "Readings that failed on the bus or in a file.");
    if let Some(idle) = energy.idle() {
        snapshot.gauge("idle", MetricUnit::Watts, idle.watts, "Power of the idle board.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_power::phase::EnergyPhase;
    use dunlin_power::settings::PowerSettings;
    use std::collections::BTreeSet;

    const LINK: LinkState = LinkState {
        up: true,
        traffic: Traffic { publish_up: 4, publish_down: 3, control_up: 2, control_down: 1 },
        oversize: 5,
        too_large: 6,
    };

    #[test]
    fn sessions_add_up() {
        let mut status = StatusLog::default();
        let counted = |committed| DeviceCounters { committed, ..DeviceCounters::default() };
        status.session_ended(&counted(30));
        status.reply_ended();
        let energy = EnergyAccount::unmetered(EnergyPhase::Idle);
        let snapshot = status.snapshot(&counted(4), LINK, &energy, Instant(90_000_000));
        let lines = snapshot.lines();
        assert_eq!(lines[0], "agent up_seconds=90.000000 sessions=2 replies=1");
        assert!(lines[1].starts_with("device committed=34 unverified=0 "), "{lines:?}");
        assert_eq!(
            lines[2],
            "link connected=1 oversize=5 too_large=6 publish_up_bytes=4 publish_down_bytes=3 control_up_bytes=2 \
             control_down_bytes=1"
        );
        assert!(lines[3].starts_with("time load_seconds=0.000000 "), "{lines:?}");
        let idle = lines[3].split("idle_seconds=").nth(1).unwrap().parse::<f64>().unwrap();
        assert!(idle > 1.0, "the phase under way counts: {lines:?}");
        assert_eq!(lines.len(), 4, "without a sensor no energy is shown");
    }

    #[test]
    fn every_metric_has_a_key_of_its_own_and_a_place() {
        let settings = PowerSettings::of(Default::default(), Some("simulated")).unwrap();
        let energy = EnergyAccount::start(&settings, 1, EnergyPhase::Idle).unwrap();
        let snapshot = StatusLog::default().snapshot(&DeviceCounters::default(), LINK, &energy, Instant(0));
        let keys: BTreeSet<_> =
            snapshot.metrics().iter().map(|metric| (metric.group, metric.key())).collect();
        assert_eq!((keys.len(), snapshot.left_out()), (snapshot.metrics().len(), 0));
        assert!(keys.contains(&("energy", "draft_joules".into())));
    }

    #[test]
    fn only_an_agent_that_runs_on_logs_unasked() {
        let minutes = |minutes: u64| Instant(minutes * 60_000_000);
        let mut status = StatusLog::default();
        assert!(!status.logs_end() && status.deadline().is_none() && !status.is_due(minutes(60)));
        let mut status = StatusLog::logged(minutes(0));
        assert_eq!((status.logs_end(), status.deadline()), (true, Some(minutes(10))));
        assert_eq!([9, 10, 19, 20].map(|at| status.is_due(minutes(at))), [false, true, false, true]);
    }
}
