//! What moves the series, a function a scene.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use conntrack::event::Told;
use conntrack::policy::{Action, Class, Policy, Role, Rule};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::OnFull;
use dpdk::burst::Burst;
use dpdk::eal::Handle;
use dpdk::mempool::{Mempool, PoolConfig};
use dpdk::port::{Port, PortConfig};
use dpdk_conntrack::bus::command::{Command, Flush};

use crate::bench::{Bench, Seen, Setup, Way};
use crate::frames::{self, ethernet, fragment, odd, tagged, unreachable};
use crate::support::{Daemon, arp, ipv4, udp};

/// Where a scene plays, and what was seen of it.
pub(crate) struct Stage<'a> {
    eal: &'a Handle,
    folder: &'a Path,
    number: usize,
    pub(crate) seen: Seen,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(eal: &'a Handle, folder: &'a Path, number: usize) -> Self {
        Self { eal, folder, number, seen: Seen::default() }
    }

    /// A bench as it is before the first turn; its page has been seen.
    fn bench(&mut self, setup: Setup) -> Bench {
        let bench = Bench::new(self.eal, self.folder, self.number, setup);
        self.seen.add(&bench.page());
        bench
    }

    /// Turns and looks until all has been looked at `turns` times.
    fn play(&mut self, bench: &mut Bench, turns: usize) {
        for _ in 0..turns {
            bench.turn(1);
            bench.scrape(&mut self.seen);
        }
    }
}

fn flows(number: u16) -> Vec<Vec<u8>> {
    (0..number).map(|port| udp(1, 2, port, 53)).collect()
}

fn recorded_files() -> Vec<(&'static str, usize)> {
    let whole = [
        "edges",
        "fragment",
        "generic",
        "gre",
        "icmp-error",
        "icmp",
        "icmpv6-nd",
        "ip-validity",
        "ipv6-ext",
        "ipv6-length",
        "sctp",
        "udp",
        "udplite",
        "time",
    ];
    let parts = [("tcp-window", 8), ("tcp", 4), ("sctp-matrix", 3), ("random-sctp", 1), ("tcp-matrix", 64)];
    whole.map(|file| (file, 1)).into_iter().chain(parts).collect()
}

pub(crate) fn recorded(stage: &mut Stage<'_>) {
    let mut inside = frames::recorded(&recorded_files());
    inside.extend(odd());
    // Longer than any frame may be, and longer than the port that it leaves by can write.
    inside.extend([ethernet(0x9999, &[0; 66_000]), ethernet(0x9999, &[0; 65_530])]);
    let turns = inside.len() / 64 + 16;
    let mut bench = stage.bench(Setup { inside, max_entries: 16_384, ..Setup::default() });
    stage.play(&mut bench, turns);
}

pub(crate) fn classic(stage: &mut Stage<'_>) {
    let mut bench = stage.bench(Setup { inside: odd(), profile: Profile::Classic, ..Setup::default() });
    stage.play(&mut bench, 2);
}

pub(crate) fn policy(stage: &mut Stage<'_>) {
    let opens = Rule {
        from: Some(Role::Inside),
        classes: Class::New.bit(),
        new_needs_syn: false,
        action: Action::Accept,
        mark: 0,
    };
    let outside = vec![
        udp(2, 1, 53, 0),
        unreachable(2, 1, &udp(1, 2, 0, 53)),
        udp(3, 1, 7, 7),
        ipv4(2, 1, 47, &[0x20, 1, 8, 0, 0, 0, 0, 0]),
        arp(2),
        tagged(&udp(2, 1, 9, 9), &[7, 9]),
    ];
    let policy = Policy::new(&[opens], Action::Drop).unwrap();
    let mut bench = stage.bench(Setup { inside: flows(1), outside, policy, ..Setup::default() });
    stage.play(&mut bench, 2);
}

pub(crate) fn early_drop(stage: &mut Stage<'_>) {
    let mut bench = stage.bench(Setup { inside: flows(12_000), max_entries: 64, ..Setup::default() });
    bench.ask(0, Command::Listen(Told::All));
    bench.turn(200);
    stage.play(&mut bench, 1);
}

pub(crate) fn drop_new(stage: &mut Stage<'_>) {
    full(stage, OnFull::DropNew);
}

pub(crate) fn pass_untracked(stage: &mut Stage<'_>) {
    full(stage, OnFull::PassUntracked);
}

