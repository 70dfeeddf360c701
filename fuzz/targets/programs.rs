//! Whole packet programs: frames, pauses and an operator's commands. One tracker gets the frames in bursts, another one
//! by one, and both must say the same. Counters, events and the listing must agree with each other, nothing outgrows
//! its limit, and when everything has had its time the table is empty.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use arbitrary::{Arbitrary, Unstructured};
use conntrack::event::{EventKind, Events, FlowView, Tuple, TupleIds};
use conntrack::policy::{Action, Class, Policy, Role, Rule};
use conntrack::table::memory::Memory;
use conntrack::tick::{Tick, Ticks};
use conntrack::track::settings::{Pickup, Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::{
    Counters, Cursor, ExpireBudget, Frame, HeldId, Limits, OnFull, Outcome, StateCounts, Tracker, Verdict,
};
use conntrack::wire::{Checksum, Link};
use conntrack_fuzz::checksum;
use conntrack_fuzz::input::{Long, Many};
use conntrack_fuzz::packet::Packet;
use libfuzzer_sys::fuzz_target;

/// So few that a program can fill the table.
const FLOWS: [u32; 4] = [24, 8, 4, 1];
const DATAGRAMS: u16 = 4;

#[derive(Arbitrary, Debug)]
struct Program {
    settings: u8,
    policy: u8,
    commands: Many<Command>,
}

#[derive(Debug)]
enum Command {
    Frame(Sent),
    /// A pause, and the visits to the wheel that its end has room for.
    Wait {
        ticks: u16,
        budget: u8,
    },
    /// A pause of any length, after which all that is due is done.
    LongWait(u32),
    SetTimeout {
        which: u8,
        seconds: u16,
    },
    Configure {
        settings: u8,
        policy: u8,
    },
    Flush {
        budget: u8,
    },
}

/// The frames of one packet, and what a driver says of them.
#[derive(Debug)]
struct Sent {
    frames: Vec<Vec<u8>>,
    role: Role,
    zone: u16,
    link: Link,
    checksum: Checksum,
    /// The burst ends behind it.
    ends_burst: bool,
}

impl<'a> Arbitrary<'a> for Command {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u8::arbitrary(u)? & 15 {
            kind @ 0..=9 => Self::Frame(Sent::read(u, kind < 5)?),
            10 | 11 => Self::Wait { ticks: Arbitrary::arbitrary(u)?, budget: Arbitrary::arbitrary(u)? },
            12 => Self::LongWait(Arbitrary::arbitrary(u)?),
            13 => Self::SetTimeout { which: Arbitrary::arbitrary(u)?, seconds: Arbitrary::arbitrary(u)? },
            14 => Self::Configure { settings: Arbitrary::arbitrary(u)?, policy: Arbitrary::arbitrary(u)? },
            _ => Self::Flush { budget: Arbitrary::arbitrary(u)? },
        })
    }
}

