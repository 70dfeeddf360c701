//! ICMP errors about packets of known and unknown flows, whole, cut short and damaged: an error is RELATED exactly if
//! what it quotes has a flow and its sender is the one addressed, and it leaves the table as it was.
#![no_main]

use std::net::IpAddr;

use arbitrary::{Arbitrary, Unstructured};
use conntrack::event::{Events, FlowView, Tuple, TupleIds};
use conntrack::key::Direction;
use conntrack::policy::{Class, Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::tick::{Tick, Ticks};
use conntrack::track::reason::Reason;
use conntrack::track::settings::{Profile, Settings};
use conntrack::tracker::{Cursor, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use conntrack::wire::{Checksum, Link};
use conntrack_fuzz::checksum;
use conntrack_fuzz::input::{Long, Many, Short};
use conntrack_fuzz::packet::{Cut, L4, Packet};
use libfuzzer_sys::fuzz_target;

const FLOWS: u32 = 64;

#[derive(Debug)]
enum Sent<'a> {
    /// As it stands.
    Raw(&'a [u8]),
    Built(Packet),
    /// An error about a packet, whether or not that was sent before.
    About(About<'a>),
    Wait(u16),
}

#[derive(Debug)]
struct About<'a> {
    packet: Packet,
    /// Sends the packet first, too.
    sent: bool,
    icmp_type: u8,
    code: u8,
    /// Bytes that are quoted.
    cut: usize,
    from_router: bool,
    /// Addressed to somebody else.
    astray: bool,
    /// The quoted packet's bytes from there on are overwritten.
    damage: (u8, &'a [u8]),
}

impl<'a> Arbitrary<'a> for Sent<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let choice = u8::arbitrary(u)?;
        Ok(match choice & 7 {
            0 | 1 => Self::Raw(Long::arbitrary(u)?.0),
            2 => Self::Built(Packet::arbitrary(u)?),
            3 => Self::Wait(u16::arbitrary(u)?),
            _ => {
                let [icmp_type, code, cut]: [u8; 3] = Arbitrary::arbitrary(u)?;
                let damage = match choice & 0x80 {
                    0 => (0, &[][..]),
                    _ => (u8::arbitrary(u)?, Short::arbitrary(u)?.0),
                };
                Self::About(About {
                    sent: choice & 8 != 0,
                    icmp_type,
                    code,
                    cut: if cut == 0 { usize::MAX } else { cut.into() },
                    from_router: choice & 0x10 != 0,
                    astray: choice & 0x60 == 0x60,
                    damage,
                    packet: Packet::arbitrary(u)?,
                })
            }
        })
    }
}

fuzz_target!(|all: Many<Sent<'_>>| {
    let limits = Limits { max_entries: FLOWS, max_datagrams: 4, hash_key: [1, 2, 3, 4] };
    let memory = Memory::heap(Tracker::memory_bytes(&limits).expect("within limits")).expect("a small heap");
    let settings = Settings::new(Profile::Linux);
    let mut tracker =
        Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::DropNew, memory).expect("enough");
    let mut now = Tick(0);
    for sent in all.0 {
        match sent {
            Sent::Raw(bytes) => _ = send(&mut tracker, now, bytes),
            Sent::Built(packet) => {
                for bytes in packet.sent() {
                    send(&mut tracker, now, &bytes);
                }
            }
            Sent::About(about) => tell(&mut tracker, now, about),
            Sent::Wait(ticks) => now = now.after(Ticks(ticks.into())),
        }
        while tracker.take_discarded().is_some() {}
    }
});

/// Sends one frame; if it can only be an ICMP error, the table must look afterwards as it looked before.
fn send(tracker: &mut Tracker, now: Tick, bytes: &[u8]) -> Outcome {
    let before = is_icmp_error(bytes).then(|| listing(tracker, now));
    let frame = Frame { bytes, link: Link::Ip, role: Role::Inside, zone: 0, checksum: Checksum::Unknown };
    let mut outcome = [Outcome::untold(Verdict::Forward)];
    tracker.on_burst(now, &[frame], &mut outcome, &mut Events::none());
    assert!(outcome[0].class != Some(Class::Related) || outcome[0].direction.is_some());
    if let Some(before) = before {
        assert_eq!(before, listing(tracker, now));
    }
    outcome[0]
}

