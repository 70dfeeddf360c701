//! The program as a service: what systemd hears from it on a real notify socket, and what it may still do once it runs.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE, command};

const NET_ADMIN: u64 = 1 << 12;

/// A folder with a configuration: two ports, and the socket in a folder that does not exist yet.
fn folder(devices: [&str; 2]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let dir = folder.path().display();
    let [inside, outside] = devices;
    let text = format!(
        "workers = 1\n[[port]]\nname = \"lan\"\ndevice = \"{inside}\"\nrole = \"inside\"\n[[port]]\nname = \"wan\"\n\
         device = \"{outside}\"\nrole = \"outside\"\n[eal]\nhugepages = false\n[worker]\nidle = \"sleep\"\n\
         [control]\nsocket = \"{dir}/run/control.sock\"\nhttp = \"off\"\n"
    );
    fs::write(folder.path().join("config.toml"), text).unwrap();
    folder
}

const NULLS: [&str; 2] = ["net_null0,no-rx=1", "net_null1,no-rx=1"];

/// systemd's end of the notify socket.
struct Manager {
    socket: UnixDatagram,
    /// Of messages that came, what was not looked at.
    unread: VecDeque<String>,
}

impl Manager {
    fn new(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { socket, unread: VecDeque::new() }
    }

    /// The next line; `None` where none came for a while.
    fn next(&mut self) -> Option<String> {
        if self.unread.is_empty() {
            let mut bytes = [0; 4096];
            let len = self.socket.recv(&mut bytes).ok()?;
            self.unread.extend(String::from_utf8_lossy(&bytes[..len]).lines().map(str::to_owned));
        }
        self.unread.pop_front()
    }

    /// The lines up to one that begins so, that one included.
    #[track_caller]
    fn until(&mut self, start: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut lines = Vec::new();
        while begun.elapsed() < PATIENCE {
            lines.extend(self.next());
            if lines.last().is_some_and(|line| line.starts_with(start)) {
                return lines;
            }
        }
        panic!("no line begins with {start}: {lines:?}");
    }
}

/// One thread alone stands still until this is dropped.
struct Stalled(i32);

impl Stalled {
    fn stall(thread: i32) -> Self {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: no address is handed over; the thread is one of a child of ours.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, none, none), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0);
            assert_eq!(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL), thread);
        }
        Self(thread)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; the thread goes on.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

/// The fields of each thread's status, by its name and number.
fn threads(process: u32) -> BTreeMap<String, BTreeMap<String, String>> {
    let status = |folder: fs::DirEntry| {
        let text = fs::read_to_string(folder.path().join("status")).unwrap();
        let fields: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        (format!("{} {}", fields["Name"], fields["Pid"]), fields)
    };
    fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|entry| status(entry.unwrap())).collect()
}

#[track_caller]
fn assert_left(process: u32, capabilities: u64, uid: u32) {
    let threads = threads(process);
    assert!(threads.len() >= 3, "DPDK has threads of its own: {:?}", threads.keys());
    for (name, fields) in &threads {
        let sets = ["CapPrm", "CapEff", "CapBnd"].map(|set| u64::from_str_radix(&fields[set], 16).unwrap());
        let [permitted, effective, bounding] = sets;
        assert!(permitted & !capabilities == 0 && effective == permitted, "{name}: {fields:?}");
        assert_eq!(bounding & !capabilities, 0, "{name}: {fields:?}");
        assert_eq!(
            (fields["CapInh"].as_str(), fields["NoNewPrivs"].as_str()),
            ("0000000000000000", "1"),
            "{name}"
        );
        let ids: Vec<u32> = fields["Uid"].split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(ids, [uid; 4], "{name}");
    }
    let main = threads.values().find(|fields| fields["Pid"] == process.to_string()).unwrap();
    assert_eq!(u64::from_str_radix(&main["CapEff"], 16).unwrap(), capabilities, "what is needed is there");
}

fn started(folder: tempfile::TempDir, words: &[&str]) -> Daemon {
    let child = command(folder.path()).args(words).spawn().unwrap();
    let daemon = Daemon { child, folder };
    await_answer(&daemon);
    daemon
}