impl Sent {
    fn read(u: &mut Unstructured<'_>, raw: bool) -> arbitrary::Result<Self> {
        let choice = u8::arbitrary(u)?;
        let mut frames = if raw {
            let mut bytes = Long::arbitrary(u)?.0.to_vec();
            if choice & 0x80 == 0 {
                checksum::set_length(&mut bytes);
                checksum::set_checksums(&mut bytes);
            }
            vec![bytes]
        } else {
            Packet::arbitrary(u)?.sent()
        };
        let ethernet = choice & 0x10 != 0;
        if ethernet {
            for frame in &mut frames {
                let v6 = frame.first().is_some_and(|first| first >> 4 == 6);
                let header = [[2; 12].as_slice(), if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
                frame.splice(..0, header);
            }
        }
        Ok(Self {
            frames,
            role: if choice & 1 == 0 { Role::Inside } else { Role::Outside },
            zone: u16::from(choice >> 1 & 1),
            link: if ethernet { Link::Ethernet } else { Link::Ip },
            checksum: match choice >> 2 & 3 {
                2 => Checksum::Good,
                3 => Checksum::Bad,
                _ => Checksum::Unknown,
            },
            ends_burst: choice & 0x20 != 0,
        })
    }
}

fn settings(choice: u8) -> Settings {
    let mut settings = Settings::new(if choice & 1 != 0 { Profile::Classic } else { Profile::Linux });
    settings.checksum = choice & 2 == 0;
    settings.accounting = choice & 4 == 0;
    settings.tcp.window_tracking = choice & 8 == 0;
    settings.tcp.be_liberal = choice & 16 != 0;
    settings.tcp.ignore_invalid_rst = choice & 32 != 0;
    if choice & 64 != 0 {
        settings.tcp.pickup = Pickup::Syn;
    }
    if choice & 128 != 0 {
        settings.tcp.max_retrans = None;
    }
    settings
}

fn policy(choice: u8) -> (Policy, OnFull) {
    let on_full = [OnFull::EarlyDrop, OnFull::DropNew, OnFull::PassUntracked][usize::from(choice & 3) % 3];
    let outgoing = Rule {
        from: Some(Role::Inside),
        classes: Class::New.bit(),
        new_needs_syn: choice & 8 != 0,
        action: Action::Accept,
        mark: 0,
    };
    let known = Rule {
        from: None,
        classes: Class::Established.bit() | Class::Related.bit(),
        new_needs_syn: false,
        action: Action::Accept,
        mark: 0,
    };
    let policy = match choice & 4 {
        0 => Policy::ACCEPT_ALL,
        _ => Policy::new(&[outgoing, known], Action::Drop).expect("two rows"),
    };
    (policy, on_full)
}

/// A tracker, and what has been seen of it from outside.
struct Side {
    tracker: Tracker,
    events: Events,
    /// By event; a flow's tuple is its own while it lives.
    alive: HashSet<Name>,
    created: u64,
    ended: u64,
    held: HashMap<HeldId, usize>,
    packets: [u64; Class::ALL.len()],
    dropped: u64,
    held_frames: u64,
}

impl Side {
    fn new(program: &Program) -> Self {
        let max_entries = FLOWS[usize::from(program.policy >> 4 & 3)];
        let limits = Limits { max_entries, max_datagrams: DATAGRAMS, hash_key: [1, 2, 3, 4] };
        let bytes = Tracker::memory_bytes(&limits).expect("within limits");
        let memory = Memory::heap(bytes).expect("a small heap");
        let (policy, on_full) = policy(program.policy);
        Self {
            tracker: Tracker::new(limits, settings(program.settings), policy, on_full, memory)
                .expect("enough"),
            events: Events::with_capacity(4096),
            alive: HashSet::new(),
            created: 0,
            ended: 0,
            held: HashMap::new(),
            packets: [0; Class::ALL.len()],
            dropped: 0,
            held_frames: 0,
        }
    }

