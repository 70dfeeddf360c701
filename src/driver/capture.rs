//! Frames out of a capture file, pcap or pcapng, one after the other. Owns file formats, link headers and the
//! file's clock; it sees no tracker. Memory stays bounded whatever the file claims.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use conntrack::policy::Role;
use conntrack::tracker::Frame;
use conntrack::wire::{Checksum, Link, proto};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

/// What is read at once, and the room for one record before it has to grow.
const BUFFER_BYTES: usize = 256 << 10;

/// No record is longer: tcpdump's own limit is 256 KiB a packet; name and secret blocks of pcapng are longer, rarely.
const RECORD_BYTES: usize = 16 << 20;

/// Interfaces in one section of a pcapng file at most.
const INTERFACES: usize = 65_536;

/// The longest frame that is completed with zeros: the longest IPv6 packet without jumbo option, and its link header.
const FRAME_BYTES: usize = 65_535 + 40 + 64;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("it cannot be opened ({0}): check the path and the right to read it")]
    Open(io::Error),
    #[error("it is neither pcap nor pcapng: give a file that tcpdump -w, dumpcap or Wireshark has written")]
    NotACapture,
    #[error("its link type {0} is not supported: capture Ethernet, raw IP, Linux cooked (any) or loopback")]
    LinkType(i32),
    #[error("it ends within a record at byte {0}: the capture was cut off, everything before was read")]
    CutOff(u64),
    #[error(
        "the record at byte {0} is damaged: repair the file with `editcap IN OUT`, everything before was read"
    )]
    Damaged(u64),
    #[error(
        "the packet at byte {0} belongs to an interface that the file does not describe: the file is damaged there"
    )]
    NoInterface(u64),
    #[error(
        "the packet at byte {0} is in a block form that is obsolete: convert the file with `editcap -F pcapng IN OUT`"
    )]
    Obsolete(u64),
    #[error("reading failed after byte {0}: check the disk, or copy the file and try again")]
    Read(u64),
}

/// One frame, as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// Nanoseconds since 1970 by the capture's clock.
    pub at_ns: u64,
    /// `None` where the link header says that it is not IP and there is no Ethernet header that the tracker could read.
    pub frame: Option<Frame<'a>>,
}

/// An open capture.
pub struct Capture {
    reader: Box<dyn PcapReaderIterator + Send>,
    format: Format,
    /// The present frame, copied out of the reader's buffer.
    bytes: Vec<u8>,
    room: usize,
    last_ns: u64,
}

enum Format {
    /// The header has not been read yet.
    Unknown,
    Pcap {
        link: LinkType,
        nanoseconds: bool,
    },
    PcapNg {
        interfaces: Vec<Interface>,
    },
}

#[derive(Clone, Copy)]
struct Interface {
    link_type: i32,
    snaplen: u32,
    /// Counts of the time stamp in a second.
    resolution: u64,
    offset_secs: i64,
}

/// Link types whose headers are understood (https://www.tcpdump.org/linktypes.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkType {
    Ethernet,
    RawIp,
    /// A 4-byte address family, in the byte order of the machine that captured (NULL) or of the network (LOOP).
    Loopback,
    /// Linux "any", old form: 16 bytes, the protocol in the last two.
    Cooked,
    /// Linux "any", new form: 20 bytes, the protocol in the first two.
    Cooked2,
}

impl LinkType {
    fn new(number: i32) -> Result<Self, CaptureError> {
        // The upper bits tell of a frame check sequence (draft-ietf-opsawg-pcap section 4); it lies behind the
        // packet, where the IP header's own length leaves it out.
        match number & 0x03ff_ffff {
            1 => Ok(Self::Ethernet),
            // 12 and 14 are what DLT_RAW is called on some systems; 228 and 229 are IPv4 and IPv6 alone.
            12 | 14 | 101 | 228 | 229 => Ok(Self::RawIp),
            0 | 108 => Ok(Self::Loopback),
            113 => Ok(Self::Cooked),
            276 => Ok(Self::Cooked2),
            _ => Err(CaptureError::LinkType(number)),
        }
    }

