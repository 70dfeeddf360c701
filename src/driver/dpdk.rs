//! Frames from and to DPDK ports: opens every port of the appliance with a queue pair for each worker, shows received
//! frames as the tracker wants them, and sends what it lets through.

use std::collections::BTreeMap;
use std::mem;
use std::path::Path;

use ::dpdk::Error;
use ::dpdk::burst::{self, Burst};
use ::dpdk::eal::Handle;
use ::dpdk::mbuf::{L4Checksum, Mbuf};
use ::dpdk::mempool::{Mempool, PoolConfig};
use ::dpdk::port::{Device, Info, Link, Port, PortConfig, RSS_KEY_MAX, Stats};
use ::dpdk::queue::{Lies, RxQueue, TxQueue};
use arrayvec::ArrayVec;
use conntrack::policy::Role;
use conntrack::tracker::{BURST, Frame};
use conntrack::wire::{self, noted};

use super::capture::Capture;
use super::checksum;

const _: () = assert!(burst::CAPACITY == BURST, "a burst of the driver is a burst of the tracker");

/// The longest frame that is looked at: an IPv4 packet of 65,535 bytes behind Ethernet with two tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 2 * 4;

/// Times a burst is offered to a device that takes only a part of it.
const SEND_TRIES: u32 = 4;

/// One port, as the configuration describes it.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// The operator's name for it.
    pub name: String,
    pub device: Device,
    /// The side that its frames enter by.
    pub role: Role,
    pub zone: u16,
    /// Bytes of an IP packet at most.
    pub mtu: u16,
    pub promiscuous: bool,
    /// Only listens: no way to send is handed out.
    pub mirror: bool,
    /// Queues each way at most; `None`: one for each worker, where the device has as many.
    pub queues: Option<u16>,
    /// Keys the hash by which the device spreads frames over its queues.
    pub rss_key: Option<[u8; RSS_KEY_MAX]>,
}

impl PortSpec {
    /// Queues to use at most, as far as it is known before the device is opened.
    pub fn queues_at_most(&self) -> u16 {
        match (self.queues, self.device.vdev_driver()) {
            (Some(queues), _) => queues,
            // It has as many as it is asked for, and frames for those that the other end lacks are lost.
            (None, Some("net_memif")) => 1,
            (None, Some("net_af_packet")) => self.count_arg("qpairs"),
            (None, Some("net_af_xdp")) => self.count_arg("queue_count"),
            (None, Some("net_vhost" | "net_virtio_user")) => self.count_arg("queues"),
            // RTE_PMD_TAP_MAX_QUEUES
            (None, Some("net_tap" | "net_tun")) => 16,
            (None, _) => u16::MAX,
        }
    }

    fn count_arg(&self, name: &str) -> u16 {
        self.device.arg(name).and_then(|value| value.parse().ok()).unwrap_or(1)
    }
}

/// What the ports need of DPDK, known before it starts.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pool: PoolConfig,
    /// With hugepages.
    pub memory_mib: u32,
    /// Without.
    pub plain_memory_mib: u32,
}

/// Frames in a device's queue, each way.
const DESCRIPTORS: u16 = 1024;

impl Plan {
    /// For `workers` workers on each of `ports`, with up to `held` frames kept back: as fragments, in rings, and those that
    /// are [`preloaded`].
    pub fn new(ports: &[PortSpec], workers: u16, held: u32) -> Self {
        let cache = 256;
        let queues = ports.len() as u32 * u32::from(workers);
        // Every descriptor may hold a buffer, every worker some bursts on their way and a cache half as big again as
        // its size; a half goes to drivers that prepare more than they show.
        let busy = queues * 2 * u32::from(DESCRIPTORS)
            + (u32::from(workers) + 1) * (cache * 3 / 2 + 4 * burst::CAPACITY as u32)
            + held;
        let mbufs = (busy + busy / 4).next_power_of_two() - 1;
        let mtu = ports.iter().map(|port| port.mtu).max().unwrap_or(1500);
        // A whole frame fits one buffer, so that hardware never chains them.
        let frame_room = (u32::from(mtu) + 128).next_multiple_of(64).clamp(2048, 65_344) as u16;
        let for_cards = ports.iter().any(|port| port.device.pci().is_some());
        let pool = PoolConfig { name: "frames".into(), mbufs, cache, frame_room, numa: None, for_cards };
        // Beside the pool: queues' descriptors, and what EAL keeps for itself.
        let mib =
            |pool: usize| (pool.div_ceil(1 << 20) + 2 * queues as usize + 32).next_multiple_of(2) as u32;
        let (memory_mib, plain_memory_mib) = (mib(pool.bytes()), mib(pool.plain_bytes()));
        Self { pool, memory_mib, plain_memory_mib }
    }

