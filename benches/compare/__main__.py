"""Measures the tracker beside its peers, or beside itself at another revision. Started by scripts/bench, which builds
everything and says what the options mean.

Each part is a list of turns (rounds.py) of programs (programs.py, appliance.py); results.py tells of them.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import appliance
import results
from programs import Idealised, Kernel, Ours, Ovs, RteHash, Unavailable, at_once, number
from rounds import Deadline, Figures, Turn, play

PARTS = ("packets", "rates", "cores", "kernel", "appliance")
KERNEL_SIZES = (1024, 65_536, 1_000_000)
# With --quick: when further rounds of a part end, in seconds from the start.
QUICK_ENDS = {"packets": 60, "rates": 80, "cores": 85, "appliance": 110}


def options():
    read = argparse.ArgumentParser()
    read.add_argument("--flows-program", type=Path, required=True)
    read.add_argument("--other-program", type=Path)
    read.add_argument("--other-name", default="")
    read.add_argument("--binary", type=Path)
    read.add_argument("--built", type=Path, required=True)
    read.add_argument("--root", type=Path, required=True)
    read.add_argument("--flows", required=True)
    read.add_argument("--rounds", type=int, required=True)
    read.add_argument("--reps", type=int, required=True)
    read.add_argument("--zipf", action="store_true")
    read.add_argument("--quick", action="store_true")
    read.add_argument("--json", action="store_true")
    read.add_argument("--out", type=Path)
    read.add_argument("--readme", type=Path)
    read.add_argument("parts", nargs="*")
    given = read.parse_args()
    given.sizes = [int(size) for size in given.flows.split(",")]
    given.parts = given.parts or list(PARTS)
    return given


class Note:
    """One line that says what is going on, on the error output; quiet where nobody watches."""

    def __init__(self):
        self.begun, self.live = time.monotonic(), sys.stderr.isatty()

    def __call__(self, words):
        if self.live:
            sys.stderr.write(f"\r\033[K  [{time.monotonic() - self.begun:4.0f} s] {words}")
            sys.stderr.flush()

    def close(self):
        if self.live:
            sys.stderr.write("\r\033[K")


def packet_turns(ours, peers, flows, schedule, reps):
    for program in (ours, *peers):
        yield Turn(program.name, "packet", flows, schedule, lambda p=program: p.packet(flows, schedule, reps))


def life(ours, flows, reps):
    """What becomes of flows: how fast they come and go, and what a burst takes while they do."""

    def lines(what, **wanted):
        text, found = ours.measure(what, flows, "u", reps)
        figures = {key: ns for key, words in wanted.items() for tag, ns in found.items() if words in tag}
        return text, figures

    def come_and_go():
        return lines("new", new="new flow", expire="expiry")[1]

    def bursts():
        text, _ = lines("burst")
        found = {f"burst/{at}": number(rf"bursts .*\b{at} ([\d.]+)", text) for at in ("p50", "p99", "p99.99", "max")}
        if found["burst/p99.99"] is None:
            raise Unavailable("flows burst printed no times of bursts")
        return found

    def families():
        v4 = ours.packet(flows, "u", reps)["packet"]
        v6 = ours.packet(flows, "u", reps, "v6")["packet"]
        return {"v6": v6, "v6_minus_v4": v6 - v4}

    name = ours.name
    yield Turn(name, "new", flows, "u", come_and_go)
    yield Turn(name, "flood", flows, "u", lambda: lines("flood", flood="flood")[1])
    yield Turn(name, "churn", flows, "u", lambda: lines("churn", churn="churn")[1])
    yield Turn(name, "burst", flows, "u", bursts)
    yield Turn(name, "v6_minus_v4", flows, "u", families)


def two_cores(ours, flows, reps, cores):
    def work():
        alone = ours.packet(flows, "u", reps)["packet"]
        together = at_once(ours, "established", flows, "u", reps, cores)
        return {"two_cores": sum(alone / ns for ns in together)}

    return Turn(ours.name, "two_cores", flows, "u", work)


def cores_of(given):
    """The core that is measured on, and another one for everything else."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1], cores[0]


