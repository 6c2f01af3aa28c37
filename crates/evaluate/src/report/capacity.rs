//! The section on the capacity of one verifier.

use super::Builder;
use crate::capacity::VerifierCapacity;
use crate::tables::{Table, code, fixed, percent, setting};

/// The capacity under each policy.
pub(super) fn section(report: &mut Builder, capacity: Option<&VerifierCapacity>) {
    let Some(VerifierCapacity { board, draft_us, link_us, pass, temperature, prompts, rows }) = capacity
    else {
        return;
    };
    report.heading("One verifier's capacity");
    report.paragraph(&format!(
        "Many devices of one policy, each always busy with {prompts} prompts over and over, share one target. Its pass \
         takes {} µs and {} µs for each token fed, and has at most 32 jobs. A device drafts a token in {draft_us} µs \
         ({board}), its link takes {link_us} µs one way, and it decides in seconds; temperature {}. Shown is the least \
         of 32, 48 and 64 devices with which a pass runs 95 % of the time, else 64. Texts and rows are the pair's; \
         every time is modelled.",
        pass.pass_us,
        pass.token_us,
        setting(*temperature)
    ));
    report.paragraph(
        "A pass takes the jobs that wait when the one before ends, and the next jobs of texts that go on. A row is a distribution that the target computes; \
         tokens fed include those of the prompts.",
    );
    let mut table = Table::new([
        "policy",
        "devices",
        "target busy",
        "tokens/s (modelled)",
        "jobs per pass",
        "passes per token",
        "rows per token",
        "fed per token",
        "target s/token (modelled)",
    ]);
    for row in rows {
        let own = &row.capacity;
        table.row(vec![
            code(&row.policy),
            own.devices.to_string(),
            percent(own.busy_share(), 1),
            fixed(own.tokens_per_second(), 0),
            fixed(own.jobs_per_pass(), 1),
            fixed(own.passes_per_token(), 4),
            fixed(own.rows_per_token(), 2),
            fixed(own.fed_per_token(), 2),
            fixed(own.seconds_per_token(), 5),
        ]);
    }
    report.table(&table);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::CapacityRow;
    use dunlin_sim::crowd::{Capacity, PassModel};

    #[test]
    fn the_table_by_hand() {
        // 2 s with 1.9 s of passes: 50 passes with 800 jobs and 2400 tokens for 1500 rows, and 1000 committed tokens.
        let capacity = Capacity {
            devices: 32,
            seconds: 2.0,
            busy_seconds: 1.9,
            passes: 50,
            jobs: 800,
            fed: 2_400,
            rows: 1_500,
            committed: 1_000,
        };
        let given = VerifierCapacity {
            board: "pi".into(),
            draft_us: 2_000,
            link_us: 1_000,
            pass: PassModel { pass_us: 25_000.0, token_us: 300.0 },
            temperature: 0.8,
            prompts: 3,
            rows: vec![CapacityRow { policy: "stream".into(), capacity }],
        };
        let mut report = Builder::default();
        section(&mut report, Some(&given));
        let says = |text: &str| assert!(report.text.contains(text), "{text:?} is not in {}", report.text);
        says("\n## One verifier's capacity\n");
        says("Its pass takes 25000 µs and 300 µs for each token fed");
        says("drafts a token in 2000 µs (pi), its link takes 1000 µs one way");
        let last = report.text.lines().last().unwrap();
        let cells: Vec<&str> = last.split('|').map(str::trim).collect();
        let expected =
            ["", "`stream`", "32", "95.0 %", "500", "16.0", "0.0500", "1.50", "2.40", "0.00190", ""];
        assert_eq!(cells, expected);
    }

    #[test]
    fn a_plan_without_it_has_no_section() {
        let mut report = Builder::default();
        section(&mut report, None);
        assert_eq!(report.text, "");
    }
}
