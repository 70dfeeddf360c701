//! The host, looked at before DPDK is: what `run` and the chosen devices need, in our own words, each with the
//! command that mends it. Reads /proc, /sys and /dev; changes nothing and starts nothing.

mod lasting;
mod runner;
mod running;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dpdk::port::Device;

use crate::memory::HUGE_PAGE_BYTES;

pub use runner::Runner;
pub use running::{Running, Taken};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    /// It will run, but not as well as it could, or something may surprise.
    Warn,
    /// It will not run.
    Fail,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a few words.
    pub what: String,
    pub status: Status,
    /// What was found, and the exact command that mends it if it must be mended.
    pub sentence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {}: {}", self.status, self.what, self.sentence)
    }
}

/// The gravest of `findings`.
pub fn worst(findings: &[Finding]) -> Status {
    findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
}

/// What the appliance is about to ask of the host.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Whether DPDK's memory is to be hugepages.
    pub hugepages: bool,
    /// MiB that DPDK takes.
    pub dpdk_mib: u32,
    /// Bytes of the tables of all workers.
    pub table_bytes: usize,
    /// Each port's name and device.
    pub devices: Vec<(String, Device)>,
    pub worker_cpus: Vec<usize>,
    /// Workers rest when there is nothing to do.
    pub workers_rest: bool,
    pub control_cpus: Vec<usize>,
    /// What runs now, and ends before.
    pub running: Option<Running>,
}

impl Needs {
    fn dpdk_bytes(&self) -> u64 {
        u64::from(self.dpdk_mib) << 20
    }

    /// Hugepages of 2 MB for all of it.
    fn pages(&self) -> u64 {
        let page = HUGE_PAGE_BYTES as u64;
        self.dpdk_bytes().div_ceil(page) + (self.table_bytes as u64).div_ceil(page)
    }
}

/// A machine's files, below some folder; `/` for this one.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// A kernel driver that lets user space have the device (DPDK's Linux guide, "Linux Drivers").
const USER_DRIVERS: &[&str] = &["vfio-pci", "uio_pci_generic", "igb_uio"];
/// NICs that DPDK shares with the kernel's driver.
const SHARED_DRIVERS: &[&str] = &["mlx4_core", "mlx5_core", "mana", "gve"];
/// Virtual devices of DPDK 22.11 and later that carry frames.
const VDEVS: &[&str] = &[
    "net_af_packet",
    "net_af_xdp",
    "net_bonding",
    "net_failsafe",
    "net_memif",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_tap",
    "net_tun",
    "net_vdev_netvsc",
    "net_vhost",
    "net_virtio_user",
];

/// Capabilities, by their numbers in capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_RAWIO: u32 = 17;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_NAMES: &[(u32, &str)] = &[
    (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    (CAP_NET_RAW, "CAP_NET_RAW"),
    (CAP_SYS_RAWIO, "CAP_SYS_RAWIO"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
];

/// Looks at everything that `needs` asks for.
pub fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    let mut report = Report::default();
    memory(host, needs, &mut report);
    cpus(host, needs, &mut report);
    for (at, (port, device)) in needs.devices.iter().enumerate() {
        if let Some((twin, _)) = needs.devices[..at].iter().find(|(_, other)| other.name() == device.name()) {
            report.fail(
                port,
                format!("{} is the device of port `{twin}` already: give each port its own", device.name()),
            );
            continue;
        }
        match device {
            Device::Pci { address, .. } => pci(host, port, address, needs, &mut report),
            Device::Vdev { .. } => vdev(host, port, device, &mut report),
        }
    }
    report.findings
}

/// `auto` makes fewer workers than there are cores for, because the host has no memory for more.
pub fn fewer_workers(have: usize, could: usize) -> Finding {
    let sentence = format!(
        "auto makes {have} and not {could}, for which there is too little memory: lower `table.max_entries`, or reserve more \
         hugepages (`doctor` with `workers = {could}` says how many)"
    );
    Finding { what: "workers".to_owned(), status: Status::Warn, sentence }
}

/// What is to be known beyond one start. Nothing of it keeps the appliance from running now.
pub fn check_lasting(host: &Host, needs: &Needs) -> Vec<Finding> {
    lasting::check(host, needs)
}

#[derive(Debug, Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, status: Status, what: &str, sentence: String) {
        self.findings.push(Finding { what: what.to_owned(), status, sentence });
    }
    fn ok(&mut self, what: &str, sentence: String) {
        self.add(Status::Ok, what, sentence);
    }
    fn warn(&mut self, what: &str, sentence: String) {
        self.add(Status::Warn, what, sentence);
    }
    fn fail(&mut self, what: &str, sentence: String) {
        self.add(Status::Fail, what, sentence);
    }
}

impl Host {
    /// This machine.
    pub fn here() -> Self {
        Self::at("/")
    }

