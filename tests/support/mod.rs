//! Frames, capture files and a running appliance for the tests beside this folder.
// Each test file uses a part of it, and is a crate of its own.
#![allow(dead_code, unreachable_pub)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dpdk_conntrack::bus::ControlEnd;
use dpdk_conntrack::bus::command::{Command as Order, Ticket};
use dpdk_conntrack::bus::report::Snapshot;
use dpdk_conntrack::worker::Worker;

/// How long a test waits for what takes an idle machine a second at most: a slow one may stand still for several seconds
/// at a time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ethernet + IPv4 around `payload`, from 198.18.0.`src` to 198.18.0.`dst`.
pub fn ipv4(src: u8, dst: u8, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0x40, 0, 64, proto, 0, 0, 198, 18, 0, src, 198, 18, 0, dst]);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(payload);
    frame
}

/// Makes an IPv4 frame a fragment: `place` is what follows the identification, flags and all.
pub fn cut(frame: &mut [u8], id: u16, place: u16) {
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&place.to_be_bytes());
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum: u32 = frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
}

/// A UDP datagram without a checksum, which IPv4 allows.
pub fn udp(src: u8, dst: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend_from_slice(&sport.to_be_bytes());
    datagram.extend_from_slice(&dport.to_be_bytes());
    datagram.extend_from_slice(&[0, 12, 0, 0, b'p', b'i', b'n', b'g']);
    ipv4(src, dst, 17, &datagram)
}

/// A UDP datagram of `length` bytes of payload with its checksum.
pub fn udp_with_sum(length: usize) -> Vec<u8> {
    let mut datagram = vec![3, 232, 0, 53];
    datagram.extend_from_slice(&(8 + length as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend((0..length).map(|i| (i % 251) as u8));
    let mut frame = ipv4(1, 2, 17, &datagram);
    // The pseudo header: addresses, protocol, length. RFC 768
    let mut summed = frame[26..34].to_vec();
    summed.extend_from_slice(&[0, 17, datagram[4], datagram[5]]);
    summed.extend_from_slice(&datagram);
    summed.resize(summed.len().next_multiple_of(2), 0);
    let sum: u64 = summed.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    frame[40..42].copy_from_slice(&(!((sum >> 16) + sum) as u16).to_be_bytes());
    frame
}

/// An ARP request.
pub fn arp(src: u8) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, src, 8, 6];
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(60, 0);
    frame
}

/// Writes frames as a capture file.
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        for word in [number as u32, 0, frame.len() as u32, frame.len() as u32] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    std::fs::write(path, file).unwrap();
}

