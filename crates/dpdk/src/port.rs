//! A device: opened by name, asked what it can do, started with so many queues. Owns the device from opening to
//! closing; sees no frame.

use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use dpdk_sys as sys;

use crate::eal::Handle;
use crate::error::{self, Error};
use crate::log;
use crate::mempool::Mempool;
use crate::queue::{RxQueue, TxQueue};

/// What can be opened as a port. Parsed from `0000:03:00.0`, `03:00.0,arg=value`, or `net_tap0,iface=ct0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A PCI address in full (domain, bus, device, function) and its driver's arguments.
    Pci { address: String, args: String },
    /// A virtual device: its driver's name with a number, and that driver's arguments.
    Vdev { name: String, args: String },
}

impl Device {
    /// What DPDK calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Pci { address, .. } => address,
            Self::Vdev { name, .. } => name,
        }
    }

    /// The PCI address, if it is one.
    pub fn pci(&self) -> Option<&str> {
        match self {
            Self::Pci { address, .. } => Some(address),
            Self::Vdev { .. } => None,
        }
    }

    /// A virtual device's driver, such as `net_tap`.
    pub fn vdev_driver(&self) -> Option<&str> {
        match self {
            Self::Pci { .. } => None,
            Self::Vdev { name, .. } => Some(name.trim_end_matches(|c: char| c.is_ascii_digit())),
        }
    }

    /// The value of one of the driver's arguments.
    pub fn arg(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The values of an argument that may be given more than once.
    pub fn args<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |(name, _)| *name == key).map(|(_, value)| value)
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let (Self::Pci { args, .. } | Self::Vdev { args, .. }) = self;
        args.split(',').filter_map(|arg| arg.split_once('='))
    }
}

/// `0000:03:00.0` of `0000:03:00.0` or `03:00.0`, in small letters.
fn pci_address(text: &str) -> Option<String> {
    let (front, function) = text.rsplit_once('.')?;
    let parts: Vec<&str> = front.split(':').collect();
    let (domain, bus, device) = match parts[..] {
        [domain, bus, device] => (domain, bus, device),
        [bus, device] => ("0000", bus, device),
        _ => return None,
    };
    let hex = |part: &str, digits: std::ops::RangeInclusive<usize>, most: u32| {
        let plain = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        u32::from_str_radix(part, 16).ok().filter(|value| plain && *value <= most)
    };
    let domain = hex(domain, 4..=8, u32::MAX)?;
    let (bus, device, function) =
        (hex(bus, 2..=2, 0xff)?, hex(device, 2..=2, 0x1f)?, hex(function, 1..=1, 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, args) = text.split_once(',').unwrap_or((text, ""));
        if let Some(address) = pci_address(name).filter(|_| !args.contains(char::is_control)) {
            return Ok(Self::Pci { address, args: args.to_owned() });
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // ethdev keeps 64 bytes of a name, EAL's vdev bus 64 too.
        let named =
            name.len() < 64 && name.chars().all(word) && name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !named || !name.contains('_') || args.contains(char::is_control) {
            return Err(Error::DeviceName { given: text.to_owned() });
        }
        Ok(Self::Vdev { name: name.to_owned(), args: args.to_owned() })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci { address: name, args } | Self::Vdev { name, args } => match args.as_str() {
                "" => f.write_str(name),
                args => write!(f, "{name},{args}"),
            },
        }
    }
}

/// What a device is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The driver, such as `net_ixgbe`.
    pub driver: String,
    /// The NUMA node that it sits at; `None` where there is none.
    pub numa: Option<u32>,
    pub max_rx_queues: u16,
    pub max_tx_queues: u16,
    pub min_mtu: u16,
    pub max_mtu: u16,
    pub mac: [u8; 6],
    /// It can send frames of several segments, if asked to at start. Of one that cannot, frames of one segment are all
    /// that may be sent: it would send what lies behind the first segment's buffer.
    pub tx_multi_segment: bool,
    /// It spreads frames over receive queues by a hash of addresses or ports.
    pub rss: bool,
}

