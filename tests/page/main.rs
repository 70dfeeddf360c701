//! The web page in a real browser: the built appliance between namespaces, real connections through it, and Chromium on
//! the appliance's own loopback. What a person does there is in page.mjs, and in guarded.mjs where looking takes the token;
//! the traffic that moves the page is made here.
//! Needs root, for the namespaces and the tap devices, and what scripts/setup installs.

#[path = "../e2e/appliance.rs"]
#[allow(dead_code)]
mod appliance;
#[path = "../e2e/net.rs"]
#[allow(dead_code)]
mod net;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use appliance::{Appliance, INSIDE, OUTSIDE, Pair, at};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Between two rounds of traffic.
const ROUND: Duration = Duration::from_millis(50);

/// A TCP header with a checksum that cannot be right: INVALID.
const BROKEN: [u8; 20] = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0xde, 0xad, 0, 0];

#[test]
fn what_a_person_sees_and_does_on_the_page() {
    let pair = Pair::start("");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| traffic(&pair, &done));
        // Its end is the traffic's end, however it ends.
        let told = browse(&pair.appliance, "page.mjs", &[INSIDE, OUTSIDE]);
        done.store(true, Ordering::Relaxed);
        told.tell();
    });
    assert_changed(&pair.appliance);
}

#[test]
fn where_looking_takes_the_token_the_browser_asks_for_it_once() {
    let port = "mode = \"mirror\"\n[[port]]\nname = \"tap\"\ndevice = \"net_null0,no-rx=1\"\n";
    let appliance = Appliance::start_behind(port, "reads = \"token\"");
    browse(&appliance, "guarded.mjs", &[]).tell();
    assert_changed(&appliance);
}

/// What a script of the browser came to.
struct Told(Output, PathBuf);

/// Runs a script beside this file in the appliance's namespace: URL, these words, a folder for pictures and the token.
fn browse(appliance: &Appliance, script: &str, words: &[&str]) -> Told {
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&shots).unwrap();
    let output = Command::new("ip")
        .args(["netns", "exec", &appliance.space().name, "timeout", "-k", "5", "600", "node"])
        .arg(format!("{}/tests/page/{script}", env!("CARGO_MANIFEST_DIR")))
        .arg("http://127.0.0.1:9477/")
        .args(words)
        .arg(&shots)
        .arg(appliance.token())
        .output();
    Told(output.expect("scripts/setup installs ip and node"), shots)
}

impl Told {
    fn tell(self) {
        let Self(output, shots) = self;
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{out}{err}\npictures: {}", shots.display());
        println!("{out}pictures: {}", shots.display());
    }
}

/// What the person set on the page is so, and what the other site's page tried is not.
fn assert_changed(appliance: &Appliance) {
    let listing = appliance.tell(&["timeout", "list"]);
    let row = listing.lines().find(|line| line.contains("tcp.time_wait")).expect("every timeout is listed");
    assert!(row.split_whitespace().any(|word| word == "7" || word == "7s"), "set to 7 s on the page: {row}");
    assert!(!appliance.log().contains("packets are followed"), "another site's link began a trace");
}

/// Connections that come, talk and go, some that are refused by policy, and packets that are INVALID.
fn traffic(pair: &Pair, done: &AtomicBool) {
    let listener = pair.outside.listen(&at(OUTSIDE, 0).to_string());
    let names = pair.outside.udp(&at(OUTSIDE, 0).to_string());
    let (web, dns) = (listener.local_addr().unwrap(), names.local_addr().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, done));
        scope.spawn(|| echo(&names, done));
        scope.spawn(|| pair.inside.enter(|| visit(web, dns, done)));
        scope.spawn(|| pair.outside.enter(|| trouble(done)));
    });
}

fn serve(listener: &TcpListener, done: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    while !done.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                // A visitor that has gone is no failure: the appliance is what is looked at.
                let _ = stream.set_nonblocking(false).and_then(|()| stream.write_all(&[7; 20_000]));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn echo(socket: &UdpSocket, done: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut room = [0; 64];
    while !done.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut room) {
            let _ = socket.send_to(&room[..length], from);
        }
    }
}

fn visit(web: SocketAddr, dns: SocketAddr, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&web, Duration::from_secs(1)) {
            // At the end the server may be gone first.
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let asker = UdpSocket::bind(at(INSIDE, 0)).unwrap();
        let _ = asker.send_to(b"name?", dns);
        std::thread::sleep(ROUND);
    }
}

/// From outside: datagrams that policy keeps out, and segments that no checksum fits.
fn trouble(done: &AtomicBool) {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
    let stranger = UdpSocket::bind(at(OUTSIDE, 0)).unwrap();
    while !done.load(Ordering::Relaxed) {
        let _ = raw.send_to(&BROKEN, &SockAddr::from(at(INSIDE, 0)));
        let _ = stranger.send_to(b"let me in", at(INSIDE, 9));
        std::thread::sleep(ROUND);
    }
}
