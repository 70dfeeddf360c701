//! Questions to a running appliance: HTTP over its unix socket. Knows the way, not what is asked.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::control::schema::{Info, Problem};

/// How long the appliance may take to begin its answer; its own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer that is not a stream.
const ANSWER_BYTES: usize = 16 << 20;

/// The longest line of a stream.
const LINE_BYTES: usize = 1 << 20;

/// A client of one appliance, with a runtime of its own.
pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    socket: String,
}

/// Why reading lines came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The appliance ended it.
    Stream,
    /// SIGINT or SIGTERM.
    Signal,
    Time,
    /// The reader wanted no more.
    Enough,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Result<Self, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
                Failure::Failed(format!(
                    "no runtime can be started ({error}): the system is out of resources"
                ))
            })?;
        Ok(Self { runtime, socket: socket.display().to_string() })
    }

    /// Reads one JSON value.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.whole(Method::GET, path, Bytes::new())
    }

    /// Sends a JSON value and reads one.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Failed(error.to_string()))?;
        self.whole(method, path, body.into())
    }

    /// Reads a text.
    pub(super) fn text(&self, path: &str) -> Result<String, Failure> {
        self.runtime.block_on(async {
            let response = self.ask(Method::GET, path, Bytes::new()).await?;
            Ok(String::from_utf8_lossy(&collect(response).await?).into_owned())
        })
    }

    /// The process that listens there; none where it has no number in this namespace of processes.
    pub(super) fn process(&self) -> Result<Option<u32>, Failure> {
        let peer =
            self.runtime.block_on(async { Ok::<_, Failure>(self.connect().await?.peer_cred().ok()) })?;
        Ok(peer.and_then(|peer| u32::try_from(peer.pid()?).ok()).filter(|process| *process != 0))
    }

    /// Which appliance answers.
    pub(super) fn info(&self) -> Result<Info, Failure> {
        self.get("/v1/info")
    }

    /// Reads lines of JSON as they come, until the appliance ends the stream.
    pub(super) fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        on_line: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(self.read_lines(Method::GET, path, Bytes::new(), on_line))
    }

    /// As [`Client::lines`], of what a request with a body did.
    pub(super) fn send_lines<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        on_line: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Failed(error.to_string()))?;
        self.runtime.block_on(self.read_lines(method, path, body.into(), on_line))
    }

    /// As [`Client::lines`], until SIGINT or SIGTERM: gives whether that came first.
    pub(super) fn lines_until_signal<T: DeserializeOwned>(
        &self,
        path: &str,
        on_line: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        self.runtime.block_on(async {
            tokio::select! {
                // First, so that signals are waited for before anything is asked.
                biased;
                asked = asked_to_end() => asked.map(|()| true),
                ended = self.read_lines(Method::GET, path, Bytes::new(), on_line) => ended.map(|()| false),
            }
        })
    }

    /// As [`Client::lines`], until one of [`Ended`]; `on_line` says whether it wants more.
    pub(super) fn lines_while<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Option<Duration>,
        mut on_line: impl FnMut(T) -> Result<bool, Failure>,
    ) -> Result<Ended, Failure> {
        let enough = std::cell::Cell::new(false);
        let until_enough = |line| match on_line(line) {
            Ok(true) => Ok(()),
            Ok(false) => {
                enough.set(true);
                Err(Failure::NothingMatched)
            }
            Err(error) => Err(error),
        };
        self.runtime.block_on(async {
            let over = async {
                match patience {
                    Some(patience) => tokio::time::sleep(patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                asked = asked_to_end() => asked.map(|()| Ended::Signal),
                () = over => Ok(Ended::Time),
                ended = self.read_lines(Method::GET, path, Bytes::new(), until_enough) => match ended {
                    Ok(()) => Ok(Ended::Stream),
                    Err(_) if enough.get() => Ok(Ended::Enough),
                    Err(error) => Err(error),
                },
            }
        })
    }

    async fn read_lines<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        mut on_line: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut body = self.ask(method, path, body).await?.into_body();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken_off(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            rest.extend_from_slice(data);
            let mut done = 0;
            while let Some(len) = rest[done..].iter().position(|&byte| byte == b'\n') {
                on_line(read(&rest[done..done + len])?)?;
                done += len + 1;
            }
            rest.drain(..done);
            if rest.len() > LINE_BYTES {
                return Err(Failure::Failed(
                    "the answer has a line without an end: is the socket another program's?".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn whole<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let response = self.ask(method, path, body).await?;
            read(&collect(response).await?)
        })
    }

    /// Sends a request; an answer that is not a success becomes its own sentence.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let answer =
            tokio::time::timeout(PATIENCE, self.request(method, path, body)).await.map_err(|_| {
                Failure::Failed(format!(
                    "no answer within {} s: the appliance hangs or is overloaded",
                    PATIENCE.as_secs()
                ))
            })??;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = collect(answer).await?;
        let sentence = match serde_json::from_slice::<Problem>(&text) {
            Ok(problem) => problem.error,
            Err(_) => {
                format!("the answer is {status}: are this program and the appliance of the same version?")
            }
        };
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Failure::Usage(sentence),
            _ => Failure::Failed(sentence),
        })
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Failure::Failed(format!(
                "{} may not be opened by this user: run with sudo, or join the socket's group",
                self.socket
            )),
            _ => Failure::NotRunning(self.socket.clone()),
        })
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken_off(&error))?;
        // It ends with the body; an error on it also shows in the body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "localhost")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::Failed(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| broken_off(&error))
    }
}

/// Waits for SIGINT (Ctrl-C) or SIGTERM (`timeout`, a service's stop). Both end a stream in order, as `conntrack -E` takes
/// them: what was begun is closed, how much was shown is said, and the exit code is 0.
async fn asked_to_end() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("signals cannot be received: {error}"));
    // Before the flags: a signal that only these take would be heard by nobody.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // The first may find us writing to a pipe that nobody reads: the second does what it would do by itself.
    let second = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        flag::register_conditional_default(number, Arc::clone(&second)).map_err(failed)?;
        flag::register(number, Arc::clone(&second)).map_err(failed)?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = tokio::time::timeout(PATIENCE, Limited::new(response.into_body(), ANSWER_BYTES).collect())
        .await
        .map_err(|_| Failure::Failed("the answer does not end: the appliance hangs".to_owned()))?;
    Ok(body.map_err(|error| broken_off(&*error))?.to_bytes())
}

fn broken_off(error: &dyn std::error::Error) -> Failure {
    Failure::Failed(format!(
        "the answer broke off ({error}): the appliance stopped or gave this reader up; ask again"
    ))
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|error| {
        Failure::Failed(format!(
            "the answer is strange ({error}): this program and the appliance are of different versions"
        ))
    })
}
