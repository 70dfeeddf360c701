"""The words of scripts/traffic: which links, how much, and how it is told. `scripts/traffic --help` says the rest."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import guest
import hosts
import packets
import sockets
from hosts import Refused, Trouble
from outcome import Link
from sockets import Amount

# Kinds by the word for them, and what drives each.
TESTPMD = {"memif": ("net_memif", packets.memif), "vhost": ("net_vhost", packets.vhost)}
HOSTS = {"tap": "net_tap", "af_packet": "net_af_packet", "af_xdp": "net_af_xdp"}
# The kernel's AF_PACKET fan-out joins datagrams before it chooses a queue, and what comes so is too long for the wire.
JOINED = "the kernel joins them behind the driver's back (PACKET_FANOUT_FLAG_DEFRAG)"
# af_xdp on a veth pair has one queue.
ONE_QUEUE = ("af_xdp",)

# Ports that one host has for connections, and what the appliance's table in these tests has room for, long datagrams
# included.
MOST_FLOWS = 50_000


def words():
    parser = argparse.ArgumentParser(prog="traffic")
    parser.add_argument("links", nargs="+", choices=[*TESTPMD, *HOSTS, "nic"])
    parser.add_argument("--program", required=True)
    parser.add_argument("--static", required=True)
    parser.add_argument("--keep", required=True)
    parser.add_argument("--flows", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not 10 <= asked.flows <= MOST_FLOWS:
        parser.error(f"--flows is a number from 10 to {MOST_FLOWS}: each connection has a port and an entry of its own")
    return asked


def amount(asked, link):
    """How much real TCP goes over a link."""
    fragments = link != "af_packet"
    if asked.quick:
        return Amount(asked.flows, asked.flows // 10, fragments, JOINED, trials=(32, 64))
    if link == "nic":
        return Amount(asked.flows, asked.flows // 10, trials=(16, 32), least=0.1)
    return Amount(asked.flows, asked.flows, fragments, JOINED)


def ways(asked, link):
    """The numbers of queues that a link is tried with: one for each worker, and one for all, which is without RSS."""
    if link in ONE_QUEUE or asked.workers == 1:
        return [1]
    return [asked.workers] if asked.quick else [asked.workers, 1]


def one(asked, link, home):
    """Drives a link in all its ways; gives rows as they come."""
    logs = f"{asked.keep}/logs"
    if link == "nic":
        yield from guest.drive(asked.static, home, logs, asked.keep, amount(asked, link), asked.workers)
        return
    for queues in ways(asked, link):
        place = f"{home}/{link}{queues}"
        os.mkdir(place)
        try:
            if link in TESTPMD:
                kind, ends = TESTPMD[link]
                yield packets.drive(kind, ends, asked.program, place, asked.flows, asked.workers, queues, asked.quick)
            else:
                yield sockets.drive(HOSTS[link], asked.program, place, amount(asked, link), asked.workers, queues)
        except Trouble as trouble:
            yield Link(HOSTS.get(link) or TESTPMD[link][0], "did not run", queues, problems=[str(trouble)])
        finally:
            # Sockets and frames have done their work, the logs are for whoever wants to know more.
            done = shutil.ignore_patterns("*.sock", "*.pcap")
            shutil.copytree(place, f"{logs}/{link}{queues}", ignore=done, dirs_exist_ok=True)


def give_to_owner(folder):
    """What root wrote into somebody's checkout is theirs."""
    owner = os.stat(folder)
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(path, name), owner.st_uid, owner.st_gid, follow_symlinks=False)


def main():
    asked = words()
    # Ends through the `finally` and `with` of everything that was begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    out = sys.stderr if asked.json else sys.stdout
    os.makedirs(f"{asked.keep}/logs", exist_ok=True)
    if os.geteuid() == 0:
        hosts.clear_away()
    rows, refused = [], []

    def tell(text):
        print(text, file=out, flush=True)

    # Paths of unix sockets are short (108 bytes), and the checkout's may not be.
    with tempfile.TemporaryDirectory(prefix="ctlink-") as home:
        for link in asked.links:
            begun = time.monotonic()
            try:
                for row in one(asked, link, home):
                    rows.append(row)
                    tell(f"{row.text()}\n  {time.monotonic() - begun:.0f} s\n")
                    begun = time.monotonic()
            except Refused as why:
                refused.append({"kind": link, "why": str(why)})
                tell(f"refused: {link}: {why}\n")
            except (Trouble, OSError, subprocess.SubprocessError) as trouble:
                rows.append(Link(link, "did not run", 0, problems=[str(trouble)]))
                tell(f"{rows[-1].text()}\n")
    if os.geteuid() == 0:
        give_to_owner(asked.keep)
    if asked.json:
        shown = {"links": [row.row() for row in rows]}
        print(json.dumps(shown | ({"refused": refused} if refused else {})))
    bad = [row.kind for row in rows if not row.good]
    told = f", {len(refused)} refused by this machine" if refused else ""
    tell(f"{len(rows) - len(bad)} links good, {len(bad)} not{told}")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
