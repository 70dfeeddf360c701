//! `[zones]` and `[[zone]]`: which frames are in which zone, and how many flows each may hold.
//! Owns the rule that no two VLANs and no two pairs of ports share a zone unless the file says so.

use std::collections::{HashMap, HashSet};

use conntrack::wire::Tags;
use conntrack::zone::{By, LEARNED_FIRST, Place, Rules};
use toml::Spanned;

use super::check::{Checked, problem};
use super::file::{File, Leaf, ZoneFile};
use super::print::vlan_word;
use super::{Config, Port, names};

/// The zones of flows: equal addresses and ports in two zones are two flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    pub by: By,
    /// Flows at most in each zone without a limit of its own; 0 for no limit, the default.
    pub limit: u32,
    pub listed: Vec<Zone>,
}

impl Zones {
    /// Limits a zone (0: no limit), or has it follow `zones.limit` again; the rows are as a file would have them.
    pub fn set_limit(&mut self, id: u16, limit: Option<u32>) {
        let mut limited = false;
        for zone in self.listed.iter_mut().filter(|zone| zone.id == id && zone.limit.is_some()) {
            zone.limit = limit;
            limited = true;
        }
        match (limit, self.listed.iter_mut().find(|zone| zone.id == id)) {
            // A row that says nothing any more is none.
            (None, _) => self.listed.retain(|zone| zone.limit.is_some() || zone.places()),
            (Some(_), _) if limited => {}
            (Some(_), Some(zone)) => zone.limit = limit,
            (Some(_), None) => self.listed.push(Zone { id, port: None, tags: Tags::NONE, limit }),
        }
    }
}

/// One `[[zone]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub id: u16,
    /// Index in [`Config::ports`] of either port of the pair whose frames are meant.
    pub port: Option<usize>,
    /// [`Tags::NONE`] for untagged frames, or where only a limit is given.
    pub tags: Tags,
    /// Flows at most; 0 for no limit. `None`: as `zones.limit` says.
    pub limit: Option<u32>,
}

impl Zone {
    /// Whether it says where frames belong, and not only how many flows there may be.
    pub(super) fn places(&self) -> bool {
        self.port.is_some() || self.tags != Tags::NONE
    }
}

impl Config {
    /// The zone of a port's untagged frames, by its index.
    pub fn port_zone(&self, port: usize) -> u16 {
        port_zone(self.zones.by, &self.zones.listed, &self.ports, port)
    }

    /// What the trackers are told of zones.
    pub fn zone_rules(&self) -> Rules {
        let Zones { by, limit, listed } = &self.zones;
        let port_zones: Vec<u16> = (0..self.ports.len()).map(|port| self.port_zone(port)).collect();
        Rules {
            by: *by,
            listed: listed
                .iter()
                .filter(|zone| zone.tags != Tags::NONE)
                .map(|zone| (place(&port_zones, zone), zone.id))
                .collect(),
            reserved: listed.iter().map(|zone| zone.id).chain(port_zones.iter().copied()).collect(),
            default_limit: *limit,
            inner: self.tunnel_inner,
        }
    }
}

/// The number of the port's pair, in the order of the file; a port without a peer is a pair by itself.
fn pair_of(ports: &[Port], port: usize) -> usize {
    let first = |port: usize| ports[port].peer.map_or(port, |peer| peer.min(port));
    (0..first(port)).filter(|&other| first(other) == other).count()
}

fn port_zone(by: By, listed: &[Zone], ports: &[Port], port: usize) -> u16 {
    let own = |zone: &&Zone| {
        zone.tags == Tags::NONE
            && zone.port.is_some_and(|named| pair_of(ports, named) == pair_of(ports, port))
    };
    match (by, listed.iter().find(own)) {
        (By::Nothing | By::Vlan, _) => 0,
        (By::Port | By::PortVlan, Some(zone)) => zone.id,
        (By::Port | By::PortVlan, None) => automatic(by, pair_of(ports, port)),
    }
}

/// The zone of a pair that the file gives none.
fn automatic(by: By, pair: usize) -> u16 {
    let pair = u16::try_from(pair).unwrap_or(u16::MAX);
    match by {
        By::Nothing | By::Vlan => 0,
        By::Port => pair,
        // The first pair's VLANs have their own numbers as zones, so the other pairs begin behind those.
        By::PortVlan if pair == 0 => 0,
        By::PortVlan => (LEARNED_FIRST - 1).saturating_add(pair),
    }
}

