//! Requests and answers over HTTP/1.1, with a time-out and a bound on an answer's size.

use crate::settings::Base;
use dunlin_lm::Result;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error as _;
use std::time::Duration;
use tokio::time::timeout;

/// Largest answer of a server, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest part of a server's text that an error shows, in characters.
const EXCERPT_CHARS: usize = 200;

/// A client of one server.
#[derive(Debug)]
pub(crate) struct HttpClient {
    client: Connection,
    base: String,
    key: Option<HeaderValue>,
    timeout: Duration,
}

#[derive(Debug)]
enum Connection {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// The outcome of one attempt.
pub(crate) type Attempt<T> = std::result::Result<T, Fault>;

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    /// True if the same request may succeed later: the server is unreachable, overloaded or restarting.
    pub(crate) passing: bool,
    /// The pause that the server asked for.
    pub(crate) pause: Option<Duration>,
    /// The status of the answer, if there was one.
    pub(crate) status: Option<u16>,
}

impl Fault {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passing: true, pause: None, status: None }
    }

    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { passing: false, ..Self::passing(reason) }
    }
}

impl HttpClient {
    /// A client without a connection.
    ///
    /// # Errors
    /// The system's certificates can't be read, and the address needs them.
    pub(crate) fn new(base: &Base, key: Option<HeaderValue>, timeout: Duration) -> Result<Self> {
        let builder = Client::builder(TokioExecutor::new());
        let client = if base.tls {
            let roots = HttpsConnectorBuilder::new().with_native_roots();
            let roots = roots.map_err(|error| {
                crate::settings::refused(format!("the system's certificates, needed for https: {error}"))
            })?;
            Connection::Tls(builder.build(roots.https_only().enable_http1().build()))
        } else {
            Connection::Plain(builder.build_http())
        };
        Ok(Self { client, base: base.url.clone(), key, timeout })
    }

    /// The body of a successful GET.
    pub(crate) async fn get(&self, path: &str) -> Attempt<Bytes> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// The body of a successful POST of JSON.
    pub(crate) async fn post(&self, path: &str, body: Bytes) -> Attempt<Bytes> {
        self.send(Method::POST, path, body).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Attempt<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        let request = request.body(Full::new(body)).map_err(|e| Fault::lasting(e.to_string()))?;
        let within = self.timeout;
        timeout(within, self.exchange(request, path)).await.unwrap_or_else(|_| {
            Err(Fault::passing(format!("{}{path}: no answer within {} s", self.base, within.as_secs())))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, path: &str) -> Attempt<Bytes> {
        let place = format!("{}{path}", self.base);
        let answer = match &self.client {
            Connection::Plain(client) => client.request(request).await,
            Connection::Tls(client) => client.request(request).await,
        };
        let answer = answer.map_err(|error| Fault::passing(format!("{place}: {}", causes(&error))))?;
        let status = answer.status();
        let pause = answer.headers().get(RETRY_AFTER).and_then(seconds);
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Fault::lasting(format!(
                    "{place}: an answer of more than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            Err(error) => return Err(Fault::passing(format!("{place}: the answer broke off: {error}"))),
        };
        if status.is_success() {
            return Ok(body);
        }
        let reason = format!("{place}: {}", refusal(status, &body));
        Err(Fault { reason, passing: is_passing(status), pause, status: Some(status.as_u16()) })
    }
}

/// An error with its causes, which hyper keeps apart.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// True for the statuses of a server that is overloaded, starting, or behind a proxy that can't reach it.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS]
            .contains(&status)
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let advice = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => " (the key: see remote.key_file)",
        StatusCode::NOT_FOUND => " (see remote.url, remote.kind and remote.model)",
        _ if status.is_redirection() => " (name the address that it redirects to as remote.url)",
        _ => "",
    };
    format!("status {}{advice}: \"{}\"", status.as_u16(), excerpt(body))
}

/// The beginning of a server's text, escaped.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT_CHARS)]);
    let shown: String = text.chars().take(EXCERPT_CHARS).collect();
    let shown = shown.escape_debug();
    if text.chars().count() > EXCERPT_CHARS { format!("{shown}…") } else { shown.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        for (status, passing) in [
            (400, false),
            (401, false),
            (404, false),
            (408, true),
            (422, false),
            (425, true),
            (429, true),
            (301, false),
            (500, true),
            (502, true),
            (503, true),
        ] {
            assert_eq!(is_passing(StatusCode::from_u16(status).unwrap()), passing, "{status}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_moves_no_cursor() {
        assert_eq!(excerpt(b"a\x1b[2J\"b\n"), "a\\u{1b}[2J\\\"b\\n");
        let long = excerpt("\u{e9}".repeat(5000).as_bytes());
        assert_eq!((long.chars().count(), long.ends_with('…')), (EXCERPT_CHARS + 1, true));
    }

    #[test]
    fn a_refusal_tells_what_to_look_at() {
        let of = |status| refusal(StatusCode::from_u16(status).unwrap(), b"{\"error\":1}");
        assert_eq!(of(401), "status 401 (the key: see remote.key_file): \"{\\\"error\\\":1}\"");
        assert!(of(404).contains("remote.model") && of(307).contains("redirects"));
        assert_eq!(of(500), "status 500: \"{\\\"error\\\":1}\"");
    }
}
