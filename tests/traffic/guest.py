"""nic: a small virtual machine, emulated by QEMU, in which the appliance takes PCI network cards from the kernel by
vfio-pci, lies on hugepages, and forwards real TCP between two hosts on this machine.

The machine runs Debian's own kernel with the appliance, built with `--features static`, and busybox as all of its
programs. Emulated instructions are slow; the path is the one of bare metal: an IOMMU, vfio, a card's descriptors."""

import base64
import contextlib
import glob
import gzip
import io
import lzma
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import time
from dataclasses import dataclass

import hosts
import sockets
from appliance import Asked, configuration
from hosts import Host, Namespace, Refused, Trouble, run, until
from outcome import Link

# The order in which they need each other is depmod's to say.
MODULES = ["vfio", "vfio_iommu_type1", "vfio-pci"]
MEMORY_MIB = 1536
HUGEPAGES = 256
BOOT_SECONDS = 300
START_SECONDS = 300
SOCKET = "/run/control.sock"

# Runs as the guest's first process. The second serial line is a shell for this program; the first is the console.
INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /var /etc /root /usr/bin /usr/sbin /sbin
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
ln -s /run /var/run
mkdir -p /dev/hugepages
mount -t hugetlbfs none /dev/hugepages
echo {pages} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
ip link set lo up
{insmods}
for card in {cards}; do
  echo vfio-pci > /sys/bus/pci/devices/$card/driver_override
  echo $card > /sys/bus/pci/drivers_probe
  echo "$card $(cat /sys/bus/pci/devices/$card/vendor):$(cat /sys/bus/pci/devices/$card/device) has the driver" \\
    "$(basename $(readlink /sys/bus/pci/devices/$card/driver))"
done
grep -E 'HugePages_(Total|Free)' /proc/meminfo
# Held open: what comes to a line that nobody has open is thrown away, and between two shells nobody has.
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
echo "the guest is ready"
# By a file's name, so that it is no interactive shell with prompts.
while :; do sh /dev/ttyS1 >/dev/ttyS1 2>&1; done
"""


@dataclass
class Card:
    """A pair of emulated cards and what is asked of it."""

    kind: str
    about: str
    # QEMU's words for one card.
    device: str
    queues: int
    # Places on the guest's bus.
    slots: tuple

    @property
    def addresses(self):
        return [f"0000:00:{slot:02x}.0" for slot in self.slots]


def cards(workers):
    """virtio needs the IOMMU's platform flag and no legacy mode to be given away by vfio; two vectors a queue and two more."""
    virtio = "virtio-net-pci,iommu_platform=on,disable-legacy=on"
    several = f"{virtio},mq=on,rss=on,vectors={2 * workers + 2}"
    return [
        Card("nic_virtio_rss", "virtio-net-pci, spread by RSS", several, workers, (4, 5)),
        Card("nic_virtio", "virtio-net-pci, no RSS", virtio, 1, (6, 7)),
        Card("nic_e1000e", "e1000e (Intel 82574L), no RSS", "e1000e", 1, (8, 9)),
    ]


def kernel(folder):
    """Debian's kernel image and the modules that the guest needs, unpacked and not installed; kept for the next run."""
    if found := glob.glob(f"{folder}/boot/vmlinuz-*"):
        return found[0], sorted(glob.glob(f"{folder}/lib/modules/*"))[0]
    shown = run("apt-cache", "depends", "--important", "linux-image-amd64")
    package = re.search(r"Depends: (linux-image-\S+)", shown)
    if not package:
        raise Refused("apt knows no kernel package linux-image-amd64: this needs Debian 12 or later, with its package lists")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(f"{folder}/part")
    # apt drops its rights to a user that cannot read here, and says so on standard error.
    run("bash", "-c", 'cd "$0" && apt-get download -qq "$1"', folder, package[1], seconds=300)
    archive = glob.glob(f"{folder}/*.deb")[0]
    inside = "./lib/modules/*/"
    keep = ["./boot/vmlinuz-*", inside + "modules.*", inside + "kernel/drivers/vfio/*", inside + "kernel/virt/lib/*"]
    run("bash", "-c", 'set -o pipefail; dpkg-deb --fsys-tarfile "$0" | tar -x -C "$1" --wildcards "${@:2}"',
        archive, f"{folder}/part", *keep, seconds=120)  # fmt: skip
    os.unlink(archive)
    for part in os.listdir(f"{folder}/part"):
        os.rename(f"{folder}/part/{part}", f"{folder}/{part}")
    modules = sorted(glob.glob(f"{folder}/lib/modules/*"))[0]
    run("depmod", "-b", folder, os.path.basename(modules), seconds=60)
    return glob.glob(f"{folder}/boot/vmlinuz-*")[0], modules


def in_order(modules):
    """The files of MODULES and of what they need, each after those that it needs."""
    needs, by_name = {}, {}
    with open(f"{modules}/modules.dep") as file:
        for line in file:
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
            by_name[os.path.basename(path).split(".")[0].replace("-", "_")] = path
    order = []

    def add(path):
        for need in needs[path]:
            add(need)
        if path not in order:
            order.append(path)

    for module in MODULES:
        path = by_name.get(module.replace("-", "_"))
        # What is no module is in the kernel itself.
        if path:
            add(path)
    return order


