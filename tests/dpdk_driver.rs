//! The driver on real DPDK, without root or hugepages: frames from capture files reach the tracker's view whole, and
//! leave as they came. One EAL for the whole program, hence one test.

mod support;

use std::fs;
use std::path::Path;

use conntrack::policy::Role;
use conntrack::wire;
use dpdk::burst::Burst;
use dpdk::eal::{Config, Eal};
use dpdk::mbuf::L4Checksum;
use dpdk::port::{Port, PortConfig};
use dpdk_conntrack::driver::dpdk::{Egress, Exit, Plan, PortSpec, Ports, Scratch};

/// A pcap file (version 2.4, Ethernet) of `frames`.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file: Vec<u8> = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_le_bytes());
    }
    for bytes in frames {
        for word in [0, 0, bytes.len() as u32, bytes.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    fs::write(path, file).unwrap();
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let (frame, behind) = behind.split_at(length);
        frames.push(frame.to_vec());
        rest = behind;
    }
    frames
}

fn spec(name: &str, device: &str, role: Role, mirror: bool) -> PortSpec {
    let (name, device) = (name.to_owned(), device.parse().unwrap());
    PortSpec {
        name,
        device,
        role,
        zone: 7,
        mtu: 1500,
        promiscuous: true,
        mirror,
        queues: None,
        rss_key: None,
    }
}

#[test]
fn frames_pass_from_port_to_port_as_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
    // The long ones need five buffers of a port whose MTU is 1500. net_pcap writes at most 9,728 bytes.
    let frames: Vec<Vec<u8>> =
        [60, 1514, 9014, 42, 9_700].iter().map(|n| (0..*n).map(|i| (i % 251) as u8).collect()).collect();
    write_pcap(&input, &frames);

    let specs = [
        spec("lan", &format!("net_pcap0,rx_pcap={},tx_pcap=/dev/null", input.display()), Role::Inside, false),
        spec("wan", &format!("net_pcap1,tx_pcap={}", output.display()), Role::Outside, false),
        spec("tap", "net_null0", Role::Inside, true),
        spec("loop", "net_ring0", Role::Inside, false),
    ];
    let plan = Plan::new(&specs, 1, 0);
    let devices = specs.iter().map(|spec| spec.device.clone()).collect();
    let config = Config { hugepages: false, memory_mib: plan.mib(false), devices, ..Config::default() };
    let eal = Eal::start(&config, |_, _| ()).unwrap();
    let mut ports = Ports::open(eal.handle(), &specs, 1, &plan).unwrap();
    let mut worker = ports.workers.pop().unwrap();
    let at_rest = ports.pool.in_use();

    let mut burst = Burst::new();
    let mut scratch = Scratch::new();
    let lan = &mut worker[0].ingress;
    assert_eq!(lan.receive(&mut burst), 5);
    let views = lan.frames(&burst, &mut scratch);
    for (view, want) in views.iter().zip(&frames) {
        assert!(view.bytes == want, "{} bytes came, {} were sent", view.bytes.len(), want.len());
        assert_eq!((view.role, view.zone, view.checksum), (Role::Inside, 7, wire::Checksum::Unknown));
    }
    drop(views);
    assert_eq!(burst[2].segments(), 5);
    let Exit::Queue(wan) = &mut worker[1].exit else { panic!("no queue") };
    assert_eq!(wan.send(&mut burst), 5);
    assert_eq!(ports.ports[1].stats().tx_packets, 5);
    assert_eq!(ports.ports[0].stats().rx_packets, 5);

    let mirror = &mut worker[2];
    assert!(matches!(mirror.exit, Exit::Nowhere), "a mirror port has no way to send");
    assert_eq!(mirror.ingress.receive(&mut burst), 64);
    burst.clear();
    assert_eq!(ports.pool.in_use(), at_rest, "every buffer is home");

    // What a local stack left open is filled in, in one buffer and in several.
    let ring = &mut worker[3];
    for length in [100, 5000] {
        let whole = support::udp_with_sum(length);
        let mut open = whole.clone();
        open[40..42].copy_from_slice(&[0x12, 0x34]);
        let mut frame = ports.pool.copy_of(&open).unwrap();
        frame.set_checksum(L4Checksum::None);
        assert!(burst.push(frame).is_ok());
        let Exit::Queue(egress) = &mut ring.exit else { panic!("it has a queue") };
        assert_eq!(egress.send(&mut burst), 1);
        assert_eq!(ring.ingress.receive(&mut burst), 1);
        let views = ring.ingress.frames(&burst, &mut scratch);
        assert!(views[0].bytes == whole, "{length} bytes");
        assert_eq!(views[0].checksum, wire::Checksum::Good);
        drop(views);
        burst.clear();
    }

    // For a device that sends nothing but single segments, frames of several are made one; what no buffer holds is lost.
    let mut alone = Port::open(eal.handle(), &"net_ring1".parse().unwrap()).unwrap();
    let mut queues = alone.start(&PortConfig::default(), &ports.pool).unwrap();
    let mut egress = Egress::new(queues.tx.remove(0), false);
    let chain = |lengths: &[usize]| {
        let parts: Vec<Vec<u8>> =
            lengths.iter().map(|n| (0..*n).map(|i| (i % 249) as u8).collect()).collect();
        (ports.pool.chain_of(&parts).unwrap(), parts.concat())
    };
    let (short, want) = chain(&[40, 700, 760]);
    let (long, _) = chain(&[40, 2047]);
    assert_eq!((short.segments(), long.segments()), (3, 2));
    burst.push(long).unwrap();
    burst.push(short).unwrap();
    assert_eq!(egress.send(&mut burst), 1, "one of two");
    queues.rx[0].receive(&mut burst);
    assert_eq!((burst.len(), burst[0].segments()), (1, 1));
    assert!(burst[0].data() == want, "the bytes are as they were");
    burst.clear();
    drop((egress, queues, alone));

    drop((worker, ports));
    let written = read_pcap(&output);
    assert_eq!(written.len(), 5);
    for (at, (got, want)) in written.iter().zip(&frames).enumerate() {
        assert!(got == want, "frame {at}: {} bytes came, {} were sent", got.len(), want.len());
    }
    drop(eal);
}
