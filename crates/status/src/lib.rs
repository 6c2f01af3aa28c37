//! The counters of a running program as named values with units: a [`Snapshot`] at any time, and a schedule for
//! logging.
//!
//! A [`Metric`] has all that a log line, JSON, Prometheus or a page needs: name, unit, kind, help and value. The
//! programs fill snapshots from their own counters; no code here counts.
//!
//! Invariants:
//! - A snapshot has at most [`METRICS_MAX`] metrics, and counts those that it left out.
//! - Names and help are constants of the program: no text from a peer, a file or a model appears in a line.

mod schedule;
mod snapshot;

pub use schedule::{LOG_INTERVAL, Schedule};
pub use snapshot::{METRICS_MAX, Metric, MetricKind, MetricUnit, MetricValue, Snapshot};
