//! DPDK's environment: started once a process, from arguments that were checked first, and taken down when
//! everything made from it has come home. Owns the arguments and the list of pools; sees no device.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;

use crate::error::{self, Error};
use crate::log;
use crate::port::Device;

/// How DPDK is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CPUs that EAL's main thread and its helpers (link interrupts, telemetry) stay on; empty for CPU 0.
    /// Workers are the caller's own threads, see [`Handle::register_thread`].
    pub control_cpus: Vec<usize>,
    /// MiB taken at start; devices and pools live in it.
    pub memory_mib: u32,
    /// Memory in hugepages, without files in hugetlbfs; else ordinary memory, for trials and tests.
    pub hugepages: bool,
    /// Every device that will be opened. Others are left alone.
    pub devices: Vec<Device>,
    /// Answer `dpdk-telemetry.py` on its socket below /run or $XDG_RUNTIME_DIR.
    pub telemetry: bool,
    /// Arguments for EAL as an operator writes them; they win over those above.
    pub extra: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            control_cpus: Vec::new(),
            memory_mib: 256,
            hugepages: true,
            devices: Vec::new(),
            telemetry: false,
            extra: Vec::new(),
        }
    }
}

/// EAL options that take no value, as 22.11 and later know them; then those that do, and those with a value behind
/// `=` only. EAL answers anything else with a page of usage.
const FLAGS: &[&str] = &[
    "-v",
    "--create-uio-dev",
    "--in-memory",
    "--legacy-mem",
    "--match-allocations",
    "--no-hpet",
    "--no-huge",
    "--no-pci",
    "--no-shconf",
    "--no-telemetry",
    "--single-file-segments",
    "--telemetry",
    "--vmware-tsc-map",
];
const VALUED: &[&str] = &[
    "-a",
    "-b",
    "-c",
    "-d",
    "-l",
    "-m",
    "-n",
    "-r",
    "-s",
    "-S",
    "--allow",
    "--base-virtaddr",
    "--block",
    "--file-prefix",
    "--force-max-simd-bitwidth",
    "--huge-dir",
    "--iova-mode",
    "--lcores",
    "--log-level",
    "--main-lcore",
    "--mbuf-pool-ops-name",
    "--socket-limit",
    "--socket-mem",
    "--trace",
    "--trace-bufsz",
    "--trace-dir",
    "--trace-mode",
    "--vdev",
    "--vfio-intr",
    "--vfio-vf-token",
];
const OPTIONAL_VALUE: &[&str] = &["--huge-unlink", "--huge-worker-stack", "--syslog"];

/// The options named in `extra`, each with its value.
fn parse_extra(extra: &[String]) -> Result<Vec<(&str, Option<&str>)>, Error> {
    let refuse = |option: &str, why: &str| Error::Option { option: option.to_owned(), why: why.to_owned() };
    let mut options = Vec::new();
    let mut words = extra.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--" {
            return Err(refuse(word, "the appliance has no options of its own behind EAL's"));
        }
        if matches!(word, "-h" | "--help") {
            return Err(refuse(word, "see https://doc.dpdk.org/guides/linux_gsg/linux_eal_parameters.html"));
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            // -m512, -l1-3
            _ if word.len() > 2
                && word.starts_with('-')
                && !word.starts_with("--")
                && word.is_char_boundary(2) =>
            {
                (&word[..2], Some(&word[2..]))
            }
            _ => (word, None),
        };
        if name == "--proc-type" {
            return Err(refuse(name, "the appliance is always a primary process"));
        }
        let option = if FLAGS.contains(&name) {
            if value.is_some() {
                return Err(refuse(word, "takes no value"));
            }
            (name, None)
        } else if OPTIONAL_VALUE.contains(&name) {
            (name, value)
        } else if VALUED.contains(&name) {
            let value = match value {
                Some(value) => value,
                None => words.next().ok_or_else(|| refuse(name, "needs a value"))?,
            };
            if value.is_empty() {
                return Err(refuse(name, "needs a value"));
            }
            (name, Some(value))
        } else {
            return Err(refuse(word, "EAL has no such option"));
        };
        options.push(option);
    }
    Ok(options)
}

