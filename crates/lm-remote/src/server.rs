//! A server: repeats requests that fail in passing, until patience ends.

use crate::backoff::{Backoff, OutageLog};
use crate::http::{Attempt, Fault, HttpClient, excerpt};
use crate::settings::RemoteSettings;
use dunlin_lm::Result;
use hyper::body::Bytes;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A server, and the patience with it.
#[derive(Debug)]
pub(crate) struct Server {
    client: HttpClient,
    pause: Duration,
    patience: Duration,
    outage: OutageLog,
}

impl Server {
    pub(crate) fn new(settings: &RemoteSettings) -> Result<Self> {
        let timeout = Duration::from_secs(settings.timeout_s);
        Ok(Self {
            client: HttpClient::new(&settings.base()?, settings.key()?, timeout)?,
            pause: settings.pause,
            patience: Duration::from_secs(settings.patience_s),
            outage: OutageLog::default(),
        })
    }

    /// The JSON of a GET.
    pub(crate) async fn get(&self, path: &str) -> Attempt<Value> {
        parse(path, &self.persist(path, None).await?)
    }

    /// The JSON of a POST.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Attempt<Value> {
        parse(path, &self.persist(path, Some(body.into())).await?)
    }

    /// The body of a POST's answer.
    pub(crate) async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Attempt<Bytes> {
        self.persist(path, Some(body.into())).await
    }

    /// Repeats a request until it is answered, fails for good, or patience ends.
    async fn persist(&self, path: &str, body: Option<Bytes>) -> Attempt<Bytes> {
        let (started, mut backoff, mut attempts) = (Instant::now(), Backoff::new(self.pause), 0u32);
        loop {
            let answer = match &body {
                Some(body) => self.client.post(path, body.clone()).await,
                None => self.client.get(path).await,
            };
            attempts += 1;
            let fault = match answer {
                Ok(answer) => {
                    self.outage.note_answer(Instant::now());
                    return Ok(answer);
                }
                Err(fault) if !fault.passing => return Err(fault),
                Err(fault) => fault,
            };
            self.outage.note_failure(&fault.reason, Instant::now());
            let pause = backoff.next(fault.pause);
            if started.elapsed() + pause >= self.patience {
                let seconds = self.patience.as_secs();
                let reason = format!("{}; given up after {attempts} attempts in {seconds} s", fault.reason);
                return Err(Fault { reason, ..fault });
            }
            sleep(pause).await;
        }
    }
}

fn parse(path: &str, body: &[u8]) -> Attempt<Value> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::lasting(format!("{path}: not JSON ({error}): \"{}\"", excerpt(body))))
}
