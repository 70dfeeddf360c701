//! Where frames come from and go to. A driver gives bursts of frames with what is known of each, and takes bursts to
//! send; it knows no flow and no verdict.

pub mod capture;
pub mod checksum;
pub mod dpdk;
