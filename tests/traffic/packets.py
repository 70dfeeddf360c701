"""memif and vhost: links whose other ends are dpdk-testpmd, without root. One sends 10,000 UDP flows over IPv4, as many
over IPv6, and long datagrams in fragments; the other swaps both ends of each frame and sends it back, so that every flow
gets its reply."""

import itertools
import time
from dataclasses import astuple, dataclass

import frames
from appliance import Appliance
from hosts import PATIENCE, Trouble
from outcome import Link, judge
from testpmd import BURST, Generator, Responder

# Waits between two bursts that the search for the loss-free rate tries, from slow to fast, in microseconds.
WAITS = (4000, 2000, 1000, 500, 250, 120, 60, 30)
STEP_SECONDS = 1.0
QUICK_WAITS, QUICK_SECONDS = (2000, 1000, 500), 0.5
# Packets of each of the generator's own flows in the run that counts.
ROUNDS = 4
# One long datagram for so many flows, over each of IPv4 and IPv6.
FLOWS_FOR_A_DATAGRAM = 10
MOST_SECONDS = 60
# What a run that lost packets is repeated at: the machine has other things to do, and the search cannot know them.
TRIES = 4
# What seems lost in such a run may wait where something has no core.
LATE_SECONDS = 10


@dataclass
class Ends:
    """The devices of one link kind: the appliance's two, and those of the two testpmd."""

    lan: str
    wan: str
    generator: str
    responder: str
    # Whether the responder has to be there before the appliance.
    responder_first: bool


def memif(home, _queues):
    lan, wan = (f"socket-abstract=no,socket={home}/{name}.sock,id=0" for name in ("lan", "wan"))
    return Ends(
        lan=f"net_memif0,role=server,{lan}",
        wan=f"net_memif1,role=server,{wan}",
        # Rings of 2^13 frames: a process that waits for its turn on a busy machine loses none.
        generator=f"net_memif0,role=client,rsize=13,{lan}",
        responder=f"net_memif0,role=client,rsize=13,{wan}",
        responder_first=False,
    )


def vhost(home, queues):
    """The appliance is the switch of one virtual machine and itself a virtual machine on another switch: both drivers."""
    return Ends(
        lan=f"net_vhost0,iface={home}/lan.sock,queues={queues}",
        wan=f"net_virtio_user1,path={home}/wan.sock,queues={queues},queue_size=1024,mac=02:00:00:00:00:01",
        generator=f"net_virtio_user0,path={home}/lan.sock,queues={queues},queue_size=8192,mac=02:00:00:00:00:02",
        responder=f"net_vhost0,iface={home}/wan.sock,queues={queues}",
        responder_first=True,
    )


@dataclass
class Sent:
    """Packets sent, got at the far end, swapped there, and come back; and how long it took."""

    sent: int = 0
    far: int = 0
    swapped: int = 0
    back: int = 0
    seconds: float = 0

    def __add__(self, more):
        pairs = zip(astuple(self), astuple(more))
        return Sent(*(one + other for one, other in pairs))

    @property
    def lost(self):
        return (self.sent - self.far) + (self.swapped - self.back)

    @property
    def rate(self):
        return self.sent / self.seconds


class Run:
    """One link, up, with its generator and responder."""

    def __init__(self, generator, responder, appliance):
        self.generator, self.responder, self.appliance = generator, responder, appliance

    def go(self, seconds, patience=0):
        """Sends for so long at least, and waits so long at most for what seems lost."""
        self.responder.tell("start")
        # On a busy machine the prompt may take seconds to come back, and all the while packets are sent.
        begun, sent, back, refused = time.monotonic(), 0, 0, 0
        # A link whose other end has no core takes nothing for a while.
        while not sent:
            if time.monotonic() > begun + PATIENCE:
                raise Trouble("the link took nothing from the generator: see the logs of both")
            turn = time.monotonic()
            self.generator.tell("start")
            time.sleep(max(0, turn + seconds - time.monotonic()))
            now = self.generator.stop()
            back, sent, refused = back + now[0], sent + now[1], refused + now[2]
        took = time.monotonic() - begun
        # A flow of its own it sends again; what is in a file comes once.
        sent += refused if self.generator.files else 0
        # What is on its way is not lost: the generator goes on taking, and sends no more.
        self.generator.take()
        return self.await_late(Sent(sent=sent, back=back, seconds=took) + self.rest(), patience)

    def await_late(self, gone, patience):
        """`gone` with what seems lost of it and comes within so many seconds."""
        end = time.monotonic() + patience
        while gone.lost > 0 and time.monotonic() < end:
            self.responder.tell("start")
            gone += self.rest()
        return gone

    def rest(self):
        """What still comes while the generator takes and the responder is there, which is stopped then."""
        self.generator.tell("start")
        self.appliance.settled()
        back, _, _ = self.generator.stop()
        far, swapped, refused = self.responder.stop()
        return Sent(far=far, swapped=swapped + refused, back=back)

    def all(self, begin, wait, wanted):
        """Sends `wanted` packets at least, each turn begun with `begin`."""
        gone = Sent()
        # The rate is what it was before, or not, so there is no saying how long it takes.
        while gone.sent < wanted and gone.seconds < MOST_SECONDS:
            begin(wait)
            # What is late in one turn comes in the next.
            gone += self.go((wanted - gone.sent) * wait / BURST / 1e6)
        return self.await_late(gone, LATE_SECONDS)


