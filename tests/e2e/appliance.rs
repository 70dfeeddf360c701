//! The built program with its ports: starts it, asks it through its own subcommands, ends it.
//! A [`Pair`] is what most tests use: a host inside, a host outside, the appliance between them.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use crate::net::{Namespace, SOON, need_root, unique, until};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_dpdk-conntrack");

// RFC 2544 and RFC 5180 keep these for benchmarks: they are nobody's network.
pub(crate) const INSIDE: &str = "198.18.0.1";
pub(crate) const OUTSIDE: &str = "198.18.0.2";
pub(crate) const INSIDE6: &str = "2001:2::1";
pub(crate) const OUTSIDE6: &str = "2001:2::2";

/// What a client says where a worker stood still; after the last one of them it may also be the appliance that is gone, and
/// then the next try says so.
const UNANSWERED: [&str; 3] =
    ["did not answer within", "commands waiting: try again", "the answer broke off"];

/// Made by the appliance in its folder.
const TOKEN: &str = "token";

/// One appliance at a time: each has a core to itself, and two would starve the traffic between them.
static CORE: Mutex<()> = Mutex::new(());

/// A running appliance in a namespace of its own.
pub(crate) struct Appliance {
    child: Child,
    home: PathBuf,
    space: Namespace,
    _core: MutexGuard<'static, ()>,
}

impl Appliance {
    /// Starts with this configuration, to which the control socket and the memory are added.
    pub(crate) fn start(config: &str) -> Self {
        // What most tests ask is one worker's, whatever the machine would have.
        Self::start_after(config, |_| ())
    }

    /// As [`Appliance::start`], once `prepare` has made what the namespace needs.
    pub(crate) fn start_after(config: &str, prepare: impl FnOnce(&Namespace)) -> Self {
        Self::launch(&format!("workers = 1\n{config}"), "", "", prepare)
    }

    /// As [`Appliance::start`], with a number of workers in `config` and these keys for them.
    pub(crate) fn start_with(config: &str, worker: &str) -> Self {
        Self::launch(config, worker, "", |_| ())
    }

    /// As [`Appliance::start`], with these keys for its doors.
    #[allow(dead_code)] // The page's test alone looks at doors.
    pub(crate) fn start_behind(config: &str, control: &str) -> Self {
        Self::launch(&format!("workers = 1\n{config}"), "", control, |_| ())
    }

