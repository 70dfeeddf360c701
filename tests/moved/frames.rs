//! Frames, each odd in one way, and the packets that were recorded beside the kernel.

use std::path::Path;

use agreement::corpus::{self, Scenario};

use crate::support::{arp, ipv4, udp};

/// Fixes the checksum at `at` of what an ICMP message is.
fn summed(mut message: Vec<u8>, at: usize) -> Vec<u8> {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = message.chunks(2).map(word).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    message[at..at + 2].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    message
}

/// The same frame behind tags, the outer one first.
pub(crate) fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for tag in tags {
        out.extend_from_slice(&[0x81, 0]);
        out.extend_from_slice(&tag.to_be_bytes());
    }
    out.extend_from_slice(&frame[12..]);
    out
}

/// An ICMP error from `src` to `dst` about a frame of this side's.
pub(crate) fn unreachable(src: u8, dst: u8, about: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&about[14..]);
    ipv4(src, dst, 1, &summed(message, 2))
}

/// A first fragment whose datagram never comes whole.
pub(crate) fn fragment(id: u16) -> Vec<u8> {
    let [first, _] = halves(id);
    first
}

/// A datagram in two fragments, from one of 64 hosts.
pub(crate) fn halves(id: u16) -> [Vec<u8>; 2] {
    let whole = udp(100 + (id % 64) as u8, 4, id, 53);
    let (header, payload) = whole.split_at(14 + 20);
    // More fragments follow the first 8 bytes; the rest lies one unit of 8 bytes behind them.
    [(&payload[..8], 0x2000_u16), (&payload[8..], 1)].map(|(part, place)| {
        let mut frame = [header, part].concat();
        frame[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        frame[24..26].copy_from_slice(&[0, 0]);
        let header = summed(frame[14..34].to_vec(), 10);
        frame[14..34].copy_from_slice(&header);
        frame
    })
}

/// Ethernet around anything, up to a length that no port takes.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = arp(1)[..12].to_vec();
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What is not tracked, one frame of each kind, and INVALID packets and states that no recording has.
pub(crate) fn odd() -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = [0x9999, 0x8847, 0x8863, 0x88cc, 40].map(|kind| ethernet(kind, &[0; 60])).into();
    frames.push(arp(1));
    frames.push(tagged(&udp(1, 2, 9, 9), &[1, 2, 3]));
    // GRE version 1 that does not carry PPP, and ICMPv6 in IPv4.
    frames.push(ipv4(1, 2, 47, &[0x20, 1, 8, 0, 0, 0, 0, 0]));
    frames.push(ipv4(1, 2, 58, &[128, 0, 0, 0, 0, 0, 0, 0]));
    // A TCP segment without flags opens a connection in the classic profile.
    frames.push(tcp(1, 2, (77, 80), 0, (1, 0)));
    frames.extend(unfinished());
    frames
}

/// A TCP segment without payload, checksum and all.
pub(crate) fn tcp(src: u8, dst: u8, ports: (u16, u16), flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&ports.0.to_be_bytes());
    segment.extend_from_slice(&ports.1.to_be_bytes());
    segment.extend_from_slice(&numbers.0.to_be_bytes());
    segment.extend_from_slice(&numbers.1.to_be_bytes());
    segment.extend_from_slice(&[0x50, flags, 4, 0, 0, 0, 0, 0]);
    let mut pseudo = vec![198, 18, 0, src, 198, 18, 0, dst, 0, 6, 0, 20];
    pseudo.extend_from_slice(&segment);
    let sum = &summed(pseudo, 12 + 16)[12 + 16..12 + 18];
    segment[16..18].copy_from_slice(sum);
    ipv4(src, dst, 6, &segment)
}

/// Connections that stop in a state that no recording ends in: one side waits for the last acknowledgment, and both
/// sides sent a SYN.
pub(crate) fn unfinished() -> Vec<Vec<u8>> {
    let (fin, syn, ack) = (1, 2, 0x10);
    let client = |flags, numbers| tcp(1, 2, (78, 80), flags, numbers);
    let server = |flags, numbers| tcp(2, 1, (80, 78), flags, numbers);
    vec![
        client(syn, (100, 0)),
        server(syn | ack, (300, 101)),
        client(ack, (101, 301)),
        client(fin | ack, (101, 301)),
        server(ack, (301, 102)),
        server(fin | ack, (301, 102)),
        tcp(1, 2, (79, 80), syn, (100, 0)),
        tcp(2, 1, (80, 79), syn, (300, 0)),
    ]
}

/// The packets of recorded scenarios, of each file every `nth` one, as frames.
pub(crate) fn recorded(files: &[(&str, usize)]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/corpus");
    let mut frames = Vec::new();
    for (file, nth) in files {
        let path = folder.join(format!("{file}.jsonl.gz"));
        let each = |number: usize, line: String| {
            if number.is_multiple_of(*nth) {
                let steps = Scenario::parse(&line).unwrap().steps;
                frames.extend(steps.iter().filter(|step| !step.bytes.is_empty()).map(|step| {
                    let ethertype = if step.bytes[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
                    ethernet(ethertype, &step.bytes)
                }));
            }
        };
        corpus::lines(&path, each).unwrap();
    }
    frames
}