/// How a port is started.
#[derive(Clone, Debug)]
pub struct PortConfig {
    pub rx_queues: u16,
    pub tx_queues: u16,
    /// Frames that a queue holds; moved to what the device can do.
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
    /// Take frames for any address.
    pub promiscuous: bool,
    /// Have the device verify checksums, where it can.
    pub rx_checksum: bool,
    /// Frames of several segments will be sent. Drivers are faster without.
    pub tx_multi_segment: bool,
    /// The key of the hash that spreads frames over receive queues, of which the device takes as many bytes as it
    /// needs; `None` for its own.
    pub rss_key: Option<[u8; RSS_KEY_MAX]>,
}

/// No device of DPDK has a longer RSS key; Intel's newer ones take 52 bytes.
pub const RSS_KEY_MAX: usize = 64;

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: true,
            rx_checksum: true,
            tx_multi_segment: false,
            rss_key: None,
        }
    }
}

/// A port's queues, in order of their numbers.
#[derive(Debug)]
pub struct Queues {
    pub rx: Vec<RxQueue>,
    pub tx: Vec<TxQueue>,
}

/// What a port has counted since it was opened, by testpmd's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    /// Lost because no descriptor was free: we were too slow.
    pub rx_missed: u64,
    pub rx_errors: u64,
    /// Lost because the pool was empty.
    pub rx_nombuf: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

impl Stats {
    /// Each number with the word that `show port stats` prints before it.
    pub const fn words(&self) -> [(&'static str, u64); 8] {
        [
            ("RX-packets", self.rx_packets),
            ("RX-missed", self.rx_missed),
            ("RX-bytes", self.rx_bytes),
            ("RX-errors", self.rx_errors),
            ("RX-nombuf", self.rx_nombuf),
            ("TX-packets", self.tx_packets),
            ("TX-errors", self.tx_errors),
            ("TX-bytes", self.tx_bytes),
        ]
    }
}

/// A port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub up: bool,
    /// Megabits a second; `None` where the device does not know.
    pub mbps: Option<u32>,
    pub full_duplex: bool,
}

/// The device; closed when the last of port and queues is gone.
#[derive(Debug)]
struct Opened {
    id: u16,
    device: Device,
    eal: Handle,
}

/// A running device; stopped when its last queue is gone.
#[derive(Debug)]
pub(crate) struct Started {
    opened: Arc<Opened>,
    /// Queues that may touch the device now, or [`HALTED`].
    seats: AtomicU32,
    /// Where the device takes its buffers from.
    _pool: Mempool,
    /// ethdev keeps the pointer, and drivers read it when they like.
    _rss_key: Option<Box<[u8; RSS_KEY_MAX]>>,
}

/// No queue may touch the device.
const HALTED: u32 = u32::MAX;

impl Started {
    pub(crate) fn port_id(&self) -> u16 {
        self.opened.id
    }