#[track_caller]
fn await_answer(daemon: &Daemon) {
    let socket = daemon.folder.path().join("run/control.sock");
    let begun = Instant::now();
    while !support::request(&socket, "GET", "/v1/info", "").is_ok_and(|(status, _)| status == 200) {
        assert!(begun.elapsed() < PATIENCE, "does not answer: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn systemd_hears_ready_once_workers_turn_and_is_fed_only_while_they_do() {
    let folder = folder(NULLS);
    let mut manager = Manager::new(folder.path());
    let spawned = Instant::now();
    let child = command(folder.path())
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .env("WATCHDOG_USEC", "10000000")
        .spawn()
        .unwrap();
    let mut daemon = Daemon { child, folder };
    let mut said = manager.until("READY=1");
    // Whoever waits for the unit may ask at once.
    let socket = daemon.folder.path().join("run/control.sock");
    assert_eq!(support::request(&socket, "GET", "/v1/info", "").unwrap().0, 200);
    said.extend(manager.until("STATUS=0 of 262144 connections; lan up; wan up"));
    let fed = |said: &[String]| said.iter().filter(|line| *line == "WATCHDOG=1").count();
    while fed(&said) < 3 {
        said.extend(manager.until("WATCHDOG=1"));
    }
    // A look every second, the first one a while after the start.
    let seconds = spawned.elapsed().as_secs_f64();
    assert!(fed(&said) as f64 <= seconds + 1.0, "fed {} times in {seconds} s", fed(&said));

    let worker =
        threads(daemon.child.id()).into_values().find(|fields| fields["Name"] == "worker-0").unwrap();
    let stalled = Stalled::stall(worker["Pid"].parse().unwrap());
    // One look may be under way.
    manager.until("STATUS=0 of 262144 connections; worker 0 does not answer");
    for _ in 0..2 {
        let while_stalled = manager.until("STATUS=");
        assert_eq!(fed(&while_stalled), 0, "fed although a worker hangs: {while_stalled:?}");
    }
    drop(stalled);
    manager.until("WATCHDOG=1");

    rustix::process::kill_process(
        rustix::process::Pid::from_child(&daemon.child),
        rustix::process::Signal::HUP,
    )
    .unwrap();
    manager.until("RELOADING=1");
    manager.until("READY=1");

    assert_eq!(daemon.stop(), Some(0));
    let last: Vec<_> = std::iter::from_fn(|| manager.next()).collect();
    assert!(last.contains(&"STOPPING=1".to_owned()), "{last:?}");
    assert!(!last.contains(&"READY=1".to_owned()), "it was ready before: {last:?}");
}

#[test]
fn on_devices_without_the_kernel_no_thread_keeps_a_capability() {
    let daemon = started(folder(NULLS), &[]);
    assert_left(daemon.child.id(), 0, 0);
}

#[test]
fn on_tap_devices_only_net_admin_is_kept() {
    let daemon = started(folder(["net_tap0,iface=svctap0", "net_tap1,iface=svctap1"]), &[]);
    assert_left(daemon.child.id(), NET_ADMIN, 0);
}

#[test]
fn with_a_user_nothing_of_it_is_root_any_more_and_the_socket_is_that_users() {
    let nobody = 65534;
    let mut daemon =
        started(folder(["net_tap0,iface=svctap2", "net_tap1,iface=svctap3"]), &["--user", "nobody"]);
    assert_left(daemon.child.id(), NET_ADMIN, nobody);
    let groups: Vec<String> =
        threads(daemon.child.id()).into_values().map(|fields| fields["Groups"].clone()).collect();
    assert!(groups.iter().all(|groups| groups == "65534"), "root's groups are gone: {groups:?}");
    let socket = daemon.folder.path().join("run/control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().uid(), nobody);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!socket.exists(), "its owner may take the socket away");
}

/// A folder with flow records and a token in it, which `owner` may write.
fn with_files(owner: u32) -> tempfile::TempDir {
    let folder = folder(NULLS);
    let files = folder.path().join("files");
    fs::create_dir(&files).unwrap();
    std::os::unix::fs::chown(&files, Some(owner), Some(owner)).unwrap();
    let config = folder.path().join("config.toml");
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = fs::read_to_string(&config).unwrap().replace("\"off\"", &format!("\"{http}\""));
    let files = files.display();
    let more = format!("token_file = \"{files}/token\"\n[export.eve]\npath = \"{files}/eve.json\"\n");
    fs::write(config, text + &more).unwrap();
    folder
}

#[test]
fn files_that_are_made_for_a_user_are_that_users_also_after_a_rotation_and_a_restart() {
    let nobody = 65534;
    let mut daemon = started(with_files(nobody), &["--user", "nobody"]);
    let file = |name: &str| daemon.folder.path().join("files").join(name);
    let (eve, old, token) = (file("eve.json"), file("eve.json.1"), file("token"));
    let owner_and_mode = |path: &Path| {
        let found = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (found.uid(), found.gid(), found.mode() & 0o777)
    };
    assert_eq!(owner_and_mode(&eve), (nobody, nobody, 0o640));
    assert_eq!(owner_and_mode(&token), (nobody, nobody, 0o600));

    fs::rename(&eve, old).unwrap();
    let begun = Instant::now();
    while !eve.exists() {
        assert!(begun.elapsed() < PATIENCE, "it was not made again: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(owner_and_mode(&eve), (nobody, nobody, 0o640));

    let told = fs::read_to_string(&token).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.child = command(daemon.folder.path()).args(["--user", "nobody"]).spawn().unwrap();
    await_answer(&daemon);
    assert_eq!(fs::read_to_string(&token).unwrap(), told);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_folder_that_the_user_may_not_write_is_told_at_the_start_and_not_at_the_first_rotation() {
    let folder = with_files(0);
    let child = command(folder.path()).args(["--user", "nobody"]).spawn().unwrap();
    let mut daemon = Daemon { child, folder };
    let begun = Instant::now();
    let done = loop {
        match daemon.child.try_wait().unwrap() {
            Some(done) => break done,
            None => assert!(begun.elapsed() < PATIENCE, "it runs: {}", daemon.log()),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let log = daemon.log();
    assert_eq!(done.code(), Some(1), "{log}");
    assert!(log.contains("eve.json") && log.contains("user 65534") && !log.contains("ready in"), "{log}");
}

#[test]
fn an_unknown_user_is_refused_before_anything_starts() {
    let folder = folder(NULLS);
    let done = command(folder.path()).args(["--user", "no-such-user-here"]).status().unwrap();
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(done.code(), Some(1), "{log}");
    assert!(log.contains("adduser --system") && !log.contains("ready in"), "{log}");
}
