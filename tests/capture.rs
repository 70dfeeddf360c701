//! Capture files of every form, read to frames.

mod pcap;

use std::io::Cursor;

use conntrack::wire::{Checksum, Link};
use dpdk_conntrack::driver::capture::{Capture, CaptureError};
use pcap::*;

/// What a frame of a capture came out as: time, link, bytes, checksum; `None` for what is not IP.
type Seen = (u64, Option<(Link, Vec<u8>, Checksum)>);

fn read(file: Vec<u8>) -> (Vec<Seen>, Option<CaptureError>) {
    let mut seen = Vec::new();
    let mut capture = match Capture::new(Cursor::new(file)) {
        Ok(capture) => capture,
        Err(error) => return (seen, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(captured)) => seen.push((
                captured.at_ns,
                captured.frame.map(|frame| (frame.link, frame.bytes.to_vec(), frame.checksum)),
            )),
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error)),
        }
        assert!(seen.len() < 1_000_000, "a capture that never ends");
    }
}

#[track_caller]
fn frames(file: Vec<u8>) -> Vec<Seen> {
    let (seen, error) = read(file);
    assert!(error.is_none(), "{error:?}");
    seen
}

fn whole(link: Link, bytes: &[u8]) -> Option<(Link, Vec<u8>, Checksum)> {
    Some((link, bytes.to_vec(), Checksum::Unknown))
}

#[test]
fn pcap_of_both_resolutions_and_byte_orders_gives_times_and_bytes() {
    let frame = ethernet(&tcp(true, SYN, 1, 0, b""));
    for nanoseconds in [false, true] {
        for big_endian in [false, true] {
            let at = 1_700_000_000_123_456_000;
            let file = Pcap { nanoseconds, big_endian, ..Pcap::default() }.file(&[(at, frame.clone())]);
            assert_eq!(frames(file), [(at, whole(Link::Ethernet, &frame))]);
        }
    }
}

#[test]
fn pcapng_counts_time_in_the_interfaces_resolution() {
    let frame = ethernet(&tcp(true, SYN, 1, 0, b""));
    // Microseconds without the option, 10^-9, and 2^-10 of a second.
    for (resolution, stamp, want) in
        [(None, 5_000_000, 5_000_000_000), (Some(9), 5, 5), (Some(0x80 | 10), 1024 + 512, 1_500_000_000)]
    {
        let file =
            [section_header(), interface(1, 0, resolution), enhanced(0, stamp, &frame, frame.len())].concat();
        assert_eq!(frames(file), [(want, whole(Link::Ethernet, &frame))], "{resolution:?}");
    }
}

#[test]
fn pcapng_packets_belong_to_their_section_and_interface() {
    let packet = tcp(true, SYN, 1, 0, b"abc");
    let frame = ethernet(&packet);
    let file = [
        section_header(),
        interface(101, 0, None),
        interface(1, 0, None),
        // A block of an unknown kind is passed over.
        block(0x0bad, b"anything"),
        enhanced(1, 1, &frame, frame.len()),
        enhanced(0, 2, &packet, packet.len()),
        simple(&packet),
        section_header(),
        interface(1, 0, None),
        enhanced(0, 4, &frame, frame.len()),
    ]
    .concat();
    assert_eq!(
        frames(file),
        [
            (1000, whole(Link::Ethernet, &frame)),
            (2000, whole(Link::Ip, &packet)),
            // A simple packet has no time of its own.
            (2000, whole(Link::Ip, &packet)),
            (4000, whole(Link::Ethernet, &frame)),
        ]
    );
}

#[test]
fn every_link_header_leads_to_the_ip_packet() {
    let packet = udp(CLIENT, SERVER, 5000, 53, b"hello");
    let with = |header: &[u8]| [header, packet.as_slice()].concat();
    let cooked = |protocol: [u8; 2]| [&[0; 14][..], &protocol].concat();
    let cooked2 = |protocol: [u8; 2]| [&protocol[..], &[0; 18]].concat();
    for (link, frame) in [
        (101, packet.clone()),
        (12, packet.clone()),
        (228, packet.clone()),
        (0, with(&2_u32.to_le_bytes())),
        (0, with(&2_u32.to_be_bytes())),
        (108, with(&2_u32.to_be_bytes())),
        (0, with(&30_u32.to_le_bytes())),
        (113, with(&cooked([8, 0]))),
        (113, with(&[cooked([0x81, 0]), vec![0, 7, 8, 0]].concat())),
        (276, with(&cooked2([8, 0]))),
    ] {
        assert_eq!(
            frames(Pcap { link, ..Pcap::default() }.file(&[(0, frame)])),
            [(0, whole(Link::Ip, &packet))],
            "{link}"
        );
    }
    for (link, frame) in [
        (0, with(&7_u32.to_le_bytes())),
        (113, with(&cooked([8, 6]))),
        (276, with(&cooked2([8, 6]))),
        (113, vec![0; 15]),
        (276, vec![]),
        (0, vec![2, 0, 0]),
    ] {
        assert_eq!(frames(Pcap { link, ..Pcap::default() }.file(&[(0, frame)])), [(0, None)], "{link}");
    }
}

