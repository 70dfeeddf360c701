//! The program as an operator has it: started on virtual ports that need no privilege, asked over its socket, ended by
//! a signal.

mod patient;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, arp, command, read_pcap, request, udp, write_pcap};

/// Two ports on which nothing arrives.
const NULLS: [(&str, &str, Option<&str>); 2] =
    [("net_null0,no-rx=1", "inside", Some("p1")), ("net_null1,no-rx=1", "outside", Some("p0"))];

/// Ports that read what `inside` and `outside` hold and write what leaves.
fn captures(inside: &[Vec<u8>], outside: &[Vec<u8>]) -> Daemon {
    captures_with(inside, outside, "")
}

fn captures_with(inside: &[Vec<u8>], outside: &[Vec<u8>], more: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    write_pcap(&folder.path().join("inside.pcap"), inside);
    write_pcap(&folder.path().join("outside.pcap"), outside);
    let text = format!(
        r#"
# No flow ends by itself.
timeouts.udp.unreplied = "1h"
[[port]]
name = "in"
device = "net_pcap0,rx_pcap={dir}/inside.pcap,tx_pcap={dir}/to-inside.pcap"
role = "inside"
peer = "out"
[[port]]
name = "out"
device = "net_pcap1,rx_pcap={dir}/outside.pcap,tx_pcap={dir}/to-outside.pcap"
role = "outside"
peer = "in"
[eal]
hugepages = false
[control]
socket = "{dir}/control.sock"
http = "off"
{more}
"#
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Daemon::start_in(folder)
}

#[test]
fn what_enters_inside_leaves_outside_as_it_came_and_what_outside_opens_stays_out() {
    let mut broken = udp(1, 2, 9, 9);
    broken[24] ^= 0xff; // the IPv4 checksum
    let inside = vec![arp(1), udp(1, 2, 1000, 53), udp(1, 2, 1001, 53), broken, udp(1, 2, 1000, 53)];
    let outside = vec![arp(2), udp(3, 1, 53, 1000), udp(3, 1, 7, 7)];
    let mut daemon = captures(&inside, &outside);
    let stats = daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 8);
    let worker = &stats["workers"][0];
    assert_eq!(worker["malformed"]["ip_checksum"], 1, "{worker}");
    assert_eq!(worker["dropped"]["policy_new"], 2, "{worker}");
    assert_eq!(stats["entries"], 2, "a packet that policy drops leaves no entry: {stats}");
    assert_eq!(daemon.get("/v1/flows").lines().count(), 2);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    let out = read_pcap(&daemon.folder.path().join("to-outside.pcap"));
    assert_eq!(out, [0, 1, 2, 4].map(|i: usize| inside[i].clone()));
    let back = read_pcap(&daemon.folder.path().join("to-inside.pcap"));
    assert_eq!(back, [outside[0].clone()]);
}

#[test]
fn a_mirror_port_tracks_and_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    write_pcap(&folder.path().join("in.pcap"), &[udp(1, 2, 1, 2), udp(2, 1, 2, 1), udp(5, 6, 7, 8)]);
    let text = format!(
        r#"
mode = "mirror"
[[port]]
name = "mirror"
device = "net_pcap0,rx_pcap={dir}/in.pcap,tx_pcap={dir}/out.pcap"
[eal]
hugepages = false
[control]
socket = "{dir}/control.sock"
http = ""
"#
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let mut daemon = Daemon::start_in(folder);
    let stats = daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 3);
    assert_eq!((&stats["entries"], &stats["replied"]), (&2.into(), &1.into()));
    assert_eq!(daemon.stop(), Some(0));
    assert!(read_pcap(&daemon.folder.path().join("out.pcap")).is_empty());
}