    fn launch(config: &str, worker: &str, control: &str, prepare: impl FnOnce(&Namespace)) -> Self {
        need_root();
        let core = CORE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let name = unique();
        let home = std::env::temp_dir().join(&name);
        std::fs::create_dir(&home).unwrap();
        let (socket, token) = (home.join("control.sock"), home.join(TOKEN));
        let config = format!(
            "{config}\n[eal]\nhugepages = false\n[worker]\nidle = \"sleep\"\n{worker}\n[control]\nsocket = {socket:?}\nhttp = \"127.0.0.1:9477\"\ntoken_file = {token:?}\n{control}\n"
        );
        std::fs::write(home.join("config.toml"), &config).unwrap();
        let space = Namespace::new(name);
        prepare(&space);
        let log = std::fs::File::create(home.join("log")).unwrap();
        let child = Command::new("ip")
            // It must not outlive the test, however that ends.
            .args([
                "netns",
                "exec",
                &space.name,
                "setpriv",
                "--pdeathsig",
                "KILL",
                PROGRAM,
                "run",
                "--config",
            ])
            .arg(home.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("scripts/setup installs ip");
        let mut appliance = Self { child, home, space, _core: core };
        let begun = Instant::now();
        while !appliance.ask(&["count"]).status.success() {
            let ended = appliance.child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < SOON,
                "the appliance did not start with\n{config}\nits words:\n{}",
                appliance.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        appliance
    }

    /// Where it and its interfaces are.
    pub(crate) fn space(&self) -> &Namespace {
        &self.space
    }

    /// Memory that it occupies.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a running process has memory");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// All that it printed until now.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Moves a port's tap device to where its host lives.
    pub(crate) fn give(&self, interface: &str, to: &Namespace) {
        self.space.ip(&["link", "set", interface, "netns", &to.name]);
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words).arg("--socket").arg(self.home.join("control.sock")).stdin(Stdio::null());
        command
    }

    /// A subcommand and what came of it.
    pub(crate) fn ask(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program is built")
    }

    /// A subcommand that must succeed; returns what it printed. It is repeated while a worker that the machine lets stand
    /// still does not answer, so it must be one that may be done twice.
    pub(crate) fn tell(&self, words: &[&str]) -> String {
        let command = format!("`{}`", words.join(" "));
        until(&command, || {
            let done = self.ask(words);
            let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
            if done.status.success() {
                return Ok(out.into_owned());
            }
            assert!(UNANSWERED.iter().any(|said| err.contains(said)), "{command} failed: {out}{err}");
            Err(err.into_owned())
        })
    }

    /// The table, a line each.
    pub(crate) fn list(&self) -> Vec<Line> {
        self.tell(&["list", "-o", "classic"]).lines().map(Line::parse).collect()
    }

    /// The line of the flow that `is` knows, once `is` knows one. What it stands for is told where it never comes.
    pub(crate) fn await_line(&self, what: &str, is: impl Fn(&Line) -> bool) -> Line {
        self.await_table(what, |lines| lines.iter().find(|line| is(line)).cloned())
    }

    /// Waits until no line is one that `is` knows.
    pub(crate) fn await_gone(&self, what: &str, is: impl Fn(&Line) -> bool) {
        self.await_table(what, |lines| (!lines.iter().any(&is)).then_some(()));
    }

    fn await_table<T>(&self, what: &str, found: impl Fn(&[Line]) -> Option<T>) -> T {
        until(what, || {
            let lines = self.list();
            let table = || lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n");
            found(&lines).ok_or_else(|| format!("the table with\n{}", table()))
        })
    }

    /// All counters, as `stats -o json` gives them.
    pub(crate) fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.tell(&["stats", "-o", "json"])).unwrap()
    }

    /// The counters of the one worker.
    pub(crate) fn worker_stats(&self) -> serde_json::Value {
        self.stats()["workers"][0].clone()
    }

    /// The one worker's counters once `is` holds for them.
    pub(crate) fn await_stats(
        &self,
        what: &str,
        is: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        self.await_all_stats(what, |stats| is(&stats["workers"][0]))["workers"][0].clone()
    }

    /// All counters once `is` holds for them: they are copied out now and then, not for each question.
    pub(crate) fn await_all_stats(
        &self,
        what: &str,
        is: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        until(what, || {
            let stats = self.stats();
            if is(&stats) { Ok(stats) } else { Err(format!("{stats:#}")) }
        })
    }

    /// What a web client must know to change anything.
    #[allow(dead_code)] // The page's test alone writes over TCP.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.home.join(TOKEN)).unwrap().trim().to_owned()
    }

    /// What a web client on the appliance gets.
    pub(crate) fn http(&self, path: &str) -> String {
        self.space.exec(&["curl", "-sf", "--max-time", "60", &format!("http://127.0.0.1:9477{path}")])
    }

    /// Follows packets with these words for `trace`; the appliance has said that it does.
    pub(crate) fn trace(&self, words: &[&str]) -> Events {
        let words = [&["trace"], words].concat();
        let mut trace = self.follow(&words);
        until("the trace's begin", || {
            if self.log().contains("packets are followed") {
                return Ok(());
            }
            // As in `tell`.
            if trace.child.try_wait().unwrap().is_some() {
                trace = self.follow(&words);
            }
            Err(self.log())
        });
        trace
    }

    /// A subcommand that prints as things happen.
    pub(crate) fn follow(&self, words: &[&str]) -> Events {
        let mut child = self.command(words).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Events { child, receiver }
    }

    /// Ends it as an operator does and returns how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        // `ip` and `setpriv` have become the program: the number is the program's.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < SOON, "SIGTERM did not end it in {SOON:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn socket_exists(&self) -> bool {
        self.home.join("control.sock").exists()
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the appliance's own words:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// A running `events`.
pub(crate) struct Events {
    child: Child,
    receiver: mpsc::Receiver<String>,
}

impl Events {
    /// The next line that contains all of `words`, or a failure that shows what came instead.
    pub(crate) fn await_line(&self, words: &[&str]) -> String {
        let mut seen = Vec::new();
        let begun = Instant::now();
        loop {
            match self.receiver.recv_timeout(SOON.saturating_sub(begun.elapsed())) {
                Ok(line) if words.iter().all(|word| line.contains(word)) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no event with {words:?}; there were\n{}", seen.join("\n")),
            }
        }
    }
}

impl Events {
    /// What it prints in so long.
    pub(crate) fn read_for(&self, span: Duration) -> String {
        let (mut read, begun) = (String::new(), Instant::now());
        while let Ok(line) = self.receiver.recv_timeout(span.saturating_sub(begun.elapsed())) {
            read += &line;
            read.push('\n');
        }
        read
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of `list -o classic`, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) proto: String,
    pub(crate) timeout: u32,
    /// Empty for protocols without states.
    pub(crate) state: String,
    pub(crate) unreplied: bool,
    pub(crate) assured: bool,
}

