//! Ethernet II and VLAN tags. Owns the way from a frame to its IP packet; looks at no byte of the packet.

use super::{Parsed, Untracked, be16};
use crate::track::reason::Reason;

/// Which IP a frame says that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

// IANA "IEEE 802 Numbers"
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// A service tag and a customer tag. IEEE 802.1Q-2018 clause 9
const TAGS_MAX: usize = 2;

/// The bytes behind the Ethernet header and its tags, padding included, or the answer for a frame without IP.
#[inline]
pub(super) fn payload(frame: &[u8]) -> Result<(Ip, &[u8]), Parsed<'_>> {
    // Both MAC addresses.
    let mut rest = frame.get(12..).unwrap_or_default();
    for _ in 0..=TAGS_MAX {
        let Some((&ethertype, body)) = rest.split_first_chunk::<2>() else {
            return Err(Parsed::Malformed(Reason::IpTruncated));
        };
        match be16(ethertype) {
            ETHERTYPE_IPV4 => return Ok((Ip::V4, body)),
            ETHERTYPE_IPV6 => return Ok((Ip::V6, body)),
            // Two bytes of priority and VLAN id, then the next ethertype.
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => rest = body.get(2..).unwrap_or_default(),
            // Below 0x0600 it is a length and LLC follows; nothing else carries IP that the kernel would track here.
            _ => break,
        }
    }
    Err(Parsed::Untracked(Untracked::NotIp))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::from([0xaa; 12]);
        for (i, ethertype) in types.iter().enumerate() {
            bytes.extend_from_slice(&ethertype.to_be_bytes());
            if i + 1 < types.len() {
                bytes.extend_from_slice(&[0x20, 0x07]);
            }
        }
        bytes.extend_from_slice(b"ip");
        bytes
    }

    #[test]
    fn ip_is_found_behind_up_to_two_tags() {
        for tags in [&[][..], &[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100]] {
            for (ethertype, ip) in [(0x0800, Ip::V4), (0x86dd, Ip::V6)] {
                let bytes = frame(&[tags, &[ethertype]].concat());
                assert!(
                    matches!(payload(&bytes), Ok((found, b"ip")) if found == ip),
                    "{tags:x?} {ethertype:x}"
                );
            }
        }
    }

    #[test]
    fn a_third_tag_and_every_other_ethertype_is_not_ip() {
        for types in
            [&[0x88a8, 0x8100, 0x8100, 0x0800][..], &[0x0806], &[0x8847], &[0x88cc], &[0x0026], &[0x8864]]
        {
            assert!(matches!(payload(&frame(types)), Err(Parsed::Untracked(Untracked::NotIp))), "{types:x?}");
        }
    }

    #[test]
    fn a_frame_that_ends_before_its_ethertype_is_malformed() {
        let bytes = frame(&[0x8100, 0x0800]);
        for len in (0..14).chain(14..18) {
            assert!(
                matches!(payload(&bytes[..len]), Err(Parsed::Malformed(Reason::IpTruncated))),
                "{len} bytes"
            );
        }
    }
}
