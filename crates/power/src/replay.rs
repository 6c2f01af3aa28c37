//! Power traces: written by `power record`, read by the source `replay` and by other programs as CSV.
//!
//! The first line is a comment with the recorded source as JSON. Each further row is a reading: window and power, and
//! voltage and current if the source has them. Rows are read one by one, because a trace may be larger than memory.

use super::ledger::Sample;
use super::sensor::{PowerSensor, Reading, SensorError, SensorSource, Uncertainty};
use super::timebase::Timebase;
use super::units::{Amperes, Volts, Watts};
use anyhow::{Context, Result, bail, ensure};
use csv::{ReaderBuilder, StringRecord, Writer};
use dunlin_hlm::time::{Duration, Instant};
use dunlin_wire::PowerSource;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Start of the first line.
const MARK: &str = "# dunlin power trace 1 ";
/// Maximum length of the first line in bytes.
const HEAD_BYTES_MAX: u64 = 4096;
/// The largest plausible power, W.
const WATTS_MAX: f64 = 1e5;
/// The longest valid period of a trace, µs.
const PERIOD_US_MAX: u64 = 3_600_000_000;

/// The first line's JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    source: String,
    part: String,
    boundary: String,
    period_us: u64,
    relative: f64,
    offset_w: f64,
}

/// A reading.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct TraceRow {
    from_us: u64,
    until_us: u64,
    watts: f64,
    volts: Option<f64>,
    amperes: Option<f64>,
    clipped: u8,
}

/// Writes a trace.
pub struct TraceWriter<W: Write> {
    rows: Writer<W>,
}

impl<W: Write> TraceWriter<W> {
    /// Begins a trace of `source`.
    ///
    /// # Errors
    /// Nothing can be written.
    pub fn new(mut out: W, source: &SensorSource) -> Result<Self> {
        let head = Head {
            source: source.to_string(),
            part: source.part.clone(),
            boundary: source.boundary.clone(),
            period_us: source.period.0,
            relative: source.uncertainty.relative,
            offset_w: source.uncertainty.offset_w,
        };
        writeln!(out, "{MARK}{}", serde_json::to_string(&head)?)?;
        Ok(Self { rows: Writer::from_writer(out) })
    }

    /// Adds a reading.
    ///
    /// # Errors
    /// It can't be written.
    pub fn push(&mut self, sample: &Sample, rail: Option<(Volts, Amperes)>) -> Result<()> {
        let (volts, amperes) =
            (rail.map(|(volts, _)| volts.as_f64()), rail.map(|(_, amperes)| amperes.as_f64()));
        let (from_us, until_us) = (sample.from.0, sample.until.0);
        let row = TraceRow {
            from_us,
            until_us,
            watts: sample.watts,
            volts,
            amperes,
            clipped: sample.clipped.into(),
        };
        Ok(self.rows.serialize(row)?)
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.rows.flush()?)
    }
}

/// A trace as a source. Each reading appears after the same time as in the recording, counted from the first look.
pub struct Replay<T> {
    rows: csv::Reader<BufReader<File>>,
    time: T,
    source: SensorSource,
    path: PathBuf,
    next: Option<TraceRow>,
    /// This process's time minus the trace's time; `None` before the first look.
    shift: Option<i128>,
}

impl<T: Timebase> Replay<T> {
    /// Opens a trace.
    ///
    /// # Errors
    /// Names the file, and what is invalid in it.
    pub fn open(path: &Path, time: T) -> Result<Self> {
        let place = || path.display().to_string();
        let mut file = BufReader::new(File::open(path).with_context(place)?);
        let head = head(&mut file).with_context(place)?;
        let source = SensorSource {
            kind: PowerSource::Replay,
            part: format!("{} of {}, recorded from {}", path.display(), head.source, head.part),
            boundary: head.boundary,
            uncertainty: Uncertainty { relative: head.relative, offset_w: head.offset_w },
            period: Duration(head.period_us),
            poll: Duration((head.period_us / 8).max(1)),
        };
        let mut rows = ReaderBuilder::new().from_reader(file);
        let names = rows.headers().with_context(place)?;
        let expected =
            StringRecord::from(vec!["from_us", "until_us", "watts", "volts", "amperes", "clipped"]);
        ensure!(*names == expected, "{}: the columns are not {expected:?}", path.display());
        Ok(Self { rows, time, source, path: path.into(), next: None, shift: None })
    }

