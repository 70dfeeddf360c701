"""A real Prometheus server scrapes the running appliance by the files of dpdk-config/prometheus: every query of the dashboard and
of the rules must have an answer, and a table that is nearly full must be told, by our alert and by node_exporter's.

usage: python3 -B tests/prometheus PROGRAM
"""

import json
import math
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.realpath(f"{os.path.dirname(__file__)}/../..")
FILES = f"{ROOT}/dpdk-config/prometheus"
# Flows that the table holds, and those that the traffic makes: more than nine tenths, less than all.
LIMIT, FLOWS = 1000, 930
# What node_exporter's users have: https://github.com/prometheus/node_exporter, docs/node-mixin
STOCK = """\
groups:
  - name: node
    rules:
      - alert: NodeHighNumberConntrackEntriesUsed
        expr: (node_nf_conntrack_entries / node_nf_conntrack_entries_limit) > 0.9
"""
EXPECTED = {"ConntrackTableNearlyFull", "NodeHighNumberConntrackEntriesUsed"}
# They have no reason here. A machine whose cores are taken away may give the first two one for a while.
QUIET = {"ConntrackDown", "ConntrackWorkerSilent", "ConntrackFlowsRefused", "ConntrackPortDown"}
# How long anything may take that an idle machine does within seconds.
PATIENCE = 60


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def frame(source, target, payload, proto=17, vlan=None, spoil=0, fragment=0):
    """Ethernet and IPv4 around a payload, from 10.0.0.`source` to 10.0.0.`target`."""
    addresses = bytes([10, 0, 0, source, 10, 0, 0, target])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), source, fragment, 64, proto, 0) + addresses
    head = head[:10] + struct.pack("!H", checksum(head) ^ spoil) + head[12:]
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return bytes([2, 0, 0, 0, 0, target, 2, 0, 0, 0, 0, source]) + tag + b"\x08\x00" + head + payload


def udp(source, target, sport, dport, **more):
    return frame(source, target, struct.pack("!HHHH", sport, dport, 12, 0) + b"ping", **more)


def tcp(source, target, sport, dport, flags):
    body = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, flags, 1024, 0, 0)
    addresses = bytes([10, 0, 0, source, 10, 0, 0, target])
    body = body[:16] + struct.pack("!H", checksum(addresses + struct.pack("!HH", 6, 20) + body)) + body[18:]
    return frame(source, target, body, proto=6)


def capture(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for data in frames:
            file.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)


def traffic(home):
    """What both sides send, over and over."""
    syn, odd = 2, 3
    inside = [udp(1, 2, 1000 + number, 53) for number in range(FLOWS - 130)]
    inside += [tcp(1, 2, 1000 + number, 80, syn) for number in range(120)]
    inside += [udp(1, 2, 1000 + number, 53, vlan=7) for number in range(10)]
    inside += [tcp(1, 2, 9, 9, odd), udp(1, 2, 9, 9, spoil=1), frame(1, 2, bytes(8), fragment=0x2000)]
    inside += [bytes.fromhex("ffffffffffff020000000001" "0806") + bytes(46)]
    outside = [udp(2, 1, 53, 1000 + number) for number in range(300)] + [udp(3, 1, 7, 7)]
    capture(f"{home}/inside.pcap", inside)
    capture(f"{home}/outside.pcap", outside)


def free_port():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def configuration(home, port):
    device = "net_pcap{number},rx_pcap={home}/{side}.pcap,tx_pcap=/dev/null,infinite_rx=1"
    ports = "".join(
        f'[[port]]\nname = "{name}"\ndevice = "{device.format(number=number, home=home, side=side)}"\n'
        f'role = "{side}"\npeer = "{peer}"\n'
        for number, (name, side, peer) in enumerate([("lan", "inside", "wan"), ("wan", "outside", "lan")])
    )
    return f"""\
workers = 1
{ports}
[[zone]]
id = 7
vlan = 7
limit = 100
[table]
max_entries = {LIMIT}
[eal]
hugepages = false
[control]
socket = "{home}/control.sock"
http = "127.0.0.1:{port}"
[metrics]
node_compat = true
"""