    /// MiB that DPDK needs.
    pub fn mib(&self, hugepages: bool) -> u32 {
        if hugepages { self.memory_mib } else { self.plain_memory_mib }
    }
}

/// Buffers that devices keep for themselves for good: net_pcap, told to go through its captures again and again, has read
/// them into buffers before it receives the first frame. Reads the captures, each once.
pub fn preloaded(ports: &[PortSpec]) -> u32 {
    // What cannot be read the device will refuse, and say why.
    let frames = |path: &str| {
        let mut capture = Capture::open(Path::new(path)).ok()?;
        Some(std::iter::from_fn(|| capture.next_frame().ok().flatten().map(|_| ())).count() as u32)
    };
    let again = |device: &Device| {
        let word = device.arg("infinite_rx").and_then(|value| value.parse::<u32>().ok());
        device.vdev_driver() == Some("net_pcap") && word.is_some_and(|word| word > 0)
    };
    let devices = ports.iter().map(|port| &port.device).filter(|device| again(device));
    let mut read = BTreeMap::new();
    devices
        .flat_map(|device| device.args("rx_pcap"))
        .map(|path| *read.entry(path).or_insert_with(|| frames(path).unwrap_or(0)))
        .sum()
}

/// A port's side towards the control thread.
#[derive(Debug)]
pub struct OpenPort {
    spec: PortSpec,
    port: Port,
    /// In use, once it runs.
    rx_queues: u16,
}

impl OpenPort {
    /// The description that it was opened by.
    pub fn spec(&self) -> &PortSpec {
        &self.spec
    }

    /// What the device is and can do.
    pub fn info(&self) -> &Info {
        self.port.info()
    }

    /// Receive queues in use.
    pub fn rx_queues(&self) -> u16 {
        self.rx_queues
    }

    /// What the device has counted.
    pub fn stats(&self) -> Stats {
        self.port.stats()
    }

    /// Whether the link is up. A tap's interface that was moved into another network namespace is out of sight, and
    /// DPDK would call its link down.
    pub fn link_up(&self) -> Option<bool> {
        let tap = self.spec.device.vdev_driver() == Some("net_tap");
        let away = tap && self.spec.device.arg("iface").is_some_and(|name| !here(name));
        (!away).then(|| self.port.link().up)
    }

    /// Stops the device; every worker must have left it.
    pub fn halt(&self) -> Result<(), Error> {
        self.port.halt()
    }

    /// Starts it again; then the workers may use it.
    pub fn resume(&self) -> Result<(), Error> {
        self.port.resume()
    }

    /// Whether it was stopped by [`OpenPort::halt`].
    pub fn is_halted(&self) -> bool {
        self.port.is_halted()
    }

    /// Every counter that the driver has, by its own names.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        self.port.xstats()
    }

    /// The link as it is now.
    pub fn link(&self) -> Link {
        self.port.link()
    }
}

