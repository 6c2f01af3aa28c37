//! Plots as SVG: lines, points with error bars, stacked bars.
//!
//! The colours are Okabe and Ito's, which colour-blind people can distinguish. With more series than colours, the shape
//! of the points distinguishes them.

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (860, 440);
/// Width of the legend beside a chart, pixels.
const LEGEND: u32 = 230;
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(0, 0, 0),
    RGBColor(240, 228, 66),
];
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

/// The drawing style of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeriesMark {
    /// Only points.
    Points,
    /// Only a line.
    Line,
    /// Points and a line through them.
    Both,
}

/// A series, named in the legend.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) mark: SeriesMark,
    pub(super) points: Vec<(f64, f64)>,
    /// Error bars: x, low, high.
    pub(super) errors: Vec<(f64, f64, f64)>,
}

impl Series {
    /// A series without error bars; points that aren't finite are left out.
    pub(super) fn new(name: &str, mark: SeriesMark, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Self { name: name.to_string(), mark, points, errors: Vec::new() }
    }

    fn reaches(&self) -> impl Iterator<Item = (f64, f64)> {
        let ends = self.errors.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]);
        self.points.iter().copied().chain(ends)
    }
}

/// Series over two axes.
#[derive(Debug)]
pub(super) struct LineChart {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) series: Vec<Series>,
}

impl LineChart {
    /// True when no series has a point.
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// The chart as an SVG file.
    pub(super) fn svg(&self) -> Result<String> {
        let points = || self.series.iter().flat_map(Series::reaches);
        let (x, y) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)));
        let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        draw(SIZE, |root| {
            let mut chart = ChartBuilder::on(&root)
                .caption(&self.title, (FONT, 17))
                .margin(12)
                .margin_right(LEGEND)
                .x_label_area_size(44)
                .y_label_area_size(64)
                .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
            chart
                .configure_mesh()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(BLACK)
                .label_style((FONT, 13))
                .axis_desc_style((FONT, 14))
                .x_label_formatter(&|x| tick(*x))
                .y_label_formatter(&|y| tick(*y))
                .x_desc(&self.x)
                .y_desc(&self.y)
                .draw()?;
            for (i, series) in self.series.iter().enumerate() {
                let colour = PALETTE[i % PALETTE.len()];
                if series.mark != SeriesMark::Points {
                    chart.draw_series(LineSeries::new(
                        series.points.iter().copied(),
                        colour.stroke_width(2),
                    ))?;
                }
                let bars = series.errors.iter();
                chart.draw_series(bars.map(|&(x, low, high)| {
                    PathElement::new(vec![(x, low), (x, high)], colour.stroke_width(1))
                }))?;
                if series.mark != SeriesMark::Line {
                    for point in &series.points {
                        dot(&root, chart.backend_coord(point), i)?;
                    }
                }
            }
            let marks: Vec<SeriesMark> = self.series.iter().map(|series| series.mark).collect();
            legend(&root, &names, |i, at| {
                if marks[i] != SeriesMark::Points {
                    let line = vec![(at.0 - 9, at.1), (at.0 + 9, at.1)];
                    root.draw(&PathElement::new(line, PALETTE[i % PALETTE.len()].stroke_width(2)))?;
                }
                if marks[i] == SeriesMark::Line { Ok(()) } else { dot(&root, at, i) }
            })
        })
    }
}

/// Horizontal bars, each a stack of parts.
#[derive(Debug)]
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) parts: Vec<&'static str>,
    /// Name and parts of each bar, from top to bottom.
    pub(super) bars: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// The bars as an SVG file.
    pub(super) fn svg(&self) -> Result<String> {
        let count = self.bars.len() as f64;
        let sums = self.bars.iter().map(|(_, parts)| parts.iter().sum());
        let (_, end) = range(std::iter::once(0.0).chain(sums));
        draw((SIZE.0, 110 + 26 * self.bars.len() as u32), |root| {
            let mut chart = ChartBuilder::on(&root)
                .caption(&self.title, (FONT, 17))
                .margin(12)
                .margin_right(LEGEND)
                .x_label_area_size(44)
                .y_label_area_size(190)
                .build_cartesian_2d(0.0..end, count - 0.5..-0.5)?;
            chart
                .configure_mesh()
                .disable_y_mesh()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(BLACK)
                .label_style((FONT, 13))
                .axis_desc_style((FONT, 14))
                .y_labels(0)
                .x_label_formatter(&|x| tick(*x))
                .x_desc(&self.x)
                .draw()?;
            for (row, (name, parts)) in self.bars.iter().enumerate() {
                let (row, mut from) = (row as f64, 0.0);
                for (i, part) in parts.iter().enumerate() {
                    let corners = [(from, row - 0.36), (from + part, row + 0.36)];
                    chart.draw_series([Rectangle::new(corners, PALETTE[i % PALETTE.len()].filled())])?;
                    from += part;
                }
                let (x, y) = chart.backend_coord(&(0.0, row));
                text(&root, name, (x - 8, y), HPos::Right)?;
            }
            legend(&root, &self.parts, |i, at| {
                let corners = [(at.0 - 7, at.1 - 6), (at.0 + 7, at.1 + 6)];
                Ok(root.draw(&Rectangle::new(corners, PALETTE[i % PALETTE.len()].filled()))?)
            })
        })
    }
}

