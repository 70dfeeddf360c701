//! The IPv6 header and its extension headers (RFC 8200). Owns the way from the fixed header to the transport
//! header, and what a host refuses on that way; takes nothing from the extension headers but their length.

use super::{Addr, Family, Fragment, Ip, Parsed, Sums, be16, proto, transport};
use crate::fault::{Fault, planted};
use crate::track::reason::Reason;

/// IANA "IPv6 Extension Header Types". Mobility (135), HIP (139) and Shim6 (140) are not here: the kernel tracks
/// them as protocols of their own.
mod next_header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const NONE: u8 = 59;
    pub(super) const DESTINATION: u8 = 60;
}

/// More hop-by-hop options than this, padding apart, are refused: the kernel's `max_hbh_opts_number`.
const OPTIONS_MAX: usize = 8;

#[inline]
pub(super) fn parse(bytes: &[u8], sums: Sums) -> Parsed<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<40>() else {
        return Parsed::Malformed(Reason::IpTruncated);
    };
    let &[first, _, _, _, len0, len1, next, hop_limit, ref addrs @ ..] = head;
    if first >> 4 != 6 {
        return Parsed::Malformed(Reason::IpHeader);
    }
    // A length of 0 before hop-by-hop options leaves it to an option of a jumbogram's to state it. Jumbograms do not
    // fit in a frame; without that option the kernel takes what came. RFC 2675 section 2
    let stated = usize::from(be16([len0, len1]));
    let length = if stated == 0 && next == next_header::HOP_BY_HOP { rest.len() } else { stated };
    let Some(payload) = rest.get(..length) else {
        return Parsed::Malformed(Reason::IpTruncated);
    };
    let Some((src, dst)) = addresses(addrs) else {
        return Parsed::Malformed(Reason::IpHeader);
    };
    let ip = Ip { family: Family::V6, src, dst, hop_limit, ip_bytes: 40 + payload.len() as u32 };
    if is_extension(next) {
        extended(ip, next, payload, stated, sums)
    } else {
        transport(ip, next, payload, sums)
    }
}

/// Both addresses, unless a host would refuse them.
#[inline(always)]
fn addresses(bytes: &[u8; 32]) -> Option<(Addr, Addr)> {
    let (src, dst) = bytes.split_at(16);
    let src = Addr(*src.first_chunk()?);
    let dst = Addr(*dst.first_chunk()?);
    let special = |addr: &Addr| matches!(addr.0[0], 0 | 0xff);
    if (special(&src) | special(&dst)) && refused(&src, &dst) {
        return None;
    }
    Some((src, dst))
}

/// Addresses that no packet on a link may carry, as the kernel sees it before tracking. RFC 4291 sections 2.5.3
/// and 2.7
#[cold]
fn refused(src: &Addr, dst: &Addr) -> bool {
    let loopback = |addr: &Addr| addr.0 == *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    // Reserved and interface-local scope.
    let never_sent = |addr: &Addr| addr.0[0] == 0xff && addr.0[1] & 0x0f <= 1;
    src.0[0] == 0xff || loopback(src) || loopback(dst) || never_sent(dst)
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        next_header::HOP_BY_HOP
            | next_header::ROUTING
            | next_header::FRAGMENT
            | next_header::AUTHENTICATION
            | next_header::NONE
            | next_header::DESTINATION
    ) && !(next == next_header::DESTINATION && planted(Fault::ExtensionUnknown))
}

/// A packet with at least one extension header, and the payload length that it states.
fn extended(ip: Ip, next: u8, payload: &[u8], stated: usize, sums: Sums) -> Parsed<'_> {
    // A host looks at hop-by-hop options before anything else, and only where they belong: first.
    if next == next_header::HOP_BY_HOP && !hop_by_hop_is_sound(payload) {
        return Parsed::Malformed(Reason::Ipv6Extension);
    }
    match walk(next, payload, true) {
        Walk::Transport { proto, at } => transport(ip, proto, from(payload, at), sums),
        // The header before it is itself cut.
        Walk::Fragment { at } if at > payload.len() => Parsed::Invalid(Reason::Ipv6Extension),
        Walk::Fragment { at } if stated == 0 => whole_fragment(ip, payload, at, sums),
        Walk::Fragment { at } => fragment(ip, payload, at, sums),
        Walk::Broken => Parsed::Invalid(Reason::Ipv6Extension),
    }
}

