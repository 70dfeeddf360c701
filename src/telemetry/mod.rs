//! How the appliance is watched: metrics, the log, and what systemd is told. All run on the control side only.

pub mod log;
pub mod prometheus;
pub mod socket;
pub mod systemd;