/// Ratios over two axes of names, as coloured squares with the figures in them.
#[derive(Debug)]
pub(super) struct HeatMap {
    pub(super) title: String,
    pub(super) x_name: String,
    pub(super) y_name: String,
    pub(super) x: Vec<String>,
    pub(super) y: Vec<String>,
    /// By row, then column; NaN for an empty square.
    pub(super) values: Vec<Vec<f64>>,
}

impl HeatMap {
    /// Width and height of a square, pixels.
    const SQUARE: (i32, i32) = (60, 24);
    /// Room for the names at the left and at the top.
    const ROOM: (i32, i32) = (120, 78);

    /// The map as an SVG file: blue below 1, orange above, white at 1, full colour from a factor of 4 on.
    pub(super) fn svg(&self) -> Result<String> {
        let ((width, height), (left, top)) = (Self::SQUARE, Self::ROOM);
        let (columns, rows) = (i32::try_from(self.x.len())?, i32::try_from(self.y.len())?);
        let size = (u32::try_from(left + columns * width + 20)?, u32::try_from(top + rows * height + 30)?);
        draw(size, |root| {
            text(&root, &self.title, (12, 16), HPos::Left)?;
            text(&root, &self.x_name, (left, 38), HPos::Left)?;
            text(&root, &self.y_name, (12, top - 12), HPos::Left)?;
            for (column, name) in (0..).zip(&self.x) {
                let style = (FONT, 10).into_text_style(&root).pos(Pos::new(HPos::Center, VPos::Center));
                let at = (left + column * width + width / 2, top - 12);
                root.draw(&Text::new(name.as_str(), at, style))?;
            }
            for ((row, name), values) in (0..).zip(&self.y).zip(&self.values) {
                let y = top + row * height;
                text(&root, name, (left - 8, y + height / 2), HPos::Right)?;
                for (column, value) in (0..).zip(values).filter(|(_, value)| value.is_finite()) {
                    let x = left + column * width;
                    let corners = [(x + 1, y + 1), (x + width - 1, y + height - 1)];
                    root.draw(&Rectangle::new(corners, shade(*value).filled()))?;
                    let style = (FONT, 11).into_text_style(&root).pos(Pos::new(HPos::Center, VPos::Center));
                    let at = (x + width / 2, y + height / 2);
                    root.draw(&Text::new(format!("{value:.2}"), at, style))?;
                }
            }
            Ok(())
        })
    }
}

/// The colour of a ratio.
fn shade(ratio: f64) -> RGBColor {
    let depth = (ratio.log2().abs() / 2.0).clamp(0.0, 1.0);
    let full = if ratio < 1.0 { PALETTE[4] } else { PALETTE[1] };
    let mix = |full: u8| (255.0 - (255.0 - f64::from(full)) * depth).round() as u8;
    RGBColor(mix(full.0), mix(full.1), mix(full.2))
}

type PlotArea<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(size: (u32, u32), on: impl FnOnce(PlotArea<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    on(root.clone())?;
    root.present()?;
    drop(root);
    Ok(svg)
}

fn legend(root: &PlotArea<'_>, names: &[&str], mark: impl Fn(usize, (i32, i32)) -> Result<()>) -> Result<()> {
    let left = i32::try_from(SIZE.0 - LEGEND)? + 22;
    for (i, name) in names.iter().enumerate() {
        let y = 48 + 21 * i32::try_from(i)?;
        mark(i, (left, y))?;
        text(root, name, (left + 16, y), HPos::Left)?;
    }
    Ok(())
}

fn text(root: &PlotArea<'_>, what: &str, at: (i32, i32), side: HPos) -> Result<()> {
    let style = (FONT, 13).into_text_style(root).pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(what, at, style)).map_err(|error| anyhow!(error)).context("drawing a label")
}

