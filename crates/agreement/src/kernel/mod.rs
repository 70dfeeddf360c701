//! The live kernel: a network namespace of its own that forwards between two TUN devices, and what its
//! conntrack shows after each packet. Nothing outside the namespace is touched; it goes when its thread ends.

mod netlink;
mod os;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use conntrack::key::Direction;
use conntrack::policy::Class;

use crate::program::Side;
use crate::shown::{Entry, Event, EventKind, Shown};
pub use netlink::{Announced, Key};
use netlink::{Conntrack, PacketLog};
pub use os::{abort_on_close, coarse_time, set_receive_buffer};

/// The packet's class reaches us as a mark that the log carries: 1 + the class's number, plus 16 for a reply.
const RULES: &str = "
table inet kernel_diff {
    chain after_conntrack {
        type filter hook prerouting priority -150; policy accept;
        meta mark set ct state map { new : 1, established : 2, related : 3, invalid : 4, untracked : 5 }
        ct direction reply meta mark set meta mark or 16
        log group 1
    }
    chain quiet {
        type filter hook output priority 0; policy accept;
        icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, nd-neighbor-solicit, mld2-listener-report } drop
        ip protocol igmp drop
    }
}
";

/// Links and routes: side A is 10.1.0.0/16, 192.0.2.0/24, 2001:db8:a::/48 and 2001:db8:c::/48; side B the rest.
const LINKS: &str = "\
link set lo up
link set tunA up mtu 1500
link set tunB up mtu 1500
addr add 10.1.255.254/32 dev tunA
addr add 10.2.255.254/32 dev tunB
addr add 2001:db8:a::ffff/128 dev tunA nodad
addr add 2001:db8:b::ffff/128 dev tunB nodad
route add 10.1.0.0/16 dev tunA
route add 192.0.2.0/24 dev tunA
route add default dev tunB
route add 2001:db8:a::/48 dev tunA
route add 2001:db8:c::/48 dev tunA
route add ::/0 dev tunB
";

/// Below /proc/sys/net, before the devices are made.
const FORWARDING: [(&str, &str); 11] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    // Many programs leave a datagram unfinished; the default budget of 4 MB would refuse fragments after a while.
    ("ipv4/ipfrag_high_thresh", "67108864"),
    ("netfilter/nf_conntrack_frag6_high_thresh", "67108864"),
];

/// Every conntrack setting starts from these: the kernel's defaults, and its voice switched on.
pub const BASE_SETTINGS: [(&str, u64); 34] = [
    ("nf_conntrack_acct", 1),
    ("nf_conntrack_events", 1),
    ("nf_conntrack_log_invalid", 0),
    ("nf_conntrack_timestamp", 0),
    ("nf_conntrack_checksum", 1),
    ("nf_conntrack_tcp_loose", 1),
    ("nf_conntrack_tcp_be_liberal", 0),
    ("nf_conntrack_tcp_ignore_invalid_rst", 0),
    ("nf_conntrack_tcp_max_retrans", 3),
    ("nf_conntrack_tcp_timeout_syn_sent", 120),
    ("nf_conntrack_tcp_timeout_syn_recv", 60),
    ("nf_conntrack_tcp_timeout_established", 432_000),
    ("nf_conntrack_tcp_timeout_fin_wait", 120),
    ("nf_conntrack_tcp_timeout_close_wait", 60),
    ("nf_conntrack_tcp_timeout_last_ack", 30),
    ("nf_conntrack_tcp_timeout_time_wait", 120),
    ("nf_conntrack_tcp_timeout_close", 10),
    ("nf_conntrack_tcp_timeout_max_retrans", 300),
    ("nf_conntrack_tcp_timeout_unacknowledged", 300),
    ("nf_conntrack_udp_timeout", 30),
    ("nf_conntrack_udp_timeout_stream", 120),
    ("nf_conntrack_icmp_timeout", 30),
    ("nf_conntrack_icmpv6_timeout", 30),
    ("nf_conntrack_generic_timeout", 600),
    ("nf_conntrack_gre_timeout", 30),
    ("nf_conntrack_gre_timeout_stream", 180),
    ("nf_conntrack_sctp_timeout_closed", 10),
    ("nf_conntrack_sctp_timeout_cookie_wait", 3),
    ("nf_conntrack_sctp_timeout_cookie_echoed", 3),
    ("nf_conntrack_sctp_timeout_established", 210),
    ("nf_conntrack_sctp_timeout_shutdown_sent", 3),
    ("nf_conntrack_sctp_timeout_shutdown_recd", 3),
    ("nf_conntrack_sctp_timeout_shutdown_ack_sent", 3),
    ("nf_conntrack_sctp_timeout_heartbeat_sent", 30),
];

