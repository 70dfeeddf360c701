//! Random packet programs: what the kernel and the tracker are both asked. A program depends on the seed and its
//! number alone. Sees neither the kernel nor the tracker.

pub mod describe;
mod other;
pub mod packet;
pub mod rng;
mod sctp;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use other::{Datagrams, Kind};
use packet::Ip;
use rng::Rng;

/// Which device a packet enters by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Side {
    /// The opposite side.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// One step of a program.
#[derive(Clone, Debug)]
pub enum Step {
    Packet {
        side: Side,
        bytes: Vec<u8>,
        /// A router may drop it for reasons of its own.
        may_be_dropped: bool,
    },
    /// A setting changes while flows live.
    Set(&'static str, u64),
    /// Time passes, in milliseconds. In timed programs only.
    Wait(u32),
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Program {
    pub seed: u64,
    pub index: u64,
    /// Settings that differ from the kernel's defaults, by their names below `net.netfilter.`
    pub settings: Vec<(&'static str, u64)>,
    pub steps: Vec<Step>,
}

impl Program {
    /// Packets in it.
    pub fn packets(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Packet { .. })).count()
    }
}

/// The addresses of one program.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    v6: bool,
    a: IpAddr,
    b: IpAddr,
    id: u16,
}

impl Ends {
    fn new(rng: &mut Rng, v6: bool) -> Self {
        let (host_a, host_b) = (rng.between(1, 64_000), rng.between(1, 64_000));
        let address = |side: u16, host: u32| -> IpAddr {
            if v6 {
                Ipv6Addr::new(0x2001, 0xdb8, side, 0, 0, 0, 1, host as u16).into()
            } else {
                let [high, low] = (host as u16).to_be_bytes();
                Ipv4Addr::new(10, if side == 0xa { 1 } else { 2 }, high, low).into()
            }
        };
        Self { v6, a: address(0xa, host_a), b: address(0xb, host_b), id: rng.word() as u16 }
    }

    fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    /// A header for a packet that `side` sends to the other.
    fn ip(&self, side: Side, proto: u8) -> Ip {
        Ip {
            src: self.address(side),
            dst: self.address(side.other()),
            proto,
            ttl: 64,
            id: self.id,
            dont_fragment: false,
            extensions: Vec::new(),
        }
    }

    /// A router on `side` that is not the one under test.
    fn router(&self, side: Side) -> IpAddr {
        match (self.v6, side) {
            (false, Side::A) => Ipv4Addr::new(192, 0, 2, 1).into(),
            (false, Side::B) => Ipv4Addr::new(198, 51, 100, 1).into(),
            (true, Side::A) => Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1).into(),
            (true, Side::B) => Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 1).into(),
        }
    }

    /// Another host on `side`.
    fn stranger(&self, side: Side) -> IpAddr {
        match (self.v6, side) {
            (false, Side::A) => Ipv4Addr::new(10, 1, 250, 250).into(),
            (false, Side::B) => Ipv4Addr::new(10, 2, 250, 250).into(),
            (true, Side::A) => Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 2, 1).into(),
            (true, Side::B) => Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 2, 1).into(),
        }
    }
}

/// One of the things that go on in a program.
enum Source {
    Tcp(tcp::Conversation),
    Sctp(sctp::Association),
    Datagrams(Datagrams),
}

impl Source {
    fn new(rng: &mut Rng, v6: bool) -> Self {
        match rng.weighted([56, 16, 8, 3, 8, 4, 3]) {
            0 => Self::Tcp(tcp::Conversation::new(rng)),
            1 => Self::Sctp(sctp::Association::new(rng)),
            2 => Self::Datagrams(Datagrams::new(rng, Kind::Udp, v6)),
            3 => Self::Datagrams(Datagrams::new(rng, Kind::UdpLite, v6)),
            4 => Self::Datagrams(Datagrams::new(rng, Kind::Icmp, v6)),
            5 => Self::Datagrams(Datagrams::new(rng, Kind::Gre, v6)),
            _ => Self::Datagrams(Datagrams::new(rng, Kind::Generic, v6)),
        }
    }

    fn next(&mut self, rng: &mut Rng, ends: &Ends) -> (Side, Ip, Vec<u8>) {
        match self {
            Self::Tcp(conversation) => conversation.next(rng, ends),
            Self::Sctp(association) => association.next(rng, ends),
            Self::Datagrams(datagrams) => datagrams.next(rng, ends),
        }
    }
}