def search(run, quick):
    """The highest rate of those tried at which nothing was lost: its wait, and packets per second."""
    best = None
    waits, seconds = (QUICK_WAITS, QUICK_SECONDS) if quick else (WAITS, STEP_SECONDS)
    for wait in waits:
        run.generator.make(wait)
        gone = run.go(seconds)
        if gone.lost:
            break
        best = wait, gone.rate
    return best or (waits[0], BURST * 1e6 / waits[0])


def counted(link, run, wait, send, flows, packets=None):
    """Has `send(wait)` send `flows` flows, slower where something was lost, and counts what came of it into `link`; gives the
    wait that was good. `packets` are those that conntrack should count in each direction, if not each frame is one."""
    for attempt in range(TRIES):
        run.appliance.flush()
        gone = send(wait)
        if gone.lost == 0 or attempt + 1 == TRIES:
            break
        slow = f"{gone.rate / 1000:.0f} thousand a second"
        link.notes.append(f"{gone.lost} of {gone.sent + gone.swapped} frames were lost at {slow}: half as fast then")
        wait *= 2
    listed = judge(run.appliance.flows(), lambda flow: flow["proto_name"] == "udp")
    link.notes.append(f"{flows} flows: {gone.sent} frames in {gone.seconds:.1f} s")
    link.wanted += flows
    link.offered += gone.sent + gone.swapped
    link.forwarded += gone.far + gone.back
    link.packets_lost += gone.lost
    link.list(listed)
    passed = gone.sent + gone.swapped if packets is None else 2 * packets
    if not gone.lost and listed.packets != passed:
        link.problems.append(f"{passed} packets passed, the flows' own counters say {listed.packets}")
    return wait


def drive(kind, ends_of, program, home, flows, workers, queues, quick):
    ends = ends_of(home, queues)
    datagrams, attempts = flows // FLOWS_FOR_A_DATAGRAM, itertools.count()
    files = frames.write(home, queues, flows, datagrams)
    about = f"testpmd flowgen and files -> appliance -> testpmd 5tswap and back; queues={queues} workers={workers}"
    link = Link(kind, about, queues)
    responder = Responder(home, ends.responder, queues)
    appliance = Appliance(program, home, ends.lan, ends.wan, workers, queues)
    first, second = (responder, appliance) if ends.responder_first else (appliance, responder)
    generator = Generator(home, ends.generator, queues, flows, files.paths)
    with first, second, generator:
        run = Run(generator, responder, appliance)
        wait, rate = search(run, quick)
        link.notes.append(f"loss-free up to {rate / 1000:.0f} thousand packets a second, as far as was tried")
        before = appliance.settled()

        def own(wait):
            return run.all(generator.make, wait, ROUNDS * flows)

        def read(wait):
            if attempt := next(attempts):
                frames.write(home, queues, flows, datagrams, attempt)
            generator.rewind()
            return run.all(generator.read, wait, files.frames)

        wait = counted(link, run, wait * 2, own, flows)
        link.notes.append(f"then over IPv6, and datagrams of {frames.DATAGRAM_BYTES} bytes over IPv4 and IPv6")
        counted(link, run, wait, read, files.flows, files.packets)
        link.count(appliance.settled(), before)
    link.judge()
    return link
