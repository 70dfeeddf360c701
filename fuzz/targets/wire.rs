//! Any bytes as a frame: the parser ends, what it gives lies inside what it was given, and neither the link, nor
//! padding behind the packet, nor a checksum that is right changes what it reads.
#![no_main]

use arbitrary::Arbitrary;
use conntrack::key::{key_of, key_of_quoted};
use conntrack::wire::{self, Checksum, L4, Link, Parsed};
use conntrack_fuzz::checksum;
use libfuzzer_sys::fuzz_target;

#[derive(Debug)]
struct Input<'a> {
    mend_length: bool,
    mend_checksums: bool,
    vlan_tags: u8,
    packet: &'a [u8],
}

impl<'a> Arbitrary<'a> for Input<'a> {
    fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        let choice = u8::arbitrary(u)?;
        Ok(Self {
            mend_length: choice & 1 != 0,
            mend_checksums: choice & 2 != 0,
            vlan_tags: (choice >> 2) % 3,
            packet: u.bytes(u.len())?,
        })
    }
}

fuzz_target!(|input: Input<'_>| {
    // As a frame, headers and all.
    for verify in [false, true] {
        look(&wire::parse(input.packet, Link::Ethernet, Checksum::Unknown, verify), input.packet.len());
        for link in [Link::Ethernet, Link::Ip] {
            if let Some(carried) = wire::tunnel::carried(input.packet, link) {
                assert!(carried.bytes.len() < input.packet.len());
                look(
                    &wire::parse(carried.bytes, carried.link, Checksum::Unknown, verify),
                    carried.bytes.len(),
                );
            }
        }
    }

    let mut packet = input.packet.to_vec();
    if input.mend_length {
        checksum::set_length(&mut packet);
    }
    if input.mend_checksums {
        checksum::set_checksums(&mut packet);
    }
    let parse = |checksum, verify| wire::parse(&packet, Link::Ip, checksum, verify);
    let strict = parse(Checksum::Unknown, true);
    look(&strict, packet.len());
    let lax = parse(Checksum::Unknown, false);
    look(&lax, packet.len());
    let believed = parse(Checksum::Good, true);
    assert_eq!(text(&lax), text(&believed));
    if !matches!(strict, Parsed::Invalid(conntrack::track::reason::Reason::L4Checksum)) {
        assert_eq!(text(&strict), text(&lax));
    }
    assert_eq!(text(&parse(Checksum::Bad, false)), text(&lax));
    look(&parse(Checksum::Bad, true), packet.len());

    // Behind an Ethernet header with tags, and with the padding that short frames have.
    let ethertype: &[u8] = match packet.first().map(|first| first >> 4) {
        Some(4) => &[0x08, 0x00],
        Some(6) => &[0x86, 0xdd],
        _ => return,
    };
    let tags = [0x81, 0x00, 0x20, 0x07].repeat(input.vlan_tags.into());
    let mut frame = [&[0x02; 12][..], &tags, ethertype, &packet].concat();
    let framed = wire::parse(&frame, Link::Ethernet, Checksum::Unknown, true);
    assert_eq!(text(&framed), text(&strict));
    // What was cut short may be whole with padding, and an IPv6 length of 0 before hop-by-hop options takes all there is.
    let takes_all = packet.first().is_some_and(|first| first >> 4 == 6) && packet.get(4..7) == Some(&[0; 3]);
    if !matches!(strict, Parsed::Malformed(_)) && !takes_all {
        let told = text(&strict);
        frame.extend_from_slice(&[0; 46]);
        assert_eq!(text(&wire::parse(&frame, Link::Ethernet, Checksum::Unknown, true)), told);
    }
});

fn look(parsed: &Parsed<'_>, bytes: usize) {
    match parsed {
        Parsed::Packet(packet) => {
            assert!(packet.ip_bytes as usize <= bytes);
            match &packet.l4 {
                L4::IcmpError { inner } => {
                    assert!(key_of(packet, 0).is_none());
                    let key = key_of_quoted(inner, 0).expect("what was taken as a quote has a key");
                    assert_eq!(inner.proto, key.key.proto);
                }
                l4 => {
                    if let L4::Tcp(segment) = l4 {
                        assert!(segment.options.len() <= 40);
                        assert!((segment.payload_bytes as usize) < bytes);
                    }
                    let key = key_of(packet, 0).expect("every other packet has a key");
                    assert_eq!(packet.proto, key.key.proto);
                }
            }
        }
        Parsed::Fragment(fragment) => {
            assert!(fragment.payload.len() + fragment.header_bytes as usize <= bytes);
            assert!(fragment.offset <= 65_528 && fragment.offset % 8 == 0);
        }
        Parsed::Untracked(_) | Parsed::Invalid(_) | Parsed::Malformed(_) => {}
    }
}

fn text(parsed: &Parsed<'_>) -> String {
    format!("{parsed:?}")
}
