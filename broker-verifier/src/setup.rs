//! Set-up reports of devices: logs a warning for each rejected file.
//!
//! Invariant: no code here touches the protocol machine, and the amount logged per time is bounded, whatever the
//! devices send. The time is an argument.

use crate::devices::Devices;
use crate::ration::WarningRation;
use dunlin_wire::{DeviceId, PREFIX_EMPTY, PrefixDigest, SetupReport};
use std::time::Duration;

/// Counters of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetupCounters {
    /// Valid reports.
    pub reports: u64,
    /// Reports equal to the device's last one; a broker sends retained messages on every connection.
    pub repeated: u64,
    /// Withdrawn reports: the device is set up.
    pub settled: u64,
    /// Reports that were not logged because there were too many.
    pub unlogged: u64,
    /// Malformed messages, or messages of another version.
    pub malformed: u64,
    /// Devices removed to make room for others.
    pub evicted: u64,
}

/// The devices whose set-up file is invalid, and the number of warnings about them.
#[derive(Default)]
pub struct Setups {
    /// Digest of each device's last report.
    devices: Devices<Option<PrefixDigest>>,
    counters: SetupCounters,
    ration: WarningRation,
}

impl Setups {
    /// The counters so far.
    pub fn counters(&self) -> SetupCounters {
        self.counters
    }

    /// Handles a message on a device's set-up topic at `now`, counted from any fixed moment.
    pub fn handle(&mut self, device: &DeviceId, bytes: &[u8], now: Duration) {
        if bytes.is_empty() {
            return self.settle(device);
        }
        let report = match SetupReport::decode(bytes) {
            Ok(report) => report,
            Err(error) => {
                self.counters.malformed += 1;
                return tracing::debug!(%device, %error, "malformed set-up report");
            }
        };
        self.counters.reports += 1;
        let digest = bytes.iter().fold(PREFIX_EMPTY, |digest, byte| digest.push((*byte).into()));
        let (known, evicted) = self.devices.get(device);
        self.counters.evicted += u64::from(evicted);
        if *known == Some(digest) {
            self.counters.repeated += 1;
            return;
        }
        // Remember the report only once it is logged, so that a repetition in a later period can still be logged.
        *known = None;
        if self.ration.take("rejected set-up files", now) {
            *self.devices.get(device).0 = Some(digest);
            warn(device, &report);
        } else {
            self.counters.unlogged += 1;
        }
    }

    fn settle(&mut self, device: &DeviceId) {
        self.counters.settled += 1;
        let (known, evicted) = self.devices.get(device);
        self.counters.evicted += u64::from(evicted);
        if known.take().is_some() {
            tracing::info!(%device, "the set-up file of this device is valid now");
        }
    }
}

/// Logs a report. Its text comes from outside, so it is escaped: it must not move the cursor or hide other text.
fn warn(device: &DeviceId, report: &SetupReport) {
    let (mistakes, text) = (report.mistakes, report.text.as_str());
    tracing::warn!(%device, mistakes, ?text, "the set-up file of this device was rejected");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DEVICES_MAX;
    use crate::logged::logged;
    use crate::ration::{PERIOD, WARNINGS_MAX};

    const NOW: Duration = Duration::ZERO;

    fn device(number: usize) -> DeviceId {
        format!("d{number}").parse().unwrap()
    }

    fn report(text: &str) -> Vec<u8> {
        SetupReport::new(1, [text]).encode().unwrap().to_vec()
    }

    #[test]
    fn a_report_is_a_warning_once() {
        let mut setups = Setups::default();
        let ((), said) = logged(|| {
            setups.handle(&device(1), &report("line 3: no \"=\""), NOW);
            setups.handle(&device(1), &report("line 3: no \"=\""), NOW);
        });
        let line = " WARN the set-up file of this device was rejected device=d1 mistakes=1 \
            text=\"line 3: no \\\"=\\\"\"\n";
        assert_eq!(said, line);
        let ((), said) = logged(|| {
            setups.handle(&device(1), &report("another"), NOW);
            setups.handle(&device(1), &[], NOW);
            setups.handle(&device(2), &[], NOW);
            setups.handle(&device(1), &report("another"), NOW);
        });
        assert_eq!(said.matches("was rejected").count(), 2, "{said}");
        assert_eq!(said.matches("is valid now device=d1").count(), 1, "{said}");
        let expected = SetupCounters { reports: 4, repeated: 1, settled: 2, ..SetupCounters::default() };
        assert_eq!(setups.counters(), expected);
    }

    #[test]
    fn a_log_is_not_flooded() {
        let mut setups = Setups::default();
        let flood = |setups: &mut Setups, now| {
            let ((), said) = logged(|| (0..1000).for_each(|n| setups.handle(&device(n), &report("x"), now)));
            said.lines().count()
        };
        assert_eq!(flood(&mut setups, NOW), WARNINGS_MAX as usize + 1);
        assert_eq!(flood(&mut setups, PERIOD - Duration::from_nanos(1)), 0);
        assert_eq!(setups.counters().unlogged, 1000 - 20 + 980);
        assert_eq!(flood(&mut setups, PERIOD), WARNINGS_MAX as usize + 1, "those that were left out");
    }

    #[test]
    fn malformed_reports_are_counted() {
        let mut setups = Setups::default();
        let other = SetupReport::new(1, ["x"]).encode().unwrap();
        for bytes in [b"garbage".as_slice(), &other[..4], &[0x2f, 18, 1, 0], &[0x1f, 18, 1, 1, 0x1b]] {
            setups.handle(&device(1), bytes, NOW);
        }
        assert_eq!(setups.counters(), SetupCounters { malformed: 4, ..SetupCounters::default() });
    }

    #[test]
    fn nothing_in_a_text_reaches_a_terminal_as_it_is() {
        let ((), said) = logged(|| Setups::default().handle(&device(1), &report("a\u{202e}b\u{200b}"), NOW));
        assert!(said.contains("a\\u{202e}b\\u{200b}"), "{said}");
    }

    #[test]
    fn of_too_many_devices_the_oldest_makes_room() {
        let mut setups = Setups::default();
        (0..=DEVICES_MAX).for_each(|number| setups.handle(&device(number), &[], NOW));
        assert_eq!(setups.counters().evicted, 1);
    }
}
