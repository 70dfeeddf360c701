//! The few system calls that have no safe wrapper in std.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

/// Moves the calling thread into a network namespace of its own.
pub(super) fn new_network_namespace() -> Result<(), String> {
    // SAFETY: takes no pointer; changes this thread's namespace only.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(format!("a network namespace needs root: {}", Error::last_os_error())),
    }
}

/// Makes a TUN device of this namespace that carries bare IP packets; reading never waits.
pub(super) fn open_tun(name: &str) -> Result<File, String> {
    let path = "/dev/net/tun";
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| format!("{path}: {error}; load the tun module"))?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads one `ifreq`, which `request` is; the descriptor is open.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &request) } < 0 {
        return Err(format!("{path}: {name}: {}", Error::last_os_error()));
    }
    Ok(file)
}

/// Time as of the kernel's last tick: it is set together with jiffies, and stands still when they do.
pub fn coarse_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`. It cannot fail: every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Closing this connection sends a reset.
pub fn abort_on_close(stream: &TcpStream) -> Result<(), String> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
        .map_err(|()| format!("SO_LINGER: {}", Error::last_os_error()))
}

/// Bounds what this connection buffers for its reader, and so the window that it offers.
pub fn set_receive_buffer(stream: &TcpStream, bytes: i32) -> Result<(), String> {
    set(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes)
        .map_err(|()| format!("SO_RCVBUF: {}", Error::last_os_error()))
}

fn set<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> Result<(), ()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and length are one value's, which the kernel only reads.
    let done = unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), length) };
    if done < 0 { Err(()) } else { Ok(()) }
}

/// A netfilter netlink socket of this namespace.
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens one that also hears the given multicast groups.
    pub(super) fn open(groups: &[u32]) -> Result<Self, String> {
        let wrong = |what: &str| format!("netlink {what}: {}", Error::last_os_error());
        // SAFETY: takes no pointer.
        let fd = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER)
        };
        if fd < 0 {
            return Err(wrong("socket"));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let this = Self { fd };
        this.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20).map_err(|()| wrong("buffer"))?;
        // SAFETY: all-zero is a valid `sockaddr_nl`: the kernel chooses the port.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is a `sockaddr_nl` of that length.
        if unsafe { libc::bind(this.fd.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
            return Err(wrong("bind"));
        }
        for group in groups {
            this.option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, *group as libc::c_int)
                .map_err(|()| wrong("group"))?;
        }
        Ok(this)
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<(), ()> {
        set(self.fd.as_raw_fd(), level, name, &value)
    }

    /// Sends one datagram; the kernel has acted on it when this returns.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), String> {
        // SAFETY: the pointer and length are one slice's.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(format!("netlink send: {}", Error::last_os_error())) } else { Ok(()) }
    }

    /// Receives one datagram if there is one: its length.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>, String> {
        let (base, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the pointer and length are one slice's, which is ours to write.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), base, length, libc::MSG_DONTWAIT) };
        if got >= 0 {
            return Ok(Some(got as usize));
        }
        let error = Error::last_os_error();
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(None),
            _ => Err(format!("netlink receive: {error}")),
        }
    }
}
