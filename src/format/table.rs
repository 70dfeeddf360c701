//! `-o table`: aligned columns for people. A value that is wider than its column moves the rest of its line.

use std::fmt;
use std::net::IpAddr;

use conntrack::event::{FlowView, Tuple, TupleIds};

use super::proto_name;

/// The columns' names.
pub const TABLE_HEAD: &str = "PROTO    STATE        LEFT     SOURCE                DESTINATION           PACKETS    BYTES       MARK       ZONE  STATUS";

/// One flow of a listing, as one line without its end; `listen` as in [`super::Style`].
pub struct TableLine<'a>(pub &'a FlowView, pub bool);

impl fmt::Display for TableLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(flow, listen) = self;
        let name = match proto_name(flow.proto) {
            "unknown" => flow.proto.to_string(),
            name => name.to_owned(),
        };
        let (source, destination) = ends(&flow.original);
        let dash = || "-".to_owned();
        let [packets, bytes] = flow.count.map_or([dash(), dash()], |[there, back]| {
            [(there.packets, back.packets), (there.bytes, back.bytes)]
                .map(|(there, back)| there.saturating_add(back).to_string())
        });
        let status = match (flow.is_replied(), flow.is_assured()) {
            (true, true) => "assured",
            (true, false) => "replied",
            (false, true) => "unreplied, assured",
            (false, false) => "unreplied",
        };
        write!(
            f,
            "{name:<8} {:<12} {:<8} {source:<21} {destination:<21} {packets:<10} {bytes:<11} {:<10} {:<5} {status}",
            flow.state_name(*listen).unwrap_or("-"),
            left(flow.timeout_secs),
            format!("{:#x}", flow.mark),
            flow.zone,
        )
    }
}

/// `4d23h`, `11m30s`: the two largest units.
fn left(seconds: u32) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

fn ends(tuple: &Tuple) -> (String, String) {
    let with = |address: IpAddr, port: u16| match address {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    };
    match tuple.ids {
        TupleIds::Ports { sport, dport } => (with(tuple.src, sport), with(tuple.dst, dport)),
        TupleIds::Icmp { icmp_type, code, id } => {
            (format!("{} id {id}", tuple.src), format!("{} {icmp_type}/{code}", tuple.dst))
        }
        TupleIds::Gre { srckey, dstkey } => {
            (format!("{} key {srckey}", tuple.src), format!("{} key {dstkey}", tuple.dst))
        }
        TupleIds::None => (tuple.src.to_string(), tuple.dst.to_string()),
    }
}
