//! The room on real DPDK, without root and hugepages: loops through net_ring, frames from pcap files, a device that
//! swallows everything, and drivers that lie. EAL starts once, on a thread that keeps it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use dpdk_sys::{self as sys, mbuf as field};

use crate::burst::{Burst, CAPACITY};
use crate::eal::{Config, Eal, Handle};
use crate::error::Error;
use crate::log::Level;
use crate::mbuf::{L4Checksum, Lie, Mbuf};
use crate::mempool::{Mempool, PoolConfig};
use crate::port::{Port, PortConfig, Queues};
use crate::queue::RxQueue;
use crate::ring;

fn eal() -> &'static Handle {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let config = Config { hugepages: false, memory_mib: 192, ..Config::default() };
            let eal = Eal::start(&config, |level, text| {
                if level == Level::Error {
                    println!("{text}");
                }
            });
            let eal = eal.expect("DPDK starts without root and without hugepages");
            send.send(eal.handle().clone()).expect("the test waits");
            loop {
                std::thread::park();
            }
        });
        receive.recv().expect("the EAL thread sends its handle")
    })
}

/// Names are process-wide, tests run side by side.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn pool(mbufs: u32) -> Mempool {
    let config =
        PoolConfig { cache: 32, frame_room: 512, ..PoolConfig::new(&format!("pool{}", number()), mbufs) };
    Mempool::create(eal(), &config).unwrap()
}

fn open(device: &str, pool: &Mempool) -> (Port, Queues) {
    let mut port = Port::open(eal(), &device.parse().unwrap()).unwrap();
    let queues = port.start(&PortConfig { mtu: 1500, ..PortConfig::default() }, pool).unwrap();
    (port, queues)
}

fn frame(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + n) as u8).collect()
}

