//! What the kernel shows against what the tracker shows, field by field.

use crate::shown::{Entry, Event, EventKind, Shown, class_text, status_text, tuple_text};

/// How far two remaining times may lie apart, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slack {
    /// The kernel may show this much less.
    pub below: u32,
    /// The kernel may show this much more.
    pub above: u32,
    /// DESTROY is not compared: when an expiry is noticed is not defined.
    pub skip_destroy: bool,
}

impl Slack {
    /// No time passes: every second must be the same.
    pub const NONE: Self = Self { below: 0, above: 0, skip_destroy: false };
    /// Time passes while somebody records it.
    pub const TIMED: Self = Self { below: 1, above: 1, skip_destroy: true };

    fn allows(self, kernel: u32, ours: u32) -> bool {
        kernel.saturating_add(self.below) >= ours && kernel <= ours.saturating_add(self.above)
    }
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs, without its place or value: differences of the same kind are counted together.
    pub field: &'static str,
    /// Which entry or event.
    pub place: String,
    pub kernel: String,
    pub ours: String,
}

/// Whether both show the same: the quick form of [`differences`].
pub fn agree(kernel: &Shown, ours: &Shown, slack: Slack) -> bool {
    kernel.class == ours.class
        && kernel.direction == ours.direction
        && kernel.entries.len() == ours.entries.len()
        && kernel.entries.iter().zip(&ours.entries).all(|(kernel, ours)| entries_agree(kernel, ours, slack))
        && events_agree(&kernel.events, &ours.events, slack)
}

/// Every field that differs, the packet's class first.
pub fn differences(kernel: &Shown, ours: &Shown, slack: Slack) -> Vec<Difference> {
    let mut out = Vec::new();
    if (kernel.class, kernel.direction) != (ours.class, ours.direction) {
        push(
            &mut out,
            "class",
            String::new(),
            class_text(kernel.class, kernel.direction),
            class_text(ours.class, ours.direction),
        );
    }
    for entry in &kernel.entries {
        match ours.entries.iter().find(|other| other.n == entry.n) {
            Some(other) => compare_entry(&mut out, entry, other, slack),
            None => {
                push(&mut out, "entry missing", format!("entry {}", entry.n), entry.to_string(), "-".into())
            }
        }
    }
    for entry in &ours.entries {
        if !kernel.entries.iter().any(|other| other.n == entry.n) {
            push(&mut out, "entry too many", format!("entry {}", entry.n), "-".into(), entry.to_string());
        }
    }
    if !events_agree(&kernel.events, &ours.events, slack) {
        push(
            &mut out,
            "events",
            String::new(),
            events_text(&kernel.events, slack),
            events_text(&ours.events, slack),
        );
    }
    out
}

fn push(out: &mut Vec<Difference>, field: &'static str, place: String, kernel: String, ours: String) {
    out.push(Difference { field, place, kernel, ours });
}

fn entries_agree(kernel: &Entry, ours: &Entry, slack: Slack) -> bool {
    slack.allows(kernel.timeout, ours.timeout)
        && kernel.n == ours.n
        && kernel.proto == ours.proto
        && kernel.state == ours.state
        && kernel.status == ours.status
        && kernel.original == ours.original
        && kernel.reply == ours.reply
        && kernel.count == ours.count
        && kernel.tcp == ours.tcp
        && kernel.vtag == ours.vtag
        && kernel.mark == ours.mark
        && kernel.zone == ours.zone
}

fn compare_entry(out: &mut Vec<Difference>, kernel: &Entry, ours: &Entry, slack: Slack) {
    let n = kernel.n;
    let mut field = |name: &'static str, same: bool, kernel: String, ours: String| {
        if !same {
            push(out, name, format!("entry {n}"), kernel, ours);
        }
    };
    let tuple = |entry: &Entry| format!("proto {} {}", entry.proto, tuple_text(&entry.original));
    let same = kernel.proto == ours.proto && kernel.original == ours.original;
    field("original tuple", same, tuple(kernel), tuple(ours));
    field("reply tuple", kernel.reply == ours.reply, tuple_text(&kernel.reply), tuple_text(&ours.reply));
    let state = |entry: &Entry| entry.state.unwrap_or("-").to_owned();
    field("state", kernel.state == ours.state, state(kernel), state(ours));
    let timeout = |entry: &Entry| format!("{}s", entry.timeout);
    field("timeout", slack.allows(kernel.timeout, ours.timeout), timeout(kernel), timeout(ours));
    field("status", kernel.status == ours.status, status_text(kernel.status), status_text(ours.status));
    let count = |entry: &Entry| match entry.count {
        Some([original, reply]) => {
            format!("packets {}/{} bytes {}/{}", original.packets, reply.packets, original.bytes, reply.bytes)
        }
        None => "-".into(),
    };
    field("counters", kernel.count == ours.count, count(kernel), count(ours));
    let tcp = |entry: &Entry| match entry.tcp {
        Some(tcp) => {
            format!("wscale {}/{} flags {}/{}", tcp.wscale[0], tcp.wscale[1], tcp.flags[0], tcp.flags[1])
        }
        None => "-".into(),
    };
    field("tcp", kernel.tcp == ours.tcp, tcp(kernel), tcp(ours));
    let vtag = |entry: &Entry| match entry.vtag {
        Some([original, reply]) => format!("{original}/{reply}"),
        None => "-".into(),
    };
    field("sctp vtag", kernel.vtag == ours.vtag, vtag(kernel), vtag(ours));
    field("mark", kernel.mark == ours.mark, kernel.mark.to_string(), ours.mark.to_string());
    field("zone", kernel.zone == ours.zone, kernel.zone.to_string(), ours.zone.to_string());
}

fn compared(events: &[Event], slack: Slack) -> impl Iterator<Item = &Event> {
    events.iter().filter(move |event| !(slack.skip_destroy && event.kind == EventKind::Destroy))
}

fn events_agree(kernel: &[Event], ours: &[Event], slack: Slack) -> bool {
    let (mut left, mut right) = (compared(kernel, slack), compared(ours, slack));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(kernel), Some(ours)) => {
                let timeouts = match (kernel.timeout, ours.timeout) {
                    (Some(kernel), Some(ours)) => slack.allows(kernel, ours),
                    (None, None) => true,
                    _ => false,
                };
                // An UPDATE carries the protocol's part only where that part is what changed.
                let states = kernel.state.is_none() || kernel.state == ours.state;
                if kernel.kind != ours.kind
                    || kernel.n != ours.n
                    || kernel.status != ours.status
                    || !timeouts
                    || !states
                {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn events_text(events: &[Event], slack: Slack) -> String {
    let words: Vec<_> = compared(events, slack).map(ToString::to_string).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}
