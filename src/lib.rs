//! The appliance: the same parts for the program, tests and benches.

pub mod config;
pub mod control {
    pub mod schema;
}
pub mod driver;
pub mod format;
pub mod replay;
