//! The aggregates behind the web page and `top`, asked of a running appliance.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::{Daemon, udp, write_pcap};

/// A mirror port on which these frames came.
fn mirror(frames: &[Vec<u8>], more: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    write_pcap(&folder.path().join("in.pcap"), frames);
    let text = format!(
        r#"
mode = "mirror"
workers = 1
# However long it takes until all are there and were looked at.
timeouts.udp.unreplied = "1h"
[[port]]
name = "mirror"
device = "net_pcap0,rx_pcap={dir}/in.pcap,tx_pcap={dir}/out.pcap"
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

fn rows(top: &Value, side: &str) -> Vec<(String, u64)> {
    let row = |row: &Value| (row["address"].as_str().unwrap().to_owned(), row["flows"].as_u64().unwrap());
    top[side].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn a_small_table_is_told_exactly() {
    let mut frames: Vec<_> = (0..30).map(|port| udp(1, 9, 1000 + port, 53)).collect();
    frames.extend((0..10).map(|port| udp(2, 8, 1000 + port, 53)));
    let daemon = mirror(&frames, "");
    let told =
        daemon.wait("/v1/overview", |told| told["opened"]["total"] == 40 && told["top"]["counted"] == 40);
    assert_eq!((&told["entries"], &told["rx_packets"]["total"]), (&40.into(), &40.into()), "{told}");
    let top = &told["top"];
    assert_eq!((&top["exact"], &top["counted"]), (&true.into(), &40.into()), "{told}");
    let want = |a: &str, b: &str| vec![(format!("198.18.0.{a}"), 30), (format!("198.18.0.{b}"), 10)];
    assert_eq!((rows(top, "sources"), rows(top, "destinations")), (want("1", "2"), want("9", "8")));
    let states = told["states"].as_array().unwrap();
    assert_eq!(states.len(), 1, "states that nobody is in are left out: {told}");
    assert!(told.to_string().len() < 4096, "an overview is a few kilobytes: {}", told.to_string().len());
    let history = daemon.wait("/v1/overview/history", |told| {
        told["series"]["states.udp"].as_array().is_some_and(|values| values.last() == Some(&40.0.into()))
    });
    let times = history["unix_ms"].as_array().unwrap().len();
    for (name, values) in history["series"].as_object().unwrap() {
        assert_eq!(values.as_array().unwrap().len(), times, "{name}");
    }
}

#[test]
fn a_large_table_is_reckoned_from_a_part_of_it() {
    // Three of four flows from one source, the rest from 50 others; more flows than are counted whole.
    let (large, small) = (37_500_u16, 12_500_u16);
    let mut frames = Vec::new();
    for number in 0..small {
        frames.extend((0..3).map(|more| udp(1, 9, 3 * number + more, 53)));
        frames.push(udp(100 + (number % 50) as u8, 9, number, 53));
    }
    let daemon = mirror(&frames, "[table]\nmax_entries = 100000\n");
    let all = u64::from(large) + u64::from(small);
    // What is told may be of a moment when there were few flows, each number of another one, and nothing while the worker
    // takes its time for a look.
    let told = daemon.wait("/v1/overview", |told| {
        let top = &told["top"];
        told["entries"] == all && top["exact"] == false && top["destinations"][0]["flows"] == all
    });
    let top = &told["top"];
    let counted = top["counted"].as_u64().unwrap();
    assert!((1000..=8192).contains(&counted), "{counted} flows were copied out");
    let sources = rows(top, "sources");
    let first = &sources[0];
    assert_eq!((first.0.as_str(), sources.len()), ("198.18.0.1", 20));
    assert!(first.1.abs_diff(u64::from(large)) < 4_000, "{first:?} of {large}");
    assert!((50..800).contains(&sources[1].1), "{:?} of 250", sources[1]);
    // There is but one destination, so that its flows are all flows.
    assert_eq!(rows(top, "destinations"), [("198.18.0.9".to_owned(), all)]);
}

/// The times of the stream's overviews, as they come.
fn stream(daemon: &Daemon) -> impl Iterator<Item = u64> {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /v1/overview/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
    lines.filter_map(|line| {
        let told: Value = serde_json::from_str(line.strip_prefix("data: ")?).expect(&line);
        Some(told["unix_ms"].as_u64().filter(|ms| *ms > 0).expect("an overview that was made"))
    })
}

#[test]
fn the_stream_sends_an_event_at_once_and_one_a_second() {
    let daemon = mirror(&[udp(1, 2, 3, 4)], "");
    // The last overview is sent, not the next one when it is made; a machine may stop just before it is asked.
    let at_once = (0..20).any(|_| {
        let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        u128::from(stream(&daemon).next().unwrap()) < asked
    });
    assert!(at_once, "the stream begins with an overview that is yet to be made");
    let times: Vec<u64> = stream(&daemon).take(6).collect();
    assert!(times.is_sorted_by(|early, late| early < late), "{times:?}");
    // Between two looks a second passes, however late each of them is; the first event may be from the one before.
    assert!(times[5] - times[0] > 3900, "{times:?}");
    // A machine that stops makes some late, and not each of them.
    assert!(times.windows(2).any(|pair| pair[1] - pair[0] < 2000), "{times:?}");
}
