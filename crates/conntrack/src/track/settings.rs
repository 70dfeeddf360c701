//! Every switch of the tracker, and the two profiles that set them.

use super::timeout::{TimeoutKey, Timeouts};
use crate::tick::Ticks;

/// Which first segments open a TCP flow that has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pickup {
    /// Every segment, whatever its flags (`classic`).
    Any,
    /// A SYN, or a plain ACK (the kernel's `tcp_loose` = 1).
    Ack,
    /// Only a SYN (`tcp_loose` = 0).
    Syn,
}

/// A named set of defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Classic,
    Linux,
}

/// The TCP switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    pub pickup: Pickup,
    /// Off: the state table alone decides, and every RST closes.
    pub window_tracking: bool,
    /// Out-of-window segments are accepted (`tcp_be_liberal`).
    pub be_liberal: bool,
    /// A RST below the highest acknowledgment is accepted (`tcp_ignore_invalid_rst`).
    pub ignore_invalid_rst: bool,
    /// So many identical segments in a row put the flow on `tcp.max_retrans`; `None` switches the timer off.
    pub max_retrans: Option<u8>,
    /// Whether unacknowledged data puts the flow on `tcp.unacknowledged`.
    pub unacknowledged_timer: bool,
    /// ASSURED comes with the packet after the one that completes the handshake.
    pub assured_late: bool,
}

/// Every switch of the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub profile: Profile,
    pub timeouts: Timeouts,
    pub tcp: TcpSettings,
    /// A UDP flow is a stream, and ASSURED, when a packet comes more than this after its first one.
    pub udp_stream_after: Option<Ticks>,
    /// Verify transport checksums (`nf_conntrack_checksum`).
    pub checksum: bool,
    /// Count packets and bytes per direction (`nf_conntrack_acct`).
    pub accounting: bool,
}

impl Settings {
    /// Whether any flow can be on this timeout, as the switches stand.
    pub const fn uses(&self, key: TimeoutKey) -> bool {
        match key {
            TimeoutKey::TcpNone => matches!(self.tcp.pickup, Pickup::Any),
            TimeoutKey::TcpMaxRetrans => self.tcp.max_retrans.is_some() && self.tcp.window_tracking,
            TimeoutKey::TcpUnacknowledged => self.tcp.unacknowledged_timer,
            _ => true,
        }
    }

    /// The defaults of `profile`.
    pub const fn new(profile: Profile) -> Self {
        let classic = matches!(profile, Profile::Classic);
        Self {
            profile,
            timeouts: if classic { Timeouts::CLASSIC } else { Timeouts::LINUX },
            tcp: TcpSettings {
                pickup: if classic { Pickup::Any } else { Pickup::Ack },
                window_tracking: true,
                be_liberal: false,
                ignore_invalid_rst: false,
                max_retrans: if classic { None } else { Some(3) },
                unacknowledged_timer: !classic,
                assured_late: classic,
            },
            udp_stream_after: if classic { None } else { Some(Ticks::from_secs(2)) },
            checksum: true,
            accounting: true,
        }
    }
}