impl Config {
    /// The arguments that EAL gets, after the program's name.
    pub fn args(&self) -> Result<Vec<String>, Error> {
        let extra = parse_extra(&self.extra)?;
        let given = |names: &[&str]| extra.iter().any(|(name, _)| names.contains(name));
        let mut args: Vec<String> = Vec::new();

        if !given(&["-c", "-l", "--lcores"]) {
            let cpus: Vec<String> = self.control_cpus.iter().map(usize::to_string).collect();
            let cpus = if cpus.is_empty() { "0".to_owned() } else { cpus.join(",") };
            args.push("--lcores".into());
            args.push(format!("0@({cpus})"));
        }

        let no_huge = given(&["--no-huge"]) || (!self.hugepages && !given(&["--in-memory"]));
        if no_huge {
            if let Some((option, _)) = extra.iter().find(|(name, _)| {
                ["--in-memory", "--huge-dir", "--socket-mem", "--legacy-mem"].contains(name)
            }) {
                return Err(Error::Option {
                    option: (*option).to_owned(),
                    why: "EAL cannot do this without hugepages: leave it out, or use hugepages".into(),
                });
            }
            // EAL refuses --in-memory here: "Option --legacy-mem is not compatible".
            for flag in ["--no-huge", "--no-shconf"] {
                if !given(&[flag]) {
                    args.push(flag.into());
                }
            }
        } else if !given(&["--in-memory", "--legacy-mem", "--huge-dir", "--huge-unlink", "--file-prefix"]) {
            // Leaves no files behind, and needs neither a mount nor root.
            args.push("--in-memory".into());
        }
        if !given(&["-m", "--socket-mem"]) {
            args.push("-m".into());
            args.push(self.memory_mib.to_string());
        }
        if !self.telemetry && !given(&["--telemetry", "--no-telemetry"]) {
            args.push("--no-telemetry".into());
        }

        let pci: Vec<&Device> = self.devices.iter().filter(|device| device.pci().is_some()).collect();
        if given(&["-b", "--block"]) && !pci.is_empty() {
            return Err(Error::Option {
                option: "-b".into(),
                why: "only the devices in the configuration are used, there is nothing to block".into(),
            });
        }
        for device in &pci {
            args.push("-a".into());
            args.push(device.to_string());
        }
        if pci.is_empty() && !given(&["-a", "--allow", "-b", "--block", "--no-pci"]) {
            args.push("--no-pci".into());
        }
        args.extend(self.extra.iter().cloned());
        Ok(args)
    }
}

/// A pool that ends with EAL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolPtr(pub(crate) NonNull<sys::rte_mempool>);

// SAFETY: only counted and freed, under the lock that holds it.
unsafe impl Send for PoolPtr {}

#[derive(Debug)]
struct Shared {
    /// ethdev's control calls and the named objects' lists want one caller at a time.
    control: Mutex<()>,
    pools: Mutex<Vec<PoolPtr>>,
}

/// What everything made from EAL holds, so that it stays up. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// DPDK, running. Kept by the thread that started it; when it is dropped last, with every buffer back in its pool,
/// DPDK is taken down. If anything is still out, memory stays until the process ends.
#[derive(Debug)]
pub struct Eal {
    handle: Handle,
    _this_thread: PhantomData<*mut ()>,
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts DPDK. Its messages go to `sink` from here on, also those of the packet path's drivers; nothing of them
    /// reaches the terminal. Call it early, from the main thread: while EAL comes up, stdout and stderr are caught.
    pub fn start(config: &Config, sink: log::Sink) -> Result<Self, Error> {
        let args = config.args()?;
        let mut words = vec![CString::from(c"dpdk")];
        for arg in &args {
            words.push(error::c_string(arg)?);
        }
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyStarted);
        }
        log::capture(sink).map_err(|errno| Error::Start { why: error::words(errno) })?;
        log::forget();

        // EAL keeps pointers to its arguments for as long as the process runs.
        let words: &'static [CString] = words.leak();
        let argv: Vec<*mut c_char> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
        let argv: &'static mut [*mut c_char] = argv.leak();
        let mut said = vec![0_u8; 64 * 1024];
        // SAFETY: argc and argv describe NUL-terminated strings that live for ever, `said` has the room stated, and
        // STARTED lets this run once.
        let used = unsafe {
            sys::dpdk_eal_init_quiet(
                argv.len() as i32,
                argv.as_mut_ptr(),
                said.as_mut_ptr().cast(),
                said.len(),
            )
        };
        if used < 0 {
            return Err(start_error(config, error::last(), &said));
        }
        let shared = Shared { control: Mutex::new(()), pools: Mutex::new(Vec::new()) };
        Ok(Self { handle: Handle { shared: Arc::new(shared) }, _this_thread: PhantomData })
    }

    /// What pools, ports, rings and threads are made from.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// What DPDK logged as it failed, else the first line that it printed, else its errno's words.
fn start_error(config: &Config, errno: i32, said: &[u8]) -> Error {
    let printed = CStr::from_bytes_until_nul(said).map(CStr::to_string_lossy).unwrap_or_default();
    let first = printed.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("Usage"));
    let why = log::complaints().or_else(|| first.map(str::to_owned)).unwrap_or_else(|| error::words(errno));
    let lower = why.to_lowercase();
    let memory = ["hugepage", "init memory", "cannot allocate", "not enough memory"];
    if config.hugepages && memory.iter().any(|word| lower.contains(word)) {
        return Error::StartMemory { why, pages: config.memory_mib.div_ceil(2) };
    }
    Error::Start { why }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // A registered thread, a queue or a ring holds a handle, so being the only one means that no other thread has
        // a buffer cache of its own or is inside a driver.
        let Some(shared) = Arc::get_mut(&mut self.handle.shared) else { return };
        let pools = shared.pools.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the pools live until the cleanup below.
        if pools.iter().all(|pool| unsafe { sys::rte_mempool_in_use_count(pool.0.as_ptr()) } == 0) {
            // SAFETY: nothing made from EAL is left: no handle, no thread, no buffer.
            unsafe { sys::rte_eal_cleanup() };
        }
    }
}