def libraries(program):
    """The shared libraries that the program is started with; none of them is DPDK's."""
    shown = run("ldd", program)
    if "librte_" in shown:
        raise Trouble(f"{program} uses DPDK's shared libraries: build it with --features static")
    if "not found" in shown:
        raise Trouble(f"{program} needs libraries that are not here:\n{shown}")
    return sorted(set(re.findall(r"(/\S+) \(0x", shown)))


class Archive:
    """An initramfs, in the kernel's own form (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self.bytes, self.folders, self.number = io.BytesIO(), set(), 0

    def entry(self, name, mode, content=b""):
        self.number += 1
        fields = [self.number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        for part in (head, content):
            self.bytes.write(part + bytes(-len(part) % 4))

    def file(self, name, content, mode=0o755):
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) not in self.folders:
                self.folders.add(folder)
                self.entry(folder, stat.S_IFDIR | 0o755)
        self.entry("/".join(parts), stat.S_IFREG | mode, content)

    def end(self):
        self.entry("TRAILER!!!", 0)
        return gzip.compress(self.bytes.getvalue(), 1)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def initramfs(program, modules, addresses, to):
    archive = Archive()
    insmods = []
    for path in in_order(modules):
        content = read(f"{modules}/{path}")
        if path.endswith(".xz"):
            path, content = path[:-3], lzma.decompress(content)
        archive.file(f"modules/{os.path.basename(path)}", content)
        insmods.append(f"insmod /modules/{os.path.basename(path)}")
    stripped = f"{os.path.dirname(to)}/stripped"
    run("strip", "-o", stripped, program)
    archive.file("bin/busybox", read("/bin/busybox"))
    archive.file("bin/dpdk-conntrack", read(stripped))
    os.unlink(stripped)
    for library in libraries(program):
        archive.file(library, read(library))
    init = INIT.format(pages=HUGEPAGES, insmods="\n".join(insmods), cards=" ".join(addresses))
    archive.file("init", init.encode())
    with open(to, "wb") as file:
        file.write(archive.end())


class EmulatorDied(Trouble):
    """QEMU was ended by a signal: a fault of its own, which no guest should be able to cause, or the kernel that lacked memory."""


class Guest(Asked, hosts.Program):
    """The virtual machine, and a shell in it by its second serial line."""

    def __init__(self, home, logs, image, initrd, cards, workers, middle, interfaces):
        self.console = f"{logs}/nic-console.log"
        self.path = f"{home}/shell.sock"
        self.asked = 0
        words = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35,kernel-irqchip=split", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", str(workers + 1), "-m", str(MEMORY_MIB),
            "-device", "intel-iommu,intremap=on,caching-mode=on",
            "-kernel", image, "-initrd", initrd,
            # On a busy machine the emulated timer comes too late for the kernel's check of it.
            "-append", "console=ttyS0 intel_iommu=on no_timer_check quiet panic=-1",
            "-serial", f"file:{self.console}",
            "-chardev", f"socket,id=shell,path={self.path},server=on,wait=off", "-serial", "chardev:shell",
        ]  # fmt: skip
        for card in cards:
            for side, slot in enumerate(card.slots):
                name = f"n{slot}"
                several = f",queues={card.queues}" if card.queues > 1 else ""
                words += [
                    "-netdev", f"tap,id={name},ifname={interfaces[slot]},script=no,downscript=no,vhost=off{several}",
                    "-device", f"{card.device},netdev={name},addr={slot:#x},mac=02:00:00:00:{slot:02x}:{side:02x}",
                ]  # fmt: skip
        self.words = middle.words(*words)
        self.log = f"{logs}/nic-qemu.log"

    def begin(self):
        # An earlier run's would say that the guest is ready; of one that died it is the evidence.
        for old in (self.console, self.log):
            with contextlib.suppress(FileNotFoundError):
                os.replace(old, f"{old}.1")
        self.begun = time.monotonic()
        return super().begin()

    def await_ready(self):
        until("the guest to boot", BOOT_SECONDS, self.ready)
        self.booted = time.monotonic() - self.begun
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(self.path)
        self.line.settimeout(300)

    def alive(self):
        if self.process.poll() is not None:
            status = self.process.returncode
            kind = EmulatorDied if status < 0 else Trouble
            raise kind(f"QEMU ended with {status}: {hosts.tail(self.log)}; the console's last words:\n{hosts.tail(self.console)}")

    def await_end(self):
        """Where QEMU has died, its end comes a moment after its socket's."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)

    def ready(self):
        self.alive()
        return "the guest is ready" in hosts.tail(self.console, 200)

    def shell(self, command):
        """Runs a command in the guest; gives its exit status and what it printed, packed: the line is a slow one."""
        self.asked += 1
        mark = f"end-of-{self.asked}"
        script = f"{{ {command}\n}} >/tmp/out 2>/tmp/err; rc=$?; gzip -c /tmp/out | base64; echo; cat /tmp/err; echo {mark} $rc\n"
        self.line.sendall(script.encode())
        said = b""
        while not (found := re.search(rf"{mark} (\d+)\s".encode(), said)):
            try:
                more = self.line.recv(65536)
            except TimeoutError:
                more = b""
            if not more:
                self.await_end()
                self.alive()
                raise Trouble(f"the guest's shell does not answer to `{command}`; it said {said[-500:]!r}")
            said += more
        packed, _, errors = said[: found.start()].partition(b"\n\n")
        out = gzip.decompress(base64.b64decode(packed)).decode(errors="replace") if packed.strip() else ""
        return int(found[1]), out, errors.decode(errors="replace").strip()

    def must(self, command):
        status, out, errors = self.shell(command)
        if status:
            raise Trouble(f"in the guest, `{command}` failed: {out}{errors}")
        return out

    def try_ask(self, *words):
        return self.shell(f"dpdk-conntrack {' '.join(words)} --socket {SOCKET}")

    def start(self, card, workers):
        """Starts the appliance on a pair of cards, and gives its own words."""
        text = configuration(*card.addresses, workers, card.queues, SOCKET, hugepages=True)
        self.must(f"cat >/tmp/appliance.toml <<'END'\n{text}END")
        self.must("dpdk-conntrack run --config /tmp/appliance.toml >/tmp/log 2>&1 </dev/null & echo $! >/tmp/pid")
        end = time.monotonic() + START_SECONDS
        while self.try_ask("count")[0]:
            if self.shell("kill -0 $(cat /tmp/pid)")[0] or time.monotonic() > end:
                raise Trouble(f"the appliance did not start in the guest; its words:\n{self.shell('cat /tmp/log')[1]}")
            time.sleep(0.5)
        return self.must("cat /tmp/log")

    def stop(self):
        self.must("kill $(cat /tmp/pid); for i in $(seq 600); do kill -0 $(cat /tmp/pid) 2>/dev/null || break; sleep 0.1; done")
        said = self.must("cat /tmp/log")
        # It goes into the console's log, which is what is kept of the guest.
        self.must("cat /tmp/log >/dev/ttyS0")
        return said


