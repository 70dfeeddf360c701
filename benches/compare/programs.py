"""The programs that are measured without ports: how each is run and what is read from what it prints.

Each runs alone on one core and prints CPU nanoseconds per packet or per flow, in the form of `report` in
benches/peers/common.h. Nothing here compares anything.
"""

import os
import re
import subprocess
import threading
import time
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / "peers"
PAGE_MIB = 2
LINE = re.compile(r"^\s*(?P<tag>\S.*?)\s+median\s+(?P<median>[\d.]+) ns\s+\[")


class Unavailable(Exception):
    """This cannot be measured here, and why."""


def available_bytes():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def free_hugepages():
    try:
        return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    except OSError:
        return 0


def transparent_pages():
    """Whether a program that asks for large pages gets them without a reservation."""
    try:
        return "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False


def medians(text):
    """{tag: nanoseconds} of every line that reports a median."""
    return {m["tag"]: float(m["median"]) for m in map(LINE.match, text.splitlines()) if m}


def number(pattern, text):
    """The number that `pattern` captures, None if it is not there."""
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else None


def run(words, cores, seconds=900, env=None):
    """Runs a program on these cores; gives what it printed."""
    try:
        done = subprocess.run(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{words[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{Path(words[0]).name} took longer than {seconds} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}").splitlines()
        raise Unavailable(said[-1])
    return done.stdout


def need(bytes_wanted):
    """Refuses what would drive the machine out of memory; a fifth is left to others."""
    have = available_bytes()
    if bytes_wanted * 5 > have * 4:
        raise Unavailable(f"{bytes_wanted >> 20} MiB are needed and {have >> 20} are free")


class Ours:
    """This tree's tracker: benches/flows.rs."""

    name = "ours"

    def __init__(self, program, core, name="ours"):
        self.program, self.core, self.name = program, core, name

    def measure(self, what, flows, schedule, reps, cores=None):
        """The program's lines, first the one that stands for the whole."""
        need(300 * flows)
        text = run([self.program, what, flows, schedule, reps], cores or {self.core})
        lines = medians(text)
        if not lines:
            raise Unavailable(f"flows {what} printed no median")
        return text, lines

    def packet(self, flows, schedule, reps, what="established"):
        text, lines = self.measure(what, flows, schedule, reps)
        share, live = number(r"^ *established ([\d.]+)", text), number(r" live (\d+)", text)
        if share != 1.0 or live != flows:
            raise Unavailable(f"{share} of its packets were established, {live} flows of {flows} were there")
        return {"packet": next(iter(lines.values())), "bytes": number(r"bytes/flow[= ]([\d.]+)", text)}


class Idealised:
    """The table that does the least that could be called tracking: entries of two cache lines."""

    name = "idealised"
    # The rows that work on as many packets at once as this tree does; the fastest of them on this machine is the
    # reference. Which prefetch hint is the better one differs between makers.
    ROWS = {
        "flat b64 t0 +tcpwin": "b64_t0",
        "flat b64 t1 +tcpwin": "b64_t1",
        "pipe b64 t1 +tcpwin": "b64_t1_pipelined",
    }

    def __init__(self, built, core):
        self.built, self.core = built, core
        self.pages = "t" if transparent_pages() else "4"

    def packet(self, flows, schedule, reps):
        need(250 * flows)
        text = run([self.built / "ideal_batch", flows, self.pages, schedule, reps, "D"], {self.core})
        found = {}
        for tag, ns in medians(text).items():
            for row, key in self.ROWS.items():
                if tag.endswith(row):
                    found[f"packet/{key}"] = ns
        if number(r"hit ratio ([\d.]+)", text) != 1.0 or not found:
            raise Unavailable("ideal_batch missed flows that it had inserted")
        found["bytes"] = number(r"bytes/flow=([\d.]+)", text)
        return found

    def life(self, flows, reps):
        need(200 * flows)
        text = run([self.built / "life", flows, self.pages, reps], {self.core})
        lines = medians(text)
        pick = {"new": "new-flow insert, pipelined", "expire": "wheel expiry+delete", "rearm": "lazy re-arm visit"}
        return {key: ns for key, words in pick.items() for tag, ns in lines.items() if words in tag}


class RteHash:
    """DPDK's hash table with a bare entry."""

    name = "rte_hash"

    def __init__(self, built, core):
        self.built, self.core = built, core
        self.base = None

    def words(self, flows, schedule, reps):
        return [self.built / "rteh", "--no-pci", "--in-memory", "--no-telemetry", "--log-level=error", "-l", self.core,
                "--", flows, schedule, reps]

    def check(self, flows):
        need(200 * flows)
        # Key slots, buckets and the ring of free slots; the entries are outside.
        pages = 64 // PAGE_MIB + (flows * 80 >> 20) // PAGE_MIB
        if free_hugepages() < pages:
            raise Unavailable(f"it needs {pages} free hugepages of 2 MB and there are {free_hugepages()}")

    def packet(self, flows, schedule, reps):
        self.check(flows)
        text = run(self.words(flows, schedule, reps), {self.core})
        found = {"new": number(r"insert ([\d.]+) ns", text), "delete": number(r"delete ([\d.]+) ns", text)}
        for tag, ns in medians(text).items():
            if "entry update" in tag:
                found["packet"] = ns
        if number(r"fails=(\d+)", text) != 0 or number(r"hit ([\d.]+)", text) != 1.0 or "packet" not in found:
            raise Unavailable("rte_hash missed flows that it had inserted")
        return found

    def weight(self, flows):
        """Bytes per flow: what the process holds at most, less what it holds with next to no flows."""
        self.check(flows)
        few = 1024
        if self.base is None:
            self.base = peak_bytes(self.words(few, "u", 1), {self.core})
        return (peak_bytes(self.words(flows, "u", 1), {self.core}) - self.base) / (flows - few)


def peak_bytes(words, cores):
    """The most memory that a program holds, hugepages included (a process's resident set leaves them out)."""
    child = subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    most = 0
    while child.poll() is None:
        try:
            held = 0
            for line in Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Rss:", "Private_Hugetlb:", "Shared_Hugetlb:")):
                    held += int(line.split()[1]) * 1024
            most = max(most, held)
        except OSError:
            pass
        time.sleep(0.05)
    return most


class Ovs:
    """Open vSwitch's conntrack library."""

    name = "ovs"

    def __init__(self, built, core):
        self.built, self.core = built, core

    def packet(self, flows, schedule, reps):
        need(420 * flows)
        if not (self.built / "ovs_drv").exists():
            why = self.built / "ovs.unavailable"
            raise Unavailable(why.read_text().strip() if why.exists() else "it was not built")
        text = run([self.built / "ovs_drv", flows, schedule, reps], {self.core})
        sampled = re.search(r"sampled (\d+): est=(\d+) inv=(\d+)", text)
        if not sampled or sampled[1] != sampled[2] or sampled[3] != "0":
            raise Unavailable("not every packet was established")
        found = {
            "new": number(r"SYN insert ([\d.]+) ns", text),
            "bytes": number(r"bytes/conn=([\d.]+)", text),
            "delete": number(r"flush: cpu ([\d.]+) ns", text),
        }
        found["packet"] = next(iter(medians(text).values()))
        return found


class Kernel:
    """Linux's own connection tracking: the path through the kernel with it, less the path without."""

    name = "kernel"

    def __init__(self, built, core):
        self.core = core
        self.env = {**os.environ, "BENCH_DIR": str(built)}
        self.started = False
        self.filled = None

    def script(self, *words):
        return run([PEERS / "nfct.sh", *words], os.sched_getaffinity(0), env=self.env)

    def start(self):
        if not self.started:
            self.started = True
            self.script("start", self.core)

    def packet(self, flows, packets):
        """One pair: without, then with."""
        if flows > 4_000_000:
            raise Unavailable("nf_conntrack_max is set to 5 million for this")
        need(400 * flows)
        self.start()
        cpu = r"cpu ([\d.]+) ns/pkt"
        if self.filled != flows:
            self.script("fill", flows, "tcp")
            self.filled = flows
        base = number(cpu, self.script("base", flows, packets, "tcp"))
        ct = number(cpu, self.script("ct", flows, packets, "tcp"))
        if base is None or ct is None:
            raise Unavailable("afgen sent nothing")
        # On a machine that others use the difference may be none, and then it is no figure.
        return {"packet": ct - base if ct > base else None, "bytes": number(r"^(\d+)", self.script("bytes"))}

    def stop(self):
        if self.started:
            self.script("stop")


def at_once(ours, what, flows, schedule, reps, cores):
    """Nanoseconds per packet of one program on each of these cores, all at the same time."""
    out = {}

    def one(core):
        try:
            _, lines = ours.measure(what, flows, schedule, reps, {core})
            out[core] = next(iter(lines.values()))
        except Unavailable as error:
            out[core] = error

    threads = [threading.Thread(target=one, args=(core,)) for core in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for value in out.values():
        if isinstance(value, Unavailable):
            raise value
    return list(out.values())
