//! Telling the broker: a retained report while a set-up file is wrong, and its removal afterwards.
//!
//! Invariant: a mark on the data partition is there before a report can be, so that no report outlives its cause.

use super::disk::{Change, Disk};
use super::mistakes::Mistakes;
use super::setup::{Login, Setup};
use super::standing::{Places, Standing};
use super::{PUBLIC, say};
use crate::config;
use crate::link::{LinkConfig, Loss, retain};
use anyhow::{Context, Result, bail};
use dunlin_wire::DeviceId;
use dunlin_wire::topic::Topic;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Between two attempts: a network may take a while to come up.
const PAUSE: Duration = Duration::from_secs(1);

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
    let mark = format!("{}\n{}\n", addressee.device, addressee.broker).into_bytes();
    let mark = Change { place: places.reported(), bytes: mark, mode: Some(PUBLIC) };
    Disk::new().put(&[mark]).context("no broker was told")?;
    let report = mistakes.report().encode().context("the report")?;
    reached(&addressee, &report, within).await.context("no broker was told")?;
    say(&format!("the broker at {} was told", addressee.broker));
    Ok(())
}

/// Takes the report of an earlier file back, where there is one.
///
/// # Errors
/// It may still be there, and why; the next boot tries again.
pub(super) async fn all_is_well(places: &Places, standing: &Standing, within: Duration) -> Result<()> {
    let place = places.reported();
    let marked = match fs::read_to_string(&place) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| place.display().to_string()),
    };
    // What stood before this set-up is no use any more: the report is taken back with the credentials of now.
    let login = Standing::read(places)?.login().or_else(|| standing.login());
    let mut lines = marked.lines();
    let device = lines.next().and_then(|device| device.parse().ok());
    if let (Some(device), Some(broker)) = (device, lines.next()) {
        let addressee = Addressee { device, broker: broker.into(), login };
        let taken_back = reached(&addressee, &[], within).await;
        let context = "an earlier report of a wrong set-up may still be with the broker";
        match taken_back {
            Err(Missed { refused: false, .. }) => return taken_back.context(context),
            Err(refused) => say(&format!("{context}: {refused}")),
            Ok(()) => {}
        }
    }
    forget(&place)
}

fn forget(mark: &Path) -> Result<()> {
    Disk::new().remove(mark).with_context(|| mark.display().to_string())
}

/// Why a broker was not reached.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Missed {
    why: String,
    /// Whether trying again is of no use.
    refused: bool,
}

/// Tries until the broker has taken the message or refused it, or the time is over.
async fn reached(addressee: &Addressee, bytes: &[u8], within: Duration) -> Result<(), Missed> {
    let missed = |why: String, refused| Missed { why, refused };
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
