//! How many may be connected: in all, and from one address. Owns the list of who is; when there is no place, who has
//! waited longest without asking anything makes room, so that idle or stalled connections keep nobody out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections at one door.
pub(super) const TOTAL: usize = 256;

/// Connections of one address. Programs on the same machine share one, and are trusted with half of the places.
pub(super) const PER_PEER: usize = 32;
pub(super) const PER_LOOPBACK: usize = 128;

/// The places at one door.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by_number: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    peer: Option<IpAddr>,
    /// Requests that are being answered.
    asking: u32,
    /// Grows: the lower, the longer nothing was asked.
    quiet_since: u64,
    leave: Arc<Notify>,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    leave: Arc<Notify>,
}

/// As long as this is held, a request is being answered, and the connection is not asked to leave.
#[derive(Debug)]
pub(super) struct Asking {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of `peer`, which a unix socket has not; `None` when all are busy.
    pub(super) fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Option<Place> {
        let peer = peer.map(whole);
        let mut taken = self.taken();
        if let Some(peer) = peer {
            let most = if peer.is_loopback() { PER_LOOPBACK } else { PER_PEER };
            taken.make_room(most, |guest| guest.peer == Some(peer))?;
        }
        taken.make_room(TOTAL, |_| true)?;
        let number = taken.next;
        taken.next += 1;
        let leave = Arc::new(Notify::new());
        let guest = Guest { peer, asking: 0, quiet_since: number, leave: Arc::clone(&leave) };
        taken.by_number.insert(number, guest);
        Some(Place { places: Arc::clone(self), number, leave })
    }
}

impl Taken {
    /// Has the one of `those` leave that has been quiet longest, if there are `most` of them.
    fn make_room(&mut self, most: usize, those: impl Fn(&Guest) -> bool) -> Option<()> {
        if self.by_number.values().filter(|guest| those(guest)).count() < most {
            return Some(());
        }
        let quiet = self.by_number.iter().filter(|(_, guest)| those(guest) && guest.asking == 0);
        let number = *quiet.min_by_key(|(_, guest)| guest.quiet_since)?.0;
        self.by_number.remove(&number)?.leave.notify_one();
        Some(())
    }
}

impl Place {
    /// Done when the place is needed for another.
    pub(super) async fn wanted(&self) {
        self.leave.notified().await;
    }

    pub(super) fn asking(&self) -> Asking {
        if let Some(guest) = self.places.taken().by_number.get_mut(&self.number) {
            guest.asking += 1;
        }
        Asking { places: Arc::clone(&self.places), number: self.number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by_number.remove(&self.number);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let now = taken.next;
        taken.next += 1;
        if let Some(guest) = taken.by_number.get_mut(&self.number) {
            guest.asking = guest.asking.saturating_sub(1);
            guest.quiet_since = now;
        }
    }
}

/// Who has an IPv6 address has its /64 as well. RFC 6177
fn whole(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    async fn left(place: &Place) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), place.wanted()).await.is_ok()
    }

    #[tokio::test]
    async fn the_longest_quiet_connection_of_a_peer_makes_room_and_others_keep_theirs() {
        let places = Arc::new(Places::default());
        let other = places.take(peer(2)).unwrap();
        let crowd: Vec<_> = (0..PER_PEER).map(|_| places.take(peer(1)).unwrap()).collect();
        // The first has asked something since, so that the second is the longest quiet.
        drop(crowd[0].asking());
        let _more = places.take(peer(1)).unwrap();
        assert!(left(&crowd[1]).await);
        for kept in [&other, &crowd[0], &crowd[2]] {
            assert!(!left(kept).await);
        }
    }

    #[tokio::test]
    async fn who_is_being_answered_stays_and_the_newcomer_is_refused() {
        let places = Arc::new(Places::default());
        let crowd: Vec<_> = (0..PER_PEER).map(|_| places.take(peer(1)).unwrap()).collect();
        let mut asking: Vec<_> = crowd.iter().map(Place::asking).collect();
        assert!(places.take(peer(1)).is_none());
        asking.pop();
        assert!(places.take(peer(1)).is_some());
        assert!(left(crowd.last().unwrap()).await);
    }

    #[test]
    fn places_are_counted_in_all_and_given_back() {
        let places = Arc::new(Places::default());
        for round in 0..3 {
            let all: Vec<_> = (0..TOTAL).map(|n| places.take(peer((n / PER_PEER) as u8)).unwrap()).collect();
            let asking: Vec<_> = all.iter().map(Place::asking).collect();
            assert!(places.take(peer(99)).is_none(), "round {round}");
            drop((asking, all));
            assert!(places.taken().by_number.is_empty());
        }
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let of = |text: &str| whole(text.parse().unwrap());
        assert_eq!(of("2001:db8::1:2:3:4"), of("2001:db8::"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("::1"), of("::1"));
    }
}
