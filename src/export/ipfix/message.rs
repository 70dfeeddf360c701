//! One message being put together: records one behind the other, up to a size. RFC 7011 section 3

use super::template::{RECORD_BYTES, TEMPLATE_SET, Template};
use crate::export::Record;

/// Version, length, export time, sequence number, observation domain. RFC 7011 section 3.1
pub(super) const HEADER_BYTES: usize = 16;

/// A set's number and length. RFC 7011 section 3.3.2
const SET_HEADER_BYTES: usize = 4;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    at_most: usize,
    domain: u32,
    /// Data records sent since the start, whatever became of them: whoever receives sees gaps.
    sequence: u32,
    /// Data records in this message.
    records: u32,
    /// The set that is open: its number, and where it begins.
    set: Option<(u16, usize)>,
}

impl Message {
    /// An empty one; none will be longer than `at_most` bytes.
    pub(super) fn new(at_most: usize, domain: u32) -> Self {
        let mut message =
            Self { bytes: Vec::with_capacity(at_most), at_most, domain, sequence: 0, records: 0, set: None };
        message.clear();
        message
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// Data records in it.
    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Whether any further record fits.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() + SET_HEADER_BYTES + RECORD_BYTES <= self.at_most
    }

    /// Adds a template; false if it does not fit any more.
    pub(super) fn describe(&mut self, template: Template) -> bool {
        self.add(TEMPLATE_SET, |bytes| template.describe(bytes))
    }

    /// Adds a record; false if it does not fit any more.
    pub(super) fn add_record(&mut self, record: &Record) -> bool {
        let template = Template::of(record);
        let added = self.add(template.id(), |bytes| template.fill(bytes, record));
        self.records += u32::from(added);
        added
    }

    /// The whole message, as sent at `unix_secs`.
    pub(super) fn finish(&mut self, unix_secs: u32) -> &[u8] {
        self.close_set();
        let length = self.bytes.len() as u16;
        self.bytes[..2].copy_from_slice(&10_u16.to_be_bytes());
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
        self.bytes[4..8].copy_from_slice(&unix_secs.to_be_bytes());
        self.bytes[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        self.bytes[12..16].copy_from_slice(&self.domain.to_be_bytes());
        &self.bytes
    }

    /// Begins the next one. What was `sent` counts in its sequence number.
    pub(super) fn next(&mut self, sent: bool) {
        if sent {
            self.sequence = self.sequence.wrapping_add(self.records);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
        (self.records, self.set) = (0, None);
    }

    /// Appends to the set of this number, a new one if another is open; takes all of it back if that is too long.
    fn add(&mut self, set: u16, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (before, open) = (self.bytes.len(), self.set);
        if open.is_none_or(|(number, _)| number != set) {
            self.set = Some((set, before));
            self.bytes.extend([0; SET_HEADER_BYTES]);
        }
        write(&mut self.bytes);
        if self.bytes.len() > self.at_most {
            self.bytes.truncate(before);
            self.set = open;
            return false;
        }
        if let (Some((number, start)), true) = (open, self.set != open) {
            set_header(&mut self.bytes[start..before], number);
        }
        true
    }

    fn close_set(&mut self) {
        if let Some((number, start)) = self.set.take() {
            set_header(&mut self.bytes[start..], number);
        }
    }
}

/// Writes a set's number and length into its first bytes.
fn set_header(set: &mut [u8], number: u16) {
    let length = set.len() as u16;
    if let Some((head, _)) = set.split_first_chunk_mut::<SET_HEADER_BYTES>() {
        head[..2].copy_from_slice(&number.to_be_bytes());
        head[2..].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use conntrack::event::TupleIds;

    use super::*;
    use crate::export::record::tests::record;

    /// A message's sets as (number, bytes of content).
    fn sets(message: &[u8]) -> Vec<(u16, usize)> {
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        assert_eq!((word(0), usize::from(word(2))), (10, message.len()));
        let (mut at, mut sets) = (HEADER_BYTES, Vec::new());
        while at < message.len() {
            let length = usize::from(word(at + 2));
            sets.push((word(at), length - SET_HEADER_BYTES));
            at += length;
        }
        assert_eq!(at, message.len());
        sets
    }

    #[test]
    fn records_of_one_kind_share_a_set_and_sets_fill_the_message() {
        let udp = record(17, TupleIds::Ports { sport: 1, dport: 2 });
        let icmp = record(1, TupleIds::Icmp { icmp_type: 8, code: 0, id: 1 });
        let mut message = Message::new(1000, 1);
        for record in [&udp, &udp, &icmp, &udp] {
            assert!(message.add_record(record));
        }
        let [udp_id, icmp_id] = [&udp, &icmp].map(|record| Template::of(record).id());
        assert_eq!(sets(message.finish(0)), [(udp_id, 2 * 77), (icmp_id, 75), (udp_id, 77)]);
        message.next(true);
        let mut added = 0;
        while message.add_record(&udp) {
            added += 1;
        }
        // 16 of the message, 4 of the set, 77 a record.
        assert_eq!(added, (1000 - 20) / 77);
        assert_eq!(sets(message.finish(0)), [(udp_id, added * 77)]);
    }

    #[test]
    fn a_set_that_does_not_fit_leaves_the_message_as_it_was() {
        let udp = record(17, TupleIds::Ports { sport: 1, dport: 2 });
        let icmp = record(1, TupleIds::Icmp { icmp_type: 8, code: 0, id: 1 });
        let mut message = Message::new(HEADER_BYTES + SET_HEADER_BYTES + 77 + 70, 1);
        assert!(message.add_record(&udp) && !message.add_record(&icmp) && !message.add_record(&udp));
        assert_eq!((sets(message.finish(0)).len(), message.records()), (1, 1));
    }

    #[test]
    fn the_sequence_number_counts_the_records_that_were_sent_before() {
        let udp = record(17, TupleIds::Ports { sport: 1, dport: 2 });
        let mut message = Message::new(1000, 5);
        let sequence = |message: &mut Message| {
            let bytes = message.finish(77);
            assert_eq!(bytes[4..8], 77_u32.to_be_bytes());
            assert_eq!(bytes[12..16], 5_u32.to_be_bytes());
            u32::from_be_bytes(*bytes[8..].first_chunk().unwrap())
        };
        assert!(Template::all().all(|template| message.describe(template) || {
            message.next(true);
            message.describe(template)
        }));
        assert_eq!(sequence(&mut message), 0, "templates do not count");
        message.next(true);
        assert!(message.add_record(&udp) && message.add_record(&udp));
        assert_eq!(sequence(&mut message), 0);
        message.next(true);
        assert_eq!(sequence(&mut message), 2);
        assert!(message.add_record(&udp));
        message.next(false);
        assert_eq!(sequence(&mut message), 2, "what was never sent does not count");
    }

    #[test]
    fn every_template_fits_the_smallest_message() {
        for template in Template::all() {
            assert!(Message::new(576 - 60 - 8, 1).describe(template), "{template:?}");
        }
    }
}