/// Whether this network namespace has the interface.
fn here(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

/// What one worker has of one port.
#[derive(Debug)]
pub struct QueuePair {
    pub ingress: Ingress,
    pub exit: Exit,
}

/// How a worker's frames leave by a port.
#[derive(Debug)]
pub enum Exit {
    /// By a queue of its own.
    Queue(Egress),
    /// By a queue of this worker, counted from 0: the device has too few.
    Through(usize),
    /// Not at all: the port only listens.
    Nowhere,
}

/// Every port, open but not running: what the devices can do is known.
#[derive(Debug)]
pub struct Probed {
    ports: Vec<OpenPort>,
}

impl Probed {
    /// Opens every port.
    pub fn open(eal: &Handle, specs: &[PortSpec]) -> Result<Self, Error> {
        let open = |spec: &PortSpec| {
            Ok(OpenPort { spec: spec.clone(), port: Port::open(eal, &spec.device)?, rx_queues: 0 })
        };
        Ok(Self { ports: specs.iter().map(open).collect::<Result<_, Error>>()? })
    }

    /// Workers that can have a queue of their own on some port.
    pub fn workers_at_most(&self) -> u16 {
        self.ports.iter().map(|port| queues(port, u16::MAX)).max().unwrap_or(1)
    }

    /// Starts every port with a queue pair for each worker, as far as it has so many. The workers between them hold
    /// all queues; a worker that has none of a port gets its frames by hand-off and sends through one that has.
    pub fn start(self, eal: &Handle, workers: u16, plan: &Plan) -> Result<Ports, Error> {
        let cards = self.ports.iter().filter(|port| port.spec.device.pci().is_some());
        let nodes: Vec<_> = cards.filter_map(|port| port.info().numa).collect();
        // Buffers lie where the cards are, if those are at one place.
        let numa = nodes.first().copied().filter(|first| nodes.iter().all(|node| node == first));
        let pool = Mempool::create(eal, &PoolConfig { numa, ..plan.pool.clone() })?;
        let mut workers_queues: Vec<Vec<QueuePair>> =
            (0..workers).map(|_| Vec::with_capacity(self.ports.len())).collect();
        // Virtual devices may chain buffers whatever their size (a capture's frame has the length it has); what one
        // port received so must be sendable by the others.
        let chains = self.ports.iter().any(|port| port.spec.device.pci().is_none());
        let mut ports = self.ports;
        for (number, open) in ports.iter_mut().enumerate() {
            let (rx_queues, tx_queues) = (queues(open, workers), tx_queues(open, workers));
            let OpenPort { spec, port, rx_queues: in_use } = open;
            *in_use = rx_queues;
            let config = PortConfig {
                rx_queues,
                // As many, also where nothing will be sent: some drivers insist.
                tx_queues,
                rx_descriptors: DESCRIPTORS,
                tx_descriptors: DESCRIPTORS,
                mtu: spec.mtu,
                promiscuous: spec.promiscuous,
                rx_checksum: true,
                tx_multi_segment: chains,
                rss_key: spec.rss_key,
            };
            let queues = port.start(&config, &pool)?;
            let local = spec.device.pci().is_none() || port.info().driver.starts_with("net_virtio");
            let (mut rx, mut tx) =
                (by_worker(queues.rx, number, workers), by_worker(queues.tx, number, workers));
            let senders: Vec<usize> = (0..tx.len()).filter(|&worker| tx[worker].is_some()).collect();
            for (worker, pairs) in workers_queues.iter_mut().enumerate() {
                let queue = rx[worker].take();
                let ingress = Ingress {
                    queue,
                    role: spec.role,
                    zone: spec.zone,
                    oversize: 0,
                    untagged: 0,
                    room: local.then(|| vec![0; MAX_FRAME].into_boxed_slice()),
                };
                let exit = match tx[worker].take() {
                    _ if spec.mirror => Exit::Nowhere,
                    Some(queue) => Exit::Queue(Egress::new(queue, chains && port.info().tx_multi_segment)),
                    None => senders
                        .get(worker % senders.len().max(1))
                        .map_or(Exit::Nowhere, |&to| Exit::Through(to)),
                };
                pairs.push(QueuePair { ingress, exit });
            }
        }
        Ok(Ports { ports, workers: workers_queues, pool })
    }
}

/// Receive queues of a port for so many workers.
fn queues(port: &OpenPort, workers: u16) -> u16 {
    workers.min(port.spec.queues_at_most()).min(port.info().max_rx_queues).max(1)
}

/// Its transmit queues.
fn tx_queues(port: &OpenPort, workers: u16) -> u16 {
    workers.min(port.spec.queues_at_most()).min(port.info().max_tx_queues).max(1)
}

/// Queues by worker. With one for each they go by number, since devices that spread both directions of a flow alike
/// give both the same number; with fewer, each port begins at another worker.
fn by_worker<T>(queues: Vec<T>, port: usize, workers: u16) -> Vec<Option<T>> {
    let mut given: Vec<Option<T>> = (0..workers).map(|_| None).collect();
    let (count, workers) = (queues.len(), usize::from(workers));
    let first = if count < workers { port * count } else { 0 };
    for (number, queue) in queues.into_iter().enumerate() {
        given[(first + number) % workers] = Some(queue);
    }
    given
}

/// Every port, open and running.
#[derive(Debug)]
pub struct Ports {
    /// In the order of their descriptions.
    pub ports: Vec<OpenPort>,
    /// By worker, then by port in the same order.
    pub workers: Vec<Vec<QueuePair>>,
    pub pool: Mempool,
}

impl Ports {
    /// Opens and starts every port for so many workers; see [`Probed::start`].
    pub fn open(eal: &Handle, specs: &[PortSpec], workers: u16, plan: &Plan) -> Result<Self, Error> {
        Probed::open(eal, specs)?.start(eal, workers, plan)
    }
}

/// Where a worker's frames come from.
#[derive(Debug)]
pub struct Ingress {
    /// `None` if other workers hold all of the port's queues.
    queue: Option<RxQueue>,
    role: Role,
    zone: u16,
    oversize: u64,
    untagged: u64,
    /// Where the other end may be a stack of this machine, whose frames are not always finished: room to look at one
    /// that lies in several buffers.
    room: Option<Box<[u8]>>,
}

/// Frames freed as they came in, because nothing could be made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// A driver's fields contradicted each other.
    pub lies: Lies,
    /// Longer than [`MAX_FRAME`].
    pub oversize: u64,
    /// The device took the VLAN tag off, and there was no room to put it back.
    pub untagged: u64,
}

