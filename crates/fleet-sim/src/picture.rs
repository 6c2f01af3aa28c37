//! The boards' states over time, as an SVG picture.
//!
//! The colours are Okabe and Ito's, which colour-blind people can distinguish.

use crate::outcome::{RunOutcome, ShownState};
use anyhow::{Result, anyhow};
use dunlin_fleet_core::rollout::RolloutNote;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (860, 400);
/// Width of the legend beside a picture, pixels.
const LEGEND: i32 = 190;
const FONT: &str = "sans-serif";
const GRID: RGBColor = RGBColor(225, 225, 225);
const COLOURS: [RGBColor; ShownState::ALL.len()] = [
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(215, 215, 215),
    RGBColor(90, 90, 90),
];

/// The picture of a scenario. Of what few boards do nothing would be seen among all, so it shows the roots of numbers.
///
/// # Errors
/// Those of the library that draws.
pub fn picture(outcome: &RunOutcome) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let minutes = |seconds: u64| seconds as f64 / 60.0;
    let end = outcome.samples.last().map_or(1.0, |sample| minutes(sample.seconds));
    let top = root_of(outcome.devices);
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{}: {} boards", outcome.name, outcome.devices), (FONT, 17))
        .margin(12)
        .margin_right(LEGEND)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .y_label_formatter(&|y| format!("{:.0}", y * y))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .x_desc("minutes")
        .y_desc("boards (root scale)")
        .draw()?;
    for (index, colour) in COLOURS.iter().enumerate() {
        let edge = |states: usize| {
            let height = move |counts: &[usize]| root_of(counts[..states].iter().sum());
            outcome.samples.iter().map(move |sample| (minutes(sample.seconds), height(&sample.counts)))
        };
        let mut area: Vec<(f64, f64)> = edge(index + 1).collect();
        area.extend(edge(index).collect::<Vec<_>>().into_iter().rev());
        chart.draw_series([Polygon::new(area, colour.filled())])?;
    }
    let notes = outcome.notes.iter().filter_map(|(seconds, note)| Some((seconds, word(note)?)));
    for (row, (seconds, word)) in (0..).zip(notes) {
        let x = minutes(*seconds);
        chart.draw_series([PathElement::new(vec![(x, 0.0), (x, top)], BLACK.stroke_width(1))])?;
        let (x, y) = chart.backend_coord(&(x, top));
        let style = (FONT, 11).into_text_style(&root).pos(Pos::new(HPos::Left, VPos::Top));
        root.draw(&Text::new(word, (x + 3, y + 3 + 13 * (row % 4)), style))
            .map_err(|error| anyhow!(error))?;
    }
    let left = SIZE.0 as i32 - LEGEND + 22;
    for (index, state) in ShownState::ALL.into_iter().rev().enumerate() {
        let y = 58 + 21 * i32::try_from(index)?;
        let square = [(left - 7, y - 6), (left + 7, y + 6)];
        root.draw(&Rectangle::new(square, COLOURS[state as usize].filled()))?;
        let style = (FONT, 13).into_text_style(&root).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(state.name(), (left + 16, y), style)).map_err(|error| anyhow!(error))?;
    }
    root.present()?;
    drop(chart);
    drop(root);
    Ok(svg)
}

fn root_of(boards: usize) -> f64 {
    (boards as f64).sqrt()
}

fn word(note: &RolloutNote) -> Option<String> {
    match note {
        RolloutNote::Started => Some("start".to_string()),
        RolloutNote::Raised(permille) => Some(format!("{} %", permille / 10)),
        RolloutNote::Stopped(_) => Some("stopped".to_string()),
        RolloutNote::Finished(_) => Some("finished".to_string()),
        _ => None,
    }
}
