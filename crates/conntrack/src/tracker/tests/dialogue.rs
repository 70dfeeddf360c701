//! The language of the tests: what was sent, and what must be seen of it. A red test prints the whole dialogue.

use std::fmt::Write;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::event::{EventKind, Events, FlowView};
use crate::policy::{Class, Policy, Role};
use crate::table::memory::Memory;
use crate::tick::{Tick, Ticks};
use crate::track::settings::{Profile, Settings};
use crate::track::timeout::TimeoutKey;
use crate::tracker::{Cursor, ExpireBudget, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use crate::wire::{Checksum, Link, proto, tcp_flags};

pub(super) use tcp_flags::{ACK, FIN, PSH, RST, SYN};

/// One of the two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Host {
    Client,
    Server,
}
use Host::{Client, Server};

const CLIENT: [u8; 4] = [192, 168, 1, 5];
const SERVER: [u8; 4] = [192, 168, 1, 35];
const CLIENT_PORT: u16 = 1031;
const SERVER_PORT: u16 = 23;
const WINDOW: u16 = 29_200;

/// A conversation under way.
pub(super) struct Dialogue {
    pub(super) tracker: Tracker,
    pub(super) events: Events,
    now: Tick,
    log: String,
    /// The next sequence number of client and server.
    seq: [u32; 2],
    pub(super) last: Outcome,
}

/// One TCP segment to send; `seq` and `ack` follow the conversation unless set.
#[derive(Clone, Copy)]
pub(super) struct Seg {
    flags: u8,
    bytes: usize,
    seq_offset: i32,
    ack_offset: i32,
    window: u16,
}

pub(super) fn seg(flags: u8) -> Seg {
    Seg { flags, bytes: 0, seq_offset: 0, ack_offset: 0, window: WINDOW }
}

impl Seg {
    pub(super) fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    pub(super) fn seq_offset(self, seq_offset: i32) -> Self {
        Self { seq_offset, ..self }
    }

    pub(super) fn ack_offset(self, ack_offset: i32) -> Self {
        Self { ack_offset, ..self }
    }

    pub(super) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }
}

pub(super) fn tracker(settings: Settings, policy: Policy, max_entries: u32, on_full: OnFull) -> Tracker {
    let limits = Limits { max_entries, max_datagrams: 8, hash_key: [1, 2, 3, 4] };
    let memory = Memory::heap(Tracker::memory_bytes(&limits).unwrap()).unwrap();
    Tracker::new(limits, settings, policy, on_full, memory).unwrap()
}

/// A packet as a driver hands it in: behind an Ethernet header, so that it takes the way that it takes there.
pub(super) fn frame(packet: &[u8], role: Role) -> Frame<'static> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    let bytes = [&[2; 12][..], &ethertype, packet].concat();
    // A few tests' worth of packets, for as long as the tests run.
    Frame { bytes: Vec::leak(bytes), link: Link::Ethernet, role, zone: 0, checksum: Checksum::Good }
}

/// An IPv4 packet. The header checksum is right; the transport's is the caller's affair.
pub(super) fn ipv4(protocol: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(src);
    packet.extend(dst);
    packet.extend(payload);
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    let words = packet[..20].chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A TCP segment without options.
pub(super) fn tcp(ports: (u16, u16), seq: u32, ack: u32, flags: u8, window: u16, bytes: usize) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags]);
    segment.extend(window.to_be_bytes());
    segment.extend([0, 0, 0, 0]);
    segment.resize(20 + bytes, b'x');
    segment
}

pub(super) fn udp(ports: (u16, u16), bytes: usize) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(ports.0.to_be_bytes());
    datagram.extend(ports.1.to_be_bytes());
    datagram.extend((8 + bytes as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + bytes, b'x');
    datagram
}

impl Dialogue {
    pub(super) fn new(settings: Settings) -> Self {
        Self::over(tracker(settings, Policy::ACCEPT_ALL, 1000, OnFull::EarlyDrop))
    }

    pub(super) fn over(tracker: Tracker) -> Self {
        Self {
            tracker,
            events: Events::with_capacity(1000),
            now: Tick::from_millis(1_000_000),
            log: String::new(),
            seq: [1000, 900_000],
            last: Outcome::untold(Verdict::Forward),
        }
    }

    pub(super) fn classic() -> Self {
        Self::new(Settings::new(Profile::Classic))
    }

    pub(super) fn linux() -> Self {
        Self::new(Settings::new(Profile::Linux))
    }

    /// A handshake, and one byte each way, acknowledged.
    pub(super) fn established(self) -> Self {
        self.client(seg(SYN))
            .server(seg(SYN | ACK))
            .client(seg(ACK))
            .client(seg(ACK | PSH).bytes(1))
            .server(seg(ACK | PSH).bytes(1))
            .client(seg(ACK))
    }

    pub(super) fn client(self, segment: Seg) -> Self {
        self.send(Client, segment)
    }

