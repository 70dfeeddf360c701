//! What the process may still do once its ports are up. Owns the giving up of capabilities by every thread, DPDK's own
//! included, and the change to another user. What it gives up it cannot have again, nor can a program that it starts.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The user of the package's unit; a group of the same name is that of the control socket.
pub const SERVICE: &str = "dpdk-conntrack";

/// How long a thread may take to answer. One that runs needs microseconds, and one whose core a hypervisor has taken away
/// answers when it has it back, seconds later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why privileges could not be given up. The appliance does not run with more than it needs.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    #[error("there is no user `{0}`: `adduser --system --group {0}`, or name another with --user")]
    NoUser(String),
    #[error(
        "the user `{name}` cannot be asked for ({error}): see /etc/nsswitch.conf, or name a local user with --user"
    )]
    Lookup { name: String, error: io::Error },
    #[error("this process may not become user `{name}` ({error}): start it as root, or leave --user out")]
    Become { name: String, error: io::Error },
    #[error("{path} cannot be given to user `{name}` ({error}): start as root, or leave --user out")]
    Own { name: String, path: PathBuf, error: io::Error },
    #[error(
        "capabilities cannot be given up ({0}): a seccomp filter around the appliance must allow capset and prctl"
    )]
    Refused(io::Error),
    #[error(
        "thread {thread} of this process kept capabilities {kept:#x}: this is a defect, please report it with the log"
    )]
    Kept { thread: String, kept: u64 },
}

/// Whom the process is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// Looks a user up, by the system's own rules.
    pub fn named(name: &str) -> Result<Self, PrivilegesError> {
        let none = || PrivilegesError::NoUser(name.to_owned());
        let c_name = CString::new(name).map_err(|_| none())?;
        let found = Self::look_up(|entry, buffer, length, found| {
            // SAFETY: the name ends with NUL, the rest is as `look_up` says.
            unsafe { libc::getpwnam_r(c_name.as_ptr(), entry, buffer, length, found) }
        });
        found.map_err(|error| PrivilegesError::Lookup { name: name.to_owned(), error })?.ok_or_else(none)
    }

    /// The user of a process, by its numbers; nameless ones are called by theirs.
    pub fn numbered(uid: u32, gid: u32) -> Self {
        let found = Self::look_up(|entry, buffer, length, found| {
            // SAFETY: a plain number, and the rest as `look_up` says.
            unsafe { libc::getpwuid_r(uid, entry, buffer, length, found) }
        });
        let name = found.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Self { name, uid, gid }
    }

    /// Has a user looked up by one of the calls of getpwnam_r(3), which is given a place for the entry, one for its words and
    /// that one's length, and one for where the entry is, if there is one.
    fn look_up(
        ask: impl FnOnce(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
    ) -> io::Result<Option<Self>> {
        let mut buffer = vec![0_u8; 16 << 10];
        let mut entry = std::mem::MaybeUninit::<libc::passwd>::zeroed();
        let mut found = std::ptr::null_mut();
        match ask(entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &mut found) {
            0 if found.is_null() => Ok(None),
            // SAFETY: found is the entry, which the call has filled in; its name ends with NUL, in the buffer.
            0 => Ok(Some(unsafe {
                let name = CStr::from_ptr((*found).pw_name).to_string_lossy().into_owned();
                Self { name, uid: (*found).pw_uid, gid: (*found).pw_gid }
            })),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Makes files and folders this user's. A link is not followed: who may write its folder could have put it there for root
    /// to give away what it leads to.
    pub fn own<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<(), PrivilegesError> {
        for path in paths {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).map_err(|error| {
                PrivilegesError::Own { name: self.name.clone(), path: path.to_owned(), error }
            })?;
        }
        Ok(())
    }

    /// Makes an open file this user's.
    pub fn own_open(&self, file: &fs::File) -> io::Result<()> {
        std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))
    }

    /// The user's number.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's own group, and those that the user was put into.
    pub fn groups(&self) -> Vec<u32> {
        let Ok(name) = CString::new(self.name.as_str()) else { return vec![self.gid] };
        // NGROUPS_MAX of linux/limits.h.
        let mut groups = vec![0; 65_536];
        let mut count = groups.len() as libc::c_int;
        // SAFETY: the name ends with NUL, the buffer is ours and as long as stated.
        let told = unsafe { libc::getgrouplist(name.as_ptr(), self.gid, groups.as_mut_ptr(), &mut count) };
        if told < 0 {
            return vec![self.gid];
        }
        groups.truncate(usize::try_from(count).unwrap_or(0));
        groups
    }

    /// Every thread becomes this user: glibc sees to that. The calling one keeps its capabilities, the others lose
    /// theirs, as the kernel has it for whoever stops being root (capabilities(7)).
    fn become_now(&self) -> Result<(), PrivilegesError> {
        let failed = |error| PrivilegesError::Become { name: self.name.clone(), error };
        let name = CString::new(self.name.as_str()).unwrap_or_default();
        rustix::thread::set_keep_capabilities(true).map_err(|error| failed(error.into()))?;
        let groups = |name: &CStr| {
            // SAFETY: the name ends with NUL; the call changes this process's groups alone.
            unsafe { libc::initgroups(name.as_ptr(), self.gid) }
        };
        // SAFETY: plain numbers in, nothing but this process's identity changes.
        let ids = || unsafe {
            libc::setresgid(self.gid, self.gid, self.gid) == 0
                && libc::setresuid(self.uid, self.uid, self.uid) == 0
        };
        if groups(&name) != 0 || !ids() {
            return Err(failed(io::Error::last_os_error()));
        }
        Ok(())
    }
}

