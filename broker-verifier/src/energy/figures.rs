//! What two reports of a device say of the time between them, and how it is written.

use dunlin_wire::{EnergyReport, MeterFaults, PhaseTotals, Throttling};
use std::fmt;

/// The names of the flags of throttling, from the least significant.
const FLAGS: [&str; 4] = ["under-voltage", "frequency capped", "throttled", "soft temperature limit"];

/// What happened since the last report seen, or since the run began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    /// Energy of replies: drafting, scoring, sending and waiting.
    pub(super) joules: String,
    /// Energy of loading the model and of idling between replies.
    pub(super) apart: String,
    /// Tokens committed.
    pub(super) committed: u64,
    /// Energy per committed token, where there was one.
    pub(super) per_token: String,
    /// Energy of the whole run, with its uncertainty.
    pub(super) run: String,
    /// Reports in between that did not come here.
    pub(super) unseen: u32,
    /// What the meter missed.
    pub(super) faults: Faults,
}

impl Figures {
    /// Since the last report of the same run, no counter of which is above the new one's.
    pub(super) fn since(last: &EnergyReport, report: &EnergyReport) -> Self {
        let replies = replies_uj(report).saturating_sub(replies_uj(last));
        let apart = apart_uj(report).saturating_sub(apart_uj(last));
        let committed = report.committed.saturating_sub(last.committed);
        let unseen = report.reports.saturating_sub(last.reports).saturating_sub(1);
        Self::new(report, (replies, apart), committed, unseen, faults_since(&last.faults, &report.faults))
    }

    /// Since the run began.
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

/// Microjoules as joules.
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

/// What a meter missed, in words.
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

/// The flags of now, in words.
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

/// The flags that began since `last`: set now and not then, or set since boot and not then. What happened before
/// the first flags of a device is history.
pub(super) fn begun(last: Option<Throttling>, now: Throttling) -> Throttling {
    let (before, since_boot) = match last {
        None => (Throttling::default(), 0),
        Some(last) => (last, now.since_boot().flags() & !last.since_boot().flags()),
    };
    Throttling::new((now.flags() & !before.flags() | since_boot) & 0x0f)
}
