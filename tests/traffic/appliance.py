"""The built program on a test's ports: its configuration, its start and end, and what it answers.
It is asked through its own subcommands only, as an operator would."""

import json
import os
import subprocess
import time

import hosts
from hosts import PATIENCE, Trouble

# The appliance's counters are not older than a quarter of a second.
STATS_SECONDS = 0.3
# What a subcommand says where a worker lost its core for so long that control gave it up. The question is then asked again;
# none that is asked here does more the second time.
NOT_NOW = ("did not answer within", "the answer broke off", "commands waiting: try again", "no answer within")


def configuration(inside, outside, workers, queues, socket, hugepages=False):
    """Two ports inline. The policy accepts new flows from inside only, as the shipped one does."""
    return f"""\
profile = "linux"
mode = "inline"
workers = {workers}

[[port]]
name = "lan"
device = "{inside}"
role = "inside"
peer = "wan"
queues = {queues}

[[port]]
name = "wan"
device = "{outside}"
role = "outside"
peer = "lan"
queues = {queues}

# Frames of one datagram come by different queues, and a worker that has no core for a while is behind: no datagram is given
# up to make room for others.
[table]
max_entries = 65536
max_datagrams = 4096

# The listing comes after the last packet, however slow the machine is: nothing may have ended by then.
[timeouts]
tcp.fin_wait = "1h"
tcp.close_wait = "1h"
tcp.last_ack = "1h"
tcp.time_wait = "1h"
tcp.close = "1h"
udp.unreplied = "1h"
udp.stream = "1h"
icmp = "1h"
icmpv6 = "1h"

[eal]
hugepages = {str(hugepages).lower()}

[worker]
idle = "sleep"

[control]
socket = "{socket}"
http = "off"
"""


class Asked:
    """Whoever can run a subcommand of the appliance; what it says, as values."""

    def try_ask(self, *words):
        """One question: its exit status, what it printed, and its errors."""
        raise NotImplementedError

    def last_words(self):
        """What the appliance itself said, for whoever has to find out what went wrong."""
        return ""

    def ask(self, *words):
        end = time.monotonic() + PATIENCE
        while True:
            status, out, errors = self.try_ask(*words)
            if not status:
                return out
            if time.monotonic() > end or not any(sentence in errors for sentence in NOT_NOW):
                raise Trouble(f"`{' '.join(words)}` failed: {errors}{self.last_words()}")

    def stats(self):
        return json.loads(self.ask("stats", "-o", "json"))

    def flows(self):
        return [json.loads(line) for line in self.ask("list", "-o", "jsonl").splitlines()]

    def flush(self):
        self.ask("flush")

    def settled(self, seconds=PATIENCE):
        """The counters once nothing moves any more. They are copied out now and then, so two must agree."""
        before, end = None, time.monotonic() + seconds
        while True:
            stats = self.stats()
            now = [[worker["rx_packets"], worker["tx_packets"]] for worker in stats["workers"]]
            if now == before:
                return stats
            if time.monotonic() > end:
                raise Trouble(f"packets still pass {seconds} s after the last was sent: {before} and then {now}")
            before = now
            time.sleep(STATS_SECONDS)


class Appliance(Asked, hosts.Program):
    """The program on this machine."""

    def __init__(self, program, home, inside, outside, workers, queues, namespace=None):
        self.program, self.log = program, f"{home}/appliance.log"
        self.socket = f"{home}/control.sock"
        self.config = f"{home}/appliance.toml"
        with open(self.config, "w") as file:
            file.write(configuration(inside, outside, workers, queues, self.socket))
        self.words = [program, "run", "--config", self.config]
        if namespace:
            self.words = namespace.words(*self.words)

    def await_ready(self):
        hosts.until("the appliance to start", 2 * PATIENCE, self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise Trouble(f"the appliance did not start; its words:\n{hosts.tail(self.log)}")
        return os.path.exists(self.socket) and self.try_ask("count")[0] == 0

    def try_ask(self, *words):
        words = [self.program, *words, "--socket", self.socket]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE)
        return done.returncode, done.stdout, done.stderr.strip()

    def last_words(self):
        return f"; the appliance's words:\n{hosts.tail(self.log)}"
