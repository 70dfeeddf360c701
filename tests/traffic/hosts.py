"""Namespaces, commands and processes of one run. All that is made here has the run's name and goes away with it.
Knows nothing of the appliance."""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import time

# RFC 2544 and RFC 5180 keep these for benchmarks: they are nobody's network.
ADDRESSES = {"inside": ("198.18.0.1", "2001:2::1"), "outside": ("198.18.0.2", "2001:2::2")}

# An interface's name has at most 15 letters: the process id takes 7 of them, two stay for the interface's own.
PREFIX = "ctlink"

PR_SET_PDEATHSIG = 1

# How long anything may take that an idle machine does at once: others may hold its cores for seconds, one after the other.
PATIENCE = 60


class Trouble(Exception):
    """What went wrong, as a sentence with the fix in it."""


class Refused(Exception):
    """The host cannot do this link; said, and no failure of the appliance."""


def run(*words, seconds=PATIENCE):
    """Runs a command that must succeed; gives what it printed."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        raise Trouble(f"{words[0]} is not installed: scripts/setup installs it") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"`{' '.join(words)}` did not end in {seconds} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Trouble(f"`{' '.join(words)}` failed: {said}")
    return done.stdout


def until(what, seconds, ready):
    """Asks until `ready()` gives something true, and gives that."""
    end = time.monotonic() + seconds
    while True:
        if answer := ready():
            return answer
        if time.monotonic() > end:
            raise Trouble(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def die_with_parent():
    """Between fork and exec: however this run ends, nothing that it started goes on."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(words, log, stdin=subprocess.DEVNULL, stdout=None):
    """Starts a process that ends with this one at the latest; what it says goes to `log`."""
    with open(log, "ab") as file:
        return subprocess.Popen(words, stdin=stdin, stdout=stdout or file, stderr=file, preexec_fn=die_with_parent)


def end(process, seconds=10):
    """Ends it as an operator would, and if it does not listen, for good."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


class Program:
    """A process that is there as long as its `with`. It has `words`, and a `log` for what it says."""

    def begin(self):
        return start(self.words, self.log)

    def await_ready(self):
        raise NotImplementedError

    def __enter__(self):
        self.process = self.begin()
        try:
            self.await_ready()
        except BaseException:
            end(self.process, 2)
            raise
        return self

    def __exit__(self, *_):
        end(self.process)


def tail(path, lines=15):
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""


def name(*parts):
    return PREFIX + str(os.getpid()) + "".join(parts)


def clear_away():
    """Removes the namespaces of runs that were killed; those of running ones stay."""
    for line in run("ip", "netns", "list").splitlines():
        found = re.match(rf"({PREFIX}(\d+)\w*)", line)
        if found and not os.path.exists(f"/proc/{found[2]}"):
            run("ip", "netns", "del", found[1])


class Namespace:
    """A network namespace, removed with all that is in it."""

    def __init__(self, part):
        self.name = name(part)

    def __enter__(self):
        run("ip", "netns", "add", self.name)
        # Routers and listeners are no part of the test, and each of their packets would have to be explained.
        self.exec("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.default.router_solicitations=0")
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Trouble):
            run("ip", "netns", "del", self.name)

    def words(self, *words):
        """The command line that runs `words` in here."""
        return ["ip", "netns", "exec", self.name, *words]

    def exec(self, *words, seconds=PATIENCE):
        return run(*self.words(*words), seconds=seconds)

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)


class Host(Namespace):
    """A namespace that stands for a machine on one side of the appliance."""

    def __init__(self, side):
        super().__init__(side[0])
        self.side = side
        self.v4, self.v6 = ADDRESSES[side]
        self.interface = None

    def take(self, interface, where):
        """Moves an interface in here from the namespace `where` and gives it the host's addresses."""
        where.ip("link", "set", interface, "netns", self.name)
        self.interface = interface
        self.ip("addr", "add", f"{self.v4}/24", "dev", interface)
        self.ip("addr", "add", f"{self.v6}/64", "dev", interface, "nodad")
        self.ip("link", "set", interface, "up")

    def without_offloads(self):
        """Packets as they are on a wire: sums filled in, no segments put together or left whole. Where a driver's other
        end reads the interface as raw frames, it would see neither."""
        self.exec("ethtool", "-K", self.interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off")

    def counters(self):
        """Packets that the host sent and got; what its own side of the link refused counts as sent."""
        shown = json.loads(self.ip("-s", "-j", "link", "show", "dev", self.interface))[0]["stats64"]
        return shown["tx"]["packets"] + shown["tx"]["dropped"], shown["rx"]["packets"]

    def repeated_syns(self):
        """SYNs and SYN/ACKs that the host's TCP sent again because no answer came within a second."""
        return paired(self.exec("cat", "/proc/net/netstat"), "TCPSynRetrans")

    def echo_replies(self):
        """Answers to pings that the host got, by both address families."""
        over_v6 = re.search(r"^Icmp6InEchoReplies\s+(\d+)$", self.exec("cat", "/proc/net/snmp6"), re.M)
        return paired(self.exec("cat", "/proc/net/snmp"), "InEchoReps") + int(over_v6[1])


def paired(text, wanted):
    """A counter of a file in which each line of names is followed by one of numbers."""
    lines = [line.split() for line in text.splitlines()]
    return sum(
        int(number)
        for names, numbers in zip(lines[::2], lines[1::2])
        for name, number in zip(names, numbers)
        if name == wanted
    )
