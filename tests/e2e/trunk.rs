//! Hosts behind VLAN tags. Not every kernel has VLAN interfaces, so tags are put on and taken off here: each host has
//! a tap of its own, and a thread moves its frames to and from the trunk. It knows nothing of the appliance.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::net::Namespace;

/// A longest jumbo frame with its tags.
const FRAME: usize = 9_600;

/// One host: its namespace, which has nothing but the tap.
pub(crate) struct Host {
    pub(crate) space: Namespace,
    tags: Vec<u16>,
    tap: File,
}

impl Host {
    /// Behind these tags, outer first.
    pub(crate) fn new(name: String, tags: &[u16], mtu: usize) -> Self {
        let space = Namespace::new(name.clone());
        let tap = space.enter(|| tap(&name));
        space.ip(&["link", "set", &name, "mtu", &mtu.to_string()]);
        Self { space, tags: tags.to_vec(), tap }
    }

    /// The tags as they stand in a frame: a service tag outside, if there are two (IEEE 802.1Q-2018 clause 9.5).
    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (level, tag) in self.tags.iter().enumerate() {
            let outer = level == 0 && self.tags.len() > 1;
            bytes.extend_from_slice(if outer { &[0x88, 0xa8] } else { &[0x81, 0] });
            bytes.extend_from_slice(&tag.to_be_bytes());
        }
        bytes
    }
}

/// A running trunk; ends when it is dropped.
pub(crate) struct Trunk {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trunk {
    /// Joins the hosts to `interface` of `space`.
    pub(crate) fn start(space: &Namespace, interface: &str, hosts: &[&Host]) -> Self {
        let trunk = space.enter(|| packet_socket(interface));
        let mut hosts: Vec<(Vec<u8>, File)> =
            hosts.iter().map(|host| (host.header(), host.tap.try_clone().unwrap())).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; FRAME];
            while !stopped.load(Ordering::Relaxed) {
                wait(&trunk, &hosts);
                while let Some(length) = receive(&trunk, &mut frame) {
                    for (tags, tap) in &mut hosts {
                        let body = 12 + tags.len();
                        // Hosts without tags take what has none.
                        let mine = frame[12..length].starts_with(tags)
                            && !matches!(frame[body..body + 2], [0x81, 0] | [0x88, 0xa8]);
                        if mine {
                            let plain = [&frame[..12], &frame[body..length]].concat();
                            // The host's interface may be down.
                            let _ = tap.write(&plain);
                        }
                    }
                }
                for (tags, tap) in &mut hosts {
                    while let Ok(length) = tap.read(&mut frame) {
                        let tagged = [&frame[..12], tags, &frame[12..length]].concat();
                        send(&trunk, &tagged);
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn checked(result: libc::c_int, what: &str) -> libc::c_int {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
    result
}

/// A new tap interface in this thread's namespace. Without offloads: every frame has its checksums.
fn tap(name: &str) -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").expect("root may make taps");
    // SAFETY: all-zero is a value of this struct of numbers and characters.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the request is one that TUNSETIFF takes.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &request) }, "TUNSETIFF");
    // SAFETY: the descriptor is open.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, "O_NONBLOCK");
    file
}

/// All frames of an interface of this thread's namespace. The kernel takes the outer tag off and tells it aside.
fn packet_socket(interface: &str) -> OwnedFd {
    let all = (libc::ETH_P_ALL as u16).to_be();
    let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: makes a descriptor, which is checked before it is owned.
    let fd = checked(unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(all)) }, "packet socket");
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: the name ends with a NUL; all-zero is a value of the address; both calls get what they ask for, with its size.
    unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        assert!(address.sll_ifindex > 0, "there is no {interface}");
        let size = size_of_val(&address) as u32;
        checked(libc::bind(fd, (&raw const address).cast(), size), "bind");
        let on: libc::c_int = 1;
        for option in [libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
            let result = libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const on).cast(), 4);
            checked(result, "packet socket option");
        }
        let room: libc::c_int = 4 << 20;
        checked(
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), 4),
            "SO_RCVBUFFORCE",
        );
    }
    socket
}

/// Waits for a frame, a twentieth of a second at most.
fn wait(trunk: &OwnedFd, hosts: &[(Vec<u8>, File)]) {
    let fds = std::iter::once(trunk.as_raw_fd()).chain(hosts.iter().map(|(_, tap)| tap.as_raw_fd()));
    let mut fds: Vec<libc::pollfd> =
        fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: so many entries.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 50) };
}

/// The next frame, its outer tag put back where it was.
fn receive(socket: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    let mut control = [0_u64; 16];
    let room = frame.len() - 4;
    let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: room };
    // SAFETY: all-zero is a value of this struct; its pointers are to the two buffers above, with their sizes. Control
    // messages are read as the kernel wrote them, within what it says that it wrote.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let length = usize::try_from(libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0)).ok()?;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == libc::PACKET_AUXDATA {
                let aside = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                if aside.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    frame.copy_within(12..length, 16);
                    frame[12..14].copy_from_slice(&aside.tp_vlan_tpid.to_be_bytes());
                    frame[14..16].copy_from_slice(&aside.tp_vlan_tci.to_be_bytes());
                    return Some(length + 4);
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        Some(length)
    }
}

fn send(socket: &OwnedFd, frame: &[u8]) {
    // SAFETY: so many bytes. A full queue loses the frame, as a wire would.
    unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
}
