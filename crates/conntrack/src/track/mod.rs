//! Room 4: flow + packet → step. Each protocol has one file with its state table and one `step` function;
//! none of them sees the table, the wheel or the policy.

pub mod generic;
pub mod gre;
pub mod icmp;
pub mod reason;
pub mod sctp;
pub mod settings;
pub mod tcp;
pub mod timeout;
pub mod udp;

use crate::fault::short_timeout;
use crate::key::Direction;
use reason::Reason;
use settings::Settings;
use timeout::TimeoutKey;

/// What a step knows besides its flow and its packet.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Low tick of this packet.
    pub now: u32,
    pub direction: Direction,
    /// The flow is tentative: this is its first packet and nothing is in the table yet.
    pub first: bool,
    pub settings: &'a Settings,
}

/// What a protocol makes of one packet of one flow. It has already changed the flow's head (state, ASSURED) and
/// variables; the deadline, the counters and SEEN_REPLY are the tracker's to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Counted; the deadline moves to now + `span`.
    Refresh { key: TimeoutKey, span: u32 },
    /// Belongs to the flow, but neither counts nor refreshes.
    Ignore,
    /// Not of this flow: neither counts nor refreshes, and the packet is INVALID.
    Invalid(Reason),
    /// Counted, and the flow ends now (a reset of a flow that was never answered).
    Destroy,
    /// The flow is over and this packet opens a new one in its place.
    Reopen,
}

impl Step {
    /// [`Step::Refresh`] by a timeout's present value.
    #[inline(always)]
    pub fn refresh(key: TimeoutKey, settings: &Settings) -> Self {
        Self::Refresh { key, span: settings.timeouts.get(key).0.saturating_sub(short_timeout(key)) }
    }
}