    /// One queue more may touch the device, unless it is halted.
    pub(crate) fn take_seat(&self) -> bool {
        let more = |seats: u32| (seats != HALTED).then(|| seats + 1);
        self.seats.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// One queue less.
    pub(crate) fn leave_seat(&self) {
        self.seats.fetch_sub(1, Ordering::Release);
    }
}

/// An open device. It runs from [`Port::start`] until its last queue is dropped.
#[derive(Debug)]
pub struct Port {
    opened: Arc<Opened>,
    started: Weak<Started>,
    info: Info,
}

impl Port {
    /// Opens a device. A PCI device must have been named in [`crate::eal::Config::devices`].
    pub fn open(eal: &Handle, device: &Device) -> Result<Self, Error> {
        let _control = eal.control();
        log::forget();
        let fail = |errno: i32| Error::Device {
            device: device.to_string(),
            why: log::complaints().unwrap_or_else(|| error::words(errno)),
        };
        let name = error::c_string(device.name())?;
        let mut id = 0_u16;
        // SAFETY: EAL runs; the name is NUL-terminated; id is a number to write to.
        let found = |id: &mut u16| unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), id) };
        // EAL probes PCI devices as it starts.
        if device.pci().is_none() || found(&mut id) != 0 {
            let (bus, args) = match device {
                Device::Pci { args, .. } => (c"pci", args.clone()),
                Device::Vdev { args, .. } => (c"vdev", args.clone()),
            };
            let args = error::c_string(&args)?;
            // SAFETY: EAL runs; the strings are NUL-terminated and copied.
            let errno = unsafe { sys::rte_eal_hotplug_add(bus.as_ptr(), name.as_ptr(), args.as_ptr()) };
            if errno != 0 {
                return Err(fail(errno));
            }
            let errno = found(&mut id);
            if errno != 0 {
                return Err(fail(errno));
            }
        }
        let opened = Arc::new(Opened { id, device: device.clone(), eal: eal.clone() });
        match info(id) {
            Ok(info) => Ok(Self { opened, started: Weak::new(), info }),
            Err(errno) => {
                let error = fail(errno);
                // Closing takes the lock too.
                drop(_control);
                Err(error)
            }
        }
    }

    /// What the device is and can do.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The device as it was named.
    pub fn device(&self) -> &Device {
        &self.opened.device
    }

    /// DPDK's number for the port, which [`crate::mbuf::Mbuf::port`] carries.
    pub fn id(&self) -> u16 {
        self.opened.id
    }

    /// Whether queues are out.
    pub fn is_running(&self) -> bool {
        self.started.strong_count() > 0
    }

    /// Sets the device up and starts it; its buffers come from `pool`.
    pub fn start(&mut self, config: &PortConfig, pool: &Mempool) -> Result<Queues, Error> {
        let name = || self.opened.device.name().to_owned();
        if self.is_running() {
            return Err(Error::Running { port: name() });
        }
        for (side, have, want) in [
            ("RX", self.info.max_rx_queues, config.rx_queues),
            ("TX", self.info.max_tx_queues, config.tx_queues),
        ] {
            if want > have || want == 0 {
                return Err(Error::TooFewQueues { port: name(), side, have, want });
            }
        }
        let Info { min_mtu, max_mtu, .. } = self.info;
        if !(min_mtu..=max_mtu).contains(&config.mtu) {
            return Err(Error::Mtu { port: name(), min: min_mtu, max: max_mtu, want: config.mtu });
        }

        let mut rss_key = config.rss_key.map(Box::new);
        {
            let _control = self.opened.eal.control();
            log::forget();
            // SAFETY: the port is open and stopped: no queue of it exists, and `control` keeps other callers out. The
            // key lives as long as the device runs.
            unsafe { set_up(self.opened.id, config, rss_key.as_deref_mut(), pool) }.map_err(
                |(step, errno)| Error::Port {
                    port: name(),
                    step,
                    why: log::complaints().unwrap_or_else(|| error::words(errno)),
                },
            )?;
        }
        let started = Arc::new(Started {
            opened: Arc::clone(&self.opened),
            seats: AtomicU32::new(0),
            _pool: pool.clone(),
            _rss_key: rss_key,
        });
        self.started = Arc::downgrade(&started);
        Ok(Queues {
            rx: (0..config.rx_queues).map(|queue| RxQueue::new(&started, queue)).collect(),
            tx: (0..config.tx_queues).map(|queue| TxQueue::new(&started, queue)).collect(),
        })
    }

    /// Stops the device while its queues stay out. All of them must have been parked.
    pub fn halt(&self) -> Result<(), Error> {
        let name = || self.opened.device.name().to_owned();
        let Some(started) = self.started.upgrade() else { return Err(Error::NotRunning { port: name() }) };
        if ONE_START.contains(&self.info.driver.as_str()) {
            return Err(Error::OneStart { port: name(), driver: self.info.driver.clone() });
        }
        let _control = self.opened.eal.control();
        match started.seats.compare_exchange(0, HALTED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(HALTED) => return Ok(()),
            Err(queues) => return Err(Error::QueuesInUse { port: name(), queues }),
        }
        log::forget();
        // SAFETY: the port is open, and no queue of it touches the device until it is resumed.
        let errno = unsafe { sys::rte_eth_dev_stop(self.opened.id) };
        if errno != 0 {
            started.seats.store(0, Ordering::Release);
            let why = log::complaints().unwrap_or_else(|| error::words(errno));
            return Err(Error::Port { port: name(), step: "stopping", why });
        }
        Ok(())
    }

    /// Starts a halted device again, as it was set up; then its queues can be woken.
    pub fn resume(&self) -> Result<(), Error> {
        let name = || self.opened.device.name().to_owned();
        let Some(started) = self.started.upgrade() else { return Err(Error::NotRunning { port: name() }) };
        let _control = self.opened.eal.control();
        if started.seats.load(Ordering::Acquire) != HALTED {
            return Ok(());
        }
        log::forget();
        // SAFETY: the port is open, set up and stopped.
        let errno = unsafe { sys::rte_eth_dev_start(self.opened.id) };
        if errno != 0 {
            let why = log::complaints().unwrap_or_else(|| error::words(errno));
            return Err(Error::Port { port: name(), step: "starting", why });
        }
        started.seats.store(0, Ordering::Release);
        Ok(())
    }

    /// Whether the device was stopped by [`Port::halt`].
    pub fn is_halted(&self) -> bool {
        self.started.upgrade().is_some_and(|started| started.seats.load(Ordering::Acquire) == HALTED)
    }

    /// What the port has counted.
    pub fn stats(&self) -> Stats {
        let _control = self.opened.eal.control();
        let mut raw = MaybeUninit::<sys::rte_eth_stats>::zeroed();
        // SAFETY: the port is open; all-zero is a value of this struct of numbers, which the call fills.
        let raw = unsafe {
            sys::rte_eth_stats_get(self.opened.id, raw.as_mut_ptr());
            raw.assume_init()
        };
        Stats {
            rx_packets: raw.ipackets,
            rx_bytes: raw.ibytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            rx_nombuf: raw.rx_nombuf,
            tx_packets: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        }
    }

    /// Every counter that the driver has, by its own names; empty where it has none.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let _control = self.opened.eal.control();
        let id = self.opened.id;
        // SAFETY: the port is open; with no room the call only counts.
        let count = unsafe { sys::rte_eth_xstats_get_names(id, std::ptr::null_mut(), 0) };
        let Ok(room) = usize::try_from(count) else { return Vec::new() };
        let mut names = Vec::<sys::rte_eth_xstat_name>::with_capacity(room);
        let mut values = Vec::<sys::rte_eth_xstat>::with_capacity(room);
        // SAFETY: both have room for `count` entries; a call that fits gives how many it wrote.
        unsafe {
            let named = sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), count as u32);
            let valued = sys::rte_eth_xstats_get(id, values.as_mut_ptr(), count as u32);
            if named < 0 || named > count || valued < 0 || valued > count {
                return Vec::new();
            }
            names.set_len(named as usize);
            values.set_len(valued as usize);
        }
        values
            .iter()
            .filter_map(|value| {
                let name = names.get(usize::try_from(value.id).ok()?)?;
                let bytes: Vec<u8> = name.name.iter().map(|c| *c as u8).take_while(|b| *b != 0).collect();
                Some((String::from_utf8_lossy(&bytes).into_owned(), value.value))
            })
            .collect()
    }

    /// The link as it is now; does not wait.
    pub fn link(&self) -> Link {
        let _control = self.opened.eal.control();
        let (mut mbps, mut up, mut full_duplex) = (0, 0, 0);
        // SAFETY: the port is open; the call writes three numbers.
        unsafe { sys::dpdk_link(self.opened.id, &mut mbps, &mut up, &mut full_duplex) };
        Link {
            up: up != 0,
            // RTE_ETH_SPEED_NUM_NONE and RTE_ETH_SPEED_NUM_UNKNOWN
            mbps: (mbps != 0 && mbps != u32::MAX).then_some(mbps),
            full_duplex: full_duplex != 0,
        }
    }
}

