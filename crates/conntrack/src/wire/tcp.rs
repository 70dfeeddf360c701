//! The TCP header (RFC 9293 section 3.1). Owns its layout and which flags may occur together; sees no state.

use super::{Ip, L4, Parsed, Segment, Sums, be16, proto, tcp_flags};
use crate::fault::Fault;
use crate::track::reason::Reason;

#[inline]
pub(super) fn parse<'a>(ip: Ip, payload: &'a [u8], sums: Sums) -> Parsed<'a> {
    let Some(&head) = payload.first_chunk::<20>() else {
        return Parsed::Invalid(Reason::L4Truncated);
    };
    let [sp0, sp1, dp0, dp1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] = head;
    let header_bytes = usize::from(offset >> 4) * 4;
    let Some(options) = payload.get(20..header_bytes) else {
        return Parsed::Invalid(Reason::L4Length);
    };
    let sums = sums.unless(Fault::SumTcp);
    if !sums.pass(|| ip.pseudo(proto::TCP, payload.len()).add(payload).is_right()) {
        return Parsed::Invalid(Reason::L4Checksum);
    }
    let segment = Segment {
        sport: be16([sp0, sp1]),
        dport: be16([dp0, dp1]),
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        window: be16([w0, w1]),
        flags,
        payload_bytes: (payload.len() - header_bytes) as u32,
        options,
    };
    ip.packet(proto::TCP, L4::Tcp(segment))
}

/// Bit `n` is set where the flags FIN, SYN, RST, ACK and URG, as the five bits of `n` from the lowest, are legal:
/// SYN, SYN+URG, SYN+ACK, RST, RST+ACK, FIN+ACK, FIN+ACK+URG, ACK, ACK+URG.
const LEGAL: u32 = 1 << 0b00010
    | 1 << 0b10010
    | 1 << 0b01010
    | 1 << 0b00100
    | 1 << 0b01100
    | 1 << 0b01001
    | 1 << 0b11001
    | 1 << 0b01000
    | 1 << 0b11000;

impl Segment<'_> {
    /// Whether a real stack sends these flags together. PSH, ECE and CWR may join any of them.
    #[inline]
    pub fn legal_flags(&self) -> bool {
        let low = self.flags & (tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST);
        let high = (self.flags & (tcp_flags::ACK | tcp_flags::URG)) >> 1;
        LEGAL >> (low | high) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_nine_sets_of_flags_are_legal() {
        use tcp_flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
        let legal = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
        for flags in 0..=u8::MAX {
            let segment = Segment {
                sport: 1,
                dport: 2,
                seq: 0,
                ack: 0,
                window: 0,
                flags,
                payload_bytes: 0,
                options: &[],
            };
            let want = legal.contains(&(flags & !(PSH | ECE | CWR)));
            assert_eq!(segment.legal_flags(), want, "{flags:#04x}");
        }
    }
}
