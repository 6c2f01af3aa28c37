//! The steps of the test, shown as they happen and stored as JSON.

use anyhow::{Context, Result};
use console::style;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// The steps so far.
#[derive(Debug, Default, Serialize)]
pub struct BootSteps {
    steps: Vec<BootStep>,
}

/// One step. The field names are an interface.
#[derive(Debug, Serialize)]
struct BootStep {
    name: String,
    passed: bool,
    /// The observation, or the failure.
    seen: String,
    /// Duration on the host, s.
    seconds: f64,
}

/// A step failed; the failure was shown.
#[derive(Debug)]
pub struct Failed;

impl BootSteps {
    /// Runs a step, which returns its observation as text and a value.
    ///
    /// # Errors
    /// It failed; the reason was shown.
    pub fn step<T>(&mut self, name: &str, take: impl FnOnce() -> Result<(String, T)>) -> Result<T, Failed> {
        let started = Instant::now();
        let taken = take();
        let (passed, seen, found) = match taken {
            Ok((seen, found)) => (true, seen, Ok(found)),
            Err(error) => (false, format!("{error:#}"), Err(Failed)),
        };
        let seconds = started.elapsed().as_secs_f64();
        show(name, passed, &seen, seconds);
        self.steps.push(BootStep { name: name.into(), passed, seen, seconds });
        found
    }

    /// Runs a step that returns only its observation.
    ///
    /// # Errors
    /// It failed; the reason was shown.
    pub fn see(&mut self, name: &str, take: impl FnOnce() -> Result<String>) -> Result<(), Failed> {
        self.step(name, || Ok((take()?, ())))
    }

    /// The number of passed steps and of all steps.
    pub fn passed(&self) -> (usize, usize) {
        (self.steps.iter().filter(|step| step.passed).count(), self.steps.len())
    }

    /// Writes the steps and `figures` to a file.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path, figures: &impl Serialize) -> Result<()> {
        #[derive(Serialize)]
        struct Whole<'a, F> {
            #[serde(flatten)]
            figures: &'a F,
            steps: &'a [BootStep],
        }
        let text = serde_json::to_string_pretty(&Whole { figures, steps: &self.steps })?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }
}

/// Shows a heading above the next steps.
pub fn heading(text: &str) {
    eprintln!("\n{}", style(text).bold().for_stderr());
}

fn show(name: &str, passed: bool, seen: &str, seconds: f64) {
    let mark = if passed { style("✓").green() } else { style("✗").red().bold() };
    eprintln!(
        "  {} {name}: {seen} {}",
        mark.for_stderr(),
        style(format!("({seconds:.1} s)")).dim().for_stderr()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn steps_are_kept_with_what_was_seen() {
        let mut steps = BootSteps::default();
        assert_eq!(steps.step("a", || Ok(("seen".into(), 7))).unwrap(), 7);
        assert!(steps.see("b", || bail!("missing")).is_err());
        assert_eq!(steps.passed(), (1, 2));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        steps.write(&path, &serde_json::json!({"seed": 1})).unwrap();
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&json["seed"], &json["steps"][1]["seen"]), (&1.into(), &"missing".into()));
        assert_eq!(json["steps"][0]["passed"], true);
    }
}