/// Asks DPDK what the device is; an errno if it will not say.
fn info(id: u16) -> Result<Info, i32> {
    let mut raw = MaybeUninit::<sys::rte_eth_dev_info>::zeroed();
    let mut mac = MaybeUninit::<sys::rte_ether_addr>::zeroed();
    // SAFETY: the port is open; the calls fill the structs, for which all-zero is a value.
    let (raw, mac, numa) = unsafe {
        let errno = sys::rte_eth_dev_info_get(id, raw.as_mut_ptr());
        if errno != 0 {
            return Err(errno);
        }
        sys::rte_eth_macaddr_get(id, mac.as_mut_ptr());
        (raw.assume_init(), mac.assume_init(), sys::rte_eth_dev_socket_id(id))
    };
    let driver = if raw.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: a driver's name is a static NUL-terminated text.
        unsafe { CStr::from_ptr(raw.driver_name) }.to_string_lossy().into_owned()
    };
    Ok(Info {
        tx_multi_segment: raw.tx_offload_capa & sys::DPDK_TX_OFFLOAD_MULTI_SEGS != 0
            || CHAINS_UNSAID.contains(&driver.as_str()),
        rss: raw.flow_type_rss_offloads & RSS_TYPES != 0,
        driver,
        numa: u32::try_from(numa).ok(),
        max_rx_queues: raw.max_rx_queues,
        max_tx_queues: raw.max_tx_queues,
        min_mtu: raw.min_mtu,
        max_mtu: max_mtu(raw.max_mtu, raw.max_rx_pktlen),
        mac: mac.addr_bytes,
    })
}

