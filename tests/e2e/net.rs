//! Network namespaces: makes and removes them, opens sockets in them, filters and counts what reaches them.
//! It knows nothing of the appliance.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// How long anything that should happen at once may take. A virtual machine's cores may stand still for seconds at a time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);

static MADE: AtomicU32 = AtomicU32::new(0);

/// A short name that no other process and no other test has; with two more letters still an interface name.
pub(crate) fn unique() -> String {
    format!("cte{}n{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Ends the test with the reason where it has no chance, so that it is neither skipped nor blamed on the appliance.
pub(crate) fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces and tap devices: run it as root (scripts/test does)"
    );
}

/// Looks until there is what is waited for. A look that does not find it says what there is instead, which is told where it
/// never comes.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => {
                assert!(begun.elapsed() < SOON, "waited {SOON:?} for {what}; there is\n{instead}")
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs a command and returns what it printed; it must succeed.
pub(crate) fn run(words: &[&str]) -> String {
    let done = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: scripts/setup installs it", words[0]));
    assert!(
        done.status.success(),
        "`{}` failed: {}{}",
        words.join(" "),
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A network namespace, removed with everything in it.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(name: String) -> Self {
        run(&["ip", "netns", "add", &name]);
        let made = Self { name };
        made.ip(&["link", "set", "lo", "up"]);
        made
    }

    pub(crate) fn ip(&self, words: &[&str]) -> String {
        run(&[&["ip", "-n", &self.name], words].concat())
    }

    /// A command inside the namespace; it must succeed.
    pub(crate) fn exec(&self, words: &[&str]) -> String {
        run(&[&["ip", "netns", "exec", &self.name], words].concat())
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(
                        std::os::fd::AsFd::as_fd(&file),
                        Some(LinkNameSpaceType::Network),
                    )
                    .expect("root may enter a namespace");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        self.enter(|| TcpListener::bind(address)).expect("the address is free")
    }

    /// A TCP connection that is there, within [`SOON`].
    pub(crate) fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.enter(|| TcpStream::connect_timeout(&to, SOON)).expect("the server answers");
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A TCP connection that has been begun: the SYN is on its way.
    pub(crate) fn begin_connect(&self, to: SocketAddr) -> TcpStream {
        self.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let begun = socket.connect(&SockAddr::from(to)).expect_err("a handshake takes time");
            assert_eq!(begun.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()), "{begun}");
            socket.into()
        })
    }

    pub(crate) fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.enter(|| UdpSocket::bind(address)).expect("the address is free");
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    /// Drops what matches, an nftables expression, on its way in; replaces an earlier filter.
    pub(crate) fn drop_incoming(&self, matching: &str) {
        self.let_in();
        self.nft(&format!(
            "table inet filter {{ chain arrivals {{ type filter hook prerouting priority -300; {matching} drop; }}; }}"
        ));
    }

    /// Takes the filter of [`Namespace::drop_incoming`] away.
    pub(crate) fn let_in(&self) {
        self.nft("table inet filter; delete table inet filter");
    }

    /// Counts what matches on its way in, from now on.
    pub(crate) fn count_incoming(&self, matching: &str) {
        self.nft(&format!(
            "table inet count {{ chain arrivals {{ type filter hook prerouting priority -310; {matching} counter; }}; }}"
        ));
    }

    /// Packets that matched since [`Namespace::count_incoming`].
    pub(crate) fn counted(&self) -> u64 {
        let listing = self.exec(&["nft", "list", "table", "inet", "count"]);
        let number = listing.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        number.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no counter in {listing}"))
    }

    /// Has the kernel ask a minute long where a neighbour is, not three seconds: one that is asked for through the appliance
    /// answers when that is let run.
    pub(crate) fn ask_long_for_neighbours(&self, interface: &str) {
        self.enter(|| {
            for (family, kind) in [("ipv4", "mcast"), ("ipv4", "ucast"), ("ipv6", "mcast"), ("ipv6", "ucast")]
            {
                let file = format!("/proc/sys/net/{family}/neigh/{interface}/{kind}_solicit");
                std::fs::write(&file, "60").unwrap_or_else(|error| panic!("{file}: {error}"));
            }
        });
    }

    fn nft(&self, ruleset: &str) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("scripts/setup installs ip");
        nft.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refused: {ruleset}");
    }

    /// The hardware address of the namespace's interface.
    pub(crate) fn mac(&self, interface: &str) -> String {
        let shown = self.ip(&["-o", "link", "show", interface]);
        shown
            .split("link/ether ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .expect("an address")
            .to_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