fn full(stage: &mut Stage<'_>, on_full: OnFull) {
    let mut bench = stage.bench(Setup { inside: flows(150), max_entries: 100, on_full, ..Setup::default() });
    stage.play(&mut bench, 4);
}

pub(crate) fn zones(stage: &mut Stage<'_>) {
    let mut inside: Vec<_> = flows(5).iter().map(|frame| tagged(frame, &[7])).collect();
    inside.push(unreachable(2, 1, &udp(1, 2, 999, 4789)));
    let more = "[[zone]]\nid = 7\nvlan = 7\nlimit = 2\n[tunnel]\ninner = true";
    let mut bench = stage.bench(Setup { inside, more, ..Setup::default() });
    stage.play(&mut bench, 2);
    bench.zones.set_limit(7, Some(9));
    stage.play(&mut bench, 1);
}

/// A flow's thirty seconds and a datagram's pass; the tracker keeps more datagrams than the worker has room for.
pub(crate) fn time(stage: &mut Stage<'_>) {
    let mut inside = flows(200);
    inside.extend((0..300).map(fragment));
    let setup =
        Setup { inside, max_datagrams: 200, held_datagrams: 1, hurried: true, budget: 1, ..Setup::default() };
    let mut bench = stage.bench(setup);
    stage.play(&mut bench, 70);
}

pub(crate) fn hand_off(stage: &mut Stage<'_>) {
    let mut bench = stage.bench(Setup { inside: flows(9_000), workers: 2, ..Setup::default() });
    // The ring to the second fills.
    (0..200).for_each(|_| bench.workers[0].turn());
    bench.observe(0);
    stage.seen.add(&bench.page());
    stage.play(&mut bench, 40);
}

pub(crate) fn met_elsewhere(stage: &mut Stage<'_>) {
    let inside = (0..64).flat_map(frames::halves).collect();
    let mut bench = stage.bench(Setup { inside, workers: 2, ..Setup::default() });
    stage.play(&mut bench, 8);
}

pub(crate) fn stopped(stage: &mut Stage<'_>) {
    let mut bench = stage.bench(Setup { inside: flows(200), way: Way::Nowhere, ..Setup::default() });
    bench.ask(0, Command::Port { port: 1, running: false, done: false });
    bench.ports.ports[1].halt().unwrap();
    stage.play(&mut bench, 4);
}

/// The kernel takes no frame for an interface that is down, and the driver of `net_tap` counts what it could not write.
pub(crate) fn taken_down(stage: &mut Stage<'_>) {
    let name = format!("moved{}", std::process::id());
    let way = Way::Interface(name.clone());
    let mut bench = stage.bench(Setup { inside: flows(3), way, ..Setup::default() });
    run("ip", &["link", "set", &name, "down"]);
    stage.play(&mut bench, 2);
}

pub(crate) fn drivers(stage: &mut Stage<'_>) {
    let mut bench = stage.bench(Setup { inside: vec![vec![0x55; 1_400]; 8], ..Setup::default() });
    let device =
        format!("net_pcap90,rx_pcap={}/{}-in.pcap,tx_pcap=/dev/null", stage.folder.display(), stage.number);
    let config = PoolConfig { cache: 0, frame_room: 512, ..PoolConfig::new("few", 63) };
    let pool = Mempool::create(stage.eal, &config).unwrap();
    let mut port = Port::open(stage.eal, &device.parse().unwrap()).unwrap();
    let mut queues = port
        .start(&PortConfig { mtu: 1500, tx_multi_segment: true, ..PortConfig::default() }, &pool)
        .unwrap();
    let mut burst = Burst::new();
    // A frame needs three buffers: with one there is an error on the way, with none it finds no buffer at all.
    let mut kept: Vec<_> = std::iter::from_fn(|| pool.copy_of(b"x")).collect();
    assert_eq!(queues.rx[0].receive(&mut burst), 0);
    kept.pop();
    assert_eq!(queues.rx[0].receive(&mut burst), 0);
    let mut stats = port.stats();

    let mut live =
        Port::open(stage.eal, &"net_pcap91,rx_iface=lo,tx_pcap=/dev/null".parse().unwrap()).unwrap();
    let _queues = live.start(&PortConfig { mtu: 1500, ..PortConfig::default() }, &pool).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..2_000 {
        socket.send_to(&[0; 8_000], socket.local_addr().unwrap()).unwrap();
    }
    stats.rx_missed = live.stats().rx_missed;
    bench.first_port = Some(stats);
    stage.play(&mut bench, 1);
}