def compare(given, figures, note):
    """This tree beside its peers."""
    core, control = cores_of(given)
    ends = {part: Deadline(seconds if given.quick else None) for part, seconds in QUICK_ENDS.items()}
    ours = Ours(given.flows_program, core)
    idealised, rte_hash, ovs = (peer(given.built, core) for peer in (Idealised, RteHash, Ovs))
    kernel = Kernel(given.built, core)
    try:
        for schedule in "uz" if given.zipf else "u":
            for flows in given.sizes:
                turns = []
                if "packets" in given.parts:
                    turns += packet_turns(ours, (idealised, rte_hash, ovs), flows, schedule, given.reps)
                if "kernel" in given.parts and schedule == "u" and flows in KERNEL_SIZES:
                    packets = 100_000 if given.quick else 600_000
                    if not given.quick or flows == KERNEL_SIZES[-1]:
                        turns.append(Turn("kernel", "packet", flows, "u", lambda n=flows, p=packets: kernel.packet(n, p)))
                play(figures, turns, given.rounds, note, ends["packets"])
                if "packets" in given.parts and schedule == "u" and flows >= 65_536:
                    weigh(figures, rte_hash, flows, note)
    finally:
        try:
            kernel.stop()
        except Unavailable as error:
            figures.refuse("kernel", "packet", 0, "u", f"its limits were not given back: {error}")
    if "rates" in given.parts:
        for flows in [flows for flows in given.sizes if flows in (1_000_000, 4_000_000)]:
            ideal = Turn("idealised", "new", flows, "u", lambda n=flows: idealised.life(n, given.reps))
            play(figures, [*life(ours, flows, given.reps), ideal], given.rounds, note, ends["rates"])
    if "cores" in given.parts:
        if core == control:
            figures.refuse("ours", "two_cores", 1_000_000, "u", "there is one core")
        else:
            turns = [two_cores(ours, 1_000_000, given.reps, (control, core))]
            play(figures, turns, given.rounds, note, ends["cores"])
    if "appliance" in given.parts and core == control:
        figures.refuse("ours", "appliance", 1024, "u", "there is one core, and whoever asks needs another")
    elif "appliance" in given.parts:
        folder = given.built / "appliance"
        folder.mkdir(exist_ok=True)
        for connections in (1024,) if given.quick else (1024, 32_768):
            times = appliance.measure(
                given.binary, given.built, folder, connections, core, control, given.rounds,
                1.0 if given.quick else 3.0, note, ends["appliance"],
                lambda program, why, n=connections: figures.refuse(program, "appliance", n, "u", why),
            )
            for program, rounds in times.items():
                for turn, ns in enumerate(rounds):
                    figures.add(program, "appliance", connections, "u", turn, ns)


def weigh(figures, rte_hash, flows, note):
    note(f"memory {flows:,}  rte_hash")
    try:
        figures.add("rte_hash", "bytes", flows, "u", 0, rte_hash.weight(flows))
    except Unavailable as error:
        figures.refuse("rte_hash", "bytes", flows, "u", str(error))


def against(given, figures, note):
    """This tree beside itself at another revision: every figure of both."""
    core, control = cores_of(given)
    both = Ours(given.flows_program, core), Ours(given.other_program, core, "theirs")
    for schedule in "uz" if given.zipf else "u":
        for flows in given.sizes:
            turns = []
            for ours in both:
                if "packets" in given.parts:
                    turns += packet_turns(ours, (), flows, schedule, given.reps)
                if "rates" in given.parts and schedule == "u" and flows == 1_000_000:
                    turns += life(ours, flows, given.reps)
                if "cores" in given.parts and schedule == "u" and flows == 1_000_000 and core != control:
                    turns.append(two_cores(ours, flows, given.reps, (control, core)))
            # The same figure of both, one right after the other.
            turns.sort(key=lambda turn: turn.what)
            play(figures, turns, given.rounds, note)
    rows, values = [], {}
    for _, what, flows, schedule in sorted({key for key in figures.samples if key[0] == "ours"}):
        now, then = ((program, what, flows, schedule) for program in ("ours", "theirs"))
        ratio = figures.ratio(now, then)
        # A difference around 0 has no ratio that means anything; what it is the difference of is there.
        if ratio is None or what == "v6_minus_v4":
            continue
        turns = figures.samples[now].keys() & figures.samples[then].keys()
        each = [figures.samples[now][turn] / figures.samples[then][turn] for turn in turns]
        rows.append([
            what, f"{flows:,}", {"u": "uniform", "z": "zipf"}[schedule], f"{figures.median(*then):.2f}",
            f"{figures.median(*now):.2f}", f"{ratio:.3f}", f"{min(each):.3f} – {max(each):.3f}",
        ])
        values[f"{what}/{flows}/{schedule}"] = {
            "before": round(figures.median(*then), 3), "after": round(figures.median(*now), 3), "ratio": round(ratio, 4),
        }
    if given.json:
        print(json.dumps({"against": given.other_name, "figures": values}, indent=2))
        return
    print(f"This tree over {given.other_name}: medians of {given.rounds} rounds, ratios within a round. Below 1 is better, "
          "except for two_cores.\n")
    print("\n".join(results.table(["figure", "flows", "order", "before", "after", "ratio", "of each round"], rows)))
    for (program, what, flows, _), why in sorted(figures.refused.items()):
        print(f"- not possible: {program}, {what}, {flows:,} flows: {why}")


def main():
    given = options()
    # A sentence rather than a trace on Ctrl-C; what was started is taken away on the way out.
    for number_of in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number_of, signal.default_int_handler)
    note, figures = Note(), Figures()
    try:
        if given.other_program:
            against(given, figures, note)
            return 0
        compare(given, figures, note)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        note.close()
    about = results.machine(given.root)
    if given.out:
        results.write(given.out, figures, about)
    if given.readme:
        results.into_readme(given.readme, given.out, figures, about)
    if given.json:
        print(json.dumps(results.document(figures, about), indent=2))
    else:
        print(results.markdown(figures, about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
