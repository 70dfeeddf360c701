//! Where a frame that is not plain belongs: the zone of its VLAN tags or of the tunnel that carries it, and its key there.

use super::burst::Found;
use super::{Core, Frame};
use crate::policy::{Action, Class, Role};
use crate::wire::tunnel::{self, Carried};
use crate::wire::{self, Checksum, Datagram, L4, Packet, Parsed, Tags, Untracked};

/// Of a frame that is to be dropped, because there is no zone for it.
const NO_ZONE: (Parsed<'static>, Option<Found>) = (Parsed::Untracked(Untracked::NoZone), None);

/// Whether there is a flow to be found, now or when the datagram is whole.
fn needs_zone(parsed: &Parsed<'_>) -> bool {
    matches!(parsed, Parsed::Packet(_) | Parsed::Fragment(_))
}

impl Core {
    /// What a frame is to the tracker, and its key: that of its own packet in the zone of its tags, or of what it carries.
    pub(super) fn find_place<'a>(
        &self,
        frame: &Frame<'a>,
        parsed: Parsed<'a>,
        zone: Option<u16>,
    ) -> (Parsed<'a>, Option<Found>) {
        if !needs_zone(&parsed) {
            return (parsed, None);
        }
        match zone {
            Some(zone) if self.inner => self.look_into(frame, parsed, zone),
            Some(zone) => self.keyed(parsed, zone),
            None => NO_ZONE,
        }
    }

    /// As [`Core::find_place`], behind tags whose zone is `known` or is learned now: no frame that has no flow costs one.
    pub(super) fn find_tagged<'a>(
        &self,
        frame: &Frame<'a>,
        tags: Tags,
        parsed: Parsed<'a>,
        known: Option<u16>,
    ) -> (Parsed<'a>, Option<Found>) {
        let learned = || self.zone_of_tags(frame.role, frame.zone, tags);
        let zone = if needs_zone(&parsed) { known.or_else(learned) } else { known };
        self.find_place(frame, parsed, zone)
    }

    fn keyed<'a>(&self, parsed: Parsed<'a>, zone: u16) -> (Parsed<'a>, Option<Found>) {
        let found = match &parsed {
            Parsed::Packet(packet) => self.key(packet, zone),
            _ => None,
        };
        (parsed, found)
    }

    /// Where what tunnels carry is tracked. A tunnel inside a tunnel is tracked as such: one level is looked behind.
    fn look_into<'a>(&self, frame: &Frame<'a>, parsed: Parsed<'a>, zone: u16) -> (Parsed<'a>, Option<Found>) {
        match &parsed {
            Parsed::Packet(Packet { l4: L4::IcmpError { inner }, .. }) if tunnel::quotes_tunnel(inner) => {
                (Parsed::Untracked(Untracked::TunnelError), None)
            }
            Parsed::Packet(packet) if tunnel::may_carry(packet) => {
                match tunnel::carried(frame.bytes, frame.link) {
                    Some(carried) => match self.parse_carried(frame.role, &carried, zone) {
                        Some((parsed, zone)) => self.keyed(parsed, zone),
                        None => NO_ZONE,
                    },
                    None => self.keyed(parsed, zone),
                }
            }
            _ => self.keyed(parsed, zone),
        }
    }

    /// What a tunnel carries and its zone; `None` if it has none.
    fn parse_carried<'a>(&self, from: Role, carried: &Carried<'a>, outer: u16) -> Option<(Parsed<'a>, u16)> {
        // What the NIC said was about the outer packet.
        let (checksum, verify) = (Checksum::Unknown, self.settings.checksum);
        let (parsed, tags) = match wire::parse_untagged(carried.bytes, carried.link, checksum, verify) {
            Ok(parsed) => (parsed, Tags::NONE),
            Err(tagged) => (tagged.parse(checksum, verify), tagged.tags),
        };
        if !needs_zone(&parsed) {
            return Some((parsed, outer));
        }
        let zones = self.flows.zones.as_ref()?.zones();
        let zone = zones.of_tunnel(outer, &carried.tunnel, self.may_learn(from))?;
        Some((parsed, self.zone_of_tags(from, zone, tags)?))
    }

    /// The zone of these tags, if they have one already.
    pub(super) fn known_zone(&self, port_zone: u16, tags: Tags) -> Option<u16> {
        match &self.flows.zones {
            None => Some(port_zone),
            Some(zones) => zones.zones().of_tags(port_zone, tags, false),
        }
    }

    pub(super) fn zone_of_tags(&self, from: Role, port_zone: u16, tags: Tags) -> Option<u16> {
        match &self.flows.zones {
            None => Some(port_zone),
            Some(zones) => zones.zones().of_tags(port_zone, tags, self.may_learn(from)),
        }
    }

    /// Whether tags and tunnels that are new are given a zone: only on the side that may open flows, or strangers could
    /// use all zones up with packets that policy drops.
    fn may_learn(&self, from: Role) -> bool {
        self.policy.decide(from, Class::New, false).action == Action::Accept
    }

    /// The zone of a frame that is a fragment, or carries one; `None` if it has none.
    pub(super) fn zone_of(&self, frame: &Frame<'_>) -> Option<u16> {
        let zone = self.zone_of_tags(frame.role, frame.zone, wire::tags(frame.bytes, frame.link))?;
        if !self.inner {
            return Some(zone);
        }
        match wire::parse(frame.bytes, frame.link, frame.checksum, self.settings.checksum) {
            Parsed::Packet(_) => match tunnel::carried(frame.bytes, frame.link) {
                Some(carried) => self.parse_carried(frame.role, &carried, zone).map(|(_, zone)| zone),
                None => Some(zone),
            },
            _ => Some(zone),
        }
    }

    /// What a datagram that was put together is, and its zone. A fragment that it carries is not put together in turn:
    /// then the tunnel is tracked.
    pub(super) fn read_datagram<'a>(
        &self,
        from: Role,
        datagram: &Datagram<'a>,
        zone: u16,
    ) -> (Parsed<'a>, u16) {
        if self.inner
            && let Some(carried) = tunnel::carried_by(datagram)
        {
            match self.parse_carried(from, &carried, zone) {
                Some((Parsed::Fragment(_), _)) => {}
                Some(inner) => return inner,
                None => return (Parsed::Untracked(Untracked::NoZone), zone),
            }
        }
        (wire::parse_datagram(datagram, self.settings.checksum), zone)
    }
}
