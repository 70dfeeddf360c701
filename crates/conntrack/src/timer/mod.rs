//! Room 6: the wheel. Owns when a flow is looked at next; sees no packet and reads no clock.

#[cfg(test)]
mod model;
pub mod wheel;
