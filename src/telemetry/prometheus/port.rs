//! Series of DPDK's ports and buffers.

use super::Page;
use crate::control::schema::{Info, PoolStats, PortStats, Stats};

/// A number of each port.
type OfPort = fn(&PortStats) -> u64;

pub(super) fn series(page: &mut Page, info: &Info, stats: &Stats) {
    let one = |of: OfPort| {
        stats.ports.iter().map(move |port| (vec![("port", port.name.as_str())], of(port) as f64))
    };
    let links = stats.ports.iter().filter_map(|port| Some((vec![("port", port.name.as_str())], port.up?)));
    let links = links.map(|(labels, up)| (labels, f64::from(u8::from(up))));
    page.gauge("conntrack_port_up", "Whether the port's link is up; absent where that can't be seen.", links);
    let counters: [(_, _, OfPort); 8] = [
        ("receive_packets", "Packets received.", |port| port.rx_packets),
        ("receive_bytes", "Bytes received.", |port| port.rx_bytes),
        ("receive_missed", "Packets lost because the receive queue was full.", |port| port.rx_missed),
        ("receive_errors", "Packets received with an error.", |port| port.rx_errors),
        ("receive_nombuf", "Packets lost because the buffer pool was empty.", |port| port.rx_nombuf),
        ("transmit_packets", "Packets sent.", |port| port.tx_packets),
        ("transmit_bytes", "Bytes sent.", |port| port.tx_bytes),
        ("transmit_errors", "Packets that could not be sent.", |port| port.tx_errors),
    ];
    for (name, help, of) in counters {
        page.counter(&format!("conntrack_port_{name}_total"), help, one(of));
    }
    let about = info.ports.iter().map(|port| {
        (vec![("port", port.name.as_str()), ("device", &port.device), ("driver", &port.driver)], 1.0)
    });
    page.gauge("conntrack_port_info", "What each port is.", about);
    pools(page, stats);
}

fn pools(page: &mut Page, stats: &Stats) {
    let one = |of: fn(&PoolStats) -> u64| {
        stats.pools.iter().map(move |pool| (vec![("pool", pool.name.as_str())], of(pool) as f64))
    };
    page.gauge("conntrack_mempool_objects", "Packet buffers in the pool.", one(|pool| pool.objects));
    page.gauge(
        "conntrack_mempool_available",
        "Packet buffers that no queue, ring or worker has.",
        one(|pool| pool.available),
    );
}
