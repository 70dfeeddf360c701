//! TCP: states, steps, windows.

/// A TCP flow's variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TcpVars {
    pub raw: [u32; 13],
}
