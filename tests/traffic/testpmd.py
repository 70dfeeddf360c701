"""dpdk-testpmd as the machine on the other end of a link: it makes flows, or swaps both ends of what comes and sends it
back. Driven at its prompt; knows nothing of the appliance."""

import os
import re
import select
import shutil
import subprocess
import threading

import hosts
from hosts import PATIENCE, Trouble

PROMPT = b"testpmd> "
# Frames that it asks of a port, or hands to one, at a time.
BURST = 32
# Of its forwarding thread; a third of an ordinary one's share of a CPU that both want.
POLLER_NICE = 5


class Testpmd(hosts.Program):
    """One process. `devices` are its ports, in this order; the first is on the link."""

    def __init__(self, home, name, devices, forward, queues, options=()):
        # The lcore that forwards may run on any CPU: there may be fewer CPUs than processes that poll.
        cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
        eal = ["--no-huge", "--no-shconf", "--no-pci", "--no-telemetry", "-m", "512", "--lcores", f"0@({cpus}),1@({cpus})"]
        vdevs = [word for device in devices for word in ("--vdev", device)]
        self.log = f"{home}/{name}.log"
        self.words = [
            "dpdk-testpmd", *eal, *vdevs, "--", "-i", "--nb-cores=1", "--no-flush-rx", "--total-num-mbufs=65536",
            "--rxd=8192", "--txd=1024", f"--forward-mode={forward}", f"--rxq={queues}", f"--txq={queues}",
            f"--burst={BURST}", *options,
        ]  # fmt: skip

    def begin(self):
        if not shutil.which("dpdk-testpmd"):
            raise Trouble("dpdk-testpmd is not installed: scripts/setup installs it")
        # No terminal: the kernel moves what is typed there by threads of its own, which waited for half a minute where
        # every CPU was polled on. Into a pipe it would print in blocks of 4 kB; stdbuf makes lines of them.
        words = ["stdbuf", "-oL", *self.words]
        process = hosts.start(words, self.log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.to, self.of = process.stdin.fileno(), process.stdout.fileno()
        return process

    def await_ready(self):
        self.read_until_prompt(PATIENCE)
        self.let_others_pass()

    def let_others_pass(self):
        """Its forwarding thread never sleeps. Where there are fewer CPUs than such threads, those that sleep would wait
        for it: the prompt, and the appliance."""
        tasks = f"/proc/{self.process.pid}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/comm") as file:
                if file.read().startswith("lcore-worker"):
                    os.setpriority(os.PRIO_PROCESS, int(task), POLLER_NICE)

    def __exit__(self, *_):
        try:
            os.write(self.to, b"stop\nquit\n")
            # Somebody must read its last words, or it waits for ever to be rid of them.
            drain = threading.Thread(target=self.drain, daemon=True)
            drain.start()
            drain.join(5)
        except OSError:
            pass
        hosts.end(self.process, 2)
        self.process.stdin.close()
        self.process.stdout.close()

    def drain(self):
        try:
            while os.read(self.of, 65536):
                pass
        except OSError:
            pass

    def read_until_prompt(self, seconds):
        said = b""
        while not said.endswith(PROMPT):
            ready, _, _ = select.select([self.of], [], [], seconds)
            try:
                more = os.read(self.of, 65536) if ready else b""
            except OSError:
                more = b""
            with open(self.log, "ab") as file:
                file.write(more)
            said += more
            if not more:
                raise Trouble(f"dpdk-testpmd does not answer; its last words:\n{hosts.tail(self.log)}")
        return said.decode(errors="replace").replace("\r", "")

    def tell(self, command, seconds=PATIENCE):
        """One line at its prompt; gives what it said to that."""
        os.write(self.to, command.encode() + b"\n")
        return self.read_until_prompt(seconds)

    def stop(self):
        """Ends forwarding; gives packets received, sent and not taken by the link since the start."""
        said = self.tell("stop")
        found = re.search(
            r"Forward statistics for port 0 .*?RX-packets: (\d+).*?TX-packets: (\d+) +TX-dropped: (\d+)", said, re.S
        )
        if not found:
            raise Trouble(f"dpdk-testpmd's statistics read differently in this version:\n{said}")
        return tuple(int(number) for number in found.groups())


class Responder(Testpmd):
    """Swaps both ends of what comes, and sends it back."""

    def __init__(self, home, device, queues):
        super().__init__(home, "responder", [device], "5tswap", queues, ["--port-topology=loop"])


class Generator(Testpmd):
    """Makes flows of its own, or sends those of files. testpmd has no rate to set on virtual devices. So it has a second
    port, to which nobody is connected: what it sends there is refused after a wait, and the time between two bursts on the
    link is that wait."""

    # Its ports, by number: the link, the one that nobody takes from, the files, and one that always has something to send.
    LINK, PACE, FILES, PLENTY = range(4)

    def __init__(self, home, device, queues, flows, files):
        pace = f"net_memif9,role=server,id=9,socket-abstract=no,socket={home}/pace.sock"
        read = ",".join(["net_pcap0", *(f"rx_pcap={path}" for path in files)])
        devices = [device, pace, read, "net_null0"]
        super().__init__(home, "generator", devices, "flowgen", queues, [f"--flowgen-flows={flows}"])
        self.files = False

    def make(self, microseconds):
        """From the next start on: new packets of its own flows, with that wait between two bursts of a queue."""
        self.files = False
        # Sends to each of the two; what a port gets is counted and forgotten.
        self.tell(f"set portlist {self.LINK},{self.PACE}")
        self.tell("set fwd flowgen retry")
        self.wait(microseconds)

    def read(self, microseconds):
        """From the next start on: the files, from where they were left, with that wait."""
        self.files = True
        # Neighbours in the list forward to each other.
        self.tell(f"set portlist {self.FILES},{self.LINK},{self.PLENTY},{self.PACE}")
        self.tell("set fwd io retry")
        self.wait(microseconds)

    def take(self):
        """From the next start on: nothing is sent, only taken from the link."""
        self.tell(f"set portlist {self.LINK}")
        self.tell("set fwd rxonly")

    def rewind(self):
        """The files begin again."""
        self.tell(f"port stop {self.FILES}")
        self.tell(f"port start {self.FILES}")

    def wait(self, microseconds):
        self.tell(f"set burst tx delay {microseconds} retry 1")
