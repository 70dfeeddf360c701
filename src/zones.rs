//! The operators' side of zones: which ones they have named, what limits they set, how full each is.
//! Outside the loop: workers know their zones by number alone and touch what is counted there; see `conntrack::zone`.

use std::collections::HashMap;
use std::sync::Arc;

use conntrack::wire::Tags;
use conntrack::zone::{self, LEARNED_MAX, Origin};
use dashmap::DashMap;

use crate::config::print::vlan_word;
use crate::control::schema::{Limits, ZoneRow};

/// Zones that metrics have series of, at most: a scrape stays small whatever is configured.
pub const SERIES_MAX: usize = 64;

/// Every zone that an operator has spoken of, and the numbers of all.
#[derive(Debug)]
pub struct Registry {
    zones: Arc<zone::Zones>,
    /// By number: shown even while it is empty, and in metrics. Requests come on many tasks, the loop never asks.
    named: DashMap<u16, Named>,
}

/// Why a zone is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// The configuration speaks of it.
    Configured,
    /// A limit was set while it runs.
    Limited,
}

impl Registry {
    /// With the limits that the configuration sets, for so many workers.
    pub fn new(config: &crate::config::Config, workers: usize, secret: [u64; 4]) -> Self {
        let zones = zone::Zones::new(&config.zone_rules(), workers, secret);
        let named = DashMap::new();
        for zone in &config.zones.listed {
            if zone.limit.is_some() {
                zones.set_limit(zone.id, zone.limit);
            }
            named.insert(zone.id, Named::Configured);
        }
        Self { zones, named }
    }

    /// What is shared with the workers.
    pub fn all(&self) -> &zone::Zones {
        &self.zones
    }

    /// A worker's part; each number once.
    pub fn member(&self, worker: usize) -> zone::Member {
        self.zones.member(worker)
    }

