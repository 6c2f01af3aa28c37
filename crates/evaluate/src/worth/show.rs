//! An assessment for people: aligned text and a plot.

use super::figures::PairFigures;
use super::fit::{PairFit, SideFacts, TokenFit, words};
use super::traffic::{RoundTripFigures, WayFigures};
use crate::plots::{LineChart, Series, SeriesMark};
use crate::tables::{fixed, percent, significant};
use anyhow::{Context, Result};

/// The two ways' names.
const WAYS: [&str; 2] = ["lossless", "stream"];
/// Spaces between two columns.
const GAP: &str = "  ";

/// The fit of both sides.
pub(super) fn sides(fit: &PairFit) -> String {
    let (own, other) = (&fit.drafter, &fit.target);
    let head = ["", "drafter", "target", "fit"];
    let tokens = |side: &SideFacts| format!("{} ({}), {} rows", side.vocabulary, side.fingerprint, side.rows);
    let shared = match &fit.tokens {
        TokenFit::Equal => "equal".to_owned(),
        TokenFit::DrafterIsPrefix { more } => {
            format!("the drafter's are the first ones; {more} only of the target")
        }
        TokenFit::TargetIsPrefix { more } => {
            format!("the target's are the first ones; {more} only of the drafter")
        }
        TokenFit::Parted { id, .. } => format!("different from token {id} on"),
    };
    let equal = |same: bool| if same { "equal" } else { "different" }.to_owned();
    let form = |side: &SideFacts| format!("{:?}", side.form);
    let rows = [
        head.map(str::to_owned),
        ["name".into(), own.name.clone(), other.name.clone(), String::new()],
        ["tokens".into(), tokens(own), tokens(other), shared],
        ["one-line chat".into(), form(own), form(other), equal(fit.same_form)],
        ["ends a reply".into(), words(&own.stop), words(&other.stop), equal(fit.same_stops())],
        [
            "context".into(),
            own.context.to_string(),
            other.context.to_string(),
            equal(own.context == other.context),
        ],
    ];
    aligned(&rows, 4)
}

/// Agreement, times, and both ways at each round trip.
pub(super) fn figures(figures: &PairFigures) -> String {
    let PairFigures { agreement, speed, .. } = figures;
    let ms = |us: f64| format!("{} ms", significant(us / 1e3));
    let error = agreement.alpha_error.map_or(String::new(), |error| format!(" ± {}", fixed(error, 3)));
    let rows = [
        [
            "acceptance α".into(),
            fixed(agreement.alpha, 3) + &error,
            "mean of 1 − TV, and its standard error over replies".into(),
        ],
        ["greedy".into(), fixed(agreement.greedy, 3), "share of tokens at which both prefer the same".into()],
        ["a drafted token".into(), ms(speed.draft_us), "measured, one thread".into()],
        ["  its score".into(), ms(speed.score_us), "measured: drawing it, and its uncertainty".into()],
        ["a prompt's token".into(), ms(speed.prompt_us), "measured, drafter".into()],
        [
            "a target's pass".into(),
            ms(speed.pass_us),
            format!("measured, 1 token, {} threads", speed.target_threads),
        ],
        ["  a wide pass".into(), ms(speed.wide_pass_us), format!("measured, {} tokens", speed.wide_tokens)],
    ];
    let over = format!(
        "\n{} tokens of {} replies, temperature {}, seed {}; times on {}\n",
        agreement.tokens, agreement.replies, figures.temperature, figures.seed, speed.processor
    );
    over + &aligned(&rows, 3) + "\nper token of text\n" + &ways(&figures.round_trips)
}

