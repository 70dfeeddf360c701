//! Raw DPDK.
