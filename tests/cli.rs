//! The subcommands against a running appliance: what they print, what they change, with which exit code they end.

mod support;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process};
use support::{Daemon, PATIENCE, ipv4, soon, udp, write_pcap};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dpdk-conntrack");

/// Three UDP flows from 198.18.0.1 to ports 53, 123 and 161 of .2 (the first one answered), and one of protocol 89. What .9
/// sends from outside is dropped.
fn daemon(more: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    let inside =
        [udp(1, 2, 1000, 53), udp(1, 2, 1001, 123), udp(1, 2, 1002, 161), ipv4(1, 2, 89, &[1, 2, 3, 4])];
    write_pcap(&folder.path().join("inside.pcap"), &inside);
    write_pcap(&folder.path().join("outside.pcap"), &[udp(2, 1, 53, 1000), udp(9, 1, 7, 7)]);
    let text = format!(
        "{more}\n[[port]]\nname = \"in\"\ndevice = \"net_pcap0,rx_pcap={dir}/inside.pcap,tx_pcap={dir}/a.pcap\"\nrole = \"inside\"\n\
         peer = \"out\"\n[[port]]\nname = \"out\"\n\
         device = \"net_pcap1,rx_pcap={dir}/outside.pcap,tx_pcap={dir}/b.pcap\"\nrole = \"outside\"\n\
         [eal]\nhugepages = false\n[worker]\nidle = \"sleep\"\n[control]\nsocket = \"{dir}/control.sock\"\nhttp = \"off\"\n\
         [timeouts]\nudp.unreplied = \"1h\"\nudp.stream = \"1h\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let daemon = Daemon::start_in(folder);
    daemon.wait("/v1/stats", |stats| stats["entries"] == 4 && stats["replied"] == 1);
    daemon
}

/// Asks once more where a worker had no core for two seconds, unless what was done is told once.
fn ask(daemon: &Daemon, line: &str) -> Output {
    let once = ["update ", "delete ", "timeout load "].iter().any(|command| line.starts_with(command));
    let begun = Instant::now();
    loop {
        let mut command = Command::new(PROGRAM);
        let done = command.args(line.split(' ')).arg("--socket").arg(daemon.socket()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        let silent = said.contains("did not answer within") || said.contains("the answer broke off");
        if once || !silent || begun.elapsed() > PATIENCE {
            return done;
        }
    }
}

/// What it printed, and that it ended with this code.
#[track_caller]
fn tell(daemon: &Daemon, line: &str, code: i32) -> String {
    let done = ask(daemon, line);
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(code), "{line}: {out}{err}");
    if code == 2 { err.into_owned() } else { out.into_owned() }
}

fn lines(text: &str) -> usize {
    text.lines().count()
}

/// A command that follows something. It ends with the test, however that ends.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Follower {
    /// Starts it, and waits until it takes SIGTERM itself and waits for what comes.
    fn start(daemon: &Daemon, line: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(line.split(' ')).arg("--socket").arg(daemon.socket());
        let follower = Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        soon(&format!("{line} takes SIGTERM"), || {
            follower.has_sigterm("SigCgt:") && follower.status("State:").starts_with('S')
        });
        follower
    }

    /// A field of its status. proc(5)
    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
    }

    /// Whether SIGTERM, number 15, is in this set of signals.
    fn has_sigterm(&self, set: &str) -> bool {
        u64::from_str_radix(&self.status(set), 16).unwrap() & 1 << 14 != 0
    }

    /// Whether it is held up in a write.
    fn writes(&self) -> bool {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.0.id())).unwrap_or_default();
        call.starts_with(&format!("{} ", libc::SYS_write))
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
    }

    /// What it printed, also on standard error, and how it ended.
    fn end(mut self) -> (String, String, ExitStatus) {
        soon("its end", || self.0.try_wait().unwrap().is_some());
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (out, err, self.0.wait().unwrap())
    }
}

#[test]
fn sigterm_ends_what_follows_in_order() {
    let daemon = daemon("");
    for line in ["events --dropped --past -o json", "events --dropped -o json", "trace -o json"] {
        let follower = Follower::start(&daemon, line);
        if line.contains("--past") {
            let out = follower.0.stdout.as_ref().unwrap();
            soon("a dropped packet", || ioctl_fionread(out).unwrap() > 0);
        }
        follower.terminate();
        let (out, err, status) = follower.end();
        assert!(status.code() == Some(0) && err.contains("have been shown."), "{line}: {out}{err}");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        let packets = told.as_array().map(Vec::len);
        assert_eq!(packets, Some(usize::from(line.contains("--past"))), "{line}: {out}");
    }
}