impl Refused {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.lies.total() + self.oversize + self.untagged
    }
}

impl Ingress {
    /// Fills `burst`, which is empty, with what has arrived; gives how many frames.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        let Some(queue) = &mut self.queue else { return 0 };
        queue.receive(burst);
        if burst.iter().any(|frame| frame.len() > MAX_FRAME) {
            let before = burst.len();
            burst.retain(|frame| frame.len() <= MAX_FRAME);
            self.oversize += (before - burst.len()) as u64;
        }
        if let Some(room) = &mut self.room
            && burst.iter().any(Mbuf::is_unfinished)
        {
            self.untagged += finish(burst, room);
        }
        burst.len()
    }

    /// The frames of `burst` as the tracker takes them, in the same order. Those of several segments are copied
    /// together in `scratch`.
    #[inline]
    pub fn frames<'a>(&self, burst: &'a Burst, scratch: &'a mut Scratch) -> ArrayVec<Frame<'a>, BURST> {
        let mut room = &mut scratch.bytes[..];
        // All headers are on their way before the first is read.
        burst.iter().for_each(Mbuf::prefetch_data);
        burst.iter().map(|frame| self.view(frame, &mut room)).collect()
    }

    /// One frame that came by this port, here or elsewhere.
    #[inline(always)]
    fn view<'a>(&self, frame: &'a Mbuf, room: &mut &'a mut [u8]) -> Frame<'a> {
        Frame {
            bytes: if frame.segments() == 1 { frame.data() } else { gather(frame, room) },
            link: wire::Link::Ethernet,
            role: self.role,
            zone: self.zone,
            checksum: match word_of(frame.checksum()) {
                wire::Checksum::Good if frame.ip_checksum_good() => wire::Checksum::AllGood,
                other => other,
            },
        }
    }

    /// Leaves the device alone, or uses it again; gives whether that could be done.
    pub fn set_running(&mut self, running: bool) -> bool {
        let Some(queue) = &mut self.queue else { return true };
        if running {
            return queue.wake();
        }
        queue.park();
        true
    }

    /// What was freed at the door so far.
    pub fn refused(&self) -> Refused {
        let lies = self.queue.as_ref().map_or_else(Lies::default, RxQueue::lies);
        Refused { lies, oversize: self.oversize, untagged: self.untagged }
    }

    /// Whether frames are received here.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }
}

