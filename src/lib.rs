//! The appliance: the same parts for the program, tests and benches.

pub mod config;
