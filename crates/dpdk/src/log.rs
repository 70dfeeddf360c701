//! DPDK's own messages: kept off the terminal, given to the caller one by one, and kept a while so that an error
//! can quote what DPDK said last.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dpdk_sys as sys;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// Receives each message, without its line end. Called from any thread that calls DPDK.
pub type Sink = fn(Level, &str);

static SINK: OnceLock<Sink> = OnceLock::new();
static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Complaints kept at most.
const KEPT: usize = 8;

/// What DPDK reports as a problem although nothing is wrong.
const HARMLESS: &[&str] = &[
    // Only one page size needs pages.
    "No free hugepages reported in hugepages-",
    "No available 1048576 kB hugepages reported",
    // net_tap asks for a queue discipline that it does without.
    "failed to create multiq qdisc",
    "Could not add multiq qdisc",
    "Specified qdisc kind is unknown",
    "Disabling rte flow support",
    // No secondary process runs, so none can be told.
    "Failed to send start req to secondary",
    // With --in-memory no mounted file system is needed.
    "mount hugetlbfs",
];

/// Takes over DPDK's log, from before its start until the process ends.
pub(crate) fn capture(sink: Sink) -> Result<(), i32> {
    SINK.get_or_init(|| sink);
    // SAFETY: on_message is a function of the type declared, and lives for ever.
    match unsafe { sys::dpdk_log_to(Some(on_message)) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// Forgets the complaints so far: what [`complaints`] gives next belongs to the call in between.
pub(crate) fn forget() {
    kept().clear();
}

/// What DPDK complained of since [`forget`], in order, each once; `None` if it said nothing.
pub(crate) fn complaints() -> Option<String> {
    let mut kept = kept();
    let mut all: Vec<String> = kept.drain(..).collect();
    all.dedup();
    (!all.is_empty()).then(|| all.join("; "))
}

fn kept() -> MutexGuard<'static, VecDeque<String>> {
    COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn level_of(dpdk: i32, text: &str) -> Level {
    let level = match u32::try_from(dpdk).unwrap_or(0) {
        0..=sys::RTE_LOG_ERR => Level::Error,
        sys::RTE_LOG_WARNING => Level::Warn,
        // Notices tell of every device found; infos of memory and files.
        sys::RTE_LOG_NOTICE => Level::Info,
        _ => Level::Debug,
    };
    if HARMLESS.iter().any(|known| text.contains(known)) { Level::Debug } else { level }
}

unsafe extern "C" fn on_message(level: i32, text: *const std::ffi::c_char, len: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: the shim hands on stdio's buffer of `len` bytes, which stays for this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let message = String::from_utf8_lossy(bytes);
    for line in message.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        let level = level_of(level, line);
        if level <= Level::Warn {
            let mut kept = kept();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            // "EAL: ", "TAP: " and so on tell the developer which file spoke.
            let plain = line.split_once(": ").map_or(line, |(_, rest)| rest).trim();
            kept.push_back(plain.to_owned());
        }
        if let Some(sink) = SINK.get() {
            sink(level, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_warnings_do_not_scare() {
        let said = "EAL: No free hugepages reported in hugepages-1048576kB";
        assert_eq!(level_of(sys::RTE_LOG_WARNING as i32, said), Level::Debug);
        assert_eq!(level_of(sys::RTE_LOG_WARNING as i32, "EAL: something new"), Level::Warn);
        assert_eq!(level_of(sys::RTE_LOG_ERR as i32, "EAL: something new"), Level::Error);
    }
}
