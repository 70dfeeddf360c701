//! The two hosts: real TCP stacks in namespaces of their own, a client that opens connections of many kinds and a server
//! that does as it is told.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agreement::kernel::{abort_on_close, enter_host, set_receive_buffer};
use agreement::program::rng::Rng;

const PORT: u16 = 8080;
/// Nobody listens here.
const CLOSED_PORT: u16 = 9;
/// Nothing in a test may wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections of the client at once.
const AT_ONCE: u64 = 24;

const CLIENT: &str = "\
link set lo up
link set wire0 up mtu 1500
addr add 10.1.0.1/16 dev wire0
addr add 2001:db8:a::1/64 dev wire0 nodad
route add default dev wire0
route add ::/0 dev wire0
";

const SERVER: &str = "\
link set lo up
link set wire0 up mtu 1500
addr add 10.2.0.1/16 dev wire0
addr add 2001:db8:b::1/64 dev wire0 nodad
route add default dev wire0
route add ::/0 dev wire0
";

/// What the connections came to.
#[derive(Default)]
pub(crate) struct Results {
    /// Over, however they ended.
    pub(crate) done: AtomicU64,
    /// All bytes arrived, and the right ones.
    pub(crate) intact: AtomicU64,
    /// Refused or reset, as was intended.
    pub(crate) broken_off: AtomicU64,
    /// The wire was too bad for too long.
    pub(crate) given_up: AtomicU64,
    /// Wrong bytes.
    pub(crate) damaged: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What a connection is for; its first byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Upload,
    Download,
    /// Small questions and answers.
    Chat,
    /// The client resets in the middle.
    ClientResets,
    ServerResets,
    /// Nobody listens.
    Refused,
    /// A small window, and a reader that is slower than the sender.
    SlowReader,
    /// Opened and closed without a word.
    Idle,
    /// The client ends its side first; the answer comes afterwards.
    HalfClosed,
}

const KINDS: [Kind; 9] = [
    Kind::Upload,
    Kind::Download,
    Kind::Chat,
    Kind::ClientResets,
    Kind::ServerResets,
    Kind::Refused,
    Kind::SlowReader,
    Kind::Idle,
    Kind::HalfClosed,
];