/// The table of round trips.
pub(super) fn ways(round_trips: &[RoundTripFigures]) -> String {
    let head = [
        "round trip",
        "way",
        "tokens/s",
        "frames",
        "MQTT up",
        "MQTT down",
        "TLS up",
        "drafted",
        "accepted",
        "passes",
        "modelled J",
        "own text",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for RoundTripFigures { rtt_ms, lossless, stream, .. } in round_trips {
        for (name, way) in WAYS.iter().zip([lossless, stream]) {
            rows.push(way_row(format!("{rtt_ms} ms"), name, way));
        }
    }
    aligned(&rows, 2)
}

fn way_row(rtt: String, name: &str, way: &WayFigures) -> [String; 12] {
    let bytes = |bytes: f64| format!("{} B", fixed(bytes, 1));
    [
        rtt,
        name.to_owned(),
        significant(way.tokens_per_s),
        fixed(way.frames, 3),
        bytes(way.mqtt_up),
        bytes(way.mqtt_down),
        bytes(way.tls_up),
        fixed(way.drafted, 2),
        if way.drafted > 0.0 { percent(way.accepted, 1) } else { fixed(f64::NAN, 0) },
        fixed(way.passes, 3),
        significant(way.modelled_j),
        percent(way.identical, 0),
    ]
}

/// The assumptions behind the figures of the round trips, in sentences.
pub(super) fn assumptions(figures: &PairFigures) -> String {
    let PairFigures { times, board, channel, .. } = figures;
    let source = |given: bool| if given { "as given" } else { "as measured here" };
    let ms = |us: f64| significant(us / 1e3);
    format!(
        "Real: texts, distributions, frames and their bytes, by the protocol machines (opening a session left out).\n\
         Assumed: a draft takes {} ms ({}) and its score {} ms ({}), a pass {} ms and {} ms a token ({}).\n\
         Assumed: a link like {channel} with these round trips, one session on the verifier, a device that saves time.\n\
         Modelled: joules, by {board}'s powers and the times above.",
        ms(times.draft_us),
        source(times.draft_given),
        ms(times.score_us),
        if times.draft_given { format!("{board}'s, modelled") } else { source(false).to_owned() },
        ms(times.pass_us),
        ms(times.token_us),
        source(times.pass_given)
    )
}

/// The verdict, and drafting's figures divided by streaming's.
pub(super) fn verdict(figures: &PairFigures) -> String {
    let head =
        ["round trip", "drafting", "tokens/s", "frames", "TLS up", "MQTT down", "passes", "modelled J"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(figures.round_trips.iter().map(ratios));
    let any = figures.round_trips.iter().any(|figures| figures.pays);
    let verdict = if any { "Drafting pays" } else { "Drafting does not pay" };
    format!(
        "{verdict} by tokens per second. Drafting's figures divided by streaming's:\n{}",
        aligned(&rows, 2).trim_end()
    )
}

fn ratios(figures: &RoundTripFigures) -> [String; 8] {
    let RoundTripFigures { rtt_ms, lossless, stream, pays } = figures;
    let ratio = |of: fn(&WayFigures) -> f64| fixed(of(lossless) / of(stream), 2);
    [
        format!("{rtt_ms} ms"),
        if *pays { "pays" } else { "does not pay" }.to_owned(),
        ratio(|way| way.tokens_per_s),
        ratio(|way| way.frames),
        ratio(|way| way.tls_up),
        ratio(|way| way.mqtt_down),
        ratio(|way| way.passes),
        ratio(|way| way.modelled_j),
    ]
}

/// Tokens per second of both ways over the round trip, as an SVG file.
pub(super) fn plot(fit: &PairFit, figures: &PairFigures) -> Result<String> {
    let points = |of: fn(&RoundTripFigures) -> &WayFigures| {
        figures.round_trips.iter().map(move |figures| (figures.rtt_ms, of(figures).tokens_per_s))
    };
    let chart = LineChart {
        title: format!(
            "{} and {}: α {}",
            fit.drafter.name,
            fit.target.name,
            fixed(figures.agreement.alpha, 3)
        ),
        x: "round trip, ms".into(),
        y: "tokens/s".into(),
        series: vec![
            Series::new(WAYS[0], SeriesMark::Both, points(|figures| &figures.lossless)),
            Series::new(WAYS[1], SeriesMark::Both, points(|figures| &figures.stream)),
        ],
    };
    chart.svg().context("drawing the plot")
}

/// Columns under each other: the first `words` to the left, the others, which are figures, to the right.
fn aligned<const N: usize>(rows: &[[String; N]], words: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cell = |(i, cell): (usize, &String)| {
            let width = widths[i];
            if i < words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        text += cells.join(GAP).trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left_and_figures_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = aligned(&[row(["way", "", "frames"]), row(["α", "x", "0.5"])], 2);
        assert_eq!(text, "way     frames\nα    x     0.5\n");
    }
}
