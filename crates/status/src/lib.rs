//! The counters of a running program as named values with units: a [`Snapshot`] at any time, and when to log one.
//!
//! A [`Metric`] carries all that a log line, JSON, Prometheus or a page needs: name, unit, kind, help and value. The
//! programs fill snapshots from their own counters; nothing here counts.
//!
//! Invariants:
//! - A snapshot holds at most [`METRICS_MAX`] metrics, and says how many it left out.
//! - Names and help are constants of the program: no text of a peer, a file or a model reaches a line.

mod schedule;
mod snapshot;

pub use schedule::{LOG_INTERVAL, Schedule};
pub use snapshot::{METRICS_MAX, Metric, MetricKind, MetricUnit, MetricValue, Snapshot};
