//! Flow records as other programs read them: the eve file as JSON, IPFIX by nfdump and by tshark, beside what the
//! appliance itself lists. And what becomes of records when the file or the collector gives up while packets go on.

mod support;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::{Daemon, ipv4, request, soon, udp, write_pcap};

/// Ethernet + IPv6 around `payload`, from 2001:db8::`src` to 2001:db8::`dst`.
fn ipv6(src: u8, dst: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[next, 64]);
    for last in [src, dst] {
        frame.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// A TCP segment with its checksum.
fn tcp(src: u8, dst: u8, ports: [u16; 2], numbers: [u32; 2], flags: u8) -> Vec<u8> {
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    segment.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut summed = vec![198, 18, 0, src, 198, 18, 0, dst, 0, 6, 0, segment.len() as u8];
    summed.extend_from_slice(&segment);
    let sum: u32 = summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    segment[16..18].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    ipv4(src, dst, 6, &segment)
}

/// An echo request or its answer; type 0 or 8.
fn echo(src: u8, dst: u8, icmp_type: u8) -> Vec<u8> {
    let mut message = vec![icmp_type, 0, 0, 0, 0, 7, 0, 1];
    let sum = (u32::from(icmp_type) << 8) + 8;
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    ipv4(src, dst, 1, &message)
}

/// One of each: a connection that was closed, a question with its answer, one without, an echo, IPv6, GRE without ports.
fn one_of_each() -> Vec<Vec<u8>> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let (there, back) = ([40_000, 443], [443, 40_000]);
    let mut question6 = vec![0x13, 0x88, 0, 53, 0, 12, 0, 0, b'p', b'i', b'n', b'g'];
    let mut summed: Vec<u8> = ipv6(1, 2, 17, &question6)[22..54].to_vec();
    summed.extend_from_slice(&[0, 0, 0, 12, 0, 0, 0, 17]);
    summed.extend_from_slice(&question6);
    let sum: u32 = summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    question6[6..8].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    vec![
        tcp(1, 2, there, [100, 0], SYN),
        tcp(2, 1, back, [500, 101], SYN | ACK),
        tcp(1, 2, there, [101, 501], ACK),
        tcp(1, 2, there, [101, 501], FIN | ACK),
        tcp(2, 1, back, [501, 102], FIN | ACK),
        tcp(1, 2, there, [102, 502], ACK),
        udp(1, 2, 5000, 53),
        udp(2, 1, 53, 5000),
        udp(1, 3, 5001, 53),
        echo(1, 2, 8),
        echo(2, 1, 0),
        ipv6(1, 2, 17, &question6),
        ipv4(4, 5, 50, &[0; 16]),
    ]
}

/// So many questions, each a flow of its own.
fn questions(number: u16) -> Vec<Vec<u8>> {
    (0..number).map(|number| udp((number >> 8) as u8 + 10, 2, 1000 + (number & 0xff), 53)).collect()
}

/// An appliance that forwards these frames, once or over and over.
fn appliance(frames: &[Vec<u8>], over_and_over: bool, export: impl FnOnce(&Path) -> String) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    write_pcap(&folder.path().join("in.pcap"), frames);
    let again = if over_and_over { ",infinite_rx=1" } else { "" };
    let text = format!(
        r#"
workers = 1
[[port]]
name = "in"
device = "net_pcap0,rx_pcap={dir}/in.pcap{again}"
role = "inside"
peer = "out"
[[port]]
name = "out"
device = "net_null1,no-rx=1"
role = "outside"
peer = "in"
[[policy]]
from = "any"
state = ["new", "established", "related", "untracked"]
action = "accept"
[eal]
hugepages = false
[control]
socket = "{dir}/control.sock"
http = "off"
{}
"#,
        export(folder.path())
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Daemon::start_in(folder)
}

fn ended(stats: &Value) -> u64 {
    let reasons = stats["workers"][0]["destroyed"].as_object().unwrap();
    reasons.values().map(|number| number.as_u64().unwrap()).sum()
}

