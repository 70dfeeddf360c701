"""tap, af_packet and af_xdp: links whose other ends are two hosts with real TCP stacks, in namespaces. Many short
connections over IPv4 and IPv6, then what comes in fragments."""

import json
import os
import socket
import sys
import time
from dataclasses import dataclass

import hosts
from appliance import STATS_SECONDS, Appliance
from hosts import PATIENCE, Host, Namespace, Refused, Trouble, until
from outcome import Link, dropped, judge

PORT = 8080
FIRST_PORT = 2048
LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.py")
# Connections open at a time that the search for the loss-free load tries, and how many it makes of each.
AT_ONCE = (8, 16, 32, 64, 128)
TRIAL = 400
TRIES = 4
# A run of connections begins none after this.
CONNECT_SECONDS = 150
# On one line none is made again after so long.
TRIES_SECONDS = 200
# What seems lost may wait where something has no core.
LATE_SECONDS = 10
# Neighbours are asked for again, and groups reported, for some seconds after an interface came up.
QUIET_SECONDS = 60
# Datagrams of 8 kB, and pings of 3,000 bytes: six and three fragments on an Ethernet.
DATAGRAMS, DATAGRAM_BYTES = 50, 8192
PINGS, PING_BYTES = 20, 3000
# Reasons that are the policy's own: such a frame was not lost.
POLICY = "policy_"


@dataclass
class Amount:
    """How much of what goes over a link."""

    v4: int
    v6: int
    fragments: bool = True
    # Why there are none, for the table.
    without: str = ""
    trials: tuple = AT_ONCE
    # The share of the connections that must have begun in CONNECT_SECONDS; an emulated machine may be too slow for all.
    least: float = 1


class Line:
    """Two hosts and whatever joins them; `appliance` is what to ask."""

    def __init__(self, inside, outside, appliance, log):
        self.inside, self.outside, self.appliance, self.log = inside, outside, appliance, log
        # Frames that the policy had dropped when the appliance was last asked.
        self.refused = 0
        self.next_port = FIRST_PORT
        self.begun = time.monotonic()

    def late(self):
        """Whether there is no time left to make a run again."""
        return time.monotonic() > self.begun + TRIES_SECONDS

    def warm_up(self):
        """Each knows the other's hardware address before anything is counted."""
        for address in (self.outside.v4, self.outside.v6):
            until(f"{address} to answer", PATIENCE, lambda: self.answers(address))

    def answers(self, address):
        try:
            return self.inside.exec("ping", "-q", "-c", "1", "-W", "1", address)
        except Trouble:
            return False

    def ports(self, count):
        """The first of so many ports that nothing had before: the kernel would give one out again, to a datagram at once and
        to a connection after a minute, and two of them would be one flow."""
        if self.next_port + count > 0x10000:
            self.next_port = FIRST_PORT
        self.next_port += count
        return self.next_port - count

    def connect(self, address, count, at_once):
        """So many connections to the server, or as many as there is time for."""
        return self.load("connect", address, PORT, count, at_once, self.ports(count), CONNECT_SECONDS)

    def load(self, *words):
        """Runs the load program inside; gives what it says."""
        return json.loads(self.inside.exec(sys.executable, LOAD, *map(str, words), seconds=2 * CONNECT_SECONDS))

    def counted(self):
        """Packets that both hosts sent, and packets that both got."""
        counters = [host.counters() for host in (self.inside, self.outside)]
        return sum(sent for sent, _ in counters), sum(got for _, got in counters)

    def repeated_syns(self):
        return self.inside.repeated_syns() + self.outside.repeated_syns()

    def quiet(self):
        """The hosts' counters once neither sends nor gets anything any more."""
        before, end = None, time.monotonic() + QUIET_SECONDS
        while (now := self.counted()) != before:
            if time.monotonic() > end:
                raise Trouble(f"packets still pass {QUIET_SECONDS} s after the last was sent: {before} and then {now}")
            before = now
            time.sleep(STATS_SECONDS)
        return now

    def settled(self):
        """The appliance's counters then."""
        self.quiet()
        stats = self.appliance.stats()
        self.refused = sum(number for reason, number in dropped(stats).items() if reason.startswith(POLICY))
        return stats


