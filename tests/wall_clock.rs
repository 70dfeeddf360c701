//! A machine whose clock is set while the appliance runs, as NTP does at the start of one that has none of its own. The
//! machine's clock is everybody's, so that the program is shown another one: `wall_clock.c`.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::{Daemon, PATIENCE, command, udp, write_pcap};

/// How far back the clock is at first: it says 1991 or so.
const BEHIND_SECS: i64 = 1_100_000_000;

/// What a slow machine may need between two readings of ours.
const NEAR: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[track_caller]
fn assert_near(unix_ms: i64, what: &str) {
    let off = (now_ms() - unix_ms).abs();
    assert!(off < NEAR.as_millis() as i64, "{what} is {off} ms off");
}

fn config(folder: &Path) -> String {
    let dir = folder.display();
    format!(
        r#"
workers = 1
[[port]]
name = "in"
device = "net_pcap0,rx_pcap={dir}/in.pcap"
role = "inside"
[[port]]
name = "out"
device = "net_null1,no-rx=1"
role = "outside"
[eal]
hugepages = false
[worker]
idle = "sleep"
[control]
socket = "{dir}/control.sock"
http = "off"
[timeouts]
udp.unreplied = "1h"
[export.eve]
path = "{dir}/eve.json"
"#
    )
}

/// The appliance, at work on one flow, with its clock far behind.
fn appliance() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    write_pcap(&file("in.pcap"), &[udp(1, 2, 5000, 53)]);
    std::fs::write(file("config.toml"), config(folder.path())).unwrap();
    std::fs::write(file("offset"), (-BEHIND_SECS).to_string()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wall_clock.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(file("clock.so")).arg(source).status();
    assert!(built.unwrap().success(), "cc builds {}", "tests/wall_clock.c");
    let mut command = command(folder.path());
    command.env("LD_PRELOAD", file("clock.so")).env("WALL_OFFSET", file("offset"));
    Daemon::start_by(command, folder)
}

fn moment(value: &Value) -> i64 {
    // jiff reads RFC 3339; eve has no colon in the zone, which is always UTC.
    let text = value.as_str().unwrap().replace("+0000", "Z");
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn when_the_clock_is_set_all_that_is_told_from_then_on_has_the_new_time() {
    let daemon = appliance();
    let behind = daemon.json("/v1/info")["boot_unix_ms"].as_i64().unwrap();
    assert!(now_ms() - behind > BEHIND_SECS * 1000, "it sees another clock: {behind}");
    daemon.wait("/v1/stats", |stats| stats["entries"] == 1);
    let history =
        |daemon: &Daemon| daemon.json("/v1/overview/history")["unix_ms"].as_array().unwrap().clone();
    daemon.wait("/v1/overview/history", |history| history["unix_ms"].as_array().unwrap().len() >= 3);

    std::fs::write(daemon.folder.path().join("offset"), "0").unwrap();

    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let info = daemon.json("/v1/info");
    let (earliest, now, latest) = (uptime(), now_ms(), uptime());
    let booted = (now - info["boot_unix_ms"].as_i64().unwrap()) as f64 / 1e3;
    assert!(
        (earliest - 1.0..latest + 1.0).contains(&booted),
        "booted {booted} s ago, and the machine between {earliest} and {latest} s"
    );
    assert_near(info["last_reload"]["success_unix_ms"].as_i64().unwrap(), "the file's reading");

    // What was kept when the clock was behind is in order still, and before now.
    daemon.wait("/v1/overview", |now| (now_ms() - now["unix_ms"].as_i64().unwrap()).abs() < 60_000);
    let times: Vec<i64> = history(&daemon).iter().map(|time| time.as_i64().unwrap()).collect();
    assert!(times.len() >= 4 && times.is_sorted(), "{times:?}");
    times.iter().for_each(|&time| assert_near(time, "a sample"));

    let _reader = daemon.reader();
    let out = std::fs::File::create(daemon.folder.path().join("events")).unwrap();
    let mut events = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"))
        .args(["events", "-o", "jsonl", "--socket"])
        .arg(daemon.socket())
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = |name: &str| {
        let text = std::fs::read_to_string(daemon.folder.path().join(name)).unwrap();
        text.split_once('\n').map(|(line, _)| serde_json::from_str::<Value>(line).unwrap())
    };
    // It says nothing until it hears of something; until then the flow must stay.
    let begun = Instant::now();
    let mut mark = 0;
    let event = loop {
        mark += 1;
        let body = format!(r#"{{"mark":"{mark}"}}"#);
        assert_eq!(daemon.ask("PATCH", "/v1/flows?proto=udp", &body).0, 200);
        std::thread::sleep(Duration::from_millis(50));
        if let Some(event) = line("events") {
            break event;
        }
        assert!(begun.elapsed() < PATIENCE, "no event came");
    };
    assert_near(event["unix_ms"].as_i64().unwrap(), "the event");
    assert_eq!(daemon.ask("POST", "/v1/flush", "").0, 200);
    daemon.wait("/v1/stats", |stats| stats["exports"][0]["records"] == 1);
    let record = line("eve.json").unwrap();
    assert_near(moment(&record["timestamp"]), "the record");
    assert_near(moment(&record["flow"]["start"]), "the flow's first packet");
    events.kill().unwrap();
    events.wait().unwrap();
}