/// A sink's (records, lost).
fn counted(stats: &Value, sink: &str) -> (u64, u64) {
    let row = stats["exports"].as_array().unwrap().iter().find(|row| row["sink"] == sink).unwrap();
    (row["records"].as_u64().unwrap(), row["lost"].as_u64().unwrap())
}

fn flush(daemon: &Daemon) {
    assert_eq!(daemon.ask("POST", "/v1/flush", "").0, 200);
}

/// Waits until each flow that ended is a record or counted as lost; gives (records, lost).
fn settled(daemon: &Daemon, sink: &str) -> (u64, u64) {
    let stats = daemon.wait("/v1/stats", |stats| {
        let (records, lost) = counted(stats, sink);
        // Of a worker that does not answer, old numbers are told; and sinks are counted a moment after workers.
        let ended = ended(stats);
        stats["workers"][0]["responding"] == true && records + lost == ended && ended > 0
    });
    counted(&stats, sink)
}

fn flows(daemon: &Daemon) -> Vec<Value> {
    daemon.get("/v1/flows").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn eve_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // What stands behind the last newline is being written.
    let text = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(read).collect()
}

fn eve(folder: &Path) -> String {
    format!("[export.eve]\npath = \"{}\"", folder.join("eve.json").display())
}

#[test]
fn an_eve_line_says_what_the_list_said() {
    let mut daemon = appliance(&one_of_each(), false, eve);
    daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 13);
    let listed = flows(&daemon);
    assert_eq!(listed.len(), 6, "{listed:#?}");
    flush(&daemon);
    assert_eq!(settled(&daemon, "eve"), (6, 0));
    let lines = eve_lines(&daemon.folder.path().join("eve.json"));
    assert_eq!(lines.len(), 6);
    for flow in &listed {
        let line = lines
            .iter()
            .find(|line| line["flow_id"] == flow["id"])
            .unwrap_or_else(|| panic!("{flow} in {lines:#?}"));
        assert_eq!(line["event_type"], "flow");
        for (eve, list) in [
            (&line["src_ip"], &flow["original"]["src"]),
            (&line["dest_ip"], &flow["original"]["dst"]),
            (&line["src_port"], &flow["original"]["sport"]),
            (&line["dest_port"], &flow["original"]["dport"]),
            (&line["icmp_type"], &flow["original"]["icmp_type"]),
            (&line["response_icmp_type"], &flow["reply"]["icmp_type"]),
            (&line["flow"]["pkts_toserver"], &flow["original"]["packets"]),
            (&line["flow"]["pkts_toclient"], &flow["reply"]["packets"]),
            (&line["flow"]["bytes_toserver"], &flow["original"]["bytes"]),
            (&line["flow"]["bytes_toclient"], &flow["reply"]["bytes"]),
            (&line["conntrack"]["state"], &flow["state"]),
            (&line["conntrack"]["assured"], &flow["assured"]),
            (&line["community_id"], &flow["community_id"]),
        ] {
            assert_eq!(eve, list, "{line} beside {flow}");
        }
        assert!(line["community_id"].as_str().unwrap().starts_with("1:"));
        assert_eq!((&line["flow"]["reason"], &line["flow"]["alerted"]), (&"forced".into(), &false.into()));
    }
    let of = |proto: &str| {
        lines.iter().find(|line| line["proto"] == proto).unwrap_or_else(|| panic!("{proto}: {lines:#?}"))
    };
    assert_eq!(
        (&of("TCP")["flow"]["state"], &of("TCP")["tcp"]["state"]),
        (&"closed".into(), &"time_wait".into())
    );
    assert_eq!(of("ICMP")["flow"]["state"], "established");
    assert_eq!(of("ESP")["flow"]["state"], "new");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_flow_ends_with_its_last_packet_and_not_with_its_timeout() {
    let export = |folder: &Path| format!("{}\n[timeouts]\nudp.unreplied = \"1500ms\"", eve(folder));
    let daemon = appliance(&[udp(1, 2, 5000, 53)], false, export);
    assert_eq!(settled(&daemon, "eve"), (1, 0));
    let lines = eve_lines(&daemon.folder.path().join("eve.json"));
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&line["flow"]["reason"], &line["flow"]["age"]), (&"timeout".into(), &0.into()));
    let moment = |value: &Value| {
        let text = value.as_str().unwrap();
        let (text, zone) = text.split_at(text.len() - 5);
        assert_eq!((zone, text.len()), ("+0000", "2026-11-22T15:21:35.123000".len()), "{value}");
        format!("{text}Z").parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    let (start, end, told) =
        (moment(&line["flow"]["start"]), moment(&line["flow"]["end"]), moment(&line["timestamp"]));
    // A tick of the tracker is 4 ms.
    assert!((end - start).abs() <= 8, "one packet is its first and its last: {line}");
    assert!((1490..3000).contains(&(told - end)), "it was forgotten a timeout later: {line}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now - told).abs() < 30_000, "{line}");
}

#[test]
fn a_moved_file_is_followed_at_once_when_asked_and_soon_when_not() {
    let frames = questions(50);
    let daemon = appliance(&frames, true, eve);
    let path = |name: &str| daemon.folder.path().join(name);
    let fifty_more = || {
        daemon.wait("/v1/stats", |stats| stats["entries"] == 50);
        flush(&daemon);
    };
    fifty_more();
    soon("lines", || eve_lines(&path("eve.json")).len() >= 50);
    std::fs::rename(path("eve.json"), path("eve.json.1")).unwrap();
    Command::new("kill").args(["-HUP", &daemon.child.id().to_string()]).status().unwrap();
    soon("a new file", || path("eve.json").exists());
    std::fs::rename(path("eve.json"), path("eve.json.2")).unwrap();
    soon("a new file without a signal", || path("eve.json").exists());
    fifty_more();
    soon("lines in it", || eve_lines(&path("eve.json")).len() >= 50);
    flush(&daemon);
    let (records, lost) = settled(&daemon, "eve");
    let lines: usize =
        ["eve.json", "eve.json.1", "eve.json.2"].iter().map(|name| eve_lines(&path(name)).len()).sum();
    assert_eq!((lines as u64, lost), (records, 0), "no line was lost between the files");
}

/// A file system with room for a few lines, taken away at the end.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn at(folder: &'a Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "records-test"])
            .arg(folder)
            .status()
            .unwrap();
        assert!(done.success(), "root mounts a file system: run this test as scripts/test does");
        Self(folder)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_costs_records_that_are_counted_and_no_packet() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("disk");
    let disk = SmallDisk::at(&folder);
    let path = folder.join("eve.json");
    let export = |_: &Path| format!("[export.eve]\npath = \"{}\"", path.display());
    let daemon = appliance(&questions(100), true, export);
    for _ in 0..3 {
        daemon.wait("/v1/stats", |stats| stats["entries"] == 100);
        flush(&daemon);
    }
    let full = daemon.wait("/v1/stats", |stats| counted(stats, "eve").1 > 0);
    let later = daemon.wait("/v1/stats", |stats| {
        stats["workers"][0]["tx_packets"].as_u64().unwrap()
            > full["workers"][0]["tx_packets"].as_u64().unwrap() + 10_000
    });
    assert_eq!(later["workers"][0]["tx_full"], 0, "{later}");
    // Every line there is whole, and the one that was begun when the disk was full is gone.
    let before = settled(&daemon, "eve").0;
    let text = std::fs::read_to_string(&path).unwrap();
    let kept = eve_lines(&path).len();
    assert!(kept > 10 && kept == text.lines().count(), "{text}");
    assert_eq!(before, kept as u64);
    std::fs::write(&path, "").unwrap();
    daemon.wait("/v1/stats", |stats| stats["entries"] == 100);
    assert_eq!(request(&daemon.socket(), "DELETE", "/v1/flows?sport=1007", "").unwrap().0, 200);
    let (records, lost) = settled(&daemon, "eve");
    assert_eq!(records, before + 1, "room on the disk is used at once; lost so far: {lost}");
    assert_eq!(eve_lines(&path).len(), 1);
    soon("the log says why", || daemon.log().contains("No space left on device"));
    drop(daemon);
    drop(disk);
}