/// The fragment whose fragment header stands at `at`.
fn fragment(ip: Ip, payload: &[u8], at: usize, sums: Sums) -> Parsed<'_> {
    let rest = from(payload, at);
    let Some((&head, piece)) = rest.split_first_chunk::<8>() else {
        return cut_fragment(ip, rest, sums);
    };
    let [next, _, place0, place1, id @ ..] = head;
    let place = be16([place0, place1]);
    let offset = u32::from(place & !7);
    // A first piece must show its transport header, so that a filter can judge it; the kernel does not hold one that
    // does not, and tracks it as it stands. RFC 8200 section 4.5
    if offset == 0 && lacks_transport_header(next, piece) {
        return match skip_extensions(next, piece) {
            Ok((proto, rest)) => transport(ip, proto, rest, sums),
            Err(reason) => Parsed::Invalid(reason),
        };
    }
    Parsed::Fragment(Fragment {
        family: Family::V6,
        src: ip.src,
        dst: ip.dst,
        id: u32::from_be_bytes(id),
        proto: next,
        hop_limit: ip.hop_limit,
        offset,
        more: place & 1 != 0,
        payload: piece,
        header_bytes: 40 + at as u32,
    })
}

/// A fragment in what may be a jumbogram, which is never cut in pieces: it is not held, and stands for itself.
/// RFC 2675 section 3
#[cold]
fn whole_fragment(ip: Ip, payload: &[u8], at: usize, sums: Sums) -> Parsed<'_> {
    let Some((&[next, _, place0, place1, ..], piece)) = from(payload, at).split_first_chunk::<8>() else {
        return Parsed::Invalid(Reason::Ipv6Extension);
    };
    if be16([place0, place1]) & !7 != 0 {
        return Parsed::Invalid(Reason::FragmentMalformed);
    }
    match skip_extensions(next, piece) {
        Ok((proto, rest)) => transport(ip, proto, rest, sums),
        Err(reason) => Parsed::Invalid(reason),
    }
}

/// A packet that ends inside its fragment header. The kernel reads no more of it than it needs at each point: a first
/// piece (the place is there, and is 0) is one whose transport header is cut.
#[cold]
fn cut_fragment(ip: Ip, rest: &[u8], sums: Sums) -> Parsed<'_> {
    match *rest {
        _ if planted(Fault::FragmentHeaderCut) => Parsed::Malformed(Reason::FragmentMalformed),
        [next, _, place0, place1, ..] if be16([place0, place1]) & !7 == 0 && !is_extension(next) => {
            transport(ip, next, &[], sums)
        }
        _ => Parsed::Malformed(Reason::FragmentMalformed),
    }
}

/// Whether a first fragment ends inside its transport header. A broken chain is not called short: such a piece is
/// held like any other.
fn lacks_transport_header(next: u8, piece: &[u8]) -> bool {
    let Walk::Transport { proto, at } = walk(next, piece, false) else {
        return false;
    };
    let least = match proto {
        proto::TCP => 20,
        proto::UDP | proto::ICMPV6 => 8,
        _ => 1,
    };
    piece.len() < at + least
}

/// The transport header's number and the bytes from it on, behind any extension headers. A fragment header is
/// skipped, as nothing is put together twice; a later fragment has no transport header.
pub(super) fn skip_extensions(next: u8, payload: &[u8]) -> Result<(u8, &[u8]), Reason> {
    match walk(next, payload, false) {
        Walk::Transport { proto, at } => Ok((proto, from(payload, at))),
        Walk::Fragment { .. } | Walk::Broken => Err(Reason::Ipv6Extension),
    }
}

/// The transport header's bytes. An extension header may claim to reach beyond the packet's end; as in the kernel that
/// leaves an empty transport header, with which some protocols can be tracked.
#[inline(always)]
fn from(payload: &[u8], at: usize) -> &[u8] {
    payload.get(at..).unwrap_or_default()
}

