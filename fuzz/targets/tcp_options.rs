//! Segments with any options through a flow: only what a plain reader finds in the options counts, and what the flow
//! remembers stays within its bounds.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use conntrack::key::Direction;
use conntrack::table::entry::{Head, status};
use conntrack::tick::Ticks;
use conntrack::track::settings::{Pickup, Profile, Settings};
use conntrack::track::tcp::{TcpState, TcpVars, step};
use conntrack::track::timeout::TimeoutKey;
use conntrack::track::{Context, Step};
use conntrack::wire::Segment;
use conntrack_fuzz::input::Many;
use conntrack_fuzz::packet::{Tcp, options};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    settings: u8,
    segments: Many<Sent>,
}

#[derive(Debug)]
struct Sent {
    reply: bool,
    wait: u32,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    len: u16,
    options: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Sent {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let choice = u8::arbitrary(u)?;
        let reply = choice & 1 != 0;
        let wait = if choice & 4 != 0 { u32::from(u16::arbitrary(u)?) } else { 0 };
        if choice & 2 != 0 {
            let tcp = Tcp::arbitrary(u)?;
            let (seq, ack) = tcp.numbers(reply);
            let Tcp { flags, window, options, len, .. } = tcp;
            return Ok(Self { reply, wait, flags, seq, ack, window, len, options });
        }
        Ok(Self {
            reply,
            wait,
            flags: u8::arbitrary(u)?,
            seq: u32::arbitrary(u)?,
            ack: u32::arbitrary(u)?,
            window: u16::arbitrary(u)?,
            len: u16::arbitrary(u)?,
            options: options(u)?,
        })
    }
}

fn settings(choice: u8) -> Settings {
    let mut settings = Settings::new(if choice & 1 != 0 { Profile::Classic } else { Profile::Linux });
    let tcp = &mut settings.tcp;
    if choice & 2 != 0 {
        tcp.pickup = Pickup::Syn;
    }
    tcp.be_liberal = choice & 4 != 0;
    tcp.ignore_invalid_rst = choice & 8 != 0;
    tcp.window_tracking = choice & 0x30 != 0x30;
    settings
}

/// One flow, kept as the tracker keeps it.
#[derive(Clone, Copy, Default)]
struct Flow {
    head: Head,
    vars: TcpVars,
    live: bool,
}

impl Flow {
    fn take(&mut self, now: u32, sent: &Sent, options: &[u8], settings: &Settings) -> Step {
        if self.live && (self.head.deadline.wrapping_sub(now) as i32) <= 0 {
            *self = Self::default();
        }
        loop {
            let direction = if sent.reply && self.live { Direction::Reply } else { Direction::Original };
            let ctx = Context { now, direction, first: !self.live, settings };
            let segment = Segment {
                sport: 1,
                dport: 2,
                seq: sent.seq,
                ack: sent.ack,
                window: sent.window,
                flags: sent.flags,
                payload_bytes: sent.len.into(),
                options,
            };
            let answer = step(&mut self.head, &mut self.vars, &segment, &ctx);
            match answer {
                Step::Refresh { key, span } => {
                    assert_eq!(span, settings.timeouts.get(key).0);
                    self.head.deadline = now.wrapping_add(span);
                    self.head.timeout_key = key as u8;
                    self.live = true;
                }
                Step::Ignore => assert!(self.live, "a first segment is never ignored"),
                Step::Invalid(_) if self.live => {}
                Step::Invalid(_) => *self = Self::default(),
                Step::Destroy => {
                    assert!(self.live && self.head.status & status::SEEN_REPLY == 0);
                    *self = Self::default();
                }
                Step::Reopen => {
                    assert!(self.live, "a first segment never reopens");
                    *self = Self::default();
                    continue;
                }
            }
            let passed = matches!(answer, Step::Refresh { .. } | Step::Ignore);
            if passed && direction == Direction::Reply {
                self.head.status |= status::SEEN_REPLY;
            }
            return answer;
        }
    }

    fn look(&self) {
        let state = TcpState::from_number(self.head.state);
        assert_eq!(state as u8, self.head.state);
        assert!(usize::from(self.head.timeout_key) < TimeoutKey::ALL.len());
        for side in [Direction::Original, Direction::Reply] {
            assert!(self.vars.scale(side) <= 14);
        }
        if self.live {
            assert!(self.vars.peers[0].maxwin != 0);
        }
    }
}

fuzz_target!(|input: Input| {
    let settings = settings(input.settings);
    let (mut flow, mut plain) = (Flow::default(), Flow::default());
    let mut now = u32::MAX - Ticks::from_secs(60).0;
    for sent in &input.segments.0 {
        now = now.wrapping_add(sent.wait);
        let answer = flow.take(now, sent, &sent.options, &settings);
        flow.look();
        // The same flow, told no more than a plain reader finds.
        let told = plain.take(now, sent, &essence(&sent.options, sent.ack), &settings);
        assert_eq!(answer, told);
        assert_eq!((flow.head, flow.vars, flow.live), (plain.head, plain.vars, plain.live));
    }
});

/// What windows need of the options, written in one certain way. RFC 9293 section 3.1, RFC 7323, RFC 2018
fn essence(bytes: &[u8], ack: u32) -> Vec<u8> {
    let (mut scale, mut sack_permitted, mut sack) = (None, false, None);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            0 => break,
            1 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some(&len) = bytes.get(at + 1) else { break };
        let len = usize::from(len);
        if len < 2 || at + len > bytes.len() {
            break;
        }
        match (bytes[at], len) {
            (3, 3) => scale = Some(bytes[at + 2].min(14)),
            (4, 2) => sack_permitted = true,
            (5, 10 | 18 | 26 | 34) if sack.is_none() => {
                let mut highest = ack;
                for block in bytes[at + 2..at + len].chunks(8) {
                    let right = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                    // Ahead by less than half the circle.
                    if (1..1 << 31).contains(&right.wrapping_sub(highest)) || is_opposite(right, highest) {
                        highest = right;
                    }
                }
                sack = Some(highest);
            }
            _ => {}
        }
        at += len;
    }
    let mut plain = Vec::new();
    if let Some(highest) = sack.filter(|&highest| highest != ack) {
        let [a, b, c, d] = highest.to_be_bytes();
        plain.extend_from_slice(&[5, 10, 0, 0, 0, 0, a, b, c, d]);
    }
    if sack_permitted {
        plain.extend_from_slice(&[4, 2]);
    }
    if let Some(scale) = scale {
        plain.extend_from_slice(&[3, 3, scale]);
    }
    // No options at all is not the same as none that say anything.
    if plain.is_empty() && !bytes.is_empty() {
        plain.push(1);
    }
    plain
}

/// Just half the circle away, where each is behind the other: the kernel's `after` says yes.
fn is_opposite(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) == 1 << 31
}