/// Debian's collector, listening, and the folder of what it received.
struct Nfcapd {
    child: Child,
    /// Its address as it stands in /proc/net/udp.
    listening: String,
    folder: tempfile::TempDir,
}

impl Nfcapd {
    fn at(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("nfcapd")
            .args(["-4", "-b", "127.0.0.1", "-p", &port.to_string(), "-t", "3600", "-w"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("nfcapd.log")).unwrap())
            .spawn()
            .expect("nfcapd is installed: scripts/setup brings it");
        let listening = format!("0100007F:{port:04X} ");
        soon("nfcapd listens", || std::fs::read_to_string("/proc/net/udp").unwrap().contains(&listening));
        Self { child, listening, folder }
    }

    /// Whether it has taken all that came to its socket, and waits for more. proc(5)
    fn idles(&self) -> bool {
        let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
        let row = sockets.lines().find(|line| line.contains(&self.listening)).unwrap();
        let (_, waiting) = row.split_whitespace().nth(4).unwrap().split_once(':').unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        waiting == "00000000" && stat.contains(" (nfcapd) S ")
    }

    /// Ends it, and gives the flows that it received as nfdump prints them, and what it said.
    fn received(mut self) -> (Vec<Value>, String) {
        // What waits at its socket when it is told to end is not read any more.
        let mut looks = 0;
        soon("nfcapd has read all", || {
            looks = if self.idles() { looks + 1 } else { 0 };
            looks > 1
        });
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap();
        let log = std::fs::read_to_string(self.folder.path().join("nfcapd.log")).unwrap();
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path());
        let Some(file) = files
            .into_iter()
            .find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("nfcapd.2"))
        else {
            panic!("nfcapd kept nothing: {log}");
        };
        let out = Command::new("nfdump").args(["-o", "json", "-6", "-r"]).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")), log)
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ipfix(port: u16, more: &str) -> String {
    format!("[export.ipfix]\ncollector = \"127.0.0.1:{port}\"\n{more}")
}

