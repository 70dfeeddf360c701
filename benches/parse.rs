//! Room 1 and the first half of room 2: bytes to views to keys. Each figure is for one frame out of a burst of 64.

use std::hint::black_box;

use conntrack::key::key_of;
use conntrack::wire::{Checksum, Link, Parsed, parse};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "traffic/mod.rs"]
mod traffic;
use traffic::{BURST, Kind, Wire};

const KINDS: [(&str, Kind); 4] =
    [("tcp", Kind::Tcp), ("tcp6", Kind::Tcp6), ("udp", Kind::Udp), ("echo", Kind::Echo)];

fn burst(kind: Kind) -> Vec<Wire> {
    (0..BURST as u32).map(|id| Wire::new(kind, id.wrapping_mul(0x0100_0193), id & 1 == 1)).collect()
}

fn parsed(frame: &Wire, checksum: Checksum) -> Parsed<'_> {
    let parsed = parse(black_box(frame.bytes()), Link::Ethernet, checksum, true);
    debug_assert!(matches!(parsed, Parsed::Packet(_)), "{parsed:?}");
    parsed
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, kind) in KINDS {
        let frames = burst(kind);
        assert!(frames.iter().all(|f| matches!(parsed(f, Checksum::Good), Parsed::Packet(_))), "{name}");
        group.bench_function(name, |b| {
            b.iter(|| {
                for frame in &frames {
                    black_box(parsed(frame, Checksum::Good));
                }
            });
        });
    }
    // A device that verifies no checksum: the tracker does.
    let frames = burst(Kind::Echo);
    group.bench_function("echo_checksum_verified", |b| {
        b.iter(|| {
            for frame in &frames {
                black_box(parsed(frame, Checksum::Unknown));
            }
        });
    });
    group.finish();

    let mut group = c.benchmark_group("key");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, kind) in KINDS {
        let frames = burst(kind);
        let packets: Vec<_> = frames
            .iter()
            .filter_map(|frame| match parsed(frame, Checksum::Good) {
                Parsed::Packet(packet) => Some(packet),
                _ => None,
            })
            .collect();
        assert_eq!(packets.len(), BURST, "{name}");
        group.bench_function(name, |b| {
            b.iter(|| {
                for packet in &packets {
                    black_box(key_of(black_box(packet), 0));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
