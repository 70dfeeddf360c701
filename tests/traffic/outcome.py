"""What one link showed: the counters put together, the listing judged, the table for people and the row for programs."""

import ipaddress
from dataclasses import dataclass, field


def dropped(stats):
    """Frames that the appliance says it did not send on, by reason, without those that were nothing."""
    reasons = {}
    for worker in stats["workers"]:
        for reason, number in worker["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + number
        # Of a datagram that does not come whole no frame goes on.
        for reason in ("tx_full", "rx_refused", "held_full", "datagrams_evicted", "datagrams_timed_out"):
            reasons[reason] = reasons.get(reason, 0) + worker[reason]
    for port in stats["ports"]:
        for reason in ("rx_missed", "rx_nombuf"):
            reasons[reason] = reasons.get(reason, 0) + port[reason]
    return {reason: number for reason, number in sorted(reasons.items()) if number}


@dataclass
class Listed:
    """What the appliance's own listing says of the flows of one kind of traffic."""

    flows: int = 0
    # In more than one entry, or with only one direction counted, or TCP without ASSURED: by what was wrong.
    twice: int = 0
    one_sided: int = 0
    unassured: int = 0
    packets: int = 0
    example: str = ""

    @property
    def split(self):
        return self.twice + self.one_sided + self.unassured


def key_of(flow):
    """The same for both directions, and for both halves of a flow that two workers made an entry each for."""
    ends = [
        (ipaddress.ip_address(flow["original"]["src"]), flow["original"].get("sport")),
        (ipaddress.ip_address(flow["original"]["dst"]), flow["original"].get("dport")),
    ]
    ident = flow["original"].get("icmp_id")
    return flow["proto"], flow["zone"], ident, frozenset(ends)


def judge(flows, of):
    """Judges the flows for which `of` is true. Every flow counts as split once at most."""
    listed, by_key = Listed(), {}
    for flow in flows:
        if of(flow):
            by_key.setdefault(key_of(flow), []).append(flow)
    listed.flows = len(by_key)
    for entries in by_key.values():
        flow = entries[0]
        listed.packets += sum(entry[side]["packets"] for entry in entries for side in ("original", "reply"))
        if len(entries) > 1:
            listed.twice += 1
        elif not (flow["original"]["packets"] and flow["reply"]["packets"] and flow["seen_reply"]):
            listed.one_sided += 1
        elif flow["proto_name"] == "tcp" and not flow["assured"]:
            listed.unassured += 1
        else:
            continue
        # One is enough to look for it in the table.
        listed.example = listed.example or " and ".join(
            f"{entry['proto_name']} {entry['original']} {entry['reply']}" for entry in entries
        )
    return listed


@dataclass
class Link:
    """One row: a link and the traffic that went over it."""

    kind: str
    about: str
    queues: int
    wanted: int = 0
    flows: int = 0
    split_flows: int = 0
    packets_lost: int = 0
    handed_off: int = 0
    offered: int = 0
    forwarded: int = 0
    dropped: dict = field(default_factory=dict)
    workers: list = field(default_factory=list)
    # Lines about how the load was chosen, and what else was seen.
    notes: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    def count(self, stats, before=None):
        """Takes the appliance's counters over; those of `before` belong to earlier traffic."""
        old = before["workers"] if before else [{} for _ in stats["workers"]]
        numbers = ("rx_packets", "tx_packets", "inserted", "handed_off", "handed_on", "handed_in", "sent_through")
        for worker, past in zip(stats["workers"], old):
            row = {"worker": worker["worker"], "entries": worker["entries"]}
            row |= {number: worker.get(number, 0) - past.get(number, 0) for number in numbers}
            self.workers.append(row)
        # The packets that a worker gave to the owner of their flow.
        self.handed_off = sum(row["handed_off"] for row in self.workers)
        past = dropped(before) if before else {}
        now = {reason: number - past.get(reason, 0) for reason, number in dropped(stats).items()}
        self.dropped = {reason: number for reason, number in now.items() if number}

    def list(self, listed):
        """Takes a judgement over; flows that never got an entry are a problem of their own."""
        self.flows += listed.flows
        self.split_flows += listed.split
        if listed.split:
            self.problems.append(
                f"{listed.twice} flows have two entries, {listed.one_sided} one direction only, {listed.unassured} are not "
                f"ASSURED, such as {listed.example}"
            )

    def judge(self):
        if self.flows != self.wanted:
            self.problems.append(f"{self.wanted} flows were made, {self.flows} are in the table")
        if self.packets_lost:
            self.problems.append(f"{self.packets_lost} packets were lost although the load was below the loss-free one")

    @property
    def good(self):
        return not self.problems

    def row(self):
        """What programs get; the first five keys are promised."""
        names = ("kind", "flows", "split_flows", "packets_lost", "handed_off", "queues", "offered", "forwarded", "dropped")
        return {name: getattr(self, name) for name in (*names, "workers", "notes", "problems")}

    def text(self):
        """What people get."""
        lines = [f"{self.kind}: {self.about}"]
        lines += [f"  {note}" for note in self.notes]
        shown = " ".join(f"{reason}={number}" for reason, number in self.dropped.items()) or "none"
        whole = f"offered={self.offered} forwarded={self.forwarded} lost={self.packets_lost} handed_off={self.handed_off}"
        good = self.flows - self.split_flows
        lines += [
            f"  flows       {self.flows} of {self.wanted}; {good} whole in one entry, {self.split_flows} split",
            f"  packets     {whole}",
            f"  dropped     {shown}",
        ]
        for row in self.workers:
            numbers = " ".join(f"{name}={number}" for name, number in row.items() if name != "worker")
            lines.append(f"  worker {row['worker']}    {numbers}")
        lines += [f"  PROBLEM     {problem}" for problem in self.problems]
        return "\n".join(lines)
