//! The report of an assessment: its figures, its verdict, and the files it is written to.

use super::figures::PairFigures;
use super::fit::PairFit;
use super::show;
use anyhow::{Context, Result};
use dunlin_lm::ModelDir;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Version of `pair.json`.
const FORMAT: u32 = 1;
/// The figures for programs.
const JSON: &str = "pair.json";
/// The plot.
const SVG: &str = "pair.svg";

/// An assessed pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// Version of this form.
    pub format: u32,
    /// The drafter's weights.
    pub drafter: PathBuf,
    /// The target's weights.
    pub target: PathBuf,
    /// The fit of both sides.
    pub fit: PairFit,
    /// Everything a user should know beside the figures, in sentences.
    pub remarks: Vec<String>,
    /// The figures; `None` for a pair that doesn't fit.
    pub figures: Option<PairFigures>,
}

/// The answer to whether a pair is worth using.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairVerdict {
    /// The pair fits, and drafting is faster than streaming at one of the round trips at least.
    Pays,
    /// The two models don't fit.
    Misfit,
    /// The pair fits, but streaming is as fast or faster at every round trip.
    DoesNotPay,
}

impl PairVerdict {
    /// The exit status that tells it.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Pays => 0,
            Self::Misfit => 3,
            Self::DoesNotPay => 4,
        }
    }
}

impl PairReport {
    /// A report without figures.
    pub fn new(drafter: &ModelDir, target: &ModelDir, fit: PairFit) -> Self {
        let (drafter, target) = (drafter.weights.clone(), target.weights.clone());
        Self { format: FORMAT, drafter, target, remarks: fit.remarks(), fit, figures: None }
    }

    /// The verdict.
    pub fn verdict(&self) -> PairVerdict {
        match &self.figures {
            None => PairVerdict::Misfit,
            Some(figures) if figures.round_trips.iter().any(|figures| figures.pays) => PairVerdict::Pays,
            Some(_) => PairVerdict::DoesNotPay,
        }
    }

    /// The report as aligned text.
    pub fn text(&self) -> String {
        let mut text = show::sides(&self.fit);
        if let Some(figures) = &self.figures {
            text += &show::figures(figures);
        }
        for remark in &self.remarks {
            text += &format!("\nNote: {remark}.\n");
        }
        if let Some(figures) = &self.figures {
            text += &format!("\n{}\n\n{}\n", show::assumptions(figures), show::verdict(figures));
        }
        text
    }

    /// Writes `pair.json`, and `pair.svg` for a pair that fits, to a directory, which is created if it is missing.
    ///
    /// # Errors
    /// The plot can't be drawn, or a file can't be written.
    pub fn write(&self, out: &Path) -> Result<()> {
        #[derive(Serialize)]
        struct Judged<'a> {
            verdict: PairVerdict,
            #[serde(flatten)]
            report: &'a PairReport,
        }
        fs::create_dir_all(out).with_context(|| format!("can't make {}", out.display()))?;
        let json = serde_json::to_string_pretty(&Judged { verdict: self.verdict(), report: self })?;
        write(&out.join(JSON), &(json + "\n"))?;
        let svg = out.join(SVG);
        match &self.figures {
            Some(figures) => write(&svg, &show::plot(&self.fit, figures)?),
            // One of an earlier pair would be taken for this one's.
            None if svg.exists() => {
                fs::remove_file(&svg).with_context(|| format!("can't remove {}", svg.display()))
            }
            None => Ok(()),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}
