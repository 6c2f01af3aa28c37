//! The figures of `power watch` as one line.
//!
//! Invariant: the line never fills its last column, so that a terminal does not wrap it.

use super::sparkline::sparkline;
use super::tally::{Tally, in_words};
use crate::screen::{Abilities, Colour};

/// Columns of the sparkline at most.
pub(super) const SPARK_MAX: usize = 60;
/// Columns of the sparkline at least: figures that would leave it less are left out.
const SPARK_MIN: usize = 12;
/// Separator between two figures.
const BETWEEN: &str = "  ";

/// Parts of the line, the most important first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LiveLine(Vec<(Colour, String)>);

impl LiveLine {
    /// The figures of a closed tally, with `now_w` as the present power, W.
    pub(super) fn new(tally: &Tally, now_w: f64) -> Self {
        let (low, high) = tally.range_w();
        let plain = |text: String| (Colour::Plain, text);
        let mut figures = vec![plain(format!("{} {now_w:.3} W", tally.source()))];
        figures.extend(in_words(&tally.faults()).map(|lost| (Colour::Yellow, lost)));
        figures.push(plain(format!("{:.3} J in {:.1} s", tally.joules(), tally.time().as_secs_f64())));
        figures.push(plain(format!("mean {:.3} W", tally.mean_w())));
        figures.push(plain(format!("min {low:.3} W  max {high:.3} W")));
        figures.extend(tally.rail().map(|(volts, amperes)| plain(format!("{volts}  {amperes}"))));
        Self(figures)
    }

    /// The line with all figures.
    pub(super) fn whole(&self, abilities: Abilities) -> String {
        painted(&self.0, abilities)
    }

    /// As many figures as leave room for a sparkline of `watts`, in `columns` columns.
    pub(super) fn within(&self, columns: usize, watts: &[f64], abilities: Abilities) -> String {
        let room = columns.saturating_sub(1);
        let (first, others) = self.0.split_first().expect("there is always a power");
        let text: String = first.1.chars().take(room).collect();
        let mut width = text.chars().count();
        let mut shown = vec![(first.0, text)];
        for figure in others {
            let next = width + BETWEEN.len() + figure.1.chars().count();
            if next + BETWEEN.len() + SPARK_MIN > room {
                break;
            }
            width = next;
            shown.push(figure.clone());
        }
        let spark = sparkline(watts, room.saturating_sub(width + BETWEEN.len()).min(SPARK_MAX));
        if !spark.is_empty() {
            shown.push((Colour::Green, spark));
        }
        painted(&shown, abilities)
    }
}

fn painted(figures: &[(Colour, String)], abilities: Abilities) -> String {
    let paint = |(colour, text): &(Colour, String)| match colour {
        Colour::Plain => text.clone(),
        colour if abilities.colour => format!("{}{text}{}", colour.begin(), Colour::Plain.begin()),
        _ => text.clone(),
    };
    figures.iter().map(paint).collect::<Vec<_>>().join(BETWEEN)
}

#[cfg(test)]
mod tests {
    use super::super::tally::tests::{reading, source};
    use super::*;
    use dunlin_power::meter::MeterEvent;
    use dunlin_power::sensor::SensorError;

    const PLAIN: Abilities = Abilities { colour: false, cursor: false };
    const ALL: Abilities = Abilities { colour: true, cursor: true };

    fn line(lost: bool) -> LiveLine {
        let mut tally = Tally::new(&source());
        for ms in (0..1000).step_by(10) {
            tally.hear(&reading(ms, if ms < 500 { 2.0 } else { 4.0 }));
        }
        if lost {
            tally.hear(&MeterEvent::Lost(SensorError::Overflow("chip".into())));
        }
        tally.finish();
        LiveLine::new(&tally, 4.0)
    }

    #[test]
    fn a_line_begins_with_its_source() {
        let expected = "measured (ina219) 4.000 W  3.000 J in 1.0 s  mean 3.000 W  min 2.000 W  max 4.000 W  \
                        5.000 V  0.800 A";
        assert_eq!(line(false).whole(PLAIN), expected);
        assert_eq!(line(false).whole(ALL), expected);
    }

    #[test]
    fn what_was_lost_comes_second_and_yellow() {
        let line = line(true);
        assert!(line.whole(PLAIN).starts_with("measured (ina219) 4.000 W  1 overflowed  3.000 J"));
        assert!(line.whole(ALL).contains("W  \x1b[33m1 overflowed\x1b[0m  3.000 J"));
    }

    #[test]
    fn a_line_fits_into_any_terminal() {
        let watts: Vec<f64> = (0..100).map(f64::from).collect();
        for columns in 0..200 {
            let text = line(true).within(columns, &watts, PLAIN);
            let width = text.chars().count();
            assert!(width <= columns.saturating_sub(1), "{columns}: {text}");
            let bars = text.chars().filter(|c| ('▁'..='█').contains(c)).count();
            assert!(columns < 40 || (SPARK_MIN..=SPARK_MAX).contains(&bars), "{columns}: {text}");
        }
        let wide = line(false).within(200, &watts, PLAIN);
        assert!(wide.starts_with(&line(false).whole(PLAIN)) && wide.ends_with('█'), "{wide}");
        assert_eq!(wide.chars().filter(|c| ('▁'..='█').contains(c)).count(), SPARK_MAX);
        assert_eq!(
            line(false).within(80, &[], PLAIN),
            "measured (ina219) 4.000 W  3.000 J in 1.0 s  mean 3.000 W"
        );
    }
}