    /// Reads the next row of the file.
    fn row(&mut self) -> Result<TraceRow, SensorError> {
        let place = self.path.display().to_string();
        let line = self.rows.position().line() + 1;
        match self.rows.deserialize::<TraceRow>().next() {
            None => Err(SensorError::Ended(place)),
            Some(Ok(row)) if row.until_us >= row.from_us && row.watts.abs() <= WATTS_MAX => Ok(row),
            Some(Ok(_)) => {
                let reason = "a window that ends before it begins, or an invalid power".into();
                Err(SensorError::Failed { place: format!("{place}:{line}"), reason })
            }
            Some(Err(error)) => {
                Err(SensorError::Failed { place: format!("{place}:{line}"), reason: error.to_string() })
            }
        }
    }
}

impl<T: Timebase> PowerSensor for Replay<T> {
    fn source(&self) -> &SensorSource {
        &self.source
    }

    fn read(&mut self) -> Result<Option<Reading>, SensorError> {
        let row = self.next.map_or_else(|| self.row(), Ok)?;
        // Keep the row until its time has come.
        self.next = Some(row);
        let now = self.time.now();
        let shift = *self.shift.get_or_insert(i128::from(now.0) - i128::from(row.from_us));
        let until = i128::from(row.until_us) + shift;
        if i128::from(now.0) < until {
            return Ok(None);
        }
        self.next = None;
        let until = Instant(u64::try_from(until).unwrap_or(0));
        Ok(Some(Reading::Power {
            power: Watts::from_f64(row.watts),
            rail: row.volts.map(Volts::from_f64).zip(row.amperes.map(Amperes::from_f64)),
            clipped: row.clipped != 0,
            ended: now.since(until),
            lasted: Duration(row.until_us - row.from_us),
        }))
    }
}