/// Where a chain of extension headers leads.
enum Walk {
    /// The header that is none of them starts at `at`, which may lie behind the packet's end.
    Transport {
        proto: u8,
        at: usize,
    },
    /// A fragment header that stops the walk.
    Fragment {
        at: usize,
    },
    Broken,
}

fn walk(mut next: u8, payload: &[u8], stop_at_fragment: bool) -> Walk {
    let mut at = 0;
    // Each header takes at least eight bytes, so the packet's length bounds the walk, as it does in the kernel.
    loop {
        if !is_extension(next) {
            return Walk::Transport { proto: next, at };
        }
        if next == next_header::FRAGMENT && stop_at_fragment {
            return Walk::Fragment { at };
        }
        let rest = payload.get(at..).unwrap_or_default();
        let Some(&[following, len]) = rest.first_chunk::<2>() else {
            return Walk::Broken;
        };
        let bytes = match next {
            next_header::NONE => return Walk::Broken,
            // The kernel reads no further than the place; the rest may be cut.
            next_header::FRAGMENT => match rest.first_chunk::<4>() {
                Some(_) if rest.len() < 8 && planted(Fault::FragmentHeaderWhole) => return Walk::Broken,
                Some(&[_, _, place0, place1]) if be16([place0, place1]) & !7 == 0 => 8,
                Some(_) => return Walk::Fragment { at },
                None => return Walk::Broken,
            },
            next_header::AUTHENTICATION => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        at += bytes;
        next = following;
    }
}

/// Hop-by-hop options that a router would let pass: well-formed, padded no further than to the next eight bytes,
/// and none unknown that asks for the packet to be dropped. RFC 8200 section 4.2
fn hop_by_hop_is_sound(payload: &[u8]) -> bool {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    // RFC 2711, 5570, 9486
    const ROUTER_ALERT: u8 = 5;
    const CALIPSO: u8 = 7;
    const IOAM: u8 = 49;
    const PADDING_MAX: usize = 7;

    let Some(&[_, len]) = payload.first_chunk::<2>() else { return false };
    let Some(mut options) = payload.get(2..(usize::from(len) + 1) * 8) else { return false };
    let (mut padding, mut known) = (0, 0);
    let end = 2 + options.len();
    while let Some((&kind, rest)) = options.split_first() {
        let at = end - options.len();
        if kind == PAD1 {
            padding += 1;
            options = rest;
        } else {
            let Some((&len, body)) = rest.split_first() else { return false };
            let Some((data, rest)) = body.split_at_checked(usize::from(len)) else { return false };
            options = rest;
            if kind == PADN {
                padding += 2 + data.len();
                if data.iter().any(|&byte| byte != 0) {
                    return false;
                }
            } else {
                padding = 0;
                known += 1;
                let sound = match kind {
                    ROUTER_ALERT => len == 2,
                    // Eight bytes, of which the fifth counts the words that follow; its CRC is not checked.
                    CALIPSO => data.get(4).is_some_and(|&words| data.len() >= 8 + usize::from(words) * 4),
                    // Starts at a multiple of four.
                    IOAM => at % 4 == 0,
                    // The two highest bits of an unknown option say what to do: 0 is to pass over it.
                    _ => kind >> 6 == 0,
                };
                if known > OPTIONS_MAX || !sound {
                    return false;
                }
            }
        }
        if padding > PADDING_MAX {
            return false;
        }
    }
    true
}

/// What a quoted packet's headers say: addresses, transport protocol and the quoted transport bytes. `None` if
/// they end too early, or belong to a later fragment. The version is not looked at.
pub(super) fn quoted(bytes: &[u8]) -> Option<(Addr, Addr, u8, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<40>()?;
    let &[_, _, _, _, _, _, next, _, ref addrs @ ..] = head;
    let (src, dst) = addrs.split_at(16);
    let (proto, payload) = skip_extensions(next, rest).ok()?;
    Some((Addr(*src.first_chunk()?), Addr(*dst.first_chunk()?), proto, payload))
}