pub(crate) fn flush(stage: &mut Stage<'_>) {
    let mut bench = stage.bench(Setup { inside: flows(3), ..Setup::default() });
    bench.turn(2);
    bench.ask(0, Command::Flush(Flush::new()));
    stage.play(&mut bench, 1);
}

pub(crate) fn reloads(stage: &mut Stage<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let right = format!(
        "mode = \"mirror\"\nworkers = 1\n[[port]]\nname = \"in\"\ndevice = \"net_null0,no-rx=1\"\n[worker]\nidle = \"sleep\"\n\
         [eal]\nhugepages = false\n[control]\nsocket = \"{}/control.sock\"\nhttp = \"off\"\n[metrics]\nnode_compat = true\n",
        folder.path().display()
    );
    let file = folder.path().join("config.toml");
    std::fs::write(&file, &right).unwrap();
    let daemon = Daemon::start_in(folder);
    let pid = daemon.child.id().to_string();
    let page = daemon.get("/metrics");
    stage.seen.add(&page);
    let before = Settings::new(Profile::Classic).timeouts;
    let longer =
        TimeoutKey::ALL.iter().map(|&key| format!("{} = {}\n", key.name(), before.get(key).as_secs() + 1));
    let other = format!("{right}[timeouts]\n{}", longer.collect::<String>());
    for (text, want) in [("nonsense", "0"), (other.as_str(), "1")] {
        std::fs::write(&file, text).unwrap();
        run("prlimit", &["--pid", &pid, "--nofile=4000:4000"]);
        run("kill", &["-HUP", &pid]);
        let begun = Instant::now();
        loop {
            let page = daemon.get("/metrics");
            stage.seen.add(&page);
            if page.contains(&format!("conntrack_config_last_reload_successful {want}\n")) {
                break;
            }
            assert!(begun.elapsed() < crate::support::PATIENCE, "{page}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    (0..300).for_each(|_| drop(daemon.get("/v1/config")));
    // Open connections are open files.
    let _connection = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    stage.seen.add(&daemon.get("/metrics"));
}

fn run(program: &str, words: &[&str]) {
    assert!(
        std::process::Command::new(program).args(words).status().unwrap().success(),
        "{program} {words:?}"
    );
}

/// A tiny file system, so that it is soon full.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn at(folder: &'a Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", folder.to_str().unwrap()]);
        Self(folder)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        run("umount", &["--lazy", self.0.to_str().unwrap()]);
    }
}

/// Records of flows, to a disk that fills and to a collector that goes away.
pub(crate) fn exports(stage: &mut Stage<'_>) {
    let place = tempfile::tempdir().unwrap();
    let disk_folder = place.path().join("disk");
    let _disk = SmallDisk::at(&disk_folder);
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    crate::support::write_pcap(&folder.path().join("in.pcap"), &flows(1_000));
    let text = format!(
        "mode = \"mirror\"\nworkers = 1\n[[port]]\nname = \"in\"\ndevice = \"net_pcap0,rx_pcap={dir}/in.pcap,tx_pcap=/dev/null\"\n\
         [worker]\nidle = \"sleep\"\n[eal]\nhugepages = false\n[control]\nsocket = \"{dir}/control.sock\"\nhttp = \"off\"\n\
         [export.eve]\npath = \"{disk}/eve.json\"\n[export.ipfix]\ncollector = \"{collector}\"\n",
        dir = folder.path().display(),
        disk = disk_folder.display(),
        collector = collector.local_addr().unwrap(),
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let daemon = Daemon::start_in(folder);
    stage.seen.add(&daemon.get("/metrics"));
    daemon.wait("/v1/stats", |stats| stats["entries"] == 1_000);
    let counted = |stats: &serde_json::Value, what: &str| {
        let rows = stats["exports"].as_array().unwrap();
        !rows.is_empty() && rows.iter().all(|row| row[what].as_u64().unwrap() > 0)
    };
    daemon.ask("DELETE", "/v1/flows?sport=7", "");
    daemon.wait("/v1/stats", |stats| counted(stats, "records"));
    drop(collector);
    daemon.ask("POST", "/v1/flush", "");
    daemon.wait("/v1/stats", |stats| counted(stats, "lost"));
    stage.seen.add(&daemon.get("/metrics"));
}
