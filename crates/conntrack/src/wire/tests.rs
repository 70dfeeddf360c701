//! The parser against packets built by hand, and against etherparse, which knows nothing of it.

use std::vec;
use std::vec::Vec;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::checksum::crc32c;
use super::*;

const A4: [u8; 4] = [10, 1, 0, 10];
const B4: [u8; 4] = [10, 2, 0, 20];
const A6: [u8; 16] = *b"\x20\x01\x0d\xb8\0\x0a\0\0\0\0\0\0\0\0\0\x10";
const B6: [u8; 16] = *b"\x20\x01\x0d\xb8\0\x0b\0\0\0\0\0\0\0\0\0\x20";

fn read(bytes: &[u8]) -> Parsed<'_> {
    parse(bytes, Link::Ip, Checksum::Unknown, true)
}

#[track_caller]
fn packet(bytes: &[u8]) -> Packet<'_> {
    match read(bytes) {
        Parsed::Packet(packet) => packet,
        other => panic!("{other:?} for {bytes:02x?}"),
    }
}

#[track_caller]
fn invalid(bytes: &[u8]) -> Reason {
    match read(bytes) {
        Parsed::Invalid(reason) => reason,
        other => panic!("{other:?} for {bytes:02x?}"),
    }
}

#[track_caller]
fn malformed(bytes: &[u8]) -> Reason {
    match read(bytes) {
        Parsed::Malformed(reason) => reason,
        other => panic!("{other:?} for {bytes:02x?}"),
    }
}

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(A4, B4, 64).udp(5000, 53).write(&mut bytes, payload).unwrap();
    bytes
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(A6, B6, 64).udp(5000, 53).write(&mut bytes, payload).unwrap();
    bytes
}

/// An IPv4 packet with a right header checksum.
fn ip4(proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0];
    bytes.extend([A4, B4].concat());
    bytes.extend(payload);
    let total = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    seal4(bytes)
}

/// Puts the header checksum right.
fn seal4(mut bytes: Vec<u8>) -> Vec<u8> {
    let header = (usize::from(bytes[0] & 15) * 4).clamp(20, bytes.len());
    bytes[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes[..header]).ones_complement();
    bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

fn ip6(next: u8, hop_limit: u8, src: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, hop_limit]);
    bytes.extend([src, B6].concat());
    bytes.extend(payload);
    bytes
}

/// ICMPv6 with a right checksum.
fn icmp6(src: [u8; 16], hop_limit: u8, icmp_type: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![icmp_type, code, 0, 0];
    body.extend(rest);
    let sum = etherparse::checksum::Sum16BitWords::new()
        .add_16bytes(src)
        .add_16bytes(B6)
        .add_4bytes((body.len() as u32).to_be_bytes())
        .add_2bytes([0, proto::ICMPV6])
        .add_slice(&body)
        .ones_complement();
    body[2..4].copy_from_slice(&sum.to_ne_bytes());
    ip6(proto::ICMPV6, hop_limit, src, &body)
}

fn icmp4(icmp_type: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![icmp_type, code, 0, 0];
    body.extend(rest);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&body).ones_complement();
    body[2..4].copy_from_slice(&sum.to_ne_bytes());
    ip4(proto::ICMP, &body)
}

#[test]
fn an_ipv4_header_that_a_host_refuses_is_malformed() {
    let good = udp4(b"hello");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        seal4(bytes)
    };
    assert_eq!(malformed(&good[..19]), Reason::IpTruncated);
    assert_eq!(malformed(&good[..32]), Reason::IpTruncated);
    assert_eq!(malformed(&with(0, 0x44)), Reason::IpHeader);
    assert_eq!(malformed(&with(0, 0x55)), Reason::IpHeader);
    assert_eq!(malformed(&with(3, 19)), Reason::IpHeader);
    assert_eq!(malformed(&with(2, 4)), Reason::IpTruncated);
    let mut damaged = good.clone();
    damaged[11] ^= 1;
    assert_eq!(malformed(&damaged), Reason::IpChecksum);
    // Right in its length, but too short for UDP: understood, and INVALID.
    assert_eq!(invalid(&with(3, 20)), Reason::L4Truncated);
    assert_eq!(invalid(&with(3, 24)), Reason::L4Truncated);
}