/// The folder of `file`, if there is none yet and it will be made.
pub fn folder_to_make(file: &Path) -> Option<&Path> {
    file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
}

/// What the drivers of open ports need while the appliance runs: those whose frames go through the kernel stop and start
/// their interface, make sockets or rules; a card behind vfio is all file descriptors.
pub fn needed_by<'a>(drivers: impl IntoIterator<Item = &'a str>) -> CapabilitySet {
    let needs = |driver: &str| match driver {
        "net_tap" | "net_virtio_user" => CapabilitySet::NET_ADMIN,
        "net_af_packet" | "net_af_xdp" | "net_pcap" => CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW,
        // They share the card with the kernel's driver.
        _ if driver.starts_with("mlx") || driver.starts_with("net_mlx") => {
            CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW
        }
        _ => CapabilitySet::empty(),
    };
    drivers.into_iter().map(needs).fold(CapabilitySet::empty(), |all, more| all | more)
}

/// Becomes `user` if there is one, and gives up every capability but `keep`, in every thread that there is. Threads that
/// begin later have what this one has.
pub fn give_up(user: Option<&User>, keep: CapabilitySet) -> Result<(), PrivilegesError> {
    KEEP.store(keep.bits(), Ordering::Release);
    let _handler = Handler::install().map_err(PrivilegesError::Refused)?;
    // While each is still allowed to say what it may never have.
    everywhere(Part::Bound)?;
    if let Some(user) = user {
        user.become_now()?;
    }
    everywhere(Part::Shed)?;
    match threads().into_iter().find_map(|thread| kept(thread, keep)) {
        None => Ok(()),
        Some((thread, kept)) => Err(PrivilegesError::Kept { thread, kept }),
    }
}

/// What a thread is asked to do.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Never gain anything again.
    Bound,
    /// Give up what is there.
    Shed,
}