/// Runs the server until the process ends; hands the wire's end of its device over.
pub(crate) fn serve(wire: &Sender<Result<File, String>>) {
    let tun = enter_host(SERVER);
    let listening = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT));
    let listener = match (tun, listening) {
        (Ok(tun), Ok(listener)) => {
            let _ = wire.send(Ok(tun));
            listener
        }
        (Ok(_), Err(error)) => {
            let _ = wire.send(Err(format!("port {PORT} of the server's namespace: {error}")));
            return;
        }
        (Err(error), _) => {
            let _ = wire.send(Err(error));
            return;
        }
    };
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that went away is part of the test.
            let _ = answer(stream);
        });
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    let is = |wanted: Kind| kind == wanted as u8;
    if is(Kind::Upload) || is(Kind::HalfClosed) || is(Kind::ClientResets) {
        let right = receive(&mut stream, length, Duration::ZERO)?;
        stream.write_all(&[u8::from(right)])?;
    } else if is(Kind::Chat) {
        let mut word = [0; 32];
        for _ in 0..length {
            stream.read_exact(&mut word)?;
            stream.write_all(&word)?;
        }
    } else {
        let all = if is(Kind::ServerResets) { length / 2 } else { length };
        send(&mut stream, all)?;
        if is(Kind::ServerResets) {
            let _ = abort_on_close(&stream);
            return Ok(());
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let _ = stream.read(&mut [0; 1]);
    Ok(())
}

/// Opens `count` connections, some at once; hands the wire's end of its device over first.
pub(crate) fn connect(wire: &Sender<Result<File, String>>, seed: u64, count: u64, results: &Results) {
    let tun = enter_host(CLIENT);
    let failed = tun.is_err();
    if wire.send(tun).is_err() || failed {
        return;
    }
    let next = AtomicU64::new(0);
    let opening = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    one(&mut Rng::new(seed, number), number, &opening, results);
                    results.done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

fn one(rng: &mut Rng, number: u64, opening: &Mutex<()>, results: &Results) {
    let kind = KINDS[(number % KINDS.len() as u64) as usize];
    let counter = match (talk(rng, kind, opening), kind) {
        (Ok(Some(bytes)), _) => {
            results.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            &results.intact
        }
        (Ok(None), Kind::ClientResets | Kind::ServerResets | Kind::Refused) => &results.broken_off,
        (Ok(None), _) => &results.damaged,
        (Err(error), Kind::ServerResets | Kind::Refused)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::UnexpectedEof
            ) =>
        {
            &results.broken_off
        }
        (Err(_), _) => &results.given_up,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One connection: how many bytes arrived intact, or `None` if it was broken off, as intended, or the bytes were wrong.
fn talk(rng: &mut Rng, kind: Kind, opening: &Mutex<()>) -> std::io::Result<Option<usize>> {
    let server: IpAddr = if rng.chance(50) {
        Ipv4Addr::new(10, 2, 0, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1).into()
    };
    let port = if kind == Kind::Refused { CLOSED_PORT } else { PORT };
    let connected = {
        // The host reads these when it sends the SYN and again when the answer comes: they must not change between.
        let _alone = opening.lock().unwrap_or_else(PoisonError::into_inner);
        for name in ["tcp_window_scaling", "tcp_sack", "tcp_timestamps"] {
            let value = if rng.chance(75) { "1" } else { "0" };
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)?;
        }
        TcpStream::connect_timeout(&SocketAddr::new(server, port), PATIENCE)
    };
    let mut stream = connected?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let length = match kind {
        Kind::Chat => rng.between(3, 30),
        Kind::SlowReader => rng.between(5_000, 60_000),
        Kind::Idle => 0,
        _ => rng.between(1, 200_000),
    } as usize;
    if kind == Kind::Idle {
        return Ok(Some(0));
    }
    if kind == Kind::SlowReader {
        let _ = set_receive_buffer(&stream, 2304);
    }
    let mut head = vec![kind as u8];
    head.extend((length as u32).to_be_bytes());
    stream.write_all(&head)?;
    match kind {
        Kind::Upload | Kind::HalfClosed => {
            send(&mut stream, length)?;
            if kind == Kind::HalfClosed {
                stream.shutdown(Shutdown::Write)?;
            }
            let mut right = [0];
            stream.read_exact(&mut right)?;
            Ok((right == [1]).then_some(length))
        }
        Kind::ClientResets => {
            send(&mut stream, length / 2)?;
            let _ = abort_on_close(&stream);
            Ok(None)
        }
        Kind::Chat => {
            let mut word = [0; 32];
            for turn in 0..length {
                let sent = [turn as u8; 32];
                stream.write_all(&sent)?;
                stream.read_exact(&mut word)?;
                if word != sent {
                    return Ok(None);
                }
            }
            Ok(Some(length * 32))
        }
        Kind::SlowReader => Ok(receive(&mut stream, length, Duration::from_millis(3))?.then_some(length)),
        Kind::Download | Kind::ServerResets => {
            Ok(receive(&mut stream, length, Duration::ZERO)?.then_some(length))
        }
        Kind::Refused | Kind::Idle => Ok(None),
    }
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

fn send(stream: &mut TcpStream, length: usize) -> std::io::Result<()> {
    let bytes: Vec<u8> = (0..length).map(pattern).collect();
    bytes.chunks(16_384).try_for_each(|part| stream.write_all(part))
}

/// Whether the right bytes came.
fn receive(stream: &mut TcpStream, length: usize, pause: Duration) -> std::io::Result<bool> {
    let mut buffer = [0; 4096];
    let mut at = 0;
    while at < length {
        let room = buffer.len().min(length - at);
        let got = stream.read(&mut buffer[..room])?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if buffer[..got].iter().enumerate().any(|(offset, byte)| *byte != pattern(at + offset)) {
            return Ok(false);
        }
        at += got;
        std::thread::sleep(pause);
    }
    Ok(true)
}
