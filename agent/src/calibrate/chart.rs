//! `calibration.svg`: rejection against uncertainty, with the proposed thresholds. Colours of Okabe and Ito.

use super::record::{CalibrationRecord, Proposal, UncertaintyBin};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (800, 590);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const PUBLISHED: RGBColor = RGBColor(110, 110, 110);
const BINS: RGBColor = RGBColor(0, 114, 178);
const FITTED: RGBColor = RGBColor(213, 94, 0);
const PROPOSED: RGBColor = RGBColor(0, 158, 115);
/// Half the width of an error bar's cap, in uncertainty.
const CAP: f64 = 0.006;
/// A label's distance from its line, in uncertainty.
const BESIDE: f64 = 0.004;
/// Neighbouring labels are at least so far apart, in uncertainty.
const LABELS_APART: f64 = 0.024;

type RejectionChart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type ChartArea<'b> = DrawingArea<SVGBackend<'b>, Shift>;

/// The chart as SVG.
///
/// # Errors
/// The drawing library fails.
pub(super) fn draw(record: &CalibrationRecord) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        paint(&area, record).map_err(|error| anyhow!("calibration.svg: {error}"))?;
    }
    Ok(svg + "\n")
}

type Painted = Result<(), Box<dyn std::error::Error>>;

fn paint(area: &ChartArea<'_>, record: &CalibrationRecord) -> Painted {
    area.fill(&WHITE)?;
    heading(area, record)?;
    legend(area, record)?;
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_top(86)
        .x_label_area_size(46)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("uncertainty of the drafted token")
        .y_desc("share rejected by the target")
        .x_labels(11)
        .y_labels(11)
        .x_label_formatter(&|u| format!("{u:.1}"))
        .y_label_formatter(&|share| format!("{share:.1}"))
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style((FONT, 14, &INK))
        .axis_desc_style((FONT, 15, &INK))
        .draw()?;
    proposals(&mut chart, &record.proposals)?;
    lines(&mut chart, record)?;
    bins(&mut chart, &record.bins)?;
    area.present()?;
    Ok(())
}

fn heading(area: &ChartArea<'_>, record: &CalibrationRecord) -> Painted {
    let target = record.verifier.model.as_deref().or(record.verifier.id.as_deref());
    let title = format!("{} judged by {}", record.drafter.name, target.unwrap_or("an unknown verifier"));
    let counts = format!(
        "{} tokens, {:.1} % rejected, correlation {:.2}, AUC {:.2}, bars: 95 % intervals",
        record.tokens,
        100.0 * record.rejection,
        record.correlation,
        record.auc
    );
    area.draw(&Text::new(title, (74, 14), ink(19, &INK)))?;
    area.draw(&Text::new(counts, (74, 37), ink(14, &PUBLISHED)))?;
    Ok(())
}

/// Draws a vertical line for each threshold, labelled with its meaning.
fn proposals(chart: &mut RejectionChart<'_, '_>, proposals: &[Proposal]) -> Painted {
    for (proposal, label_at) in proposals.iter().zip(labels(proposals)) {
        let threshold = f64::from(proposal.uncertainty_max);
        let upright = [(threshold, 0.0), (threshold, 1.0)];
        chart.draw_series(DashedLineSeries::new(upright, 3, 4, PROPOSED.stroke_width(1)))?;
        let style =
            ink(13, &PROPOSED).transform(FontTransform::Rotate270).pos(Pos::new(HPos::Right, VPos::Top));
        let label =
            format!("at most {} missed: {:.1} % trusted", proposal.wanted(), 100.0 * proposal.trusted);
        chart.draw_series([Text::new(label, (label_at, 0.99), style)])?;
    }
    Ok(())
}

/// Positions of the labels of ascending thresholds: right of their lines, where neighbours leave room.
fn labels(proposals: &[Proposal]) -> Vec<f64> {
    let (mut free, mut limit) = (0.0_f64, 1.0_f64);
    let mut labels = Vec::new();
    for proposal in proposals {
        labels.push((f64::from(proposal.uncertainty_max) + BESIDE).max(free));
        free = labels.last().map_or(free, |at| at + LABELS_APART);
    }
    for at in labels.iter_mut().rev() {
        limit -= LABELS_APART;
        *at = at.min(limit);
        limit = *at;
    }
    labels
}

