//! Any bytes as a frame: the parser ends, and what it gives lies inside what it was given.
#![no_main]

use conntrack::key::{key_of, key_of_quoted};
use conntrack::wire::{self, Checksum, L4, Link, Parsed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for link in [Link::Ethernet, Link::Ip] {
        for verify in [false, true] {
            match wire::parse(bytes, link, Checksum::Unknown, verify) {
                Parsed::Packet(packet) => {
                    assert!(packet.ip_bytes as usize <= bytes.len());
                    let _ = key_of(&packet, 0);
                    if let L4::IcmpError { inner } = packet.l4 {
                        let _ = key_of_quoted(&inner, 0);
                    }
                }
                Parsed::Fragment(fragment) => {
                    assert!(fragment.payload.len() + fragment.header_bytes as usize <= bytes.len());
                }
                Parsed::Untracked(_) | Parsed::Invalid(_) | Parsed::Malformed(_) => {}
            }
        }
    }
});