/// What RSS may hash: addresses, and ports where there are any.
const RSS_TYPES: u64 = sys::DPDK_RSS_IP | sys::DPDK_RSS_TCP | sys::DPDK_RSS_UDP | sys::DPDK_RSS_SCTP;

/// The greatest MTU that ethdev lets through. Drivers that name none (virtual ones, mostly) are held to their longest
/// frame, with Ethernet's header and check sequence counted as 18 bytes; others say by both numbers what they add.
fn max_mtu(stated: u16, frame: u32) -> u16 {
    if stated < u16::MAX || frame < ETHERNET {
        return stated;
    }
    u16::try_from(frame - ETHERNET).unwrap_or(u16::MAX)
}

const ETHERNET: u32 = 14 + 4;

const RX_CHECKSUM: u64 =
    sys::DPDK_RX_OFFLOAD_IPV4_CKSUM | sys::DPDK_RX_OFFLOAD_TCP_CKSUM | sys::DPDK_RX_OFFLOAD_UDP_CKSUM;

/// Drivers that are not asked to verify checksums. The first three would do it in their own code: no gain over doing
/// it once, later. With virtio's, asking means that the other end may leave the field to be filled in
/// (VIRTIO_NET_F_GUEST_CSUM), and frames that go on to another host need it filled. Virtio 1.2 section 5.1.6.4
const NO_RX_CHECKSUM: &[&str] = &["net_tap", "net_memif", "net_vhost", "net_virtio", "net_virtio_user"];

/// Drivers that close their interface when they stop and do not open it again when they start (DPDK 22.11: af_packet
/// its sockets, pcap what it reads by `rx_iface_in` and files).
const ONE_START: &[&str] = &["net_af_packet", "net_pcap"];

/// Drivers that send frames of several segments without a word of it (DPDK 22.11: `eth_pcap_tx`, `eth_memif_tx`).
const CHAINS_UNSAID: &[&str] = &["net_pcap", "net_memif"];

/// The checksum offloads to ask for, of those that `driver` has.
fn rx_checksum(driver: &str, has: u64) -> u64 {
    if NO_RX_CHECKSUM.contains(&driver) { 0 } else { has & RX_CHECKSUM }
}

