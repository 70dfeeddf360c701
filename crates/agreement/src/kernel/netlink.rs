//! nfnetlink as far as it is needed: the packet log, and conntrack's events, lookups and deletions.
//! Linux include/uapi/linux/netfilter/nfnetlink{,_conntrack,_log}.h

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntrack::event::{Count, Tuple, TupleIds};

use super::os::Socket;
use crate::shown::{Entry, EventKind, SCTP_STATES, TCP_STATES, Tcp};

const SUBSYSTEM_CONNTRACK: u16 = 1;
const SUBSYSTEM_LOG: u16 = 4;
const CONNTRACK_NEW: u16 = 0;
const CONNTRACK_GET: u16 = 1;
const CONNTRACK_DELETE: u16 = 2;
const LOG_PACKET: u16 = 0;
const LOG_CONFIG: u16 = 1;
const MESSAGE_ERROR: u16 = 2;
const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const FLAG_CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const ENOENT: i32 = 2;

/// What the kernel needs to be told to find an entry again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    family: u8,
    /// The original tuple's attribute, as it came.
    tuple: Vec<u8>,
    zone: Option<[u8; 2]>,
}

/// One event.
pub struct Announced {
    pub kind: EventKind,
    pub key: Key,
    /// Without its number.
    pub entry: Entry,
}

/// Receives what `log group N` says of packets.
pub(super) struct PacketLog {
    socket: Socket,
    buffer: Vec<u8>,
}

impl PacketLog {
    pub(super) fn open(group: u16) -> Result<Self, String> {
        let mut this = Self { socket: Socket::open(&[])?, buffer: vec![0; 1 << 16] };
        // Bind; copy nothing of the packet; hand each message over at once.
        for (kind, value) in [(1, &[1][..]), (2, &[0, 0, 0, 0, 0, 0][..]), (5, &[0, 0, 0, 1][..])] {
            let mut message = Message::new(SUBSYSTEM_LOG, LOG_CONFIG, FLAG_ACK, 0, group);
            message.attribute(kind, value);
            acknowledged(&this.socket, &message.finish(), &mut this.buffer)?;
        }
        Ok(this)
    }

    /// The mark of the next logged packet.
    pub(super) fn take_mark(&mut self) -> Result<Option<u32>, String> {
        while let Some(length) = self.socket.receive(&mut self.buffer)? {
            for (kind, _, body) in messages(self.buffer.get(..length).unwrap_or_default()) {
                if kind == SUBSYSTEM_LOG << 8 | LOG_PACKET {
                    let mark = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 2);
                    return Ok(Some(mark.and_then(|(_, value)| be32(value)).unwrap_or(0)));
                }
            }
        }
        Ok(None)
    }
}

/// Events, lookups and deletions.
pub(super) struct Conntrack {
    events: Socket,
    query: Socket,
    buffer: Vec<u8>,
    request: Vec<u8>,
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, String> {
        Ok(Self {
            events: Socket::open(&[1, 2, 3])?,
            query: Socket::open(&[])?,
            buffer: vec![0; 1 << 16],
            request: Vec::new(),
        })
    }

    /// Every event since the last call.
    pub(super) fn take_events(&mut self, out: &mut Vec<Announced>) -> Result<(), String> {
        while let Some(length) = self.events.receive(&mut self.buffer)? {
            for (kind, flags, body) in messages(self.buffer.get(..length).unwrap_or_default()) {
                if kind >> 8 != SUBSYSTEM_CONNTRACK {
                    continue;
                }
                let (key, entry) = parse_entry(body, 0).ok_or("an event of the kernel has no tuple")?;
                let kind = match (kind & 0xff, flags & FLAG_CREATE != 0) {
                    (CONNTRACK_DELETE, _) => EventKind::Destroy,
                    (CONNTRACK_NEW, true) => EventKind::New,
                    _ => EventKind::Update,
                };
                out.push(Announced { kind, key, entry });
            }
        }
        Ok(())
    }