impl Line {
    fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let proto = words.next().unwrap_or_default().to_owned();
        let timeout = words.nth(1).and_then(|word| word.parse().ok());
        let state = words.next().filter(|word| !word.contains('=')).unwrap_or_default().to_owned();
        Self {
            timeout: timeout.unwrap_or_else(|| panic!("the third word of a line is seconds: {text}")),
            unreplied: text.contains(" [UNREPLIED] "),
            assured: text.contains(" [ASSURED] "),
            text: text.to_owned(),
            proto,
            state,
        }
    }

    /// Whether what it has left is what is left of so many seconds that began to run after `begun`.
    pub(crate) fn has_left(&self, seconds: u32, begun: Instant) -> bool {
        // What is printed are whole seconds, and so is this.
        let gone = begun.elapsed().as_secs() + 2;
        self.timeout <= seconds && u64::from(self.timeout) + gone >= u64::from(seconds)
    }

    /// Whether the first packet went to this port.
    pub(crate) fn to_port(&self, port: u16) -> bool {
        self.text.split_whitespace().find_map(|word| word.strip_prefix("dport=")) == Some(&port.to_string())
    }

    /// Whether the first packet came from this port.
    pub(crate) fn opened_from(&self, port: u16) -> bool {
        self.text.split_whitespace().find_map(|word| word.strip_prefix("sport=")) == Some(&port.to_string())
    }

    pub(crate) fn in_state(&self, port: u16, state: &str) -> bool {
        self.to_port(port) && self.state == state
    }
}

/// `src=A dst=B sport=C dport=D`, one direction of a line.
pub(crate) fn tuple(from: SocketAddr, to: SocketAddr) -> String {
    format!("src={} dst={} sport={} dport={}", from.ip(), to.ip(), from.port(), to.port())
}

/// A host inside and a host outside, joined by the appliance inline.
pub(crate) struct Pair {
    pub(crate) appliance: Appliance,
    pub(crate) inside: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) inside_interface: String,
    pub(crate) outside_interface: String,
}

impl Pair {
    /// With the shipped policy and defaults, and `more` configuration: keys before any table, then tables.
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(&format!("workers = 1\n{more}"), "", "")
    }

    /// With a number of workers in `more`, keys for each port, and keys for the workers.
    pub(crate) fn start_with(more: &str, port: &str, worker: &str) -> Self {
        need_root();
        let name = unique();
        let (near, far) = (format!("{name}i"), format!("{name}o"));
        let ports = format!(
            r#"
[[port]]
name = "lan"
device = "net_tap0,iface={near}"
role = "inside"
peer = "wan"
{port}
[[port]]
name = "wan"
device = "net_tap1,iface={far}"
role = "outside"
peer = "lan"
{port}
"#
        );
        let appliance = Appliance::start_with(&format!("mode = \"inline\"\n{more}\n{ports}"), worker);
        let hosts = [(&near, INSIDE, INSIDE6), (&far, OUTSIDE, OUTSIDE6)].map(|(interface, v4, v6)| {
            let host = Namespace::new(interface.clone());
            appliance.give(interface, &host);
            bring_up(&host, interface, v4, v6);
            host
        });
        let [inside, outside] = hosts;
        Self { appliance, inside, outside, inside_interface: near, outside_interface: far }
    }

    /// Follows `events`: the lines of all that happens from now on, behind those of some datagrams.
    pub(crate) fn events(&self) -> Events {
        let events = self.appliance.follow(&["events"]);
        // It is there once it tells of one of these.
        until("the first event", || {
            let socket = self.inside.udp(&at(INSIDE, 0).to_string());
            socket.send_to(b"x", at(OUTSIDE, 9)).unwrap();
            let read = events.read_for(Duration::from_millis(100));
            if read.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        });
        events
    }
}

/// Gives an interface its addresses. Without duplicate address detection: nobody else is there, and it takes a second.
pub(crate) fn bring_up(host: &Namespace, interface: &str, v4: &str, v6: &str) {
    host.ip(&["addr", "add", &format!("{v4}/24"), "dev", interface]);
    host.ip(&["addr", "add", &format!("{v6}/64"), "dev", interface, "nodad"]);
    host.ask_long_for_neighbours(interface);
    host.ip(&["link", "set", interface, "up"]);
}

/// A socket address from its parts.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}
