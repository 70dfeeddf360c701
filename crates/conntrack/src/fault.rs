//! Planted faults: a test build in which one rule of the tracker at a time is broken, to see that the suite notices.
//! The one list of them; each is asked for at the place of its rule.
//!
//! Without the feature `planted-faults` every question below is answered `false` (or 0) before code is made of it, so that a
//! normal build holds nothing of this.

use crate::key::Direction;
use crate::track::timeout::TimeoutKey;

macro_rules! faults {
    ($($variant:ident $doc:literal;)*) => {
        /// A rule that can be broken, and how.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Fault { $(#[doc = $doc] $variant,)* }

        #[cfg(feature = "planted-faults")]
        impl Fault {
            /// Every fault, in order.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant,)*];
            /// One sentence for people.
            pub const fn explain(self) -> &'static str { match self { $(Fault::$variant => $doc,)* } }
        }
    };
}

faults! {
    // track/tcp/steps.rs: by state, then direction; see `tcp_row`
    RowNoneOriginal "NONE, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowNoneReply "NONE, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowSynSentOriginal "SYN_SENT, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowSynSentReply "SYN_SENT, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowSynRecvOriginal "SYN_RECV, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowSynRecvReply "SYN_RECV, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowEstablishedOriginal "ESTABLISHED, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowEstablishedReply "ESTABLISHED, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowFinWaitOriginal "FIN_WAIT, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowFinWaitReply "FIN_WAIT, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowCloseWaitOriginal "CLOSE_WAIT, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowCloseWaitReply "CLOSE_WAIT, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowLastAckOriginal "LAST_ACK, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowLastAckReply "LAST_ACK, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowTimeWaitOriginal "TIME_WAIT, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowTimeWaitReply "TIME_WAIT, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowCloseOriginal "CLOSE, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowCloseReply "CLOSE, reply: takes a SYN for a FIN and a FIN for a SYN.";
    RowSynSent2Original "SYN_SENT2, original: takes a SYN for a FIN and a FIN for a SYN.";
    RowSynSent2Reply "SYN_SENT2, reply: takes a SYN for a FIN and a FIN for a SYN.";

    // track/timeout.rs: in the order of `TimeoutKey`; see `short_timeout`
    ShortTcpNone "tcp.none lasts a second less.";
    ShortTcpSynSent "tcp.syn_sent lasts a second less.";
    ShortTcpSynRecv "tcp.syn_recv lasts a second less.";
    ShortTcpEstablished "tcp.established lasts a second less.";
    ShortTcpFinWait "tcp.fin_wait lasts a second less.";
    ShortTcpCloseWait "tcp.close_wait lasts a second less.";
    ShortTcpLastAck "tcp.last_ack lasts a second less.";
    ShortTcpTimeWait "tcp.time_wait lasts a second less.";
    ShortTcpClose "tcp.close lasts a second less.";
    ShortTcpListen "tcp.listen lasts a second less.";
    ShortTcpMaxRetrans "tcp.max_retrans lasts a second less.";
    ShortTcpUnacknowledged "tcp.unacknowledged lasts a second less.";
    ShortUdp "udp.unreplied lasts a second less.";
    ShortUdpStream "udp.stream lasts a second less.";
    ShortIcmp "icmp lasts a second less.";
    ShortIcmpv6 "icmpv6 lasts a second less.";
    ShortGre "gre.unreplied lasts a second less.";
    ShortGreStream "gre.stream lasts a second less.";
    ShortSctpClosed "sctp.closed lasts a second less.";
    ShortSctpCookieWait "sctp.cookie_wait lasts a second less.";
    ShortSctpCookieEchoed "sctp.cookie_echoed lasts a second less.";
    ShortSctpEstablished "sctp.established lasts a second less.";
    ShortSctpShutdownSent "sctp.shutdown_sent lasts a second less.";
    ShortSctpShutdownRecd "sctp.shutdown_recd lasts a second less.";
    ShortSctpShutdownAckSent "sctp.shutdown_ack_sent lasts a second less.";
    ShortSctpHeartbeatSent "sctp.heartbeat_sent lasts a second less.";
    ShortGeneric "generic lasts a second less.";

    // track/sctp/state.rs: by chunk, then direction; see `sctp_row`
    SctpInitOriginal "An INIT, original, leads one state too far.";
    SctpInitReply "An INIT, reply, leads one state too far.";
    SctpInitAckOriginal "An INIT_ACK, original, leads one state too far.";
    SctpInitAckReply "An INIT_ACK, reply, leads one state too far.";
    SctpAbortOriginal "An ABORT, original, leads one state too far.";
    SctpAbortReply "An ABORT, reply, leads one state too far.";
    SctpShutdownOriginal "A SHUTDOWN, original, leads one state too far.";
    SctpShutdownReply "A SHUTDOWN, reply, leads one state too far.";
    SctpShutdownAckOriginal "A SHUTDOWN_ACK, original, leads one state too far.";
    SctpShutdownAckReply "A SHUTDOWN_ACK, reply, leads one state too far.";
    SctpErrorOriginal "An ERROR, original, leads one state too far.";
    SctpErrorReply "An ERROR, reply, leads one state too far.";
    SctpCookieEchoOriginal "A COOKIE_ECHO, original, leads one state too far.";
    SctpCookieEchoReply "A COOKIE_ECHO, reply, leads one state too far.";
    SctpCookieAckOriginal "A COOKIE_ACK, original, leads one state too far.";
    SctpCookieAckReply "A COOKIE_ACK, reply, leads one state too far.";
    SctpShutdownCompleteOriginal "A SHUTDOWN_COMPLETE, original, leads one state too far.";
    SctpShutdownCompleteReply "A SHUTDOWN_COMPLETE, reply, leads one state too far.";
    SctpHeartbeatOriginal "A HEARTBEAT, original, leads one state too far.";
    SctpHeartbeatReply "A HEARTBEAT, reply, leads one state too far.";
    SctpHeartbeatAckOriginal "A HEARTBEAT_ACK, original, leads one state too far.";
    SctpHeartbeatAckReply "A HEARTBEAT_ACK, reply, leads one state too far.";

    // track/tcp/window.rs
    SeqUpperEdgeWide "The sequence number may be one too high.";
    SeqUpperEdgeTight "The highest sequence number of the window is refused.";
    OverWindowWide "A segment over the window's end is passed over one byte too far.";
    OverWindowTight "A segment over the window's end is INVALID one byte too soon.";
    OverWindowAnyAck "A segment over the window's end is passed over although it acknowledges what was never seen.";
    OverWindowNotNoted "A segment that is passed over beyond the window leaves no trace.";
    AckUpperEdgeWide "The acknowledgment may be one too high.";
    AckUpperEdgeTight "The acknowledgment of the last byte seen is refused.";
    SeqLowerEdgeWide "A segment that ends one byte below the window is taken.";
    SeqLowerEdgeTight "A segment that ends at the window's lower edge is passed over.";
    SeqLowerEdgeUnknownSide "The lower edge is enforced although the receiver's window is not known yet.";
    AckLowerEdgeWide "An acknowledgment one byte older than may be is taken.";
    AckLowerEdgeTight "The oldest acknowledgment that may be is passed over.";
    AckLagNotGranted "An acknowledgment may lag by the sender's window only, not by 66000 bytes at least.";
    AckLagNotMore "An acknowledgment may lag by 66000 bytes only, even where the window is larger.";
    MaxwinShrinks "The largest window follows each offer down.";
    MaxwinWithoutSack "The largest window leaves out what was acknowledged selectively.";
    MaxwinNotGrown "A segment past the offered window does not widen the receiver's.";
    EndNotMoved "A segment's end is not remembered.";
    MaxendNotMoved "The offered window's end does not move.";
    MaxendEdge "An offer that moves the window's end by nothing is not taken.";
    ZeroWindowByte "A closed window allows no probe byte.";
    MaxackFollows "The highest acknowledgment follows an older one down.";
    MaxackNotMoved "The highest acknowledgment does not move.";
    UnackedNotMarked "Data that waits for its acknowledgment is not marked.";
    UnackedNotCleared "The mark of waiting data stays when all of it is acknowledged.";
    UnackedClearedEarly "Any acknowledgment clears the mark of waiting data.";
    KeepAliveAnswer "The answer to a keep-alive probe does not move the receiver's end.";
    PickupSideClosed "A side seen first in mid-stream gets no window.";
    SynWindowZero "A SYN with a closed window leaves its side unknown.";
    SynWindowScaled "The window of a SYN is scaled.";
    WindowNotScaled "Windows are taken unscaled.";
    ScaleOneSided "A window scale holds although only one side offered it.";
    SimultaneousSynChecked "The crossing SYN of a simultaneous open goes through the window.";
    NewerSynNever "A newer SYN does not begin the side anew.";
    NewerSynAlways "Any SYN begins the side anew, newer or not.";
    NewerSynAnyState "A newer SYN begins the side anew in any state.";
    LiberalSwitch "The liberal switch does nothing.";
    LiberalMark "A picked-up flow's windows are held against it.";
    AcklessZero "A segment without ACK is judged by the acknowledgment field.";
    RstZeroAck "A reset that acknowledges 0 is judged by it.";
    RstZeroSeqSynSent "A reset with sequence number 0 that answers a SYN is judged by it.";
    SackIgnored "Selective acknowledgments are not looked at.";
    SackUnasked "Selective acknowledgments count although the receiver did not permit them.";
    SackFirstBlock "Only the first block of a selective acknowledgment counts.";
    RetransAnyWindow "A segment with another window counts as the same one again.";
    RetransNotReset "Another segment does not reset the count of the same one.";
    RetransEverySegment "Segments other than plain ACKs are compared with the noted one too.";

    // track/tcp/options.rs
    OptionScaleCap "A window scale beyond 14 is taken as it is.";
    OptionFirstWins "The first of repeated window scales wins.";
    OptionSackPermitted "The permission for selective acknowledgments is not read.";
    OptionNone "A SYN without any option clears its side's marks.";

    // track/tcp/mod.rs
    FlagScreen "Impossible sets of flags are let through.";
    PickupStrict "A plain ACK opens a flow although loose pick-up is off.";
    PickupLoose "A plain ACK opens no flow.";
    PickupWindow "A picked-up flow's first window reaches nowhere.";
    ReopenNever "A SYN never opens a flow anew.";
    ReopenAlways "A SYN opens a flow anew whatever its end was.";
    ReopenAfterReset "A flow that this side has just reset is not opened anew.";
    ResyncNever "A SYN/ACK to an ignored SYN is ignored too.";
    ResyncAnyAck "A SYN/ACK to an ignored SYN is followed whatever it acknowledges.";
    ResyncKeepsPeer "When the hosts start anew, the answering side keeps its old numbers.";
    ResyncScale "When the hosts start anew, the opening side's window scale is forgotten.";
    ResyncUntold "That the hosts started anew is not told.";
    IgnoredNotNoted "An ignored segment leaves no trace.";
    ChallengeNotExpected "An ignored SYN in LAST_ACK does not announce a challenge.";
    ChallengeTaken "The challenge to a SYN in LAST_ACK is taken for the last acknowledgment.";
    ChallengeTwice "Every further ACK in LAST_ACK is taken for a challenge.";
    ChallengeSynSent "The acknowledgment of a challenge in SYN_SENT is not noted.";
    SimultaneousNotMarked "A simultaneous open is not marked.";
    SimultaneousNotDone "The ACK that answers a simultaneous open leaves it half open.";
    CloseInitNotMarked "The side that sent the first FIN is not marked.";
    RstUnanswered "A reset does not end an unanswered flow.";
    SynRenews "A SYN sent again renews the flow.";
    PickupCap "A picked-up flow without an answer waits for days.";
    AssuredNotByHandshake "The third segment of a handshake does not assure.";
    AssuredLate "In the classic profile the third segment of a handshake assures.";
    AssuredNotByData "A packet in ESTABLISHED does not assure.";
    MaxRetransNever "The same segment may come for ever.";
    MaxRetransEdge "The same segment may come once too often.";
    MaxRetransLonger "The retransmission timeout holds where it is the longer one.";
    RstTimeout "A reset that keeps the state keeps the state's timeout.";
    UnackedNever "Data that waits for its acknowledgment costs no time.";
    UnackedLonger "The timeout of unacknowledged data holds where it is the longer one.";
    UnackedOneSide "Only the original side's unacknowledged data counts.";
    UnackedSwitch "Unacknowledged data costs time in the classic profile.";
    ZeroWindowNever "A closed window costs no time.";
    ZeroWindowLonger "The timeout of a closed window holds where it is the longer one.";
    InvalidCutNever "A reset or FIN out of window cuts nothing.";
    InvalidCutAtOnce "A single reset or FIN out of window cuts the flow's time.";
    InvalidCutUnassured "A reset or FIN out of window cuts an unassured flow's time.";
    InvalidCutEdge "A flow is cut although it has less than two minutes left.";

    // track/tcp/reset.rs
    RstWindowOff "Without window tracking a reset is judged all the same.";
    RstClosing "A reset of a closing flow is judged by its number.";
    RstUnderMaxack "A reset below the highest acknowledgment is not refused.";
    RstUnderMaxackEdgeWide "A reset one below the highest acknowledgment is not refused.";
    RstUnderMaxackEdgeTight "A reset at the highest acknowledgment is refused.";
    RstIgnoreSwitch "The switch that lets resets below the acknowledgment in does nothing.";
    RstZeroSeq "A reset with sequence number 0 is compared with the highest acknowledgment before the flow is established.";
    RstExactUnassured "A flow that is not established asks for the exact number too.";
    RstExact "The exact reset does not close an established flow.";
    RstBehindData "A reset right behind data of the same side does not close.";
    RstBehindOther "A reset that matches the other side's data closes.";
    RstNearMiss "A near miss closes an established flow.";
    RstAfterSyn "A reset is compared with the acknowledgment although a SYN was let through.";
    RstMaxackUnknown "A reset is compared with an acknowledgment that was never sent.";
    RstAnswersSyn "A reset that answers an ignored SYN is judged by the window.";
    RstAnswersAck "A reset that answers the first ACK is judged by the window.";
    RstAnswersAnything "A reset answers the noted segment whatever it acknowledges.";
    RstAnswersOneself "A reset may answer its own side's SYN.";
    RstAnswersAckAcross "A reset answers the first ACK only if that came from the other side.";
    RstAnswersChallenge "A reset that answers a challenge in SYN_SENT is judged by the window.";

    // track/udp.rs, track/icmp.rs, track/gre.rs
    UdpStreamAtOnce "UDP is a stream without the two seconds.";
    UdpStreamEdge "UDP is a stream at two seconds, not after them.";
    UdpStreamNever "UDP is never a stream.";
    UdpStreamUnanswered "UDP is a stream without an answer.";
    UdpStreamUnassured "A stream of UDP or UDP-Lite is not assured.";
    UdpAgeRenewed "The age of a UDP flow counts from its last packet.";
    UdpClassicWaits "In the classic profile UDP waits two seconds too.";
    UdpLiteWaits "UDP-Lite is never a stream.";
    IcmpLoneAnswer "An ICMP answer without a request opens a flow.";
    IcmpErrorDestination "An ICMP error is RELATED whomever it is addressed to.";
    IcmpErrorDirection "An ICMP error travels with the packet that it quotes.";
    IcmpErrorNoFlow "An ICMP error that quotes an unknown flow is RELATED.";
    GreStreamNever "GRE is never a stream.";
    GreUnassured "GRE in both directions is not assured.";

    // track/sctp
    SctpOpenAbort "An ABORT opens a flow.";
    SctpOpenOther "A chunk that moves nothing opens a flow.";
    SctpOpenShutdownAck "The tag of a first SHUTDOWN_ACK is not noted.";
    SctpPacketTag "Chunks without rules of their own may carry any tag.";
    SctpInitTag "An INIT may carry a tag.";
    SctpAbortTag "An ABORT may carry any tag.";
    SctpAbortReflected "The T bit is not looked at.";
    SctpCookieEchoTag "A COOKIE_ECHO may carry any tag.";
    SctpCookieAckKeeps "A COOKIE_ACK does not end a collision.";
    SctpHeartbeatLearns "A HEARTBEAT teaches no tag.";
    SctpHeartbeatFails "A HEARTBEAT with a wrong tag is INVALID.";
    SctpHeartbeatAckMoves "A HEARTBEAT_ACK does not move the flow to its tag.";
    SctpHeartbeatAckUnasked "A HEARTBEAT_ACK with a wrong tag moves the flow unasked.";
    SctpHeartbeatData "A HEARTBEAT with a wrong tag passes although data comes along.";
    SctpInitRepeats "A repeated INIT counts as another one.";
    SctpInitAckAny "An INIT_ACK may contradict what is known.";
    SctpInitAckCollision "In a collision an INIT_ACK may contradict the INIT of its side.";
    SctpInitRenews "A repeated INIT renews the flow.";
    SctpUnassured "An association is not assured.";
    SctpBundled "An INIT may stand with other chunks.";
    SctpCookieLater "A cookie may stand behind other chunks.";
    SctpZeroLength "A chunk of length zero ends the packet and is no error.";

    // wire
    SumTcp "The TCP checksum is not verified.";
    SumUdp "The UDP checksum is not verified.";
    SumUdpZero "A zero UDP checksum is wrong.";
    SumUdpLite "The UDP-Lite checksum is not verified.";
    SumUdpLiteCover "UDP-Lite's coverage is not looked at.";
    SumIcmp "The ICMP checksum is not verified.";
    SumIcmpv6 "The ICMPv6 checksum is not verified.";
    SumSctp "The SCTP checksum is not verified.";
    SumIpv4 "The IPv4 header checksum is not verified.";
    SumSwitch "Checksums are verified although the switch is off.";
    SumNicGood "What the NIC found right is verified again.";
    SumNicBad "What the NIC found wrong is let through.";
    UdpLength "UDP's length field is not looked at.";
    GreNotPpp "GRE version 1 may carry anything.";
    DiscoveryTracked "Neighbour discovery is INVALID.";
    RedirectHops "An ICMPv6 redirect may come from afar.";
    FragmentHeaderCut "A packet that ends inside its IPv6 fragment header is malformed, whatever was there.";
    FragmentHeaderWhole "A walk over extension headers needs all of a fragment header.";
    ExtensionUnknown "IPv6 destination options are taken for a transport protocol.";

    // fragment.rs
    FragmentOverlap "Overlapping fragments are put together.";
    FragmentRepeated "A fragment that came twice ends its datagram.";
    FragmentTimeV4 "IPv4 fragments wait a second less.";
    FragmentTimeV6 "IPv6 fragments wait a second less.";
    FragmentDistance "Fragments of one source may be any distance apart.";
    FragmentBeyondLast "A fragment behind the last one is taken.";
    FragmentBytes "A datagram counts without its header.";

    // key
    KeyAsker "A's requests to B and B's to A share a flow.";
    KeyIcmpCode "The code of an ICMP query is no part of its flow.";
    KeyCallId "The call id is no part of a GRE flow.";
    KeyZone "The zone is no part of a flow.";
    KeyMirror "A packet to oneself has the original direction.";

    // tracker
    ClassReplied "A packet of an answered flow is still NEW.";
    ClassUnanswered "A further packet of an unanswered flow is ESTABLISHED.";
    IgnoredCounted "Ignored packets count.";
    InvalidCounted "INVALID packets of a flow count.";
    FirstUncounted "A flow's first packet does not count.";
    BytesOfPayload "Bytes count without the first 20 of each packet.";
    AccountingSwitch "Packets count although accounting is off.";
    NewUntold "New flows are not told.";
    UpdateUntold "Changes are not told.";
    UpdateToldTwice "Every packet is told as a change.";
    DestroyUntold "Ends are not told.";
    LateChangeByError "An ICMP error does not tell what an INVALID packet changed.";
    LateChangeUntold "What an INVALID packet changed is never told.";
    ExpiryLate "A flow lives a tick longer than its timeout.";
    ExpiryEarly "A flow is looked up in vain a tick before its timeout.";
    ListingLate "A flow whose time has passed is listed.";
    WheelNotSettled "The wheel is not told of a deadline that comes nearer.";
    SweepNever "A lowered timeout does not cut flows in the table.";
    SweepShorter "A lowered timeout lengthens flows with less time left.";
    SweepGre "GRE flows in the table keep their timeouts.";
    PolicyNewKept "The first packet of a flow leaves an entry although policy drops it.";
    EarlyDropAssured "Assured flows make room in a full table.";
    EarlyDropAlways "A full table makes room although it is to drop new flows.";

    // wire/plain.rs, track/tcp/established.rs: the short ways. They are open to these faults only; see `lanes_closed`
    LaneFragment "The short way: a fragment is read as a whole packet.";
    LaneSumTcp "The short way: the transport checksum is not verified.";
    LaneUnsettled "The short way: a flow that is not ASSURED takes it.";
    LaneFin "The short way: a FIN takes it.";
    LaneSeqUpperEdge "The short way: the sequence number may be one too high.";
    LaneAckUpperEdge "The short way: the acknowledgment may be one too high.";
    LaneSeqLowerEdge "The short way: a segment that ends one byte below the window is taken.";
    LaneAckLowerEdge "The short way: an acknowledgment one byte older than may be is taken.";
    LaneSack "The short way: selective acknowledgments are not read.";
    LaneScale "The short way: windows are not scaled.";
    LaneEnd "The short way: the highest byte sent is not noted.";
    LaneMaxend "The short way: the window's end does not move.";
    LaneMaxack "The short way: the highest acknowledgment is not noted.";
    LaneUnacked "The short way: unacknowledged data is not marked.";
    LaneAcknowledged "The short way: acknowledged data stays marked.";
    LaneRetrans "The short way: repeated segments are not counted.";
    LaneZeroWindow "The short way: a closed window changes no timeout.";
    LaneOpeningOptions "The short way: a first SYN's options are not read.";
}

