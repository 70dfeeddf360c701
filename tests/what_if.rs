//! What `timeout what-if` says is what happens: the answer of a run under the old timeouts is held against a run of the
//! same capture under the new ones, flow by flow.

mod patient;
mod pcap;
mod support;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use conntrack::event::{EventKind, FlowView};
use conntrack::tick::{PER_SECOND, Ticks};
use conntrack::track::settings::Profile;
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::Forecast;
use dpdk_conntrack::config::TrackingOptions;
use dpdk_conntrack::driver::capture::Capture;
use dpdk_conntrack::replay::{Heard, Replay};
use pcap::{ACK, CLIENT, FIN, Pcap, SERVER, SYN, TempFile, ethernet, ipv4};

/// One tick of the tracker, in nanoseconds.
const TICK: u64 = 4_000_000;

/// A moment on the capture's clock, in ticks, and the packet.
type Packet = (u64, Vec<u8>);

/// What one run saw: every flow by what it is (tuple and birth) with its packets, and which are in the table at the end.
#[derive(Default)]
struct Run {
    flows: HashMap<String, u64>,
    table: HashSet<String>,
    forecast: Forecast,
}

fn identity(flow: &FlowView) -> String {
    format!("{} {:?} {:?}", flow.proto, flow.original, flow.created)
}

fn packets(flow: &FlowView) -> u64 {
    flow.count.map_or(0, |ways| ways.iter().map(|way| way.packets).sum())
}

/// Plays the packets and lets the clock run to `end`; `then` is asked about.
fn play(file: &TempFile, options: &TrackingOptions, end: u64, then: &[(TimeoutKey, Ticks)]) -> Run {
    let mut run = Run::default();
    let mut replay = Replay::new(options, true).unwrap();
    let mut capture = Capture::open(&file.0).unwrap();
    let told = |_: u64, heard: Heard<'_>| {
        if let Heard::Event(event) = heard
            && matches!(event.kind, EventKind::Destroy(_))
        {
            run.flows.insert(identity(&event.flow()), packets(&event.flow()));
        }
        Ok(())
    };
    replay.run(&mut capture, Some(Duration::from_nanos(end * TICK)), told, |_| {}).unwrap();
    let listed = replay.each_flow(|flow| {
        run.flows.insert(identity(flow), packets(flow));
        run.table.insert(identity(flow));
        Ok::<(), ()>(())
    });
    listed.unwrap();
    let mut timeouts = options.settings.timeouts;
    then.iter().for_each(|&(key, span)| timeouts.set(key, span));
    run.forecast = replay.what_if(&timeouts);
    run
}

/// What a run under other timeouts did otherwise.
struct Otherwise {
    /// Flows that it ended and that speak again in the first run.
    cut: u64,
    /// Flows of the first run's table that were not cut and are not in its own.
    gone: u64,
    /// Flows of the first run's table that were cut.
    cut_in_table: u64,
    /// How many entries it has less.
    saved: i64,
}

fn otherwise(old: &Run, new: &Run) -> Otherwise {
    let is_cut = |flow: &String| new.flows.get(flow).is_some_and(|packets| packets < &old.flows[flow]);
    Otherwise {
        cut: old.flows.keys().filter(|flow| is_cut(flow)).count() as u64,
        gone: old.table.iter().filter(|flow| !is_cut(flow) && !new.table.contains(*flow)).count() as u64,
        cut_in_table: old.table.iter().filter(|flow| is_cut(flow)).count() as u64,
        saved: old.table.len() as i64 - new.table.len() as i64,
    }
}

fn options(profile: Profile) -> TrackingOptions {
    let mut options = TrackingOptions::new(profile);
    options.settings.checksum = false;
    options
}

