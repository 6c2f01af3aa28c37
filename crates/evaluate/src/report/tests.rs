use super::*;

/// A record of the run `main` with round figures.
pub(super) fn record(label: &str) -> CellRecord {
    CellRecord {
        run: "main".to_string(),
        policy: label.split(' ').next().unwrap_or_default().to_string(),
        label: label.to_string(),
        uncertainty_max: None,
        importance_lambda: None,
        random_rate: None,
        epsilon: None,
        temperature: 0.8,
        channel: "lte".to_string(),
        board: "pi".to_string(),
        drafter_parameters: 2.2e6,
        snr_db: None,
        rtt_ms: 40.0,
        pass_ms: 25.0,
        sessions: 1.0,
        acceptance: None,
        learned: false,
        objective: "joules".to_string(),
        replies: 4,
        committed: 200,
        trusted: 0,
        judged: 160,
        accepted: 120,
        audited: 0,
        missed: 0,
        exact: 1.0,
        tv: 0.0,
        kl: Some(0.0),
        nll: 1.25,
        rouge_l: 1.0,
        slots: 1.0,
        bertscore: None,
        frames_up: 60,
        messages_up: 64,
        payload_up: 1200,
        mqtt_up: 1800,
        ip_up: 4600,
        tls_up: 6000,
        payload_down: 600,
        mqtt_down: 1300,
        opening_up: 400,
        target_passes: 64,
        target_tokens: 260,
        drafted: 300,
        streamed: 0,
        target_seconds: 2.0,
        server_j: 0.0,
        seconds: 10.0,
        draft_j: 4.0,
        score_j: 1.0,
        send_j: 2.0,
        wait_j: 3.0,
        idle_j: 20.0,
    }
}

fn lossy(label: &str, frames_up: u64, tv: f64) -> CellRecord {
    CellRecord {
        frames_up,
        tv,
        kl: Some(2.0 * tv),
        exact: 0.25,
        rouge_l: 0.7,
        slots: 0.6,
        trusted: 90,
        ..record(label)
    }
}

fn records() -> Vec<CellRecord> {
    let hlm = CellRecord {
        frames_up: 200,
        payload_up: 500_000,
        draft_j: 3.0,
        send_j: 40.0,
        idle_j: 90.0,
        ..record("hlm")
    };
    let again = CellRecord { exact: 0.0, rouge_l: 0.41, slots: 0.31, ..record("target-again") };
    let mut records =
        vec![hlm, lossy("u-hlm", 78, 0.0085), lossy("local", 0, 0.31), record("lossless"), again];
    for (u, lambda, frames_up) in [(0.1, -1.0, 90), (0.1, 1.0, 70), (0.3, -1.0, 60), (0.3, 1.0, 40)] {
        records.push(CellRecord {
            run: "strictness".to_string(),
            uncertainty_max: Some(u),
            importance_lambda: Some(lambda),
            ..lossy(&format!("importance u{u} λ{lambda}"), frames_up, 1.0 / frames_up as f64)
        });
    }
    for (label, seconds) in [("hlm", 90.0), ("lossless", 12.0)] {
        for snr_db in [0.0, 10.0] {
            let seconds = seconds / (1.0 + snr_db / 10.0);
            let radio = CellRecord { snr_db: Some(snr_db), seconds, ..record(label) };
            records.push(CellRecord { run: "snr".to_string(), ..radio.clone() });
            records.push(CellRecord { run: "rtt".to_string(), snr_db: None, rtt_ms: 20.0 + snr_db, ..radio });
        }
    }
    for (label, frames_up, tv) in [
        ("uncertainty: u0.5", 20, 0.04),
        ("uncertainty: u0.1", 100, 0.01),
        ("both: u0.5", 20, 0.0404),
        ("both: u0.1", 80, 0.0176),
        ("either: u0.5", 40, 0.05),
        ("either: u0.1", 120, 0.02),
        ("importance: λ0", 30, 0.06),
        ("importance: λ-1", 90, 0.02),
        ("random: 0.2", 20, 0.09),
        ("random: 0.8", 160, 0.02),
    ] {
        records.push(CellRecord { run: "ablation".to_string(), ..lossy(label, frames_up, tv) });
    }
    for (epsilon, missed) in [(0.0, 0), (0.01, 1), (0.05, 6)] {
        let label = format!("risk ε{epsilon}");
        let of = |record| CellRecord {
            run: "risk".to_string(),
            epsilon: Some(epsilon),
            audited: 100,
            missed,
            ..record
        };
        records.push(of(lossy(&label, 50, missed as f64 / 200.0)));
    }
    records
}

