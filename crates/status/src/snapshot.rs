//! Metrics, and their lines in a log.

use std::fmt::{self, Write};

/// Maximum number of metrics in a snapshot; both programs have far fewer.
pub const METRICS_MAX: usize = 128;

/// The way in which a value changes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases while the program runs.
    Counter,
    /// Increases and decreases.
    Gauge,
}

/// The unit of a value; it is the suffix of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// A number of things, given by the name.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Joules.
    Joules,
    /// Watts.
    Watts,
    /// Degrees Celsius.
    Celsius,
}

impl MetricUnit {
    /// The suffix of a key, with its underscore; empty for a count.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => "_bytes",
            Self::Seconds => "_seconds",
            Self::Joules => "_joules",
            Self::Watts => "_watts",
            Self::Celsius => "_celsius",
        }
    }
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricValue {
    /// A whole number.
    Whole(u64),
    /// A finite number.
    Real(f64),
}

impl From<u64> for MetricValue {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for MetricValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl fmt::Display for MetricValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:.6}"),
        }
    }
}

/// A named value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The part of the program that it belongs to: a-z and `_`.
    pub group: &'static str,
    /// Its name in that part, without the unit: a-z, 0-9 and `_`.
    pub name: &'static str,
    /// Its unit.
    pub unit: MetricUnit,
    /// The way in which it changes.
    pub kind: MetricKind,
    /// A phrase that describes it.
    pub help: &'static str,
    /// Its value.
    pub value: MetricValue,
}

impl Metric {
    /// Name and unit, as in `payload_up_bytes`; unique within the group.
    pub fn key(&self) -> String {
        [self.name, self.unit.suffix()].concat()
    }
}

/// Metrics of one moment, ordered by group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    metrics: Vec<Metric>,
    left_out: u64,
    group: &'static str,
}

impl Snapshot {
    /// Begins a group to which the following metrics belong.
    pub fn group(&mut self, group: &'static str) -> &mut Self {
        self.group = group;
        self
    }

    /// Adds a count of events since the program began.
    pub fn count(&mut self, name: &'static str, value: u64, help: &'static str) -> &mut Self {
        self.counter(name, MetricUnit::Count, value, help)
    }

    /// Adds a value that only increases.
    pub fn counter(
        &mut self,
        name: &'static str,
        unit: MetricUnit,
        value: impl Into<MetricValue>,
        help: &'static str,
    ) -> &mut Self {
        let (group, value) = (self.group, value.into());
        self.push(Metric { group, name, unit, kind: MetricKind::Counter, help, value })
    }

    /// Adds a value that increases and decreases.
    pub fn gauge(
        &mut self,
        name: &'static str,
        unit: MetricUnit,
        value: impl Into<MetricValue>,
        help: &'static str,
    ) -> &mut Self {
        let (group, value) = (self.group, value.into());
        self.push(Metric { group, name, unit, kind: MetricKind::Gauge, help, value })
    }

    /// Adds a metric. It is left out and counted if there are too many or its value is not finite.
    fn push(&mut self, metric: Metric) -> &mut Self {
        let finite = match metric.value {
            MetricValue::Whole(_) => true,
            MetricValue::Real(value) => value.is_finite(),
        };
        if finite && self.metrics.len() < METRICS_MAX {
            self.metrics.push(metric);
        } else {
            self.left_out += 1;
        }
        self
    }

    /// The metrics.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Number of metrics left out.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// One line for each group: its name, then `key=value` for each metric.
    pub fn lines(&self) -> Vec<String> {
        let of_group = |metrics: &[Metric]| {
            let mut line = String::from(metrics[0].group);
            for metric in metrics {
                write!(line, " {}={}", metric.key(), metric.value).expect("a String takes every write");
            }
            line
        };
        let mut lines: Vec<String> =
            self.metrics.chunk_by(|one, next| one.group == next.group).map(of_group).collect();
        if self.left_out > 0 {
            lines.push(format!("status left_out={}", self.left_out));
        }
        lines
    }

    /// Logs the lines at level info, under the target `status`.
    pub fn log(&self) {
        for line in self.lines() {
            tracing::info!(target: "status", "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_line_of_keys_with_their_units() {
        let mut snapshot = Snapshot::default();
        snapshot
            .group("device")
            .count("frames", 12, "Frames sent.")
            .counter("payload_up", MetricUnit::Bytes, 345, "Bytes of all frames.")
            .group("energy")
            .gauge("idle", MetricUnit::Watts, 2.5, "Power of the idle board.")
            .counter("draft", MetricUnit::Joules, 0.1 + 0.2, "Energy of drafting.");
        assert_eq!(
            snapshot.lines(),
            ["device frames=12 payload_up_bytes=345", "energy idle_watts=2.500000 draft_joules=0.300000"]
        );
        let kinds: Vec<_> = snapshot.metrics().iter().map(|metric| metric.kind).collect();
        assert_eq!(kinds, [MetricKind::Counter, MetricKind::Counter, MetricKind::Gauge, MetricKind::Counter]);
    }

    #[test]
    fn a_snapshot_is_bounded_and_says_what_it_left_out() {
        let mut snapshot = Snapshot::default();
        snapshot.group("many");
        for value in 0..METRICS_MAX as u64 + 5 {
            snapshot.count("same", value, "One of many.");
        }
        assert_eq!((snapshot.metrics().len(), snapshot.left_out()), (METRICS_MAX, 5));
        assert_eq!(snapshot.lines().last().unwrap(), "status left_out=5");
    }

    #[test]
    fn no_line_has_a_value_that_is_no_number() {
        let mut snapshot = Snapshot::default();
        for value in [f64::NAN, f64::INFINITY] {
            snapshot.gauge("idle", MetricUnit::Watts, value, "Power of the idle board.");
        }
        assert_eq!(snapshot.lines(), ["status left_out=2"]);
    }
}