    /// What says which VLANs a zone's frames carry; those of its tunnel's outer packets, if it is a tunnel's.
    pub fn tags(&self) -> impl Fn(u16) -> Tags + Send + Sync + 'static {
        let zones = Arc::clone(&self.zones);
        move |zone| match zones.origin(zone) {
            Origin::Port => Tags::NONE,
            Origin::Vlan(place) => place.tags,
            Origin::Tunnel { outer, .. } => match zones.origin(outer) {
                Origin::Vlan(place) => place.tags,
                Origin::Port | Origin::Tunnel { .. } => Tags::NONE,
            },
        }
    }

    /// Limits one zone (0: none), or has it follow the default again.
    pub fn set_limit(&self, zone: u16, limit: Option<u32>) {
        self.zones.set_limit(zone, limit);
        match limit {
            Some(_) => drop(self.named.entry(zone).or_insert(Named::Limited)),
            None => drop(self.named.remove_if(&zone, |_, why| *why == Named::Limited)),
        }
    }

    /// Has the limits that a changed configuration sets, and no others: those set while it ran are gone as well.
    pub fn reload(&self, config: &crate::config::Config) {
        let mut limits: HashMap<u16, Option<u32>> = HashMap::new();
        for zone in &config.zones.listed {
            let limit = limits.entry(zone.id).or_default();
            *limit = limit.or(zone.limit);
        }
        self.zones.set_default_limit(config.zones.limit);
        for (&id, &limit) in &limits {
            self.zones.set_limit(id, limit);
            self.named.insert(id, Named::Configured);
        }
        self.named.retain(|&id, _| {
            let stays = limits.contains_key(&id);
            if !stays {
                self.zones.set_limit(id, None);
            }
            stays
        });
    }

    /// Limits every zone without a limit of its own; 0 for no limit.
    pub fn set_default_limit(&self, limit: u32) {
        self.zones.set_default_limit(limit);
    }

    /// Every zone that has flows, has refused some, or was named.
    pub fn limits(&self) -> Limits {
        let rows = (0..=u16::MAX).filter_map(|zone| {
            let usage = self.zones.usage(zone);
            let shown = usage.count > 0 || usage.refused > 0 || self.named.contains_key(&zone);
            shown.then(|| self.row(zone, usage))
        });
        Limits {
            default_limit: self.zones.default_limit(),
            learned: self.zones.learned(),
            learned_max: LEARNED_MAX,
            zones: rows.collect(),
        }
    }

    /// One zone.
    pub fn limit(&self, zone: u16) -> ZoneRow {
        self.row(zone, self.zones.usage(zone))
    }

    /// The named zones, at most [`SERIES_MAX`] of them.
    pub fn series(&self) -> Vec<ZoneRow> {
        let mut named: Vec<u16> = self.named.iter().map(|entry| *entry.key()).collect();
        named.sort_unstable();
        named.truncate(SERIES_MAX);
        named.into_iter().map(|zone| self.limit(zone)).collect()
    }

    fn row(&self, zone: u16, usage: zone::Usage) -> ZoneRow {
        let mut row = ZoneRow {
            zone,
            limit: usage.limit,
            own_limit: self.zones.has_own_limit(zone),
            count: usage.count,
            refused: usage.refused,
            vlan: None,
            tunnel: None,
            within: None,
        };
        let within = |zone: u16| (zone != 0).then_some(zone);
        match self.zones.origin(zone) {
            Origin::Port => {}
            Origin::Vlan(place) => {
                row.vlan = Some(vlan_word(place.tags));
                row.within = within(place.port_zone);
            }
            Origin::Tunnel { kind, id, outer } => {
                row.tunnel = Some(format!("{}.{id}", kind.name()));
                row.within = within(outer);
            }
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use conntrack::wire::Tags;

    use super::*;
    use crate::config::Config;

    fn registry(zones: &str) -> Registry {
        let ports = "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\nrole = \"inside\"\n\
                     [[port]]\nname = \"b\"\ndevice = \"net_null1\"\nrole = \"outside\"\n";
        let config = Config::parse(&format!("{zones}\n{ports}")).unwrap_or_else(|error| panic!("{error}"));
        Registry::new(&config, 1, [1, 2, 3, 4])
    }

    #[test]
    fn zones_are_shown_while_they_are_named_or_hold_flows() {
        let registry = registry("[[zone]]\nid = 4100\nvlan = \"7.8\"\nlimit = 2\n[zones]\nlimit = 9");
        let member = registry.member(0);
        let shown = || {
            let rows = registry.limits().zones;
            rows.iter().map(|row| (row.zone, row.limit, row.count, row.refused)).collect::<Vec<_>>()
        };
        assert_eq!(shown(), [(4100, 2, 0, 0)]);
        assert!(member.admit(4100) && member.admit(4100) && !member.admit(4100) && member.admit(12));
        assert_eq!(shown(), [(12, 9, 1, 0), (4100, 2, 2, 1)]);
        member.leave(12);
        assert_eq!(shown(), [(4100, 2, 2, 1)]);
        registry.set_limit(12, Some(5));
        assert_eq!(shown(), [(12, 5, 0, 0), (4100, 2, 2, 1)]);
        registry.set_limit(12, None);
        registry.set_limit(4100, None);
        assert_eq!(shown(), [(4100, 9, 2, 1)], "what the file names stays");
    }

    #[test]
    fn a_changed_configuration_has_its_limits_and_no_others() {
        let registry =
            registry("[zones]\nlimit = 9\n[[zone]]\nid = 5\nlimit = 1\n[[zone]]\nid = 6\nlimit = 2");
        registry.set_limit(7, Some(3));
        let ports = "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\nrole = \"inside\"\n\
                     [[port]]\nname = \"b\"\ndevice = \"net_null1\"\nrole = \"outside\"\n";
        let text = format!("[zones]\nlimit = 8\n[[zone]]\nid = 6\nlimit = 4\n{ports}");
        registry.reload(&Config::parse(&text).unwrap());
        let rows = registry.limits().zones;
        assert_eq!(rows.iter().map(|row| (row.zone, row.limit)).collect::<Vec<_>>(), [(6, 4)]);
        assert_eq!([5, 6, 7].map(|zone| registry.limit(zone).limit), [8, 4, 8]);
    }

    #[test]
    fn a_zone_says_where_it_comes_from() {
        let registry = registry("[[zone]]\nid = 4100\nvlan = \"7.8\"");
        assert_eq!(registry.limit(4100).vlan.as_deref(), Some("7.8"));
        assert_eq!(registry.limit(30).vlan.as_deref(), Some("30"));
        let learned = registry.zones.of_tags(0, Tags::new([7, 9]), true).unwrap();
        assert_eq!(registry.limit(learned).vlan.as_deref(), Some("7.9"));
        assert_eq!(registry.limit(0).vlan, None);
    }

    #[test]
    fn metrics_have_series_of_a_bounded_number_of_zones() {
        let registry = registry("");
        for zone in 0..1000 {
            registry.set_limit(zone, Some(1));
        }
        assert_eq!((registry.series().len(), registry.limits().zones.len()), (SERIES_MAX, 1000));
    }
}