    /// Looks every entry up; takes out of `live` those that are gone.
    pub(super) fn get_all(&mut self, live: &mut Vec<(Key, u32)>, out: &mut Vec<Entry>) -> Result<(), String> {
        if live.is_empty() {
            return Ok(());
        }
        self.request.clear();
        for (key, n) in live.iter() {
            let mut message = Message::new(SUBSYSTEM_CONNTRACK, CONNTRACK_GET, 0, key.family, 0);
            message.sequence(*n);
            message.key(key);
            self.request.extend(message.finish());
        }
        self.query.send(&self.request)?;
        let mut gone = Vec::new();
        let mut answers = 0;
        while answers < live.len() {
            let Some(length) = self.query.receive(&mut self.buffer)? else {
                return Err("the kernel left a lookup unanswered".into());
            };
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some((kind, _, sequence, body)) = next_message(&mut rest) {
                answers += 1;
                if kind == MESSAGE_ERROR {
                    match body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
                        Some(code) if code == -ENOENT => gone.push(sequence),
                        code => return Err(format!("a lookup failed: {code:?}")),
                    }
                } else {
                    let (key, entry) =
                        parse_entry(body, sequence).ok_or("an entry of the kernel has no tuple")?;
                    // A lookup also finds an entry by its reply tuple: then ours is gone, and this is a later one.
                    if live.iter().any(|(wanted, n)| *n == sequence && *wanted == key) {
                        out.push(entry);
                    } else {
                        gone.push(sequence);
                    }
                }
            }
        }
        if !gone.is_empty() {
            live.retain(|(_, n)| !gone.contains(n));
        }
        Ok(())
    }

    /// Deletes one entry, if it is there.
    pub(super) fn delete(&mut self, key: &Key) -> Result<(), String> {
        let mut message = Message::new(SUBSYSTEM_CONNTRACK, CONNTRACK_DELETE, FLAG_ACK, key.family, 0);
        message.key(key);
        self.query.send(&message.finish())?;
        // Whatever it answers, the entry is gone.
        self.query.receive(&mut self.buffer)?;
        Ok(())
    }

    /// Deletes every entry of the namespace.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        let message = Message::new(SUBSYSTEM_CONNTRACK, CONNTRACK_DELETE, FLAG_ACK, 0, 0);
        acknowledged(&self.query, &message.finish(), &mut self.buffer)
    }
}