/// The frames of a capture file.
pub fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let (mut frames, mut rest) = (Vec::new(), &file[24..]);
    while rest.len() >= 16 {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

/// A worker's numbers; it turns here until it has told them.
pub fn snapshot(end: &ControlEnd, worker: &mut Worker) -> Snapshot {
    end.send(Ticket { number: 0, command: Order::Snapshot(Box::default()) }).unwrap();
    for _ in 0..100_000 {
        worker.turn();
        if let Some(Ticket { command: Order::Snapshot(seen), .. }) = end.next_answer() {
            return *seen;
        }
    }
    panic!("no answer within 100,000 turns");
}

/// The program, running on ports that need no privilege.
pub struct Daemon {
    pub child: Child,
    pub folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with these ports as (device, role, peer), and waits until it answers.
    pub fn start(devices: &[(&str, &str, Option<&str>)], more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        // What is asked of these tests is one worker's, whatever the machine would have.
        let mut text = String::from("workers = 1\n");
        text += if devices.len() == 1 { "mode = \"mirror\"\n" } else { "" };
        for (number, (device, role, peer)) in devices.iter().enumerate() {
            let device = device.replace("DIR", folder.path().to_str().unwrap());
            text += &format!("[[port]]\nname = \"p{number}\"\ndevice = \"{device}\"\n");
            if let Some(peer) = peer {
                text += &format!("role = \"{role}\"\npeer = \"{peer}\"\n");
            }
        }
        text += &format!(
            "[eal]\nhugepages = false\n[control]\nsocket = \"{}\"\nhttp = \"{}\"\n{more}\n",
            folder.path().join("control.sock").display(),
            free_address(),
        );
        std::fs::write(&config, text).unwrap();
        Self::start_in(folder)
    }

    /// Starts it with the `config.toml` of `folder`.
    pub fn start_in(folder: tempfile::TempDir) -> Self {
        let command = command(folder.path());
        Self::start_by(command, folder)
    }

    /// Starts it by a command line that [`command`] made for `folder`.
    pub fn start_by(mut command: Command, folder: tempfile::TempDir) -> Self {
        let child = command.spawn().unwrap();
        let mut daemon = Self { child, folder };
        let begun = Instant::now();
        while request(&daemon.socket(), "GET", "/v1/info", "").map_or(0, |answer| answer.0) != 200 {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("ended at the start: {status}: {}", daemon.log());
            }
            assert!(begun.elapsed() < PATIENCE, "does not answer: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The answer to what may be asked twice: once more where a worker had no core for two seconds.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let begun = Instant::now();
        loop {
            if let Some(answer) = self.asked(method, path, body) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{method} {path}: no answer: {}", self.log());
        }
    }

    /// `None` where no answer, or not all of it, came in time.
    fn asked(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        use std::io::ErrorKind::{ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match request(&self.socket(), method, path, body) {
            Ok((503, _)) => None,
            Ok(answer) => Some(answer),
            Err(error) if matches!(error.kind(), ConnectionReset | TimedOut | UnexpectedEof | WouldBlock) => {
                None
            }
            Err(error) => panic!("{method} {path}: {error}: {}", self.log()),
        }
    }

    /// The body of a successful answer.
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "GET {path}: {body}: {}", self.log());
        body
    }

    /// The JSON of a successful answer.
    pub fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.get(path)).unwrap()
    }

    /// Waits until `path`'s JSON is as `until` wants it.
    pub fn wait(&self, path: &str, until: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let now = self.json(path);
            if until(&now) {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "never came: {path}: {now}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A reader of events, there when this returns. While it is, workers tell everything: whoever comes to read events too
    /// waits for none of them.
    pub fn reader(&self) -> UnixStream {
        let begun = Instant::now();
        loop {
            let mut stream = UnixStream::connect(self.socket()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            if &start == b"HTTP/1.1 200" {
                return stream;
            }
            assert!(begun.elapsed() < PATIENCE, "no events are told: {}", self.log());
        }
    }

    /// Ends it as an operator would; gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
#[track_caller]
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: never");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A loopback address that nobody listens on.
fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The program's command line for the `config.toml` of `folder`; it logs to a file there.
pub fn command(folder: &Path) -> Command {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpdk-conntrack"));
    // DPDK puts its own socket below this: each test has one of its own.
    command.env("RUNTIME_DIRECTORY", folder);
    command.arg("run").arg("--config").arg(folder.join("config.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command
}

/// One request on the control socket: the status and the body.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(rest)? } else { rest.to_owned() }))
}

fn unchunk(mut text: &str) -> std::io::Result<String> {
    let mut out = String::new();
    let broke_off = |out: &str| {
        let what = format!("the body broke off after {out}");
        std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what)
    };
    loop {
        let (size, rest) = text.split_once("\r\n").ok_or_else(|| broke_off(&out))?;
        let size = usize::from_str_radix(size, 16).map_err(|_| broke_off(&out))?;
        if size == 0 {
            return Ok(out);
        }
        let (Some(chunk), Some(after)) = (rest.get(..size), rest.get(size + 2..)) else {
            return Err(broke_off(&out));
        };
        out += chunk;
        text = after;
    }
}
