//! The control side: answers the command line and Prometheus. Never sees a packet.

pub mod schema;