#[test]
fn a_second_sigterm_ends_a_reader_whose_output_nobody_takes() {
    let daemon = daemon("");
    let _reader = daemon.reader();
    let mut follower = Follower::start(&daemon, "events -o jsonl");
    let out = follower.0.stdout.take().unwrap();
    // A pipe holds 64 KiB; each change tells of three flows.
    let (mut mark, mut held) = (0, 0);
    soon("a full pipe", || {
        for _ in 0..20 {
            mark += 1;
            let body = format!(r#"{{"mark":"{mark}"}}"#);
            let (status, said) = daemon.ask("PATCH", "/v1/flows?proto=udp", &body);
            assert_eq!(status, 200, "{said}");
        }
        let before = std::mem::replace(&mut held, ioctl_fionread(&out).unwrap());
        held > 50_000 && held == before && follower.writes()
    });
    follower.terminate();
    // Two that wait to be taken are one.
    soon("it writes on", || {
        assert_eq!(follower.0.try_wait().unwrap(), None, "it was writing");
        !follower.has_sigterm("SigPnd:") && !follower.has_sigterm("ShdPnd:") && follower.writes()
    });
    follower.terminate();
    let mut status = None;
    soon("the end of who waits for nobody", || {
        status = follower.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.signal()), Some(Signal::TERM.as_raw()));
}

#[test]
fn filters_choose_what_is_listed_counted_deleted_and_changed() {
    let daemon = daemon("");
    assert_eq!(lines(&tell(&daemon, "list", 0)), 4);
    assert_eq!(lines(&tell(&daemon, "list -p udp -s 198.18.0.0/16", 0)), 3);
    assert_eq!(lines(&tell(&daemon, "list -p udp --dport 123", 0)), 1);
    assert_eq!(tell(&daemon, "count -u UNREPLIED", 0), "3\n");
    assert_eq!(tell(&daemon, "count -p tcp", 0), "0\n");
    // The second look at the workers comes later than the appliance would tell the first one's numbers again.
    let rows = tell(&daemon, "workers -i 0", 0);
    assert!(lines(&rows) == 2 && !rows.contains("NaN") && !rows.contains("inf"), "{rows}");

    let updated = tell(&daemon, "update -p udp --dport 123 -m 0x2a -o conntrack", 0);
    assert!(updated.contains(" mark=42 use=2"), "{updated}");
    let listed = tell(&daemon, "list -m 42 -o conntrack", 0);
    assert!(lines(&listed) == 1 && listed.contains("dport=123"), "{listed}");
    assert_eq!(tell(&daemon, "list -m 0x2/0xf", 0), "", "2 is not all of the lower four bits of 42");
    let flow: serde_json::Value =
        serde_json::from_str(&tell(&daemon, "list -m 0xa/0xf -o jsonl", 0)).unwrap();
    assert_eq!((&flow["mark"], &flow["original"]["dport"]), (&42.into(), &123.into()));
    let updated = tell(&daemon, "update --dport 161 -t 90s -o jsonl", 0);
    let flow: serde_json::Value = serde_json::from_str(&updated).unwrap();
    assert_eq!(flow["timeout_secs"], 90);

    let deleted = tell(&daemon, "delete -p udp -u UNREPLIED -o save", 0);
    assert!(lines(&deleted) == 2 && deleted.starts_with("-D "), "{deleted}");
    assert_eq!(tell(&daemon, "delete -p udp -u UNREPLIED", 1), "", "nothing is left of them");
    assert_eq!(tell(&daemon, "update -p udp --dport 123 -m 1", 1), "");
    assert_eq!(tell(&daemon, "count", 0), "2\n");
    assert!(tell(&daemon, "delete", 2).contains("dpdk-conntrack flush"));
    assert!(tell(&daemon, "update -p udp", 2).contains("--mark"));
    assert!(tell(&daemon, "list -s 10.0.0.1 -d 2001:db8::1", 2).contains("mismatched address family"));
    assert!(tell(&daemon, "list --mask-src 255.0.0.0", 2).contains("--src"));
    tell(&daemon, "flush", 0);
    assert_eq!(tell(&daemon, "count", 0), "0\n");
}

#[test]
fn every_flow_of_a_table_of_many_pages_is_changed_and_deleted_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap().to_owned();
    let frames: Vec<_> = (1..=10_000).map(|port| udp(1, 2, port, 53)).collect();
    write_pcap(&folder.path().join("in.pcap"), &frames);
    let text = format!(
        "mode = \"mirror\"\n[[port]]\nname = \"m\"\ndevice = \"net_pcap0,rx_pcap={dir}/in.pcap\"\n[eal]\nhugepages = false\n\
         [worker]\nidle = \"sleep\"\n[control]\nsocket = \"{dir}/control.sock\"\nhttp = \"off\"\n\
         [timeouts]\nudp.unreplied = \"1h\"\n"
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let daemon = Daemon::start_in(folder);
    daemon.wait("/v1/stats", |stats| stats["entries"] == 10_000);
    assert_eq!(lines(&tell(&daemon, "update -p udp -m 1/0", 0)), 10_000);
    assert_eq!(tell(&daemon, "count -m 1", 0), "10000\n", "a mark that is XORed in twice is gone");
    assert_eq!(lines(&tell(&daemon, "list --sport 7777", 0)), 1);
    let deleted = tell(&daemon, "delete -s 198.18.0.1 -o conntrack", 0);
    let mut ports: Vec<_> = deleted.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((lines(&deleted), ports.len()), (10_000, 10_000));
    assert_eq!(tell(&daemon, "count", 0), "0\n");
}

#[test]
fn a_policy_row_marks_what_begins_by_it() {
    let daemon = daemon(
        "[[policy]]\nfrom = \"inside\"\nmark = 0xc0de\naction = \"accept\"\n[[policy]]\nstate = [\"established\"]\naction = \"accept\"",
    );
    assert_eq!(tell(&daemon, "count -m 0xc0de", 0), "4\n");
    let shown = daemon.get("/v1/config");
    assert!(shown.contains("mark = 49374"), "{shown}");
}

#[test]
fn forms_for_people_and_programs() {
    let daemon = daemon("");
    let table = tell(&daemon, "list -p udp -o table", 0);
    assert!(table.starts_with("PROTO") && lines(&table) == 4 && table.contains("198.18.0.1:1000"), "{table}");
    let xml = tell(&daemon, "list -o xml", 0);
    assert!(xml.starts_with("<?xml") && xml.ends_with("</conntrack>\n") && lines(&xml) == 7, "{xml}");
    let flows: serde_json::Value = serde_json::from_str(&tell(&daemon, "list -o json", 0)).unwrap();
    assert_eq!(flows.as_array().map(Vec::len), Some(4));
    let since = tell(&daemon, "list -p udp --dport 53 -o ktimestamp", 0);
    assert!(since.contains(" delta-time=") && since.contains(" [start="), "{since}");

    let summary = tell(&daemon, "summary", 0);
    let row: Vec<_> =
        summary.lines().find(|line| line.starts_with("total")).unwrap().split_whitespace().collect();
    assert_eq!(row, ["total", "0", "3", "0", "0", "0", "0", "0", "1", "4"], "{summary}");
    let workers = tell(&daemon, "workers --interval 200ms", 0);
    assert!(lines(&workers) == 2 && workers.contains("rx Mbit/s"), "{workers}");
    let workers: serde_json::Value = serde_json::from_str(&tell(&daemon, "workers -o json", 0)).unwrap();
    assert_eq!(workers[0]["rx_packets"], 6);
}

#[test]
fn a_file_of_sysctls_is_loaded_whole_or_not_at_all() {
    let daemon = daemon("");
    let file = daemon.folder.path().join("sysctl.conf");
    let load = format!("timeout load {}", file.display());
    std::fs::write(
        &file,
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait = 60\nnet.ipv4.netfilter.ip_ct_tcp_timeout_last_ack = 1500\n\
         net.netfilter.nf_conntrack_tcp_be_liberal = 1\nnet.netfilter.nf_conntrack_count = 3\n",
    )
    .unwrap();
    let said = tell(&daemon, &load, 0);
    let mut changes: Vec<_> = said.lines().collect();
    changes.sort_unstable();
    assert_eq!(
        changes,
        [
            "tcp.be_liberal: false -> true",
            "timeouts.tcp.close_wait: \"12h\" -> \"1m\"",
            "timeouts.tcp.last_ack: \"30s\" -> \"15s\""
        ]
    );
    let again = ask(&daemon, &load);
    let note = String::from_utf8_lossy(&again.stderr);
    assert!(
        again.stdout.is_empty() && note.contains("line 4: ") && note.contains("3 settings read, 0 changed"),
        "{note}"
    );

    let config = daemon.folder.path().join("config.toml");
    let diff = tell(&daemon, &format!("config diff --running --config {}", config.display()), 0);
    assert!(
        diff.contains("- tcp.be_liberal = true\n+ tcp.be_liberal = false\n") && lines(&diff) == 6,
        "{diff}"
    );
    let diff = tell(&daemon, &format!("config diff --config {}", config.display()), 0);
    assert!(
        diff.contains("- timeouts.udp.unreplied = \"30s\"\n+ timeouts.udp.unreplied = \"1h\"\n"),
        "{diff}"
    );

    std::fs::write(
        &file,
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait = 70\nnet.netfilter.nf_conntrack_tcp_timeout_close = x\n",
    )
    .unwrap();
    let said = tell(&daemon, &load, 2);
    assert!(said.contains("line 2: ") && said.contains("nothing was changed"), "{said}");
    let (status, body) = support::request(
        &daemon.socket(),
        "PUT",
        "/v1/sysctls",
        r#"{"settings":[{"name":"nf_conntrack_tcp_timeout_close","value":"77"},{"name":"nf_conntrack_max","value":"9"}]}"#,
    )
    .unwrap();
    assert!(status == 400 && body.contains("nf_conntrack_max: "), "{body}");
    let rows = daemon.json("/v1/timeouts");
    for (name, seconds) in [("tcp.close_wait", 60.0), ("tcp.last_ack", 15.0), ("tcp.close", 10.0)] {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(row["seconds"], seconds, "{name}");
    }
}

#[test]
fn what_a_kernel_says_of_itself_is_loaded_and_an_end_of_counts_is_told() {
    let daemon = daemon("");
    assert!(tell(&daemon, "list -p udp -o conntrack", 0).contains(" packets="));
    // As they are without the test's own.
    tell(&daemon, "timeout set udp.stream 3m", 0);
    tell(&daemon, "timeout set udp.unreplied 30s", 0);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/samples/sysctl.txt");
    let loaded = ask(&daemon, &format!("timeout load {sample}"));
    let (out, err) = (String::from_utf8_lossy(&loaded.stdout), String::from_utf8_lossy(&loaded.stderr));
    assert!(out.contains("tracking.accounting: true -> false\n"), "{out}");
    assert!(err.contains("nf_conntrack_acct is 0 there: packets and bytes are no longer counted"), "{err}");
    // docs/commands.md shows this very file, from standard input.
    let shown = include_str!("../docs/commands.md");
    let [passed, .., note, summary] = err.lines().collect::<Vec<_>>()[..] else { panic!("{err}") };
    for part in [&*out, &passed.replace(sample, "-"), &note.replace(sample, "-"), summary] {
        assert!(shown.contains(part), "docs/commands.md lacks:\n{part}");
    }
    assert!(!tell(&daemon, "list -p udp -o conntrack", 0).contains(" packets="), "as it said");
    let again = ask(&daemon, &format!("timeout load {sample}"));
    let err = String::from_utf8_lossy(&again.stderr);
    assert!(!err.contains("no longer counted"), "nothing changed this time: {err}");
}

#[test]
fn who_asks_nobody_is_told_how_to_start_the_appliance() {
    for line in ["list", "-L", "count", "-D", "-E", "summary", "workers", "update -m 1", "flush"] {
        let mut command = Command::new(PROGRAM);
        let done =
            command.args(line.split(' ')).args(["--socket", "/nowhere/control.sock"]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        // conntrack ends with 1 whenever something failed.
        let code = if line.starts_with('-') { 1 } else { 3 };
        assert_eq!(done.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains("dpdk-conntrack run"), "{line}: {said}");
    }
}

#[test]
fn completions_and_man_pages_are_ones_that_their_readers_take() {
    let script = Command::new(PROGRAM).args(["completions", "bash"]).output().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("completions");
    std::fs::write(&path, &script.stdout).unwrap();
    let asked = "COMP_WORDS=(dpdk-conntrack summ) COMP_CWORD=1; $(complete -p dpdk-conntrack | sed 's/.*-F \\([^ ]*\\).*/\\1/') dpdk-conntrack summ dpdk-conntrack; echo $COMPREPLY";
    let bash =
        Command::new("bash").args(["-c", &format!("source {}; {asked}", path.display())]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&bash.stdout).trim(),
        "summary",
        "{}",
        String::from_utf8_lossy(&bash.stderr)
    );

    let man = Command::new(PROGRAM).arg("man").arg(folder.path()).stderr(Stdio::inherit()).status().unwrap();
    assert!(man.success());
    let page = std::fs::read_to_string(folder.path().join("dpdk-conntrack-list.1")).unwrap();
    for word in [".TH", "\\-\\-dport", "WHICH FLOWS", "ktimestamp"] {
        assert!(page.contains(word), "{word} is missing in {page}");
    }
    for name in [
        "dpdk-conntrack.1",
        "dpdk-conntrack-config-diff.1",
        "dpdk-conntrack-timeout-load.1",
        "dpdk-conntrack-letters.1",
    ] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let nowhere = Command::new(PROGRAM).args(["man", "/nowhere"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
}