    /// The machine whose /proc, /sys and /dev lie below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let path = absolute.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn exists(&self, absolute: impl AsRef<Path>) -> bool {
        self.path(absolute).exists()
    }

    /// A file's text, without the white space around it.
    fn text(&self, absolute: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path(absolute)).ok().map(|text| text.trim().to_owned())
    }

    fn number(&self, absolute: impl AsRef<Path>) -> Option<u64> {
        self.text(absolute)?.parse().ok()
    }

    /// The last part of what a link points at.
    fn link_name(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(absolute)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a folder, sorted; none if there is no such folder.
    fn names(&self, absolute: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(absolute)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The value of `key` in a file of `key: value` lines.
    fn field(&self, absolute: &str, key: &str) -> Option<String> {
        let text = self.text(absolute)?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// Bytes of a line of `key: N kB`.
    fn kib(&self, absolute: &str, key: &str) -> Option<u64> {
        let value = self.field(absolute, key)?;
        Some(value.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    /// Bytes that can be taken without pushing anything out; `None` where the kernel does not say.
    pub fn available_bytes(&self) -> Option<u64> {
        self.kib("/proc/meminfo", "MemAvailable")
    }

    /// The NUMA node of a card; `None` where the machine has one node, or the device no place.
    pub fn node_of_device(&self, device: &Device) -> Option<u32> {
        // The kernel says -1 where it does not know.
        self.text(format!("/sys/bus/pci/devices/{}/numa_node", device.pci()?))?.parse().ok()
    }

    /// The CPUs of a NUMA node.
    pub fn cpus_of_node(&self, node: u32) -> Vec<usize> {
        let list = self.text(format!("/sys/devices/system/node/node{node}/cpulist"));
        list.and_then(|text| cpu_list(&text)).unwrap_or_default()
    }

    fn has_capability(&self, capability: u32) -> bool {
        self.field("/proc/self/status", "CapEff")
            .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
            .is_some_and(|set| set & (1 << capability) != 0)
    }
}

/// The numbers of a list such as `0-3,8`; `None` if it is no such list.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        // The kernel's own bound on CPUs is 8,192.
        if last > 8192 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

const PAGES_2M: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn memory(host: &Host, needs: &Needs, report: &mut Report) {
    let what = "hugepages 2 MB";
    let dpdk_bytes = needs.dpdk_bytes();
    let table_bytes = needs.table_bytes.next_multiple_of(HUGE_PAGE_BYTES) as u64;
    let page = HUGE_PAGE_BYTES as u64;
    let taken = needs.running.as_ref().and_then(|running| running.taken);
    // Said where there is something to say.
    let taken_words = |taken: u64, unit: &str| match taken {
        0 => String::new(),
        _ => format!(", {taken}{unit} taken by the running appliance"),
    };
    let mut plain_bytes = 0;
    if !needs.hugepages {
        report.warn(what, "switched off: for trials only, a packet costs about twice as much".into());
        plain_bytes = dpdk_bytes + table_bytes;
    } else if let (Some(total), Some(free)) =
        (host.number(format!("{PAGES_2M}/nr_hugepages")), host.number(format!("{PAGES_2M}/free_hugepages")))
    {
        let promised = host.number(format!("{PAGES_2M}/resv_hugepages")).unwrap_or(0);
        let free = free.saturating_sub(promised);
        let dpdk_pages = dpdk_bytes.div_ceil(page);
        let need = needs.pages();
        let taken = taken.map_or(0, |taken| taken.huge_bytes / page);
        let have = free + taken;
        let enough = total + need.saturating_sub(have);
        // `scripts/host-setup` reads these numbers.
        let said = format!("{free} free of {total}{} (need {need})", taken_words(taken, ""));
        let fix = format!("`echo {enough} > {PAGES_2M}/nr_hugepages`");
        let free_gb = host.number("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages").unwrap_or(0);
        if have >= need {
            report.ok(what, said);
        } else if have >= dpdk_pages || (free_gb << 30) >= dpdk_bytes {
            plain_bytes = table_bytes;
            report.warn(
                what,
                format!(
                    "{said}: the tables will lie in ordinary memory, which is slower with many flows; {fix}"
                ),
            );
        } else {
            report.fail(what, format!("{said}: {fix}, or run without hugepages"));
        }
    } else {
        report.fail(
            what,
            "this kernel has none: run without hugepages (for trials), or boot another kernel".into(),
        );
    }

    let Some(available) = host.available_bytes() else { return };
    let taken = taken.map_or(0, |taken| taken.plain_bytes);
    let said = format!("{} MiB available{}", mib(available), taken_words(mib(taken), " MiB"));
    let need = mib(plain_bytes);
    if plain_bytes == 0 {
        // All of it is on hugepages, of which there was word above.
    } else if plain_bytes > available + taken {
        report.fail("memory", format!("{said}, {need} MiB needed: lower `table.max_entries`"));
    } else {
        report.ok("memory", format!("{said} (need {need} MiB)"));
    }
}

fn cpus(host: &Host, needs: &Needs, report: &mut Report) {
    let what = "cpus";
    let online = host.text("/sys/devices/system/cpu/online").and_then(|text| cpu_list(&text));
    let allowed = host.field("/proc/self/status", "Cpus_allowed_list").and_then(|text| cpu_list(&text));
    let outside = |known: &[usize]| {
        needs.worker_cpus.iter().chain(&needs.control_cpus).copied().find(|cpu| !known.contains(cpu))
    };
    if let Some(online) = online
        && let Some(cpu) = outside(&online)
    {
        let online = list(&online);
        report.fail(
            what,
            format!("CPU {cpu} is not online, {online} are: choose among those `lscpu -e` shows"),
        );
        return;
    }
    if let Some(allowed) = allowed
        && let Some(cpu) = outside(&allowed)
    {
        report.fail(
            what,
            format!(
                "CPU {cpu} is not among those that this process may use ({}): choose one of them, or widen `taskset` \
                 or the unit's `CPUAffinity=`",
                list(&allowed)
            ),
        );
        return;
    }
    let mut sorted = needs.worker_cpus.clone();
    sorted.sort_unstable();
    if let Some(two) = sorted.windows(2).find(|two| two[0] == two[1]) {
        let sentence = format!("CPU {} has two workers: give each worker a CPU of its own", two[0]);
        // Two that poll would take the CPU from each other for milliseconds.
        if needs.workers_rest {
            report.warn(what, sentence);
        } else {
            report.fail(what, sentence);
        }
        return;
    }
    if let Some(cpu) = needs.worker_cpus.iter().find(|cpu| needs.control_cpus.contains(cpu)) {
        report.warn(
            what,
            format!("CPU {cpu} has a worker and the control thread: the worker stops while control works; keep them apart"),
        );
    } else if !needs.worker_cpus.is_empty() {
        report.ok(
            what,
            format!("workers on {}, control on {}", list(&needs.worker_cpus), list(&needs.control_cpus)),
        );
    }
    numa(host, needs, report);
    let slow = needs.worker_cpus.iter().find_map(|cpu| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        host.text(path).filter(|governor| governor != "performance")
    });
    if let Some(governor) = slow {
        report.warn("cpu governor", format!("{governor}: `cpupower frequency-set -g performance`"));
    }
}

/// Every access of a worker to a port at another node crosses the link between the sockets.
fn numa(host: &Host, needs: &Needs, report: &mut Report) {
    for (port, device) in &needs.devices {
        let Some(node) = host.node_of_device(device) else { continue };
        let near = host.cpus_of_node(node);
        let far = needs.worker_cpus.iter().find(|cpu| !near.contains(cpu));
        if let Some(cpu) = far.filter(|_| !near.is_empty()) {
            report.warn(
                "numa",
                format!(
                    "port {port} is at node {node} and the worker on CPU {cpu} is not: name CPUs of {} in worker.cores",
                    list(&near)
                ),
            );
        }
    }
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn pci(host: &Host, port: &str, address: &str, needs: &Needs, report: &mut Report) {
    let folder = format!("/sys/bus/pci/devices/{address}");
    if !host.exists(&folder) {
        let nics: Vec<String> =
            host.names("/sys/bus/pci/devices").into_iter().filter(|other| is_nic(host, other)).collect();
        let here = if nics.is_empty() { "none".to_owned() } else { nics.join(", ") };
        report.fail(
            port,
            format!(
                "there is no PCI device {address}; network devices here: {here}; `lspci -D -nn` says more"
            ),
        );
        return;
    }
    if !is_nic(host, address) {
        report.fail(
            port,
            format!(
                "{address} is no network device: see `lspci -D -nn -s {address}` and choose another address"
            ),
        );
        return;
    }
    let bind = format!("dpdk-devbind.py --bind=vfio-pci {address}");
    let driver = host.link_name(format!("{folder}/driver"));
    let interfaces = host.names(format!("{folder}/net"));
    let driver = match driver.as_deref() {
        Some(driver) if SHARED_DRIVERS.contains(&driver) => {
            report.ok(port, format!("{address} is shared with the kernel's {driver}"));
            return;
        }
        Some(driver) if USER_DRIVERS.contains(&driver) => driver,
        Some(driver) => {
            let (named, down) = match interfaces.first() {
                Some(name) => (format!(" as {name}"), format!("ip link set {name} down && ")),
                None => (String::new(), String::new()),
            };
            report.fail(
                port,
                format!(
                    "{address} is still the kernel's ({driver}{named}): `modprobe vfio-pci && {down}{bind}`; its \
                     addresses and routes go away with it"
                ),
            );
            return;
        }
        None => {
            report.fail(port, format!("{address} is bound to no driver: `modprobe vfio-pci && {bind}`"));
            return;
        }
    };
    if driver != "vfio-pci" {
        if host.has_capability(CAP_SYS_RAWIO) {
            report.warn(
                port,
                format!("{address} is bound to {driver}, which does not keep it from any memory; better: `modprobe vfio-pci && {bind}`"),
            );
        } else {
            report.fail(
                port,
                format!("{address} is bound to {driver}, which needs root: use sudo, or `{bind}`"),
            );
        }
        return;
    }
    vfio(host, port, address, needs, report);
}

/// Class 0x02xxxx: network controllers (PCI Code and ID Assignment).
fn is_nic(host: &Host, address: &str) -> bool {
    host.text(format!("/sys/bus/pci/devices/{address}/class")).is_some_and(|class| class.starts_with("0x02"))
}

fn vfio(host: &Host, port: &str, address: &str, needs: &Needs, report: &mut Report) {
    let dpdk_mib = needs.dpdk_mib;
    const UNSAFE: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    if host.names("/sys/kernel/iommu_groups").is_empty() {
        match host.text(UNSAFE).as_deref() {
            Some("Y") => report.warn(
                port,
                format!("{address} runs without an IOMMU: it can reach any memory; switch the IOMMU on in the firmware, and boot with `intel_iommu=on iommu=pt` or `amd_iommu=on iommu=pt`"),
            ),
            Some(_) => report.fail(
                port,
                format!("no IOMMU is active: switch it on in the firmware and boot with `intel_iommu=on iommu=pt` (AMD: `amd_iommu=on iommu=pt`), or, without its protection, `echo Y > {UNSAFE}`"),
            ),
            None => report.fail(
                port,
                "no IOMMU is active: switch it on in the firmware (VT-d, AMD-Vi) and boot with `intel_iommu=on iommu=pt` or `amd_iommu=on iommu=pt`".into(),
            ),
        }
        return;
    }
    let folder = format!("/sys/bus/pci/devices/{address}/iommu_group");
    let Some(group) = host.link_name(&folder) else {
        report.fail(port, format!("{address} is in no IOMMU group: see `dmesg | grep -i iommu`"));
        return;
    };
    // A group is handed out whole: the kernel must not drive anything in it (Documentation/driver-api/vfio.rst).
    for other in host.names(format!("{folder}/devices")) {
        let driver = host.link_name(format!("/sys/bus/pci/devices/{other}/driver"));
        if let Some(driver) =
            driver.filter(|name| !["vfio-pci", "pcieport", "pci-stub"].contains(&name.as_str()))
        {
            report.fail(
                port,
                format!(
                    "{address} shares IOMMU group {group} with {other}, which the kernel's {driver} drives: \
                     `dpdk-devbind.py --bind=vfio-pci {other}`, or move the card to another slot"
                ),
            );
            return;
        }
    }
    // The card's memory is locked, and counted against the limit of whoever is not root.
    let limit = host.text("/proc/self/limits").unwrap_or_default();
    let locked =
        limit.lines().find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next());
    if let Some(bytes) = locked.and_then(|soft| soft.parse::<u64>().ok())
        && bytes < u64::from(dpdk_mib) << 20
        && !host.has_capability(CAP_IPC_LOCK)
    {
        report.fail(
            port,
            format!(
                "this process may lock {} MiB of memory and a card needs {dpdk_mib}: `ulimit -l unlimited`, or \
                 `LimitMEMLOCK=infinity` in the unit",
                mib(bytes)
            ),
        );
        return;
    }
    let node = host.path(format!("/dev/vfio/{group}"));
    let opened = fs::OpenOptions::new().read(true).write(true).open(node).map(drop);
    node_opened(port, address, &group, opened, needs, report);
}

/// What came of opening the node of a card's group.
fn node_opened(
    port: &str,
    address: &str,
    group: &str,
    opened: io::Result<()>,
    needs: &Needs,
    report: &mut Report,
) {
    let node = format!("/dev/vfio/{group}");
    let bound = format!("{address} is bound to vfio-pci (IOMMU group {group})");
    let Err(why) = opened else { return report.ok(port, bound) };
    // Someone has it open; a group opens once.
    if why.raw_os_error() != Some(libc::EBUSY) {
        report.fail(
            port,
            format!("{address}: {node} cannot be opened ({why}): run as root, or `chown $USER {node}`"),
        );
    } else if needs.running.as_ref().is_some_and(|running| running.has(address)) {
        report.ok(port, format!("{bound}, taken by the running appliance"));
    } else {
        report.fail(port, format!("{address} is in use by another process: `fuser -v {node}` says which"));
    }
}

fn vdev(host: &Host, port: &str, device: &Device, report: &mut Report) {
    let driver = device.vdev_driver().unwrap_or_default();
    if !VDEVS.contains(&driver) {
        let near = VDEVS.iter().min_by_key(|known| distance(known, driver)).copied().unwrap_or_default();
        report.fail(
            port,
            format!(
                "there is no virtual device `{driver}`; did you mean {near}0? Known: {}",
                VDEVS.join(", ")
            ),
        );
        return;
    }
    let before = report.findings.len();
    match driver {
        "net_af_packet" => {
            interface_is_up(host, port, device, "iface", report);
            capable(host, port, driver, &[CAP_NET_RAW, CAP_NET_ADMIN], report);
        }
        "net_af_xdp" => {
            interface_is_up(host, port, device, "iface", report);
            capable(host, port, driver, &[CAP_NET_RAW, CAP_NET_ADMIN, CAP_SYS_ADMIN], report);
        }
        "net_tap" | "net_tun" => tap(host, port, device, driver, report),
        "net_pcap" => pcap(host, port, device, report),
        "net_virtio_user" => {
            if let Some(path) = device.arg("path").filter(|path| !host.exists(path)) {
                report.fail(
                    port,
                    format!("{path} is not there: start the other end first, or `modprobe vhost_net` for /dev/vhost-net"),
                );
            }
        }
        _ => {}
    }
    if report.findings.len() == before {
        report.ok(port, format!("{device}"));
    }
}

fn interface_exists(host: &Host, port: &str, name: &str, report: &mut Report) -> bool {
    let found = host.exists(format!("/sys/class/net/{name}"));
    if !found {
        let all = host.names("/sys/class/net").join(", ");
        report.fail(
            port,
            format!("there is no interface `{name}` in this network namespace; there are: {all}; `ip link` says more"),
        );
    }
    found
}

fn interface_is_up(host: &Host, port: &str, device: &Device, key: &str, report: &mut Report) {
    let Some(name) = device.arg(key) else {
        report.fail(port, format!("{device} names no interface: write {},{key}=eth1", device.name()));
        return;
    };
    if !interface_exists(host, port, name, report) {
        return;
    }
    let flags = host.text(format!("/sys/class/net/{name}/flags"));
    let flags = flags.and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
    // IFF_UP
    if flags.is_some_and(|flags| flags & 1 == 0) {
        report.fail(port, format!("interface `{name}` is down: `ip link set {name} up`"));
    }
}

fn tap(host: &Host, port: &str, device: &Device, driver: &str, report: &mut Report) {
    capable(host, port, driver, &[CAP_NET_ADMIN], report);
    if !host.exists("/dev/net/tun") {
        report.fail(
            port,
            "/dev/net/tun is not there: `modprobe tun`; in a container, pass the device in".into(),
        );
    }
    if let Some(name) = device.arg("iface") {
        // IFNAMSIZ less the NUL.
        if name.len() > 15 {
            report.fail(port, format!("interface name `{name}` is too long: use at most 15 letters"));
        } else if host.exists(format!("/sys/class/net/{name}"))
            && !host.exists(format!("/sys/class/net/{name}/tun_flags"))
        {
            report.fail(
                port,
                format!(
                    "interface `{name}` exists already: choose another `iface=`, it will be made at start"
                ),
            );
        }
    }
    if let Some(name) = device.arg("remote") {
        interface_exists(host, port, name, report);
    }
}

fn pcap(host: &Host, port: &str, device: &Device, report: &mut Report) {
    for key in ["iface", "rx_iface", "rx_iface_in", "tx_iface"] {
        if let Some(name) = device.arg(key)
            && interface_exists(host, port, name, report)
        {
            capable(host, port, "net_pcap on an interface", &[CAP_NET_RAW, CAP_NET_ADMIN], report);
        }
    }
    if let Some(path) = device.arg("rx_pcap")
        && let Err(why) = fs::File::open(host.path(path))
    {
        report.fail(port, format!("capture {path} cannot be read ({why}): name a pcap file in `rx_pcap=`"));
    }
    if let Some(path) = device.arg("tx_pcap") {
        let folder = Path::new(path).parent().unwrap_or(Path::new("."));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if !host.path(folder).is_dir() {
            let folder = folder.display();
            report.fail(
                port,
                format!("{path} cannot be written, there is no folder {folder}: `mkdir -p {folder}`"),
            );
        }
    }
}

fn capable(host: &Host, port: &str, driver: &str, capabilities: &[u32], report: &mut Report) {
    let missing: Vec<&str> = CAP_NAMES
        .iter()
        .filter(|(number, _)| capabilities.contains(number) && !host.has_capability(*number))
        .map(|(_, name)| *name)
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        report.fail(
            port,
            format!(
                "{driver} needs {missing}: run with sudo, or give the unit `AmbientCapabilities={}`",
                missing.replace(" and ", " ")
            ),
        );
    }
}

/// Letters to change, add or leave out to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine made of files: 4 CPUs, 512 hugepages, root.
    pub(super) struct Machine {
        folder: tempfile::TempDir,
    }

    impl Machine {
        pub(super) fn new() -> Self {
            let machine = Self { folder: tempfile::tempdir().unwrap() };
            machine
                .file(&format!("{PAGES_2M}/nr_hugepages"), "512")
                .file(&format!("{PAGES_2M}/free_hugepages"), "512")
                .file(&format!("{PAGES_2M}/resv_hugepages"), "0")
                .file("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable:    4096000 kB\n")
                .file("/proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\nCpus_allowed_list:\t0-3\n")
                .file("/sys/devices/system/cpu/online", "0-3\n")
                .file("/sys/class/net/lo/flags", "0x9")
        }

        pub(super) fn file(self, path: &str, text: &str) -> Self {
            let path = self.folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn link(self, path: &str, target: &str) -> Self {
            let path = self.folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(self.folder.path().join(target.trim_start_matches('/')), path).unwrap();
            self
        }

        pub(super) fn nic(self, address: &str, driver: Option<&str>, group: Option<&str>) -> Self {
            let folder = format!("/sys/bus/pci/devices/{address}");
            let mut machine = self.file(&format!("{folder}/class"), "0x020000\n");
            if let Some(driver) = driver {
                machine =
                    machine.link(&format!("{folder}/driver"), &format!("/sys/bus/pci/drivers/{driver}"));
            }
            if let Some(group) = group {
                let kernel = format!("/sys/kernel/iommu_groups/{group}");
                machine = machine
                    .file(&format!("{kernel}/devices/{address}"), "")
                    .link(&format!("{folder}/iommu_group"), &kernel);
            }
            machine
        }

        pub(super) fn root(&self) -> &Path {
            self.folder.path()
        }

        fn check(&self, needs: &Needs) -> Vec<Finding> {
            check(&Host::at(self.folder.path()), needs)
        }

        /// The gravest finding for a machine with this one device.
        fn device(&self, device: &str) -> (Status, String) {
            let devices = vec![("lan".to_owned(), device.parse().unwrap())];
            let findings = self.check(&Needs { hugepages: true, dpdk_mib: 64, devices, ..Needs::default() });
            let finding = findings.into_iter().filter(|f| f.what == "lan").max_by_key(|f| f.status).unwrap();
            (finding.status, finding.sentence)
        }
    }

    #[track_caller]
    pub(super) fn expect(got: (Status, String), status: Status, words: &str) {
        assert!(
            got.0 == status && got.1.contains(words),
            "want {status} with `{words}`, got {}: {}",
            got.0,
            got.1
        );
    }

    pub(super) fn find(findings: &[Finding], what: &str) -> (Status, String) {
        let finding = findings.iter().find(|finding| finding.what == what);
        let finding = finding.unwrap_or_else(|| panic!("nothing said of {what}: {findings:?}"));
        (finding.status, finding.sentence.clone())
    }

    #[test]
    fn hugepages_are_counted_against_the_need() {
        let needs = Needs { hugepages: true, dpdk_mib: 100, table_bytes: 300 << 20, ..Needs::default() };
        let machine = Machine::new();
        expect(find(&machine.check(&needs), "hugepages 2 MB"), Status::Ok, "512 free of 512 (need 200)");
        let machine = machine.file(&format!("{PAGES_2M}/free_hugepages"), "60");
        expect(find(&machine.check(&needs), "hugepages 2 MB"), Status::Warn, "echo 652 > /sys/kernel");
        let machine = machine.file(&format!("{PAGES_2M}/resv_hugepages"), "11");
        expect(find(&machine.check(&needs), "hugepages 2 MB"), Status::Fail, "49 free of 512 (need 200)");
        let off = Needs { hugepages: false, ..needs };
        expect(find(&machine.check(&off), "hugepages 2 MB"), Status::Warn, "switched off");
        expect(find(&machine.check(&off), "memory"), Status::Ok, "need 400 MiB");
        let much = Needs { table_bytes: 5 << 30, ..off };
        expect(find(&machine.check(&much), "memory"), Status::Fail, "lower `table.max_entries`");
    }

    #[test]
    fn a_kernel_without_hugepages_is_told() {
        let machine = Machine::new();
        fs::remove_dir_all(machine.folder.path().join("sys/kernel/mm")).unwrap();
        let findings = machine.check(&Needs { hugepages: true, ..Needs::default() });
        expect(find(&findings, "hugepages 2 MB"), Status::Fail, "this kernel has none");
        assert_eq!(worst(&findings), Status::Fail);
    }

    /// The machine with one more process, and that as the running appliance.
    fn taken(machine: Machine, device: &str, status: &str) -> (Machine, Running) {
        let machine = machine.file("/proc/77/status", status);
        let running = Running::seen(&Host::at(machine.root()), Some(77), vec![device.parse().unwrap()]);
        (machine, running)
    }

    const STATUS: &str = "Name:\tx\nUid:\t0\t998\t998\t998\nGid:\t0\t997\t997\t997\nRssAnon:\t  1048576 kB\n\
                          RssFile:\t 20480 kB\nRssShmem:\t  2048 kB\nHugetlbPages:\t  1024000 kB\n";

    #[test]
    fn what_the_running_appliance_has_is_as_good_as_free() {
        let full = Machine::new().file(&format!("{PAGES_2M}/free_hugepages"), "12");
        let (machine, running) = taken(full, "0000:03:00.0", STATUS);
        let needs = |dpdk_mib, running: Option<&Running>| Needs {
            hugepages: true,
            dpdk_mib,
            running: running.cloned(),
            ..Needs::default()
        };
        let said = |needs: &Needs| find(&machine.check(needs), "hugepages 2 MB");
        expect(said(&needs(1000, None)), Status::Fail, "12 free of 512 (need 500): `echo 1000 >");
        let words = "12 free of 512, 500 taken by the running appliance (need 500)";
        expect(said(&needs(1000, Some(&running))), Status::Ok, words);
        // With another file than it was started with, more.
        expect(said(&needs(1040, Some(&running))), Status::Fail, "(need 520): `echo 520 >");

        let small = machine.file("/proc/meminfo", "MemAvailable:    102400 kB\n");
        let plain = |running: Option<&Running>| {
            let needs = Needs { dpdk_mib: 1000, running: running.cloned(), ..Needs::default() };
            find(&small.check(&needs), "memory")
        };
        expect(plain(None), Status::Fail, "100 MiB available, 1000 MiB needed");
        let words = "100 MiB available, 1026 MiB taken by the running appliance (need 1000 MiB)";
        expect(plain(Some(&running)), Status::Ok, words);
    }

    #[test]
    fn a_process_is_known_by_its_status_and_one_that_is_not_there_has_nothing() {
        let (machine, running) = taken(Machine::new(), "0000:03:00.0", STATUS);
        let taken = running.taken.unwrap();
        assert_eq!((taken.uid, taken.gid, taken.huge_bytes), (998, 997, 1000 << 20), "the effective user");
        for process in [None, Some(78)] {
            assert_eq!(Running::seen(&Host::at(machine.root()), process, Vec::new()).taken, None);
        }
    }

    #[test]
    fn a_card_that_is_open_is_the_running_appliances_or_a_strangers() {
        let (_machine, running) = taken(Machine::new(), "03:00.0", STATUS);
        let needs = Needs { running: Some(running), ..Needs::default() };
        let said = |address: &str, error: i32, needs: &Needs| {
            let mut report = Report::default();
            let opened = Err(io::Error::from_raw_os_error(error));
            node_opened("lan", address, "7", opened, needs, &mut report);
            find(&report.findings, "lan")
        };
        let busy = libc::EBUSY;
        expect(said("0000:03:00.0", busy, &needs), Status::Ok, "taken by the running appliance");
        expect(said("0000:03:00.1", busy, &needs), Status::Fail, "fuser -v /dev/vfio/7");
        expect(said("0000:03:00.0", busy, &Needs::default()), Status::Fail, "in use by another process");
        expect(said("0000:03:00.0", libc::EACCES, &needs), Status::Fail, "chown $USER /dev/vfio/7");
    }

    #[test]
    fn cpus_outside_the_mask_or_shared_are_found() {
        let machine = Machine::new().file("/sys/devices/system/cpu/online", "0-7");
        let cpus = |workers: &[usize], control: &[usize]| {
            let needs = Needs {
                worker_cpus: workers.to_vec(),
                control_cpus: control.to_vec(),
                hugepages: true,
                ..Needs::default()
            };
            find(&machine.check(&needs), "cpus")
        };
        expect(cpus(&[1, 2], &[0]), Status::Ok, "workers on 1,2, control on 0");
        expect(
            cpus(&[1, 5], &[0]),
            Status::Fail,
            "CPU 5 is not among those that this process may use (0,1,2,3)",
        );
        expect(cpus(&[9], &[0]), Status::Fail, "CPU 9 is not online");
        expect(cpus(&[1, 1], &[0]), Status::Fail, "CPU 1 has two workers");
        expect(cpus(&[1, 0], &[0]), Status::Warn, "CPU 0 has a worker and the control thread");
        let resting =
            Needs { worker_cpus: vec![1, 1], workers_rest: true, hugepages: true, ..Needs::default() };
        expect(find(&machine.check(&resting), "cpus"), Status::Warn, "CPU 1 has two workers");
    }

    #[test]
    fn a_worker_far_from_its_port_is_found() {
        let machine = Machine::new()
            .nic("0000:03:00.0", Some("vfio-pci"), None)
            .file("/sys/bus/pci/devices/0000:03:00.0/numa_node", "1")
            .file("/sys/devices/system/node/node1/cpulist", "2-3");
        let devices = vec![("lan".to_owned(), "0000:03:00.0".parse().unwrap())];
        let check = |cpus: &[usize]| {
            let (worker_cpus, devices) = (cpus.to_vec(), devices.clone());
            machine.check(&Needs { worker_cpus, devices, hugepages: true, ..Needs::default() })
        };
        expect(find(&check(&[3, 1]), "numa"), Status::Warn, "worker on CPU 1 is not: name CPUs of 2,3");
        assert!(!check(&[2, 3]).iter().any(|finding| finding.what == "numa"));
    }

    #[test]
    fn a_pci_device_must_exist_and_be_a_network_device() {
        let machine = Machine::new()
            .nic("0000:03:00.0", Some("vfio-pci"), None)
            .file("/sys/bus/pci/devices/0000:00:1f.0/class", "0x060100");
        expect(machine.device("0000:04:00.0"), Status::Fail, "network devices here: 0000:03:00.0");
        expect(machine.device("0000:00:1f.0"), Status::Fail, "is no network device");
    }

    #[test]
    fn a_port_still_bound_to_the_kernel_gives_the_bind_command() {
        let machine = Machine::new()
            .nic("0000:03:00.0", Some("ixgbe"), Some("7"))
            .file("/sys/bus/pci/devices/0000:03:00.0/net/eth2/flags", "0x1003")
            .nic("0000:04:00.0", None, Some("8"))
            .nic("0000:05:00.0", Some("mlx5_core"), None);
        expect(
            machine.device("03:00.0"),
            Status::Fail,
            "`modprobe vfio-pci && ip link set eth2 down && dpdk-devbind.py --bind=vfio-pci 0000:03:00.0`",
        );
        expect(machine.device("04:00.0"), Status::Fail, "bound to no driver");
        expect(machine.device("05:00.0"), Status::Ok, "shared with the kernel's mlx5_core");
    }

    #[test]
    fn vfio_wants_an_iommu_a_whole_group_and_its_node() {
        let none = Machine::new().nic("0000:03:00.0", Some("vfio-pci"), None);
        expect(none.device("03:00.0"), Status::Fail, "no IOMMU is active");
        let none = none.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n");
        expect(none.device("03:00.0"), Status::Fail, "echo Y >");
        let none = none.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
        expect(none.device("03:00.0"), Status::Warn, "without an IOMMU");

        let machine = Machine::new().nic("0000:03:00.0", Some("vfio-pci"), Some("7"));
        expect(machine.device("03:00.0"), Status::Fail, "/dev/vfio/7 cannot be opened");
        let machine = machine.file("/dev/vfio/7", "");
        expect(machine.device("03:00.0"), Status::Ok, "bound to vfio-pci (IOMMU group 7)");
        let user = Machine::new()
            .nic("0000:03:00.0", Some("vfio-pci"), Some("7"))
            .file("/dev/vfio/7", "")
            .file("/proc/self/status", "CapEff:\t0\nCpus_allowed_list:\t0-3\n")
            .file(
                "/proc/self/limits",
                "Max locked memory         8388608              8388608              bytes\n",
            );
        expect(user.device("03:00.0"), Status::Fail, "may lock 8 MiB of memory and a card needs 64");
        let user = user.file(
            "/proc/self/limits",
            "Max locked memory         unlimited            unlimited            bytes\n",
        );
        expect(user.device("03:00.0"), Status::Ok, "bound to vfio-pci");
        let machine = machine.nic("0000:03:00.1", Some("ixgbe"), Some("7"));
        expect(machine.device("03:00.0"), Status::Fail, "shares IOMMU group 7 with 0000:03:00.1");
    }

    #[test]
    fn uio_is_unsafe_and_needs_root() {
        let machine = Machine::new().nic("0000:03:00.0", Some("uio_pci_generic"), None);
        expect(machine.device("03:00.0"), Status::Warn, "does not keep it from any memory");
        let machine = machine.file("/proc/self/status", "CapEff:\t0\nCpus_allowed_list:\t0-3\n");
        expect(machine.device("03:00.0"), Status::Fail, "needs root");
    }

    #[test]
    fn virtual_devices_are_known_and_find_their_interfaces() {
        let machine = Machine::new()
            .file("/sys/class/net/veth0/flags", "0x1003")
            .file("/sys/class/net/veth1/flags", "0x1002")
            .file("/dev/net/tun", "");
        expect(machine.device("net_null0"), Status::Ok, "net_null0");
        expect(machine.device("net_tapp0"), Status::Fail, "did you mean net_tap0?");
        expect(machine.device("net_af_packet0,iface=veth0"), Status::Ok, "veth0");
        expect(machine.device("net_af_packet0,iface=veth1"), Status::Fail, "`ip link set veth1 up`");
        expect(machine.device("net_af_packet0,iface=eth9"), Status::Fail, "there are: lo, veth0, veth1");
        expect(machine.device("net_af_packet0"), Status::Fail, "write net_af_packet0,iface=eth1");
        expect(machine.device("net_tap0,iface=ct0"), Status::Ok, "ct0");
        expect(machine.device("net_tap0,iface=veth0"), Status::Fail, "exists already");
        expect(machine.device("net_tap0,iface=abcdefghijklmnop"), Status::Fail, "at most 15 letters");
        expect(machine.device("net_pcap0,rx_pcap=/none.pcap"), Status::Fail, "/none.pcap cannot be read");
        expect(machine.device("net_pcap0,tx_pcap=/no/folder/x.pcap"), Status::Fail, "mkdir -p /no/folder");
    }

    #[test]
    fn without_root_the_missing_capability_is_named() {
        let machine = Machine::new()
            .file("/proc/self/status", "CapEff:\t0000000000002000\nCpus_allowed_list:\t0-3\n")
            .file("/sys/class/net/veth0/flags", "0x1003")
            .file("/dev/net/tun", "");
        expect(machine.device("net_tap0"), Status::Fail, "AmbientCapabilities=CAP_NET_ADMIN`");
        expect(
            machine.device("net_af_packet0,iface=veth0"),
            Status::Fail,
            "net_af_packet needs CAP_NET_ADMIN:",
        );
        expect(machine.device("net_ring0"), Status::Ok, "net_ring0");
    }

    #[test]
    fn one_device_cannot_be_two_ports() {
        let device: Device = "net_ring0".parse().unwrap();
        let devices = vec![("lan".to_owned(), device.clone()), ("wan".to_owned(), device)];
        let findings = Machine::new().check(&Needs { hugepages: true, devices, ..Needs::default() });
        expect(find(&findings, "wan"), Status::Fail, "is the device of port `lan` already");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let needs = Needs {
            hugepages: true,
            dpdk_mib: 2,
            worker_cpus: vec![0],
            control_cpus: vec![0],
            ..Needs::default()
        };
        let findings = check(&Host::here(), &needs);
        assert!(findings.iter().any(|finding| finding.what == "cpus"), "{findings:?}");
    }
}
