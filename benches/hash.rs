//! Room 2: a key's hash, by AES rounds and by multiplication. Each figure is for one key out of a burst of 64.

use std::hint::black_box;

use conntrack::key::FlowKey;
use conntrack::key::hash::{Cpu, Hasher};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "traffic/mod.rs"]
mod traffic;
use traffic::{BURST, Kind};

#[path = "traffic/keys.rs"]
mod keys;

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Elements(BURST as u64));
    let secret = [0x0123_4567_89ab_cdef, 0xfeed_face_dead_beef, 42, 7];
    for (way, cpu) in [("detected", Cpu::detect()), ("portable", Cpu::portable())] {
        let hasher = Hasher::new(secret, cpu);
        for (family, kind) in [("v4", Kind::Tcp), ("v6", Kind::Tcp6)] {
            let keys: Vec<FlowKey> = (0..BURST as u32).map(|id| keys::of(kind, id)).collect();
            let mut hashes = [0; BURST];
            group.bench_function(format!("{way}/{family}"), |b| {
                b.iter(|| {
                    for (hash, key) in hashes.iter_mut().zip(black_box(&keys)) {
                        *hash = hasher.hash(key);
                    }
                    black_box(&hashes);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