#[test]
fn frames_come_back_whole_and_in_order_and_the_pool_is_full_again() {
    let pool = pool(511);
    let (port, mut queues) = open(&format!("net_ring{}", number()), &pool);
    let mut burst = Burst::new();
    let sizes = [0, 1, 60, 511, 512];
    for size in sizes {
        burst.push(pool.copy_of(&frame(size)).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].send(&mut burst), sizes.len());
    assert!(burst.is_empty());
    assert_eq!(queues.rx[0].receive(&mut burst), sizes.len());
    for (mbuf, size) in burst.iter().zip(sizes) {
        assert_eq!(mbuf.data(), frame(size));
        assert_eq!((mbuf.len(), mbuf.segments(), mbuf.checksum()), (size, 1, L4Checksum::Unknown));
    }
    assert_eq!(pool.in_use(), 5);
    assert_eq!(port.stats().rx_packets, 5);
    assert_eq!(queues.rx[0].lies().total(), 0);
    burst.clear();
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_frame_of_many_segments_reads_as_one() {
    let pool = pool(127);
    let bytes = frame(512 * 3 + 100);
    let mbuf = pool.copy_of(&bytes).unwrap();
    assert_eq!((mbuf.segments(), mbuf.len(), mbuf.data().len()), (4, bytes.len(), 512));
    let mut out = vec![0; bytes.len() + 10];
    assert_eq!(mbuf.copy_to(&mut out), bytes.len());
    assert_eq!(out[..bytes.len()], bytes);
    let mut short = [0; 600];
    assert_eq!(mbuf.copy_to(&mut short), 600);
    assert_eq!(short[..], bytes[..600]);
    drop(mbuf);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn an_empty_pool_says_so_and_recovers() {
    let pool = pool(63);
    let all: Vec<Mbuf> = std::iter::from_fn(|| pool.copy_of(b"x")).collect();
    assert_eq!((all.len(), pool.in_use()), (63, 63));
    drop(all);
    let one_left: Vec<Mbuf> = (0..62).map(|_| pool.copy_of(b"x").unwrap()).collect();
    assert!(pool.copy_of(&frame(600)).is_none(), "the second segment cannot be had: the first goes back");
    assert_eq!(pool.in_use(), 62);
    drop(one_left);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn what_does_not_fit_stays_with_the_sender() {
    let pool = pool(255);
    let (mut producer, mut consumer) = ring::channel(eal(), &format!("ring{}", number()), 10).unwrap();
    let mut burst = Burst::new();
    for i in 0..12_u8 {
        burst.push(pool.copy_of(&[i]).unwrap()).unwrap();
    }
    assert_eq!(producer.send(&mut burst), 10);
    let left: Vec<u8> = burst.iter().map(|mbuf| mbuf.data()[0]).collect();
    assert_eq!(left, [10, 11]);
    assert_eq!(producer.send(&mut burst), 0);
    burst.clear();
    assert_eq!(consumer.receive(&mut burst), 10);
    let came: Vec<u8> = burst.drain().map(|mbuf| mbuf.data()[0]).collect();
    assert_eq!(came, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // Frames inside a ring are freed with it.
    burst.push(pool.copy_of(b"left").unwrap()).unwrap();
    producer.send(&mut burst);
    assert_eq!(pool.in_use(), 1);
    drop((producer, consumer));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_burst_holds_64_and_frees_what_is_left_in_it() {
    let pool = pool(127);
    let mut burst = Burst::new();
    for i in 0..CAPACITY {
        burst.push(pool.copy_of(&[i as u8]).unwrap()).unwrap();
    }
    let refused = burst.push(pool.copy_of(b"!").unwrap()).unwrap_err();
    assert_eq!((refused.data(), burst.room()), (&b"!"[..], 0));
    drop(refused);
    burst.retain(|mbuf| mbuf.data()[0] % 2 == 0);
    assert_eq!((burst.len(), burst[31].data()), (32, &[62][..]));
    let first = burst.drain().next().unwrap();
    assert_eq!(pool.in_use(), 1, "the drain frees those that it did not reach");
    drop(first);
    burst.push(pool.copy_of(b"?").unwrap()).unwrap();
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

/// Writes a field as a broken driver would.
fn put<T>(mbuf: *mut sys::rte_mbuf, set: unsafe fn(*mut sys::rte_mbuf, T), value: T) {
    // SAFETY: tests hand in live mbufs of their own.
    unsafe { set(mbuf, value) }
}

/// The segment behind this one.
fn next(mbuf: *mut sys::rte_mbuf) -> *mut sys::rte_mbuf {
    // SAFETY: as for put.
    unsafe { field::next(mbuf) }
}

/// A queue that has received three frames, the middle one with a lie planted in it.
fn lying(pool: &Mempool, plant: impl FnOnce(*mut sys::rte_mbuf), size: usize) -> (RxQueue, Burst) {
    let (_port, mut queues) = open(&format!("net_ring{}", number()), pool);
    let mut burst = Burst::new();
    for bytes in [frame(40), frame(size), frame(50)] {
        burst.push(pool.copy_of(&bytes).unwrap()).unwrap();
    }
    plant(burst[1].as_ptr());
    assert_eq!(queues.tx[0].send(&mut burst), 3);
    queues.rx[0].receive(&mut burst);
    (queues.rx.remove(0), burst)
}

#[test]
fn lies_of_a_driver_are_dropped_counted_and_freed_once() {
    use Lie::*;
    type Plant = (&'static str, Lie, usize, fn(*mut sys::rte_mbuf));
    // A frame of 1200 bytes has three segments.
    let plants: &[Plant] = &[
        ("data longer than the buffer", DataBeyondBuffer, 60, |m| put(m, field::set_data_len, 60000)),
        ("data starts behind the buffer", DataBeyondBuffer, 60, |m| put(m, field::set_data_off, 65535)),
        ("data ends one byte behind the buffer", DataBeyondBuffer, 512, |m| put(m, field::set_data_off, 129)),
        ("longer than its one segment", PacketLength, 60, |m| put(m, field::set_pkt_len, 61)),
        ("shorter than its one segment", PacketLength, 60, |m| put(m, field::set_pkt_len, 59)),
        ("no segment", SegmentCount, 60, |m| put(m, field::set_nb_segs, 0)),
        ("a second segment that is not there", SegmentCount, 60, |m| put(m, field::set_nb_segs, 2)),
        ("65535 segments", SegmentCount, 60, |m| put(m, field::set_nb_segs, 65535)),
        ("two of three segments", SegmentCount, 1200, |m| put(m, field::set_nb_segs, 2)),
        ("three segments, one byte more", PacketLength, 1200, |m| put(m, field::set_pkt_len, 1201)),
        ("a long middle segment", DataBeyondBuffer, 1200, |m| put(next(m), field::set_data_len, 641)),
        ("bites its tail", SegmentCount, 1200, |m| put(next(next(m)), field::set_next, m)),
        ("bites its middle", SegmentCount, 1200, |m| put(next(next(m)), field::set_next, next(m))),
        ("bites itself", SegmentCount, 1200, |m| put(next(next(m)), field::set_next, next(next(m)))),
        ("bites its tail, with a count that goes round", SegmentCount, 1200, |m| {
            put(m, field::set_nb_segs, 40);
            put(next(next(m)), field::set_next, m);
        }),
    ];
    for (name, want, size, plant) in plants {
        let pool = pool(127);
        let (queue, burst) = lying(&pool, plant, *size);
        let seen: Vec<usize> = burst.iter().map(Mbuf::len).collect();
        assert_eq!(seen, [40, 50], "{name}: the true frames around it stay");
        let mut counts = [0; 3];
        counts[*want as usize] = 1;
        assert_eq!(queue.lies().by_kind, counts, "{name}");
        drop(burst);
        assert_eq!(pool.in_use(), 0, "{name}");
        // Nothing went back twice: the pool gives each buffer once.
        let mut all: Vec<_> = std::iter::from_fn(|| pool.copy_of(b"x")).collect();
        all.sort_by_key(|mbuf| mbuf.as_ptr() as usize);
        assert_eq!(all.len(), 127, "{name}");
        assert!(all.windows(2).all(|two| two[0].as_ptr() != two[1].as_ptr()), "{name}");
    }
}

#[test]
fn a_lie_looked_at_before_the_door_is_clipped() {
    let pool = pool(63);
    let mbuf = pool.copy_of(&frame(60)).unwrap();
    put(mbuf.as_ptr(), field::set_data_len, 65535);
    assert_eq!(mbuf.data().len(), 512, "to the buffer's end");
    put(mbuf.as_ptr(), field::set_data_off, 65535);
    assert_eq!(mbuf.data().len(), 0);
    put(mbuf.as_ptr(), field::set_nb_segs, 9);
    assert_eq!(mbuf.copy_to(&mut [0; 100]), 0, "a null next ends the walk");
}

#[test]
fn null_instead_of_a_frame_is_left_out() {
    let pool = pool(63);
    let (one, two) = (pool.copy_of(b"1").unwrap().into_raw(), pool.copy_of(b"2").unwrap().into_raw());
    let mut burst = Burst::new();
    // SAFETY: two live chains and two nulls, as the contract allows.
    let came = unsafe {
        burst.fill(|at, n| {
            assert_eq!(n, CAPACITY);
            let null = std::ptr::null_mut();
            at.cast::<[_; 4]>().write([null, one.as_ptr(), null, two.as_ptr()]);
            4
        })
    };
    assert_eq!(came, (2, 2));
    let came: Vec<&[u8]> = burst.iter().map(Mbuf::data).collect();
    assert_eq!(came, [b"1", b"2"]);
}

#[test]
fn checksum_words_are_the_drivers() {
    let pool = pool(63);
    let mbuf = pool.copy_of(b"x").unwrap();
    for (flags, want) in [
        (0, L4Checksum::Unknown),
        (sys::DPDK_MBUF_F_RX_L4_CKSUM_GOOD, L4Checksum::Good),
        (sys::DPDK_MBUF_F_RX_L4_CKSUM_BAD, L4Checksum::Bad),
        (sys::DPDK_MBUF_F_RX_L4_CKSUM_NONE, L4Checksum::None),
    ] {
        // Bits 4 and 7 are the IP header's: bad, good, both for a header that was not looked at.
        for (header, good) in [(0, false), (1 << 4, false), (1 << 7, true), (1 << 4 | 1 << 7, false)] {
            put(mbuf.as_ptr(), field::set_ol_flags, flags | header);
            assert_eq!((mbuf.checksum(), mbuf.ip_checksum_good()), (want, good));
        }
    }
}

#[test]
fn frames_cross_threads_and_come_home() {
    let pool = pool(1023);
    let (mut producer, mut consumer) = ring::channel(eal(), &format!("ring{}", number()), 256).unwrap();
    const FRAMES: u64 = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _registered = eal().register_thread().unwrap();
            let mut burst = Burst::new();
            let mut next = 0_u64;
            while next < FRAMES || !burst.is_empty() {
                while next < FRAMES && burst.room() > 0 {
                    match pool.copy_of(&next.to_le_bytes()) {
                        Some(mbuf) => burst.push(mbuf).unwrap(),
                        None => break,
                    }
                    next += 1;
                }
                if producer.send(&mut burst) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let _registered = eal().register_thread().unwrap();
        let mut burst = Burst::new();
        let mut want = 0_u64;
        while want < FRAMES {
            if consumer.receive(&mut burst) == 0 {
                std::thread::yield_now();
            }
            for mbuf in burst.drain() {
                assert_eq!(mbuf.data(), want.to_le_bytes());
                want += 1;
            }
        }
    });
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_ring_says_how_many_more_fit_and_a_frame_keeps_the_number_written_on_it() {
    let pool = pool(127);
    let (mut producer, mut consumer) = ring::channel(eal(), &format!("room{}", number()), 10).unwrap();
    let mut burst = Burst::new();
    for n in 0..7 {
        let mut frame = pool.copy_of(&frame(60)).unwrap();
        frame.set_port(0x8000 | n);
        burst.push(frame).unwrap();
    }
    assert_eq!(producer.room(), 10);
    assert_eq!(producer.send(&mut burst), 7);
    assert_eq!(producer.room(), 3);
    assert_eq!(consumer.receive(&mut burst), 7);
    assert_eq!(producer.room(), 10);
    let numbers: Vec<_> = burst.iter().map(Mbuf::port).collect();
    assert_eq!(numbers, (0..7).map(|n| 0x8000 | n).collect::<Vec<_>>());
}

#[test]
fn a_device_that_names_no_size_for_a_key_starts_without_it() {
    let pool = pool(2047);
    let mut port = Port::open(eal(), &format!("net_null{}", 900 + number()).parse().unwrap()).unwrap();
    assert!(port.info().rss);
    let config = PortConfig { rx_queues: 2, tx_queues: 2, rss_key: Some([7; 64]), ..PortConfig::default() };
    assert_eq!(port.start(&config, &pool).unwrap().rx.len(), 2);
}

#[test]
fn a_port_tells_what_it_is_and_refuses_what_it_cannot() {
    let pool = pool(2047);
    let name = format!("net_null{}", number());
    let mut port = Port::open(eal(), &name.parse().unwrap()).unwrap();
    assert_eq!((port.info().driver.as_str(), port.info().numa), ("net_null", None));
    let many = PortConfig { rx_queues: 5000, ..PortConfig::default() };
    let error = port.start(&many, &pool).unwrap_err();
    assert!(matches!(error, Error::TooFewQueues { side: "RX", want: 5000, .. }), "{error}");
    let error = port.start(&PortConfig { mtu: 10, ..PortConfig::default() }, &pool).unwrap_err();
    assert!(error.to_string().contains("not 10: change `mtu`"), "{error}");

    let mut queues = port.start(&PortConfig::default(), &pool).unwrap();
    let error = port.start(&PortConfig::default(), &pool).unwrap_err();
    assert!(matches!(error, Error::Running { .. }), "{error}");
    let mut burst = Burst::new();
    assert_eq!(queues.rx[0].receive(&mut burst), CAPACITY);
    assert_eq!(queues.tx[0].send(&mut burst), CAPACITY);
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets), (64, 64));
    assert_eq!(stats.words()[0], ("RX-packets", 64));
    assert!(port.xstats().contains(&("tx_good_packets".to_owned(), 64)), "{:?}", port.xstats());
    assert!(port.link().up);
    drop(queues);
    assert!(!port.is_running());
    port.start(&PortConfig::default(), &pool).expect("a stopped port starts again");
}

#[test]
fn a_closed_device_can_be_opened_again() {
    let pool = pool(255);
    let name = format!("net_ring{}", number());
    for _ in 0..2 {
        let (port, queues) = open(&name, &pool);
        assert_eq!(port.device().name(), name);
        drop((port, queues));
    }
}

#[test]
fn a_driver_that_does_not_exist_is_named_in_one_sentence() {
    let error = Port::open(eal(), &"net_nosuch0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("device net_nosuch0 cannot be used: ") && !error.contains('\n'), "{error}");
    let error =
        Port::open(eal(), &"net_pcap77,rx_pcap=/nonexistent.pcap".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("/nonexistent.pcap"), "{error}");
}

/// Where the buffers of a pool lie, in order.
fn places(for_cards: bool) -> Vec<usize> {
    let config = PoolConfig { cache: 0, for_cards, ..PoolConfig::new(&format!("pool{}", number()), 63) };
    let pool = Mempool::create(eal(), &config).unwrap();
    let frames: Vec<_> = std::iter::from_fn(|| pool.copy_of(&[0])).collect();
    let mut places: Vec<_> = frames.iter().map(|frame| frame.data().as_ptr().addr()).collect();
    places.sort_unstable();
    places
}

#[test]
fn buffers_lie_side_by_side_where_no_card_reads_them() {
    let places = places(false);
    let apart = places[1] - places[0];
    assert_eq!(places.len(), 63);
    assert!(apart < 2048 + 512, "{apart}");
    assert!(places.windows(2).all(|two| two[1] - two[0] == apart), "{places:?}");
}

#[test]
fn a_buffer_that_a_card_reads_lies_in_one_page() {
    assert!(places(true).iter().all(|place| place % 4096 + 2048 <= 4096));
}

#[test]
fn a_pool_larger_than_the_memory_says_how_much_it_needs() {
    let config = PoolConfig::new("huge", 4_000_000);
    let error = Mempool::create(eal(), &config).unwrap_err();
    assert!(matches!(error, Error::PoolMemory { need_mib: 9000.., .. }), "{error}");
}

#[test]
fn dpdk_starts_once() {
    eal();
    let error = Eal::start(&Config::default(), |_, _| ()).unwrap_err();
    assert!(matches!(error, Error::AlreadyStarted), "{error}");
}

#[test]
fn frames_of_a_capture_file_arrive_as_written() {
    let folder = std::env::temp_dir().join(format!("dpdk-pcap-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (input, output) = (folder.join("in.pcap"), folder.join("out.pcap"));
    // pcap's file header (magic, version 2.4, zone, sigfigs, snaplen, Ethernet), then a header and bytes per frame.
    let mut file: Vec<u8> = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_le_bytes());
    }
    let frames = [frame(60), frame(1514), frame(300)];
    for bytes in &frames {
        for word in [0, 0, bytes.len() as u32, bytes.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    std::fs::write(&input, file).unwrap();

    let pool = pool(255);
    let device = format!("net_pcap{},rx_pcap={},tx_pcap={}", number(), input.display(), output.display());
    let (port, mut queues) = open(&device, &pool);
    let mut burst = Burst::new();
    assert_eq!(queues.rx[0].receive(&mut burst), 3);
    assert_eq!(burst[1].segments(), 3, "buffers hold 512 bytes");
    let mut out = [0; 2000];
    for (mbuf, want) in burst.iter().zip(&frames) {
        let n = mbuf.copy_to(&mut out);
        assert_eq!(&out[..n], &want[..]);
    }
    assert_eq!(queues.tx[0].send(&mut burst), 3);
    drop((queues, port));
    assert_eq!(pool.in_use(), 0);
    let written = std::fs::read(&output).unwrap();
    for bytes in &frames {
        assert!(written.windows(bytes.len()).any(|window| window == bytes));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_tag_that_a_device_took_off_is_put_back() {
    let pool = pool(63);
    let mut mbuf =
        pool.copy_of(&[[1; 6], [2; 6]].concat().into_iter().chain([8, 0, 0x45]).collect::<Vec<_>>()).unwrap();
    assert!(mbuf.restore_vlan() && mbuf.len() == 15, "nothing was taken off");
    mbuf.strip_vlan(0x6064);
    assert!(mbuf.is_unfinished());
    assert!(mbuf.restore_vlan());
    assert!(!mbuf.is_unfinished());
    assert_eq!(&mbuf.data()[10..19], [2, 2, 0x81, 0, 0x60, 0x64, 8, 0, 0x45]);
    assert!(mbuf.restore_vlan() && mbuf.len() == 19, "once");
}

#[test]
fn bytes_are_written_across_segments_and_never_beyond() {
    let pool = pool(63);
    let room = usize::from(pool.frame_room());
    let bytes = frame(2 * room + 10);
    let mut mbuf = pool.copy_of(&bytes).unwrap();
    for at in [0, room - 1, 2 * room - 2, 2 * room + 8] {
        assert!(mbuf.write_at(at, &[0xaa, 0xbb]), "{at}");
        let mut now = vec![0; bytes.len()];
        assert_eq!(mbuf.copy_to(&mut now), bytes.len());
        assert_eq!(now[at..at + 2], [0xaa, 0xbb], "{at}");
    }
    assert!(!mbuf.write_at(bytes.len() - 1, &[1, 2]));
    assert!(!mbuf.write_at(bytes.len(), &[1]));
}

#[test]
fn a_port_is_halted_only_while_its_queues_are_parked_and_goes_on_where_it_was() {
    let pool = pool(511);
    let (port, mut queues) = open(&format!("net_ring{}", number()), &pool);
    let mut burst = Burst::new();
    let (rx, tx) = (&mut queues.rx[0], &mut queues.tx[0]);
    let error = port.halt().unwrap_err().to_string();
    assert!(error.contains("2 of its queues are in use"), "{error}");
    rx.park();
    rx.park();
    assert!(port.halt().is_err() && !port.is_halted());
    tx.park();
    assert!(burst.push(pool.copy_of(b"x").unwrap()).is_ok());
    assert_eq!((tx.send(&mut burst), burst.len()), (0, 1), "a parked queue takes nothing");
    port.halt().unwrap();
    port.halt().unwrap();
    assert!(port.is_halted() && port.is_running());
    assert!(!rx.wake() && !tx.wake(), "not while it is halted");
    assert_eq!((tx.send(&mut burst), rx.receive(&mut Burst::new())), (0, 0));
    port.resume().unwrap();
    assert!(rx.wake() && tx.wake() && !port.is_halted());
    assert_eq!(tx.send(&mut burst), 1);
    assert_eq!(rx.receive(&mut burst), 1);
    burst.clear();
    // A queue that is gone is in nobody's way.
    rx.park();
    queues.tx.clear();
    port.halt().unwrap();
    drop(queues);
    assert!(matches!(port.halt(), Err(Error::NotRunning { .. })));
}
