//! The gate: what a new release must show before it is kept.

use super::facts::{AgentHealth, GateAnswer, GateNeeds, GateStep, ReleaseFacts};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::FleetReason;

/// Time in which the agent must be ready.
pub const UNIT_WITHIN: Duration = Duration::from_millis(300_000);
/// Time in which it must reach the broker, and have a lease.
pub const BROKER_WITHIN: Duration = Duration::from_millis(120_000);
/// Time in which the golden prompt must be drafted.
pub const GOLDEN_WITHIN: Duration = Duration::from_millis(600_000);
/// Time in which a check must be answered.
pub const CHECK_WITHIN: Duration = Duration::from_millis(60_000);
/// Time between two looks at the memory while the agent runs on.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(10_000);

/// The gate's answer to an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GateVerdict {
    /// Nothing yet.
    Open,
    /// The next check.
    Ask(GateStep),
    /// The release is kept.
    Passed,
    /// The release goes back.
    Failed(FleetReason),
}

/// The gate of one start of a release.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    step: GateStep,
    /// The time by which the step must be answered, or at which it ends well.
    until: Instant,
    /// The time of the next look at the memory, or by which the last look must be answered.
    sample: Option<(Instant, bool)>,
}

impl Gate {
    /// The gate of an agent that was just started.
    pub(super) fn new(now: Instant) -> Self {
        Self { step: GateStep::Unit, until: now + UNIT_WITHIN, sample: None }
    }

    /// Progress, by steps.
    pub(super) fn permille(&self) -> u16 {
        self.step as u16 * 1000 / (GateStep::Soak as u16 + 1)
    }

    /// Takes an answer.
    pub(super) fn handle(
        &mut self,
        step: GateStep,
        answer: GateAnswer,
        (facts, health): (&ReleaseFacts, AgentHealth),
        now: Instant,
    ) -> GateVerdict {
        // An answer that comes late is of a start before this one, or of a step that is over.
        let sampled = step == GateStep::Memory && self.step == GateStep::Soak;
        if step != self.step && !sampled {
            return GateVerdict::Open;
        }
        if !holds(step, answer, facts) {
            return GateVerdict::Failed(reason(step));
        }
        if sampled {
            self.sample = Some((now + SAMPLE_EVERY, false));
            return GateVerdict::Open;
        }
        self.advance(facts, health, now)
    }

    fn advance(&mut self, facts: &ReleaseFacts, health: AgentHealth, now: Instant) -> GateVerdict {
        use GateStep::{Broker, Golden, Lease, Memory, Sensor, Soak, Unit};
        let due = |step: &GateStep| match step {
            Unit => false,
            Broker => facts.needs != GateNeeds::Nothing,
            Lease => facts.needs == GateNeeds::Lease && health.lease,
            Golden => facts.golden.is_some(),
            Memory => facts.rss_mib > 0,
            Sensor => health.sensor,
            Soak => true,
        };
        let order = [Broker, Lease, Golden, Memory, Sensor, Soak];
        let next = order.into_iter().filter(|step| *step > self.step).find(due).unwrap_or(Soak);
        self.step = next;
        self.until = now
            + match next {
                Unit => UNIT_WITHIN,
                Broker | Lease => BROKER_WITHIN,
                Golden => GOLDEN_WITHIN,
                Memory | Sensor => CHECK_WITHIN,
                Soak => Duration::from_millis(u64::from(facts.soak_seconds) * 1000),
            };
        if next == Soak && facts.rss_mib > 0 {
            self.sample = Some((now + SAMPLE_EVERY, false));
        }
        if next == Soak { GateVerdict::Open } else { GateVerdict::Ask(next) }
    }

    /// Answers to the time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> GateVerdict {
        if let Some((at, asked)) = self.sample.filter(|(at, _)| *at <= now) {
            if asked {
                return GateVerdict::Failed(FleetReason::Memory);
            }
            self.sample = Some((at + CHECK_WITHIN, true));
            return GateVerdict::Ask(GateStep::Memory);
        }
        match self.step {
            _ if self.until > now => GateVerdict::Open,
            // The last look at the memory counts too.
            GateStep::Soak if self.sample.is_some_and(|(_, asked)| asked) => GateVerdict::Open,
            GateStep::Soak => GateVerdict::Passed,
            step => GateVerdict::Failed(reason(step)),
        }
    }

    /// The time of the next [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self) -> Instant {
        match self.sample {
            Some((at, true)) if self.step == GateStep::Soak => at,
            Some((at, false)) => at.min(self.until),
            _ => self.until,
        }
    }
}

fn holds(step: GateStep, answer: GateAnswer, facts: &ReleaseFacts) -> bool {
    match (step, answer) {
        (GateStep::Golden, GateAnswer::Tokens(tokens)) => facts.golden == Some(tokens),
        (GateStep::Memory, GateAnswer::MemoryMib(mib)) => facts.rss_mib == 0 || mib <= facts.rss_mib,
        (GateStep::Golden | GateStep::Memory, _) => false,
        (_, answer) => answer == GateAnswer::Holds,
    }
}

fn reason(step: GateStep) -> FleetReason {
    match step {
        GateStep::Unit => FleetReason::Unit,
        GateStep::Broker => FleetReason::Broker,
        GateStep::Lease => FleetReason::Lease,
        GateStep::Golden => FleetReason::Golden,
        GateStep::Memory => FleetReason::Memory,
        GateStep::Sensor => FleetReason::Sensor,
        GateStep::Soak => FleetReason::Restart,
    }
}