/// Timeouts of which no two are equal or next to each other, so that the remaining seconds name the one that was set.
const DISTINCT: [(&str, u64); 24] = [
    ("nf_conntrack_tcp_timeout_syn_sent", 110),
    ("nf_conntrack_tcp_timeout_syn_recv", 65),
    ("nf_conntrack_tcp_timeout_established", 1000),
    ("nf_conntrack_tcp_timeout_fin_wait", 125),
    ("nf_conntrack_tcp_timeout_close_wait", 55),
    ("nf_conntrack_tcp_timeout_last_ack", 35),
    ("nf_conntrack_tcp_timeout_time_wait", 140),
    ("nf_conntrack_tcp_timeout_close", 15),
    ("nf_conntrack_tcp_timeout_max_retrans", 205),
    ("nf_conntrack_tcp_timeout_unacknowledged", 170),
    ("nf_conntrack_udp_timeout", 31),
    ("nf_conntrack_udp_timeout_stream", 122),
    ("nf_conntrack_icmp_timeout", 28),
    ("nf_conntrack_icmpv6_timeout", 25),
    ("nf_conntrack_generic_timeout", 600),
    ("nf_conntrack_gre_timeout", 40),
    ("nf_conntrack_gre_timeout_stream", 180),
    ("nf_conntrack_sctp_timeout_closed", 11),
    ("nf_conntrack_sctp_timeout_cookie_wait", 43),
    ("nf_conntrack_sctp_timeout_cookie_echoed", 46),
    ("nf_conntrack_sctp_timeout_established", 210),
    ("nf_conntrack_sctp_timeout_shutdown_sent", 49),
    ("nf_conntrack_sctp_timeout_shutdown_recd", 52),
    ("nf_conntrack_sctp_timeout_heartbeat_sent", 58),
];

/// Every timeout that a program may change.
const TIMEOUTS: [&str; 25] = {
    let mut names = ["nf_conntrack_sctp_timeout_shutdown_ack_sent"; 25];
    let mut index = 0;
    while index < DISTINCT.len() {
        names[index] = DISTINCT[index].0;
        index += 1;
    }
    names
};

/// A program in which no time passes.
pub fn generate(seed: u64, index: u64) -> Program {
    let mut rng = Rng::new(seed, index);
    let mut settings = Vec::new();
    if rng.chance(60) {
        settings.extend(DISTINCT);
    }
    switches(&mut rng, &mut settings);
    if rng.chance(5) {
        // A short timeout caps those that are longer than it.
        let name =
            rng.pick(["nf_conntrack_tcp_timeout_max_retrans", "nf_conntrack_tcp_timeout_unacknowledged"]);
        settings.push((name, rng.pick([5, 20, 50, 90])));
    }
    let mut writer = Writer::new(&mut rng);
    let length = writer.rng.between(10, 60) as usize;
    while writer.steps.len() < length {
        writer.go_on();
        if writer.rng.chance(2) {
            let name = writer.rng.pick(TIMEOUTS);
            let now = settings.iter().rev().find(|(other, _)| *other == name).map_or(0, |(_, value)| *value);
            // Raised only: what a lowered one does to live flows is an operator's choice here and nothing there. The
            // same goes for the two that GRE flows copy when they are made.
            let copied = name.contains("_gre_");
            if now > 0 && now < 100_000 && !copied {
                writer.raise(name, now);
            }
        }
    }
    let steps = writer.steps;
    Program { seed, index, settings, steps }
}

/// Settings that programs with gaps share: every timeout is 1 to 4 s.
pub fn timed_settings(seed: u64, batch: u64) -> Vec<(&'static str, u64)> {
    let mut rng = Rng::new(seed ^ 0x7469_6d65, batch);
    let mut settings: Vec<_> =
        TIMEOUTS.into_iter().map(|name| (name, u64::from(rng.between(1, 4)))).collect();
    switches(&mut rng, &mut settings);
    settings
}