fn both(
    name: &str,
    profile: Profile,
    then: &[(TimeoutKey, Ticks)],
    mut capture: Vec<Packet>,
    end: u64,
) -> (Run, Otherwise) {
    capture.sort_by_key(|(at, _)| *at);
    let frames: Vec<_> = capture.into_iter().map(|(at, packet)| (at * TICK, ethernet(&packet))).collect();
    let file = TempFile::new(name, &Pcap { nanoseconds: true, ..Pcap::default() }.file(&frames));
    let mut options = options(profile);
    let old = play(&file, &options, end, then);
    then.iter().for_each(|&(key, span)| options.settings.timeouts.set(key, span));
    let new = play(&file, &options, end, &[]);
    let otherwise = otherwise(&old, &new);
    (old, otherwise)
}

/// Who speaks: conversation `number` between two hosts.
fn packet(number: u16, protocol: u8, from_client: bool, part: &[u8]) -> Vec<u8> {
    let client = Ipv4Addr::from(u32::from(CLIENT) + 256 * u32::from(number));
    let (src, dst) = if from_client { (client, SERVER) } else { (SERVER, client) };
    // The place of a checksum that nobody verifies: it must only be there.
    let mut part = part.to_vec();
    part.extend([0; 4]);
    let at = part.len() - 2;
    ipv4(src, dst, protocol, part, at)
}

fn udp(number: u16, from_client: bool) -> Vec<u8> {
    let ports = if from_client { [0x13, 0x88, 0, 53] } else { [0, 53, 0x13, 0x88] };
    packet(number, 17, from_client, &[&ports[..], &[0, 12, 0, 0]].concat())
}

fn icmp(number: u16, from_client: bool) -> Vec<u8> {
    packet(number, 1, from_client, &[if from_client { 8 } else { 0 }, 0, 0, 0, 0, 7, 0, 1])
}

fn gre(number: u16, from_client: bool) -> Vec<u8> {
    packet(number, 47, from_client, &[0, 0, 8, 0])
}

fn generic(number: u16, from_client: bool) -> Vec<u8> {
    packet(number, 89, from_client, &[0; 16])
}

/// The sequence numbers of both sides.
struct Tcp {
    number: u16,
    next: [u32; 2],
}

impl Tcp {
    fn segment(&mut self, from_client: bool, flags: u8, data: usize) -> Vec<u8> {
        let (own, other) = (usize::from(!from_client), usize::from(from_client));
        let ports = if from_client { [4, 7, 0, 23] } else { [0, 23, 4, 7] };
        let ack = if flags & ACK == 0 { 0 } else { self.next[other] };
        let head = [
            &ports[..],
            &self.next[own].to_be_bytes(),
            &ack.to_be_bytes(),
            &[0x50, flags, 0xff, 0, 0, 0, 0, 0],
        ];
        let client = Ipv4Addr::from(u32::from(CLIENT) + 256 * u32::from(self.number));
        let (src, dst) = if from_client { (client, SERVER) } else { (SERVER, client) };
        let mut part = head.concat();
        part.resize(20 + data, b'x');
        self.next[own] += data as u32 + u32::from(flags & (SYN | FIN) != 0);
        ipv4(src, dst, 6, part, 16)
    }

    /// A handshake and a byte each way, a tick between two segments.
    fn established(number: u16, at: &mut u64, capture: &mut Vec<Packet>) -> Self {
        let mut tcp = Self { number, next: [1000, 900_000] };
        let opening = [
            (true, SYN, 0),
            (false, SYN | ACK, 0),
            (true, ACK, 0),
            (true, ACK, 1),
            (false, ACK, 1),
            (true, ACK, 0),
        ];
        for (from_client, flags, data) in opening {
            capture.push((*at, tcp.segment(from_client, flags, data)));
            *at += 1;
        }
        tcp
    }
}

/// Random enough, and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Pauses around `span`: far below, a tick below, just so, a tick above, and beyond, below `old`.
fn pauses(dice: &mut Dice, span: u64, old: u64) -> u64 {
    let pauses = [3, 200, span / 2, span - 1, span, span, span + 1, span + 300, (span + old) / 2, old - 1];
    pauses[dice.below(pauses.len() as u64) as usize].min(old - 1)
}