#[cfg(feature = "planted-faults")]
mod chosen {
    use core::cell::Cell;

    use super::Fault;

    /// No fault's number.
    const NONE: usize = usize::MAX;

    // Each thread has its own, so that tests run side by side. At first the environment's `PLANTED_FAULT` names it, so that any
    // test program can be run with one.
    std::thread_local! {
        static CHOSEN: Cell<usize> = Cell::new(from_environment());
    }

    /// Breaks one rule for this thread, or mends it.
    pub fn plant(fault: Option<Fault>) {
        CHOSEN.set(fault.map_or(NONE, |fault| fault as usize));
    }

    pub(super) fn is(number: usize) -> bool {
        CHOSEN.get() == number
    }

    pub(super) fn is_below(number: usize) -> bool {
        CHOSEN.get() < number
    }

    fn from_environment() -> usize {
        let Ok(name) = std::env::var("PLANTED_FAULT") else { return NONE };
        let known = Fault::ALL.iter().position(|fault| std::format!("{fault:?}") == name);
        known.unwrap_or_else(|| panic!("PLANTED_FAULT={name} is no fault of src/fault.rs"))
    }
}

#[cfg(feature = "planted-faults")]
pub use chosen::plant;

/// Whether this rule is broken now.
#[inline(always)]
pub fn planted(fault: Fault) -> bool {
    #[cfg(feature = "planted-faults")]
    let broken = chosen::is(fault as usize);
    #[cfg(not(feature = "planted-faults"))]
    let broken = {
        let _ = fault;
        false
    };
    broken
}

