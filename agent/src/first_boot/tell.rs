//! Telling the broker: a retained report while a set-up file is wrong, and its removal afterwards.
//!
//! Invariant: a mark on the data partition is there before a report can be, so that no report outlives its cause.

use super::disk::{Change, Disk};
use super::mistakes::Mistakes;
use super::setup::{Login, Setup};
use super::standing::{Places, Standing, text_of};
use super::{PUBLIC, say};
use crate::config;
use crate::link::{LinkConfig, Loss, retain};
use anyhow::{Context, Result, bail};
use dunlin_wire::DeviceId;
use dunlin_wire::topic::Topic;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Between two attempts: a network may take a while to come up.
const PAUSE: Duration = Duration::from_secs(1);
/// Reports that may lie somewhere; of more the oldest are forgotten.
const MARKS_MAX: usize = 8;

/// Whose report it is, and who gets it.
#[derive(Clone)]
pub(super) struct Addressee {
    device: DeviceId,
    broker: String,
    login: Option<Login>,
}

impl Addressee {
    /// From a file as far as it could be read, and from what stands where it names nothing.
    pub(super) fn of(setup: &Setup, standing: &Standing) -> Option<Self> {
        Some(Self {
            device: setup.name.clone().or_else(|| standing.device())?,
            broker: setup.broker.clone().or_else(|| standing.broker())?,
            login: setup.login.clone().or_else(|| standing.login()),
        })
    }

    fn link(&self) -> Result<LinkConfig> {
        Ok(LinkConfig {
            broker: config::broker_of(&self.broker)?,
            device: self.device.clone(),
            client_id: format!("dunlin-setup-{}", self.device),
            credentials: self.login.clone().map(|login| (login.user, login.password)),
            keep_alive: KEEP_ALIVE,
            announce: false,
        })
    }
}

/// Leaves a report with the broker.
///
/// # Errors
/// Nobody was told, and why.
pub(super) async fn what_is_wrong(
    mistakes: &Mistakes,
    addressee: Option<Addressee>,
    places: &Places,
    within: Duration,
) -> Result<()> {
    let Some(addressee) = addressee else {
        bail!("no broker was told: name and broker could not both be read");
    };
    mark(&addressee, places).context("no broker was told")?;
    let report = mistakes.report().encode().context("the report")?;
    reached(&addressee, &report, within).await.context("no broker was told")?;
    say(&format!("the broker at {} was told", addressee.broker));
    Ok(())
}

/// Takes the reports of earlier files back, where there are some.
///
/// # Errors
/// One may still be there, and why; the next boot tries again.
pub(super) async fn all_is_well(places: &Places, within: Duration) -> Result<()> {
    let place = places.reported();
    let Some(marks) = text_of(&place)? else { return Ok(()) };
    // What was sent with the credentials of then is taken back with those of now.
    let login = Standing::read(places)?.login();
    for (device, broker) in marks.lines().filter_map(|mark| mark.split_once(' ')) {
        let Ok(device) = device.parse() else { continue };
        let addressee = Addressee { device, broker: broker.into(), login: login.clone() };
        let context = "an earlier report of a wrong set-up may still be with the broker";
        match reached(&addressee, &[], within).await {
            Ok(()) => {}
            Err(refused) if refused.for_good => say(&format!("{context}: {refused}")),
            missed => missed.context(context)?,
        }
    }
    Disk::new().remove(&place).with_context(|| place.display().to_string())
}

/// Remembers whose report lies where: another file may name another device and another broker.
fn mark(addressee: &Addressee, places: &Places) -> Result<()> {
    let place = places.reported();
    let mark = format!("{} {}", addressee.device, addressee.broker);
    let mut marks: Vec<String> = text_of(&place)?.unwrap_or_default().lines().map(Into::into).collect();
    if marks.contains(&mark) {
        return Ok(());
    }
    marks.push(mark);
    let kept = &marks[marks.len().saturating_sub(MARKS_MAX)..];
    let bytes = (kept.join("\n") + "\n").into_bytes();
    Disk::new().put(&[Change { place, bytes, mode: Some(PUBLIC) }])
}

/// Why a broker was not reached.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Missed {
    why: String,
    /// Whether trying again is of no use.
    for_good: bool,
}

/// Tries until the broker has taken the message or refused it, or the time is over.
async fn reached(addressee: &Addressee, bytes: &[u8], within: Duration) -> Result<(), Missed> {
    let missed = |why: String, for_good| Missed { why, for_good };
    let link = addressee.link().map_err(|error| missed(format!("{error:#}"), true))?;
    let topic = Topic::Setup(addressee.device.clone());
    let until = Instant::now() + within;
    let mut last = format!("no answer from {}", link.broker);
    loop {
        match timeout_at(until, retain(&link, &topic, bytes)).await {
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
