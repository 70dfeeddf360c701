"""What listing, scraping and streaming events cost the packets: the appliance forwards at full load, and the phases none, listing,
scrapers and events take turns. Then one listing of everything, with what it costs in memory. Started by `scripts/bench control`.

Packets are counted per second of CPU time of the worker's thread, so that a busy machine costs all phases alike. A phase is compared
with the mean of the phases without anything right before and after it; medians of the rounds.
"""

import argparse
import asyncio
import http.client
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

START_S = 120
SETTLE_S = 0.3
MOVES_S = 20
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
        self.socket = folder / "control.sock"
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
            [binary, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=self.log.open("w"), stderr=subprocess.STDOUT
        )
        until = time.monotonic() + START_S
        while True:
            try:
                self.get("/v1/info")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the appliance does not start:\n{self.log.read_text()}")
                time.sleep(0.1)
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        self.worker = next(task for task in tasks if (task / "comm").read_text().strip() == "worker-0")

    def curl(self, path):
        return f"curl -sSfN --unix-socket {self.socket} http://localhost{path}"

    def get(self, path):
        connection = Unix(self.socket)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    def reading(self):
        """Packets and the worker's CPU nanoseconds, both of now: control answers for a while with what it read last, so it is
        asked until the number moves."""
        first, until = None, time.monotonic() + MOVES_S
        while True:
            packets = self.get("/v1/ports")[0]["stats"]["rx_packets"]
            if first is not None and packets != first:
                return packets, int((self.worker / "schedstat").read_text().split()[0])
            if time.monotonic() > until:
                sys.exit(f"no packet in {MOVES_S} s: the worker gets no CPU time; stop what else runs\n{self.log.read_text()}")
            first = packets
            time.sleep(0.002)

    def rate(self, seconds):
        """Packets per CPU second, over so long."""
        time.sleep(SETTLE_S)
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


def free_hugepages():
    try:
        return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    except OSError:
        return 0


def repeated_listings(appliance):
    return [["sh", "-c", f"while {appliance.curl('/v1/flows')} -o /dev/null; do :; done"]]


def scrapers(appliance):
    return [[sys.executable, __file__, "--scrape", str(appliance.port)]]


def events(appliance):
    return [["sh", "-c", f"exec {appliance.curl('/v1/events')} -o /dev/null"]]


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


class Clients:
    def __init__(self, commands):
        self.running = [subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL) for words in commands]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.running:
            ended = client.poll()
            if ended is None:
                os.killpg(client.pid, signal.SIGKILL)
                client.wait()
            else:
                raise RuntimeError(f"a client ended early: {client.args}: {ended}")


PHASES = {"listing": repeated_listings, "scrapers": scrapers, "events": events}


def phases(appliance, rounds, seconds, note):
    """{phase: [percent of throughput that it cost, one of each round]}"""
    costs = {name: [] for name in PHASES}
    rates = {name: [] for name in ("none", *PHASES)}
    for turn in range(rounds):
        note(f"round {turn + 1} of {rounds}")
        before = appliance.rate(seconds)
        rates["none"].append(before)
        for name, commands in PHASES.items():
            with Clients(commands(appliance)):
                rate = appliance.rate(seconds)
            after = appliance.rate(seconds)
            rates[name].append(rate)
            rates["none"].append(after)
            costs[name].append(100 * (1 - rate / ((before + after) / 2)))
            before = after
    return costs, rates


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
    read.add_argument("--seconds", type=float, default=2.0)
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
        costs, rates = phases(appliance, given.rounds, given.seconds, note)
        listing = one_listing(appliance, note)
        lost = appliance.get("/v1/stats")["workers"][0]["events_lost"]
    finally:
        appliance.stop()
        for name in ("load.pcap", "fill.pcap"):
            (given.folder / name).unlink(missing_ok=True)
    none = statistics.median(rates["none"])
    told = {
        "flows": held,
        "none_packets_per_cpu_second": none,
        "cost_percent": {name: statistics.median(each) for name, each in costs.items()},
        "cost_percent_rounds": costs,
        "listing": listing,
        "events_lost": lost,
    }
    if given.json:
        print(json.dumps(told))
        return
    print(f"{held} flows, {none / 1e6:.2f} million packets per second of the worker's core without anything")
    for name, each in costs.items():
        print(f"  {name:<9} costs {statistics.median(each):5.2f} %   (rounds: {' '.join(f'{one:.1f}' for one in each)})")
    print(
        f"  one listing of {listing['flows']} flows ({listing['mib']:.0f} MiB) took {listing['seconds']:.1f} s; memory "
        f"{listing['resident_mib_before']:.1f} -> at most {listing['resident_mib_most']:.1f} MiB; meanwhile "
        f"{listing['packets_per_cpu_second'] / 1e6:.2f} million packets per second"
    )


if __name__ == "__main__":
    main()