/// A program with gaps. All times, modulo one second, lie at least 40 ms apart between bursts, so that no decision
/// hangs on the clocks' difference.
pub fn generate_timed(seed: u64, index: u64, settings: &[(&'static str, u64)]) -> Program {
    let mut rng = Rng::new(seed ^ 0x6761_7073, index);
    let mut writer = Writer::new(&mut rng);
    let bursts = writer.rng.between(3, 8);
    // 40 ms steps of a second in random order: each burst takes one.
    let mut phases: [u32; 20] = std::array::from_fn(|at| at as u32);
    for at in (1..phases.len()).rev() {
        phases.swap(at, writer.rng.below(at as u32 + 1) as usize);
    }
    let mut clock = phases[0] * 50;
    let start = clock;
    for burst in 0..bursts {
        for _ in 0..writer.rng.between(1, 5) {
            writer.go_on();
        }
        if clock - start > 9_000 {
            break;
        }
        // A little before or behind a whole second, or anywhere within five.
        let seconds = writer.rng.below(5);
        let next = phases[(burst as usize + 1) % phases.len()] * 50;
        let mut until = (clock / 1000 + seconds) * 1000 + next;
        if until <= clock {
            until += 1000;
        }
        writer.steps.push(Step::Wait(until - clock));
        clock = until;
    }
    writer.go_on();
    let steps = writer.steps;
    Program { seed, index, settings: settings.to_vec(), steps }
}

fn switches(rng: &mut Rng, settings: &mut Vec<(&'static str, u64)>) {
    if rng.chance(15) {
        settings.push(("nf_conntrack_tcp_loose", 0));
    }
    if rng.chance(12) {
        settings.push(("nf_conntrack_tcp_be_liberal", 1));
    }
    if rng.chance(12) {
        settings.push(("nf_conntrack_tcp_ignore_invalid_rst", 1));
    }
    if rng.chance(15) {
        settings.push(("nf_conntrack_tcp_max_retrans", rng.pick([0, 1, 2, 5, 255])));
    }
    if rng.chance(10) {
        settings.push(("nf_conntrack_checksum", 0));
    }
    if rng.chance(5) {
        settings.push(("nf_conntrack_acct", 0));
    }
}

/// Writes a program's steps.
struct Writer<'a> {
    rng: &'a mut Rng,
    ends: Ends,
    sources: Vec<Source>,
    steps: Vec<Step>,
    /// Whole packets sent so far, for errors to quote.
    sent: Vec<(Side, Vec<u8>)>,
    next_fragment_id: u32,
    /// In percent of packets.
    fragmented: u32,
    damaged: u32,
    errors: u32,
    extended: u32,
}

impl<'a> Writer<'a> {
    fn new(rng: &'a mut Rng) -> Self {
        let v6 = rng.chance(45);
        let ends = Ends::new(rng, v6);
        let count = rng.pick([1, 1, 1, 1, 2, 2, 3]);
        let sources = (0..count).map(|_| Source::new(rng, v6)).collect();
        let next_fragment_id = rng.word();
        let fragmented = if rng.chance(12) { rng.pick([5, 30, 80]) } else { 0 };
        let damaged = if rng.chance(25) { rng.pick([3, 15, 50]) } else { 0 };
        let errors = if rng.chance(25) { rng.pick([4, 20, 50]) } else { 0 };
        let extended = if v6 && rng.chance(15) { rng.pick([10, 60]) } else { 0 };
        let (steps, sent) = (Vec::new(), Vec::new());
        Self { rng, ends, sources, steps, sent, next_fragment_id, fragmented, damaged, errors, extended }
    }

    /// Raises a timeout, once: from then on a refresh can be told from none.
    fn raise(&mut self, name: &'static str, now: u64) {
        if !self.steps.iter().any(|step| matches!(step, Step::Set(other, _) if *other == name)) {
            self.steps.push(Step::Set(name, now + 1000));
        }
    }

    /// Adds one packet, or the fragments of one.
    fn go_on(&mut self) {
        let rng = &mut *self.rng;
        let quoted = if rng.chance(self.errors) { rng.pick_from(&self.sent).cloned() } else { None };
        let (side, mut header, bytes) = match quoted {
            Some((side, packet)) => other::error(rng, &self.ends, &packet, side),
            None => {
                let at = rng.below(self.sources.len() as u32) as usize;
                let Some(source) = self.sources.get_mut(at) else { return };
                source.next(rng, &self.ends)
            }
        };
        let mut may_be_dropped = false;
        if rng.chance(self.extended) {
            extend(rng, &mut header);
            may_be_dropped = true;
        }
        if rng.chance(self.fragmented) && bytes.len() > 16 {
            self.fragment(side, &header, &bytes);
            return;
        }
        let mut bytes = packet::ip(&header, &bytes);
        if rng.chance(self.damaged) {
            damage(rng, &mut bytes);
            may_be_dropped = true;
        }
        self.sent.push((side, bytes.clone()));
        self.steps.push(Step::Packet { side, bytes, may_be_dropped });
    }

    fn fragment(&mut self, side: Side, header: &Ip, payload: &[u8]) {
        let rng = &mut *self.rng;
        self.next_fragment_id = self.next_fragment_id.wrapping_add(1);
        let id = self.next_fragment_id;
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < payload.len() {
            let size = rng.pick([8, 16, 24, 32, 104, 400, 800, 1400]);
            let end = (at + size).min(payload.len());
            pieces.push((at, end));
            at = end;
        }
        match rng.below(10) {
            0 => pieces.reverse(),
            1 => {
                for at in (1..pieces.len()).rev() {
                    pieces.swap(at, rng.below(at as u32 + 1) as usize);
                }
            }
            2 => {
                let at = rng.below(pieces.len() as u32) as usize;
                let again = pieces[at];
                pieces.insert(rng.below(pieces.len() as u32 + 1) as usize, again);
            }
            3 => {
                pieces.remove(rng.below(pieces.len() as u32) as usize);
            }
            4 => {
                // Overlaps its neighbour by eight bytes.
                let at = rng.below(pieces.len() as u32) as usize;
                let (start, end) = pieces[at];
                pieces[at] = (start.saturating_sub(8), end);
            }
            _ => {}
        }
        // Odd lengths in the middle, a last piece that is none, offsets beyond the end.
        let odd = rng.chance(6);
        for (start, end) in pieces {
            let mut more = end < payload.len();
            let mut piece = payload.get(start..end).unwrap_or_default().to_vec();
            if odd && rng.chance(40) {
                match rng.below(3) {
                    0 => piece.truncate(piece.len().saturating_sub(1)),
                    1 => more = !more,
                    _ => piece.clear(),
                }
            }
            let bytes = packet::fragment(header, id, start, more, &piece);
            self.steps.push(Step::Packet { side, bytes, may_be_dropped: true });
        }
    }
}

/// Puts IPv6 extension headers in.
fn extend(rng: &mut Rng, header: &mut Ip) {
    let options = |rng: &mut Rng| {
        let mut body = vec![0, 0, 1, 4, 0, 0, 0, 0];
        if rng.chance(20) {
            body[1] = 1;
            body.extend([1, 6, 0, 0, 0, 0, 0, 0]);
        }
        body
    };
    for at in 0..rng.between(1, 3) {
        let extension = match rng.below(6) {
            0 if at == 0 => (0, options(rng)),
            1 => (packet::proto::ROUTING, vec![0, 0, rng.pick([0, 2, 4]), rng.pick([0, 0, 1]), 0, 0, 0, 0]),
            2 => {
                let mut body = vec![0, 4, 0, 0];
                body.extend([0; 20]);
                (packet::proto::AH, body)
            }
            3 => (packet::proto::FRAGMENT, vec![0, 0, 0, 0, 0, 0, 0, 9]),
            _ => (packet::proto::DESTINATION, options(rng)),
        };
        header.extensions.push(extension);
    }
    if rng.chance(4) {
        header.proto = 59;
    }
}

/// Damages a packet: bits, length, or the fields of its IP header.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let header_bytes = if bytes.first().is_some_and(|first| first >> 4 == 6) { 40 } else { 20 };
    match rng.weighted([40, 20, 20, 10, 10]) {
        // Somewhere behind the IP header: the checksum is wrong, unless it is the checksum that nobody reads.
        0 => {
            let room = bytes.len().saturating_sub(header_bytes) as u32;
            let at = header_bytes + rng.below(room.min(64)) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        // Cut, with the IP header saying so.
        1 => {
            let room = bytes.len().saturating_sub(header_bytes) as u32;
            let keep = header_bytes + rng.below(room.min(40) + 1) as usize;
            bytes.truncate(keep);
            fit_length(bytes);
        }
        // Cut, with the IP header not saying so.
        2 => {
            let keep = rng.below(bytes.len() as u32 + 1) as usize;
            bytes.truncate(keep.max(1));
        }
        // Somewhere in the IP header, with its checksum right.
        3 => {
            // Not the addresses: what a router makes of others is no matter of tracking.
            let room = if header_bytes == 40 { 8 } else { 12 };
            let at = rng.below(room) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
            if header_bytes == 20 && !rng.chance(20) {
                packet::fill_header_checksum(bytes);
            }
        }
        // Padding behind the packet.
        _ => bytes.extend(vec![0xee; rng.between(1, 20) as usize]),
    }
}

fn fit_length(bytes: &mut [u8]) {
    let total = bytes.len() as u16;
    if bytes.first().is_some_and(|first| first >> 4 == 6) {
        if let Some(field) = bytes.get_mut(4..6) {
            field.copy_from_slice(&total.saturating_sub(40).to_be_bytes());
        }
    } else {
        if let Some(field) = bytes.get_mut(2..4) {
            field.copy_from_slice(&total.to_be_bytes());
        }
        packet::fill_header_checksum(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_depends_on_its_seed_and_number_alone() {
        let text = |seed, index| format!("{:?}", generate(seed, index));
        assert_eq!(text(1, 7), text(1, 7));
        assert_ne!(text(1, 7), text(1, 8));
        assert_ne!(text(1, 7), text(2, 7));
    }

    #[test]
    fn bursts_of_a_timed_program_never_share_a_phase() {
        for index in 0..500 {
            let settings = timed_settings(3, index);
            let (mut clock, mut phases) = (0, vec![0]);
            for step in generate_timed(3, index, &settings).steps {
                if let Step::Wait(ms) = step {
                    clock += ms;
                    phases.push(clock % 1000);
                }
            }
            phases.sort_unstable();
            assert!(phases.windows(2).all(|pair| pair[1] - pair[0] >= 40), "{phases:?}");
        }
    }
}