/// Where the zone's frames are, with the zone of each port.
fn place(port_zones: &[u16], zone: &Zone) -> Place {
    Place {
        port_zone: zone.port.and_then(|port| port_zones.get(port).copied()).unwrap_or(0),
        tags: zone.tags,
    }
}

pub(super) fn check(file: &File, by: By, ports: &[Port]) -> Checked<Zones> {
    let limit = file.zones.limit.as_ref().map(limit).transpose()?.unwrap_or(0);
    let listed = file.zone.iter().map(|zone| read(zone, by, ports)).collect::<Checked<Vec<Zone>>>()?;
    // Worked out once: a file may list as many zones as fit into it.
    let port_zones: Vec<u16> = (0..ports.len()).map(|port| port_zone(by, &listed, ports, port)).collect();
    let known = Known {
        places: listed
            .iter()
            .filter(|zone| zone.tags != Tags::NONE)
            .map(|zone| place(&port_zones, zone))
            .collect(),
        pairs: listed
            .iter()
            .filter(|zone| zone.tags == Tags::NONE)
            .filter_map(|zone| zone.port.map(|port| pair_of(ports, port)))
            .collect(),
    };
    let mut limits: HashMap<u16, u32> = HashMap::new();
    let mut places: HashMap<(Option<usize>, Place), u16> = HashMap::new();
    for (zone, at) in listed.iter().zip(&file.zone) {
        if let (Some(own), Some(value)) = (zone.limit, &at.get_ref().limit)
            && limits.insert(zone.id, own).is_some_and(|other| other != own)
        {
            return problem(value, format!("zone {} has another limit above: keep one of them", zone.id));
        }
        if !zone.places() {
            continue;
        }
        // Untagged frames are told apart by their pair, tagged ones by their pair's zone.
        let pair = zone.port.filter(|_| zone.tags == Tags::NONE).map(|port| pair_of(ports, port));
        let place = place(&port_zones, zone);
        let key = if pair.is_some() { (pair, Place::default()) } else { (None, place) };
        if places.insert(key, zone.id).is_some() {
            return problem(at, "these frames have a zone already, in a [[zone]] above: keep one of them");
        }
    }
    for (zone, at) in listed.iter().zip(&file.zone) {
        if zone.places() {
            unshared(zone, at, by, &known, ports)?;
        }
    }
    Ok(Zones { by, limit, listed })
}

/// What the file says of zones, for quick answers.
struct Known {
    /// Of tagged frames.
    places: HashSet<Place>,
    /// Pairs of ports whose untagged frames have a zone.
    pairs: HashSet<usize>,
}

/// A number that others have by themselves may only be given away if those others are listed as well.
fn unshared(zone: &Zone, at: &Spanned<ZoneFile>, by: By, known: &Known, ports: &[Port]) -> Checked<()> {
    let id = &at.get_ref().id;
    let own_number = Place { port_zone: 0, tags: Tags::new([zone.id, 0]) };
    let vlans = matches!(by, By::Vlan | By::PortVlan) && (1..LEARNED_FIRST).contains(&zone.id);
    if vlans && !known.places.contains(&own_number) {
        return problem(
            id,
            format!(
                "zone {0} is VLAN {0}'s by itself: choose an id from {LEARNED_FIRST} on, or add a [[zone]] for vlan = {0} \
                 too (with the same id, if they shall share it)",
                zone.id
            ),
        );
    }
    let pair = zone.port.map(|port| pair_of(ports, port));
    for (other, port) in ports.iter().enumerate() {
        let its_own = Some(pair_of(ports, other)) == pair && zone.tags == Tags::NONE;
        let given = known.pairs.contains(&pair_of(ports, other));
        // Zone 0 is where untagged frames are by themselves: to name it for a VLAN is to say that it is the native one.
        let native = zone.id == 0 && zone.tags != Tags::NONE;
        if matches!(by, By::Port | By::PortVlan)
            && !its_own
            && !given
            && !native
            && automatic(by, pair_of(ports, other)) == zone.id
        {
            return problem(
                id,
                format!(
                    "zone {} is that of port `{}` by itself: choose another id, or add a [[zone]] for that port too (with \
                     the same id, if they shall share it)",
                    zone.id, port.name
                ),
            );
        }
    }
    Ok(())
}

