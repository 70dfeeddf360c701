//! Reassembly under a flood of first fragments that nobody completes, beside datagrams of three fragments that somebody
//! means: what a fragment costs, and how many datagrams come through. `benches/peers/fragments.c` puts the same to
//! DPDK's `rte_ip_frag`.
//!
//!     cargo bench --bench fragments

use std::hint::black_box;
use std::time::Instant;

use conntrack::fragment::{Fragments, Reassembly};
use conntrack::key::hash::{Cpu, Hasher};
use conntrack::tick::Tick;
use conntrack::wire::{Addr, Family, Fragment};

const DATAGRAMS: u16 = 1024;
const MEANT: u32 = 1000;

/// One fragment of 16 bytes; whether it completes a datagram.
fn add(fragments: &mut Fragments, src: u32, id: u32, offset: u32, more: bool) -> bool {
    let fragment = Fragment {
        family: Family::V4,
        src: Addr::v4(src.to_be_bytes()),
        dst: Addr::v4([198, 18, 0, 2]),
        id,
        proto: 17,
        hop_limit: 64,
        offset,
        more,
        payload: &[0; 16],
        header_bytes: 20,
    };
    let whole = matches!(black_box(fragments.add(Tick(1), &fragment, 0, 0)), Reassembly::Complete { .. });
    while fragments.take_discarded().is_some() {}
    whole
}

fn main() {
    // `cargo test` builds and starts this too; there is nothing to pass or fail.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let hasher = Hasher::new([1, 2, 3, 4], Cpu::detect());
    for (what, mut fragments) in [
        ("payloads kept", Fragments::new(DATAGRAMS, hasher)),
        ("metadata alone", Fragments::without_payloads(DATAGRAMS, hasher)),
    ] {
        println!("{what}");
        let mut stranger = 0x0a00_0000;
        // What is met for the first time is slower.
        for id in 0..MEANT {
            for (offset, more) in [(0, true), (16, true), (32, false)] {
                add(&mut fragments, 0xc612_0003, id, offset, more);
            }
        }
        for flood in [0, 10, 100, 300, 1000] {
            let (mut whole, mut added) = (0, 0);
            let begun = Instant::now();
            for id in 0..MEANT {
                for (offset, more) in [(0, true), (16, true), (32, false)] {
                    whole += u32::from(add(&mut fragments, 0xc612_0001, id, offset, more));
                    for _ in 0..flood {
                        stranger += 1;
                        add(&mut fragments, stranger, 7, 0, true);
                    }
                    added += 1 + flood;
                }
            }
            println!(
                "{flood:5} between two  {:6.1} ns a fragment  {whole:4} of {MEANT} datagrams whole",
                begun.elapsed().as_nanos() as f64 / f64::from(added)
            );
        }
    }
}
