//! Reports an invalid set-up file to the broker with a retained message, and removes the report afterwards.
//!
//! Invariant: a mark is written to the data partition before a report is sent, so that no report outlives its cause.

use crate::disk::{Change, DataDisk};
use crate::identity::TlsIdentity;
use crate::mistakes::Mistakes;
use crate::setup::BoardSetup;
use crate::standing::{BrokerLogin, DataPlaces, Standing, text_of};
use crate::{PUBLIC, say};
use anyhow::{Context, Result, bail};
use dunlin_link::{
    BrokerAddress, ConnectOptions, Loss, Outgoing, Secret, Security, TlsFiles, TlsTable, retain,
};
use dunlin_wire::DeviceId;
use dunlin_wire::topic::Topic;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pause between two attempts: a network may take a while to come up.
const PAUSE: Duration = Duration::from_secs(1);
/// Marks kept; beyond this number, the oldest one is forgotten.
const MARKS_MAX: usize = 8;
const TOLD: &str = "told";
const TRIED: &str = "tried";

/// A device, and the broker that gets its report.
#[derive(Clone)]
pub struct ReportTarget {
    device: DeviceId,
    broker: String,
    login: Option<BrokerLogin>,
    /// The identity in the file, where it is whole; by default, the one that the board has.
    tls: Option<TlsIdentity>,
}

impl ReportTarget {
    /// The target from as much of the file as could be read; missing values come from the existing set-up.
    pub fn of(setup: &BoardSetup, standing: &Standing) -> Option<Self> {
        let broker = setup.broker.clone().or_else(|| standing.broker())?;
        let address = broker.parse::<BrokerAddress>();
        let in_address = address.as_ref().ok().and_then(|address| address.login.as_ref());
        let in_address = in_address
            .map(|login| BrokerLogin { user: login.user.clone(), password: login.password.expose().into() });
        Some(Self {
            device: setup.name.clone().or_else(|| standing.device())?,
            tls: setup.tls.clone(),
            login: in_address.clone().or_else(|| setup.login.clone()).or_else(|| standing.login()),
            // The address is logged and stored, so it must not contain a login.
            broker: match (address, in_address) {
                (Ok(address), Some(_)) => address.url(),
                _ => broker,
            },
        })
    }

    /// The connection, with the certificate that the board has.
    fn options(&self, places: &DataPlaces) -> Result<ConnectOptions> {
        let login = self.login.clone();
        let broker: BrokerAddress = self.broker.parse()?;
        let security = match broker.tls {
            true => Security::Tls(match &self.tls {
                Some(tls) => TlsFiles::given(&tls.authority, &tls.certificate, &tls.key)?,
                None => TlsTable::default().files(&places.tls(), Some(&places.tls_key()))?,
            }),
            false => Security::Plain,
        };
        Ok(ConnectOptions {
            broker,
            security,
            login: login
                .map(|login| dunlin_link::Login { user: login.user, password: Secret::new(login.password) }),
            client_id: format!("dunlin-setup-{}", self.device),
            keep_alive: KEEP_ALIVE,
            inflight_max: 1,
        })
    }
}

/// A broker that may keep a report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReportMark {
    device: DeviceId,
    broker: String,
    /// True if the broker acknowledged the report.
    told: bool,
}

impl ReportMark {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let told = words.next()? == TOLD;
        Some(Self { told, device: words.next()?.parse().ok()?, broker: words.next()?.into() })
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", if self.told { TOLD } else { TRIED }, self.device, self.broker)
    }
}

/// Publishes a retained report at the broker.
///
/// # Errors
/// The report was not acknowledged; the error gives the reason.
pub async fn report_mistakes(
    mistakes: &Mistakes,
    recipient: Option<ReportTarget>,
    places: &DataPlaces,
    within: Duration,
) -> Result<()> {
    let Some(recipient) = recipient else {
        bail!("the broker was not notified: its address or this device's name could not be read");
    };
    let mark = |told| ReportMark { device: recipient.device.clone(), broker: recipient.broker.clone(), told };
    remember(mark(false), places).context("the broker was not notified")?;
    let report = mistakes.report().encode().context("the report")?;
    reached(&recipient, &report, places, within).await.context("the broker was not notified")?;
    say(&format!("reported to the broker at {}", recipient.broker));
    remember(mark(true), places)
}

