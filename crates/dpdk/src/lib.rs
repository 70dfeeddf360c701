//! Safe DPDK: the only room with raw DPDK pointers, and the door to it.
//!
//! - [`eal`]: starts DPDK once a process ([`eal::Eal`]), registers worker threads, ends it.
//! - [`mempool`]: where buffers come from. [`mbuf`]: one owned frame. [`burst`]: up to 64 of them.
//! - [`port`]: a device, opened by name; [`port::Port::start`] gives its queues, each for one thread at a time.
//! - [`queue`]: frames in and out. [`ring`]: frames from one thread to another.
//! - [`error`]: sentences for the operator. [`log`]: DPDK's own messages, handed to the caller instead of a terminal.
//!
//! ```no_run
//! use dpdk::{burst::Burst, eal, mempool::{self, Mempool}, port::{Port, PortConfig}};
//! # fn main() -> Result<(), dpdk::Error> {
//! let eal = eal::Eal::start(&eal::Config { memory_mib: 256, ..eal::Config::default() }, |_, _| ())?;
//! let pool = Mempool::create(eal.handle(), &mempool::PoolConfig::new("frames", 8191))?;
//! let mut port = Port::open(eal.handle(), &"net_null0".parse()?)?;
//! let mut queues = port.start(&PortConfig::default(), &pool)?;
//! let mut burst = Burst::new();
//! queues.rx[0].receive(&mut burst);
//! queues.tx[0].send(&mut burst);      // what did not fit stays in `burst`
//! # Ok(()) }
//! ```
//!
//! What keeps it sound: handles hold what they need alive (a queue its port and pool, all of them EAL); a queue or
//! ring end exists once and is not `Sync`; a frame is owned by one [`mbuf::Mbuf`]; EAL is only taken down when
//! every buffer has come home. Reading a field costs what C's inline function costs.

pub mod burst;
pub mod eal;
pub mod error;
pub mod log;
pub mod mbuf;
pub mod mempool;
pub mod port;
pub mod queue;
pub mod ring;
pub mod telemetry;

pub use error::Error;

#[cfg(test)]
mod tests;