/// Ethernet's header, two VLAN tags and the frame check sequence.
const FRAME_OVERHEAD: u32 = 14 + 2 * 4 + 4;

/// Configures, fills the queues' settings and starts; gives the step that failed and its errno.
///
/// # Safety
/// The port is open, stopped, and nobody else's for this call; `rss_key` lives until it is set up again or closed.
unsafe fn set_up(
    id: u16,
    config: &PortConfig,
    rss_key: Option<&mut [u8; RSS_KEY_MAX]>,
    pool: &Mempool,
) -> Result<(), (&'static str, i32)> {
    let done = |step: &'static str, errno: i32| if errno < 0 { Err((step, errno)) } else { Ok(()) };
    // SAFETY: by this function's contract; every struct handed over is filled or all-zero, which is a value of each
    // and DPDK's default; the pool outlives the port's queues, which hold it.
    unsafe {
        let mut device = MaybeUninit::<sys::rte_eth_dev_info>::zeroed();
        done("asking for its abilities", sys::rte_eth_dev_info_get(id, device.as_mut_ptr()))?;
        let device = device.assume_init();

        let mut wanted: sys::rte_eth_conf = MaybeUninit::zeroed().assume_init();
        wanted.rxmode.mtu = u32::from(config.mtu);
        let driver = if device.driver_name.is_null() { c"" } else { CStr::from_ptr(device.driver_name) };
        if config.rx_checksum {
            wanted.rxmode.offloads |= rx_checksum(&driver.to_string_lossy(), device.rx_offload_capa);
        }
        // A device that can receive more than a buffer holds must be told that it may chain them.
        if u32::from(config.mtu) + FRAME_OVERHEAD > u32::from(pool.frame_room()) {
            wanted.rxmode.offloads |= device.rx_offload_capa & sys::DPDK_RX_OFFLOAD_SCATTER;
        }
        if config.tx_multi_segment {
            wanted.txmode.offloads |= device.tx_offload_capa & sys::DPDK_TX_OFFLOAD_MULTI_SEGS;
        }
        let hashes = device.flow_type_rss_offloads & RSS_TYPES;
        if config.rx_queues > 1 && hashes != 0 {
            wanted.rxmode.mq_mode = sys::DPDK_MQ_RX_RSS as _;
            wanted.rx_adv_conf.rss_conf.rss_hf = hashes;
            // A device that names no size takes no key.
            if let Some(key) = rss_key
                && (1..=RSS_KEY_MAX).contains(&usize::from(device.hash_key_size))
            {
                wanted.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                wanted.rx_adv_conf.rss_conf.rss_key_len = device.hash_key_size;
            }
        }
        // Configuring writes the MTU down without telling drivers that have the kernel set it.
        let mut mtu = 0;
        let mtu_stands = sys::rte_eth_dev_get_mtu(id, &mut mtu) == 0 && mtu == config.mtu;
        done("configuring", sys::rte_eth_dev_configure(id, config.rx_queues, config.tx_queues, &wanted))?;
        if !mtu_stands {
            // Drivers that take the MTU from the configuration alone have no such call.
            let errno = sys::rte_eth_dev_set_mtu(id, config.mtu);
            if errno != -NOT_SUPPORTED {
                done("setting the MTU", errno)?;
            }
        }
        let (mut rx_room, mut tx_room) = (config.rx_descriptors, config.tx_descriptors);
        done("sizing its queues", sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut rx_room, &mut tx_room))?;
        // SOCKET_ID_ANY where the device has no node of its own.
        let node = sys::rte_eth_dev_socket_id(id) as u32;
        for queue in 0..config.rx_queues {
            let errno =
                sys::rte_eth_rx_queue_setup(id, queue, rx_room, node, std::ptr::null(), pool.as_ptr());
            done("setting up a receive queue", errno)?;
        }
        for queue in 0..config.tx_queues {
            let errno = sys::rte_eth_tx_queue_setup(id, queue, tx_room, node, std::ptr::null());
            done("setting up a transmit queue", errno)?;
        }
        done("starting", sys::rte_eth_dev_start(id))?;
        let errno = match config.promiscuous {
            true => sys::rte_eth_promiscuous_enable(id),
            false => sys::rte_eth_promiscuous_disable(id),
        };
        // A device that filters nothing has no such switch.
        if errno != 0 && errno != -NOT_SUPPORTED {
            sys::rte_eth_dev_stop(id);
            return Err(("setting promiscuous mode", errno));
        }
    }
    Ok(())
}