#[test]
fn a_cut_packet_with_its_headers_gets_its_length_back_and_a_good_checksum() {
    let frame = ethernet(&tcp(true, ACK, 1, 1, &[7; 1000]));
    let seen = frames(Pcap { snaplen: 68, ..Pcap::default() }.file(&[(0, frame.clone())]));
    let (link, bytes, checksum) = seen[0].1.clone().unwrap();
    assert_eq!((link, bytes.len(), checksum), (Link::Ethernet, frame.len(), Checksum::Good));
    assert_eq!(bytes[..68], frame[..68]);
    assert!(bytes[68..].iter().all(|&b| b == 0));
}

#[test]
fn a_packet_cut_within_its_headers_stays_cut() {
    let frame = ethernet(&tcp(true, ACK, 1, 1, &[7; 1000]));
    for snaplen in 0..14 + 40 {
        let seen = frames(Pcap { snaplen, ..Pcap::default() }.file(&[(0, frame.clone())]));
        assert_eq!(seen, [(0, whole(Link::Ethernet, &frame[..snaplen]))], "snaplen {snaplen}");
    }
}

#[test]
fn a_lie_about_the_length_on_the_wire_costs_no_memory() {
    let frame = ethernet(&tcp(true, ACK, 1, 1, b"abcd"));
    let file = [section_header(), interface(1, 0, None), enhanced(0, 0, &frame, u32::MAX as usize)].concat();
    let seen = frames(file);
    assert!(seen[0].1.as_ref().unwrap().1.len() < 70_000);
}

#[test]
fn a_file_cut_off_gives_everything_before_and_says_so() {
    let frame = ethernet(&tcp(true, SYN, 1, 0, b""));
    let file = Pcap::default().file(&[(0, frame.clone()), (1000, frame.clone())]);
    for cut in 1..16 + frame.len() {
        let (seen, error) = read(file[..file.len() - cut].to_vec());
        assert_eq!(seen.len(), 1, "cut {cut}");
        assert!(matches!(error, Some(CaptureError::CutOff(_))), "cut {cut}: {error:?}");
    }
}

#[test]
fn a_record_that_claims_gigabytes_is_damage_not_memory() {
    let mut file = Pcap::default().file(&[(0, ethernet(&tcp(true, SYN, 1, 0, b"")))]);
    let at = file.len();
    file.extend([0; 8]);
    file.extend(0xf000_0000_u32.to_le_bytes());
    file.extend(0xf000_0000_u32.to_le_bytes());
    file.resize(file.len() + (20 << 20), 0);
    let (seen, error) = read(file);
    assert_eq!(seen.len(), 1);
    assert!(matches!(error, Some(CaptureError::Damaged(offset)) if offset == at as u64), "{error:?}");
}

#[test]
fn a_record_longer_than_the_buffer_is_read() {
    let comment = block(0x0bad, &vec![0; 1 << 20]);
    let frame = ethernet(&tcp(true, SYN, 1, 0, b""));
    let file =
        [section_header(), interface(1, 0, None), comment, enhanced(0, 0, &frame, frame.len())].concat();
    assert_eq!(frames(file).len(), 1);
}

#[test]
fn what_is_no_capture_is_refused_in_one_line() {
    let radio = Pcap { link: 127, ..Pcap::default() }.file(&[(0, vec![0; 40])]);
    let frame = vec![0; 40];
    for (file, want) in [
        (Vec::new(), "neither pcap nor pcapng"),
        (b"hello, world, this is no capture at all".to_vec(), "neither pcap nor pcapng"),
        (Pcap::default().file(&[])[..10].to_vec(), "neither pcap nor pcapng"),
        (radio, "link type 127 is not supported"),
        ([section_header(), enhanced(0, 0, &frame, 40)].concat(), "does not describe"),
        ([section_header(), interface(1, 0, None), block(2, &[0; 60])].concat(), "editcap -F pcapng"),
        ([section_header(), interface(127, 0, None), enhanced(0, 0, &frame, 40)].concat(), "link type 127"),
    ] {
        let (_, error) = read(file);
        let error = error.expect(want).to_string();
        assert!(error.contains(want) && !error.contains('\n'), "{error}");
    }
    assert_eq!(frames(Pcap::default().file(&[])), []);
}

#[test]
fn damaged_bytes_never_panic_and_always_end() {
    let frame = ethernet(&tcp(true, SYN, 1, 0, b"abcdef"));
    let ng = [
        section_header(),
        interface(1, 0, Some(9)),
        enhanced(0, 1, &frame, frame.len()),
        simple(&frame),
        enhanced(0, 2, &frame, frame.len()),
    ]
    .concat();
    let old = Pcap::default().file(&[(0, frame.clone()), (5, frame.clone())]);
    for file in [ng, old] {
        for at in 0..file.len() {
            for value in [0, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = read(damaged);
            }
            let _ = read(file[..at].to_vec());
        }
    }
}