    /// Where the tracker's reading starts and what stands there; `None` if it is not IP.
    fn payload(self, bytes: &[u8]) -> Option<(Link, usize)> {
        let (protocol_at, payload_at) = match self {
            Self::Ethernet => return Some((Link::Ethernet, 0)),
            Self::RawIp => return Some((Link::Ip, 0)),
            Self::Loopback => {
                let family: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
                // AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 and 30 on the BSDs and macOS.
                let known = |family| matches!(family, 2 | 10 | 24 | 28 | 30);
                let ip = known(u32::from_le_bytes(family)) || known(u32::from_be_bytes(family));
                return ip.then_some((Link::Ip, 4));
            }
            Self::Cooked => (14, 16),
            Self::Cooked2 => (0, 20),
        };
        let mut protocol = be16(bytes, protocol_at)?;
        let mut at = payload_at;
        // A VLAN tag: two bytes of tag, then the protocol that follows. At most two, as on Ethernet.
        for _ in 0..2 {
            if matches!(protocol, 0x8100 | 0x88a8) {
                protocol = be16(bytes, at + 2)?;
                at += 4;
            }
        }
        (matches!(protocol, 0x0800 | 0x86dd) && bytes.len() >= at).then_some((Link::Ip, at))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// What one record of the file was.
enum Record {
    /// Its bytes are in the buffer; `wire_len` is how long it was before the capture cut it.
    Packet {
        at_ns: u64,
        link: LinkType,
        wire_len: usize,
    },
    Other,
}

impl Capture {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        if path == Path::new("-") {
            return Self::new(io::stdin());
        }
        let file = File::open(path).map_err(CaptureError::Open)?;
        if file.metadata().map_err(CaptureError::Open)?.is_dir() {
            return Err(CaptureError::Open(io::ErrorKind::IsADirectory.into()));
        }
        Self::new(file)
    }

    /// Reads a capture from anywhere.
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let reader = create_reader(BUFFER_BYTES, Whole(source)).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Read(0),
            _ => CaptureError::NotACapture,
        })?;
        Ok(Self { reader, format: Format::Unknown, bytes: Vec::new(), room: BUFFER_BYTES, last_ns: 0 })
    }

    /// Bytes of the file that are done.
    pub fn consumed(&self) -> u64 {
        self.reader.consumed() as u64
    }

    /// The next frame, or `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        let (at_ns, link, wire_len) = loop {
            match self.next_record()? {
                Some(Record::Packet { at_ns, link, wire_len }) => break (at_ns, link, wire_len),
                Some(Record::Other) => {}
                None => return Ok(None),
            }
        };
        self.last_ns = at_ns;
        let Some((link, start)) = link.payload(&self.bytes) else {
            return Ok(Some(Captured { at_ns, frame: None }));
        };
        let mut checksum = Checksum::Unknown;
        if self.bytes.len() < wire_len && has_headers(link, self.bytes.get(start..).unwrap_or_default()) {
            // The capture kept the headers only. The packet was whole on the wire, so it gets its length back; its
            // checksum can no longer be verified, and a wrong one is rarer than a short capture.
            self.bytes.resize(wire_len.min(FRAME_BYTES).max(self.bytes.len()), 0);
            checksum = Checksum::Good;
        }
        let bytes = self.bytes.get(start..).unwrap_or_default();
        Ok(Some(Captured {
            at_ns,
            frame: Some(Frame { bytes, link, role: Role::Inside, zone: 0, checksum }),
        }))
    }

    /// The next record; its packet's bytes go into the buffer.
    fn next_record(&mut self) -> Result<Option<Record>, CaptureError> {
        loop {
            let at = self.reader.consumed() as u64;
            let have = self.reader.data().len();
            let error = match self.reader.next() {
                Ok((len, block)) => {
                    let record = self.format.read(&block, at, self.last_ns, &mut self.bytes);
                    self.reader.consume(len);
                    return record.map(Some);
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => None,
                Err(PcapError::BufferTooSmall) => Some(()),
                Err(PcapError::UnexpectedEof) => return Err(CaptureError::CutOff(at)),
                Err(PcapError::ReadError) => return Err(CaptureError::Read(at)),
                Err(_) => return Err(CaptureError::Damaged(at)),
            };
            let full = error.is_some();
            if full || self.reader.refill().map_err(|_| CaptureError::Read(at)).is_ok() && self.stuck(have) {
                // The record is longer than the buffer.
                self.room *= 2;
                if self.room > RECORD_BYTES || !self.reader.grow(self.room) {
                    return Err(CaptureError::Damaged(at));
                }
                self.reader.refill().map_err(|_| CaptureError::Read(at))?;
            }
        }
    }

    /// A refill brought nothing although the file goes on: the buffer is full.
    fn stuck(&self, had: usize) -> bool {
        self.reader.data().len() == had && !self.reader.reader_exhausted()
    }
}

