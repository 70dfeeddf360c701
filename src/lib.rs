//! The appliance: the same parts for the program, tests and benches.

pub mod driver;
pub mod memory;
pub mod preflight;