def host_links(middle, cards):
    """A tap for each card, made before QEMU opens it; afterwards it is moved to its host."""
    if not os.path.exists("/dev/net/tun"):
        raise Refused("there is no /dev/net/tun here: `modprobe tun`")
    middle.exec("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    names = {}
    for card in cards:
        for slot in card.slots:
            names[slot] = hosts.name(f"{slot:x}")
            several = ["multi_queue"] if card.queues > 1 else []
            middle.ip("tuntap", "add", "dev", names[slot], "mode", "tap", *several)
            middle.ip("link", "set", names[slot], "up")
    return names


def drive(program, home, logs, kept, amount, workers):
    """All pairs of cards in one guest, one after the other; gives a row for each as it comes. Where QEMU dies, the pairs that
    are left get another guest, once."""
    if platform.machine() != "x86_64":
        raise Refused("the guest is an x86-64 machine, and QEMU's emulation of one needs to be one here too")
    if not shutil.which("qemu-system-x86_64"):
        raise Trouble("QEMU is not installed: scripts/setup --guest installs it")
    image, modules = kernel(f"{kept}/kernel")
    pairs = cards(workers)
    initrd = f"{home}/initramfs"
    initramfs(program, modules, [address for card in pairs for address in card.addresses], initrd)
    left, died = pairs, None
    while left:
        try:
            with Namespace("a") as middle:
                interfaces = host_links(middle, pairs)
                with Guest(home, logs, image, initrd, pairs, workers, middle, interfaces) as guest:
                    try:
                        for link in rows(guest, middle, interfaces, home, left, amount, workers):
                            if died:
                                link.notes.append(f"in a second guest: {str(died).splitlines()[0]}")
                            left = left[1:]
                            yield link
                    except (Trouble, OSError):
                        guest.await_end()
                        guest.alive()
                        raise
        except EmulatorDied as trouble:
            if died:
                raise
            died = trouble


def rows(guest, middle, interfaces, home, pairs, amount, workers):
    """A row for each pair of cards, in a guest that has just booted."""
    version = guest.must("uname -r").strip()
    for card in pairs:
        about = f"{card.about}, vfio-pci, hugepages; TCP of two hosts; queues={card.queues} workers={workers}"
        link = Link(card.kind, about, card.queues)
        link.notes.append(f"Linux {version} in QEMU, ready after {guest.booted:.0f} s")
        with Host("inside") as inside, Host("outside") as outside:
            said = guest.start(card, workers)
            link.notes += [line.strip() for line in said.splitlines() if re.match(r"\s*port ", line)]
            for host, slot in zip((inside, outside), card.slots):
                host.take(interfaces[slot], middle)
                host.without_offloads()
            sockets.traffic(link, sockets.Line(inside, outside, guest, f"{home}/server.log"), amount)
            guest.stop()
        yield link
