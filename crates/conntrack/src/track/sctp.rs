//! SCTP.

/// An SCTP flow's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SctpVars {
    /// The tag that packets of each direction must carry, in host order.
    pub vtag: [u32; 2],
    pub raw: [u32; 2],
}