#[test]
fn padding_behind_the_datagram_does_not_count() {
    for mut bytes in [udp4(b"hello"), udp6(b"hello")] {
        let whole = bytes.len() as u32;
        bytes.extend([0; 13]);
        assert_eq!(packet(&bytes).ip_bytes, whole);
    }
}

#[test]
fn ipv6_addresses_that_may_not_be_on_a_link_are_malformed() {
    let with = |at: usize, addr: &[u8; 16]| {
        let mut bytes = ip6(50, 64, A6, b"");
        bytes[at..at + 16].copy_from_slice(addr);
        bytes
    };
    let loopback = *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    let multicast = |scope: u8| [0xff, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for bytes in [
        with(8, &loopback),
        with(24, &loopback),
        with(8, &multicast(2)),
        with(24, &multicast(0)),
        with(24, &multicast(1)),
    ] {
        assert_eq!(malformed(&bytes), Reason::IpHeader);
    }
    for bytes in [with(24, &multicast(2)), with(8, &[0; 16]), with(24, &[0; 16])] {
        packet(&bytes);
    }
}

#[test]
fn extension_headers_are_skipped_however_many() {
    let udp = &udp6(b"hello")[40..];
    let chain = |count: usize| {
        let mut payload = Vec::new();
        for n in 0..count {
            payload.extend([if n + 1 == count { proto::UDP } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        payload.extend(udp);
        ip6(60, 64, A6, &payload)
    };
    for count in [1, 2, 8, 9, 20, 180] {
        let bytes = chain(count);
        let packet = packet(&bytes);
        assert!(matches!(packet.l4, L4::Udp { sport: 5000, dport: 53 }), "{count}");
        assert_eq!(packet.ip_bytes as usize, bytes.len());
    }
}

#[test]
fn each_kind_of_extension_header_has_its_own_length() {
    let udp = &udp6(b"hello")[40..];
    let routing = [&[17, 2, 0, 1][..], &[0; 20], udp].concat();
    let authentication = [&[17, 4][..], &[0; 22], udp].concat();
    let hop_by_hop = [&[17, 0, 1, 4, 0, 0, 0, 0][..], udp].concat();
    for (next, payload) in [(43, routing), (51, authentication), (0, hop_by_hop)] {
        assert!(matches!(packet(&ip6(next, 64, A6, &payload)).l4, L4::Udp { .. }), "{next}");
    }
    // Mobility, HIP and Shim6 are protocols of their own to the kernel.
    for next in [135, 139, 140] {
        assert_eq!(packet(&ip6(next, 64, A6, &[17, 0, 1, 4, 0, 0, 0, 0])).proto, next);
    }
}

#[test]
fn a_broken_chain_is_invalid_and_a_bad_hop_by_hop_header_malformed() {
    assert_eq!(invalid(&ip6(59, 64, A6, b"data")), Reason::Ipv6Extension);
    assert_eq!(invalid(&ip6(60, 64, A6, b"")), Reason::Ipv6Extension);
    assert_eq!(invalid(&ip6(60, 64, A6, &[17])), Reason::Ipv6Extension);
    assert_eq!(invalid(&ip6(60, 64, A6, &[17, 5, 0, 0, 0, 0, 0, 0])), Reason::L4Truncated);
    assert_eq!(malformed(&ip6(0, 64, A6, &[17, 5, 0, 0, 0, 0, 0, 0])), Reason::Ipv6Extension);
    assert_eq!(malformed(&ip6(44, 64, A6, &[17, 0, 0])), Reason::FragmentMalformed);
    assert_eq!(malformed(&ip6(44, 64, A6, &[60, 0, 0, 0])), Reason::FragmentMalformed);
    assert_eq!(malformed(&ip6(44, 64, A6, &[17, 0, 0, 8])), Reason::FragmentMalformed);
    assert_eq!(invalid(&ip6(44, 64, A6, &[17, 0, 0, 0])), Reason::L4Truncated);
    assert_eq!(invalid(&ip6(44, 64, A6, b"")), Reason::Ipv6Extension);
    let cut_behind_another = [44, 0, 0, 0, 0, 0, 0, 9, 17, 0, 0, 0, 0];
    assert_eq!(invalid(&ip6(44, 64, A6, &cut_behind_another)), Reason::L4Truncated);
    assert_eq!(invalid(&ip6(60, 64, A6, &[44, 1, 0, 0, 0, 0, 0, 0])), Reason::Ipv6Extension);
    assert_eq!(malformed(&ip6(60, 64, A6, &[44, 0, 0, 0, 0, 0, 0, 0])), Reason::FragmentMalformed);
    let options: [(&[u8; 6], bool); 12] = [
        (b"\x01\x04\0\0\0\0", true),
        (b"\x01\x04\0\x01\0\0", false),
        (b"\x01\x05\0\0\0\0", false),
        (b"\0\0\0\0\0\x1e", false),
        (b"\x05\x02\0\0\x01\0", true),
        (b"\x05\x04\0\0\0\0", false),
        (b"\x1e\x04\0\0\0\0", true),
        (b"\x5e\x04\0\0\0\0", false),
        (b"\x9e\x04\0\0\0\0", false),
        (b"\xde\x04\0\0\0\0", false),
        (b"\xc2\x04\0\x01\0\0", false),
        (b"\x31\x04\0\0\0\0", false),
    ];
    let udp = &udp6(b"hello")[40..];
    for (option, passes) in options {
        let payload = [&[17, 0], &option[..], udp].concat();
        assert_eq!(matches!(read(&ip6(0, 64, A6, &payload)), Parsed::Packet(_)), passes, "{option:02x?}");
    }
    let nine = [&[17, 2][..], &[0x1e, 0].repeat(9), &[0; 4], udp].concat();
    assert_eq!(malformed(&ip6(0, 64, A6, &nine)), Reason::Ipv6Extension);
    let padded = [&[17, 1][..], &[0; 14], udp].concat();
    assert_eq!(malformed(&ip6(0, 64, A6, &padded)), Reason::Ipv6Extension);
}

#[test]
fn fragments_are_told_apart_from_packets() {
    let mut bytes = udp4(b"hello");
    bytes[6..8].copy_from_slice(&[0x40, 0]);
    packet(&seal4(bytes.clone()));
    bytes[4..8].copy_from_slice(&[0x12, 0x34, 0x20, 0x02]);
    match read(&seal4(bytes)) {
        Parsed::Fragment(fragment) => {
            assert_eq!((fragment.id, fragment.offset, fragment.more), (0x1234, 16, true));
            assert_eq!((fragment.header_bytes, fragment.payload.len()), (20, 13));
        }
        other => panic!("{other:?}"),
    }
    let payload = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 0x01, 0x01, 1, 2, 3, 4], &[0; 16]].concat();
    let mut bytes = ip6(60, 64, A6, &payload);
    bytes[40] = 44;
    match read(&bytes) {
        Parsed::Fragment(fragment) => {
            assert_eq!((fragment.id, fragment.offset, fragment.more), (0x0102_0304, 256, true));
            assert_eq!((fragment.header_bytes, fragment.payload.len()), (48, 16));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_first_ipv6_fragment_without_its_whole_transport_header_is_tracked_as_it_stands() {
    let first = |next: u8, bytes: usize| {
        ip6(44, 64, A6, &[&[next, 0, 0, 1, 0, 0, 0, 7][..], &vec![0; bytes]].concat())
    };
    for (next, least) in [(proto::TCP, 24), (proto::UDP, 8), (proto::ICMPV6, 8), (proto::SCTP, 8), (50, 8)] {
        assert!(matches!(read(&first(next, least)), Parsed::Fragment(_)), "{next} with {least} bytes");
    }
    for (next, short) in [(proto::TCP, 16), (proto::UDP, 0), (proto::ICMPV6, 0), (proto::SCTP, 0)] {
        assert_eq!(invalid(&first(next, short)), Reason::L4Truncated, "{next} with {short} bytes");
    }
    assert!(matches!(packet(&first(50, 0)).l4, L4::Generic));
}

#[test]
fn a_tcp_header_with_an_impossible_length_is_invalid() {
    let mut good = Vec::new();
    PacketBuilder::ipv4(A4, B4, 64).tcp(1, 2, 3, 4).syn().write(&mut good, b"").unwrap();
    for (words, reason) in [(4, Reason::L4Length), (6, Reason::L4Length), (15, Reason::L4Length)] {
        let mut bytes = good.clone();
        bytes[32] = words << 4;
        assert_eq!(invalid(&bytes), reason, "{words} words");
    }
    good[39] ^= 1;
    assert_eq!(invalid(&good), Reason::L4Checksum);
}

#[test]
fn a_udp_length_may_fall_short_only_with_the_checksum_of_all_bytes() {
    let base = udp4(b"hello");
    for (length, reason) in [(7, Reason::L4Length), (14, Reason::L4Length), (12, Reason::L4Checksum)] {
        let mut bytes = base.clone();
        bytes[25] = length;
        assert_eq!(invalid(&bytes), reason, "length {length}");
    }
    let mut without = base.clone();
    without[26..28].fill(0);
    packet(&without);
    let mut without = udp6(b"hello");
    without[46..48].fill(0);
    packet(&without);
}

#[test]
fn udp_lite_is_summed_as_udp_and_never_goes_without() {
    let lite = |coverage: u8, mut proto_in_sum: u8| {
        let mut body = vec![0x13, 0x88, 0, 53, 0, coverage, 0, 0];
        body.extend([0x78; 40]);
        let covered = if coverage == 0 { body.len() } else { usize::from(coverage).min(body.len()) };
        if proto_in_sum == 0 {
            proto_in_sum = proto::UDP;
        }
        let sum = etherparse::checksum::Sum16BitWords::new()
            .add_4bytes(A4)
            .add_4bytes(B4)
            .add_2bytes([0, proto_in_sum])
            .add_2bytes((body.len() as u16).to_be_bytes())
            .add_slice(&body[..covered])
            .ones_complement();
        body[6..8].copy_from_slice(&sum.to_ne_bytes());
        ip4(proto::UDPLITE, &body)
    };
    for coverage in [0, 8, 20, 48] {
        assert!(matches!(packet(&lite(coverage, 0)).l4, L4::UdpLite { sport: 5000, dport: 53 }));
        assert_eq!(invalid(&lite(coverage, proto::UDPLITE)), Reason::L4Checksum);
    }
    for coverage in [1, 7, 49] {
        assert_eq!(invalid(&lite(coverage, 0)), Reason::L4Length, "coverage {coverage}");
    }
    let mut missing = lite(0, 0);
    missing[26..28].fill(0);
    let missing = parse(&missing, Link::Ip, Checksum::Unknown, false);
    assert!(matches!(missing, Parsed::Invalid(Reason::L4Checksum)));
}

#[test]
fn sctp_needs_its_crc() {
    let mut body = vec![0x13, 0x88, 0, 53, 0, 0, 0, 9, 0, 0, 0, 0, 1, 0, 0, 4];
    let crc = crc32c(&[&body]);
    body[8..12].copy_from_slice(&crc.to_le_bytes());
    match packet(&ip4(proto::SCTP, &body)).l4 {
        L4::Sctp(sctp) => {
            assert_eq!((sctp.sport, sctp.dport, sctp.vtag, sctp.chunks), (5000, 53, 9, &[1, 0, 0, 4][..]))
        }
        other => panic!("{other:?}"),
    }
    body[15] ^= 1;
    assert_eq!(invalid(&ip4(proto::SCTP, &body)), Reason::L4Checksum);
    assert_eq!(invalid(&ip4(proto::SCTP, &body[..11])), Reason::L4Truncated);
}

#[test]
fn gre_has_a_call_id_in_version_1_alone() {
    let gre = |bytes: &[u8]| match packet(&ip4(proto::GRE, bytes)).l4 {
        L4::Gre { version, call_id } => (version, call_id),
        other => panic!("{other:?}"),
    };
    let pptp = [0x30, 1, 0x88, 0x0b, 0, 1, 0, 100];
    assert_eq!(gre(&pptp), (1, 100));
    assert_eq!(gre(&pptp[..7]), (0, 0));
    assert_eq!(gre(b""), (0, 0));
    assert_eq!(gre(&[0x20, 0, 8, 0, 0, 0, 0, 100]), (0, 0));
    assert_eq!(invalid(&ip4(proto::GRE, &[0x30, 1, 0x88, 0x0c, 0, 1, 0, 100])), Reason::GreVersion);
}

#[test]
fn every_icmp_type_is_a_query_an_error_or_invalid() {
    let quote = udp4(b"hello");
    let rest = [&[0, 7, 0, 1][..], &quote].concat();
    for icmp_type in 0..=u8::MAX {
        let bytes = icmp4(icmp_type, 0, &rest);
        match icmp_type {
            0 | 8 | 13..=18 => {
                assert!(matches!(packet(&bytes).l4, L4::IcmpQuery { id: 7, .. }), "{icmp_type}")
            }
            3 | 4 | 5 | 11 | 12 => assert!(matches!(packet(&bytes).l4, L4::IcmpError { .. }), "{icmp_type}"),
            _ => assert_eq!(invalid(&bytes), Reason::IcmpType, "{icmp_type}"),
        }
    }
    let quote = udp6(b"hello");
    let rest = [&[0, 7, 0, 1][..], &quote].concat();
    for icmp_type in 0..=u8::MAX {
        let bytes = icmp6(A6, 255, icmp_type, 0, &rest);
        match icmp_type {
            0..128 => assert!(matches!(packet(&bytes).l4, L4::IcmpError { .. }), "{icmp_type}"),
            128 | 129 | 139 | 140 => {
                assert!(matches!(packet(&bytes).l4, L4::IcmpQuery { id: 7, .. }), "{icmp_type}")
            }
            130..=136 | 143 | 151 | 152 => {
                assert!(
                    matches!(read(&bytes), Parsed::Untracked(Untracked::NeighbourDiscovery)),
                    "{icmp_type}"
                );
                let mut damaged = bytes.clone();
                damaged[50] ^= 1;
                assert_eq!(invalid(&damaged), Reason::L4Checksum, "{icmp_type}");
            }
            137 => assert_eq!(invalid(&bytes), Reason::Icmpv6Redirect),
            _ => assert_eq!(invalid(&bytes), Reason::IcmpType, "{icmp_type}"),
        }
    }
    assert_eq!(invalid(&ip4(proto::ICMPV6, &[0; 8])), Reason::ProtocolFamily);
    assert_eq!(invalid(&ip6(proto::ICMP, 64, A6, &[0; 8])), Reason::ProtocolFamily);
}

#[test]
fn an_error_needs_four_bytes_of_ports_and_no_more() {
    let quote = udp4(b"hello");
    for bytes in 0..=quote.len() {
        let error = icmp4(3, 3, &[&[0; 4], &quote[..bytes]].concat());
        if bytes < 24 {
            assert_eq!(invalid(&error), Reason::IcmpErrorQuote, "{bytes}");
        } else {
            match packet(&error).l4 {
                L4::IcmpError { inner } => {
                    assert_eq!((inner.src, inner.dst), (Addr::v4(A4), Addr::v4(B4)));
                    assert!(matches!(inner.ids, QuotedIds::Ports { sport: 5000, dport: 53 }), "{bytes}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let mut later = quote.clone();
    later[7] = 1;
    assert_eq!(invalid(&icmp4(3, 3, &[&[0; 4], &later[..]].concat())), Reason::IcmpErrorQuote);
    let about_error = icmp4(3, 3, &[&[0; 4], &icmp4(3, 3, &[&[0; 4], &quote[..]].concat())[..]].concat());
    assert_eq!(invalid(&about_error), Reason::IcmpErrorQuote);
}

#[test]
fn a_redirect_counts_only_from_a_router_on_the_link() {
    let router = *b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    let quote = udp6(b"hello");
    let body = |option: &[u8]| [&[0; 36], option, &quote[..]].concat();
    let option = [4, 8, 0, 0, 0, 0, 0, 0];
    let good = icmp6(router, 255, 137, 0, &body(&option));
    assert!(matches!(packet(&good).l4, L4::IcmpError { inner } if inner.src == Addr(A6)));
    for bad in [
        icmp6(A6, 255, 137, 0, &body(&option)),
        icmp6(router, 254, 137, 0, &body(&option)),
        icmp6(router, 255, 137, 1, &body(&option)),
        icmp6(router, 255, 137, 0, &body(&[4, 0, 0, 0, 0, 0, 0, 0])),
        icmp6(router, 255, 137, 0, &body(&[2, 1, 0, 0, 0, 0, 0, 0])),
        icmp6(router, 255, 137, 0, &[0; 36]),
    ] {
        assert_eq!(invalid(&bad), Reason::Icmpv6Redirect);
    }
}

#[test]
fn what_the_nic_said_of_a_checksum_is_believed_unless_verification_is_off() {
    let good = udp4(b"hello");
    let mut damaged = good.clone();
    damaged[32] ^= 1;
    let passes = |bytes: &[u8], checksum, verify| {
        matches!(parse(bytes, Link::Ip, checksum, verify), Parsed::Packet(_))
    };
    assert!(!passes(&damaged, Checksum::Unknown, true));
    assert!(passes(&damaged, Checksum::Good, true));
    assert!(!passes(&good, Checksum::Bad, true));
    assert!(passes(&good, Checksum::Bad, false));
    assert!(passes(&damaged, Checksum::Unknown, false));
}

/// A packet of some protocol and family, as etherparse builds it.
fn built() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
        any::<bool>(),
        0..5u8,
        any::<[u16; 2]>(),
        any::<[u32; 2]>(),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(src, dst, v6, kind, [sport, dport], [seq, ack], payload)| {
            let mut wide = [A6, B6];
            wide[0][12..].copy_from_slice(&src);
            wide[1][12..].copy_from_slice(&dst);
            let ip =
                if v6 { PacketBuilder::ipv6(wide[0], wide[1], 9) } else { PacketBuilder::ipv4(src, dst, 9) };
            let mut bytes = Vec::new();
            match kind {
                0 => ip.tcp(sport, dport, seq, 1000).ack(ack).write(&mut bytes, &payload),
                1 => ip
                    .tcp(sport, dport, seq, 1000)
                    .syn()
                    .options(&[
                        etherparse::TcpOptionElement::MaximumSegmentSize(1460),
                        etherparse::TcpOptionElement::WindowScale(7),
                    ])
                    .unwrap()
                    .write(&mut bytes, &payload),
                2 => ip.udp(sport, dport).write(&mut bytes, &payload),
                3 if v6 => ip.icmpv6_echo_request(sport, dport).write(&mut bytes, &payload),
                3 => ip.icmpv4_echo_request(sport, dport).write(&mut bytes, &payload),
                _ if v6 => ip.icmpv6_echo_reply(sport, dport).write(&mut bytes, &payload),
                _ => ip.icmpv4_echo_reply(sport, dport).write(&mut bytes, &payload),
            }
            .unwrap();
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn etherparse_and_we_read_the_same(bytes in built()) {
        let theirs = etherparse::SlicedPacket::from_ip(&bytes).unwrap();
        let ours = match read(&bytes) {
            Parsed::Packet(packet) => packet,
            other => return Err(TestCaseError::fail(std::format!("{other:?}"))),
        };
        prop_assert_eq!(ours.ip_bytes as usize, bytes.len());
        match theirs.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                prop_assert_eq!(ours.src, Addr::v4(ip.header().source()));
                prop_assert_eq!(ours.dst, Addr::v4(ip.header().destination()));
            }
            etherparse::NetSlice::Ipv6(ip) => {
                prop_assert_eq!(ours.src, Addr(ip.header().source()));
                prop_assert_eq!(ours.dst, Addr(ip.header().destination()));
            }
            _ => prop_assert!(false),
        }
        match (theirs.transport.unwrap(), ours.l4) {
            (etherparse::TransportSlice::Tcp(tcp), L4::Tcp(segment)) => {
                prop_assert_eq!((segment.sport, segment.dport), (tcp.source_port(), tcp.destination_port()));
                prop_assert_eq!((segment.seq, segment.ack), (tcp.sequence_number(), tcp.acknowledgment_number()));
                prop_assert_eq!(segment.window, tcp.window_size());
                prop_assert_eq!(segment.options, tcp.options());
                prop_assert_eq!(segment.payload_bytes as usize, tcp.payload().len());
                prop_assert_eq!(segment.flags & tcp_flags::SYN != 0, tcp.syn());
                prop_assert_eq!(segment.flags & tcp_flags::ACK != 0, tcp.ack());
                prop_assert!(segment.legal_flags());
            }
            (etherparse::TransportSlice::Udp(udp), L4::Udp { sport, dport }) => {
                prop_assert_eq!((sport, dport), (udp.source_port(), udp.destination_port()));
            }
            (etherparse::TransportSlice::Icmpv4(icmp), L4::IcmpQuery { icmp_type, code, id }) => {
                prop_assert_eq!((icmp_type, code), (icmp.type_u8(), icmp.code_u8()));
                let rest = icmp.bytes5to8();
 prop_assert_eq!(id, be16([rest[0], rest[1]]));
            }
            (etherparse::TransportSlice::Icmpv6(icmp), L4::IcmpQuery { icmp_type, code, id }) => {
                prop_assert_eq!((icmp_type, code), (icmp.type_u8(), icmp.code_u8()));
                let rest = icmp.bytes5to8();
 prop_assert_eq!(id, be16([rest[0], rest[1]]));
            }
            (theirs, ours) => prop_assert!(false, "{:?} {:?}", theirs, ours),
        }
    }

    #[test]
    fn a_flipped_bit_never_passes_as_another_transport_packet(bytes in built(), bit in any::<prop::sample::Index>()) {
        // Every bit that a checksum covers: of IPv4 all behind the version (another version is another header), of IPv6
        // all behind the first eight bytes.
        let first = if bytes[0] >> 4 == 4 { 8 } else { 64 };
        let bit = first + bit.index(bytes.len() * 8 - first);
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // A checksum of 0xffff turned into 0 by more than one flip is another matter: "none" in UDP.
        let none = bytes[if first == 8 { 9 } else { 6 }] == proto::UDP && matches!(read(&damaged), Parsed::Packet(_));
        prop_assert!(!matches!(read(&damaged), Parsed::Packet(_)) || none, "bit {}", bit);
    }

    #[test]
    fn what_is_read_the_short_way_is_what_the_general_way_reads(
        mut bytes in built(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
        padding in 0usize..8,
        checksum in prop::sample::select(
            vec![Checksum::Unknown, Checksum::Good, Checksum::Bad, Checksum::AllGood]
        ),
        verify: bool,
        seal: bool,
    ) {
        let untouched = changes.is_empty() && cut.is_none();
        let plain = untouched && checksum != Checksum::Bad && !matches!(bytes[0] >> 4, 6 if bytes[6] == 58)
            && !matches!(bytes[0] >> 4, 4 if bytes[9] == 1);
        for (at, byte) in changes {
            let at = at.index(bytes.len().min(64));
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1).max(1)));
        let bytes = if seal && bytes.len() >= 20 && bytes[0] >> 4 == 4 { seal4(bytes) } else { bytes };
        let ethertype: [u8; 2] = if bytes[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&[0; 12][..], &ethertype, &bytes, &[0xee; 8][..padding]].concat();

        struct Keep<'k, 'a>(&'k mut Option<Packet<'a>>);
        impl<'a> plain::Take<'a> for Keep<'_, 'a> {
            fn take(self, plain: plain::Plain<'a>) {
                *self.0 = Some(plain.packet());
            }
        }
        let mut short = None;
        let spoke = plain::read(&frame, checksum, verify, Keep(&mut short));
        prop_assert_eq!(spoke, short.is_some());
        prop_assert!(spoke || !plain, "an untouched TCP or UDP packet takes the short way");
        if let Some(short) = short {
            match parse(&frame, Link::Ethernet, checksum, verify) {
                Parsed::Packet(general) => prop_assert_eq!(short, general),
                general => prop_assert!(false, "{general:?} for {short:?}"),
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), ethernet: bool, verify: bool) {
        let link = if ethernet { Link::Ethernet } else { Link::Ip };
        answer(&bytes, link, verify);
    }

    #[test]
    fn no_mutation_or_cut_makes_it_panic(
        mut bytes in built(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8]),
        seal: bool,
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len().min(64));
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1).max(20));
        let bytes = if seal { seal4(bytes) } else { bytes };
        answer(&bytes, Link::Ip, false);
        let frame = [&[0; 12][..], &ethertype.to_be_bytes(), &bytes].concat();
        answer(&frame, Link::Ethernet, false);
    }
}

/// Whatever it is, it has an answer, and everything in it lies within the bytes.
fn answer(bytes: &[u8], link: Link, verify: bool) {
    match parse(bytes, link, Checksum::Unknown, verify) {
        Parsed::Packet(packet) => {
            assert!(packet.ip_bytes as usize <= bytes.len());
            let keyed = crate::key::key_of(&packet, 0);
            assert_eq!(keyed.is_none(), matches!(packet.l4, L4::IcmpError { .. }));
            if let L4::IcmpError { inner } = packet.l4 {
                assert!(crate::key::key_of_quoted(&inner, 0).is_some());
            }
        }
        Parsed::Fragment(fragment) => {
            assert!(fragment.payload.len() <= bytes.len());
            parse_unheld(&fragment, Checksum::Unknown, verify);
        }
        Parsed::Untracked(_) | Parsed::Invalid(_) | Parsed::Malformed(_) => {}
    }
}
