//! One worker: frames in, the tracker's verdicts, frames out. Owns its queues, its table and everything it counts;
//! shares nothing on the packet's way. What crosses threads goes over the bus, between bursts.

pub mod clock;
mod follow;
pub mod handoff;
pub mod held;
mod run;
mod serve;
mod thread;

pub use run::{Idle, Parts, Port, Worker, held_frames};
pub use thread::{Running, ThreadError, on_core, start};
