//! The figures of the time between two reports of a device, and their text.

use dunlin_wire::{EnergyReport, MeterFaults, PhaseTotals, Throttling};
use std::fmt;

/// Names of the throttling flags, starting with the least significant bit.
const FLAGS: [&str; 4] = ["under-voltage", "frequency capped", "throttled", "soft temperature limit"];

/// Figures of the time since the last report, or since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    /// Energy of replies: drafting, scoring, sending and waiting.
    pub(super) joules: String,
    /// Energy of loading the model and of idling between replies.
    pub(super) apart: String,
    /// Tokens committed.
    pub(super) committed: u64,
    /// Energy per committed token, if any was committed.
    pub(super) per_token: String,
    /// Energy of the whole run, with its uncertainty.
    pub(super) run: String,
    /// Reports in between that this verifier missed.
    pub(super) unseen: u32,
    /// The meter's losses.
    pub(super) faults: Faults,
}

impl Figures {
    /// The figures since `last`, a report of the same run. None of its counters may exceed the new one's.
    pub(super) fn since(last: &EnergyReport, report: &EnergyReport) -> Self {
        let replies = replies_uj(report).saturating_sub(replies_uj(last));
        let apart = apart_uj(report).saturating_sub(apart_uj(last));
        let committed = report.committed.saturating_sub(last.committed);
        let unseen = report.reports.saturating_sub(last.reports).saturating_sub(1);
        Self::new(report, (replies, apart), committed, unseen, faults_since(&last.faults, &report.faults))
    }

    /// The figures since the start of the run.
    pub(super) fn of_run(report: &EnergyReport) -> Self {
        let unseen = report.reports.saturating_sub(1);
        let energy = (replies_uj(report), apart_uj(report));
        Self::new(report, energy, report.committed, unseen, report.faults)
    }

    fn new(
        report: &EnergyReport,
        (uj, apart): (u64, u64),
        committed: u64,
        unseen: u32,
        faults: MeterFaults,
    ) -> Self {
        let per_token = match committed {
            0 => "none".into(),
            tokens => format!("{:.4}", uj as f64 / 1e6 / tokens as f64),
        };
        let run = format!("{} ± {}", joules(report.phases.sum().energy_uj), joules(report.uncertainty_uj));
        Self {
            joules: joules(uj),
            apart: joules(apart),
            committed,
            per_token,
            run,
            unseen,
            faults: Faults(faults),
        }
    }
}

fn replies_uj(report: &EnergyReport) -> u64 {
    let PhaseTotals { draft, score, send, wait, .. } = report.phases;
    PhaseTotals { draft, score, send, wait, ..PhaseTotals::default() }.sum().energy_uj
}

fn apart_uj(report: &EnergyReport) -> u64 {
    let PhaseTotals { load, idle, .. } = report.phases;
    load.energy_uj.saturating_add(idle.energy_uj)
}

/// Formats microjoules as joules.
pub(super) fn joules(energy_uj: u64) -> String {
    format!("{:.3}", energy_uj as f64 / 1e6)
}

fn faults_since(last: &MeterFaults, now: &MeterFaults) -> MeterFaults {
    MeterFaults {
        gaps: now.gaps.saturating_sub(last.gaps),
        gap_us: now.gap_us.saturating_sub(last.gap_us),
        clipped: now.clipped.saturating_sub(last.clipped),
        overflowed: now.overflowed.saturating_sub(last.overflowed),
        reinitialised: now.reinitialised.saturating_sub(last.reinitialised),
        failed: now.failed.saturating_sub(last.failed),
    }
}

/// The meter's losses, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faults(pub(super) MeterFaults);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MeterFaults { gaps, gap_us, clipped, overflowed, reinitialised, failed } = self.0;
        let counted = [
            (gap_us.div_ceil(1000), "ms of gaps"),
            (gaps.into(), "gaps"),
            (clipped.into(), "clipped"),
            (overflowed.into(), "overflowed"),
            (reinitialised.into(), "reinitialised"),
            (failed.into(), "failed"),
        ];
        let some = counted.iter().filter(|(count, _)| *count != 0);
        listed(f, some.map(|(count, what)| format!("{count} {what}")))
    }
}

/// The present throttling flags, in words.
pub(super) struct Flags(pub(super) Throttling);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(flags) = self;
        let set = [
            flags.under_voltage(),
            flags.frequency_capped(),
            flags.throttled(),
            flags.soft_temperature_limit(),
        ];
        listed(f, FLAGS.iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| (*name).to_owned()))
    }
}

fn listed(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> fmt::Result {
    let text = items.collect::<Vec<_>>().join(", ");
    f.write_str(if text.is_empty() { "none" } else { &text })
}

/// The flags that began since `last`: set now but not then, or set since boot but not then. Without an earlier
/// message, flags that are only set since boot are ignored, because they may be old.
pub(super) fn begun(last: Option<Throttling>, now: Throttling) -> Throttling {
    let (before, since_boot) = match last {
        None => (Throttling::default(), 0),
        Some(last) => (last, now.since_boot().flags() & !last.since_boot().flags()),
    };
    Throttling::new((now.flags() & !before.flags() | since_boot) & 0x0f)
}
