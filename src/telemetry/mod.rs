//! How the appliance is watched: metrics and the log. Both run on the control side only.

pub mod log;
pub mod prometheus;
pub mod socket;
