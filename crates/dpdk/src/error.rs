//! What can go wrong at start, as sentences with the fix in them. Packets never meet these.

use std::ffi::CStr;

/// Why DPDK, a device, a pool or a ring cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("DPDK already runs in this process: start it once and hand on its handle")]
    AlreadyStarted,
    #[error("EAL option `{option}`: {why}")]
    Option { option: String, why: String },
    #[error("DPDK did not start: {why}")]
    Start { why: String },
    #[error(
        "DPDK found no memory ({why}): reserve hugepages with `echo {pages} > \
         /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`, or run without (slower)"
    )]
    StartMemory { why: String, pages: u32 },
    #[error(
        "`{given}` is no device: write a PCI address such as 0000:03:00.0, or a virtual device such as \
         net_tap0,iface=ct0"
    )]
    DeviceName { given: String },
    #[error("device {device} cannot be used: {why}")]
    Device { device: String, why: String },
    #[error("port {port} has {have} {side} queues, {want} are needed: lower the number of workers")]
    TooFewQueues { port: String, side: &'static str, have: u16, want: u16 },
    #[error("port {port} takes an MTU of {min} to {max} bytes, not {want}: change `mtu`")]
    Mtu { port: String, min: u16, max: u16, want: u16 },
    #[error("port {port} already runs: give its queues back first")]
    Running { port: String },
    #[error("port {port} does not run: start it first")]
    NotRunning { port: String },
    #[error(
        "port {port} cannot be stopped, {queues} of its queues are in use: have the workers leave it first"
    )]
    QueuesInUse { port: String, queues: u32 },
    #[error(
        "port {port} would not start again once it is stopped, by its driver {driver}: take its interface down and up \
         instead"
    )]
    OneStart { port: String, driver: String },
    #[error("port {port}: {step} failed: {why}")]
    Port { port: String, step: &'static str, why: String },
    #[error(
        "no memory for {mbufs} buffers of {data_room} bytes ({need_mib} MiB in all): give DPDK more memory, or lower \
         the number of buffers"
    )]
    PoolMemory { mbufs: u32, data_room: u16, need_mib: usize },
    #[error("buffer pool `{name}` cannot be made: {why}")]
    Pool { name: String, why: String },
    #[error("ring `{name}` of {capacity} frames cannot be made: {why}")]
    Ring { name: String, capacity: u32, why: String },
    #[error(
        "this thread cannot be registered with DPDK ({why}): a process has at most 128 such threads, less EAL's own"
    )]
    Thread { why: String },
    #[error("DPDK does not take the telemetry command `{command}`: {why}")]
    Telemetry { command: &'static str, why: String },
    #[error("`{text}` holds a NUL byte, which DPDK cannot take")]
    Nul { text: String },
}

/// DPDK's words for an errno, given as returned (negative) or as in `rte_errno`.
pub(crate) fn words(errno: i32) -> String {
    // SAFETY: rte_strerror takes any number and gives a static or thread-local NUL-terminated text.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno.abs())) };
    text.to_string_lossy().into_owned()
}

/// The calling thread's `rte_errno`.
pub(crate) fn last() -> i32 {
    // SAFETY: reads a thread-local number.
    unsafe { dpdk_sys::dpdk_errno() }
}

/// A C string of `text`.
pub(crate) fn c_string(text: &str) -> Result<std::ffi::CString, Error> {
    std::ffi::CString::new(text).map_err(|_| Error::Nul { text: text.replace('\0', "\\0") })
}