const PROFILES: [Profile; 2] = [Profile::Classic, Profile::Linux];

#[test]
fn flows_without_states_do_what_was_said_flow_by_flow() {
    type Maker = fn(u16, bool) -> Vec<u8>;
    // An echo reply opens no flow, so that only one side asks here.
    let cases: [(TimeoutKey, u32, Maker, bool); 4] = [
        (TimeoutKey::Icmp, 10, icmp, false),
        (TimeoutKey::Udp, 7, udp, false),
        (TimeoutKey::Gre, 12, gre, false),
        (TimeoutKey::Generic, 90, generic, true),
    ];
    for profile in PROFILES {
        for (key, seconds, make, replies) in cases {
            let old = u64::from(options(profile).settings.timeouts.get(key).0);
            let span = u64::from(seconds * PER_SECOND);
            let mut dice = Dice(7);
            let (mut capture, mut end) = (Vec::new(), 0);
            for number in 0..60 {
                let mut at = dice.below(2000);
                for packet in 0..1 + dice.below(6) {
                    capture.push((at, make(number, !replies || packet % 2 == 0)));
                    end = end.max(at);
                    at += pauses(&mut dice, span, old);
                }
            }
            let (run, new) = both(
                "stateless.pcap",
                profile,
                &[(key, Ticks::from_secs(seconds))],
                capture,
                end + 3 * span / 4,
            );
            let said = &run.forecast;
            assert_eq!((said.cut.at_least, said.cut.at_most), (new.cut, new.cut), "{profile:?} {key:?}");
            assert_eq!(said.would_go() as i64, new.saved, "{profile:?} {key:?}");
            assert!(
                new.cut > 5 && new.saved > 0,
                "{profile:?} {key:?}: nothing was tried: {} {}",
                new.cut,
                new.saved
            );
        }
    }
}

#[test]
fn connections_do_what_was_said_flow_by_flow() {
    for profile in PROFILES {
        let cases = [
            (TimeoutKey::TcpEstablished, 600, 1_500_u64, false),
            (TimeoutKey::TcpEstablished, 60, 280, false),
            (TimeoutKey::TcpCloseWait, 20, 60, true),
        ];
        for (key, seconds, old, half_closed) in cases {
            let span = u64::from(seconds * PER_SECOND);
            let mut dice = Dice(11);
            let (mut capture, mut end) = (Vec::new(), 0_u64);
            for number in 0..120 {
                // The last ones come late and say nothing more.
                let late = number >= 90;
                let mut at = if late { end.saturating_sub(dice.below(2 * span)) } else { dice.below(2000) };
                let mut tcp = Tcp::established(number, &mut at, &mut capture);
                if half_closed {
                    capture.push((at, tcp.segment(true, FIN | ACK, 0)));
                    capture.push((at + 1, tcp.segment(false, ACK, 0)));
                    at += 1;
                }
                for _ in 0..if late { 0 } else { dice.below(5) } {
                    at += pauses(&mut dice, span, old * u64::from(PER_SECOND));
                    // Data from the side that may still send, acknowledged at once.
                    capture.push((at, tcp.segment(false, ACK, 1)));
                    capture.push((at + 1, tcp.segment(true, ACK, 0)));
                    at += 1;
                }
                end = end.max(at);
            }
            let changes = [(key, Ticks::from_secs(seconds))];
            let (run, new) = both("connections.pcap", profile, &changes, capture, end + 3 * span / 4);
            let said = &run.forecast;
            assert_eq!(
                (said.cut.at_least, said.cut.at_most),
                (new.cut, new.cut),
                "{profile:?} {key:?} {seconds}"
            );
            // A connection that was cut and spoke again is another one, which may be in another state.
            let most = new.gone + new.cut_in_table;
            assert!(
                (new.gone..=most).contains(&said.would_go()),
                "{profile:?} {key:?} {seconds}: {}",
                said.would_go()
            );
            assert!(
                new.cut > 5 && new.gone > 0,
                "{profile:?} {key:?}: nothing was tried: {} {}",
                new.cut,
                new.gone
            );
        }
    }
}

