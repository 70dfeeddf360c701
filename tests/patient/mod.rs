//! Doing it once more. A machine that is shared may take one core away for seconds: then control says that the worker there
//! is silent, and every test that is about something else asks again.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::{Duration, Instant};

use crate::support::PATIENCE;

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