fn head(file: &mut impl BufRead) -> Result<Head> {
    let mut line = String::new();
    std::io::Read::take(&mut *file, HEAD_BYTES_MAX).read_line(&mut line)?;
    let Some(json) = line.strip_prefix(MARK) else {
        bail!("line 1 does not begin with {MARK:?}: not a trace of `power record`");
    };
    let head: Head = serde_json::from_str(json).context("line 1")?;
    let sane = |x: f64| x.is_finite() && x >= 0.0;
    ensure!((1..=PERIOD_US_MAX).contains(&head.period_us), "line 1: period_us {}", head.period_us);
    ensure!(sane(head.relative) && sane(head.offset_w), "line 1: an uncertainty below 0");
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::super::timebase::VirtualTime;
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    const COLUMNS: &str = "from_us,until_us,watts,volts,amperes,clipped\n";

    fn source() -> SensorSource {
        SensorSource {
            kind: PowerSource::Ina219,
            part: "0x40 on \"bus\"".into(),
            boundary: "all".into(),
            uncertainty: Uncertainty { relative: 0.017, offset_w: 0.005 },
            period: Duration(8000),
            poll: Duration(1000),
        }
    }

    fn sample(from: u64, until: u64, watts: f64, clipped: bool) -> Sample {
        Sample { from: Instant(from), until: Instant(until), watts, clipped }
    }

    /// A trace file of `source` with these rows below the column names.
    fn written(rows: &str) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("trace.csv");
        let mut head = Vec::new();
        TraceWriter::new(&mut head, &source()).unwrap().finish().unwrap();
        fs::write(&path, format!("{}{COLUMNS}{rows}", String::from_utf8(head).unwrap())).unwrap();
        (dir, path)
    }

    /// Looks every millisecond until there is a reading; returns its window on the replay's clock, and its power.
    fn next(replay: &mut Replay<VirtualTime>, time: &VirtualTime) -> Result<(u64, u64, f64), SensorError> {
        loop {
            if let Some(reading) = replay.read()? {
                let Reading::Power { power, ended, lasted, .. } = reading else { panic!("{reading:?}") };
                let until = (time.now() - ended).0;
                return Ok((until - lasted.0, until, power.as_f64()));
            }
            time.wait(Duration(1000));
        }
    }

    #[test]
    fn what_was_written_is_read_when_it_came() {
        let (dir, time) = (TempDir::new().unwrap(), VirtualTime::default());
        let path = dir.path().join("trace.csv");
        let mut trace = TraceWriter::new(File::create(&path).unwrap(), &source()).unwrap();
        let rail = Some((Volts::from_f64(5.1), Amperes::from_f64(-0.5)));
        trace.push(&sample(700_500, 704_500, 2.75, false), rail).unwrap();
        trace.push(&sample(708_500, 712_500, 3.25, true), None).unwrap();
        trace.finish().unwrap();
        time.wait(Duration(50_000));
        let mut replay = Replay::open(&path, time.clone()).unwrap();
        let found = replay.source().clone();
        assert_eq!(
            (found.kind, found.period, found.poll),
            (PowerSource::Replay, Duration(8000), Duration(1000))
        );
        assert_eq!((found.boundary, found.uncertainty), (source().boundary, source().uncertainty));
        assert!(found.part.ends_with("trace.csv of measured (ina219), recorded from 0x40 on \"bus\""));
        assert_eq!(replay.read(), Ok(None), "its window has only begun");
        time.wait(Duration(4500));
        let (ended, lasted) = (Duration(500), Duration(4000));
        let power = Watts::from_f64(2.75);
        assert_eq!(replay.read(), Ok(Some(Reading::Power { power, rail, clipped: false, ended, lasted })));
        assert_eq!(replay.read(), Ok(None));
        time.wait(Duration(8000));
        let power = Watts::from_f64(3.25);
        assert_eq!(
            replay.read(),
            Ok(Some(Reading::Power { power, rail: None, clipped: true, ended, lasted }))
        );
        for _ in 0..2 {
            assert_eq!(replay.read(), Err(SensorError::Ended(path.display().to_string())));
        }
    }

    #[test]
    fn late_looks_find_each_reading_where_it_was() {
        let rows: String = (0..5).map(|n| format!("{},{},{n},,,0\n", n * 8000, n * 8000 + 4000)).collect();
        let ((_dir, path), time) = (written(&rows), VirtualTime::default());
        let mut replay = Replay::open(&path, time.clone()).unwrap();
        assert_eq!(replay.read(), Ok(None));
        time.wait(Duration(1_000_000));
        for n in 0..5 {
            assert_eq!(next(&mut replay, &time), Ok((n * 8000, n * 8000 + 4000, n as f64)));
        }
        assert_eq!(time.now(), Instant(1_000_000), "nothing was waited for");
    }

    #[test]
    fn a_row_that_is_none_is_named_and_the_next_one_is_read() {
        let rows = "0,4000,1.5,,,0\n5000,9000,x,,,0\n9000,8000,2.5,,,0\n9000,13000,1e6,,,0\n9000,13000,NaN,,,0\n\
                    9000,13000\n-1,13000,2.5,,,0\n17000,21000,3.5,,,0\n22000,26";
        let ((_dir, path), time) = (written(rows), VirtualTime::default());
        let mut replay = Replay::open(&path, time.clone()).unwrap();
        assert_eq!(next(&mut replay, &time), Ok((0, 4000, 1.5)));
        for line in 4..=9 {
            let Err(SensorError::Failed { place, .. }) = next(&mut replay, &time) else {
                panic!("line {line}")
            };
            assert_eq!(place, format!("{}:{line}", path.display()));
        }
        assert_eq!(next(&mut replay, &time), Ok((17_000, 21_000, 3.5)));
        assert!(matches!(next(&mut replay, &time), Err(SensorError::Failed { .. })), "it was cut off");
        assert!(matches!(next(&mut replay, &time), Err(SensorError::Ended(_))));
    }

    #[test]
    fn what_is_no_trace_is_named() {
        let (dir, path) = written("");
        let whole = fs::read_to_string(&path).unwrap();
        let said = |text: &str| {
            fs::write(&path, text).unwrap();
            let error = Replay::open(&path, VirtualTime::default()).err();
            error.map(|error| format!("{error:#}"))
        };
        assert_eq!(said(&whole), None);
        for (text, expected) in [
            (String::new(), "not a trace of `power record`"),
            ("from_us,until_us,watts\n".into(), "not a trace of `power record`"),
            (MARK.into(), "line 1: EOF"),
            (whole[..MARK.len() + 20].into(), "line 1: EOF"),
            (whole.replace("part", "parts"), "line 1: unknown field `parts`"),
            (whole.replace("8000", "0"), "line 1: period_us 0"),
            (whole.replace("8000", "3600000001"), "line 1: period_us 3600000001"),
            (whole.replace("0.017", "-0.017"), "line 1: an uncertainty below 0"),
            (whole.replace("boundary\":\"", &format!("boundary\":\"{}", "x".repeat(5000))), "line 1: EOF"),
            (whole.replace(",clipped", ""), "the columns are not"),
            (whole.replace(COLUMNS, ""), "the columns are not"),
        ] {
            let said = said(&text).unwrap_or_else(|| panic!("{text} was taken"));
            assert!(said.starts_with(path.to_str().unwrap()) && said.contains(expected), "{text}: {said}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Replay::open(&path, VirtualTime::default()).is_err());
        drop(dir);
    }
}
