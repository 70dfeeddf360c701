//! The values that a filter compares with, each read from and written as one word.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use conntrack::event::{EventKind, FlowView};
use conntrack::table::entry::status;
use conntrack::track::sctp::SctpState;
use conntrack::track::tcp::TcpState;
use conntrack::wire::proto;
use serde::{Deserialize, Serialize};

/// Why a word is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("`{0}` is no address family: give ipv4 or ipv6")]
    Family(String),
    #[error(
        "`{0}` is no protocol: give icmp, icmpv6, tcp, udp, udplite, sctp, gre, esp, ah, ospf, igmp, pim, vrrp, eigrp, l2tp, \
         ipencap, ipv6, or a number from 0 to 255"
    )]
    Proto(String),
    #[error("`{0}` is no address: write it like 10.0.0.1, 2001:db8::1 or 10.0.0.0/8")]
    Address(String),
    #[error(
        "`{0}` has no such mask: give a prefix length (/8), or a mask of the address's family (/255.0.0.0)"
    )]
    Mask(String),
    #[error("`{0}` is no state of TCP or SCTP: give one that a listing shows, such as ESTABLISHED")]
    State(String),
    #[error("`{0}` is no mark: write it like 5, 0x10, or with a mask 0x10/0xf0")]
    Mark(String),
    #[error("`{0}` is no status: give ASSURED, SEEN_REPLY or UNREPLIED, with commas between")]
    Status(String),
    #[error("SEEN_REPLY and UNREPLIED cannot both hold: leave one of them out")]
    StatusBoth,
    #[error("`{0}` is no kind of event: give NEW, UPDATES, DESTROY or ALL, with commas between")]
    Kind(String),
}

/// Serde by way of the word.
macro_rules! as_words {
    ($($name:ty),*) => {
        $(impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        })*
    };
}

as_words!(Family, Proto, Net, State, MaskedMark, Status, Kinds);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl FromStr for Family {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "ipv4" => Ok(Self::V4),
            "ipv6" => Ok(Self::V6),
            _ => Err(ValueError::Family(text.to_owned())),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "ipv4" } else { "ipv6" })
    }
}

/// A protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proto(pub u8);

/// Names that `-p` takes; what has none is given by its number. Behind those that are tracked by more than addresses stand
/// names as /etc/protocols has them, where `conntrack` looks for the others.
const PROTOS: [(&str, u8); 17] = [
    ("icmp", proto::ICMP),
    ("icmpv6", proto::ICMPV6),
    ("tcp", proto::TCP),
    ("udp", proto::UDP),
    ("udplite", proto::UDPLITE),
    ("sctp", proto::SCTP),
    ("gre", proto::GRE),
    ("igmp", 2),
    ("ipencap", 4),
    ("ipv6", 41),
    ("esp", 50),
    ("ah", 51),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
];

impl FromStr for Proto {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let named =
            PROTOS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|&(_, number)| number);
        named.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| ValueError::Proto(text.to_owned()))
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// An address, or a network by mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    family: Family,
    /// As a number, of IPv4 the lower 32 bits; masked.
    address: u128,
    mask: u128,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Net {
    const fn width(family: Family) -> u32 {
        match family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn whole(family: Family) -> u128 {
        u128::MAX >> (128 - Self::width(family))
    }

    /// The family of its addresses.
    pub const fn family(self) -> Family {
        self.family
    }

    /// The same address under another mask, as `--mask-src` gives it.
    pub fn masked(self, mask: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::Mask(mask.to_owned());
        let mask: IpAddr = mask.parse().map_err(|_| wrong())?;
        if Family::of(mask) != self.family {
            return Err(wrong());
        }
        let mask = bits(mask);
        Ok(Self { address: self.address & mask, mask, ..self })
    }

    /// Whether the address lies in it; never for one of the other family.
    pub fn contains(self, address: IpAddr) -> bool {
        Family::of(address) == self.family && bits(address) & self.mask == self.address
    }

    fn ip(self, number: u128) -> IpAddr {
        match self.family {
            // The address was made of 32 bits, or cut to them by the mask.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl FromStr for Net {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ValueError::Address(text.to_owned()))?;
        let family = Family::of(address);
        let net = Self { family, address: bits(address), mask: Self::whole(family) };
        let Some(mask) = mask else { return Ok(net) };
        match mask.parse::<u32>() {
            Ok(length) if length <= Self::width(family) => {
                let free = Self::width(family) - length;
                let mask = net.mask.checked_shr(free).map_or(0, |ones| ones << free);
                Ok(Self { address: net.address & mask, mask, family })
            }
            Ok(_) => Err(ValueError::Mask(text.to_owned())),
            Err(_) => net.masked(mask).map_err(|_| ValueError::Mask(text.to_owned())),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip(self.address))?;
        let whole = Self::whole(self.family);
        let free = (!self.mask & whole).trailing_ones();
        if self.mask == whole {
            Ok(())
        } else if free.checked_add(self.mask.count_ones()) == Some(Self::width(self.family)) {
            write!(f, "/{}", self.mask.count_ones())
        } else {
            write!(f, "/{}", self.ip(self.mask))
        }
    }
}

/// A state by its name; some names are both of TCP and of SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct State {
    tcp: Option<TcpState>,
    sctp: Option<SctpState>,
}

impl State {
    /// Whether the flow is in it.
    pub fn is_of(self, flow: &FlowView) -> bool {
        match flow.proto {
            proto::TCP => self.tcp.is_some_and(|state| state as u8 == flow.state),
            proto::SCTP => self.sctp.is_some_and(|state| state as u8 == flow.state),
            _ => false,
        }
    }
}

impl FromStr for State {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is = |name: &str| name.eq_ignore_ascii_case(text);
        // LISTEN and SYN_SENT2 are one state in the words of two profiles.
        let tcp = TcpState::ALL.into_iter().find(|state| is(state.name(false)) || is(state.name(true)));
        let sctp = SctpState::ALL.into_iter().find(|state| is(state.name()));
        match (tcp, sctp) {
            (None, None) => Err(ValueError::State(text.to_owned())),
            (tcp, sctp) => Ok(Self { tcp, sctp }),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcp = self.tcp.map(|state| state.name(false));
        f.write_str(tcp.or(self.sctp.map(SctpState::name)).unwrap_or_default())
    }
}

/// A mark under a mask: `5`, `0x10/0xf0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaskedMark {
    pub value: u32,
    pub mask: u32,
}

