//! The configuration changed under traffic: taken over whole between two bursts or refused whole, and never a packet
//! lost to it. Old and new are told apart by what each flow shows of both its settings and its policy.

mod patient;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use patient::is_silence;
use serde_json::Value;
use support::{Daemon, ipv4, request, udp_with_sum, write_pcap};

/// Ports that send `inside` over and over, and take everything.
fn config(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!(
        r#"
workers = 1
policy_default = "accept"
{more}
[[port]]
name = "in"
device = "net_pcap0,rx_pcap={dir}/inside.pcap,infinite_rx=1"
role = "inside"
[[port]]
name = "out"
device = "net_null1,no-rx=1"
role = "outside"
[eal]
hugepages = false
[control]
socket = "{dir}/control.sock"
http = "off"
"#
    )
}

/// Picks connections up in their middle, and marks with 1; wrong checksums are INVALID.
const OLD: &str = "policy = [{ from = \"inside\", state = [\"new\"], mark = 1, action = \"accept\" }]\n\
                   tcp.pickup = \"any\"\ntracking.checksum = true";

/// Takes wrong checksums, and marks with 2; a connection opens with a SYN.
const NEW: &str = "policy = [{ from = \"inside\", state = [\"new\"], mark = 2, action = \"accept\" }]\n\
                   tcp.pickup = \"syn\"\ntracking.checksum = false";

/// What must be refused, and a word of the reason.
const WRONG: [(&str, u16, &str); 5] = [
    ("tcp.pikcup = \"syn\"", 422, "did you mean `pickup`?"),
    ("tcp.pickup = 7", 422, "this key takes a word"),
    ("tcp = [", 422, "config.toml:"),
    (
        "table.max_entries = 9\nrss = \"symmetric-toeplitz-weak\"",
        409,
        "rss, table.max_entries can only be set at a start",
    ),
    ("[zones]\nby = \"port\"\n[[zone]]\nid = 5\nvlan = 7", 422, "zones.by"),
];

/// A connection's segment in the middle of it, with its checksum.
fn ack(sport: u16) -> Vec<u8> {
    let mut segment = sport.to_be_bytes().to_vec();
    segment.extend([0, 80, 0, 0, 1, 0, 0, 0, 1, 0, 0x50, 0x10, 16, 0, 0, 0, 0, 0]);
    let mut frame = ipv4(1, 2, 6, &segment);
    let sum =
        frame[26..].chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word[1])).sum::<u64>() + 6 + 20;
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[50..52].copy_from_slice(&(!((sum >> 16) + sum) as u16).to_be_bytes());
    frame
}

fn wrong_sum(sport: u16) -> Vec<u8> {
    let mut frame = udp_with_sum(4);
    frame[34..36].copy_from_slice(&sport.to_be_bytes());
    frame
}

fn start() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (2000..2100).flat_map(|port| [ack(port), wrong_sum(port)]).collect();
    write_pcap(&folder.path().join("inside.pcap"), &frames);
    write(folder.path(), OLD);
    Daemon::start_in(folder)
}

/// Whether a reload was refused for the machine's sake, and is to be tried again: a worker was silent, or reading the file
/// took too long.
fn is_again(refused: &str) -> bool {
    is_silence(refused) || refused.contains("the file cannot be read in time")
}

/// Replaces the file as an editor does.
fn write(dir: &Path, more: &str) {
    std::fs::write(dir.join("config.new"), config(dir, more)).unwrap();
    std::fs::rename(dir.join("config.new"), dir.join("config.toml")).unwrap();
}