@dataclass
class Passed:
    """What one piece of traffic was for the line."""

    offered: int
    forwarded: int
    lost: int
    # SYNs sent again. One that was only late, and comes after its connection ended, opens another in its place; no
    # appliance could tell. So a run with such counts only if every flow is whole all the same.
    again: int
    said: dict

    @property
    def kept(self):
        return not (self.lost or self.said["failed"])

    @property
    def clean(self):
        return self.kept and not self.again


def watch(line, work):
    """Runs `work` and counts around it. The appliance is asked only where the hosts' own numbers differ: in the guest each
    question takes seconds."""
    (sent, got), again, refused = line.quiet(), line.repeated_syns(), line.refused
    said = work()
    end = time.monotonic() + LATE_SECONDS
    while True:
        sent_after, got_after = line.quiet()
        offered, forwarded = sent_after - sent, got_after - got
        if lost := offered - forwarded:
            line.settled()
            lost -= line.refused - refused
        if not lost or time.monotonic() > end:
            return Passed(offered, forwarded, lost, line.repeated_syns() - again, said)


def search(line, trials):
    """The most connections at a time, of those tried, at which nothing was lost."""
    best = None
    for at_once in trials:
        passed = watch(line, lambda: line.connect(line.outside.v4, TRIAL, at_once))
        if not passed.clean:
            break
        best = at_once
    return best or trials[0]


