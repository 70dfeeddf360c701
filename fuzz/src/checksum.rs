//! Puts right lengths and checksums into a packet, however broken the rest of it is. Plain and slow, and written
//! apart from the tracker's own arithmetic, so that one checks the other.

/// Writes the IP header's length field.
pub fn set_length(ip: &mut [u8]) {
    let len = ip.len();
    match ip.first().map(|first| first >> 4) {
        Some(4) if len >= 20 => put(ip, 2, len as u16),
        Some(6) if len >= 40 => put(ip, 4, (len - 40) as u16),
        _ => {}
    }
}

/// Writes the IPv4 header's checksum and, unless it is a fragment, the transport's.
pub fn set_checksums(ip: &mut [u8]) {
    match ip.first().map(|first| first >> 4) {
        Some(4) if ip.len() >= 20 => {
            let header = usize::from(ip[0] & 0xf) * 4;
            if header < 20 || header > ip.len() {
                return;
            }
            put(ip, 10, 0);
            let sum = !fold(add(0, &ip[..header]));
            put(ip, 10, sum);
            let total = usize::from(get(ip, 2)).min(ip.len());
            if get(ip, 6) & 0x3fff == 0 && total >= header {
                let addrs = add(0, &ip[12..20]);
                transport(ip[9], addrs, &mut ip[header..total]);
            }
        }
        Some(6) if ip.len() >= 40 => {
            let end = (40 + usize::from(get(ip, 4))).min(ip.len());
            let addrs = add(0, &ip[8..40]);
            let (mut next, mut at) = (ip[6], 40);
            while let (0 | 43 | 51 | 60, true) = (next, at + 2 <= end) {
                let words = usize::from(ip[at + 1]);
                let bytes = if next == 51 { (words + 2) * 4 } else { (words + 1) * 8 };
                (next, at) = (ip[at], at + bytes);
            }
            if at < end {
                transport(next, addrs, &mut ip[at..end]);
            }
        }
        _ => {}
    }
}

/// Writes the checksum of a transport header with its data; `addrs` is the sum of both addresses.
pub fn transport(proto: u8, addrs: u32, bytes: &mut [u8]) {
    let pseudo = |proto: u8| addrs + bytes.len() as u32 + u32::from(proto);
    let (at, start, covered) = match proto {
        6 => (16, pseudo(6), bytes.len()),
        17 => (6, pseudo(17), bytes.len()),
        // As the kernel has it: UDP's number in the pseudo header.
        136 if bytes.len() >= 8 => match get(bytes, 4) {
            0 => (6, pseudo(17), bytes.len()),
            stated => (6, pseudo(17), usize::from(stated).min(bytes.len())),
        },
        1 => (2, 0, bytes.len()),
        58 => (2, pseudo(58), bytes.len()),
        132 if bytes.len() >= 12 => {
            bytes[8..12].fill(0);
            let crc = crc32c(bytes);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            return;
        }
        _ => return,
    };
    if at + 2 > bytes.len() {
        return;
    }
    put(bytes, at, 0);
    let sum = !fold(add(start, &bytes[..covered]));
    // Zero would mean that there is none.
    put(bytes, at, if sum == 0 { 0xffff } else { sum });
}

/// The sum of big-endian words. RFC 1071
pub fn add(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let word = u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum + word
    })
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Bit by bit. RFC 9260 appendix A
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}