#[test]
fn many_reloads_under_traffic_lose_nothing_mix_nothing_and_refuse_what_is_wrong() {
    let mut daemon = start();
    let dir = daemon.folder.path().to_owned();
    let (mut seen, mut taken, mut refused) = ([0_u32; 3], 1, 0);
    let reload = |refused: &mut usize| {
        let before = daemon.get("/v1/config");
        let once = || {
            let (status, said) = request(&daemon.socket(), "POST", "/v1/config/reload", "{}").unwrap();
            if status != 200 {
                *refused += 1;
                assert!(said.contains("nothing was changed"), "{said}");
                assert_eq!(daemon.get("/v1/config"), before, "refused, and yet changed: {said}");
            }
            (status, said)
        };
        patient::until(once, |(status, said)| *status == 200 || !is_again(said))
    };
    let begun = Instant::now();
    for round in 0..1000 {
        if begun.elapsed() > Duration::from_secs(8) && round >= 50 {
            break;
        }
        if round % 10 == 9 {
            let (wrong, status, reason) = WRONG[round / 10 % WRONG.len()];
            let text = format!("{OLD}\n{wrong}");
            // One key cannot be written twice.
            write(
                &dir,
                &if wrong.starts_with("tcp.pickup") {
                    text.replacen("tcp.pickup = \"any\"", "", 1)
                } else {
                    text
                },
            );
            let answer = reload(&mut refused);
            assert!(answer.0 == status && answer.1.contains(reason), "{wrong}: {answer:?}");
            continue;
        }
        write(&dir, if round % 2 == 0 { NEW } else { OLD });
        let answer = reload(&mut refused);
        assert_eq!(answer.0, 200, "{answer:?}");
        taken += 1;
        for flow in daemon.get("/v1/flows").lines() {
            let flow: Value = serde_json::from_str(flow).unwrap();
            let mark = flow["mark"].as_u64().unwrap_or_default();
            // Only the old settings open a flow by an ACK, only the new ones by a wrong checksum.
            let want = if flow["proto"] == 6 { 1 } else { 2 };
            assert_eq!(mark, want, "opened by the one's settings and marked by the other's policy: {flow}");
            seen[mark as usize] += 1;
        }
        assert_eq!(daemon.ask("POST", "/v1/flush", "{}").0, 200);
    }
    assert!(seen[1] > 100 && seen[2] > 100, "{seen:?}");
    let last = &daemon.json("/v1/info")["last_reload"];
    assert_eq!((&last["taken"], &last["refused"]), (&taken.into(), &refused.into()), "{last}");
    let log = daemon.log();
    assert_eq!(log.matches("configuration not reloaded").count(), refused);

    // A snapshot is made between two bursts, where every frame that came has left.
    let stats = daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"].as_u64() > Some(10_000));
    let worker = &stats["workers"][0];
    assert_eq!(worker["rx_packets"], worker["tx_packets"], "{worker}");
    assert_eq!(stats["ports"][0]["rx_missed"], 0);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_hangup_reloads_and_what_became_of_it_is_told() {
    let daemon = Daemon::start(&[("net_null0,no-rx=1", "", None)], "");
    let file = daemon.folder.path().join("config.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    // Gives what became of it, once it was not for the machine's sake that it was refused.
    let hang_up = || {
        let once = || {
            let before = daemon.json("/v1/info")["last_reload"].clone();
            Command::new("kill").args(["-HUP", &daemon.child.id().to_string()]).status().unwrap();
            let counts = |last: &Value| (last["taken"].as_u64(), last["refused"].as_u64());
            let info = daemon.wait("/v1/info", |info| counts(&info["last_reload"]) != counts(&before));
            (before, info["last_reload"].clone())
        };
        patient::until(once, |(_, last)| !last["error"].as_str().is_some_and(is_again))
    };
    let timeout = |name: &str| {
        let rows = daemon.json("/v1/timeouts");
        rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()["seconds"].as_f64().unwrap()
    };
    assert_eq!(daemon.json("/v1/info")["last_reload"]["taken"], 1);

    std::fs::write(&file, format!("{old}\n[timeouts]\nudp.stream = 44\n[log]\nlevel = \"error\"\n")).unwrap();
    assert_eq!(hang_up().1["taken"], 2);
    assert_eq!(timeout("udp.stream"), 44.0);
    assert!(!daemon.log().contains("configuration reloaded"), "the new level holds at once");

    // What was set meanwhile is shown, and if it is not in the file it goes with the next reload.
    for (path, body) in [
        ("/v1/timeouts", r#"{"name":"icmp","value":"9s"}"#),
        ("/v1/limits", r#"{"zone":7,"limit":3}"#),
        ("/v1/limits", r#"{"limit":5}"#),
    ] {
        assert_eq!(daemon.ask("PUT", path, body).0, 200, "{body}");
    }
    assert_eq!(timeout("icmp"), 9.0);
    let limits = || {
        let limits = daemon.json("/v1/limits");
        (limits["default_limit"].as_u64(), limits["zones"].as_array().map(Vec::len))
    };
    assert_eq!(limits(), (Some(5), Some(1)));
    let command = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"));
        command.args(line.split(' ')).env("DPDK_CONNTRACK_SOCKET", daemon.socket());
        String::from_utf8(command.env("DPDK_CONNTRACK_CONFIG", &file).output().unwrap().stdout).unwrap()
    };
    let changes = [
        ("timeouts.icmp", Some("\"9s\""), Some("\"30s\"")),
        ("zone[1].id", Some("7"), None),
        ("zone[1].limit", Some("3"), None),
        ("zones.limit", Some("5"), Some("0")),
    ];
    let line = |sign, key, value: Option<&str>| value.map(|value| format!("{sign} {key} = {value}\n"));
    let told: String = changes
        .iter()
        .flat_map(|&(key, here, there)| [line('-', key, here), line('+', key, there)])
        .flatten()
        .collect();
    assert_eq!(command("config diff --running"), told);
    let running = command("config show --running");
    assert!(
        running.contains("[[zone]]\nid = 7\nlimit = 3\n") && !command("config show").contains("[[zone]]")
    );
    let reloaded = || daemon.json("/v1/info")["last_reload"]["taken"] == 3;
    let said = patient::until(|| (command("config reload"), reloaded()), |(_, reloaded)| *reloaded).0;
    assert_eq!(said, told);
    assert_eq!((timeout("icmp"), limits()), (30.0, (Some(0), Some(0))));

    std::fs::write(&file, format!("{old}\n[timeouts]\nudp.stream = \"soon\"\n")).unwrap();
    let (before, last) = hang_up();
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("`soon` is not a duration") && error.contains('^'), "{error}");
    assert_eq!(last["refused"].as_u64(), before["refused"].as_u64().map(|refused| refused + 1));
    assert_eq!((timeout("udp.stream"), &last["success"]), (44.0, &false.into()));
}

#[test]
fn the_command_says_what_changed_and_why_not_by_its_exit_code() {
    let daemon = Daemon::start(&[("net_null0,no-rx=1", "", None)], "");
    let file = daemon.folder.path().join("config.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    let reload = |socket: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"));
        command.args(["config", "reload"]).env("DPDK_CONNTRACK_SOCKET", socket);
        let once = || {
            let output = command.output().unwrap();
            let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), said(&output.stdout), said(&output.stderr))
        };
        patient::until(once, |(_, _, err)| !is_again(err))
    };
    let socket = daemon.socket();
    std::fs::write(&file, format!("{old}\n[table]\non_full = \"drop_new\"\n")).unwrap();
    let (code, out, err) = reload(&socket);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "- table.on_full = \"early_drop\"\n+ table.on_full = \"drop_new\"\n")
    );
    assert!(err.ends_with("reloaded, 1 keys have changed.\n"), "{err}");
    assert_eq!(daemon.json("/v1/info")["table_on_full"], "drop_new");

    std::fs::write(&file, format!("{old}\n[table]\non_full = \"panic\"\n")).unwrap();
    let (code, _, err) = reload(&socket);
    assert!(
        code == Some(2) && err.contains("on_full = \"panic\"") && err.contains("nothing was changed"),
        "{err}"
    );

    std::fs::write(&file, format!("{old}\n[table]\nmax_entries = 7\n")).unwrap();
    let (code, _, err) = reload(&socket);
    assert!(code == Some(1) && err.contains("table.max_entries can only be set at a start"), "{err}");
    assert_eq!(reload(Path::new("/nowhere/x.sock")).0, Some(3));
    assert_eq!(daemon.json("/v1/info")["table_on_full"], "drop_new");
}