impl Format {
    fn read(
        &mut self,
        block: &PcapBlockOwned<'_>,
        at: u64,
        last_ns: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Record, CaptureError> {
        let mut keep = |data: &[u8]| {
            bytes.clear();
            bytes.extend_from_slice(data);
        };
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                *self = Self::Pcap {
                    link: LinkType::new(header.network.0)?,
                    nanoseconds: header.is_nanosecond_precision(),
                };
                Ok(Record::Other)
            }
            PcapBlockOwned::Legacy(packet) => {
                let Self::Pcap { link, nanoseconds } = *self else { return Err(CaptureError::Damaged(at)) };
                let fraction = u64::from(packet.ts_usec) * if nanoseconds { 1 } else { 1000 };
                keep(packet.data);
                Ok(Record::Packet {
                    at_ns: u64::from(packet.ts_sec) * 1_000_000_000 + fraction,
                    link,
                    wire_len: packet.origlen as usize,
                })
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                // Interfaces are numbered anew in each section.
                *self = Self::PcapNg { interfaces: Vec::new() };
                Ok(Record::Other)
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let Self::PcapNg { interfaces } = self else { return Err(CaptureError::Damaged(at)) };
                if interfaces.len() == INTERFACES {
                    return Err(CaptureError::Damaged(at));
                }
                interfaces.push(Interface {
                    link_type: interface.linktype.0,
                    snaplen: interface.snaplen,
                    resolution: resolution(interface.if_tsresol).ok_or(CaptureError::Damaged(at))?,
                    offset_secs: interface.if_tsoffset,
                });
                Ok(Record::Other)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = self.interface(packet.if_id, at)?;
                let stamp = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                keep(packet.data.get(..packet.caplen as usize).ok_or(CaptureError::Damaged(at))?);
                Ok(Record::Packet {
                    at_ns: interface.nanoseconds(stamp),
                    link: LinkType::new(interface.link_type)?,
                    wire_len: packet.origlen as usize,
                })
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                // It has neither a time nor a captured length of its own: the time stands still, and the snap length
                // of the first interface says how much was kept. draft-ietf-opsawg-pcapng section 4.4
                let interface = self.interface(0, at)?;
                let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
                let kept = (packet.origlen.min(snaplen) as usize).min(packet.data.len());
                keep(packet.data.get(..kept).unwrap_or_default());
                Ok(Record::Packet {
                    at_ns: last_ns,
                    link: LinkType::new(interface.link_type)?,
                    wire_len: packet.origlen as usize,
                })
            }
            // The Packet Block that came before the Enhanced one: passing it over would lose packets unseen.
            PcapBlockOwned::NG(Block::Unknown(unknown)) if unknown.block_type == 2 => {
                Err(CaptureError::Obsolete(at))
            }
            PcapBlockOwned::NG(_) => Ok(Record::Other),
        }
    }

    fn interface(&self, number: u32, at: u64) -> Result<Interface, CaptureError> {
        match self {
            Self::PcapNg { interfaces } => {
                interfaces.get(number as usize).copied().ok_or(CaptureError::NoInterface(at))
            }
            _ => Err(CaptureError::Damaged(at)),
        }
    }
}

/// Counts in a second: a power of ten, or of two with the highest bit set. draft-ietf-opsawg-pcapng section 4.2
fn resolution(option: u8) -> Option<u64> {
    match option {
        0..0x80 => 10_u64.checked_pow(option.into()),
        _ => 1_u64.checked_shl((option & 0x7f).into()),
    }
}

impl Interface {
    /// A time stamp in nanoseconds since 1970, held within what 64 bits can say (until the year 2554).
    fn nanoseconds(&self, stamp: u64) -> u64 {
        let since = i128::from(stamp) * 1_000_000_000 / i128::from(self.resolution);
        let offset = i128::from(self.offset_secs) * 1_000_000_000;
        u64::try_from(since.saturating_add(offset).max(0)).unwrap_or(u64::MAX)
    }
}

/// Whether the captured bytes hold the IP header and as much of the transport header as the tracker reads. Zeros in
/// the place of those would be taken for a packet that never was; such a frame stays cut, and is found to be.
fn has_headers(link: Link, bytes: &[u8]) -> bool {
    let ip = match link {
        Link::Ip => Some(bytes),
        Link::Note => None,
        Link::Ethernet => ethernet_payload(bytes),
    };
    let Some(ip) = ip else { return false };
    let Some(first) = ip.first() else { return false };
    let (header, next) = match first >> 4 {
        4 => (usize::from(first & 15) * 4, ip.get(9)),
        6 => (40, ip.get(6)),
        _ => return false,
    };
    let Some(next) = next else { return false };
    let transport = match *next {
        proto::TCP => 20,
        proto::UDP | proto::UDPLITE => 8,
        // The common header and the first chunk's with an INIT's tag.
        proto::SCTP => 12 + 8,
        // An error's own header, the quoted IPv4 or IPv6 header and the quoted ports.
        proto::ICMP => 8 + 20 + 8,
        proto::ICMPV6 => 8 + 40 + 8,
        // Up to two short extension headers and TCP.
        0 | 43 | 44 | 60 => 8 + 8 + 20,
        _ => 8,
    };
    ip.len() >= header + transport
}

fn ethernet_payload(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    while matches!(be16(bytes, at)?, 0x8100 | 0x88a8) && at < 20 {
        at += 4;
    }
    bytes.get(at + 2..)
}

/// Fills the whole buffer at each read, so that the first read of a pipe already holds the file's header.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read(rest) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