def connections(link, line, address, count, at_once, least=1):
    """Counts one run of connections into `link`; repeats it with fewer at a time where something was lost, or may seem so."""
    ours = {line.inside.v4, line.inside.v6}
    for attempt in range(TRIES):
        line.appliance.flush()
        passed = watch(line, lambda: line.connect(address, count, at_once))
        said = passed.said
        listed = judge(line.appliance.flows(), lambda flow: flow["proto_name"] == "tcp" and flow["original"]["src"] in ours)
        whole = listed.flows == said["done"] and not listed.split
        if passed.clean or passed.kept and whole or attempt + 1 == TRIES or line.late():
            break
        seen = f"{passed.lost} of {passed.offered} packets were lost and {passed.again} SYNs repeated"
        link.notes.append(f"{seen} with {at_once} connections at a time: half as many then")
        at_once = max(1, at_once // 2)
    link.notes.append(f"{said['done']} connections to {address}, {at_once} at a time, in {said['seconds']:.1f} s")
    begun = said["done"] + said["failed"]
    if begun < count:
        seen = f"only {begun} of {count} connections began in {CONNECT_SECONDS} s"
        (link.notes if begun >= least * count else link.problems).append(seen)
    if passed.again and whole:
        link.notes.append(f"{passed.again} SYNs were sent again, and every flow is whole all the same")
    elif passed.again:
        link.problems.append(f"{passed.again} SYNs were sent again: the machine is too busy for this link")
    if said["failed"]:
        link.problems.append(f"{said['failed']} connections failed, the first with {said['first']}")
    link.offered += passed.offered
    link.forwarded += passed.forwarded
    link.packets_lost += passed.lost
    link.wanted += begun
    link.list(listed)


def pings(line, address):
    """Sends the pings; gives how many were answered. ping itself waits 20 ms after its last, if any had an answer; the
    kernel counts those that come later."""
    before = line.inside.echo_replies()
    words = ("-q", "-c", str(PINGS), "-i", "0.02", "-W", str(PATIENCE), "-s", str(PING_BYTES))
    line.inside.exec("ping", *words, address, seconds=2 * PATIENCE)
    end = time.monotonic() + PATIENCE
    while (received := line.inside.echo_replies() - before) < PINGS and time.monotonic() < end:
        time.sleep(STATS_SECONDS)
    return received


def fragments(link, line):
    """Echoes of what takes several frames each, by both address families."""
    line.appliance.flush()
    for address in (line.outside.v4, line.outside.v6):
        size = DATAGRAM_BYTES
        said = line.load("datagrams", address, PORT, DATAGRAMS, size, line.ports(DATAGRAMS))
        link.notes.append(f"{said['done']} of {DATAGRAMS} datagrams of {size} bytes to {address} came back whole")
        if said["failed"]:
            link.problems.append(f"{said['failed']} datagrams of {size} bytes failed, the first with {said['first']}")
        received = pings(line, address)
        link.notes.append(f"{received} of {PINGS} pings of {PING_BYTES} bytes to {address} were answered")
        if received != PINGS:
            link.problems.append(f"{PINGS - received} of {PINGS} pings of {PING_BYTES} bytes had no answer")
        link.wanted += DATAGRAMS + 1
    line.settled()
    # The numbers are those of ICMP, UDP and ICMPv6: neighbour discovery is never tracked, so every flow is ours.
    link.list(judge(line.appliance.flows(), lambda flow: flow["proto"] in (1, 17, 58)))


def traffic(link, line, amount):
    """All of it over one line, into one row."""
    serving = hosts.start(line.outside.words(sys.executable, LOAD, "serve", str(PORT)), line.log)
    try:
        line.warm_up()
        until("the server", PATIENCE, lambda: line.outside.exec("ss", "-Hltn", f"sport = :{PORT}").strip())
        before = line.settled()
        at_once = search(line, amount.trials)
        link.notes.append(f"loss-free with up to {at_once} connections at a time, as far as was tried")
        at_once = max(1, at_once // 2)
        for address, count in ((line.outside.v4, amount.v4), (line.outside.v6, amount.v6)):
            if count:
                connections(link, line, address, count, at_once, amount.least)
        if amount.fragments:
            fragments(link, line)
        elif amount.without:
            link.notes.append(f"no fragments: {amount.without}")
        link.count(line.settled(), before)
    finally:
        hosts.end(serving)
    link.judge()


def tap_devices(middle, queues):
    """DPDK makes the interfaces; each is then moved to its host."""
    if not os.path.exists("/dev/net/tun"):
        raise Refused("there is no /dev/net/tun here: `modprobe tun`")
    return [(f"net_tap{number},iface={hosts.name(end)}", hosts.name(end)) for number, end in enumerate("io")]


def veth_pairs(middle):
    """Two pairs: one end of each is a port's, and the other its host's."""
    middle.exec("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    pairs = [(hosts.name(end, "p"), hosts.name(end)) for end in "io"]
    for port, host in pairs:
        try:
            middle.ip("link", "add", port, "type", "veth", "peer", "name", host)
        except Trouble as trouble:
            raise Refused(f"this kernel makes no veth pairs ({trouble})") from None
        middle.ip("link", "set", port, "up")
    return pairs


def af_packet_devices(middle, queues):
    return [
        (f"net_af_packet{number},iface={port},qpairs={queues},framecnt=2048", host)
        for number, (port, host) in enumerate(veth_pairs(middle))
    ]


def af_xdp_devices(middle, _queues):
    try:
        socket.socket(44, socket.SOCK_RAW).close()
    except OSError as error:
        raise Refused(f"this kernel has no AF_XDP ({error})") from None
    return [(f"net_af_xdp{number},iface={port}", host) for number, (port, host) in enumerate(veth_pairs(middle))]


DEVICES = {"net_tap": tap_devices, "net_af_packet": af_packet_devices, "net_af_xdp": af_xdp_devices}


def drive(kind, program, home, amount, workers, queues):
    link = Link(kind, f"TCP of two hosts; queues={queues} workers={workers}", queues)
    with Namespace("a") as middle, Host("inside") as inside, Host("outside") as outside:
        (lan, near), (wan, far) = DEVICES[kind](middle, queues)
        with Appliance(program, home, lan, wan, workers, queues, namespace=middle) as appliance:
            for host, interface in ((inside, near), (outside, far)):
                host.take(interface, middle)
                if kind != "net_tap":
                    host.without_offloads()
            traffic(link, Line(inside, outside, appliance, f"{home}/server.log"), amount)
    return link
