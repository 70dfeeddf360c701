//! Which flows are meant: the filter of listings, events, deletions and changes, by `conntrack`'s rules.
//! Owns the names and the comparison; the control side compares, the command line and the API only carry it.

mod packet;
mod value;

#[cfg(test)]
mod tests;

use conntrack::event::{EventKind, FlowView, Tuple, TupleIds};
use serde::{Deserialize, Serialize};

pub use value::{Family, Kinds, MaskedMark, Net, Proto, State, Status, ValueError};

/// A flow matches if it matches every field that is given. As query parameters: `proto=tcp&src=10.0.0.0/8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^ipv[46]$")]
    pub family: Option<Family>,
    /// A name such as `tcp`, or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^([a-zA-Z]{2,7}|icmpv6|ipv6|l2tp|[0-9]{1,3})$")]
    pub proto: Option<Proto>,
    /// The original direction's source: an address, or a network such as `10.0.0.0/8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9a-fA-F:.]+)?$")]
    pub src: Option<Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9a-fA-F:.]+)?$")]
    pub dst: Option<Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9a-fA-F:.]+)?$")]
    pub reply_src: Option<Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9a-fA-F:.]+)?$")]
    pub reply_dst: Option<Net>,
    /// Ports of TCP, UDP, UDP-Lite and SCTP in the original direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub reply_sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub reply_dport: Option<u16>,
    /// ICMP and ICMPv6 queries, in the original direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 255)]
    pub icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 255)]
    pub icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub icmp_id: Option<u16>,
    /// GRE keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub dstkey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub reply_srckey: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub reply_dstkey: Option<u16>,
    /// A state of TCP or SCTP, in the words of either profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^[a-zA-Z0-9_]+$")]
    pub state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(maximum = 65535)]
    pub zone: Option<u16>,
    /// `5`, or `0x10/0xf0`: the mark's bits under the mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})(/(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}))?$")]
    pub mark: Option<MaskedMark>,
    /// `ASSURED`, `SEEN_REPLY`, `UNREPLIED`, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^[a-zA-Z_]+(,[a-zA-Z_]+)*$")]
    pub status: Option<Status>,
    /// Of events: `NEW`, `UPDATES`, `DESTROY`, with commas between. Means nothing elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, pattern = "^[a-zA-Z]+(,[a-zA-Z]+)*$")]
    pub events: Option<Kinds>,
}

/// Fields that cannot all hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("mismatched address family: {0} and {1} cannot both be of one flow, leave one of them out")]
    Families(String, String),
    #[error("`events` chooses kinds of events: it means nothing in a listing, leave it out")]
    EventsElsewhere,
}

impl Filter {
    /// Whether nothing is asked for, so that every flow matches.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what can match no flow because of a slip.
    pub fn check(&self) -> Result<(), FilterError> {
        let nets = [self.src, self.dst, self.reply_src, self.reply_dst].into_iter().flatten();
        let mut said = self.family.map(|family| (family, family.to_string()));
        for net in nets {
            match &said {
                Some((family, first)) if *family != net.family() => {
                    return Err(FilterError::Families(first.clone(), net.to_string()));
                }
                _ => said = Some((net.family(), net.to_string())),
            }
        }
        Ok(())
    }

    /// As [`Filter::check`], where there are no events to choose.
    pub fn check_flows(&self) -> Result<(), FilterError> {
        if self.events.is_some() { Err(FilterError::EventsElsewhere) } else { self.check() }
    }

    /// Whether the flow is meant.
    pub fn matches(&self, flow: &FlowView) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, have: T) -> bool {
            wanted.is_none_or(|wanted| wanted == have)
        }
        let within = |net: Option<Net>, address| net.is_none_or(|net| net.contains(address));
        let (original, reply) = (&flow.original, &flow.reply);
        is(self.proto.map(|proto| proto.0), flow.proto)
            && is(self.family, Family::of(original.src))
            && is(self.zone, flow.zone)
            && within(self.src, original.src)
            && within(self.dst, original.dst)
            && within(self.reply_src, reply.src)
            && within(self.reply_dst, reply.dst)
            && ids_match(original, [self.sport, self.dport], [self.srckey, self.dstkey])
            && ids_match(reply, [self.reply_sport, self.reply_dport], [self.reply_srckey, self.reply_dstkey])
            && self.icmp_matches(original)
            && self.state.is_none_or(|state| state.is_of(flow))
            && self.mark.is_none_or(|mark| mark.matches(flow.mark))
            && self.status.is_none_or(|status| status.is_of(flow))
    }

    /// Whether the event is meant.
    pub fn matches_event(&self, kind: EventKind, flow: &FlowView) -> bool {
        self.events.is_none_or(|kinds| kinds.has(kind)) && self.matches(flow)
    }

    fn icmp_matches(&self, original: &Tuple) -> bool {
        if self.icmp_type.is_none() && self.icmp_code.is_none() && self.icmp_id.is_none() {
            return true;
        }
        matches!(original.ids, TupleIds::Icmp { icmp_type, code, id }
            if self.icmp_type.is_none_or(|wanted| wanted == icmp_type)
                && self.icmp_code.is_none_or(|wanted| wanted == code)
                && self.icmp_id.is_none_or(|wanted| wanted == id))
    }

    /// The parameters behind a path: empty, or `?proto=tcp&...`.
    pub fn query(&self) -> String {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else { return String::new() };
        let mut query = String::new();
        for (name, value) in &fields {
            // Names, numbers, addresses and commas: nothing that a query would have to escape (RFC 3986 section 3.4).
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&format!("{name}={value}"));
        }
        query
    }
}

/// Source and destination ports, and keys, of one direction.
fn ids_match(tuple: &Tuple, ports: [Option<u16>; 2], keys: [Option<u16>; 2]) -> bool {
    let same = |wanted: [Option<u16>; 2], have: Option<[u16; 2]>| {
        wanted.iter().enumerate().all(|(side, wanted)| match (wanted, have) {
            (None, _) => true,
            (Some(wanted), Some(have)) => *wanted == have[side],
            (Some(_), None) => false,
        })
    };
    let (have_ports, have_keys) = match tuple.ids {
        TupleIds::Ports { sport, dport } => (Some([sport, dport]), None),
        TupleIds::Gre { srckey, dstkey } => (None, Some([srckey, dstkey])),
        TupleIds::Icmp { .. } | TupleIds::None => (None, None),
    };
    same(ports, have_ports) && same(keys, have_keys)
}