impl Handle {
    /// Makes the calling thread one that DPDK knows, with buffer caches of its own, until the guard is dropped.
    /// Threads that never do this may use everything too, more slowly.
    pub fn register_thread(&self) -> Result<RegisteredThread, Error> {
        let _control = self.control();
        // SAFETY: EAL runs while this handle lives.
        match unsafe { sys::rte_thread_register() } {
            0 => Ok(RegisteredThread { eal: self.clone(), _this_thread: PhantomData }),
            _ => Err(Error::Thread { why: error::words(error::last()) }),
        }
    }

    /// Cycles of [`cycles`] in a second, as EAL measured at start.
    pub fn cycles_per_second(&self) -> u64 {
        // SAFETY: EAL runs while this handle lives.
        unsafe { sys::rte_get_tsc_hz() }
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, ()> {
        self.shared.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn adopt(&self, pool: PoolPtr) {
        self.shared.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }
}

/// See [`Handle::register_thread`].
#[derive(Debug)]
pub struct RegisteredThread {
    eal: Handle,
    _this_thread: PhantomData<*mut ()>,
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        let _control = self.eal.control();
        // SAFETY: this thread registered itself; the guard cannot leave it.
        unsafe { sys::rte_thread_unregister() }
    }
}

/// The CPU's cycle counter (TSC on x86).
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: reads a counter.
    unsafe {
        sys::dpdk_rdtsc()
    }
}

/// The release of DPDK that runs, such as `DPDK 22.11.11`.
pub fn version() -> String {
    // SAFETY: gives a static NUL-terminated text, before EAL starts too.
    unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
}

/// Whether the drivers are inside this program, rather than files that EAL loads.
pub const fn is_static() -> bool {
    cfg!(feature = "static")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &[&str]) -> Config {
        Config { extra: extra.iter().map(|word| (*word).to_owned()).collect(), ..Config::default() }
    }

    #[test]
    fn defaults_leave_no_files_and_touch_no_device() {
        let args = config(&[]).args().unwrap();
        assert_eq!(args, ["--lcores", "0@(0)", "--in-memory", "-m", "256", "--no-telemetry", "--no-pci"]);
    }

    #[test]
    fn without_hugepages_never_meets_in_memory() {
        let args = Config { hugepages: false, ..config(&[]) }.args().unwrap();
        assert!(args.contains(&"--no-huge".to_owned()) && args.contains(&"--no-shconf".to_owned()));
        assert!(!args.contains(&"--in-memory".to_owned()));
        let args = config(&["--no-huge"]).args().unwrap();
        assert_eq!(args.iter().filter(|word| *word == "--no-huge").count(), 1);
        assert!(!args.contains(&"--in-memory".to_owned()));
        let error = config(&["--no-huge", "--in-memory"]).args().unwrap_err();
        assert!(error.to_string().contains("without hugepages"), "{error}");
    }

    #[test]
    fn what_the_operator_says_replaces_ours() {
        let args = config(&["-l", "3", "-m512", "--telemetry"]).args().unwrap();
        assert_eq!(args, ["--in-memory", "--no-pci", "-l", "3", "-m512", "--telemetry"]);
    }

    #[test]
    fn only_the_devices_named_are_probed() {
        let devices = ["0000:03:00.0", "net_null0", "3b:00.0,mprq_en=1"].map(|text| text.parse().unwrap());
        let args = Config { devices: devices.to_vec(), ..config(&[]) }.args().unwrap();
        assert_eq!(args[args.len() - 4..], ["-a", "0000:03:00.0", "-a", "0000:3b:00.0,mprq_en=1"]);
        assert!(!args.contains(&"--no-pci".to_owned()));
    }

    #[test]
    fn an_option_that_eal_would_answer_with_its_usage_is_refused_here() {
        for (extra, want) in [
            (&["--no-such"][..], "no such option"),
            (&["-q"], "no such option"),
            (&["eth0"], "no such option"),
            (&["-m"], "needs a value"),
            (&["--file-prefix="], "needs a value"),
            (&["--no-pci=1"], "takes no value"),
            (&["--help"], "doc.dpdk.org"),
            (&["--proc-type=secondary"], "primary"),
            (&["-é"], "no such option"),
        ] {
            let error = config(extra).args().unwrap_err().to_string();
            assert!(error.contains(want), "{extra:?}: {error}");
        }
    }
}