/// A request being written.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(subsystem: u16, what: u16, flags: u16, family: u8, resource: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend((subsystem << 8 | what).to_ne_bytes());
        bytes.extend((FLAG_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        Self { bytes }
    }

    fn sequence(&mut self, number: u32) {
        if let Some(field) = self.bytes.get_mut(8..12) {
            field.copy_from_slice(&number.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn key(&mut self, key: &Key) {
        self.attribute(1 | NESTED, &key.tuple);
        if let Some(zone) = key.zone {
            self.attribute(18, &zone);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        if let Some(field) = self.bytes.get_mut(..4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.bytes
    }
}

fn acknowledged(socket: &Socket, request: &[u8], buffer: &mut [u8]) -> Result<(), String> {
    socket.send(request)?;
    while let Some(length) = socket.receive(buffer)? {
        for (kind, _, body) in messages(buffer.get(..length).unwrap_or_default()) {
            if kind == MESSAGE_ERROR {
                let code = body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
                return match code {
                    Some(0) => Ok(()),
                    Some(code) => Err(format!("netlink: {}", std::io::Error::from_raw_os_error(-code))),
                    None => Err("netlink: an answer was cut off".into()),
                };
            }
        }
    }
    Err("netlink: no answer".into())
}

/// Takes the first message off: its type, flags, sequence number and body.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u16, u32, &'a [u8])> {
    let header = rest.get(..16)?;
    let length = ne32(header)? as usize;
    let kind = ne16(header.get(4..)?)?;
    let flags = ne16(header.get(6..)?)?;
    let sequence = ne32(header.get(8..)?)?;
    let body = rest.get(16..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, flags, sequence, body))
}

fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    std::iter::from_fn(move || next_message(&mut rest).map(|(kind, flags, _, body)| (kind, flags, body)))
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(ne16(rest)?);
        let kind = ne16(rest.get(2..)?)? & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn ne16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn ne32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn be64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        _ => bytes.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
    }
}

/// A CTA_TUPLE_* attribute: the protocol and the tuple.
fn parse_tuple(value: &[u8]) -> Option<(u8, Tuple)> {
    let (mut src, mut dst, mut proto) = (None, None, None);
    let (mut ports, mut icmp) = ([None; 2], [None; 3]);
    for (part, value) in attributes(value) {
        for (kind, value) in attributes(value) {
            match (part, kind) {
                (1, 1 | 3) => src = address(value),
                (1, 2 | 4) => dst = address(value),
                (2, 1) => proto = value.first().copied(),
                (2, 2) => ports[0] = be16(value),
                (2, 3) => ports[1] = be16(value),
                (2, 4 | 7) => icmp[0] = be16(value),
                (2, 5 | 8) => icmp[1] = value.first().map(|byte| u16::from(*byte)),
                (2, 6 | 9) => icmp[2] = value.first().map(|byte| u16::from(*byte)),
                _ => {}
            }
        }
    }
    let proto = proto?;
    let ids = match (ports, icmp) {
        ([Some(srckey), Some(dstkey)], _) if proto == 47 => TupleIds::Gre { srckey, dstkey },
        ([Some(sport), Some(dport)], _) => TupleIds::Ports { sport, dport },
        (_, [Some(id), Some(icmp_type), Some(code)]) => {
            TupleIds::Icmp { icmp_type: icmp_type as u8, code: code as u8, id }
        }
        _ => TupleIds::None,
    };
    Some((proto, Tuple { src: src?, dst: dst?, ids }))
}

fn parse_count(value: &[u8]) -> Count {
    let mut count = Count::default();
    for (kind, value) in attributes(value) {
        match kind {
            1 => count.packets = be64(value).unwrap_or(0),
            2 => count.bytes = be64(value).unwrap_or(0),
            _ => {}
        }
    }
    count
}

/// A conntrack message with its nfgenmsg.
fn parse_entry(body: &[u8], n: u32) -> Option<(Key, Entry)> {
    let family = *body.first()?;
    let (mut original, mut reply) = (None, None);
    let mut key = Key { family, tuple: Vec::new(), zone: None };
    let (mut timeout, mut state, mut status, mut tcp, mut vtag) = (0, None, 0, None, None);
    let (mut count, mut counted) = ([Count::default(); 2], false);
    let (mut mark, mut zone) = (0, 0);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            1 => {
                original = parse_tuple(value);
                key.tuple = value.to_vec();
            }
            2 => reply = parse_tuple(value),
            3 => status = be32(value)?,
            4 => (state, tcp, vtag) = parse_protocol(value),
            7 => timeout = be32(value)?,
            8 => mark = be32(value)?,
            9 => (count[0], counted) = (parse_count(value), true),
            10 => (count[1], counted) = (parse_count(value), true),
            18 => {
                zone = be16(value)?;
                key.zone = value.first_chunk().copied();
            }
            _ => {}
        }
    }
    let (proto, original) = original?;
    let (_, reply) = reply?;
    let count = counted.then_some(count);
    Some((key, Entry { n, proto, timeout, state, status, original, reply, count, tcp, vtag, mark, zone }))
}

type Protocol = (Option<&'static str>, Option<Tcp>, Option<[u32; 2]>);

/// CTA_PROTOINFO: the state's name, and the variables that TCP and SCTP show.
fn parse_protocol(value: &[u8]) -> Protocol {
    let mut out: Protocol = (None, None, None);
    for (protocol, value) in attributes(value) {
        let byte = |wanted: u16| {
            attributes(value).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| value.first().copied())
        };
        let word = |wanted: u16| {
            attributes(value).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| be32(value))
        };
        match protocol {
            1 => {
                out.0 = byte(1).and_then(|state| TCP_STATES.get(usize::from(state)).copied());
                if let (Some(a), Some(b), Some(c), Some(d)) = (byte(2), byte(3), byte(4), byte(5)) {
                    out.1 = Some(Tcp { wscale: [a, b], flags: [c, d] });
                }
            }
            3 => {
                out.0 = byte(1).and_then(|state| SCTP_STATES.get(usize::from(state)).copied());
                if let (Some(original), Some(reply)) = (word(2), word(3)) {
                    out.2 = Some([original, reply]);
                }
            }
            _ => {}
        }
    }
    out
}
