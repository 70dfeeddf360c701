//! One line about a packet, for people: enough to follow a dialogue without decoding hex.

use std::fmt::Write as _;

/// The line.
pub fn packet(bytes: &[u8]) -> String {
    describe(bytes).unwrap_or_else(|| format!("{} bytes that are no IP packet", bytes.len()))
}

/// The kind of packet, without its numbers: `tcp SA`, `sctp 1+4`, `udp`.
pub fn kind(bytes: &[u8]) -> String {
    let line = packet(bytes);
    let mut words = line.split(' ').filter(|word| *word != "v4" && *word != "v6");
    let proto = words.next().unwrap_or_default();
    match proto {
        "tcp" => format!("tcp {}", words.nth(1).unwrap_or_default().replace('P', "")),
        "sctp" => {
            let chunks: Vec<_> =
                words.filter_map(|word| word.split_once('(')).map(|(chunk, _)| chunk).collect();
            format!("sctp {}", chunks.join("+"))
        }
        "icmp" | "icmpv6" => format!("{proto} {}", words.next().unwrap_or_default()),
        _ => proto.into(),
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn describe(bytes: &[u8]) -> Option<String> {
    let version = bytes.first()? >> 4;
    if version == 6 {
        let payload = bytes.get(40..)?;
        let (mut next, mut rest, mut before) = (*bytes.get(6)?, payload, String::new());
        for _ in 0..8 {
            match next {
                0 | 43 | 60 => {
                    let length = 8 + usize::from(*rest.get(1)?) * 8;
                    let _ = write!(before, "ext {next} ");
                    (next, rest) = (*rest.first()?, rest.get(length..)?);
                }
                51 => {
                    let length = 8 + usize::from(*rest.get(1)?) * 4;
                    before += "ah ";
                    (next, rest) = (*rest.first()?, rest.get(length..)?);
                }
                44 => {
                    let field = be16(rest, 2)?;
                    let id = be32(rest, 4)?;
                    let _ = write!(
                        before,
                        "fragment {} at {}{} ",
                        id,
                        field & !7,
                        if field & 1 == 1 { "+" } else { "" }
                    );
                    next = *rest.first()?;
                    rest = rest.get(8..)?;
                    if field & !7 != 0 {
                        return Some(format!("v6 {before}proto {next} len {}", rest.len()));
                    }
                }
                _ => break,
            }
        }
        return Some(format!("v6 {before}{}", transport(next, rest)));
    }
    if version != 4 {
        return None;
    }
    let header_bytes = usize::from(bytes.first()? & 15) * 4;
    let total = usize::from(be16(bytes, 2)?).min(bytes.len());
    let field = be16(bytes, 6)?;
    let mut before = String::new();
    if field & 0x3fff != 0 {
        let more = if field & 0x2000 != 0 { "+" } else { "" };
        let _ = write!(before, "fragment {} at {}{more} ", be16(bytes, 4)?, (field & 0x1fff) * 8);
    }
    let rest = bytes.get(header_bytes..total)?;
    if field & 0x1fff != 0 {
        return Some(format!("v4 {before}proto {} len {}", bytes.get(9)?, rest.len()));
    }
    Some(format!("v4 {before}{}", transport(*bytes.get(9)?, rest)))
}

fn transport(proto: u8, bytes: &[u8]) -> String {
    known(proto, bytes).unwrap_or_else(|| format!("proto {proto} len {}", bytes.len()))
}

fn known(proto: u8, bytes: &[u8]) -> Option<String> {
    let ports = || Some(format!("{}>{}", be16(bytes, 0)?, be16(bytes, 2)?));
    Some(match proto {
        6 => {
            let flags = *bytes.get(13)?;
            let names: String = "FSRP.UEC"
                .chars()
                .enumerate()
                .filter(|(bit, _)| flags >> bit & 1 == 1)
                .map(|(_, name)| name)
                .collect();
            let header = usize::from(*bytes.get(12)? >> 4) * 4;
            let options = bytes.get(20..header).unwrap_or_default();
            let mut line = format!(
                "tcp {} {} seq={} ack={} win={} len={}",
                ports()?,
                if names.is_empty() { "none" } else { &names },
                be32(bytes, 4)?,
                be32(bytes, 8)?,
                be16(bytes, 14)?,
                bytes.len().saturating_sub(header)
            );
            if !options.is_empty() {
                line += " opts=";
                for byte in options {
                    let _ = write!(line, "{byte:02x}");
                }
            }
            line
        }
        17 => format!("udp {} len={}", ports()?, be16(bytes, 4)?),
        136 => format!("udplite {} coverage={}", ports()?, be16(bytes, 4)?),
        1 | 58 => format!(
            "icmp{} type={} code={} id={} len={}",
            if proto == 58 { "v6" } else { "" },
            bytes.first()?,
            bytes.get(1)?,
            be16(bytes, 4)?,
            bytes.len()
        ),
        132 => {
            let mut line = format!("sctp {} vtag={:#x}", ports()?, be32(bytes, 4)?);
            let mut rest = bytes.get(12..)?;
            for _ in 0..8 {
                let Some(chunk) = rest.first() else { break };
                let length = usize::from(be16(rest, 2)?);
                let _ = write!(line, " chunk {chunk}({length})");
                rest = rest.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
            }
            line
        }
        47 => {
            format!("gre version={} proto={:#x} key={}", bytes.get(1)? & 7, be16(bytes, 2)?, be16(bytes, 6)?)
        }
        _ => return None,
    })
}
