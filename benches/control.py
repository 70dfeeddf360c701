"""What listing, scraping and streaming events cost the packets: the appliance forwards at full load, and the phases nothing, listing,
scrapers and events take turns, each for a tenth of a second. Then one listing of everything, with what it costs in memory. Started by
`scripts/bench control`.

Packets are counted per second of CPU time of the worker's thread, so that a busy machine costs all phases alike. A phase is compared
with the mean of the tenths of a second without anything right before and after it. In the phase nothing there is nothing either: what
it seems to cost is the error of all. Given are medians and their 95 % intervals.
"""

import argparse
import asyncio
import http.client
import json
import math
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

START_S = 120
# From the start of a phase to its first packet that counts.
SETTLE_S = 0.04
# How closely the end of a tick of the kernel is looked for.
TICK_POLL_S = 0.0001
# As SETTLE_S, for a hundred connections.
SCRAPERS_SETTLE_S = 0.5
TURNS_PER_ROUND = 40
SCRAPERS = 100
# Frames of the load: each stays in a buffer for ever.
ESTABLISHED = 8_192
# One conversation of TCP, from SYN to RST, for so many frames of established flows: opened and ended anew at each repetition.
FRAMES_PER_CONVERSATION = 256


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


ETHERNET = bytes.fromhex("0200000000020200000000010800")


def ipv4(source, destination, protocol, payload):
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, source, destination)
    return ETHERNET + head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(source, destination, sport, dport):
    return ipv4(source, destination, 17, struct.pack(">HHHH", sport, dport, 12, 0) + b"ping")


def tcp(source, destination, sport, dport, seq, ack, flags):
    segment = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 65535, 0, 0)
    pseudo = struct.pack(">IIBBH", source, destination, 0, 6, len(segment))
    return ipv4(source, destination, 6, segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:])


def record(data):
    return struct.pack("<IIII", 0, 0, len(data), len(data)) + data


HEAD = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
SYN, ACK, SYN_ACK, RST = 0x02, 0x10, 0x12, 0x14


def load(path):
    """Established UDP both ways, and now and then a conversation that makes events."""
    server = 0xC612_0001
    frames = []
    for number in range(ESTABLISHED):
        client, port = 0xC613_0000 + number // 1024, 1024 + number % 1024
        frames += [udp(client, server, port, 53), udp(server, client, 53, port)]
    with path.open("wb") as file:
        file.write(HEAD)
        for at, data in enumerate(frames):
            file.write(record(data))
            if at % FRAMES_PER_CONVERSATION == 0:
                client, port = 0xC613_8000, 1024 + at // FRAMES_PER_CONVERSATION
                for seq, ack, flags, reply in ((1, 0, SYN, False), (1, 2, SYN_ACK, True), (2, 2, ACK, False), (2, 2, RST, False)):
                    ends = (server, client, 80, port) if reply else (client, server, port, 80)
                    file.write(record(tcp(*ends, seq, ack, flags)))


