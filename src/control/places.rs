//! How many may be connected: in all, and from one address. Owns the list of who is; when there is no place, who has
//! waited longest without asking anything makes room, so that idle or stalled connections keep nobody out. Where most are
//! being answered it is the longest answer that ends: streams without end, or read at a crawl, keep nobody out either.

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

/// Who is known stays longer than anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Anybody,
    /// The token was shown, or the socket let them in.
    Known,
}

#[derive(Debug)]
struct Guest {
    peer: Option<IpAddr>,
    /// Requests that are being answered.
    asking: u32,
    /// Of whom asked last.
    standing: Standing,
    /// When the last answer ended, or the one begun that is being given; grows, so that a lower one is longer ago.
    since: u64,
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

    /// A place for a connection of `peer`, which a unix socket has not.
    pub(super) fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Place {
        let peer = peer.map(whole);
        let mut taken = self.taken();
        if let Some(peer) = peer {
            let most = if peer.is_loopback() { PER_LOOPBACK } else { PER_PEER };
            taken.make_room(most, |guest| guest.peer == Some(peer));
        }
        taken.make_room(TOTAL, |_| true);
        let number = taken.next;
        taken.next += 1;
        let leave = Arc::new(Notify::new());
        let guest =
            Guest { peer, asking: 0, standing: Standing::Anybody, since: number, leave: Arc::clone(&leave) };
        taken.by_number.insert(number, guest);
        Place { places: Arc::clone(self), number, leave }
    }
}

impl Taken {
    /// Has one of `those` leave if there are `most` of them: who has been quiet longest; or, where more than three quarters
    /// are being answered, who has been so longest, anybody before who is known. So a newcomer has time to ask.
    fn make_room(&mut self, most: usize, those: impl Fn(&Guest) -> bool) {
        if self.by_number.values().filter(|guest| those(guest)).count() < most {
            return;
        }
        let answered = self.by_number.values().filter(|guest| those(guest) && guest.asking > 0).count();
        let crowded = 4 * answered > 3 * most;
        let rank = |guest: &Guest| match guest.asking {
            0 => (crowded, Standing::Anybody, guest.since),
            _ => (!crowded, guest.standing, guest.since),
        };
        let guests = self.by_number.iter().filter(|(_, guest)| those(guest));
        let Some(number) = guests.min_by_key(|(_, guest)| rank(guest)).map(|(&number, _)| number) else {
            return;
        };
        if let Some(guest) = self.by_number.remove(&number) {
            guest.leave.notify_one();
        }
    }
}

impl Place {
    /// Done when the place is needed for another.
    pub(super) async fn wanted(&self) {
        self.leave.notified().await;
    }

    pub(super) fn asking(&self, standing: Standing) -> Asking {
        let mut taken = self.places.taken();
        let now = taken.next;
        taken.next += 1;
        if let Some(guest) = taken.by_number.get_mut(&self.number) {
            guest.asking += 1;
            (guest.standing, guest.since) = (standing, now);
        }
        drop(taken);
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
            guest.since = now;
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
        let other = places.take(peer(2));
        let crowd: Vec<_> = (0..PER_PEER).map(|_| places.take(peer(1))).collect();
        // The first has asked something since, so that the second is the longest quiet.
        drop(crowd[0].asking(Standing::Anybody));
        let _more = places.take(peer(1));
        assert!(left(&crowd[1]).await);
        for kept in [&other, &crowd[0], &crowd[2]] {
            assert!(!left(kept).await);
        }
    }

    #[tokio::test]
    async fn who_is_being_answered_stays_while_a_quarter_is_quiet() {
        let places = Arc::new(Places::default());
        let crowd: Vec<_> = (0..PER_PEER).map(|_| places.take(peer(1))).collect();
        let busy = 3 * PER_PEER / 4;
        let _asking: Vec<_> = crowd[..busy].iter().map(|place| place.asking(Standing::Anybody)).collect();
        let first = places.take(peer(1));
        assert!(left(&crowd[busy]).await && !left(&crowd[0]).await);
        let _asks = first.asking(Standing::Anybody);
        let _second = places.take(peer(1));
        assert!(left(&crowd[0]).await && !left(&crowd[busy + 1]).await);
    }

    #[tokio::test]
    async fn where_most_are_being_answered_the_longest_answer_ends_and_known_guests_go_last() {
        let places = Arc::new(Places::default());
        let other = places.take(peer(2));
        let _others = other.asking(Standing::Anybody);
        let crowd: Vec<_> = (0..PER_PEER).map(|_| places.take(peer(1))).collect();
        // The last comer was the first to ask.
        let last = crowd.last().unwrap();
        let _known = crowd[0].asking(Standing::Known);
        let _answers: Vec<_> = crowd[1..].iter().rev().map(|place| place.asking(Standing::Anybody)).collect();
        let newcomer = places.take(peer(1));
        let _asks = newcomer.asking(Standing::Anybody);
        assert!(left(last).await);
        for _ in 0..3 * PER_PEER {
            let more = places.take(peer(1));
            std::mem::forget(more.asking(Standing::Anybody));
            std::mem::forget(more);
        }
        for stays in [&other, &crowd[0]] {
            assert!(!left(stays).await, "{stays:?}");
        }
        assert!(left(&newcomer).await && left(&crowd[1]).await);
    }

    #[test]
    fn places_are_counted_in_all_and_given_back() {
        let places = Arc::new(Places::default());
        for round in 0..3 {
            let all: Vec<_> = (0..TOTAL).map(|n| places.take(peer((n / PER_PEER) as u8))).collect();
            let asking: Vec<_> = all.iter().map(|place| place.asking(Standing::Anybody)).collect();
            let more = places.take(peer(99));
            assert_eq!(places.taken().by_number.len(), TOTAL, "round {round}");
            drop((asking, all, more));
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
