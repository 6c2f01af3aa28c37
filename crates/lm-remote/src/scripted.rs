//! A server with a script, for tests: speaks HTTP/1.1 on a port of this machine and answers as it is told.
//!
//! Invariant: a test waits for conditions and not for times. A silent answer lasts until the client leaves.

use crate::settings::ServerKind;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct ScriptedRequest {
    /// The path.
    pub path: String,
    /// The value of the header `authorization`.
    pub authorization: Option<String>,
    /// The body; null if it is no JSON.
    pub body: Value,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum ScriptedAnswer {
    /// Status 200 with JSON.
    Json(Value),
    /// A status, further lines of the head, and a body.
    Status(u16, &'static str, String),
    /// A head that promises more than is sent before the connection ends.
    Broken,
    /// Bytes that aren't HTTP.
    Garbage,
    /// No answer; the connection stays until the client ends it.
    Silent,
    /// No answer; the connection ends.
    Hangup,
}

type Script = dyn Fn(&ScriptedRequest) -> ScriptedAnswer + Send + Sync;

/// A running server; it ends when it is dropped.
pub struct ScriptedServer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    listener: Option<JoinHandle<()>>,
}

impl ScriptedServer {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start(
        script: impl Fn(&ScriptedRequest) -> ScriptedAnswer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script)
    }

    /// Starts a server at an address, such as that of one that ended.
    ///
    /// # Errors
    /// The address is in use.
    pub fn start_at(
        address: SocketAddr,
        script: impl Fn(&ScriptedRequest) -> ScriptedAnswer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (stopped, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let script: Arc<Script> = Arc::new(script);
        let accept = {
            let (stopped, connections) = (Arc::clone(&stopped), Arc::clone(&connections));
            move || {
                for stream in listener.incoming().flatten() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let held = stream.try_clone();
                    connections.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
                    let script = Arc::clone(&script);
                    // Ignore the error: it is how a connection ends.
                    thread::spawn(move || drop(serve(&stream, &*script)));
                }
            }
        };
        Ok(Self { address, stopped, connections, listener: Some(thread::spawn(accept)) })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is to end.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn serve(stream: &TcpStream, script: &Script) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(request) = read_request(&mut reader)? {
        match script(&request) {
            ScriptedAnswer::Json(body) => write_answer(&mut writer, 200, "", &body.to_string())?,
            ScriptedAnswer::Status(status, head, body) => write_answer(&mut writer, status, head, &body)?,
            ScriptedAnswer::Broken => {
                writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"cho")?;
                return stream.shutdown(Shutdown::Both);
            }
            ScriptedAnswer::Garbage => {
                writer.write_all(b"\x00\xff not HTTP\r\n\r\n")?;
                return stream.shutdown(Shutdown::Both);
            }
            ScriptedAnswer::Silent => return reader.read(&mut [0]).map(drop),
            ScriptedAnswer::Hangup => return stream.shutdown(Shutdown::Both),
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<ScriptedRequest>> {
    let mut request = ScriptedRequest::default();
    let (mut line, mut length) = (String::new(), 0);
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap_or(0);
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                request.authorization = Some(value.trim().to_owned());
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length.min(BODY_BYTES_MAX)];
    reader.read_exact(&mut body)?;
    request.body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(request))
}

fn write_answer(writer: &mut impl Write, status: u16, head: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(writer, "HTTP/1.1 {status} Scripted\r\n{head}content-length: {length}\r\n\r\n{body}")
}

/// The script of a server whose model chooses `next(prefix)`.
#[derive(Clone, Copy, Debug)]
pub struct ScriptedModel {
    /// The server's program.
    pub kind: ServerKind,
    /// Its model's name.
    pub name: &'static str,
    /// Tokens in its vocabulary.
    pub vocabulary: u32,
    /// The longest context that it reports.
    pub context: u32,
    /// The token that ends its texts.
    pub eos: u32,
    /// True for a server that draws with a request's seed.
    pub deterministic: bool,
    /// The token behind a prefix.
    pub next: fn(&[u32]) -> u32,
}

impl ScriptedModel {
    /// The answer to a request; `tokens` has those of the text that the server is asked to tokenise.
    pub fn answer(&self, request: &ScriptedRequest, tokens: impl Fn(&str) -> Vec<u32>) -> ScriptedAnswer {
        let Self { kind, name, context, vocabulary, .. } = *self;
        let body = &request.body;
        ScriptedAnswer::Json(match (kind, request.path.as_str()) {
            (ServerKind::LlamaServer, "/v1/models") => {
                json!({ "data": [{ "id": name, "meta": { "n_vocab": vocabulary } }] })
            }
            (_, "/v1/models") => json!({ "data": [{ "id": name, "max_model_len": context }] }),
            (ServerKind::Vllm, "/version") => json!({ "version": "0.33.0" }),
            (ServerKind::Sglang, "/server_info") => json!({
                "version": "0.5.23",
                "weight_version": "w1",
                "enable_deterministic_inference": self.deterministic,
            }),
            (ServerKind::LlamaServer, "/props") => {
                json!({ "build_info": "b1", "default_generation_settings": { "n_ctx": context } })
            }
            (_, "/tokenize") => {
                let text = body.get("prompt").or(body.get("content")).and_then(Value::as_str);
                json!({ "tokens": tokens(text.unwrap_or_default()) })
            }
            (ServerKind::Vllm, "/v1/completions") => {
                json!({ "model": name, "choices": self.chosen(&body["prompt"], Self::vllm) })
            }
            (ServerKind::Sglang, "/generate") => self.chosen(&body["input_ids"], Self::sglang).into(),
            (ServerKind::LlamaServer, "/completion") => {
                let mut chosen = self.chosen(&body["prompt"], Self::llama_server);
                if chosen.len() == 1 { chosen.remove(0) } else { chosen.into() }
            }
            _ => return ScriptedAnswer::Status(404, "", "no such path".into()),
        })
    }

    fn chosen(&self, prompts: &Value, form: fn(&Self, usize, u32) -> Value) -> Vec<Value> {
        let prompts = prompts.as_array().map_or(&[][..], Vec::as_slice);
        let choice = |(index, prompt): (usize, &Value)| {
            let ids = prompt.as_array().map_or(&[][..], Vec::as_slice);
            let ids: Vec<u32> = ids.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect();
            form(self, index, (self.next)(&ids))
        };
        prompts.iter().enumerate().map(choice).collect()
    }

    fn vllm(&self, index: usize, token: u32) -> Value {
        let reason = if token == self.eos { "stop" } else { "length" };
        json!({ "index": index, "text": "", "token_ids": [token], "finish_reason": reason, "stop_reason": null })
    }

    fn sglang(&self, _: usize, token: u32) -> Value {
        let finish = match token == self.eos {
            true => json!({ "type": "stop", "matched": token }),
            false => json!({ "type": "length", "length": 1 }),
        };
        json!({ "output_ids": [token], "meta_info": { "finish_reason": finish, "weight_version": "w1" } })
    }

    fn llama_server(&self, index: usize, token: u32) -> Value {
        let stop = if token == self.eos { "eos" } else { "limit" };
        json!({ "index": index, "tokens": [token], "stop_type": stop, "truncated": false, "model": self.name })
    }
}
