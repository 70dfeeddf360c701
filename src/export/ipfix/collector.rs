//! The way to the collector: a UDP socket, when templates are due, and what became of each message.
//!
//! Nobody acknowledges UDP. A record counts as written when the kernel took it and no refusal came back by the time of the
//! next message: a collector that is not running shows at once, one that is slow shows in its own sequence numbers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::message::Message;
use super::template::Template;
use crate::config::Ipfix;
use crate::export::sink::{Counts, Out};
use crate::export::{ExportError, Record};

/// A record waits for others to fill its message for so long.
const GATHER: Duration = Duration::from_millis(500);

/// How long the kernel may hold up a message; its queue for the card drains faster.
const PATIENCE: Duration = Duration::from_secs(1);

/// The UDP header.
const UDP_BYTES: u16 = 8;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Collector {
    socket: UdpSocket,
    to: SocketAddr,
    connected: bool,
    message: Message,
    /// When the first record of the message came.
    since: Option<Instant>,
    templates_every: Duration,
    templates_sent: Option<Instant>,
    /// A message failed: whoever receives the next one may not know the templates.
    unseen: bool,
    /// Records that were sent and may yet be refused.
    unconfirmed: u64,
}

impl Collector {
    pub(crate) fn new(config: &Ipfix) -> Result<Self, ExportError> {
        let (any, ip_bytes): (IpAddr, u16) = match config.collector {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 20),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), 40),
        };
        let socket = UdpSocket::bind((any, 0)).map_err(ExportError::Socket)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(ExportError::Socket)?;
        Ok(Self {
            socket,
            to: config.collector,
            connected: false,
            message: Message::new(usize::from(config.mtu - ip_bytes - UDP_BYTES), config.domain),
            since: None,
            templates_every: Duration::from_secs_f64(config.templates_every.as_secs_f64()),
            templates_sent: None,
            unseen: true,
            unconfirmed: 0,
        })
    }

    fn templates_are_due(&self) -> bool {
        self.templates_sent.is_none_or(|at| at.elapsed() >= self.templates_every)
    }

    /// Sends templates, ahead of the records that need them.
    fn send_templates(&mut self, counts: &Counts) {
        (self.templates_sent, self.unseen) = (Some(Instant::now()), false);
        for template in Template::all() {
            if !self.message.describe(template) {
                self.send(counts);
                self.message.describe(template);
            }
        }
        self.send(counts);
    }

    /// Sends the message, if there is anything in it, and begins the next.
    fn send(&mut self, counts: &Counts) {
        self.confirm(counts);
        self.since = None;
        if self.message.is_empty() {
            return;
        }
        let records = u64::from(self.message.records());
        let sent = self.try_send();
        match &sent {
            Ok(()) => self.unconfirmed += records,
            Err(error) => self.fail(records, error, counts),
        }
        self.message.next(sent.is_ok());
    }

    fn try_send(&mut self) -> io::Result<()> {
        if !self.connected {
            // So that refusals come back. Without a route this fails, and is tried again with the next message.
            self.socket.connect(self.to)?;
            self.connected = true;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Seconds modulo 2^32, as the header has them. RFC 7011 section 3.1
        self.socket.send(self.message.finish(now as u32)).map(drop)
    }

    /// Counts what was sent before, now that it is known whether a refusal came back.
    fn confirm(&mut self, counts: &Counts) {
        let records = std::mem::take(&mut self.unconfirmed);
        match self.socket.take_error() {
            Ok(None) => counts.written(records),
            Ok(Some(error)) | Err(error) => self.fail(records, &error, counts),
        }
    }

    fn fail(&mut self, records: u64, error: &io::Error, counts: &Counts) {
        let to = self.to;
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                counts.lost(
                    records,
                    format!("nobody listens at {to}: start the collector, or mend `export.ipfix.collector`"),
                );
            }
            _ => counts.lost(
                records,
                format!(
                    "{to} cannot be sent to ({error}): see the way there with `ip route get {}`",
                    to.ip()
                ),
            ),
        }
        self.unseen = true;
    }
}

impl Out for Collector {
    fn take(&mut self, records: &[Record], counts: &Counts) {
        for record in records {
            if self.message.records() == 0 {
                self.confirm(counts);
                if self.unseen || self.templates_are_due() {
                    self.send_templates(counts);
                }
            }
            self.message.add_record(record);
            if !self.message.has_room() {
                self.send(counts);
            }
            if self.message.records() > 0 {
                self.since.get_or_insert_with(Instant::now);
            }
        }
    }

    fn turn(&mut self, counts: &Counts) {
        if self.since.is_some_and(|since| since.elapsed() >= GATHER) {
            self.send(counts);
        } else if self.message.records() == 0 {
            self.confirm(counts);
            if self.templates_are_due() {
                self.send_templates(counts);
            }
        }
    }

    fn end(&mut self, counts: &Counts) {
        self.send(counts);
        self.confirm(counts);
    }
}

/// Asks whether somebody listens at `to`, with a message that says nothing, which every collector must take. No answer
/// is no news: only a refusal is.
pub(crate) fn probe(to: SocketAddr) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_millis(300);
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(Message::new(64, 0).finish(0))?;
    match socket.recv(&mut [0; 1]) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