/// ENOTSUP.
const NOT_SUPPORTED: i32 = 95;

impl Drop for Started {
    fn drop(&mut self) {
        let _control = self.opened.eal.control();
        // SAFETY: the port is open, and no queue of it is left.
        unsafe { sys::rte_eth_dev_stop(self.opened.id) };
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _control = self.eal.control();
        // SAFETY: the port is open and stopped; nobody has its number any more.
        unsafe { sys::rte_eth_dev_close(self.id) };
        let bus = if self.device.pci().is_some() { c"pci" } else { c"vdev" };
        if let Ok(name) = error::c_string(self.device.name()) {
            // SAFETY: EAL runs; both strings are NUL-terminated.
            unsafe { sys::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_by_their_names() {
        let card = |address: &str, args: &str| Device::Pci { address: address.into(), args: args.into() };
        let pci = |address: &str| card(address, "");
        let vdev = |name: &str, args: &str| Device::Vdev { name: name.into(), args: args.into() };
        for (text, want) in [
            ("0000:03:00.0", pci("0000:03:00.0")),
            ("3B:1f.7", pci("0000:3b:1f.7")),
            ("10000:03:00.0", pci("10000:03:00.0")),
            ("3B:00.0,mprq_en=1,x=0.5", card("0000:3b:00.0", "mprq_en=1,x=0.5")),
            ("net_tap0,iface=ct0,mac=fixed", vdev("net_tap0", "iface=ct0,mac=fixed")),
            ("net_null12", vdev("net_null12", "")),
        ] {
            let device: Device = text.parse().unwrap();
            assert_eq!(device, want, "{text}");
            assert_eq!(device.to_string().parse::<Device>().unwrap(), want, "{text}");
        }
        for text in [
            "",
            "eth0",
            "0000:03:00",
            "0000:03:20.0",
            "0000:03:00.8",
            "net tap0",
            "net_tap0,a\nb",
            "03:00.0,a\nb",
            "00000000003:00.0",
        ] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("0000:03:00.0"), "{text}: {error}");
        }
    }

    #[test]
    fn a_driver_that_names_no_mtu_is_held_to_its_longest_frame() {
        assert_eq!(max_mtu(u16::MAX, 1522), 1504);
        assert_eq!(max_mtu(9_702, 9_728), 9_702);
        assert_eq!(max_mtu(u16::MAX, u32::MAX), u16::MAX);
        assert_eq!(max_mtu(u16::MAX, 0), u16::MAX);
    }

    #[test]
    fn virtio_is_never_asked_for_frames_without_a_checksum() {
        let all = u64::MAX;
        for driver in ["net_virtio", "net_virtio_user", "net_vhost", "net_tap"] {
            assert_eq!(rx_checksum(driver, all), 0, "{driver}");
        }
        assert_eq!(rx_checksum("net_ixgbe", all), RX_CHECKSUM);
        assert_eq!(rx_checksum("net_ixgbe", 0), 0);
    }

    #[test]
    fn a_virtual_device_tells_its_driver_and_arguments() {
        let device: Device = "net_af_packet3,iface=eth1,qpairs=2".parse().unwrap();
        assert_eq!(device.vdev_driver(), Some("net_af_packet"));
        assert_eq!(device.arg("iface"), Some("eth1"));
        assert_eq!(device.arg("if"), None);
        let device: Device = "net_pcap0,rx_pcap=/a,rx_pcap=/b".parse().unwrap();
        assert_eq!(device.args("rx_pcap").collect::<Vec<_>>(), ["/a", "/b"]);
    }
}