/// The frames of `burst` as the tracker takes them, in the same order. `came` tells the port that each came by, and
/// whether it is another worker's note.
#[inline]
pub fn frames_of<'a>(
    burst: &'a Burst,
    scratch: &'a mut Scratch,
    came: impl Fn(&'a Mbuf) -> (&'a Ingress, bool),
) -> ArrayVec<Frame<'a>, BURST> {
    let mut room = &mut scratch.bytes[..];
    let view = |frame| {
        let (ingress, is_note) = came(frame);
        let view = ingress.view(frame, &mut room);
        if is_note { as_note(view) } else { view }
    };
    burst.iter().map(view).collect()
}

#[cold]
fn as_note(frame: Frame<'_>) -> Frame<'_> {
    Frame { link: wire::Link::Note, zone: noted::zone(frame.bytes).unwrap_or_default(), ..frame }
}

/// Finishes what a local stack or a device left open: puts tags back and fills checksums in. Here and not where the
/// frame leaves, so that no port has to be asked for offloads, which cost every other frame its fast path.
/// Gives how many frames had to be freed.
#[cold]
fn finish(burst: &mut Burst, room: &mut [u8]) -> u64 {
    let before = burst.len();
    burst.retain(|frame| {
        // Without its tag it would leave into another VLAN.
        if !frame.restore_vlan() {
            return false;
        }
        if frame.checksum() == L4Checksum::None {
            let filled = if frame.segments() == 1 {
                checksum::fill(frame.data())
            } else {
                let length = frame.copy_to(room);
                room.get(..length).and_then(checksum::fill)
            };
            if let Some((at, sum)) = filled {
                frame.write_at(at, &sum);
            }
            frame.set_checksum(L4Checksum::Good);
        }
        true
    });
    (before - burst.len()) as u64
}

/// Copies the frame to the start of `room`, which moves on behind it.
#[cold]
fn gather<'a>(frame: &Mbuf, room: &mut &'a mut [u8]) -> &'a [u8] {
    let n = frame.len().min(room.len());
    let (here, rest) = mem::take(room).split_at_mut(n);
    *room = rest;
    let copied = frame.copy_to(here);
    &here[..copied]
}

/// The device's word on a checksum, as far as Linux would believe it.
fn word_of(device: L4Checksum) -> wire::Checksum {
    match device {
        // A local stack left the field to be filled in (virtio's NEEDS_CSUM); the data never left this machine.
        L4Checksum::Good | L4Checksum::None => wire::Checksum::Good,
        // Linux drivers hand up a bad sum as "not verified" and the stack looks for itself: devices call a UDP
        // checksum of 0, and protocols that they half know, bad.
        L4Checksum::Bad | L4Checksum::Unknown => wire::Checksum::Unknown,
    }
}

/// A worker's room for putting frames of several segments together; enough for a burst of the longest.
#[derive(Debug)]
pub struct Scratch {
    bytes: Box<[u8]>,
}

impl Scratch {
    /// The only allocation.
    pub fn new() -> Self {
        // Written, not only asked for: no page fault later.
        Self { bytes: vec![0xff; BURST * MAX_FRAME].into_boxed_slice() }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a worker's frames go.
#[derive(Debug)]
pub struct Egress {
    queue: TxQueue,
    /// The device sends frames of several segments too.
    chains: bool,
}

impl Egress {
    /// By `queue`, whose device sends frames of several segments if `chains`.
    pub fn new(queue: TxQueue, chains: bool) -> Self {
        Self { queue, chains }
    }

    /// Sends `burst`; gives how many frames the device took. It is offered again while the device takes some; the
    /// rest are freed.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        if !self.chains && burst.iter().any(|frame| frame.segments() > 1) {
            join(burst);
        }
        let mut sent = 0;
        for _ in 0..SEND_TRIES {
            let now = self.queue.send(burst);
            sent += now;
            if burst.is_empty() || now == 0 {
                break;
            }
        }
        burst.clear();
        sent
    }

    /// As [`Ingress::set_running`]. What is to be sent meanwhile is freed.
    pub fn set_running(&mut self, running: bool) -> bool {
        if running {
            return self.queue.wake();
        }
        self.queue.park();
        true
    }
}

