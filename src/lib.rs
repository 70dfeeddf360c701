//! The appliance: the same parts for the program, tests and benches.

pub mod bus;
pub mod config;
pub mod format;
pub mod control;
pub mod telemetry;
pub mod worker;