fn read(at: &Spanned<ZoneFile>, by: By, ports: &[Port]) -> Checked<Zone> {
    let file = at.get_ref();
    let Ok(id) = u16::try_from(*file.id.get_ref()) else {
        return problem(&file.id, "a zone's id is a number from 0 to 65535");
    };
    let port = match &file.port {
        None => None,
        Some(name) => {
            let Some(port) = ports.iter().position(|port| port.name == *name.get_ref()) else {
                let hint = names::closest(name.get_ref(), ports.iter().map(|port| port.name.as_str()))
                    .map(|name| format!("did you mean `{name}`?"))
                    .unwrap_or_else(|| "name one of the [[port]] tables".to_owned());
                return problem(name, format!("no port is called `{}`: {hint}", name.get_ref()));
            };
            if !matches!(by, By::Port | By::PortVlan) {
                return problem(
                    name,
                    "zones are not told apart by port: set zones.by = \"port\" or \"port_vlan\", or remove port",
                );
            }
            Some(port)
        }
    };
    let tags = match &file.vlan {
        None => Tags::NONE,
        Some(value) if !matches!(by, By::Vlan | By::PortVlan) => {
            return problem(
                value,
                "zones are not told apart by VLAN: set zones.by = \"vlan\" or \"port_vlan\", or remove vlan",
            );
        }
        Some(value) => vlan(value)?,
    };
    if let (By::PortVlan, None, Some(value)) = (by, port, &file.vlan) {
        return problem(
            value,
            format!("VLAN {} is another one on each pair of ports: add port = \"NAME\"", vlan_word(tags)),
        );
    }
    let limit = file.limit.as_ref().map(self::limit).transpose()?;
    let zone = Zone { id, port, tags, limit };
    if !zone.places() && limit.is_none() {
        return problem(at, "this [[zone]] says nothing: add port, vlan or limit");
    }
    Ok(zone)
}

fn limit(value: &Spanned<i64>) -> Checked<u32> {
    match u32::try_from(*value.get_ref()) {
        Ok(limit) if limit < u32::MAX => Ok(limit),
        _ => problem(value, "a zone's limit is a number of flows, or 0 for none"),
    }
}

/// `100`, `"100"`, or `"100.7"` with the outer tag first.
fn vlan(value: &Spanned<Leaf>) -> Checked<Tags> {
    let id = |text: &str| text.parse::<u16>().ok().filter(|id| (1..=4094).contains(id));
    let read = match value.get_ref() {
        Leaf::Number(number) => id(&number.to_string()).map(|id| Tags::new([id, 0])),
        Leaf::Text(text) => match text.split_once('.') {
            None => id(text).map(|id| Tags::new([id, 0])),
            Some((outer, inner)) => id(outer).zip(id(inner)).map(|(outer, inner)| Tags::new([outer, inner])),
        },
        Leaf::Switch(_) | Leaf::Table(_) => None,
    };
    read.map_or_else(
        || problem(value, "vlan is a number from 1 to 4094, or two with the outer one first: \"100.7\""),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_set_later_is_a_row_of_the_file() {
        let ports = "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\nrole = \"inside\"\n\
                     [[port]]\nname = \"b\"\ndevice = \"net_null1\"\nrole = \"outside\"\n";
        let zones = "[[zone]]\nid = 5000\nvlan = 7\n[[zone]]\nid = 5000\nvlan = 8\nlimit = 2\n\
                     [[zone]]\nid = 6000\nvlan = 9\n[[zone]]\nid = 6\nlimit = 4\n";
        let mut config = Config::parse(&format!("{ports}{zones}")).unwrap_or_else(|error| panic!("{error}"));
        let mut set = |id, limit| {
            config.zones.set_limit(id, limit);
            assert_eq!(Config::parse(&config.to_toml()).unwrap(), config, "{}", config.to_toml());
            config.zones.listed.iter().map(|zone| (zone.id, zone.limit)).collect::<Vec<_>>()
        };
        let was = [(5000, None), (5000, Some(2)), (6000, None), (6, Some(4))];
        assert_eq!(set(77, None), was, "it follows the default already");
        assert_eq!(set(5000, Some(9)), [(5000, None), (5000, Some(9)), (6000, None), (6, Some(4))]);
        assert_eq!(set(6000, Some(0)), [(5000, None), (5000, Some(9)), (6000, Some(0)), (6, Some(4))]);
        assert_eq!(set(77, Some(1))[4], (77, Some(1)));
        assert_eq!(set(6, None), [(5000, None), (5000, Some(9)), (6000, Some(0)), (77, Some(1))]);
        assert_eq!(set(5000, None), [(5000, None), (5000, None), (6000, Some(0)), (77, Some(1))]);
    }
}
