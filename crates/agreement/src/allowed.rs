//! Where other kernels than Linux 6.18 are known to differ: the list behind docs/kernels.md. On 6.18 it is empty.

use crate::compare::Difference;
use crate::program::Step;

/// One known difference.
pub struct Allowed {
    pub name: &'static str,
    /// The first release, as (major, minor), that does as 6.18; an upper bound where the exact one is not known.
    pub before: (u32, u32),
    touches: fn(proto: u8, first_byte: u8, &Difference) -> bool,
}

/// Every known difference; docs/kernels.md explains each.
pub const KNOWN: [Allowed; 3] = [
    Allowed {
        name: "udp-assured-early",
        before: (6, 0),
        touches: |proto, _, difference| {
            proto == 17 && matches!(difference.field, "status" | "timeout" | "events")
        },
    },
    Allowed { name: "sctp-collision", before: (6, 7), touches: |proto, _, _| proto == 132 },
    Allowed {
        name: "multicast-router-discovery",
        before: (6, 18),
        touches: |proto, icmp_type, difference| {
            proto == 58 && matches!(icmp_type, 151 | 152) && difference.field == "class"
        },
    },
];

/// The known difference that explains where a program parted on this kernel, if one does.
pub fn explains(release: &str, step: &Step, first: &Difference) -> Option<&'static Allowed> {
    let version = version(release)?;
    let Step::Packet { bytes, .. } = step else { return None };
    let (proto, transport) = transport(bytes)?;
    let first_byte = transport.first().copied().unwrap_or(0);
    KNOWN.iter().find(|allowed| version < allowed.before && (allowed.touches)(proto, first_byte, first))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The protocol and the bytes behind an IP header without options or extensions.
fn transport(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes.first()? >> 4 {
        4 => Some((*bytes.get(9)?, bytes.get(20..)?)),
        6 => Some((*bytes.get(6)?, bytes.get(40..)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Side;

    fn udp_parts_by_status(release: &str) -> bool {
        let mut bytes = vec![0x45; 28];
        bytes[9] = 17;
        let step = Step::Packet { side: Side::A, bytes, may_be_dropped: false };
        let difference =
            Difference { field: "status", place: String::new(), kernel: String::new(), ours: String::new() };
        explains(release, &step, &difference).is_some()
    }

    #[test]
    fn nothing_is_allowed_on_the_kernel_that_is_followed() {
        assert!(udp_parts_by_status("5.10.0-28-amd64"));
        assert!(!udp_parts_by_status("6.1.0"));
        assert!(!udp_parts_by_status("6.18.44"));
        assert!(KNOWN.iter().all(|allowed| allowed.before <= (6, 18)));
    }
}