impl MaskedMark {
    /// Whether a flow's mark is meant.
    pub const fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

impl FromStr for MaskedMark {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = |word: &str| match word.strip_prefix("0x").or(word.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => word.parse(),
        };
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        match (number(value), number(mask)) {
            (Ok(value), Ok(mask)) => Ok(Self { value, mask }),
            _ => Err(ValueError::Mark(text.to_owned())),
        }
    }
}

impl fmt::Display for MaskedMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{}", self.value),
            mask => write!(f, "{:#x}/{mask:#x}", self.value),
        }
    }
}

/// What is known of a flow besides its state; every word must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Status {
    set: u16,
    clear: u16,
}

impl Status {
    /// Whether every word holds for the flow.
    pub const fn is_of(self, flow: &FlowView) -> bool {
        flow.status & self.set == self.set && flow.status & self.clear == 0
    }
}

impl FromStr for Status {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (mut set, mut clear) = (0, 0);
        for word in text.split(',') {
            match word.trim().to_ascii_uppercase().as_str() {
                "ASSURED" => set |= status::ASSURED,
                "SEEN_REPLY" => set |= status::SEEN_REPLY,
                "UNREPLIED" => clear |= status::SEEN_REPLY,
                _ => return Err(ValueError::Status(word.to_owned())),
            }
        }
        if set & clear != 0 { Err(ValueError::StatusBoth) } else { Ok(Self { set, clear }) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.set & status::SEEN_REPLY, "SEEN_REPLY"),
            (self.set & status::ASSURED, "ASSURED"),
            (self.clear & status::SEEN_REPLY, "UNREPLIED"),
        ];
        f.write_str(&listed(words.into_iter().filter(|(bits, _)| *bits != 0).map(|(_, word)| word)))
    }
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kinds {
    new: bool,
    updates: bool,
    destroy: bool,
}

impl Kinds {
    /// Whether this kind is among them.
    pub const fn has(self, kind: EventKind) -> bool {
        match kind {
            EventKind::New => self.new,
            EventKind::Update | EventKind::Edited => self.updates,
            EventKind::Destroy(_) => self.destroy,
        }
    }
}

impl FromStr for Kinds {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut kinds = Self { new: false, updates: false, destroy: false };
        for word in text.split(',') {
            match word.trim().to_ascii_uppercase().as_str() {
                "NEW" => kinds.new = true,
                "UPDATES" | "UPDATE" => kinds.updates = true,
                "DESTROY" => kinds.destroy = true,
                "ALL" => kinds = Self { new: true, updates: true, destroy: true },
                _ => return Err(ValueError::Kind(word.to_owned())),
            }
        }
        Ok(kinds)
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.new, "NEW"), (self.updates, "UPDATES"), (self.destroy, "DESTROY")];
        f.write_str(&listed(words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word)))
    }
}

fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(",")
}
