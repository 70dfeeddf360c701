//! UDP and UDP-Lite.

/// A UDP flow's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UdpVars {
    /// Low tick of the flow's first packet.
    pub first: u32,
}
