//! GRE.

/// A GRE flow's variables: its timeouts are copied at creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GreVars {
    pub timeout: u32,
    pub stream_timeout: u32,
}