/// Removes the reports of earlier files, if there are any.
///
/// # Errors
/// A report may still be at the broker. If one is known to be there, the next boot tries again.
pub async fn withdraw_reports(places: &DataPlaces, within: Duration) -> Result<()> {
    let marks = marks(places)?;
    if marks.is_empty() {
        return Ok(());
    }
    // The credentials of the time of the report may be gone; use today's.
    let login = Standing::read(places)?.login();
    let mut left = Vec::new();
    for mark in marks.into_iter().rev() {
        let (device, broker) = (mark.device.clone(), mark.broker.clone());
        let recipient = ReportTarget { device, broker, login: login.clone(), tls: None };
        if let Err(missed) = reached(&recipient, &[], places, within).await {
            say(&format!("the broker may still keep an earlier report of an invalid set-up file: {missed}"));
            // Keep a mark only if its report is known to exist and another attempt can help.
            left.extend((mark.told && !missed.for_good).then_some(mark));
        }
    }
    left.reverse();
    keep(&left, places)
}

fn marks(places: &DataPlaces) -> Result<Vec<ReportMark>> {
    let text = text_of(&places.reported())?.unwrap_or_default();
    Ok(text.lines().filter_map(ReportMark::parse).collect())
}

/// Adds a mark, or marks an existing one as acknowledged. Another file may name another device or broker, so there
/// can be several marks.
fn remember(mark: ReportMark, places: &DataPlaces) -> Result<()> {
    let before = marks(places)?;
    let is_same = |other: &ReportMark| (&other.device, &other.broker) == (&mark.device, &mark.broker);
    let (same, mut marks): (Vec<_>, Vec<_>) = before.iter().cloned().partition(is_same);
    let told = mark.told || same.iter().any(|same| same.told);
    marks.push(ReportMark { told, ..mark });
    let kept = &marks[marks.len().saturating_sub(MARKS_MAX)..];
    if kept == before { Ok(()) } else { keep(kept, places) }
}

fn keep(marks: &[ReportMark], places: &DataPlaces) -> Result<()> {
    let place = places.reported();
    if marks.is_empty() {
        return DataDisk::new().remove(&place).with_context(|| place.display().to_string());
    }
    let bytes = marks.iter().map(ReportMark::line).collect::<String>().into_bytes();
    DataDisk::new().put(&[Change { place, bytes, mode: Some(PUBLIC) }])
}

/// The reason why a broker was not reached.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Unreached {
    why: String,
    /// True if another attempt can't help.
    for_good: bool,
}

/// Tries until the broker has accepted or refused the message, or time is up.
async fn reached(
    recipient: &ReportTarget,
    bytes: &[u8],
    places: &DataPlaces,
    within: Duration,
) -> Result<(), Unreached> {
    let missed = |why: String, for_good| Unreached { why, for_good };
    let options = recipient.options(places).map_err(|error| missed(format!("{error:#}"), true))?;
    let report = Outgoing::new(Topic::Setup(recipient.device.clone()), bytes.to_vec());
    let until = Instant::now() + within;
    let mut last = format!("no answer from {}", options.broker);
    loop {
        match timeout_at(until, retain(&options, &report)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Loss { reason, refused: true })) => return Err(missed(reason, true)),
            Ok(Err(Loss { reason, .. })) => last = reason,
            Err(_) => return Err(missed(last, false)),
        }
        if timeout_at(until, sleep(PAUSE)).await.is_err() {
            return Err(missed(last, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn mark(number: usize, told: bool) -> ReportMark {
        ReportMark { device: format!("d{number}").parse().unwrap(), broker: "mqtt://h:1".into(), told }
    }

    #[test]
    fn marks_are_kept_once_each_and_not_without_end() {
        let data = TempDir::new().unwrap();
        let places = DataPlaces::of(data.path());
        for told in [false, true, false] {
            remember(mark(1, told), &places).unwrap();
        }
        assert_eq!(marks(&places).unwrap(), [mark(1, true)], "what is certain stays so");
        (2..=20).for_each(|number| remember(mark(number, false), &places).unwrap());
        assert_eq!(marks(&places).unwrap(), (13..=20).map(|number| mark(number, false)).collect::<Vec<_>>());
        keep(&[], &places).unwrap();
        assert!(!places.reported().exists() && marks(&places).unwrap().is_empty());
    }

    #[test]
    fn a_malformed_mark_is_left_out() {
        for line in ["", "told", "told d", "told D mqtt://h", "d mqtt://h"] {
            assert_eq!(ReportMark::parse(line), None, "{line}");
        }
        assert_eq!(ReportMark::parse(mark(1, true).line().trim_end()), Some(mark(1, true)));
    }
}
