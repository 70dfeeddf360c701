//! The tracker's settings by the names below `net.netfilter.` in sysctl.

use conntrack::tick::Ticks;
use conntrack::track::settings::{Pickup, Profile, Settings};
use conntrack::track::timeout::TimeoutKey;

/// Settings as a kernel has them, and the switches that only the kernel has.
#[derive(Clone, Copy, Debug)]
pub struct KernelSettings {
    pub tracker: Settings,
    /// `nf_conntrack_events`: whether anybody is told of anything.
    pub events: bool,
}

impl Default for KernelSettings {
    fn default() -> Self {
        let mut tracker = Settings::new(Profile::Linux);
        // The recordings count packets and bytes; a kernel does not by default.
        tracker.accounting = true;
        Self { tracker, events: true }
    }
}

impl KernelSettings {
    /// Sets one by its name; the error says what is wrong with it.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
        let tcp = &mut self.tracker.tcp;
        match name {
            "nf_conntrack_acct" => self.tracker.accounting = value != 0,
            "nf_conntrack_checksum" => self.tracker.checksum = value != 0,
            "nf_conntrack_events" => self.events = value != 0,
            // Only what the kernel writes to its log, or into a part of an entry that nothing here reads.
            "nf_conntrack_log_invalid" | "nf_conntrack_timestamp" => {}
            "nf_conntrack_tcp_loose" => tcp.pickup = if value != 0 { Pickup::Ack } else { Pickup::Syn },
            "nf_conntrack_tcp_be_liberal" => tcp.be_liberal = value != 0,
            "nf_conntrack_tcp_ignore_invalid_rst" => tcp.ignore_invalid_rst = value != 0,
            "nf_conntrack_tcp_max_retrans" => {
                let count = u8::try_from(value).map_err(|_| format!("{name} is {value}, more than 255"))?;
                tcp.max_retrans = Some(count);
            }
            _ => {
                let key = TimeoutKey::ALL
                    .iter()
                    .find(|key| key.kernel_name() == name)
                    .ok_or_else(|| format!("the tracker has no setting {name:?}"))?;
                let longest = u64::from(Ticks::MAX.as_secs());
                let seconds = u32::try_from(value.min(longest)).unwrap_or(u32::MAX);
                self.tracker.timeouts.set(*key, Ticks::from_secs(seconds));
            }
        }
        Ok(())
    }
}
