//! The capacity of one verifier's target for a crowd.

use super::CrowdOutcome;
use anyhow::Result;

/// Share of the time in which the target must run a pass, so that nothing else limits the crowd.
const BUSY_MIN: f64 = 0.95;

/// The work of a target in a window of time, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Devices, each always busy.
    pub devices: usize,
    /// Length of the window, s.
    pub seconds: f64,
    /// Time within it in which the target ran a pass, s.
    pub busy_seconds: f64,
    /// Passes that ended within it.
    pub passes: u64,
    /// Jobs in those passes.
    pub jobs: u64,
    /// Tokens fed in those passes, those of prompts included.
    pub fed: u64,
    /// Rows of logits from those passes.
    pub rows: u64,
    /// Tokens that all devices committed within it.
    pub committed: u64,
}

impl Capacity {
    /// The work between `from_us` and the end of a run, µs.
    pub fn of(outcome: &CrowdOutcome, from_us: u64) -> Self {
        let within = |at: u64| at > from_us && at <= outcome.ended_us;
        let ended = || outcome.passes.iter().filter(|pass| within(pass.ended_us));
        let seconds = |us: u64| us as f64 / 1e6;
        let busy = |pass: &super::TargetPass| pass.ended_us - pass.began_us.max(from_us);
        // The pass under way at the end did not end, so the window ends with the last one that did.
        let last = ended().map(|pass| pass.ended_us).max().unwrap_or(from_us);
        let committed = outcome.members.iter().flat_map(|member| &member.committed_us);
        Self {
            devices: outcome.members.len(),
            seconds: seconds(last - from_us),
            busy_seconds: seconds(ended().map(busy).sum()),
            passes: ended().count() as u64,
            jobs: ended().map(|pass| pass.size.jobs as u64).sum(),
            fed: ended().map(|pass| pass.size.tokens as u64).sum(),
            rows: ended().map(|pass| pass.rows as u64).sum(),
            committed: committed.filter(|at| **at > from_us && **at <= last).count() as u64,
        }
    }

    /// Committed tokens per second, all devices together.
    pub fn tokens_per_second(&self) -> f64 {
        self.committed as f64 / self.seconds
    }

    /// Share of the time in which the target ran a pass.
    pub fn busy_share(&self) -> f64 {
        self.busy_seconds / self.seconds
    }

    /// Mean number of jobs in a pass.
    pub fn jobs_per_pass(&self) -> f64 {
        self.jobs as f64 / self.passes as f64
    }

    /// Rows per committed token.
    pub fn rows_per_token(&self) -> f64 {
        self.rows as f64 / self.committed as f64
    }

    /// Passes per committed token.
    pub fn passes_per_token(&self) -> f64 {
        self.passes as f64 / self.committed as f64
    }

    /// Tokens fed per committed token, those of prompts included.
    pub fn fed_per_token(&self) -> f64 {
        self.fed as f64 / self.committed as f64
    }

    /// Time of the target per committed token, s.
    pub fn seconds_per_token(&self) -> f64 {
        self.busy_seconds / self.committed as f64
    }

    /// True when the target is what limits the crowd.
    pub fn is_saturated(&self) -> bool {
        self.busy_share() >= BUSY_MIN
    }
}

/// The capacity with the fewest of these numbers of devices that saturate the target, else with the last of them.
///
/// # Errors
/// Those of `play`.
pub fn saturated(
    devices: impl IntoIterator<Item = usize>,
    mut play: impl FnMut(usize) -> Result<Capacity>,
) -> Result<Option<Capacity>> {
    let mut found = None;
    for count in devices {
        let capacity = play(count)?;
        found = Some(capacity);
        if capacity.is_saturated() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{MemberOutcome, TargetPass};
    use super::*;
    use dunlin_hlm::passes::PassSize;

    fn pass(began_us: u64, ended_us: u64, jobs: usize, tokens: usize) -> TargetPass {
        let rows = tokens - 2;
        TargetPass { began_us, ended_us, size: PassSize { jobs, tokens, longest: 0 }, rows, waited_us: 0 }
    }

    #[test]
    fn a_window_by_hand() {
        let member = |committed_us: &[u64]| MemberOutcome {
            committed_us: committed_us.to_vec(),
            ..MemberOutcome::default()
        };
        let outcome = CrowdOutcome {
            members: vec![member(&[900_000, 1_100_000, 2_000_000]), member(&[1_500_000, 2_900_000])],
            passes: vec![
                pass(0, 500_000, 1, 40),
                pass(800_000, 1_200_000, 2, 5),
                pass(1_200_000, 2_000_000, 4, 7),
                pass(2_500_000, 2_800_000, 3, 9),
            ],
            ended_us: 3_000_000,
        };
        // From 1.0 to 2.8 s: 0.2, 0.8 and 0.3 s of passes, 21 tokens fed for 15 rows, and 3 tokens committed until 2.8 s.
        let capacity = Capacity::of(&outcome, 1_000_000);
        let expected = Capacity {
            devices: 2,
            seconds: 1.8,
            busy_seconds: 1.3,
            passes: 3,
            jobs: 9,
            fed: 21,
            rows: 15,
            committed: 3,
        };
        assert_eq!(capacity, expected);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(capacity.tokens_per_second(), 3.0 / 1.8);
        close(capacity.passes_per_token(), 1.0);
        close(capacity.rows_per_token(), 5.0);
        close(capacity.busy_share(), 1.3 / 1.8);
        close(capacity.jobs_per_pass(), 3.0);
        close(capacity.fed_per_token(), 7.0);
        close(capacity.seconds_per_token(), 1.3 / 3.0);
        assert!(!capacity.is_saturated());
    }

    #[test]
    fn devices_are_added_until_the_target_is_busy() {
        let busy = |count: usize| Capacity {
            devices: count,
            seconds: 1.0,
            busy_seconds: count as f64 / 50.0,
            ..Capacity::default()
        };
        let found = |counts: &[usize]| saturated(counts.iter().copied(), |count| Ok(busy(count))).unwrap();
        assert_eq!(found(&[32, 48, 64]).unwrap().devices, 48);
        assert_eq!(found(&[8, 16]).unwrap().devices, 16, "none saturates it");
        assert_eq!(found(&[]), None);
    }
}
