//! What an operator does to single flows, and what is told of it.

use std::vec::Vec;

use super::dialogue::*;
use crate::event::{DestroyReason, EventKind, FlowView};
use crate::policy::{Action, Class, Policy, Rule};
use crate::tick::Ticks;
use crate::track::settings::{Profile, Settings};
use crate::tracker::{Edit, NewMark, OnFull};
use crate::wire::proto;

fn marked(mark: u32) -> Edit {
    Edit::Change { mark: Some(NewMark { value: mark, mask: u32::MAX }), timeout: None }
}

fn edit(dialogue: &mut Dialogue, named: &FlowView, edit: Edit) -> Option<FlowView> {
    let now = dialogue.now();
    dialogue.tracker.edit(now, named, edit, &mut dialogue.events)
}

#[test]
fn a_mark_is_told_with_the_change_and_with_everything_after_it() {
    let mut dialogue = Dialogue::linux().client(seg(SYN));
    let flow = dialogue.flows()[0];
    assert_eq!(flow.mark, 0);
    assert_eq!(edit(&mut dialogue, &flow, marked(9)).map(|flow| flow.mark), Some(9));
    assert_eq!(
        dialogue.events.iter().last().map(|event| (event.kind, event.flow().mark)),
        Some((EventKind::Edited, 9))
    );
    let dialogue = dialogue.server(seg(SYN | ACK));
    assert_eq!(dialogue.flows()[0].mark, 9);
    assert_eq!(dialogue.kinds(), [EventKind::New, EventKind::Edited, EventKind::Update]);
}

#[test]
fn a_masked_mark_changes_the_bits_that_it_names() {
    let new = NewMark { value: 0x10, mask: 0xf0 };
    assert_eq!(new.apply(0xabc), 0xa1c);
    // conntrack XORs: a bit outside the mask is turned around.
    assert_eq!(NewMark { value: 1, mask: 0 }.apply(3), 2);
}

#[test]
fn a_mark_ends_with_its_flow_and_is_not_the_next_ones() {
    let mut dialogue = Dialogue::linux().client(seg(SYN));
    let flow = dialogue.flows()[0];
    edit(&mut dialogue, &flow, marked(5));
    let deleted = edit(&mut dialogue, &flow, Edit::Delete).expect("it is there");
    assert_eq!(deleted.mark, 5);
    assert_eq!(dialogue.kinds().last(), Some(&EventKind::Destroy(DestroyReason::Admin)));
    let dialogue = dialogue.expect_no_flow().client(seg(SYN));
    assert_eq!(dialogue.flows()[0].mark, 0, "the same slot, another flow");
}

#[test]
fn a_flow_that_came_later_on_the_same_tuple_is_left_alone() {
    let mut dialogue = Dialogue::linux().client(seg(SYN));
    let old = dialogue.flows()[0];
    assert!(edit(&mut dialogue, &old, Edit::Delete).is_some());
    let mut dialogue = dialogue.client(seg(SYN));
    assert_eq!(edit(&mut dialogue, &old, Edit::Delete), None);
    assert_eq!(dialogue.flows().len(), 1);
}

#[test]
fn a_timeout_lasts_until_the_next_packet_sets_it_anew() {
    let mut dialogue = Dialogue::linux().established();
    let flow = dialogue.flows()[0];
    let change = Edit::Change { mark: None, timeout: Some(Ticks::from_secs(5)) };
    assert_eq!(edit(&mut dialogue, &flow, change).map(|flow| flow.timeout_secs), Some(5));
    let dialogue = dialogue.wait_secs(4).client(seg(ACK)).expect("ESTABLISHED", 432_000);
    let mut dialogue = dialogue.wait_secs(1);
    let flow = dialogue.flows()[0];
    edit(&mut dialogue, &flow, change);
    dialogue.wait_secs(5).expect_no_flow();
}

#[test]
fn every_protocol_is_found_again_from_either_side() {
    use Host::{Client, Server};
    // Ports, an ICMP query, GRE with a call id (as PPTP), a protocol without ids.
    let gre = [0x20, 0x01, 0x88, 0x0b, 0, 0, 0, 100];
    let echo = [8, 0, 0xf7, 0xf8, 0, 7, 0, 0];
    for (protocol, payload) in [(proto::ICMP, &echo[..]), (proto::GRE, &gre), (89, &[0; 8])] {
        for from in [Client, Server] {
            let mut dialogue = Dialogue::linux().raw(from, protocol, payload);
            let flows: Vec<_> = dialogue.flows();
            assert_eq!(flows.len(), 1, "{protocol}");
            assert!(edit(&mut dialogue, &flows[0], Edit::Delete).is_some(), "{protocol} from {from:?}");
        }
    }
}

#[test]
fn a_policy_row_marks_the_flows_that_begin_by_it_and_the_first_event_says_so() {
    let classes = Class::New.bit() | Class::Established.bit();
    let row = Rule { from: None, classes, new_needs_syn: false, action: Action::Accept, mark: 42 };
    let policy = Policy::new(&[row], Action::Drop).unwrap();
    let dialogue = Dialogue::over(tracker(Settings::new(Profile::Linux), policy, 16, OnFull::DropNew));
    let dialogue = dialogue.client(seg(SYN)).server(seg(SYN | ACK));
    assert_eq!(dialogue.events.iter().map(|event| event.flow().mark).collect::<Vec<_>>(), [42, 42]);
}
