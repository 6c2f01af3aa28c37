//! Messages to the service manager that started the program (systemd): ready, status, stopping and, as long as the loop
//! works, the watchdog's keep-alive.
//!
//! Invariants:
//! - Only the loop feeds the watchdog, when it [passes](Service::pass). There is no timer and no thread for it.
//! - The watchdog isn't fed while a worker owes a result and has made no progress for longer than
//!   [`Service::patience`].
//! - Without a service manager, no message is sent and nothing else changes.

mod findings;
mod loading;
mod watchdog;

use dunlin_hlm::time::{Duration, Instant};
pub use findings::Findings;
pub use loading::LoadingView;
use sd_notify::NotifyState;
use std::io;
use std::path::PathBuf;
use tracing::{error, warn};
use watchdog::{Fed, Watchdog};

/// Sends a message to the manager.
pub type Tell = Box<dyn FnMut(&[NotifyState<'_>]) -> io::Result<()> + Send>;

/// The connection to the service manager.
pub struct Service {
    tell: Option<Tell>,
    watchdog: Option<Watchdog>,
    status: String,
    ready: bool,
    /// True once a failed message was logged.
    complained: bool,
}

impl Service {
    /// A program without a service manager.
    pub fn unmanaged() -> Self {
        Self { tell: None, watchdog: None, status: String::new(), ready: false, complained: false }
    }

    /// The service of the environment: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` if the manager requires keep-alives.
    pub fn from_environment() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::unmanaged();
        }
        let limit = sd_notify::watchdog_enabled().and_then(|limit| u64::try_from(limit.as_micros()).ok());
        Self::managed(Box::new(sd_notify::notify), limit.map(Duration))
    }

    /// A service that sends messages with `tell`, and must send a keep-alive within every `limit`.
    pub fn managed(tell: Tell, limit: Option<Duration>) -> Self {
        Self { tell: Some(tell), watchdog: limit.map(Watchdog::new), ..Self::unmanaged() }
    }

    /// Sets how long the worker may make no progress while it owes a result.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.patience = patience;
        }
        self
    }

    /// The time of the next required [pass](Self::pass).
    pub fn deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().filter(|_| self.ready).map(Watchdog::deadline)
    }

    /// Records a pass of the loop. The first pass reports that the program is ready; every pass feeds the watchdog if
    /// it is due. `owed` is the worker's progress if it owes a result: any number that changes with progress.
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

    /// Sends the status, a line of text, if it changed.
    pub fn status(&mut self, text: &str) {
        if self.status != text {
            self.status = text.into();
            self.tell(&[NotifyState::Status(text)]);
        }
    }

    /// Reports that the program is about to end.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Sends a message. An error is only logged, once: if messages don't arrive, the manager restarts the program.
    fn tell(&mut self, news: &[NotifyState<'_>]) {
        let Some(tell) = &mut self.tell else { return };
        if let Err(error) = tell(news)
            && !std::mem::replace(&mut self.complained, true)
        {
            warn!("can't reach the service manager: {error}");
        }
    }
}

/// The path of a credential of this service; the file may be missing.
pub fn credential(name: &str) -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|dir| PathBuf::from(dir).join(name))
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
