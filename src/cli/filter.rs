//! `conntrack`'s filter words as arguments.

use clap::Args;

use super::Failure;
use crate::filter::{Family, Filter, Kinds, MaskedMark, Net, Proto, State, Status};

/// Which flows; every word that is given must hold.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which flows")]
pub(super) struct FilterWords {
    /// tcp, udp, icmp, icmpv6, sctp, udplite, gre, or a number
    #[arg(short = 'p', long, alias = "protonum", value_name = "PROTO")]
    proto: Option<Proto>,
    /// ipv4 or ipv6
    #[arg(short = 'f', long, value_name = "FAMILY")]
    family: Option<Family>,
    /// Source of the original direction: an address, or a network such as 10.0.0.0/8
    #[arg(short = 's', long = "src", alias = "orig-src", value_name = "IP")]
    src: Option<Net>,
    /// Destination of the original direction
    #[arg(short = 'd', long = "dst", alias = "orig-dst", value_name = "IP")]
    dst: Option<Net>,
    /// Source of the reply direction
    #[arg(short = 'r', long, value_name = "IP")]
    reply_src: Option<Net>,
    /// Destination of the reply direction
    #[arg(short = 'q', long, value_name = "IP")]
    reply_dst: Option<Net>,
    /// A mask for --src, such as 255.0.255.0
    #[arg(long, value_name = "MASK", requires = "src")]
    mask_src: Option<String>,
    /// A mask for --dst
    #[arg(long, value_name = "MASK", requires = "dst")]
    mask_dst: Option<String>,
    /// Source port of the original direction
    #[arg(long, alias = "orig-port-src", value_name = "PORT")]
    sport: Option<u16>,
    /// Destination port of the original direction
    #[arg(long, alias = "orig-port-dst", value_name = "PORT")]
    dport: Option<u16>,
    /// Source port of the reply direction
    #[arg(long, value_name = "PORT")]
    reply_port_src: Option<u16>,
    /// Destination port of the reply direction
    #[arg(long, value_name = "PORT")]
    reply_port_dst: Option<u16>,
    /// A state of TCP or SCTP, such as ESTABLISHED
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// ASSURED, SEEN_REPLY or UNREPLIED; several with commas between
    #[arg(short = 'u', long, value_name = "STATUS")]
    status: Option<Status>,
    /// The zone
    #[arg(short = 'w', long, value_name = "ZONE")]
    zone: Option<u16>,
    /// Type of an ICMP or ICMPv6 query
    #[arg(long, alias = "icmpv6-type", value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// Code of an ICMP or ICMPv6 query
    #[arg(long, alias = "icmpv6-code", value_name = "CODE")]
    icmp_code: Option<u8>,
    /// Id of an ICMP or ICMPv6 query
    #[arg(long, alias = "icmpv6-id", value_name = "ID")]
    icmp_id: Option<u16>,
    /// GRE key of the original direction's source, decimal or 0x…
    #[arg(long, alias = "orig-key-src", value_name = "KEY", value_parser = key)]
    srckey: Option<u16>,
    /// GRE key of the original direction's destination
    #[arg(long, alias = "orig-key-dst", value_name = "KEY", value_parser = key)]
    dstkey: Option<u16>,
    /// GRE key of the reply direction's source
    #[arg(long, value_name = "KEY", value_parser = key)]
    reply_key_src: Option<u16>,
    /// GRE key of the reply direction's destination
    #[arg(long, value_name = "KEY", value_parser = key)]
    reply_key_dst: Option<u16>,
}

/// `-m` where it filters.
#[derive(Debug, Default, Args)]
pub(super) struct MarkWord {
    /// The mark, perhaps under a mask: 5, 0x10/0xf0
    #[arg(short = 'm', long, value_name = "MARK[/MASK]", help_heading = "Which flows")]
    pub(super) mark: Option<MaskedMark>,
}

/// `-e` of events.
#[derive(Debug, Default, Args)]
pub(super) struct KindsWord {
    /// NEW, UPDATES, DESTROY or ALL; several with commas between
    #[arg(short = 'e', long, value_name = "KINDS")]
    event_mask: Option<Kinds>,
}

fn key(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("`{text}` is no GRE key: write it like 17 or 0x11, up to 0xffff"))
}

impl FilterWords {
    /// The filter without a mark.
    pub(super) fn filter(self) -> Result<Filter, Failure> {
        let masked = |net: Option<Net>, mask: Option<String>| match (net, mask) {
            (Some(net), Some(mask)) => {
                net.masked(&mask).map(Some).map_err(|error| Failure::Usage(error.to_string()))
            }
            (net, _) => Ok(net),
        };
        let filter = Filter {
            family: self.family,
            proto: self.proto,
            src: masked(self.src, self.mask_src)?,
            dst: masked(self.dst, self.mask_dst)?,
            reply_src: self.reply_src,
            reply_dst: self.reply_dst,
            sport: self.sport,
            dport: self.dport,
            reply_sport: self.reply_port_src,
            reply_dport: self.reply_port_dst,
            icmp_type: self.icmp_type,
            icmp_code: self.icmp_code,
            icmp_id: self.icmp_id,
            srckey: self.srckey,
            dstkey: self.dstkey,
            reply_srckey: self.reply_key_src,
            reply_dstkey: self.reply_key_dst,
            state: self.state,
            zone: self.zone,
            status: self.status,
            mark: None,
            events: None,
        };
        filter.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(filter)
    }

    /// The filter with the mark that it asks for.
    pub(super) fn with_mark(self, mark: MarkWord) -> Result<Filter, Failure> {
        Ok(Filter { mark: mark.mark, ..self.filter()? })
    }

    /// The filter of events.
    pub(super) fn with_events(self, mark: MarkWord, kinds: KindsWord) -> Result<Filter, Failure> {
        Ok(Filter { events: kinds.event_mask, ..self.with_mark(mark)? })
    }
}