/// Does `part` in this thread, then in every other.
fn everywhere(part: Part) -> Result<(), PrivilegesError> {
    SHEDS.store(matches!(part, Part::Shed), Ordering::Release);
    here().map_err(PrivilegesError::Refused)?;
    // A thread may begin one more while it is asked; that one is asked in the next round.
    let mut asked = vec![rustix::thread::gettid().as_raw_nonzero().get()];
    loop {
        let new: Vec<i32> = threads().into_iter().filter(|thread| !asked.contains(thread)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for thread in new {
            asked.push(thread);
            ask(thread);
        }
    }
}

/// What [`here`] leaves to the thread that it runs in, and which part it does.
static KEEP: AtomicU64 = AtomicU64::new(0);
static SHEDS: AtomicBool = AtomicBool::new(false);
/// Threads that a signal had run it.
static ANSWERS: AtomicU32 = AtomicU32::new(0);

/// Does the part that is asked for in the calling thread. Only system calls: it also runs in a signal handler.
fn here() -> io::Result<()> {
    let keep = CapabilitySet::from_bits_retain(KEEP.load(Ordering::Acquire));
    if SHEDS.load(Ordering::Acquire) {
        let kept = rustix::thread::capabilities(None)?.permitted & keep;
        // Without the inheritable set nothing is ambient either.
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        return Ok(rustix::thread::set_capabilities(None, sets)?);
    }
    rustix::thread::set_no_new_privs(true)?;
    // The bounding set is for those who may change it; no_new_privs does the same for everybody else. It ends where the
    // kernel knows no further capability.
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !keep.contains(one) && rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    Ok(())
}

extern "C" fn on_signal(_signal: libc::c_int) {
    // Whether it worked is looked at from outside.
    let _ = here();
    ANSWERS.fetch_add(1, Ordering::Release);
}

/// Has [`here`] run in another thread, as glibc does for setuid(2) and libpsx for capabilities: a thread's
/// credentials can be changed by nobody else.
fn ask(thread: i32) {
    let before = ANSWERS.load(Ordering::Acquire);
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: a signal to a thread of this process, whose handler is in place. A thread that is gone is no error.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal()) } == 0;
    let begun = Instant::now();
    let waiting = || sent && ANSWERS.load(Ordering::Acquire) == before && begun.elapsed() < PATIENCE;
    // One that has ended meanwhile answers no more.
    while waiting() && Path::new(&format!("/proc/self/task/{thread}")).exists() {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A real-time signal that glibc leaves to programs.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

/// The handler, in place until it is dropped.
struct Handler(libc::sigaction);

impl Handler {
    fn install() -> io::Result<Self> {
        let mut before = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeroes is a valid sigaction: no flags and an empty mask; the call fills `before` in.
        let failed = unsafe {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal(), &raw const action, before.as_mut_ptr()) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: filled in by the call that succeeded.
        Ok(Self(unsafe { before.assume_init() }))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: what was in place before is put back. It cannot fail where installing did not.
        unsafe { libc::sigaction(signal(), &raw const self.0, std::ptr::null_mut()) };
    }
}

fn threads() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The name of a thread that has more than `keep` or could get more, and its permitted set.
fn kept(thread: i32, keep: CapabilitySet) -> Option<(String, u64)> {
    // A thread that has ended has nothing any more.
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
    let permitted = u64::from_str_radix(field("CapPrm:"), 16).unwrap_or(u64::MAX);
    let more = permitted & !keep.bits() != 0 || field("NoNewPrivs:") != "1";
    more.then(|| (field("Name:").to_owned(), permitted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_behind_vfio_needs_nothing_and_the_kernels_interfaces_do() {
        assert_eq!(needed_by(["net_ixgbe", "net_e1000_em", "net_null"]), CapabilitySet::empty());
        assert_eq!(needed_by(["net_ixgbe", "net_tap"]), CapabilitySet::NET_ADMIN);
        let both = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        assert_eq!((needed_by(["net_af_packet"]), needed_by(["mlx5_pci"])), (both, both));
    }

    #[test]
    fn users_are_looked_up_and_unknown_ones_named() {
        let root = User::named("root").unwrap();
        assert_eq!((root.uid, root.gid, root.name()), (0, 0, "root"));
        assert_eq!(User::numbered(0, 0), root);
        let nameless = User::numbered(3_999_999_999, 7);
        assert_eq!((nameless.name(), nameless.groups()), ("3999999999", vec![7]));
        for name in ["no-such-user-here", "nul\0inside", ""] {
            let error = User::named(name).unwrap_err().to_string();
            assert!(error.contains("--user"), "{error}");
        }
    }
}
