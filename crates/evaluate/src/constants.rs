//! Every constant that modelled figures come from, with what its file says of its source.

use super::plan::{Plan, Writer};
use super::report::Constant;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Units by the end of a key.
const UNITS: [(&str, &str); 10] = [
    ("_bytes_per_s", "bytes/s"),
    ("_ns_per_entry", "ns"),
    ("_bps_max", "bit/s"),
    ("_bps_min", "bit/s"),
    ("_bytes", "bytes"),
    ("_db", "dB"),
    ("_hz", "Hz"),
    ("_ms", "ms"),
    ("_us", "µs"),
    ("_w", "W"),
];

/// The constants of every board and channel of a plan, and of the server.
///
/// # Errors
/// A file can't be read any more.
pub fn constants(plan: &Plan) -> Result<Vec<Constant>> {
    let mut files = BTreeSet::new();
    for cell in &plan.cells {
        if let Writer::Policy(_, board, channel) = &cell.writer {
            files.insert((0, plan.boards_dir.join(format!("{}.toml", board.name)), board.name.clone()));
            files.insert((1, plan.channels_dir.join(format!("{}.toml", channel.name)), channel.name.clone()));
        }
    }
    let mut all = Vec::new();
    let plan_says =
        |name: &str, value: String| Constant { name: name.into(), value, source: "the plan: ours".into() };
    all.push(plan_says("target, a pass", format!("{} µs", plan.server.pass_us)));
    all.push(plan_says("target, a token fed", format!("{} µs", plan.server.token_us)));
    if let Some(size) = plan.modelled {
        let value = format!("{} of {} bits", size.drafter_parameters, size.drafter_bits);
        all.push(plan_says("drafter, parameters", value));
    }
    for (_, path, name) in files {
        all.extend(of_file(&path, &name)?);
    }
    Ok(all)
}

/// Keys with numbers, each with the comment before it or, where there is none, before the keys above it.
fn of_file(path: &Path, owner: &str) -> Result<Vec<Constant>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (mut constants, mut comment, mut open) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        if let Some(more) = line.strip_prefix('#') {
            comment = if open { format!("{comment}{more}") } else { more.trim().into() };
            open = true;
            continue;
        }
        open = false;
        let Some((key, value)) = line.split_once(" = ") else { continue };
        if value.parse::<f64>().is_ok() {
            let unit = UNITS.iter().find(|(end, _)| key.ends_with(end)).map_or("", |(_, unit)| unit);
            let value = format!("{value} {unit}").trim_end().to_owned();
            constants.push(Constant { name: format!("{owner}, {key}"), value, source: comment.clone() });
        }
    }
    Ok(constants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_has_the_comment_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(
            &path,
            "# A board.\nname = \"a\"\n\n# Read\n# there.\nidle_w = 2.5\nrun_us = 3\n# ours\nflops = 1e9\n",
        )
        .unwrap();
        let of = |name: &str, value: &str, source: &str| Constant {
            name: format!("a, {name}"),
            value: value.into(),
            source: source.into(),
        };
        let expected = [
            of("idle_w", "2.5 W", "Read there."),
            of("run_us", "3 µs", "Read there."),
            of("flops", "1e9", "ours"),
        ];
        assert_eq!(of_file(&path, "a").unwrap(), expected);
    }
}
