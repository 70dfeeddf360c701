//! The tracker: takes frames, gives back what Linux conntrack would say of each, and a verdict.
//!
//! Read the modules in the order in which a packet meets them: [`wire`] → [`key`] → [`table`] → [`track`] →
//! [`policy`], with [`zone`], [`timer`] and [`event`] beside them; [`tracker`] ties them together.
//! No clock, no I/O, no DPDK: time, memory and randomness are handed in.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "planted-faults"))]
extern crate std;

pub mod event;
pub mod fault;
pub mod fragment;
pub mod key;
pub mod policy;
pub mod table;
pub mod tick;
pub mod timer;
pub mod track;
pub mod tracker;
pub mod wire;
pub mod zone;