#[test]
fn conversations_of_udp_do_what_was_said_under_several_timeouts_at_once() {
    for profile in PROFILES {
        let changes =
            [(TimeoutKey::UdpStream, Ticks::from_secs(40)), (TimeoutKey::Udp, Ticks::from_secs(10))];
        let mut dice = Dice(5);
        let (mut capture, mut end) = (Vec::new(), 0);
        for number in 0..80 {
            let mut at = dice.below(2000);
            for packet in 0..dice.below(4) {
                capture.push((at, udp(number, packet % 2 == 0)));
                at += [100, 2_499, 2_500, 7_000][dice.below(4) as usize];
            }
            for packet in 0..dice.below(4) {
                capture.push((at, udp(number, packet % 2 == 0)));
                at += [600, 9_999, 10_000, 20_000][dice.below(4) as usize];
            }
            end = end.max(at);
        }
        let (run, new) = both("udp.pcap", profile, &changes, capture, end - 5_000);
        let said = &run.forecast;
        let between = said.cut.at_least..=said.cut.at_most;
        assert!(between.contains(&new.cut), "{profile:?}: {} is not in {between:?}", new.cut);
        let most = new.gone + new.cut_in_table;
        assert!((new.gone..=most).contains(&said.would_go()), "{profile:?}: {}", said.would_go());
        assert!(new.cut > 5, "{profile:?}: nothing was tried: {}", new.cut);
    }
}

#[test]
fn the_program_answers_for_a_capture_and_while_it_runs() {
    let frames = [0, 20, 45].map(|second| (second * 1_000_000_000, ethernet(&icmp(1, true)))).to_vec();
    let file = TempFile::new("program.pcap", &Pcap::default().file(&frames));
    let program = || Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"));
    let output = program()
        .arg("replay")
        .arg(&file.0)
        .args(["--no-checksum", "--until", "57s", "--what-if", "icmp=10s", "--what-if", "udp.stream=1h"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("now: 1 of 1 flows would go, 0 entries are left\n"), "{said}");
    assert!(
        said.contains("so far: 1 flows would have been cut that spoke again later (recorded for 57s)\n"),
        "{said}"
    );
    assert!(said.contains("note: udp.stream would be raised"), "{said}");

    let daemon = support::Daemon::start(&[("net_null0,no-rx=1", "", None)], "");
    let ask = |words: &[&str]| {
        let once = || {
            let mut program = program();
            program.args(["timeout", "what-if", "--socket"]).arg(daemon.socket()).args(words);
            let output = program.output().unwrap();
            let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), said(&output.stdout), said(&output.stderr))
        };
        patient::until(once, |(_, _, err)| !patient::is_silence(err))
    };
    let (code, out, _) = ask(&["nf_conntrack_tcp_timeout_close_wait=60", "udp.stream=1h 30m"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("tcp.close_wait           12h -> 1m")
            && out.contains("udp.stream               3m -> 1h30m"),
        "{out}"
    );
    assert!(out.contains("now: 0 of 0 flows would go"), "{out}");
    let (code, _, err) = ask(&["tcp.close_wiat=60s"]);
    assert!(code == Some(2) && err.contains("did you mean `tcp.close_wait`?"), "{err}");
    let before = daemon.get("/v1/timeouts");
    let (status, body) =
        support::request(&daemon.socket(), "GET", "/v1/timeouts/what-if?set=icmp=1s,icmp", "").unwrap();
    assert!(status == 400 && body.contains("write it as tcp.close_wait=60s"), "{body}");
    assert_eq!(daemon.get("/v1/timeouts"), before, "asking changes nothing");
}