/// Whether the short ways of common packets are closed: the rules that can be broken stand in the general way.
#[inline(always)]
pub(crate) fn lanes_closed() -> bool {
    #[cfg(feature = "planted-faults")]
    let closed = chosen::is_below(Fault::LaneFragment as usize);
    #[cfg(not(feature = "planted-faults"))]
    let closed = false;
    closed
}

/// 1 where this edge is broken, else 0.
#[inline(always)]
pub(crate) fn slip(fault: Fault) -> u32 {
    u32::from(planted(fault))
}

/// How far this edge is off: 1 too wide, -1 too tight, else 0.
#[inline(always)]
pub(crate) fn shift(wide: Fault, tight: Fault) -> i32 {
    i32::from(planted(wide)) - i32::from(planted(tight))
}

/// One of a group of faults that stand in the list one behind the other, counted from `first`.
#[inline(always)]
fn planted_nth(first: Fault, nth: usize) -> bool {
    #[cfg(feature = "planted-faults")]
    let broken = chosen::is(first as usize + nth);
    #[cfg(not(feature = "planted-faults"))]
    let broken = {
        let _ = (first, nth);
        false
    };
    broken
}

/// Whether this row of the TCP state table is broken.
#[inline(always)]
pub(crate) fn tcp_row(state: u8, from: Direction) -> bool {
    planted_nth(Fault::RowNoneOriginal, 2 * usize::from(state) + from.index())
}

/// Whether this row of the SCTP state table is broken.
#[inline(always)]
pub(crate) fn sctp_row(chunk: u8, from: Direction) -> bool {
    planted_nth(Fault::SctpInitOriginal, 2 * usize::from(chunk) + from.index())
}

/// What is missing of a timeout, in ticks.
#[inline(always)]
pub(crate) fn short_timeout(key: TimeoutKey) -> u32 {
    crate::tick::PER_SECOND * u32::from(planted_nth(Fault::ShortTcpNone, key as usize))
}

// The groups are as long as what they count along.
const _: () = {
    assert!(Fault::ShortTcpNone as usize - Fault::RowNoneOriginal as usize == 2 * 10);
    assert!(Fault::SctpInitOriginal as usize - Fault::ShortTcpNone as usize == TimeoutKey::ALL.len());
    assert!(Fault::SeqUpperEdgeWide as usize - Fault::SctpInitOriginal as usize == 2 * 11);
};
