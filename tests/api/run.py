"""Starts the appliance and schemathesis, once for each door. Started by scripts/api, which says what it is for."""

import argparse
import http.client
import json
import os
import re
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# They never end; tests/doors.rs reads them.
STREAMS = ["/v1/events", "/v1/dropped", "/v1/trace", "/v1/overview/stream"]

# How long it may take to start, to end, and to have every worker back that lost its core.
PATIENCE_S = 60
# Requests made at the least, or the run says nothing.
LEAST_CASES = 20


def frame(number):
    """Ethernet, IPv4 and UDP from 198.18.0.1; the ports tell flows apart."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 32, 0, 0, 64, 17, 0, bytes([198, 18, 0, 1]), bytes([198, 18, 0, 2]))
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack(">H", ~total & 0xFFFF) + ip[12:]
    return bytes.fromhex("0200000000020200000000010800") + ip + struct.pack(">HHHH4s", 1000 + number, 53, 12, 0, b"ping")


def capture(path, frames):
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(frames):
            data = frame(number)
            file.write(struct.pack("<IIII", number, 0, len(data), len(data)) + data)


class Appliance:
    def __init__(self, binary, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.socket = folder / "control.sock"
        self.token = secrets.token_hex(32)
        token = folder / "token"
        token.touch(0o600)
        token.write_text(self.token)
        capture(folder / "in.pcap", 100)
        config = folder / "config.toml"
        config.write_text(
            f"""workers = 1
[[port]]
name = "in"
device = "net_pcap0,rx_pcap={folder}/in.pcap,tx_pcap={folder}/out.pcap"
role = "inside"
peer = "out"
[[port]]
name = "out"
device = "net_null0,no-rx=1"
role = "outside"
[eal]
hugepages = false
[worker]
idle = "sleep"
[control]
socket = "{self.socket}"
http = "127.0.0.1:{self.port}"
token_file = "{token}"
"""
        )
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [binary, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the appliance does not answer:\n{self.log.read_text()}")
            time.sleep(0.05)

    def answers(self):
        try:
            return self.get("/v1/info") is not None
        except OSError:
            return False

    def get(self, path):
        """The answer to a question over TCP; None where it was refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        text = answer.read()
        return json.loads(text) if answer.status == 200 else None

    def turns(self):
        """Whether every worker answers, or does so again: one that a request has stuck stays silent."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                stats = self.get("/v1/stats")
                if stats and stats["workers"] and all(worker["responding"] for worker in stats["workers"]):
                    return True
            except OSError as error:
                stats = error
            if time.monotonic() > until:
                print(f"not every worker answers: {stats}")
                return False
            time.sleep(0.2)

    def stop(self):
        """Gives whether it ran until now and ends in order."""
        ran = self.process.poll() is None
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S) == 0 and ran
        except subprocess.TimeoutExpired:
            self.process.kill()
            return False


class Relay:
    """The unix socket as a TCP port, for a client that knows TCP only."""

    def __init__(self, path):
        self.path = str(path)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.server.accept()
            inner = socket.socket(socket.AF_UNIX)
            try:
                inner.connect(self.path)
            except OSError:
                client.close()
                continue
            for ends in ((client, inner), (inner, client)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    @staticmethod
    def carry(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.close()


def schemathesis(url, given, folder, more):
    """Whether nothing was found; a machine that makes too few requests in the time gets more of it."""
    for seconds in (given.seconds, 4 * given.seconds, 16 * given.seconds):
        found, cases = asked(url, given.seed, seconds, folder, more)
        if found:
            return False
        if cases >= LEAST_CASES:
            return True
    print(f"only {cases} requests were made in {seconds} s")
    return False


def asked(url, seed, seconds, folder, more):
    """Whether something was found, and how many requests there were."""
    here = Path(__file__).resolve().parent
    words = [Path(sys.executable).parent / "schemathesis", "--config-file", here / "schemathesis.toml", "run"]
    words += [f"{url}/v1/openapi.json", "--max-time", str(seconds), "--seed", str(seed), "--no-color"]
    words += ["--phases", "coverage,fuzzing", "--max-failures", "20", "--request-timeout", "20", "--checks", "all"]
    for path in STREAMS:
        words += ["--exclude-path", path]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(here / "checks.py")}
    done = subprocess.run(words + more, cwd=folder, env=environment, stdin=subprocess.DEVNULL, text=True, capture_output=True)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        print(text)
        return True, 0
    cases = re.search(r"(\d[\d,]*) generated", text)
    print("\n".join(line for line in text.splitlines() if "generated" in line or "Operations" in line or "Tested:" in line or "Selected:" in line))
    return False, int(cases[1].replace(",", "")) if cases else 0


def main():
    read = argparse.ArgumentParser()
    read.add_argument("--binary", required=True)
    read.add_argument("--seconds", type=int, required=True)
    read.add_argument("--seed", type=int, required=True)
    given = read.parse_args()
    # What would lead the client astray.
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        appliance = Appliance(given.binary, folder)
        tcp = f"http://127.0.0.1:{appliance.port}"
        unix = f"http://127.0.0.1:{Relay(appliance.socket).port}"
        for door, url, more in (
            ("TCP", tcp, ["--header", f"Authorization: Bearer {appliance.token}"]),
            # Nothing is asked for here, so that what is declared as needing the token is had without. What breaks the
            # description in other ways the same routes have refused over TCP.
            ("unix socket", unix, ["--mode", "positive", "--exclude-checks", "ignored_auth,missing_required_header"]),
        ):
            print(f"{door}, seed {given.seed}")
            good &= schemathesis(url, given, folder, more)
            good &= appliance.turns()
        if not appliance.stop():
            good = False
            print("the appliance ended or did not end in order")
        if not good:
            print(appliance.log.read_text()[-4000:])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