/// In VLAN 100, which is zone 100.
fn in_vlan_100(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 100], &frame[12..]].concat();
    frames.into_iter().map(tagged).collect()
}

#[test]
fn nfdump_reads_what_the_list_said() {
    let port = free_port();
    let nfcapd = Nfcapd::at(port);
    let daemon = appliance(&in_vlan_100(one_of_each()), false, |_| ipfix(port, ""));
    daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 13);
    let listed = flows(&daemon);
    assert_eq!(listed.len(), 6);
    flush(&daemon);
    assert_eq!(settled(&daemon, "ipfix"), (6, 0));
    let (received, log) = nfcapd.received();
    assert!(log.contains("Sequence Errors: 0") && log.contains("Bad Packets: 0"), "{log}");
    assert_eq!(received.len(), 6, "{received:#?}");
    for flow in &listed {
        let original = &flow["original"];
        let six = original["src"].as_str().unwrap().contains(':');
        let (src, dst) = if six { ("src6_addr", "dst6_addr") } else { ("src4_addr", "dst4_addr") };
        let same = |record: &&Value| {
            record["proto"] == flow["proto"]
                && record[src] == original["src"]
                && record[dst] == original["dst"]
                && (original["sport"].is_null() || record["src_port"] == original["sport"])
        };
        let record = received.iter().find(same).unwrap_or_else(|| panic!("{flow} in {received:#?}"));
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        for (nfdump, list) in [
            (&record["in_packets"], &original["packets"]),
            (&record["in_bytes"], &original["bytes"]),
            (&record["out_packets"], &flow["reply"]["packets"]),
            (&record["out_bytes"], &flow["reply"]["bytes"]),
            (&record["dst_port"], &original["dport"]),
            (&record["icmp_type"], &original["icmp_type"]),
            (&record["src_vlan"], &100.into()),
        ] {
            assert_eq!(number(nfdump), number(list), "{record} beside {flow}");
        }
        assert_eq!((&record["ingress_vrf"], &record["export_sysid"]), (&"100".into(), &1.into()), "{record}");
        let boot = daemon.json("/v1/info")["boot_unix_ms"].as_u64().unwrap();
        let start =
            jiff::Timestamp::from_millisecond((boot + number(&flow["created_boot_ms"])) as i64).unwrap();
        let local =
            start.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string();
        assert_eq!(record["first"], local.as_str(), "{record} beside {flow}");
    }
}