/// Makes one segment of each frame, for a device that sends no others: net_af_xdp would send what lies behind the first
/// one's buffer. A buffer has room for a frame of the greatest MTU; what is longer is freed.
#[cold]
fn join(burst: &mut Burst) {
    burst.retain(Mbuf::linearize);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(device: &str, mtu: u16) -> PortSpec {
        PortSpec {
            name: device.into(),
            device: device.parse().unwrap(),
            role: Role::Inside,
            zone: 0,
            mtu,
            promiscuous: true,
            mirror: false,
            queues: None,
            rss_key: None,
        }
    }

    #[test]
    fn a_plan_holds_a_whole_frame_and_every_descriptor() {
        for (ports, workers, mtu) in [(1, 1, 1500), (2, 1, 9000), (2, 8, 1500), (4, 16, 9600)] {
            let specs: Vec<PortSpec> = (0..ports).map(|i| spec(&format!("net_ring{i}"), mtu)).collect();
            let plan = Plan::new(&specs, workers, 1000);
            assert!(plan.pool.mbufs > ports * u32::from(workers) * 2048 + 1000);
            assert!(u32::from(plan.pool.frame_room) >= u32::from(mtu) + 22);
            assert!((plan.memory_mib as usize) << 20 > plan.pool.bytes());
        }
        let plan = Plan::new(&[spec("net_ring0", 1500), spec("net_ring1", 1500)], 1, 1000);
        assert!(plan.memory_mib <= 64, "a demo fits {} MiB", plan.memory_mib);
        let plan = Plan::new(&[spec("net_ring0", u16::MAX)], 1, 0);
        assert!(plan.pool.frame_room >= 65_000, "{} must not wrap", plan.pool.frame_room);
    }

    #[test]
    fn a_plan_has_buffers_for_captures_that_a_device_keeps() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for _ in 0..70_000 {
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0]);
            bytes.extend([2; 20]);
        }
        std::fs::write(file.path(), bytes).unwrap();
        let device = |more: &str| {
            format!("net_pcap0,rx_pcap={path},rx_pcap={path}{more}", path = file.path().display())
        };
        let mbufs = |more: &str| {
            let ports = [spec(&device(more), 1500)];
            Plan::new(&ports, 2, preloaded(&ports)).pool.mbufs
        };
        assert!(mbufs("") < 70_000 && mbufs(",infinite_rx=0") < 70_000);
        assert!(mbufs(",infinite_rx=1") > 140_000, "{}", mbufs(",infinite_rx=1"));
    }

    #[test]
    fn queues_go_by_number_or_else_to_different_workers() {
        let given = |queues: u16, port, workers| by_worker((0..queues).collect(), port, workers);
        for port in 0..3 {
            assert_eq!(given(2, port, 2), [Some(0), Some(1)]);
        }
        assert_eq!((given(1, 0, 2), given(1, 1, 2)), (vec![Some(0), None], vec![None, Some(0)]));
        assert_eq!(given(2, 1, 4), [None, None, Some(0), Some(1)]);
        assert_eq!(given(2, 1, 3), [Some(1), None, Some(0)]);
    }

    #[test]
    fn a_virtual_device_has_the_queues_that_its_arguments_say() {
        for (device, queues) in [
            ("net_af_packet0,iface=a,qpairs=4", 4),
            ("net_af_packet0,iface=a", 1),
            ("net_af_xdp0,iface=a", 1),
            ("net_memif0,socket=/a", 1),
            ("net_virtio_user0,queues=2", 2),
            ("net_tap0", 16),
            ("0000:03:00.0", u16::MAX),
        ] {
            assert_eq!(spec(device, 1500).queues_at_most(), queues, "{device}");
        }
        let two = PortSpec { queues: Some(2), ..spec("net_memif0,socket=/a", 1500) };
        assert_eq!(two.queues_at_most(), 2);
    }

    #[test]
    fn only_a_good_word_is_believed() {
        assert_eq!(word_of(L4Checksum::Good), wire::Checksum::Good);
        assert_eq!(word_of(L4Checksum::None), wire::Checksum::Good);
        assert_eq!(word_of(L4Checksum::Bad), wire::Checksum::Unknown);
        assert_eq!(word_of(L4Checksum::Unknown), wire::Checksum::Unknown);
    }
}