    pub(super) fn server(self, segment: Seg) -> Self {
        self.send(Server, segment)
    }

    fn send(mut self, from: Host, segment: Seg) -> Self {
        let (own, other) = (from as usize, 1 - from as usize);
        let seq = self.seq[own].wrapping_add_signed(segment.seq_offset);
        let ack = if segment.flags & ACK != 0 {
            self.seq[other].wrapping_add_signed(segment.ack_offset)
        } else {
            0
        };
        let ports = match from {
            Client => (CLIENT_PORT, SERVER_PORT),
            Server => (SERVER_PORT, CLIENT_PORT),
        };
        let bytes = tcp(ports, seq, ack, segment.flags, segment.window, segment.bytes);
        if segment.seq_offset == 0 {
            let taken = segment.bytes as u32 + u32::from(segment.flags & (SYN | FIN) != 0);
            self.seq[own] = self.seq[own].wrapping_add(taken);
        }
        writeln!(
            self.log,
            "{:9.3} {from:?} flags={:#04x} seq={seq} ack={ack} bytes={}",
            self.now.as_millis() as f64 / 1e3,
            segment.flags,
            segment.bytes
        )
        .unwrap();
        self.raw(from, proto::TCP, &bytes)
    }

    /// One packet of any protocol.
    pub(super) fn raw(self, from: Host, protocol: u8, payload: &[u8]) -> Self {
        let packet = match from {
            Client => ipv4(protocol, CLIENT, SERVER, payload),
            Server => ipv4(protocol, SERVER, CLIENT, payload),
        };
        self.raw_ip(from, &packet)
    }

    /// One packet, from its IP header on.
    pub(super) fn raw_ip(mut self, from: Host, packet: &[u8]) -> Self {
        let role = if from == Client { Role::Inside } else { Role::Outside };
        let frames = [frame(packet, role)];
        let mut outcomes = [self.last];
        self.tracker.on_burst(self.now, &frames, &mut outcomes, &mut self.events);
        self.last = outcomes[0];
        writeln!(self.log, "          {:?}", self.last).unwrap();
        self
    }

    /// The wheel turns meanwhile, ever more often towards the end.
    pub(super) fn wait(mut self, span: Ticks) -> Self {
        let end = self.now.after(span);
        while self.now < end {
            let left = (end.0 - self.now.0) as u32;
            self.now = self.now.after(Ticks(left.div_ceil(16)));
            while self.tracker.on_tick(self.now, ExpireBudget { flows: 64 }, &mut self.events).more {}
        }
        self
    }

    /// Time passes, and nobody turns the wheel.
    pub(super) fn stall(mut self, span: Ticks) -> Self {
        self.now = self.now.after(span);
        self
    }

    /// As [`Dialogue::stall`], for longer than any timeout may be.
    pub(super) fn stall_days(mut self, days: u64) -> Self {
        self.now = Tick::from_millis(self.now.as_millis() + days * 86_400_000);
        self
    }

    pub(super) fn wait_secs(self, seconds: u32) -> Self {
        self.wait(Ticks::from_secs(seconds))
    }

    /// The table's flows.
    pub(super) fn flows(&self) -> Vec<FlowView> {
        let mut all = Vec::new();
        let mut page = Vec::with_capacity(64);
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            page.clear();
            cursor = self.tracker.page(self.now, from, &mut page);
            all.extend_from_slice(&page);
        }
        all
    }

    #[track_caller]
    pub(super) fn expect_class(self, class: Class) -> Self {
        assert_eq!(self.last.class, Some(class), "the last line surprises:\n{}", self.log);
        self
    }

    /// The one flow's state and whole seconds left.
    #[track_caller]
    pub(super) fn expect(self, state: &str, seconds: u32) -> Self {
        let flows = self.flows();
        let [flow] = flows[..] else { panic!("one flow is expected, {flows:?}:\n{}", self.log) };
        let got = (flow.state_name(true).unwrap_or("-"), flow.timeout_secs);
        assert_eq!(got, (state, seconds), "the last line surprises:\n{}", self.log);
        self
    }

    #[track_caller]
    pub(super) fn expect_status(self, replied: bool, assured: bool) -> Self {
        let flows = self.flows();
        let [flow] = flows[..] else { panic!("one flow is expected, {flows:?}:\n{}", self.log) };
        let got = (flow.is_replied(), flow.is_assured());
        assert_eq!(got, (replied, assured), "(replied, assured):\n{}", self.log);
        self
    }

    #[track_caller]
    pub(super) fn expect_no_flow(self) -> Self {
        assert_eq!(self.flows(), [], "{}", self.log);
        self
    }

    pub(super) fn set_timeout(mut self, key: TimeoutKey, seconds: u32) -> Self {
        self.tracker.set_timeout(key, Ticks::from_secs(seconds));
        self
    }

    pub(super) fn now(&self) -> Tick {
        self.now
    }

    pub(super) fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|event| event.kind).collect()
    }
}