/// One message that came to the collector, as tshark reads it.
#[derive(Debug, Default)]
struct Message {
    bytes: usize,
    sequence: u64,
    domain: u64,
    templates: usize,
    /// Each record's values, by tshark's names; those of the reverse direction behind a minus.
    records: Vec<BTreeMap<String, String>>,
}

/// Reads messages with tshark, which also says if one is malformed.
fn tshark(messages: &[Vec<u8>]) -> Vec<Message> {
    const PORT: u16 = 4739;
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("ipfix.pcap");
    let wrapped = messages.iter().map(|message| {
        let head = [PORT.to_be_bytes(), PORT.to_be_bytes(), (message.len() as u16 + 8).to_be_bytes(), [0; 2]];
        ipv4(1, 2, 17, &[head.concat().as_slice(), message].concat())
    });
    write_pcap(&capture, &wrapped.collect::<Vec<_>>());
    let out = Command::new("tshark")
        .arg("-r")
        .arg(&capture)
        .args(["-d", &format!("udp.port=={PORT},cflow"), "-O", "cflow"])
        .output()
        .expect("tshark is installed: scripts/setup brings it");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(!text.contains("Malformed") && !text.contains("No template found"), "{text}");
    let mut read: Vec<Message> = Vec::new();
    for line in text.lines() {
        let (depth, line) = (line.len() - line.trim_start().len(), line.trim());
        if line == "Cisco NetFlow/IPFIX" {
            read.push(Message::default());
        }
        let Some(message) = read.last_mut() else { continue };
        match line.split_once(": ") {
            None if depth == 8 && line.starts_with("Flow ") => message.records.push(BTreeMap::new()),
            None if line.starts_with("Template (Id = ") => message.templates += 1,
            Some(("Length", value)) if depth == 4 => message.bytes = value.parse().unwrap(),
            Some(("FlowSequence", value)) => message.sequence = value.parse().unwrap(),
            Some(("Observation Domain Id", value)) => message.domain = value.parse().unwrap(),
            Some((name, value)) => {
                let Some(record) = message.records.last_mut() else { continue };
                match value.split_once(" (Reverse") {
                    Some((value, _)) => record.insert(format!("-{name}"), value.to_owned()),
                    None => record.insert(name.to_owned(), value.to_owned()),
                };
            }
            None => {}
        }
    }
    assert_eq!(read.len(), messages.len(), "{text}");
    read
}

/// Everything that waits at the socket. On the loopback interface that is all that was sent.
fn waiting(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 65_536];
    let next = || match socket.recv(&mut buffer) {
        Ok(bytes) => Some(buffer[..bytes].to_vec()),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            None
        }
    };
    std::iter::from_fn(next).collect()
}

/// Whether a message is of templates: its first set is their one. RFC 7011 section 3.3.2
fn is_of_templates(message: &[u8]) -> bool {
    message[16..18] == [0, 2]
}

