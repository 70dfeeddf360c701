//! The appliance: the same parts for the program, tests and benches.

pub mod app;
pub mod bus;
pub mod cli;
pub mod config;
pub mod control;
pub mod driver;
pub mod explain;
pub mod export;
pub mod filter;
pub mod format;
pub mod memory;
pub mod preflight;
pub mod privileges;
pub mod replay;
pub mod telemetry;
pub mod worker;
pub mod zones;

/// The commit that this was built from, or `unknown`; see build.rs.
pub const REVISION: &str = env!("DPDK_CONNTRACK_REVISION");
