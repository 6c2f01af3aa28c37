//! What a program tells the service manager that started it (systemd): that it is ready, what it is about, that it
//! stops, and, as long as its loop works, that it lives.
//!
//! Invariants:
//! - The watchdog is fed by nobody but the loop, when it [passes](Service::pass): no timer, no thread of its own.
//! - It isn't fed while a worker owes the loop something and has not moved for longer than [`Service::patience`].
//! - Without a service manager nothing is said and nothing is different.

mod watchdog;

use dunlin_hlm::time::{Duration, Instant};
use sd_notify::NotifyState;
use std::io;
use std::path::{Path, PathBuf};
use tracing::{error, warn};
use watchdog::{Fed, Watchdog};

/// The password for the broker among a service's credentials.
pub const MQTT_PASSWORD: &str = "dunlin.mqtt-password";

/// How the manager is told.
pub type Tell = Box<dyn FnMut(&[NotifyState<'_>]) -> io::Result<()> + Send>;

/// The service manager's ear.
pub struct Service {
    tell: Option<Tell>,
    watchdog: Option<Watchdog>,
    status: String,
    ready: bool,
    /// Whether it was said that the manager can't be told.
    complained: bool,
}

impl Service {
    /// A program that nobody manages.
    pub fn unmanaged() -> Self {
        Self { tell: None, watchdog: None, status: String::new(), ready: false, complained: false }
    }

    /// What the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` where the manager wants signs of life.
    pub fn from_environment() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::unmanaged();
        }
        let limit = sd_notify::watchdog_enabled().and_then(|limit| u64::try_from(limit.as_micros()).ok());
        Self::managed(Box::new(sd_notify::notify), limit.map(Duration))
    }

    /// A manager that is told with `tell`, and wants a sign of life within every `limit`.
    pub fn managed(tell: Tell, limit: Option<Duration>) -> Self {
        Self { tell: Some(tell), watchdog: limit.map(Watchdog::new), ..Self::unmanaged() }
    }

    /// The same service, whose worker may go without moving for so long while it owes something.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.patience = patience;
        }
        self
    }

    /// When the loop should [pass](Self::pass) again, whatever else it waits for.
    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().filter(|_| self.ready).map(Watchdog::deadline)
    }

    /// The loop passes. The first time it says that the program is ready; later it feeds the watchdog where that is
    /// due. `owed` is how far the worker has come, any number that changes as it moves, where it owes something.
    pub fn pass(&mut self, owed: Option<u64>, now: Instant) {
        if !self.ready {
            self.ready = true;
            self.tell(&[NotifyState::Ready]);
        }
        match self.watchdog.as_mut().map(|watchdog| watchdog.pass(owed, now)) {
            Some(Fed::Yes) => self.tell(&[NotifyState::Watchdog]),
            Some(Fed::Stuck) => error!("a worker is stuck; the watchdog is not fed until it moves"),
            Some(Fed::NotDue | Fed::StillStuck) | None => {}
        }
    }

    /// Says in a line what the program is about, where that is news.
    pub fn status(&mut self, text: &str) {
        if self.status != text {
            self.status = text.into();
            self.tell(&[NotifyState::Status(text)]);
        }
    }

    /// Says that the program is about to end.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// A manager that can't be reached restarts the program by itself, if it wants to.
    fn tell(&mut self, news: &[NotifyState<'_>]) {
        let Some(tell) = &mut self.tell else { return };
        if let Err(error) = tell(news)
            && !std::mem::replace(&mut self.complained, true)
        {
            warn!("the service manager can't be told: {error}");
        }
    }
}

/// Where a credential of this service is, as the manager keeps them; it need not be there.
pub fn credential(name: &str) -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|dir| PathBuf::from(dir).join(name))
}

/// What a password's file says, without its line end.
///
/// # Errors
/// The file can't be read.
pub fn secret(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn recorded(limit: Option<Duration>) -> (Service, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = said.clone();
        let tell: Tell = Box::new(move |news| {
            to.lock().unwrap().extend(news.iter().map(ToString::to_string));
            Ok(())
        });
        (Service::managed(tell, limit), said)
    }

    #[test]
    fn ready_is_said_at_the_first_pass_and_a_status_once() {
        let (mut service, said) = recorded(None);
        service.status("looking");
        service.pass(None, Instant(0));
        service.status("looking");
        service.pass(None, Instant(9_000_000));
        service.status("found");
        service.stopping();
        assert_eq!(*said.lock().unwrap(), ["STATUS=looking", "READY=1", "STATUS=found", "STOPPING=1"]);
        assert_eq!(service.deadline(), None, "nobody wants signs of life");
    }

    #[test]
    fn the_loop_is_woken_to_feed_only_once_it_works() {
        let (mut service, said) = recorded(Some(Duration(10)));
        assert_eq!(service.deadline(), None);
        service.pass(None, Instant(0));
        assert_eq!(service.deadline(), Some(Instant(5)));
        service.pass(None, Instant(5));
        assert_eq!(*said.lock().unwrap(), ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    }

    #[test]
    fn a_manager_that_is_gone_changes_nothing() {
        let tell: Tell = Box::new(|_| Err(io::ErrorKind::NotFound.into()));
        let mut service = Service::managed(tell, Some(Duration(10)));
        service.pass(None, Instant(0));
        assert_eq!(service.deadline(), Some(Instant(5)));
        let mut nobody = Service::unmanaged();
        nobody.pass(None, Instant(0));
        assert_eq!(nobody.deadline(), None);
    }
}
