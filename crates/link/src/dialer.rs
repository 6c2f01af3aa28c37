//! One connection after another, with growing pauses between them.

use crate::backoff::Backoff;
use crate::connection::{Arrivals, connect};
use crate::generation;
use crate::options::{ConnectOptions, Will};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::time::sleep;

/// Opens the connections of one program, each with its own generation.
pub struct Dialer {
    options: ConnectOptions,
    backoff: Backoff,
    generation: u32,
    dialled: Instant,
    /// True once the broker has accepted the last connection.
    accepted: Arc<AtomicBool>,
}

impl Dialer {
    /// Waits, at most an eighth of a second, until the first generation is greater than every earlier one.
    pub async fn start(options: ConnectOptions) -> Self {
        let generation = generation::first().await;
        Self {
            options,
            backoff: Backoff::default(),
            generation,
            dialled: Instant::now(),
            accepted: Arc::default(),
        }
    }

    /// The generation of the next connection, greater than that of every earlier one.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Connects; the broker publishes `will` if the connection is lost.
    pub fn dial(&mut self, will: Option<Will>) -> Arrivals {
        self.dialled = Instant::now();
        let arrivals = connect(&self.options, will);
        self.accepted = arrivals.accepted();
        arrivals
    }

    /// Waits after a lost connection until the next one may be opened.
    pub async fn pause(&mut self) {
        let accepted = self.accepted.load(Ordering::Relaxed);
        sleep(self.backoff.pause(self.dialled, Instant::now(), accepted)).await;
        self.generation = generation::next(self.generation).await;
    }
}
