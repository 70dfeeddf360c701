//! DPDK's telemetry socket of the running program: our commands, by DPDK's own client and by hand.

mod support;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use support::{Daemon, PATIENCE, arp, udp, write_pcap};

/// Two flows, one of them answered, in a table of 100.
fn daemon(more: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    write_pcap(&folder.path().join("in.pcap"), &[udp(1, 2, 1000, 53), udp(1, 2, 1001, 53), arp(1)]);
    write_pcap(&folder.path().join("out.pcap"), &[udp(2, 1, 53, 1000), udp(7, 1, 9, 9)]);
    let text = format!(
        "workers = 1\ntimeouts.udp.unreplied = \"1h\"\n{more}\n\
         [[port]]\nname = \"lan\"\ndevice = \"net_pcap0,rx_pcap={dir}/in.pcap,tx_pcap=/dev/null\"\nrole = \"inside\"\npeer = \"wan\"\n\
         [[port]]\nname = \"wan\"\ndevice = \"net_pcap1,rx_pcap={dir}/out.pcap,tx_pcap=/dev/null\"\nrole = \"outside\"\npeer = \"lan\"\n\
         [[zone]]\nid = 7\nvlan = 7\nlimit = 5\n\
         [table]\nmax_entries = 100\n\
         [eal]\nhugepages = false\n\
         [control]\nsocket = \"{dir}/control.sock\"\nhttp = \"off\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let daemon = Daemon::start_in(folder);
    daemon.wait("/v1/stats", |stats| stats["workers"][0]["rx_packets"] == 5);
    daemon
}

/// Where DPDK puts it below what `support::command` names as the runtime directory.
fn path(daemon: &Daemon) -> PathBuf {
    daemon.folder.path().join("dpdk/rte/dpdk_telemetry.v2")
}

/// A client that asks by hand.
struct Client(Socket);

impl Client {
    fn connect(daemon: &Daemon) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(path(daemon)).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self(socket);
        let greeting: Value = serde_json::from_str(&client.read()).unwrap();
        assert!(greeting["version"].as_str().unwrap().starts_with("DPDK "), "{greeting}");
        client
    }

    fn read(&mut self) -> String {
        let mut answer = vec![0; 64 << 10];
        let length = self.0.read(&mut answer).unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap().trim_end_matches('\0').to_owned()
    }

    /// What stands under the command in its answer.
    fn ask(&mut self, command: &str) -> Value {
        self.0.write_all(command.as_bytes()).unwrap();
        let text = self.read();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        answer[command.split(',').next().unwrap()].clone()
    }

    /// The answer, once it is as wanted: numbers are up to a second old.
    fn await_answer(&mut self, command: &str, done: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.ask(command);
            if done(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{command}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn every_command_tells_what_the_appliance_counts() {
    let mut daemon = daemon("profile = \"linux\"");
    let mut client = Client::connect(&daemon);
    let stats = client.await_answer("/conntrack/stats", |stats| stats["rx_packets"] == 5);
    assert_eq!(
        (&stats["entries"], &stats["entries_limit"], &stats["inserted"]),
        (&2.into(), &100.into(), &2.into())
    );
    assert_eq!((&stats["packets"]["established"], &stats["dropped"]["policy_new"]), (&1.into(), &1.into()));
    assert_eq!(client.ask("/conntrack/workers"), serde_json::json!([0]));
    // It may have been silent when it was asked last.
    let worker = client.await_answer("/conntrack/worker,0", |worker| worker["responding"] == 1);
    assert_eq!(worker["rx_packets"], 5, "{worker}");
    let states = client.ask("/conntrack/states");
    assert_eq!((&states["udp"], &states["tcp"]["ESTABLISHED"]), (&2.into(), &0.into()), "{states}");
    let limits = client.ask("/conntrack/limits");
    assert_eq!(
        limits,
        serde_json::json!({"limit": 100, "count": 2, "zones": {"7": {"limit": 5, "count": 0, "refused": 0}}})
    );
    assert_eq!(client.ask("/conntrack/ports")["lan"]["rx_packets"], 3);
    let pools = client.ask("/conntrack/pools");
    assert!(pools["frames"]["available"].as_u64().unwrap() > 1000, "{pools}");
    let info = client.ask("/conntrack/info");
    assert_eq!((&info["profile"], &info["pid"]), (&"linux".into(), &daemon.child.id().into()), "{info}");

    assert_eq!(client.ask("/conntrack/timeouts")["tcp_established"], 432_000_000);
    let changed = daemon.ask("PUT", "/v1/timeouts", r#"{"name":"tcp.established","value":"500ms"}"#);
    assert_eq!(changed.0, 200);
    client.await_answer("/conntrack/timeouts", |timeouts| timeouts["tcp_established"] == 500);

    // Words that no answer is to, however odd.
    let long = format!("/conntrack/worker,{}", "9".repeat(900));
    for odd in [
        "/conntrack/worker",
        "/conntrack/worker,1",
        "/conntrack/worker,-1",
        "/conntrack/worker,\u{fffd}x",
        &long,
    ] {
        assert_eq!(client.ask(odd), Value::Null, "{odd}");
    }
    assert_eq!(client.ask("/conntrack/worker, 0 ")["rx_packets"], 5, "it still answers");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!path(&daemon).exists(), "the socket's file is left");
}

#[test]
fn dpdk_s_own_client_shows_our_commands() {
    let daemon = daemon("");
    Client::connect(&daemon).await_answer("/conntrack/stats", |stats| stats["rx_packets"] == 5);
    let mut program = Command::new("dpdk-telemetry.py")
        .env("RUNTIME_DIRECTORY", daemon.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/setup brings dpdk-telemetry.py");
    program
        .stdin
        .take()
        .unwrap()
        .write_all(b"/conntrack/stats\n/conntrack/limits\n/help,/conntrack/worker\n/\n")
        .unwrap();
    let said = String::from_utf8(program.wait_with_output().unwrap().stdout).unwrap();
    let answers: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let under = |command: &str| {
        answers.iter().find_map(|answer| answer.get(command)).unwrap_or_else(|| panic!("{said}"))
    };
    assert_eq!(under("/conntrack/stats")["entries"], 2);
    assert_eq!(under("/conntrack/limits")["count"], 2);
    assert!(under("/help").to_string().contains("its number"), "{said}");
    let listed = under("/").as_array().unwrap();
    for command in ["info", "limits", "pools", "ports", "states", "stats", "timeouts", "worker", "workers"] {
        assert!(listed.contains(&format!("/conntrack/{command}").into()), "{command}: {said}");
    }
}

#[test]
fn it_is_silent_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "mode = \"mirror\"\nworkers = 1\n[[port]]\nname = \"p\"\ndevice = \"net_null0,no-rx=1\"\n\
         [eal]\nhugepages = false\ntelemetry = false\n[control]\nsocket = \"{}/control.sock\"\nhttp = \"off\"\n",
        folder.path().display()
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let daemon = Daemon::start_in(folder);
    assert!(!path(&daemon).exists());
}