/// How often the templates came, each time in as many messages: how often the one did that came first.
fn template_rounds(messages: &[Vec<u8>]) -> usize {
    let mut ids = messages.iter().filter(|message| is_of_templates(message)).map(|message| &message[20..22]);
    let Some(first) = ids.next() else { return 0 };
    1 + ids.filter(|id| *id == first).count()
}

#[test]
fn tshark_reads_what_the_list_said() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let daemon = appliance(&in_vlan_100(one_of_each()), false, |_| ipfix(port, "observation_domain = 77"));
    daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 13);
    let listed = flows(&daemon);
    flush(&daemon);
    assert_eq!(settled(&daemon, "ipfix"), (6, 0));
    let messages = tshark(&waiting(&socket));
    let [templates, data @ ..] = messages.as_slice() else { panic!("nothing came") };
    assert_eq!((templates.templates, templates.records.len(), templates.sequence), (12, 0, 0));
    // One message, but where the machine stood still while they gathered.
    let mut records = Vec::new();
    for message in data {
        assert_eq!((message.templates, message.sequence, message.domain), (0, records.len() as u64, 77));
        records.extend(&message.records);
    }
    assert_eq!(records.len(), 6);
    for flow in &listed {
        let (original, reply) = (&flow["original"], &flow["reply"]);
        let id = flow["id"].to_string();
        let found = records.iter().find(|record| record["Flow Id"] == id);
        let record = found.unwrap_or_else(|| panic!("{flow} in {records:#?}"));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (tshark, list) in [
            ("SrcAddr", &original["src"]),
            ("DstAddr", &original["dst"]),
            ("SrcPort", &original["sport"]),
            ("DstPort", &original["dport"]),
            ("Octets", &original["bytes"]),
            ("Packets", &original["packets"]),
            ("-Octets", &reply["bytes"]),
            ("-Packets", &reply["packets"]),
        ] {
            let list = (!list.is_null()).then(|| text(list));
            assert_eq!(record.get(tshark), list.as_ref(), "{tshark} of {record:#?} beside {flow}");
        }
        assert!(record["Protocol"].ends_with(&format!("({})", flow["proto"])), "{record:#?}");
        for (name, value) in [
            ("Flow End Reason", "Forced end (4)"),
            ("Biflow Direction", "Initiator (1)"),
            ("Vlan Id", "100"),
            ("Ingress VRFID", "100"),
        ] {
            assert_eq!(record[name], value, "{record:#?}");
        }
        let type_and_code = original["icmp_type"].as_u64().map(|icmp_type| format!("0x{icmp_type:02x}00"));
        assert_eq!(record.get("ICMP Type"), type_and_code.as_ref(), "{record:#?}");
    }
}

#[test]
fn messages_are_short_and_numbered_and_templates_come_again() {
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    let to = socket.local_addr().unwrap();
    let export = format!("[export.ipfix]\ncollector = \"{to}\"\nmtu = 576\ntemplates_every = \"1s\"");
    let begun = Instant::now();
    let daemon = appliance(&questions(100), true, |_| export);
    let mut came = Vec::new();
    for round in 1..=3 {
        soon("templates between records", || {
            came.extend(waiting(&socket));
            template_rounds(&came) >= round
        });
        daemon.wait("/v1/stats", |stats| stats["entries"] == 100);
        flush(&daemon);
    }
    let (records, lost) = settled(&daemon, "ipfix");
    came.extend(waiting(&socket));
    let seconds = begun.elapsed().as_secs_f64();
    // Others may be on their way.
    let last = came.iter().rposition(|message| !is_of_templates(message)).unwrap();
    came.truncate(last + 1);
    let messages = tshark(&came);
    let (mut told, mut templates) = (0, 0);
    for message in &messages {
        assert!(message.bytes <= 576 - 48, "{} bytes", message.bytes);
        assert_eq!((message.sequence, message.domain), (told, 1), "as many records as came before");
        told += message.records.len() as u64;
        templates += message.templates;
    }
    assert_eq!((told, lost), (records, 0));
    assert!(messages.iter().any(|message| message.records.len() > 5), "messages are filled: {messages:?}");
    // All twelve at the start and each second since.
    assert!(templates >= 3 * 12 && templates % 12 == 0, "{templates} templates");
    assert!((templates / 12) as f64 <= 1.0 + seconds, "{templates} templates in {seconds} s");
}