fn tell(tracker: &mut Tracker, now: Tick, about: About<'_>) {
    let About { packet, sent, icmp_type, code, cut, from_router, astray, damage } = about;
    let quoted = packet.whole();
    if sent {
        send(tracker, now, &quoted);
    }
    // By the addresses of the answer's way; a router has an address of its own.
    let header = if packet.v6 { 40 } else { 20 };
    let mut error = packet.clone();
    error.back = packet.back == astray;
    error.cut = Cut { pieces: 1, first: 0, repeat: false, lose: false, id: 0 };
    error.l4 = L4::Icmp { icmp_type, code, len: 0 };
    let mut bytes = error.whole();
    if from_router {
        bytes[if packet.v6 { 23 } else { 15 }] = 99;
    }
    let mut quote = quoted.clone();
    for (to, from) in quote.iter_mut().skip(damage.0.into()).zip(damage.1) {
        *to = *from;
    }
    let damaged = quote != quoted;
    quote.truncate(cut);
    bytes.extend_from_slice(&quote);
    checksum::set_length(&mut bytes);
    checksum::set_checksums(&mut bytes);

    let flows = listing(tracker, now);
    let outcome = send(tracker, now, &bytes);
    let is_error = if packet.v6 { icmp_type < 128 } else { matches!(icmp_type, 3 | 4 | 5 | 11 | 12) };
    // Only what has ports can be looked up by a plain reader here.
    let ports = match packet.l4 {
        L4::Tcp(_) | L4::Udp { .. } | L4::UdpLite { .. } | L4::Sctp { .. } => quoted.get(header..header + 4),
        _ => None,
    };
    let (Some(&[a, b, c, d]), true, false) = (ports, is_error, damaged) else { return };
    let want = if quote.len() < header + 4 {
        Err(Reason::IcmpErrorQuote)
    } else {
        let ids = TupleIds::Ports { sport: u16::from_be_bytes([a, b]), dport: u16::from_be_bytes([c, d]) };
        let (src, dst) = addresses(&quoted);
        let proto = if packet.v6 { quoted[6] } else { quoted[9] };
        match direction_of(&flows, proto, &Tuple { src, dst, ids }) {
            None => Err(Reason::IcmpErrorNoFlow),
            Some(_) if astray => Err(Reason::IcmpErrorDestination),
            Some(direction) => Ok(direction.other()),
        }
    };
    match want {
        Ok(direction) => {
            assert_eq!((outcome.class, outcome.direction), (Some(Class::Related), Some(direction)));
        }
        Err(reason) => assert_eq!((outcome.class, outcome.reason), (Some(Class::Invalid), Some(reason))),
    }
}

fn is_icmp_error(bytes: &[u8]) -> bool {
    let at = match bytes.first() {
        Some(0x45) if bytes.len() > 20 && bytes[9] == 1 && bytes[6] & 0x3f == 0 && bytes[7] == 0 => 20,
        Some(first) if first >> 4 == 6 && bytes.len() > 40 && bytes[6] == 58 => 40,
        _ => return false,
    };
    if at == 20 { matches!(bytes[at], 3 | 4 | 5 | 11 | 12) } else { bytes[at] < 128 || bytes[at] == 137 }
}

fn listing(tracker: &Tracker, now: Tick) -> Vec<FlowView> {
    let mut flows = Vec::with_capacity(FLOWS as usize);
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        from = tracker.page(now, cursor, &mut flows);
    }
    flows
}

fn direction_of(flows: &[FlowView], proto: u8, tuple: &Tuple) -> Option<Direction> {
    flows.iter().filter(|flow| flow.proto == proto).find_map(|flow| {
        if flow.original == *tuple {
            Some(Direction::Original)
        } else {
            (flow.reply == *tuple).then_some(Direction::Reply)
        }
    })
}

fn addresses(ip: &[u8]) -> (IpAddr, IpAddr) {
    if ip[0] >> 4 == 4 {
        let addr = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        (addr(12), addr(16))
    } else {
        let addr = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("sixteen bytes"));
        (addr(8), addr(24))
    }
}