#[test]
fn the_worker_makes_no_system_call() {
    let daemon =
        Daemon::start(&[("net_null0", "inside", Some("p1")), ("net_null1", "outside", Some("p0"))], "");
    let tasks = format!("/proc/{}/task", daemon.child.id());
    let worker = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "worker-0")
        .expect("a thread named worker-0");
    let thread = worker.file_name().unwrap().to_str().unwrap().to_owned();
    let tracer = || {
        let status = std::fs::read_to_string(worker.join("status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap().trim().to_owned()
    };
    let packets = || daemon.json("/v1/stats")["workers"][0]["rx_packets"].as_u64().unwrap();
    let trace = daemon.folder.path().join("trace");
    let mut strace = Command::new("strace");
    let mut strace =
        strace.args(["-qq", "-p", &thread, "-o"]).arg(&trace).spawn().expect("strace is installed");
    // Where tracing is not allowed, this never comes.
    patient::until(tracer, |tracer| *tracer == strace.id().to_string());
    let (begun, before) = (Instant::now(), packets());
    // Control asks for numbers and flows meanwhile: that must cost the worker no call either. Enough packets, and two
    // seconds: what is done once a second is seen as well.
    let asked = || {
        daemon.get("/v1/flows");
        (packets(), begun.elapsed())
    };
    patient::until(asked, |&(after, took)| after > before + 10_000 && took > Duration::from_secs(2));
    assert_eq!(tracer(), strace.id().to_string(), "traced to the end");
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap();
    strace.wait().unwrap();
    let calls = std::fs::read_to_string(&trace).unwrap();
    let calls: Vec<_> = calls.lines().filter(|line| !line.contains("detached")).collect();
    assert!(calls.is_empty(), "{calls:#?}");
}

#[test]
fn operators_ask_and_change_over_the_socket() {
    let mut daemon = Daemon::start(&NULLS, "");
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(daemon.json("/v1/info")["ports"][1]["peer"], "p0");
    let ask = |method, path, body| daemon.ask(method, path, body);

    let (status, body) = ask("PUT", "/v1/timeouts", r#"{"name":"tcp.established","value":"1h"}"#);
    assert_eq!((status, body.contains("\"seconds\":3600")), (200, true), "{body}");
    let (status, body) =
        ask("PUT", "/v1/timeouts", r#"{"name":"ip_ct_tcp_timeout_established","value":"3000"}"#);
    assert_eq!((status, body.contains("\"seconds\":30.0,")), (200, true), "{body}");
    let rows = daemon.json("/v1/timeouts");
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "tcp.established").unwrap();
    assert_eq!(row["seconds"], 30.0);
    let (status, body) = ask("PUT", "/v1/timeouts", r#"{"name":"tcp.close","value":"500ms"}"#);
    assert_eq!((status, body.contains("\"seconds\":0.5,")), (200, true), "{body}");

    for (method, path, body, status) in [
        ("PUT", "/v1/timeouts", r#"{"name":"tcp.nonsense","value":"1h"}"#, 400),
        ("PUT", "/v1/timeouts", r#"{"name":"tcp.established","value":"soon"}"#, 400),
        ("PUT", "/v1/timeouts", r#"{"name":"tcp.established"}"#, 400),
        ("PUT", "/v1/timeouts", "{", 400),
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/flows", "", 405),
        ("GET", "/v1/flows?colour=red", "", 400),
        ("GET", "/v1/flows?proto=tpc", "", 400),
        ("GET", "/v1/flows?events=NEW", "", 400),
        ("GET", "/v1/events?src=10.0.0.1&dst=::1", "", 400),
        ("PATCH", "/v1/flows", "{}", 400),
        ("PATCH", "/v1/flows", r#"{"mark":"five"}"#, 400),
        ("PATCH", "/v1/flows", r#"{"timeout":"soon"}"#, 400),
    ] {
        assert_eq!(ask(method, path, body).0, status, "{method} {path}");
    }
    // Only announced: a body that long is refused before it is read.
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "PUT /v1/timeouts HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 413"), "{line}");

    assert_eq!(ask("POST", "/v1/flush", "").1, r#"{"flows":0}"#);
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.socket().exists(), "an orderly stop takes the socket's file away");
}

#[test]
fn events_reach_a_reader_from_the_moment_that_it_is_told_so() {
    let daemon = captures(&[udp(1, 2, 1000, 53), udp(1, 2, 1001, 53)], &[]);
    daemon.wait("/v1/stats", |stats| stats["entries"] == 2);
    // A worker may not answer that it tells events from now on.
    let listens = || {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        (line, reader)
    };
    let (line, reader) = patient::until(listens, |(line, _)| !line.starts_with("HTTP/1.1 503"));
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    let mut asked = 0;
    let (status, said) = patient::answered(|| {
        asked += 1;
        request(&daemon.socket(), "POST", "/v1/flush", "").unwrap()
    });
    // A worker that was silent has ended them nevertheless, once it went on.
    assert!(status == 200 && (asked > 1 || said == r#"{"flows":2}"#), "{said}");
    let events: Vec<serde_json::Value> = reader
        .lines()
        .filter_map(|line| serde_json::from_str(&line.unwrap()).ok())
        .filter(|json: &serde_json::Value| json.is_object())
        .take(2)
        .collect();
    assert_eq!(events.len(), 2);
    for (event, port) in events.iter().zip([1000, 1001]) {
        assert_eq!((&event["event"], &event["reason"]), (&"destroy".into(), &"admin".into()), "{event}");
        assert_eq!(event["flow"]["original"]["sport"], port, "{event}");
    }
    daemon.wait("/v1/stats", |stats| stats["entries"] == 0);
}

#[test]
fn a_full_table_refuses_counts_and_says_so_once() {
    let frames: Vec<_> = (1..=150).map(|port| udp(1, 2, port, 53)).collect();
    let daemon = captures_with(&frames, &[], "[table]\nmax_entries = 100\non_full = \"drop_new\"\n");
    let stats = daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 150);
    assert_eq!((&stats["entries"], &stats["workers"][0]["dropped"]["table_full"]), (&100.into(), &50.into()));
    let lines = ["table 95 % full", "new flows were refused"];
    let log = patient::until(|| daemon.log(), |log| lines.iter().all(|line| log.contains(line)));
    // It is looked at once a second.
    std::thread::sleep(Duration::from_millis(2_500));
    let later = daemon.log();
    assert_eq!(lines.map(|line| later.matches(line).count()), [1, 1], "{log}and later\n{later}");
}

#[test]
fn a_second_start_is_refused_and_a_stale_socket_is_replaced() {
    let daemon = Daemon::start(&NULLS, "");
    let status = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"))
        .arg("run")
        .arg("--config")
        .arg(daemon.folder.path().join("config.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(!status.status.success() && said.contains("another dpdk-conntrack answers"), "{said}");
    assert_eq!(daemon.json("/v1/info")["pid"], daemon.child.id());

    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(daemon.folder.path().join("config.toml")).unwrap();
    let old = daemon.folder.path().to_str().unwrap().to_owned();
    let text = text.replace(&old, folder.path().to_str().unwrap());
    let text: String =
        text.lines().filter(|line| !line.starts_with("http")).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.path().join("config.toml"), text + "http = \"off\"\n").unwrap();
    drop(UnixListener::bind(folder.path().join("control.sock")).unwrap());
    let second = Daemon::start_in(folder);
    assert_eq!(second.json("/v1/info")["pid"], second.child.id());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    std::fs::write(&socket, "precious").unwrap();
    let text = format!(
        "mode = \"mirror\"\n[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n[control]\nsocket = \"{}\"\n",
        socket.display()
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let status = command(folder.path()).status().unwrap();
    let said = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!status.success() && said.contains("is not a socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn metrics_are_on_loopback() {
    let daemon = Daemon::start(&NULLS, "");
    let log = daemon.log();
    let addr = log
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .expect("an address in the report");
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    };
    // A worker that is silent just now is down.
    let page =
        patient::until(|| get("/metrics"), |page| page.contains("conntrack_worker_up{worker=\"0\"} 1"));
    for series in [
        "conntrack_entries{proto=\"tcp\",state=\"SYN_SENT\"} 0",
        "conntrack_entries_limit 262144",
        "conntrack_invalid_packets_total{reason=\"tcp_seq_over_max_end\"} 0",
        "conntrack_evictions_total{reason=\"timeout\"} 0",
        "conntrack_timeout_seconds{proto=\"tcp\",state=\"established\"} 432000",
        "conntrack_untracked_frames_total{kind=\"mpls\"} 0",
        "conntrack_dropped_packets_total{reason=\"zone_limit\"} 0",
        "conntrack_events_dropped_total{sink=\"stream\"} 0",
        "conntrack_events_dropped_total{sink=\"eve\"} 0",
        "conntrack_export_records_total{sink=\"ipfix\"} 0",
    ] {
        assert!(page.contains(series), "{series} is missing in {page}");
    }
    assert!(get("/v1/flows").starts_with("HTTP/1.1 200"));
}