#[test]
fn a_collector_that_dies_costs_records_that_are_counted_and_no_packet() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let daemon = appliance(&questions(100), true, |_| ipfix(address.port(), ""));
    let end_100 = |until: &dyn Fn(&Value) -> bool| {
        daemon.wait("/v1/stats", |stats| stats["entries"] == 100);
        flush(&daemon);
        daemon.wait("/v1/stats", until)
    };
    let alive = end_100(&|stats| counted(stats, "ipfix").0 > 0);
    let (records, _) = settled(&daemon, "ipfix");
    assert_eq!(counted(&alive, "ipfix").1, 0);
    let told: usize = tshark(&waiting(&socket)).iter().map(|message| message.records.len()).sum();
    assert_eq!(told as u64, records);

    drop(socket);
    let dead = end_100(&|stats| counted(stats, "ipfix").1 > 0);
    let (still, lost) = settled(&daemon, "ipfix");
    assert_eq!((still, lost > 50), (records, true), "what was refused is no record: {lost}");
    daemon.wait("/v1/stats", |stats| {
        stats["workers"][0]["tx_packets"].as_u64().unwrap()
            > dead["workers"][0]["tx_packets"].as_u64().unwrap() + 10_000
    });
    assert_eq!(daemon.json("/v1/stats")["workers"][0]["tx_full"], 0);
    soon("the log says why", || daemon.log().contains("nobody listens"));

    let socket = UdpSocket::bind(address).unwrap();
    end_100(&|stats| counted(stats, "ipfix").0 > records);
    let (after, _) = settled(&daemon, "ipfix");
    let messages = tshark(&waiting(&socket));
    let told: usize = messages.iter().map(|message| message.records.len()).sum();
    assert_eq!(told as u64, after - records, "templates came ahead of them, or tshark could read nothing");
    assert_eq!(messages[0].sequence, records + lost, "the gap is what was refused");
}

#[test]
fn a_collector_that_stands_still_holds_up_nothing() {
    let port = free_port();
    let nfcapd = Nfcapd::at(port);
    let daemon = appliance(&questions(100), true, |_| ipfix(port, ""));
    let signal =
        |name: &str| Command::new("kill").args([name, &nfcapd.child.id().to_string()]).status().unwrap();
    signal("-STOP");
    let before = daemon.json("/v1/stats");
    for _ in 0..5 {
        daemon.wait("/v1/stats", |stats| stats["entries"] == 100);
        flush(&daemon);
    }
    settled(&daemon, "ipfix");
    daemon.wait("/v1/stats", |stats| {
        stats["workers"][0]["tx_packets"].as_u64().unwrap()
            > before["workers"][0]["tx_packets"].as_u64().unwrap() + 10_000
    });
    signal("-CONT");
    let (records, lost) = settled(&daemon, "ipfix");
    let (received, log) = nfcapd.received();
    assert_eq!((received.len() as u64, lost), (records, 0), "{log}");
}

#[test]
fn more_ends_at_once_than_the_rings_hold_are_records_or_counted() {
    // Twice the ring's room, ended within a few turns of the worker's loop.
    let frames: Vec<_> =
        (0..130).flat_map(|host| (0..250).map(move |port| udp(host + 10, 2, 1000 + port, 53))).collect();
    let daemon = appliance(&frames, false, eve);
    daemon.wait("/v1/stats", |stats| stats["entries"] == 32_500);
    flush(&daemon);
    let (records, lost) = settled(&daemon, "eve");
    assert_eq!(records + lost, 32_500);
    assert_eq!(eve_lines(&daemon.folder.path().join("eve.json")).len() as u64, records);
    assert!(records > 0, "{lost}");
}
