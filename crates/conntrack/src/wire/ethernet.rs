//! Ethernet II and VLAN tags. Owns the way from a frame to its IP packet; looks at no byte of the packet.

use super::{Parsed, Tagged, Tags, Untracked, be16};
use crate::track::reason::Reason;

/// Which IP a frame says that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

/// A frame that is no plain IP packet.
#[derive(Debug)]
pub(super) enum Other<'a> {
    /// It has tags; what they carry comes behind them.
    Tagged(Tagged<'a>),
    Answer(Parsed<'a>),
}

// IANA "IEEE 802 Numbers"
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// What bridges used for an outer tag before 802.1ad named one, and many still do.
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_MULTICAST: u16 = 0x8848;
const ETHERTYPE_PPPOE_DISCOVERY: u16 = 0x8863;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
const ETHERTYPE_LLDP: u16 = 0x88cc;
/// The least number that is an ethertype; below it is a length, and LLC follows. IEEE 802.3-2018 section 3.2.6
const ETHERTYPE_MIN: u16 = 0x0600;

/// A service tag and a customer tag. IEEE 802.1Q-2018 clause 9
const TAGS_MAX: usize = 2;

/// The 12 bits of a tag that are the VLAN's number; the others are priority.
const VLAN_BITS: u16 = 0x0fff;

/// The bytes behind the Ethernet header, padding included, or what else the frame is.
#[inline]
pub(super) fn payload(frame: &[u8]) -> Result<(Ip, &[u8]), Other<'_>> {
    // Both MAC addresses.
    let rest = frame.get(12..).unwrap_or_default();
    let Some((&ethertype, body)) = rest.split_first_chunk::<2>() else {
        return Err(Other::Answer(Parsed::Malformed(Reason::IpTruncated)));
    };
    match be16(ethertype) {
        ETHERTYPE_IPV4 => Ok((Ip::V4, body)),
        ETHERTYPE_IPV6 => Ok((Ip::V6, body)),
        _ => Err(other(rest)),
    }
}

/// A frame that does not begin with IP, from its ethertype on.
#[cold]
fn other(mut rest: &[u8]) -> Other<'_> {
    let mut ids = [0; TAGS_MAX];
    for seen in 0..=TAGS_MAX {
        let Some((&ethertype, body)) = rest.split_first_chunk::<2>() else {
            return Other::Answer(Parsed::Malformed(Reason::IpTruncated));
        };
        let answer = match be16(ethertype) {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD => match (ids.get_mut(seen), body) {
                (Some(id), &[high, low, ref behind @ ..]) => {
                    *id = be16([high, low]) & VLAN_BITS;
                    rest = behind;
                    continue;
                }
                (Some(_), _) => Parsed::Malformed(Reason::IpTruncated),
                (None, _) => Parsed::Untracked(Untracked::MoreTags),
            },
            ETHERTYPE_IPV4 => return Other::Tagged(Tagged { tags: Tags::new(ids), ip: Ip::V4, body }),
            ETHERTYPE_IPV6 => return Other::Tagged(Tagged { tags: Tags::new(ids), ip: Ip::V6, body }),
            ethertype => Parsed::Untracked(kind(ethertype)),
        };
        return Other::Answer(answer);
    }
    // The last turn never goes on: `ids` has no place for a third tag.
    Other::Answer(Parsed::Untracked(Untracked::MoreTags))
}

