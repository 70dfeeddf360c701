"""End to end on one core: a port that repeats a capture for ever, a program between, a port that drops.

All programs run at the same time on the same core, all but one of them stopped; a round lets each go on for a while.
What is counted is packets per second of the CPU time that the polling thread got, so that a busy machine costs all alike.
"""

import json
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

from programs import PEERS, Unavailable, free_hugepages, run

SETTLE_S = 0.5
LOOK_S = 0.05
WORD_S = 20
START_TRIES = 300
# The appliance's own: see FRAMES_PER_SLOT in crates/conntrack/src/fragment.rs.
FRAMES_PER_DATAGRAM = 4


def poll_ns(pid):
    """{thread: CPU nanoseconds} of a process."""
    times = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            times[task.name] = int((task / "schedstat").read_text().split()[0])
        except (OSError, ValueError):
            pass
    return times


class Forwarder:
    """One program that forwards; `pid` is the process whose busiest thread does it."""

    name = ""
    pid = None

    def packets(self):
        """Packets received since the start."""
        raise NotImplementedError

    def pause(self):
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def measure(self, seconds):
        """CPU nanoseconds per packet while it runs for so long."""
        self.go_on()
        try:
            time.sleep(SETTLE_S)
            # Both counts between two readings of the clock: what asking costs falls on another core.
            before, first = poll_ns(self.pid), self.packets()
            time.sleep(seconds)
            after, last = poll_ns(self.pid), self.packets()
        finally:
            self.pause()
        busiest = max(after[thread] - before.get(thread, 0) for thread in after)
        if last <= first:
            raise Unavailable("no packet arrived")
        return busiest / (last - first)


