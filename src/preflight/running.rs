//! The appliance that runs already, if one does. It ends before another starts at its socket, so that what it has taken is
//! as good as free.

use dpdk::port::Device;

use super::Host;

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Its devices, as it tells them.
    pub devices: Vec<Device>,
    /// Its own number is not known where it lives in another namespace of processes.
    pub process: Option<u32>,
    /// What the kernel says of it; nothing where it may not be looked at.
    pub taken: Option<Taken>,
}

/// What a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// On hugepages, of any size.
    pub huge_bytes: u64,
    /// In ordinary memory that is no file's.
    pub plain_bytes: u64,
    /// As whom it runs.
    pub uid: u32,
    pub gid: u32,
}

impl Running {
    /// A process that has these devices.
    pub fn seen(host: &Host, process: Option<u32>, devices: Vec<Device>) -> Self {
        let taken = process.and_then(|process| Taken::by(host, process));
        Self { devices, process, taken }
    }

    /// Whether it is what keeps the card at this address.
    pub(super) fn has(&self, address: &str) -> bool {
        self.devices.iter().any(|device| device.pci() == Some(address))
    }
}

impl Taken {
    fn by(host: &Host, process: u32) -> Option<Self> {
        let path = format!("/proc/{process}/status");
        // proc_pid_status(5): HugetlbPages since Linux 4.4, RssAnon and RssShmem since 4.5; all in kB.
        let bytes = |key: &str| host.kib(&path, key).unwrap_or(0);
        // Real, effective, saved and of the file system.
        let id = |key: &str| host.field(&path, key)?.split_whitespace().nth(1)?.parse().ok();
        Some(Self {
            huge_bytes: bytes("HugetlbPages"),
            plain_bytes: bytes("RssAnon") + bytes("RssShmem"),
            uid: id("Uid")?,
            gid: id("Gid")?,
        })
    }
}