/// What kind of frame it is that carries no IP which the kernel would track here.
fn kind(ethertype: u16) -> Untracked {
    match ethertype {
        ETHERTYPE_ARP => Untracked::Arp,
        ETHERTYPE_MPLS | ETHERTYPE_MPLS_MULTICAST => Untracked::Mpls,
        ETHERTYPE_PPPOE_DISCOVERY | ETHERTYPE_PPPOE_SESSION => Untracked::Pppoe,
        ETHERTYPE_LLDP => Untracked::Lldp,
        ..ETHERTYPE_MIN => Untracked::Llc,
        _ => Untracked::NotIp,
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// A frame with these ethertypes, and behind each but the last the tag of VLAN 7, 8, ... with a priority.
    fn frame(types: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::from([0xaa; 12]);
        for (i, ethertype) in types.iter().enumerate() {
            bytes.extend_from_slice(&ethertype.to_be_bytes());
            if i + 1 < types.len() {
                bytes.extend_from_slice(&[0x20, 0x07 + i as u8]);
            }
        }
        bytes.extend_from_slice(b"ip");
        bytes
    }

    fn answer(bytes: &[u8]) -> Untracked {
        match payload(bytes) {
            Err(Other::Answer(Parsed::Untracked(kind))) => kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ip_without_tags_is_found_at_once() {
        for (ethertype, ip) in [(0x0800, Ip::V4), (0x86dd, Ip::V6)] {
            let bytes = frame(&[ethertype]);
            assert!(matches!(payload(&bytes), Ok((found, b"ip")) if found == ip), "{ethertype:x}");
        }
    }

    #[test]
    fn ip_is_found_behind_up_to_two_tags_with_their_vlans() {
        for (tags, ids) in [
            (&[0x8100][..], (7, 0)),
            (&[0x88a8], (7, 0)),
            (&[0x9100], (7, 0)),
            (&[0x88a8, 0x8100], (7, 8)),
            (&[0x8100, 0x8100], (7, 8)),
        ] {
            for (ethertype, ip) in [(0x0800, Ip::V4), (0x86dd, Ip::V6)] {
                let bytes = frame(&[tags, &[ethertype]].concat());
                let Err(Other::Tagged(tagged)) = payload(&bytes) else { panic!("{tags:x?} {ethertype:x}") };
                assert_eq!((tagged.tags.outer(), tagged.tags.inner()), ids, "{tags:x?}");
                assert_eq!((tagged.ip, tagged.body), (ip, &b"ip"[..]), "{tags:x?}");
            }
        }
    }

    #[test]
    fn a_priority_tag_names_no_vlan() {
        let mut bytes = frame(&[0x88a8, 0x8100, 0x0800]);
        // VLAN 0 is no VLAN but a priority alone. IEEE 802.1Q-2018 table 9-2
        bytes[14..16].copy_from_slice(&[0xe0, 0]);
        let Err(Other::Tagged(tagged)) = payload(&bytes) else { panic!("no tags") };
        assert_eq!((tagged.tags.outer(), tagged.tags.inner()), (8, 0));
        assert_eq!(Tags::new([0, 0]), Tags::NONE);
    }

    #[test]
    fn a_third_tag_and_every_other_ethertype_is_not_ip() {
        for (types, kind) in [
            (&[0x8100, 0x8100, 0x8100, 0x0800][..], Untracked::MoreTags),
            (&[0x0806], Untracked::Arp),
            (&[0x8100, 0x0806], Untracked::Arp),
            (&[0x8847], Untracked::Mpls),
            (&[0x88a8, 0x8100, 0x8848], Untracked::Mpls),
            (&[0x8864], Untracked::Pppoe),
            (&[0x88cc], Untracked::Lldp),
            (&[0x05dc], Untracked::Llc),
            (&[0x88f7], Untracked::NotIp),
        ] {
            assert_eq!(answer(&frame(types)), kind, "{types:x?}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_cut_anywhere_is_never_taken_for_ip(tags in 0usize..=2, cut in 0usize..100) {
            let bytes = frame(&[&[0x8100; 2][..tags], &[0x0800]].concat());
            let need = bytes.len() - 2;
            let cut = cut % need;
            prop_assert!(matches!(
                payload(&bytes[..cut]),
                Err(Other::Answer(Parsed::Malformed(Reason::IpTruncated)))
            ));
        }

        #[test]
        fn every_frame_has_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = payload(&bytes);
        }
    }
}