def until(what, done, log, wrong=None):
    """Asks until `done()` gives something true, and gives that; `wrong()` says what is still missing."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = done()
        if answer:
            return answer
        if time.monotonic() > end:
            with open(log) as file:
                why = f":\n{wrong()}" if wrong else ""
                sys.exit(f"waited {PATIENCE} s for {what}{why}; the last words:\n{file.read()[-2000:]}")
        time.sleep(0.2)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        # Prometheus says of a query that it cannot read that it is wrong, and nothing else.
        if error.code in (400, 422):
            sys.exit(f"{url} is refused: {error.read().decode()}")
        return ""
    except OSError:
        return ""


class Server:
    """Prometheus with the shipped files, hurried on: a scrape a second, and alerts that wait for two."""

    def __init__(self, home, target):
        self.home, self.port = home, free_port()
        with open(f"{FILES}/alerts.yml") as file:
            rules = re.sub(r"for: \w+", "for: 2s", file.read())
        with open(f"{FILES}/scrape.yml") as file:
            scrape = file.read().replace("127.0.0.1:9477", target).replace("scrape_interval: 15s", "scrape_interval: 1s")
        assert target in scrape and "scrape_interval: 1s" in scrape, scrape
        text = f"global:\n  evaluation_interval: 1s\nrule_files: [rules.yml, stock.yml]\n{scrape}"
        for name, text in [("rules.yml", rules), ("stock.yml", STOCK), ("prometheus.yml", text)]:
            with open(f"{home}/{name}", "w") as file:
                file.write(text)
        self.run("promtool", "check", "config", f"{home}/prometheus.yml")

    @staticmethod
    def run(*words):
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"`{' '.join(words)}`:\n{done.stdout}{done.stderr}")

    def words(self):
        home = self.home
        return ["prometheus", f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]

    def ask(self, path, **words):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        return json.loads(until(f"an answer to {url}", lambda: get(url), f"{self.home}/prometheus.log"))["data"]

    def values(self, query):
        """What a query gives that is a number."""
        values = (float(row["value"][1]) for row in self.ask("query", query=query)["result"])
        return [value for value in values if math.isfinite(value)]

    def firing(self):
        """The names of the alerts that fire now."""
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def dashboard_queries():
    with open(f"{FILES}/dashboard.json") as file:
        panels = json.load(file)["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "10s")
            assert "$" not in query, query
            yield f"panel `{panel['title']}`", query


def rule_queries(server):
    """Both sides of each condition: an alert that does not fire has no answer by itself."""
    for group in server.ask("rules")["groups"]:
        for rule in group["rules"]:
            for part in rule["query"].split(" and "):
                yield f"rule `{rule['name']}`", re.sub(r" (==|>|<) [\d.e-]+$", "", part)


def unshown(page, queries):
    """Our own series that neither a panel nor a rule asks for."""
    names = set(re.findall(r"^# TYPE (conntrack_\w+)", page, re.M))
    asked = set(re.findall(r"conntrack_\w+", " ".join(query for _, query in queries)))
    asked |= {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    return sorted(names - asked)


def main(program):
    Server.run("promtool", "check", "rules", f"{FILES}/alerts.yml")
    Server.run("promtool", "test", "rules", f"{ROOT}/tests/prometheus/alerts_test.yml")
    with tempfile.TemporaryDirectory(prefix="ct-prometheus-") as home:
        traffic(home)
        target = f"127.0.0.1:{free_port()}"
        with open(f"{home}/config.toml", "w") as file:
            file.write(configuration(home, int(target.split(":")[1])))
        server = Server(home, target)
        logs = f"{home}/appliance.log", f"{home}/prometheus.log"
        words = [program, "run", "--config", f"{home}/config.toml"], server.words()
        running = []
        try:
            for log, command in zip(logs, words):
                with open(log, "w") as file:
                    running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file))
            check(server, target, *logs)
        finally:
            for process in reversed(running):
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def check(server, target, appliance_log, server_log):
    page = until("the appliance's metrics", lambda: get(f"http://{target}/metrics"), appliance_log)
    until("a sixth scrape", lambda: [n for n in server.values("count_over_time(up[1m])") if n >= 6], server_log)

    # A scrape that took longer than its second is down, and has no numbers until the next.
    def scraped():
        [scraped] = server.ask("targets")["activeTargets"]
        return scraped["health"] == "up" and not scraped["lastError"]

    until("a scrape without an error", scraped, server_log, lambda: server.ask("targets")["activeTargets"])
    assert server.ask("label/instance/values", **{"match[]": "conntrack_build_info"}) == [target]

    queries = [*dashboard_queries(), *rule_queries(server)]
    empty = queries

    def answered():
        nonlocal empty
        empty = [(where, query) for where, query in empty if not server.values(query)]
        return not empty

    until("an answer to every query", answered, server_log, lambda: "\n".join(map(": ".join, empty)))
    assert not unshown(page, queries), f"nothing shows {unshown(page, queries)}"
    traffic = "sum(rate(conntrack_received_packets_total[10s]))"
    until("traffic", lambda: [n for n in server.values(traffic) if n > 0], server_log)

    # One moment at which those fire that should, and none that should not.
    told = until(
        f"{' and '.join(sorted(EXPECTED))} to fire, and none of {', '.join(sorted(QUIET))}",
        lambda: (told := server.firing()) >= EXPECTED and not told & QUIET and told,
        server_log,
        server.firing,
    )
    print(f"{len(queries)} queries answered, {len(told)} alerts told: {', '.join(sorted(told))}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(os.path.realpath(sys.argv[1]))