fn tokens() -> Vec<TokenRecord> {
    let token = |i: u64| {
        let uncertainty = (i * 7 % 32) as f64 / 32.0;
        TokenRecord {
            temperature: if i < 96 { 0.8 } else { 1.0 },
            position: i % 24,
            uncertainty,
            importance: 1.0 / (2 + i % 24) as f64,
            threshold: 1.0 / (3 + i % 20) as f64,
            rejected: uncertainty > 0.2 + (i % 5) as f64 / 8.0,
        }
    };
    (0..160).map(token).collect()
}

fn header() -> ReportHeader {
    ReportHeader {
        plan: "small".to_string(),
        pair: "demo".to_string(),
        prompts: 4,
        tokens_max: 64,
        seed: 1,
        replies: 96,
        capacity: None,
        constants: vec![Constant {
            name: "pi: power, idle".to_string(),
            value: "2.7 W".to_string(),
            source: "invented for this test".to_string(),
        }],
    }
}

#[test]
fn the_report_of_fixed_records() {
    let report = build(&header(), &records(), &tokens()).unwrap();
    insta::assert_snapshot!("report", report.text);
    for (name, svg) in &report.plots {
        assert!(report.text.contains(&format!("]({name})")), "{name} is not in the report");
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"),
            "{name}"
        );
    }
    assert_eq!(report.text.matches("](").count(), report.plots.len(), "a plot has no file or another's");
}

#[test]
fn every_column_of_time_or_energy_says_modelled() {
    let report = build(&header(), &records(), &tokens()).unwrap();
    let lines: Vec<&str> = report.text.lines().collect();
    let mut heads = 0;
    for table in lines.windows(2).filter(|two| two[1].starts_with("| --")) {
        for head in table[0].split('|').map(str::trim) {
            let word = |word: &str| head.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
            if word("J") || word("s") || word("saving") {
                assert!(head.contains("modelled"), "{head}");
                heads += 1;
            }
        }
    }
    assert!(heads > 12, "{heads} columns of time or energy");
}

#[test]
fn what_was_not_run_is_left_out() {
    let all = records();
    for run in ["main", "strictness", "snr", "rtt", "ablation", "risk"] {
        let some: Vec<CellRecord> = all.iter().filter(|record| record.run == run).cloned().collect();
        let text = build(&header(), &some, &[]).unwrap().text;
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let want: &[&str] = match run {
            "main" => &["Policies side by side", "Does `lossless` dominate?", "Where the joules go"],
            "strictness" => &["Strictness"],
            "snr" => &["Over the radio's quality"],
            "rtt" => &["Over the round trip"],
            "ablation" => &["Does importance help?"],
            _ => &["Is the risk held?"],
        };
        assert_eq!(headings, [want, &["Constants of the model"]].concat(), "{run}");
    }
}

#[test]
fn a_chart_without_a_point_is_left_out() {
    let nothing = CellRecord { run: "snr".to_string(), ..record("hlm") };
    let report = build(&header(), &[nothing], &[]).unwrap();
    assert!(report.text.contains("## Over the radio's quality") && report.plots.is_empty());
}

#[test]
fn bertscore_has_a_column_where_it_was_measured() {
    let scored = CellRecord { bertscore: Some(0.875), ..record("lossless") };
    let text = build(&header(), &[record("hlm"), scored], &[]).unwrap().text;
    assert!(text.contains("BERTScore |") && text.contains("0.875"), "{text}");
    let text = build(&header(), &[record("hlm")], &[]).unwrap().text;
    assert!(!text.contains("BERTScore |"), "{text}");
}

#[test]
fn no_records_are_an_error_that_says_so() {
    let error = build(&header(), &[], &tokens()).unwrap_err().to_string();
    assert!(error.contains("no records"), "{error}");
}

#[test]
fn the_same_records_write_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| {
        let out = folder.path().join(name);
        write(&header(), &records(), &tokens(), &out).unwrap();
        let mut files: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let (once, again) = (read("once"), read("deep/again"));
    assert!(once.iter().any(|(name, _)| name == "report.md"));
    assert!(once == again);
}
