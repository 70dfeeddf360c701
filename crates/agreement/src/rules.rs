//! What a bump in the wire cannot share with the router that the corpus was recorded on. Each rule names a
//! routing fate, what the router itself sent, or a helper; none names a scenario.

use crate::play::Fate;
use crate::shown::{EventKind, Shown, status};
use conntrack::policy::Class;

use crate::corpus::{Scenario, Step};

/// One written rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    RouterDroppedFirst,
    RouterAnswered,
    Helper,
    Late,
}

impl Rule {
    pub const ALL: [Self; 4] = [Self::RouterDroppedFirst, Self::RouterAnswered, Self::Helper, Self::Late];

    /// What it does, and why.
    pub fn explain(self) -> &'static str {
        match self {
            Self::RouterDroppedFirst => {
                "the router dropped a flow's first packet (TTL, no route, too big): the wire has no such drop, so \
                 policy drops it here; everything is compared"
            }
            Self::RouterAnswered => {
                "the router itself answered: its answer goes in behind the packet, and its own class is not recorded"
            }
            Self::Helper => {
                "a helper expects flows: its marks (HELPER, EXPECTED) are not compared, and the packet that opens an \
                 expected flow may be RELATED there and NEW here"
            }
            Self::Late => "the recorder says that its machine fell behind the scenario's clock: not compared",
        }
    }
}

/// Whether the tracker must see this packet dropped behind it.
pub fn fate(step: &Step) -> Fate {
    let dropped = step.fate == "dropped-after-conntrack" && step.kernel.class == Some(Class::New);
    // A packet to the router itself is "dropped" as well, but after its flow was inserted.
    let inserted = step.kernel.events.iter().any(|event| event.kind == EventKind::New);
    if dropped && !inserted { Fate::DroppedIfNew } else { Fate::Forwarded }
}

/// Takes out of both sides what a rule says cannot be compared, and names the rules that touched this step.
pub fn apply(scenario: &Scenario, step: &Step, kernel: &mut Shown, ours: &mut Shown) -> Vec<Rule> {
    let mut touched = Vec::new();
    if fate(step) == Fate::DroppedIfNew {
        touched.push(Rule::RouterDroppedFirst);
    }
    if !step.sent_back.is_empty() {
        touched.push(Rule::RouterAnswered);
    }
    if scenario.helpers {
        touched.push(Rule::Helper);
        let marks = status::HELPER | status::EXPECTED;
        kernel.entries.iter_mut().for_each(|entry| entry.status &= !marks);
        kernel.events.iter_mut().for_each(|event| event.status = event.status.map(|bits| bits & !marks));
        if step.expected_child && kernel.class == Some(Class::Related) && ours.class == Some(Class::New) {
            ours.class = kernel.class;
        }
    }
    touched
}

/// The packets that the router answered with, as they were on the wire: the recorder zeroes the IPv4
/// identification, which is nobody's, and with it the header checksum.
pub fn on_the_wire(packet: &[u8]) -> Vec<u8> {
    let mut out = packet.to_vec();
    let header_bytes = out.first().filter(|first| *first >> 4 == 4).map(|first| usize::from(first & 15) * 4);
    if let Some(header) =
        header_bytes.and_then(|bytes| out.get_mut(..bytes)).filter(|header| header.len() >= 20)
    {
        header[10..12].fill(0);
        let mut sum: u32 =
            header.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
    out
}