/// The running kernel's release, as `uname -r` gives it.
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// A namespace of the calling thread.
pub struct Kernel {
    tun: [File; 2],
    log: PacketLog,
    conntrack: Conntrack,
    settings: BTreeMap<&'static str, (File, u64)>,
    announced: Vec<Announced>,
}

/// Which entries of a namespace belong to one program, by their making.
#[derive(Default)]
pub struct Watch {
    live: Vec<(Key, u32)>,
    created: u32,
}

/// What else came of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Injected {
    /// Something left by one of the devices. Only known if it was asked for.
    pub left: bool,
    /// The kernel took it: a device refuses what is no IP packet at all.
    pub taken: bool,
}

/// Moves the calling thread into a new namespace with one TUN device, `wire0`, set up by lines for `ip -batch`: a
/// host. Gives the wire's end of the device.
pub fn enter_host(lines: &str) -> Result<File, String> {
    os::new_network_namespace()?;
    let path = "/proc/sys/net/ipv6/conf/default/accept_dad";
    std::fs::write(path, "0").map_err(|error| format!("{path}: {error}"))?;
    let tun = os::open_tun("wire0")?;
    run_tool("ip", &["-batch", "-"], lines)?;
    Ok(tun)
}

impl Kernel {
    /// Moves the calling thread into a new namespace and sets it up.
    pub fn enter() -> Result<Self, String> {
        os::new_network_namespace()?;
        for (path, value) in FORWARDING {
            std::fs::write(format!("/proc/sys/net/{path}"), value)
                .map_err(|error| format!("/proc/sys/net/{path}: {error}; is nf_conntrack loaded?"))?;
        }
        // Not every kernel has these, and only answers that nobody compares depend on them.
        for path in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            let _ = std::fs::write(format!("/proc/sys/net/{path}"), "0");
        }
        let tun = [os::open_tun("tunA")?, os::open_tun("tunB")?];
        for name in ["tunA", "tunB"] {
            let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
            std::fs::write(&path, "0").map_err(|error| format!("{path}: {error}"))?;
        }
        run_tool("ip", &["-batch", "-"], LINKS)?;
        run_tool("nft", &["-f", "-"], RULES)?;
        let mut settings = BTreeMap::new();
        for (name, value) in BASE_SETTINGS {
            let path = format!("/proc/sys/net/netfilter/{name}");
            let file = File::options().write(true).open(&path).map_err(|error| format!("{path}: {error}"))?;
            write_setting(&file, name, value)?;
            settings.insert(name, (file, value));
        }
        Ok(Self {
            tun,
            log: PacketLog::open(1)?,
            conntrack: Conntrack::open()?,
            settings,
            announced: Vec::new(),
        })
    }

    /// Sets what `wanted` names and everything else to its base value.
    pub fn configure(&mut self, wanted: &[(&'static str, u64)]) -> Result<(), String> {
        for (name, base) in BASE_SETTINGS {
            let value =
                wanted.iter().rev().find(|(other, _)| *other == name).map_or(base, |(_, value)| *value);
            self.set(name, value)?;
        }
        Ok(())
    }

    /// Sets one value.
    pub fn set(&mut self, name: &'static str, value: u64) -> Result<(), String> {
        let (file, current) =
            self.settings.get_mut(name).ok_or_else(|| format!("no setting is called {name}"))?;
        if *current != value {
            write_setting(file, name, value)?;
            *current = value;
        }
        Ok(())
    }

    /// Sends one packet in from `side`. `watch_exit`: also look whether anything left.
    pub fn inject(&mut self, side: Side, bytes: &[u8], watch_exit: bool) -> Injected {
        if watch_exit {
            self.drain();
        }
        let [a, b] = &mut self.tun;
        let tun = match side {
            Side::A => a,
            Side::B => b,
        };
        // The whole forward path runs before the write returns.
        let taken = tun.write(bytes).is_ok();
        let left = watch_exit && self.drain();
        Injected { left, taken }
    }

    /// Takes away what left by the devices; gives whether there was anything.
    pub fn drain(&mut self) -> bool {
        let mut buffer = [0; 2048];
        let mut any = false;
        for tun in &mut self.tun {
            while let Ok(bytes) = std::io::Read::read(tun, &mut buffer) {
                if bytes == 0 {
                    break;
                }
                // What the router itself answers is no sign that the packet went on.
                any |= buffer.get(..bytes).is_some_and(|packet| !is_from_router(packet));
            }
        }
        any
    }

    /// What conntrack shows now, for the entries of `watch`.
    pub fn show(&mut self, watch: &mut Watch, out: &mut Shown) -> Result<(), String> {
        out.clear();
        self.hear(watch, out)?;
        self.conntrack.get_all(&mut watch.live, &mut out.entries)
    }

    /// The class and the events of the last packet, without the entries.
    pub fn hear(&mut self, watch: &mut Watch, out: &mut Shown) -> Result<(), String> {
        if let Some(mark) = self.log.take_mark()? {
            out.class = match mark & 15 {
                1 => Some(Class::New),
                2 => Some(Class::Established),
                3 => Some(Class::Related),
                4 => Some(Class::Invalid),
                5 => Some(Class::Untracked),
                other => {
                    return Err(format!("the log's mark {other} is no class; is nft older than the rules?"));
                }
            };
            out.direction = match out.class {
                Some(Class::Invalid | Class::Untracked) => None,
                _ if mark & 16 != 0 => Some(Direction::Reply),
                _ => Some(Direction::Original),
            };
        }
        self.conntrack.take_events(&mut self.announced)?;
        for Announced { kind, key, entry } in self.announced.drain(..) {
            let mut found = watch.live.iter().position(|(other, _)| *other == key);
            if kind == EventKind::New {
                if let Some(old) = found {
                    watch.live.remove(old);
                }
                watch.created += 1;
                watch.live.push((key, watch.created));
                found = Some(watch.live.len() - 1);
            }
            let n = found.and_then(|at| watch.live.get(at)).map_or(0, |(_, n)| *n);
            if kind == EventKind::Destroy {
                if let Some(old) = found {
                    watch.live.remove(old);
                }
                out.events.push(Event { kind, n, timeout: None, state: None, status: None });
            } else {
                out.events.push(Event {
                    kind,
                    n,
                    timeout: Some(entry.timeout),
                    state: entry.state,
                    status: Some(entry.status),
                });
            }
        }
        Ok(())
    }

    /// Looks the entries of `watch` up whose numbers `wanted` names.
    pub fn look_up(&mut self, watch: &Watch, wanted: &[u32], out: &mut Vec<Entry>) -> Result<(), String> {
        let mut some = watch.live.iter().filter(|(_, n)| wanted.contains(n)).cloned().collect();
        self.conntrack.get_all(&mut some, out)
    }

    /// Looks every entry of `watch` up.
    pub fn look_all_up(&mut self, watch: &mut Watch, out: &mut Vec<Entry>) -> Result<(), String> {
        // A request's answers wait in the socket's buffer: so many at a time fit.
        let mut live = Vec::new();
        for some in watch.live.chunks(64) {
            let mut some = some.to_vec();
            self.conntrack.get_all(&mut some, out)?;
            live.extend(some);
        }
        watch.live = live;
        Ok(())
    }

    /// The devices' own ends, A first: what leaves the router is read here.
    pub fn devices(&mut self) -> &mut [File; 2] {
        &mut self.tun
    }

    /// Deletes the entries of `watch` and forgets what was said of them.
    pub fn clear(&mut self, watch: &mut Watch) -> Result<(), String> {
        for (key, _) in watch.live.drain(..) {
            self.conntrack.delete(&key)?;
        }
        watch.created = 0;
        self.conntrack.take_events(&mut self.announced)?;
        self.announced.clear();
        while self.log.take_mark()?.is_some() {}
        Ok(())
    }

    /// Deletes every entry of the namespace.
    pub fn flush(&mut self) -> Result<(), String> {
        self.conntrack.flush()?;
        self.clear(&mut Watch::default())
    }
}

/// The router's own addresses: see [`LINKS`].
fn is_from_router(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => matches!(packet.get(12..16), Some([10, 1 | 2, 255, 254])),
        Some(6) => packet.get(8..24).is_some_and(|src| {
            let [net @ .., high, low] = src else { return false };
            (*high, *low) == (0xff, 0xff)
                && net.starts_with(&[0x20, 1, 0xd, 0xb8, 0])
                && matches!(net.get(5), Some(0xa | 0xb))
        }),
        _ => false,
    }
}

fn write_setting(file: &File, name: &str, value: u64) -> Result<(), String> {
    file.write_all_at(value.to_string().as_bytes(), 0).map_err(|error| format!("{name} = {value}: {error}"))
}

fn run_tool(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}; install iproute2 and nftables"))?;
    let mut stdin = child.stdin.take().ok_or_else(|| format!("{program}: no standard input"))?;
    stdin.write_all(input.as_bytes()).map_err(|error| format!("{program}: {error}"))?;
    drop(stdin);
    let done = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&done.stderr).trim()))
}