def fill(path, flows):
    """A frame for each of so many flows: told apart by address and port."""
    template = bytearray(record(udp(0x0A00_0000, 0xC612_0001, 1024, 53)))
    ip = 16 + len(ETHERNET)
    with path.open("wb") as file:
        file.write(HEAD)
        for first in range(0, flows, 50_000):
            # The same address for 50,000 ports: one checksum for all of them.
            struct.pack_into(">I", template, ip + 12, 0x0A00_0000 + first // 50_000)
            template[ip + 10 : ip + 12] = b"\0\0"
            struct.pack_into(">H", template, ip + 10, checksum(bytes(template[ip : ip + 20])))
            before, after = bytes(template[: ip + 20]), bytes(template[ip + 22 :])
            ports = range(1024, 1024 + min(50_000, flows - first))
            file.write(b"".join(before + port.to_bytes(2, "big") + after for port in ports))


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Appliance:
    def __init__(self, binary, folder, flows, core, control):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # For sockets, whose paths must be short; DPDK's telemetry socket goes there as well.
        self.runtime = tempfile.TemporaryDirectory()
        self.socket = Path(self.runtime.name) / "control.sock"
        config = folder / "control.toml"
        entries = flows + 4 * ESTABLISHED
        config.write_text(
            f"""profile = "linux"
workers = 1
[[port]]
name = "load"
device = "net_pcap0,rx_pcap={folder}/load.pcap,infinite_rx=1"
role = "inside"
peer = "away"
[[port]]
name = "away"
device = "net_null0,no-rx=1"
role = "outside"
[[port]]
name = "fill"
device = "net_pcap1,rx_pcap={folder}/fill.pcap"
role = "inside"
peer = "gone"
[[port]]
name = "gone"
device = "net_null1,no-rx=1"
role = "outside"
[zones]
by = "none"
[table]
max_entries = {entries}
max_datagrams = 8192
[timeouts]
udp.unreplied = "1d"
[eal]
cores = "{','.join(map(str, sorted({core, control})))}"
hugepages = {'true' if free_hugepages() >= entries // 10_000 + 200 else 'false'}
[worker]
cores = "{core}"
[control]
socket = "{self.socket}"
http = "127.0.0.1:{self.port}"
"""
        )
        self.log = folder / "control.log"
        self.process = subprocess.Popen(
            [binary, "run", "--config", config],
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            env=os.environ | {"RUNTIME_DIRECTORY": self.runtime.name},
        )
        try:
            self.begin()
        except BaseException:
            self.stop()
            raise

    def begin(self):
        """Waits until it answers, and gets ready to measure."""
        until = time.monotonic() + START_S
        while True:
            try:
                self.get("/v1/info")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the appliance does not start:\n{self.log.read_text()}")
                time.sleep(0.1)
        tasks = list(Path(f"/proc/{self.process.pid}/task").iterdir())
        self.worker = next(task for task in tasks if (task / "comm").read_text().strip() == "worker-0")
        # Who measures, and who answers it, waits for no client that shares their core. The answering thread is made by this one.
        answers = next(int(task.name) for task in tasks if "telemet" in (task / "comm").read_text())
        for task, policy in ((answers, os.SCHED_FIFO), (0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)):
            os.sched_setscheduler(task, policy, os.sched_param(1))
        self.telemetry = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.telemetry.connect(f"{self.runtime.name}/dpdk/rte/dpdk_telemetry.v2")
        self.telemetry.recv(1 << 16)

    def curl(self, path):
        return f"curl -sSfN --unix-socket {self.socket} http://localhost{path}"

    def get(self, path):
        connection = Unix(self.socket)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    def reading(self):
        """Packets and the worker's CPU nanoseconds, both of now. The driver is asked: control answers with what it read last."""
        # The kernel counts CPU time at its ticks, some milliseconds apart: right after one it is the present time.
        cpu, until = (before := self.cpu()), time.monotonic() + 1
        while cpu == before:
            if time.monotonic() > until:
                sys.exit(f"the worker gets no CPU time: stop what else runs\n{self.log.read_text()}")
            time.sleep(TICK_POLL_S)
            cpu = self.cpu()
        self.telemetry.send(b"/ethdev/stats,0")
        return json.loads(self.telemetry.recv(1 << 16))["/ethdev/stats"]["ipackets"], cpu

    def cpu(self):
        return int((self.worker / "schedstat").read_text().split()[0])

    def rate(self, seconds, settle=SETTLE_S):
        """Packets per CPU second, over so long."""
        time.sleep(settle)
        packets, cpu = self.reading()
        time.sleep(seconds)
        more, later = self.reading()
        return (more - packets) / ((later - cpu) / 1e9)

    def resident_mib(self):
        """What the process holds of ordinary memory: hugepages are not counted here by the kernel."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.runtime.cleanup()


def free_hugepages():
    try:
        return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    except OSError:
        return 0


async def scrape(port):
    """A hundred clients, each once a second."""

    async def one(number):
        await asyncio.sleep(number / SCRAPERS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            begun = time.monotonic()
            writer.write(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(f"a scrape failed: {head!r}")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            await asyncio.sleep(max(0, begun + 1 - time.monotonic()))

    await asyncio.gather(*(one(number) for number in range(SCRAPERS)))


class Nothing:
    settle = SETTLE_S

    def __init__(self, appliance):
        self.appliance = appliance

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Programs(Nothing):
    """Programs that run as long as the phase does."""

    def __enter__(self):
        self.running = subprocess.Popen(self.words(), start_new_session=True, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        ended = self.running.poll()
        if ended is not None:
            raise RuntimeError(f"a client ended early: {self.running.args}: {ended}")
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


class Listing(Programs):
    """One after the other."""

    def words(self):
        return ["sh", "-c", f"while {self.appliance.curl('/v1/flows')} -o /dev/null; do :; done"]


class Scrapers(Programs):
    settle = SCRAPERS_SETTLE_S

    def words(self):
        return [sys.executable, __file__, "--scrape", str(self.appliance.port)]


class Events(Nothing):
    """One reader of all of them, as fast as it can."""

    bytes = 0

    def __enter__(self):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.connect(str(self.appliance.socket))
        self.stream.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        return self

    def read(self):
        while data := self.stream.recv(1 << 20):
            Events.bytes += len(data)

    def __exit__(self, *_):
        self.stream.shutdown(socket.SHUT_RDWR)
        self.reader.join()
        self.stream.close()


PHASES = {"nothing": Nothing, "listing": Listing, "scrapers": Scrapers, "events": Events}


def phases(appliance, turns, seconds, note):
    """{phase: [percent of throughput that it cost, one of each turn]}, and the rates without anything."""
    costs = {name: [] for name in PHASES}
    none = []
    before = appliance.rate(seconds)
    for turn in range(turns):
        if turn % TURNS_PER_ROUND == 0:
            note(f"turn {turn + 1} of {turns}")
        for name, phase in PHASES.items():
            with phase(appliance):
                rate = appliance.rate(seconds, phase.settle)
            after = appliance.rate(seconds)
            none.append(after)
            costs[name].append(100 * (1 - rate / ((before + after) / 2)))
            before = after
    return costs, none


def middle(values):
    """The median, its 95 % interval (between order statistics), and the quartiles."""
    ordered = sorted(values)
    count = len(ordered)
    half = 1.96 * math.sqrt(count) / 2
    low, high = max(0, math.floor(count / 2 - half)), min(count - 1, math.ceil(count / 2 + half))
    return {
        "median": statistics.median(ordered),
        "from": ordered[low],
        "to": ordered[high],
        "quartiles": [ordered[count // 4], ordered[3 * count // 4]],
    }


def one_listing(appliance, note):
    """Lists everything once, under load; what came, how long it took, how much memory it took at most, the throughput meanwhile."""
    note("one listing of everything")
    resident = appliance.resident_mib()
    packets, cpu = appliance.reading()
    begun = time.monotonic()
    lister = subprocess.Popen(f"{appliance.curl('/v1/flows')} | wc -lc", shell=True, stdout=subprocess.PIPE, text=True)
    most = resident
    while lister.poll() is None:
        time.sleep(0.05)
        most = max(most, appliance.resident_mib())
    took = time.monotonic() - begun
    more, later = appliance.reading()
    lines, size = map(int, lister.stdout.read().split())
    return {
        "flows": lines,
        "mib": size / (1 << 20),
        "seconds": took,
        "resident_mib_before": resident,
        "resident_mib_most": most,
        "packets_per_cpu_second": (more - packets) / ((later - cpu) / 1e9),
    }


def main():
    read = argparse.ArgumentParser()
    read.add_argument("--scrape", type=int)
    read.add_argument("--binary", type=Path)
    read.add_argument("--folder", type=Path)
    read.add_argument("--flows", type=int, default=1_000_000)
    read.add_argument("--rounds", type=int, default=5)
    read.add_argument("--seconds", type=float, default=0.1)
    read.add_argument("--json", action="store_true")
    given = read.parse_args()
    if given.scrape:
        try:
            asyncio.run(scrape(given.scrape))
        except KeyboardInterrupt:
            pass
        return

    def note(words):
        print(f"  {words}", file=sys.stderr)

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this needs two cores: one for the worker, one for control and its clients")
    core, control = cores[1], cores[0]
    note(f"a capture of {given.flows} flows")
    load(given.folder / "load.pcap")
    fill(given.folder / "fill.pcap", given.flows)
    # The clients share the control side's core.
    os.sched_setaffinity(0, {core, control})
    appliance = Appliance(given.binary, given.folder, given.flows, core, control)
    os.sched_setaffinity(0, {control})
    try:
        note("filling the table")
        held, until = 0, time.monotonic() + 300
        while held < given.flows and time.monotonic() < until:
            time.sleep(0.5)
            held = appliance.get("/v1/stats")["entries"]
        costs, rates = phases(appliance, given.rounds * TURNS_PER_ROUND, given.seconds, note)
        listing = one_listing(appliance, note)
        lost = appliance.get("/v1/stats")["workers"][0]["events_lost"]
    finally:
        appliance.stop()
        for name in ("load.pcap", "fill.pcap"):
            (given.folder / name).unlink(missing_ok=True)
    none = statistics.median(rates)
    told = {
        "flows": held,
        "none_packets_per_cpu_second": none,
        "cost_percent": {name: middle(each) for name, each in costs.items()},
        "cost_percent_turns": costs,
        "events_mib": Events.bytes / (1 << 20),
        "listing": listing,
        "events_lost": lost,
    }
    if given.json:
        print(json.dumps(told))
        return
    print(f"{held} flows, {none / 1e6:.2f} million packets per second of the worker's core without anything; {len(costs['events'])} turns")
    for name, each in told["cost_percent"].items():
        print(
            f"  {name:<9} costs {each['median']:5.2f} %   (95 %: {each['from']:.2f} to {each['to']:.2f}; half of the turns: "
            f"{each['quartiles'][0]:.1f} to {each['quartiles'][1]:.1f})"
        )
    print(f"  {told['events_mib']:.0f} MiB of events were read; {lost} did not fit the ring")
    print(
        f"  one listing of {listing['flows']} flows ({listing['mib']:.0f} MiB) took {listing['seconds']:.1f} s; memory "
        f"{listing['resident_mib_before']:.1f} -> at most {listing['resident_mib_most']:.1f} MiB; meanwhile "
        f"{listing['packets_per_cpu_second'] / 1e6:.2f} million packets per second"
    )


if __name__ == "__main__":
    main()