/// A point in the colour and shape of a series.
fn dot(root: &PlotArea<'_>, at: (i32, i32), series: usize) -> Result<()> {
    let style = PALETTE[series % PALETTE.len()].filled();
    match series / PALETTE.len() {
        0 => root.draw(&Circle::new(at, 4, style))?,
        1 => root.draw(&TriangleMarker::new(at, 6, style))?,
        _ => root.draw(&Cross::new(at, 4, style.stroke_width(2)))?,
    }
    Ok(())
}

/// The range of an axis: a little beyond all values, and from 0 if that is not far.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = 0.05 * if high > low { high - low } else { high.abs() };
    let room = if room > 0.0 { room } else { 0.05 };
    let from = if low >= 0.0 && (low <= 0.5 * high || low == high) { 0.0 } else { low - room };
    // Otherwise the axis would half hide a point at 0.
    (if low == 0.0 { -room / 2.0 } else { from }, high + room)
}

/// A label of an axis, with as many digits as its step may need.
fn tick(x: f64) -> String {
    let text = format!("{x:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_all_values() {
        assert_eq!(range([].into_iter()), (0.0, 1.0));
        assert_eq!(range([1.0, 4.0].into_iter()), (0.0, 4.15));
        assert_eq!(range([3.0, 4.0].into_iter()), (2.95, 4.05));
        assert_eq!(range([0.0, 4.0].into_iter()), (-0.1, 4.2));
        assert_eq!(range([-2.0].into_iter()), (-2.1, -1.9));
        assert_eq!(range([4.0, 4.0].into_iter()), (0.0, 4.2));
        assert_eq!(range([0.0].into_iter()), (-0.025, 0.05));
        assert_eq!([0.0, -0.0, 0.5, 12.0, 0.000_01].map(tick), ["0", "0", "0.5", "12", "0.00001"]);
    }

    #[test]
    fn a_chart_names_its_axes_and_series_and_is_the_same_each_time() {
        let chart = LineChart {
            title: "Title".to_string(),
            x: "SNR, dB".to_string(),
            y: "tokens/s".to_string(),
            series: (0..18)
                .map(|i| Series {
                    errors: vec![(1.0, 0.0, 30.0)],
                    ..Series::new(
                        &format!("series {i}"),
                        SeriesMark::Both,
                        [(0.0, f64::from(i)), (f64::NAN, 0.0)],
                    )
                })
                .collect(),
        };
        let svg = chart.svg().unwrap();
        for text in ["<svg", "Title", "SNR, dB", "tokens/s", "series 17", "#0072B2", "<circle", "<polygon"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN") && chart.series.iter().all(|series| series.points.len() == 1));
        assert_eq!(svg, chart.svg().unwrap());
        assert!(!chart.is_empty());
        assert!(LineChart { series: vec![Series::new("none", SeriesMark::Line, [])], ..chart }.is_empty());
    }

    #[test]
    fn a_heat_map_shows_its_figures_and_leaves_empty_squares_white() {
        let map = HeatMap {
            title: "Title".to_string(),
            x_name: "across".to_string(),
            y_name: "down".to_string(),
            x: vec!["a".to_string(), "b".to_string()],
            y: vec!["c".to_string()],
            values: vec![vec![0.25, f64::NAN]],
        };
        let svg = map.svg().unwrap();
        for text in ["Title", "across", "down", "0.25", "#56B4E9"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<rect").count(), 2, "the ground and one square");
        assert_eq!([shade(1.0), shade(4.0), shade(99.0)], [RGBColor(255, 255, 255), PALETTE[1], PALETTE[1]]);
    }

    #[test]
    fn bars_name_their_parts() {
        let bars = Bars {
            title: "Energy".to_string(),
            x: "J per token".to_string(),
            parts: vec!["draft", "idle"],
            bars: vec![("hlm".to_string(), vec![1.0, 2.0]), ("lossless".to_string(), vec![0.5, 0.25])],
        };
        let svg = bars.svg().unwrap();
        for text in ["Energy", "J per token", "draft", "idle", "hlm", "lossless"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
