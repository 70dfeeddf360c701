//! The program itself on capture files: the well-known lines, by the capture's own clock.

mod pcap;

use std::process::{Command, Output};

use pcap::*;

const SECOND: u64 = 1_000_000_000;
/// When the captures begin: any time, not a whole second.
const START: u64 = 1_700_000_000 * SECOND + 123_456_000;

fn replay(file: &TempFile, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"))
        .arg("replay")
        .arg(&file.0)
        .args(words)
        .output()
        .expect("the program starts")
}

#[track_caller]
fn lines(file: &TempFile, words: &[&str]) -> Vec<String> {
    let output = replay(file, words);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {err}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn capture(name: &str, packets: &[(u64, Vec<u8>)]) -> TempFile {
    let frames: Vec<_> = packets.iter().map(|(at, packet)| (START + at, ethernet(packet))).collect();
    TempFile::new(name, &Pcap::default().file(&frames))
}

/// The handshake of the tutorial, a packet more, and the end: SYN at 0 s, SYN/ACK at 10 s, ACK at 20 s, data at 30 s.
fn tutorial(name: &str) -> TempFile {
    capture(
        name,
        &[
            (0, tcp(true, SYN, 1000, 0, b"")),
            (10 * SECOND, tcp(false, SYN | ACK, 5000, 1001, b"")),
            (20 * SECOND, tcp(true, ACK, 1001, 5001, b"")),
            (30 * SECOND, tcp(true, ACK, 1001, 5001, b"x")),
        ],
    )
}

const FORWARD: &str = "src=192.168.1.5 dst=192.168.1.35 sport=1031 dport=23";
const BACK: &str = "src=192.168.1.35 dst=192.168.1.5 sport=23 dport=1031";

#[test]
fn the_tutorials_lines_come_out_to_the_letter() {
    let file = tutorial("tutorial.pcap");
    for (until, want) in [
        ("3s", format!("tcp      6 117 SYN_SENT {FORWARD} [UNREPLIED] {BACK} use=1")),
        ("13s", format!("tcp      6 57 SYN_RECV {FORWARD} {BACK} use=1")),
        ("21s", format!("tcp      6 431999 ESTABLISHED {FORWARD} {BACK} use=1")),
        ("30s", format!("tcp      6 432000 ESTABLISHED {FORWARD} {BACK} [ASSURED] use=1")),
        // Later than the last packet.
        ("5d 29s", format!("tcp      6 1 ESTABLISHED {FORWARD} {BACK} [ASSURED] use=1")),
    ] {
        assert_eq!(lines(&file, &["--until", until]), [want], "--until {until}");
    }
    assert_eq!(lines(&file, &["--until", "5d 30s"]), [] as [&str; 0]);
}

#[test]
fn the_linux_profile_prints_conntracks_line_and_is_assured_at_once() {
    let file = tutorial("linux.pcap");
    assert_eq!(
        lines(&file, &["--profile", "linux", "--until", "21s"]),
        [format!(
            "tcp      6 431999 ESTABLISHED {FORWARD} packets=2 bytes=80 {BACK} packets=1 bytes=40 [ASSURED] mark=0 use=1"
        )]
    );
    // Unacknowledged data.
    assert_eq!(
        lines(&file, &["--profile", "linux", "-o", "classic"]),
        [format!("tcp      6 300 ESTABLISHED {FORWARD} {BACK} [ASSURED] use=1")]
    );
}

#[test]
fn tracking_options_work_here_too() {
    let file = capture(
        "options.pcap",
        &[
            (0, tcp(true, ACK, 1001, 5001, b"")),
            (SECOND, udp(CLIENT, SERVER, 5000, 53, b"hi")),
            (2 * SECOND, udp(SERVER, CLIENT, 53, 5000, b"ho")),
            (3 * SECOND, udp(CLIENT, SERVER, 5000, 53, b"hi")),
        ],
    );
    let states = |words: &[&str]| -> Vec<String> {
        let fields = |line: String| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        lines(&file, words).into_iter().map(fields).collect()
    };
    assert_eq!(states(&[]), ["tcp 6 431997 ESTABLISHED", "udp 17 180 src=192.168.1.5"]);
    assert_eq!(states(&["--set", "tcp.pickup=syn"]), ["udp 17 180 src=192.168.1.5"]);
    assert_eq!(
        states(&["--timeout", "tcp.established=1h", "--timeout", "ip_ct_udp_timeout_stream=2000"]),
        ["tcp 6 3597 ESTABLISHED", "udp 17 20 src=192.168.1.5"]
    );
    assert_eq!(
        states(&["--profile", "linux", "--set", "timeouts.udp.unreplied=7s"]),
        ["tcp 6 297 ESTABLISHED", "udp 17 7 src=192.168.1.5"]
    );
}

#[test]
fn window_tracking_can_be_switched_off() {
    let file = capture(
        "window.pcap",
        &[
            (0, tcp(true, SYN, 1000, 0, b"")),
            (1, tcp(false, SYN | ACK, 5000, 1001, b"")),
            (2, tcp(true, ACK, 1001, 5001, b"")),
            (SECOND, tcp(false, RST, 900_000_000, 0, b"")),
        ],
    );
    assert!(lines(&file, &[])[0].contains("ESTABLISHED"));
    assert!(lines(&file, &["--no-window-tracking"])[0].contains(" 10 CLOSE "));
}

#[test]
fn events_are_told_in_order_and_ends_at_their_second() {
    let file = capture(
        "events.pcap",
        &[
            (0, udp(CLIENT, SERVER, 5000, 53, b"hi")),
            (SECOND, udp(SERVER, CLIENT, 53, 5000, b"ho")),
            // The first flow has ended long before this one begins.
            (3600 * SECOND, udp(CLIENT, SERVER, 5001, 53, b"hi")),
        ],
    );
    let told = lines(&file, &["--events", "-o", "conntrack,timestamp", "--profile", "linux"]);
    let udp = "src=192.168.1.5 dst=192.168.1.35 sport=5000 dport=53";
    let back = "src=192.168.1.35 dst=192.168.1.5 sport=53 dport=5000";
    assert_eq!(told[0], format!("[1700000000.123000]\t    [NEW] udp      17 30 {udp} [UNREPLIED] {back}"));
    assert_eq!(told[1], format!("[1700000001.123000]\t [UPDATE] udp      17 30 {udp} {back}"));
    assert_eq!(
        told[2].split_once('\t').unwrap().1,
        format!("[DESTROY] udp      17 {udp} packets=1 bytes=30 {back} packets=1 bytes=30")
    );
    let ended: f64 = told[2][1..18].parse().unwrap();
    assert!((1_700_000_031.12..1_700_000_032.2).contains(&ended), "{}", told[2]);
    assert!(
        told[3].contains("[NEW] udp      17 30") && told[3].starts_with("[1700003600.123000]"),
        "{}",
        told[3]
    );
    assert!(told[4].starts_with("udp      17 30 "), "then the table: {}", told[4]);
    assert_eq!(told.len(), 5);
}

#[test]
fn json_holds_every_flow() {
    let file = tutorial("json.pcap");
    let text = lines(&file, &["-o", "json"]).join("\n");
    let flows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0]["state"], "ESTABLISHED");
    assert_eq!(flows[0]["assured"], true);
    assert_eq!(flows[0]["original"]["sport"], 1031);
    let empty = capture("empty.pcap", &[]);
    assert_eq!(lines(&empty, &["-o", "json"]), ["[]"]);
    for line in lines(&file, &["-o", "jsonl", "--events"]) {
        let _: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn a_capture_of_headers_alone_is_tracked_like_the_whole() {
    let frames: Vec<_> = [
        (0, tcp(true, SYN, 1000, 0, b"")),
        (SECOND, tcp(false, SYN | ACK, 5000, 1001, b"")),
        (2 * SECOND, tcp(true, ACK, 1001, 5001, &[7; 900])),
        (3 * SECOND, tcp(false, ACK, 5001, 1901, b"")),
    ]
    .into_iter()
    .map(|(at, packet)| (START + at, ethernet(&packet)))
    .collect();
    let whole = TempFile::new("whole.pcap", &Pcap::default().file(&frames));
    let cut = TempFile::new("cut.pcap", &Pcap { snaplen: 60, ..Pcap::default() }.file(&frames));
    let words = ["--profile", "linux"];
    assert_eq!(lines(&cut, &words), lines(&whole, &words));
    assert!(lines(&cut, &words)[0].contains("packets=2 bytes=980"), "{:?}", lines(&cut, &words));
}

#[test]
fn a_clock_that_jumps_back_or_a_century_on_does_no_harm() {
    let file = capture(
        "jumps.pcap",
        &[
            (50 * SECOND, tcp(true, SYN, 1000, 0, b"")),
            (10 * SECOND, tcp(false, SYN | ACK, 5000, 1001, b"")),
            (60 * SECOND, tcp(true, ACK, 1001, 5001, b"")),
            (2_500_000_000 * SECOND, udp(CLIENT, SERVER, 5000, 53, b"hi")),
        ],
    );
    assert!(lines(&file, &["--until", "10s"])[0].contains("ESTABLISHED"));
    assert_eq!(lines(&file, &["--events"]).last().unwrap().split(' ').next(), Some("udp"));
    assert_eq!(lines(&file, &[]).len(), 1);
}

#[test]
fn wrong_words_and_broken_files_give_one_line_and_a_code() {
    let file = tutorial("words.pcap");
    let text = TempFile::new("text.pcap", b"this is no capture");
    for (file, words, code, want) in [
        (&file, &["--until", "soon"][..], 2, "is not a duration"),
        (&file, &["--timeout", "tcp.established"], 2, "NAME=VALUE"),
        (&file, &["--timeout", "tcp.estab=5"], 2, "no timeout is called"),
        (&file, &["--set", "tcp.pickup=all"], 2, "--set tcp.pickup=all: "),
        (&file, &["--set", "worker.core=1"], 2, "--set worker.core=1: this key does nothing here"),
        (&file, &["--profile", "bsd"], 2, "classic and linux"),
        (&file, &["-o", "csv"], 2, "is no output"),
        (&file, &["--events", "-o", "json"], 2, "-o jsonl"),
        (&text, &[], 1, "neither pcap nor pcapng"),
        (&TempFile("/nonexistent/x.pcap".into()), &[], 1, "cannot be opened"),
    ] {
        let output = replay(file, words);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {err}");
        assert!(err.contains(want), "{words:?}: {err}");
    }
}

#[test]
fn a_capture_that_was_cut_off_shows_what_it_has_and_fails() {
    let whole = tutorial("cutoff-whole.pcap");
    let mut bytes = std::fs::read(&whole.0).unwrap();
    bytes.truncate(bytes.len() - 3);
    let file = TempFile::new("cutoff.pcap", &bytes);
    let output = replay(&file, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(" ESTABLISHED "), "{output:?}");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("ends within a record") && !err.contains("%"), "{err}");
}

#[test]
fn clients_without_an_appliance_say_so_with_their_own_code() {
    for words in [
        &["list"][..],
        &["events"],
        &["stats"],
        &["count"],
        &["flush"],
        &["timeout", "list"],
        &["timeout", "set", "icmp", "5"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"))
            .args(words)
            .args(["--socket", "/nonexistent/control.sock"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{words:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("`dpdk-conntrack run`"), "{output:?}");
    }
}
