//! A program of frames, pauses and operator's commands: one tracker gets the frames in bursts, another one by one,
//! and both must say the same. Nothing outgrows its limit.
#![no_main]

use arbitrary::Arbitrary;
use conntrack::event::Events;
use conntrack::policy::{Policy, Role};
use conntrack::table::memory::Memory;
use conntrack::tick::{Tick, Ticks};
use conntrack::track::settings::{Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::{Cursor, ExpireBudget, Frame, Limits, OnFull, Outcome, Tracker, Verdict};
use conntrack::wire::{Checksum, Link};
use libfuzzer_sys::fuzz_target;

const FLOWS: u32 = 64;

#[derive(Arbitrary, Debug)]
enum Command<'a> {
    Burst(Vec<(bool, &'a [u8])>),
    Wait(u16),
    SetTimeout { which: u8, seconds: u16 },
    Flush,
}

fn tracker(classic: bool) -> Tracker {
    let limits = Limits { max_entries: FLOWS, max_datagrams: 8, hash_key: [1, 2, 3, 4] };
    let mut settings = Settings::new(if classic { Profile::Classic } else { Profile::Linux });
    // A fuzzer seldom guesses a checksum.
    settings.checksum = false;
    let memory = Memory::heap(Tracker::memory_bytes(&limits).expect("within limits")).expect("a small heap");
    Tracker::new(limits, settings, Policy::ACCEPT_ALL, OnFull::EarlyDrop, memory).expect("enough memory")
}

fuzz_target!(|program: (bool, Vec<Command<'_>>)| {
    let (classic, commands) = program;
    let mut both = [tracker(classic), tracker(classic)];
    let mut events = Events::with_capacity(16);
    let mut now = Tick(0);
    let nothing =
        Outcome { class: None, direction: None, reason: None, verdict: Verdict::Forward, releases: None };
    for command in commands {
        match command {
            Command::Burst(frames) => {
                let frames: Vec<Frame<'_>> = frames
                    .into_iter()
                    .map(|(inside, bytes)| Frame {
                        bytes,
                        link: Link::Ip,
                        role: if inside { Role::Inside } else { Role::Outside },
                        zone: 0,
                        checksum: Checksum::Unknown,
                    })
                    .collect();
                let mut together = vec![nothing; frames.len()];
                both[0].on_burst(now, &frames, &mut together, &mut events);
                for (frame, together) in frames.iter().zip(together) {
                    let mut alone = [nothing];
                    both[1].on_burst(now, &[*frame], &mut alone, &mut events);
                    assert_eq!(together, alone[0]);
                }
            }
            Command::Wait(ticks) => now = now.after(Ticks(ticks.into())),
            Command::SetTimeout { which, seconds } => {
                let key = TimeoutKey::ALL[usize::from(which) % TimeoutKey::ALL.len()];
                for tracker in &mut both {
                    tracker.set_timeout(key, Ticks::from_secs(seconds.into()));
                }
            }
            Command::Flush => {
                for tracker in &mut both {
                    let mut from = Some(Cursor::default());
                    while let Some(cursor) = from {
                        from = tracker.flush(now, cursor, FLOWS, &mut events);
                    }
                }
            }
        }
        for tracker in &mut both {
            tracker.on_tick(now, ExpireBudget { flows: FLOWS }, &mut events);
            while tracker.take_discarded().is_some() {}
            assert!(tracker.len() <= tracker.capacity());
        }
        assert_eq!(both[0].len(), both[1].len());
        events.clear();
    }
});