fn ink(size: i32, colour: &RGBColor) -> TextStyle<'_> {
    TextStyle::from((FONT, size)).color(colour)
}

/// The pair's line and the published one.
fn lines(chart: &mut RejectionChart<'_, '_>, record: &CalibrationRecord) -> Painted {
    let published = record.published_line.corners();
    chart.draw_series(DashedLineSeries::new(published, 6, 4, PUBLISHED.stroke_width(2)))?;
    chart.draw_series(LineSeries::new(record.line.corners(), FITTED.stroke_width(2)))?;
    Ok(())
}

/// A point for each bin that has tokens, with its interval.
fn bins(chart: &mut RejectionChart<'_, '_>, bins: &[UncertaintyBin]) -> Painted {
    let known = bins.iter().filter_map(|bin| {
        Some(((bin.uncertainty?, bin.rejection?), (bin.rejection_low?, bin.rejection_high?)))
    });
    let known: Vec<_> = known.collect();
    let bars = known.iter().flat_map(|&((u, _), (low, high))| {
        let cap = |share| vec![(u - CAP, share), (u + CAP, share)];
        [vec![(u, low), (u, high)], cap(low), cap(high)]
    });
    chart.draw_series(bars.map(|path| PathElement::new(path, BINS.stroke_width(1))))?;
    chart.draw_series(known.iter().map(|&(point, _)| Circle::new(point, 4, BINS.filled())))?;
    Ok(())
}

/// Draws the legend above the chart, where it can't hide a point.
fn legend(area: &ChartArea<'_>, record: &CalibrationRecord) -> Painted {
    let sample = |x| [(x, 66), (x + 20, 66)];
    let text = |x, text: String| Text::new(text, (x + 27, 60), ink(14, &INK));
    area.draw(&Circle::new((84, 66), 4, BINS.filled()))?;
    area.draw(&text(70, "one sixteenth each".into()))?;
    area.draw(&PathElement::new(sample(250), FITTED.stroke_width(2)))?;
    area.draw(&text(250, format!("this pair: {}", record.line)))?;
    for x in [490, 503] {
        area.draw(&PathElement::new([(x, 66), (x + 8, 66)], PUBLISHED.stroke_width(2)))?;
    }
    area.draw(&text(490, format!("CU-HLM's, published: {}", record.published_line)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::record::tests::example;

    #[test]
    fn everything_is_in_the_picture() {
        let (record, _) = example();
        let svg = draw(&record).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("<circle").count(), 8 + 1, "eight bins and the legend");
        for text in [
            "small &lt;1&gt; judged by v1",
            "8 tokens",
            "this pair: 0.714 u + 0.000",
            "CU-HLM",
            "at most 0 % missed: 37.5 % trusted",
        ] {
            assert!(svg.contains(text), "no {text:?} in\n{svg}");
        }
    }

    #[test]
    fn labels_keep_apart() {
        let (mut record, _) = example();
        for thresholds in [[0.2, 0.21, 0.9], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, 0.5, 0.99]] {
            for (proposal, threshold) in record.proposals.iter_mut().zip(thresholds) {
                proposal.uncertainty_max = threshold;
            }
            let labels = labels(&record.proposals);
            let apart = |pair: &[f64]| pair[1] - pair[0] > LABELS_APART - 1e-9;
            assert!(labels.windows(2).all(apart) && labels[2] + LABELS_APART < 1.0 + 1e-9, "{labels:?}");
        }
    }

    #[test]
    fn the_ends_of_the_scale_can_be_drawn() {
        let (mut record, _) = example();
        for (proposal, threshold) in record.proposals.iter_mut().zip([0.0, 0.0, 1.0]) {
            proposal.uncertainty_max = threshold;
        }
        record.bins.truncate(0);
        assert!(draw(&record).unwrap().contains("trusted"));
    }
}