class Ours(Forwarder):
    """The appliance, as scripts/run would start it on these ports."""

    name = "ours"

    def __init__(self, binary, folder, capture, core, control, buffers):
        self.binary, self.socket = binary, folder / "control.sock"
        self.socket.unlink(missing_ok=True)
        datagrams = min(max(buffers // FRAMES_PER_DATAGRAM, 1024), 32_768)
        config = folder / "bench.toml"
        config.write_text(
            f"""profile = "linux"
mode = "inline"
workers = 1

[[port]]
name = "in"
device = "net_pcap0,rx_pcap={capture},infinite_rx=1"
role = "inside"
peer = "out"

[[port]]
name = "out"
device = "net_null0,no-rx=1"
role = "outside"

[table]
max_entries = 1048576
# Buffers are planned for the frames of so many datagrams; net_pcap keeps one for each packet of its capture.
max_datagrams = {datagrams}

[eal]
cores = "{','.join(map(str, sorted({core, control})))}"
hugepages = {'true' if free_hugepages() > 256 else 'false'}

[worker]
cores = "{core}"

[control]
socket = "{self.socket}"
http = "off"
"""
        )
        self.log = folder / "ours.log"
        self.process = subprocess.Popen(
            [str(binary), "run", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        self.pid = self.process.pid
        for _ in range(START_TRIES):
            try:
                self.packets()
                return
            except Unavailable:
                if self.process.poll() is not None:
                    break
                time.sleep(LOOK_S)
        self.stop()
        raise Unavailable(self.log.read_text().strip().splitlines()[-1])

    def packets(self):
        told = run([self.binary, "stats", "-o", "json", "--socket", self.socket], os.sched_getaffinity(0))
        return sum(worker["rx_packets"] for worker in json.loads(told)["workers"])

    def stop(self):
        end(self.process)


class Testpmd(Forwarder):
    """DPDK's own test program, which looks at no packet."""

    name = "testpmd"

    def __init__(self, capture, core, control, buffers):
        words = [
            # Its words are wanted while it runs; into a pipe it would keep them.
            "stdbuf", "-oL", "dpdk-testpmd", "-l", f"{control},{core}", "--main-lcore", str(control), "--no-pci", "--in-memory",
            "--no-telemetry", "--file-prefix", "ctbench-testpmd", "--log-level=3",
            f"--vdev=net_pcap0,rx_pcap={capture},infinite_rx=1", "--vdev=net_null1,no-rx=1", "--",
            "-i", "--nb-cores=1", "--no-lsc-interrupt", "--forward-mode=io", f"--total-num-mbufs={buffers}",
        ]
        try:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
            )
        except FileNotFoundError as error:
            raise Unavailable("dpdk-testpmd is not there") from error
        # stdbuf becomes it.
        self.pid = self.process.pid
        self.say("start")
        self.packets()

    def say(self, words):
        try:
            self.process.stdin.write(f"{words}\n".encode())
        except BrokenPipeError:
            pass

    def packets(self):
        self.say("show port stats 0")
        said, until = b"", time.monotonic() + WORD_S
        while select.select([self.process.stdout], [], [], max(until - time.monotonic(), 0))[0]:
            more = os.read(self.process.stdout.fileno(), 65_536)
            said += more
            found = re.search(rb"RX-packets: (\d+)\s.*RX-bytes.*\n *####", said, re.DOTALL)
            if found:
                return int(found[1])
            if not more:
                break
        raise Unavailable(f"testpmd does not answer; its last words: {said[-200:].decode(errors='replace')}")

    def stop(self):
        end(self.process)


class OvsDpdk(Forwarder):
    """Open vSwitch on DPDK."""

    name = "ovs_dpdk"
    MIB = 700

    def __init__(self, built, capture, core, control):
        self.env = {**os.environ, "BENCH_DIR": str(built)}
        if not (built / "ovsdpdk/root/usr/sbin/ovsdb-server").exists():
            why = built / "ovsdpdk.unavailable"
            raise Unavailable(why.read_text().strip() if why.exists() else "its packages are not there")
        if free_hugepages() < self.MIB // 2:
            raise Unavailable(f"it needs {self.MIB // 2} free hugepages of 2 MB and there are {free_hugepages()}")
        try:
            self.script("start", capture, core, self.MIB, control)
            self.pid = int((built / "ovsdpdk/run/vs.pid").read_text())
        except Unavailable:
            self.stop()
            raise
        self.kind = None

    def script(self, *words):
        return run([PEERS / "ovsdpdk.sh", *words], os.sched_getaffinity(0), seconds=60, env=self.env)

    def packets(self):
        return int(self.script("packets"))

    def with_conntrack(self, on):
        """Changes the bridge's flows; the first packets after it find their way slowly."""
        kind = "ct" if on else "no-ct"
        if kind != self.kind:
            self.go_on()
            self.script(kind)
            self.kind = kind
            time.sleep(SETTLE_S)

    def stop(self):
        self.script("stop")


def end(process):
    """Ends a process that may be stopped."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(binary, built, folder, connections, core, control, rounds, seconds, note, deadline, refuse):
    """{program: [nanoseconds per packet, one of each round]}; `refuse(program, why)` is told of what can't be run."""
    capture = folder / f"udp.{connections}.pcap"
    run(["python3", PEERS / "mkudp.py", connections, capture], os.sched_getaffinity(0))
    # Each packet of the capture stays in a buffer for ever, one for each direction of a connection.
    buffers = 2 * connections + 16_384
    start = {
        "ours": lambda: Ours(binary, folder, capture, core, control, buffers),
        "testpmd": lambda: Testpmd(capture, core, control, buffers),
        "ovs_dpdk": lambda: OvsDpdk(built, capture, core, control),
    }
    running, times = {}, {}
    try:
        for name, make in start.items():
            try:
                running[name] = make()
                running[name].pause()
            except Unavailable as error:
                refuse(name, str(error))
        for turn in range(rounds):
            if turn > 0 and deadline.passed():
                break
            note(f"appliance, {connections} connections, round {turn + 1} of {rounds}")
            for name in list(running) if turn % 2 == 0 else list(running)[::-1]:
                for kind in ("ovs_dpdk", "ovs_dpdk_no_ct") if name == "ovs_dpdk" else (name,):
                    try:
                        if name == "ovs_dpdk":
                            running[name].with_conntrack(kind == "ovs_dpdk")
                        times.setdefault(kind, []).append(running[name].measure(seconds))
                    except Unavailable as error:
                        times.setdefault(kind, []).append(None)
                        refuse(kind, str(error))
    finally:
        for forwarder in running.values():
            try:
                forwarder.stop()
            except Unavailable as error:
                refuse(forwarder.name, str(error))
        capture.unlink(missing_ok=True)
    return times
