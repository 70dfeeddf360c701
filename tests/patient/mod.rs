//! Asking once more where a worker did not answer. A machine that is shared may take one core away for seconds: then control
//! says that the worker there is silent, and every test that is about something else asks again.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use crate::support::PATIENCE;

/// Whether control says that a worker was silent, or has as many commands before it as it takes.
pub(crate) fn is_silence(said: &str) -> bool {
    said.contains("did not answer within") || said.contains("commands waiting: try again")
}

/// Does it until it is as wanted.
#[track_caller]
pub(crate) fn until<T: std::fmt::Debug>(mut once: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let done = once();
        if wanted(&done) {
            return done;
        }
        assert!(begun.elapsed() < PATIENCE, "still {done:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The status and the body of the first answer that is no silent worker's. For what can be asked twice.
#[track_caller]
pub(crate) fn answered(ask: impl FnMut() -> (u16, String)) -> (u16, String) {
    until(ask, |(status, said)| *status != 503 || !is_silence(said))
}

/// The same, of one request on the control socket.
#[track_caller]
pub(crate) fn request(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    answered(|| crate::support::request(socket, method, path, body).unwrap())
}

/// The lines of JSON that came of a listing, and whether that was all: one that a silent worker cut short has no end.
pub(crate) fn listed(socket: &Path, path: &str) -> (Vec<serde_json::Value>, bool) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let lines = answer.lines().filter(|line| line.starts_with('{'));
    (lines.map(|line| serde_json::from_str(line).unwrap()).collect(), answer.ends_with("0\r\n\r\n"))
}
