//! Capture files written by hand, and the packets in them.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::Ipv4Addr;
use std::path::PathBuf;

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 35);

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const RST: u8 = 0x04;

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An IPv4 packet around a transport part whose checksum belongs at `sum_at`.
pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, mut part: Vec<u8>, sum_at: usize) -> Vec<u8> {
    let pseudo = sum(&src.octets()) + sum(&dst.octets()) + u32::from(proto) + part.len() as u32 + sum(&part);
    part[sum_at..sum_at + 2].copy_from_slice(&folded(pseudo));
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0];
    packet[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let check = folded(sum(&packet));
    packet[10..12].copy_from_slice(&check);
    packet.extend(part);
    packet
}

/// A TCP segment between the tutorial's hosts; `from_client` says which way.
pub(crate) fn tcp(from_client: bool, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let (src, dst, sport, dport) =
        if from_client { (CLIENT, SERVER, 1031_u16, 23_u16) } else { (SERVER, CLIENT, 23, 1031) };
    let mut part = Vec::new();
    part.extend(sport.to_be_bytes());
    part.extend(dport.to_be_bytes());
    part.extend(seq.to_be_bytes());
    part.extend(ack.to_be_bytes());
    part.extend([5 << 4, flags]);
    part.extend(5840_u16.to_be_bytes());
    part.extend([0; 4]);
    part.extend(payload);
    ipv4(src, dst, 6, part, 16)
}

pub(crate) fn udp(src: Ipv4Addr, dst: Ipv4Addr, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut part = Vec::new();
    part.extend(sport.to_be_bytes());
    part.extend(dport.to_be_bytes());
    part.extend((8 + payload.len() as u16).to_be_bytes());
    part.extend([0; 2]);
    part.extend(payload);
    ipv4(src, dst, 17, part, 6)
}

pub(crate) fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    frame
}

/// How a pcap file is written.
#[derive(Clone, Copy)]
pub(crate) struct Pcap {
    pub(crate) link: u32,
    pub(crate) nanoseconds: bool,
    pub(crate) big_endian: bool,
    pub(crate) snaplen: usize,
}

impl Default for Pcap {
    fn default() -> Self {
        Self { link: 1, nanoseconds: false, big_endian: false, snaplen: 262_144 }
    }
}

impl Pcap {
    fn word(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn half(self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A file of frames, each with its time in nanoseconds.
    pub(crate) fn file(self, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(self.word(if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }));
        file.extend(self.half(2));
        file.extend(self.half(4));
        file.extend([0; 8]);
        file.extend(self.word(self.snaplen as u32));
        file.extend(self.word(self.link));
        for (at_ns, frame) in frames {
            let kept = &frame[..frame.len().min(self.snaplen)];
            file.extend(self.word((at_ns / 1_000_000_000) as u32));
            let fraction = at_ns % 1_000_000_000;
            file.extend(self.word(if self.nanoseconds { fraction } else { fraction / 1000 } as u32));
            file.extend(self.word(kept.len() as u32));
            file.extend(self.word(frame.len() as u32));
            file.extend(kept);
        }
        file
    }
}

/// A pcapng block: type, body padded to four bytes, both lengths.
pub(crate) fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = (12 + padded) as u32;
    let mut block = Vec::new();
    block.extend(kind.to_le_bytes());
    block.extend(len.to_le_bytes());
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(len.to_le_bytes());
    block
}

pub(crate) fn section_header() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1_u16.to_le_bytes());
    body.extend(0_u16.to_le_bytes());
    body.extend((-1_i64).to_le_bytes());
    block(0x0a0d_0d0a, &body)
}

/// An interface; `resolution` is the if_tsresol byte, microseconds without it.
pub(crate) fn interface(link: u16, snaplen: u32, resolution: Option<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(link.to_le_bytes());
    body.extend([0; 2]);
    body.extend(snaplen.to_le_bytes());
    if let Some(resolution) = resolution {
        body.extend(9_u16.to_le_bytes());
        body.extend(1_u16.to_le_bytes());
        body.extend([resolution, 0, 0, 0]);
        body.extend([0; 4]);
    }
    block(1, &body)
}

pub(crate) fn enhanced(interface: u32, stamp: u64, frame: &[u8], wire_len: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(interface.to_le_bytes());
    body.extend(((stamp >> 32) as u32).to_le_bytes());
    body.extend((stamp as u32).to_le_bytes());
    body.extend((frame.len() as u32).to_le_bytes());
    body.extend((wire_len as u32).to_le_bytes());
    body.extend(frame);
    block(6, &body)
}

pub(crate) fn simple(frame: &[u8]) -> Vec<u8> {
    let mut body = (frame.len() as u32).to_le_bytes().to_vec();
    body.extend(frame);
    block(3, &body)
}

/// A file that goes away again.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("dpdk-conntrack-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