    fn burst(&mut self, now: Tick, frames: &[Frame<'_>]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::untold(Verdict::Forward); frames.len()];
        self.tracker.on_burst(now, frames, &mut outcomes, &mut self.events);
        // A name given up was given up at any time of the burst; a driver sees it afterwards.
        let mut released = HashSet::new();
        for outcome in &outcomes {
            if let Some(class) = outcome.class {
                self.packets[class as usize] += 1;
                assert_eq!(outcome.reason.is_some(), class == Class::Invalid);
            }
            match outcome.verdict {
                Verdict::Hold(id) => {
                    assert!(!released.contains(&id), "a name given again while it is still being released");
                    *self.held.entry(id).or_default() += 1;
                    self.held_frames += 1;
                }
                Verdict::Drop(_) => self.dropped += 1,
                Verdict::HandOff(owner) => panic!("handed to {owner:?}, where there is one tracker"),
                Verdict::Forward => assert!(outcome.class.is_some()),
            }
            if let Some(id) = outcome.releases {
                assert!(self.held.remove(&id).is_some(), "released without frames: {id:?}");
                released.insert(id);
            }
        }
        outcomes
    }

    fn take_discarded(&mut self) {
        while let Some(id) = self.tracker.take_discarded() {
            assert!(self.held.remove(&id).is_some(), "given up without frames: {id:?}");
        }
        assert_eq!(self.tracker.fragments().frames(), self.held.values().sum::<usize>());
    }

    /// All that is due now, in calls of `budget`.
    fn drain(&mut self, now: Tick, budget: u32) {
        while self.tracker.on_tick(now, ExpireBudget { flows: budget }, &mut self.events).more {}
    }

    /// Whether what the tracker tells in different ways is the same.
    fn look(&mut self, now: Tick) {
        self.take_discarded();
        let tracker = &self.tracker;
        for event in self.events.iter() {
            let key = name(&event.flow());
            match event.kind {
                EventKind::New => {
                    assert!(self.alive.insert(key), "two flows with one tuple");
                    self.created += 1;
                }
                EventKind::Update | EventKind::Edited => {
                    assert!(self.alive.contains(&key), "news of a flow that is not")
                }
                EventKind::Destroy(_) => {
                    assert!(self.alive.remove(&key), "an end without a beginning");
                    self.ended += 1;
                }
            }
        }
        assert_eq!(self.events.lost(), 0);
        self.events.clear();

        assert!(tracker.len() <= tracker.capacity());
        assert_eq!(self.alive.len(), tracker.len() as usize);
        let states = tracker.states();
        assert_eq!(states.total(), tracker.len());
        assert!(states.assured <= tracker.len() && states.replied <= tracker.len());

        let counters = tracker.counters();
        assert_eq!(counters.inserted(), self.created);
        assert_eq!(counters.destroyed.iter().sum::<u64>(), self.ended);
        assert_eq!(counters.packets, self.packets);
        assert_eq!(counters.invalid.iter().sum::<u64>(), counters.packets[Class::Invalid as usize]);
        assert_eq!(counters.dropped.iter().sum::<u64>(), self.dropped);
        assert_eq!(counters.fragments_held, self.held_frames);
        assert!(tracker.fragments().waiting() <= usize::from(DATAGRAMS));

        // Those whose time has passed are not listed.
        let mut listed = Vec::with_capacity(7);
        let (mut seen, mut from) = (HashSet::new(), Some(Cursor::default()));
        while let Some(cursor) = from {
            listed.clear();
            from = tracker.page(now, cursor, &mut listed);
            for flow in &listed {
                let key = name(flow);
                assert!(self.alive.contains(&key));
                assert!(seen.insert(key), "listed twice");
                assert!(flow.timeout_secs <= Ticks::MAX.as_secs());
                assert!(flow.created <= now);
            }
        }
    }
}

/// Zone, protocol, addresses and ids of a flow's first packet.
type Name = (u16, u8, IpAddr, IpAddr, [u16; 3]);

fn name(flow: &FlowView) -> Name {
    let Tuple { src, dst, ids } = flow.original;
    let ids = match ids {
        TupleIds::Ports { sport, dport } => [sport, dport, 0],
        TupleIds::Icmp { icmp_type, code, id } => [icmp_type.into(), code.into(), id],
        TupleIds::Gre { srckey, dstkey } => [srckey, dstkey, 0],
        TupleIds::None => [0; 3],
    };
    (flow.zone, flow.proto, src, dst, ids)
}

/// Every counter, in some order.
fn numbers(counters: &Counters) -> Vec<u64> {
    let Counters {
        packets,
        untracked,
        invalid,
        malformed,
        lookups_hit,
        lookups_miss,
        inserted,
        destroyed,
        dropped,
        full_untracked,
        fragments_held,
        fragments_again,
        datagrams_completed,
        datagrams_timed_out,
        datagrams_evicted,
        icmp_error,
        ignored,
    } = counters;
    let single = [
        *lookups_hit,
        *lookups_miss,
        *full_untracked,
        *fragments_held,
        *fragments_again,
        *datagrams_completed,
        *datagrams_timed_out,
        *datagrams_evicted,
        *icmp_error,
        *ignored,
    ];
    [&packets[..], untracked, invalid, malformed, inserted, destroyed, dropped, &single].concat()
}

fuzz_target!(|program: Program| {
    let mut together = Side::new(&program);
    let mut alone = Side::new(&program);
    let mut now = Tick(0);
    let mut burst: Vec<&Sent> = Vec::new();
    for command in &program.commands.0 {
        if let Command::Frame(sent) = command {
            burst.push(sent);
            if !sent.ends_burst {
                continue;
            }
        }
        send(&mut together, &mut alone, now, &mut burst);
        match *command {
            Command::Frame(_) => {}
            Command::Wait { ticks, .. } => now = now.after(Ticks(ticks.into())),
            Command::LongWait(ticks) => now = now.after(Ticks(ticks)),
            Command::SetTimeout { .. } | Command::Configure { .. } | Command::Flush { .. } => {}
        }
        for side in [&mut together, &mut alone] {
            match *command {
                Command::Frame(_) => {}
                Command::Wait { budget, .. } => {
                    let budget = u32::from(budget);
                    let done = side.tracker.on_tick(now, ExpireBudget { flows: budget }, &mut side.events);
                    assert!(done.visited <= budget && done.expired <= done.visited);
                }
                Command::LongWait(_) => side.drain(now, 64),
                Command::SetTimeout { which, seconds } => {
                    let key = TimeoutKey::ALL[usize::from(which) % TimeoutKey::ALL.len()];
                    side.tracker.set_timeout(key, Ticks::from_secs(seconds.into()));
                    assert_eq!(side.tracker.settings().timeouts.get(key), Ticks::from_secs(seconds.into()));
                }
                Command::Configure { settings: choice, policy: choice_too } => {
                    let (policy, on_full) = policy(choice_too);
                    side.tracker.configure(settings(choice), policy, on_full);
                }
                Command::Flush { budget } => {
                    let (mut from, budget) = (Some(Cursor::default()), u32::from(budget).max(1));
                    while let Some(cursor) = from {
                        from = side.tracker.flush(now, cursor, budget, &mut side.events);
                    }
                    assert!(side.tracker.is_empty());
                }
            }
            side.look(now);
        }
    }
    send(&mut together, &mut alone, now, &mut burst);

    // Longer than any timeout.
    now = now.after(Ticks::MAX).after(Ticks(1));
    for side in [&mut together, &mut alone] {
        side.drain(now, 3);
        side.look(now);
        assert!(side.tracker.is_empty());
        assert_eq!(*side.tracker.states(), StateCounts::default());
        assert!(side.held.is_empty(), "held for ever: {:?}", side.held);
    }
});

/// Sends what has gathered, to one tracker as a burst and to the other frame by frame.
fn send(together: &mut Side, alone: &mut Side, now: Tick, burst: &mut Vec<&Sent>) {
    let frames: Vec<Frame<'_>> = burst
        .iter()
        .flat_map(|sent| {
            let Sent { frames, role, zone, link, checksum, .. } = sent;
            frames.iter().map(move |bytes| Frame {
                bytes,
                link: *link,
                role: *role,
                zone: *zone,
                checksum: *checksum,
            })
        })
        .collect();
    burst.clear();
    if frames.is_empty() {
        return;
    }
    let outcomes = together.burst(now, &frames);
    for (frame, outcome) in frames.iter().zip(outcomes) {
        assert_eq!(alone.burst(now, &[*frame]), [outcome]);
    }
    let told = |side: &Side| -> Vec<_> {
        side.events.iter().map(|event| (event.at(), event.kind, event.flow())).collect()
    };
    assert_eq!(told(together), told(alone));
    assert_eq!(together.tracker.states(), alone.tracker.states());
    assert_eq!(numbers(together.tracker.counters()), numbers(alone.tracker.counters()));
    together.look(now);
    alone.look(now);
}
