"""From figures to words: the JSON for programs, the Markdown for people, the lines of the plot. Measures nothing."""

import json
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import plot
from programs import Idealised

NAMES = {
    "ours": "dpdk-conntrack",
    "idealised": "idealised table",
    "rte_hash": "rte_hash, bare entry",
    "ovs": "Open vSwitch",
    "kernel": "Linux (what it adds)",
}
APPLIANCES = {
    "ours": "dpdk-conntrack",
    "testpmd": "testpmd, looks at nothing",
    "ovs_dpdk": "Open vSwitch on DPDK, `ct`",
    "ovs_dpdk_no_ct": "Open vSwitch on DPDK, no `ct`",
}
PEERS = ("idealised", "rte_hash", "ovs", "kernel")
# How many times slower than the idealised table a peer was, by flows, where the targets were set (an AMD Zen 4 at 2.6 GHz).
WHERE_TARGETS_WERE_SET = {
    "rte_hash": {1024: 1.13, 65_536: 1.49, 1_000_000: 2.30, 4_000_000: 2.31, 16_000_000: 2.13},
    "ovs": {1024: 5.98, 65_536: 18.0, 1_000_000: 24.6, 4_000_000: 25.5, 16_000_000: 32.2},
}
# A peer that is this much farther off than there makes a target over it say little.
FAR_OFF = 0.30


def machine(root):
    """Where and of what this was measured."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = re.sub(r"\s+", " ", line.split(":", 1)[1]).strip()
            break
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / (1 << 20)

    def say(*words):
        try:
            return subprocess.run(words, capture_output=True, text=True, cwd=root).stdout.strip()
        except OSError:
            return ""

    revision = say("git", "-c", f"safe.directory={root}", "rev-parse", "--short=12", "HEAD") or "unknown"
    changed = say("git", "-c", f"safe.directory={root}", "status", "--porcelain", "--untracked-files=no")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": platform.release(),
        "dpdk": say("pkg-config", "--modversion", "libdpdk"),
        "revision": revision + ("+changes" if changed else ""),
    }


def idealised_row(figures, flows, schedule="u"):
    """The figure's name of the fastest row of the idealised table that works on bursts as large as ours."""
    rows = [f"packet/{row}" for row in Idealised.ROWS.values()]
    there = [row for row in rows if figures.has("idealised", row, flows, schedule)]
    return min(there, key=lambda row: figures.median("idealised", row, flows, schedule), default=None)


def figure_of(figures, program, what, flows, schedule="u"):
    """Where a program's figure is kept."""
    if program == "idealised" and what == "packet":
        what = idealised_row(figures, flows, schedule) or what
    return (program, what, flows, schedule)


def value(figures, program, what, flows, schedule="u"):
    return figures.median(*figure_of(figures, program, what, flows, schedule))


def times(figures, peer, what, flows, schedule="u"):
    """How many times faster ours is than a peer; for the idealised table how many times ours takes what it takes."""
    ours, other = ("ours", what, flows, schedule), figure_of(figures, peer, what, flows, schedule)
    return figures.ratio(ours, other) if peer == "idealised" else figures.ratio(other, ours)


def rate(ns):
    return None if ns is None else round(1e9 / ns)


def neat(number, digits=3):
    return None if number is None else round(number, digits)


def relations(figures):
    """Peers over the idealised table of this run, and whether they stand to it as where the targets were set."""
    for peer, there in WHERE_TARGETS_WERE_SET.items():
        for flows, then in there.items():
            row = figure_of(figures, "idealised", "packet", flows)
            now = figures.ratio((peer, "packet", flows, "u"), row)
            if now is not None:
                yield peer, flows, now, then, abs(now / then - 1) > FAR_OFF


def document(figures, about):
    """Everything as plain values: what --json prints."""
    schedules = {"u": "uniform", "z": "zipf"}
    ratios = {peer: {} for peer in PEERS}
    packets = {word: {} for word in schedules.values()}
    zipf_ratios = {peer: {} for peer in PEERS}
    for schedule, word in schedules.items():
        for flows in figures.sizes("packet", schedule):
            for program in NAMES:
                ns = value(figures, program, "packet", flows, schedule)
                if ns is not None:
                    packets[word].setdefault(program, {})[str(flows)] = neat(ns, 2)
            for peer in PEERS:
                ratio = times(figures, peer, "packet", flows, schedule)
                if ratio is not None:
                    (ratios if schedule == "u" else zipf_ratios)[peer][str(flows)] = neat(ratio)
    for flows in figures.sizes("appliance"):
        for peer in ("testpmd", "ovs_dpdk", "ovs_dpdk_no_ct"):
            ratio = figures.ratio((peer, "appliance", flows), ("ours", "appliance", flows))
            if ratio is not None:
                ratios.setdefault(peer, {})[str(flows)] = neat(ratio)

    def by_flows(program, what, turn=neat):
        sizes = (flows for flows in figures.sizes(what) if figures.has(program, what, flows))
        return {str(flows): turn(figures.median(program, what, flows)) for flows in sizes}

    def at_a_million(by):
        return by.get("1000000", next(iter(by.values()), None))

    bytes_by = {program: by_flows(program, "bytes", lambda n: neat(n, 1)) for program in NAMES}
    new_by = {program: by_flows(program, "new", rate) for program in NAMES}
    expire_by = {program: by_flows(program, "expire", rate) for program in NAMES}
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": about,
        "rounds": figures.rounds(),
        "ratios_mean": "times faster than the peer; for `idealised`: times the time that it takes",
        "ratios": {peer: by for peer, by in ratios.items() if by},
        "ratios_zipf": {peer: by for peer, by in zipf_ratios.items() if by},
        "peers_over_idealised": [
            {"peer": peer, "flows": flows, "here": neat(now, 2), "where_targets_were_set": then, "far_off": far}
            for peer, flows, now, then, far in relations(figures)
        ],
        "bytes_per_flow": at_a_million(bytes_by["ours"]),
        "new_flows_per_second": at_a_million(new_by["ours"]),
        "expiries_per_second": at_a_million(expire_by["ours"]),
        "nanoseconds_per_packet": packets,
        "idealised_row": {str(flows): idealised_row(figures, flows) for flows in figures.sizes("packet")},
        "bytes_per_flow_by_flows": {program: by for program, by in bytes_by.items() if by},
        "new_flows_per_second_by_flows": {program: by for program, by in new_by.items() if by},
        "expiries_per_second_by_flows": {program: by for program, by in expire_by.items() if by},
        "flood_nanoseconds": by_flows("ours", "flood"),
        "churn_nanoseconds": by_flows("ours", "churn"),
        "v6_minus_v4_nanoseconds": by_flows("ours", "v6_minus_v4"),
        "two_cores_times_one": by_flows("ours", "two_cores"),
        "burst_nanoseconds": {what: by_flows("ours", f"burst/{what}") for what in ("p50", "p99", "p99.99", "max")},
        "appliance_nanoseconds_per_packet": {
            program: by_flows(program, "appliance") for program in APPLIANCES if by_flows(program, "appliance")
        },
        "refused": [
            {"program": program, "figure": what, "flows": flows, "why": why}
            for (program, what, flows, _), why in sorted(figures.refused.items())
        ],
    }


def table(head, rows):
    """Markdown; the first column to the left, the others to the right."""
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'--:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def shown(number, form="{:.1f}"):
    return "–" if number is None else form.format(number)


def packets_table(figures, schedule):
    sizes = figures.sizes("packet", schedule)
    if not any(figures.has("ours", "packet", flows, schedule) for flows in sizes):
        return
    order = {"u": "every flow as likely", "z": "Zipf's law, exponent 1"}[schedule]
    yield f"**ns per packet of established TCP connections, one core** ({order}; in brackets how many times slower than ours)"
    yield ""
    rows = []
    for program, name in NAMES.items():
        row = [name]
        for flows in sizes:
            ns = value(figures, program, "packet", flows, schedule)
            cell = shown(ns)
            if ns is not None and program != "ours":
                ratio = times(figures, program, "packet", flows, schedule)
                if ratio:
                    ratio = 1 / ratio if program == "idealised" else ratio
                    cell += f" ({ratio:.2f})" if ratio < 10 else f" ({ratio:.0f})"
            row.append(cell)
        if any(cell != "–" for cell in row[1:]):
            rows.append(row)
    yield from table(["flows", *(f"{flows:,}" for flows in sizes)], rows)


def bytes_table(figures):
    sizes = figures.sizes("bytes")
    rows = []
    for program, name in NAMES.items():
        row = [name, *(shown(figures.median(program, "bytes", flows), "{:.0f}") for flows in sizes)]
        if any(cell != "–" for cell in row[1:]):
            rows.append(row)
    if rows:
        yield "**Bytes per flow** (ours: every mapping of a table of that capacity; Linux: its entry alone)"
        yield ""
        yield from table(["flows", *(f"{flows:,}" for flows in sizes)], rows)


def rates_table(figures):
    sizes = figures.sizes("new")
    if not any(figures.has("ours", "new", flows) for flows in sizes):
        return
    rows = []

    def add(program, what, words, form):
        cells = [form(figures.median(program, what, flows)) for flows in sizes]
        if any(cell != "–" for cell in cells):
            rows.append([words, *cells])

    def millions(ns):
        return shown(None if ns is None else 1e3 / ns)

    add("ours", "new", "new flows, ours", millions)
    for program in PEERS:
        add(program, "new", f"new flows, {NAMES[program]}", millions)
    add("ours", "expire", "expiries, ours", millions)
    add("idealised", "expire", f"expiries, {NAMES['idealised']}", millions)
    for program in ("rte_hash", "ovs"):
        add(program, "delete", f"deletions, {NAMES[program]}", millions)
    add("ours", "flood", "packets of a SYN flood into a full table, ours", millions)
    add("ours", "churn", "packets, one in eight opening a flow, ours", millions)
    yield "**Million per second, one core**"
    yield ""
    yield from table(["flows", *(f"{flows:,}" for flows in sizes)], rows)


def others_table(figures):
    def row(words, what, form):
        sizes = [flows for flows in figures.sizes(what) if figures.has("ours", what, flows)]
        if sizes:
            yield [words, ", ".join(f"{form(figures.median('ours', what, flows))} at {flows:,}" for flows in sizes)]

    rows = [
        *row("IPv6 over IPv4, ns per packet", "v6_minus_v4", "{:+.1f}".format),
        *row("two cores over one", "two_cores", "{:.2f} times".format),
        *row("a burst of 64, median", "burst/p50", lambda ns: f"{ns / 1000:.1f} us"),
        *row("a burst of 64, 99.99 %", "burst/p99.99", lambda ns: f"{ns / 1000:.1f} us"),
        *row("a burst of 64, longest", "burst/max", lambda ns: f"{ns / 1000:.1f} us"),
    ]
    if rows:
        yield from table(["ours, else", ""], rows)


def appliance_table(figures):
    sizes = figures.sizes("appliance")
    if not sizes:
        return
    rows = []
    for program, name in APPLIANCES.items():
        row = [name]
        for flows in sizes:
            ns = figures.median(program, "appliance", flows)
            cell = "–" if ns is None else f"{1e3 / ns:.1f}"
            ratio = figures.ratio((program, "appliance", flows), ("ours", "appliance", flows))
            row.append(cell if ratio is None or program == "ours" else f"{cell} ({1 / ratio:.2f})")
        if any(cell != "–" for cell in row[1:]):
            rows.append(row)
    yield "**Million packets per second end to end, one core**: a port that repeats a capture, the program, a port that drops"
    yield "(in brackets: times ours)"
    yield ""
    yield from table(["UDP connections", *(f"{flows:,}" for flows in sizes)], rows)


def markdown(figures, about, picture=None):
    """All tables."""
    date = datetime.now(timezone.utc).strftime("%d %B %Y")
    kind = "virtual machine" if about["virtual"] else "machine"
    many = " to ".join(str(number) for number in dict.fromkeys(figures.rounds()))
    lines = [
        f"{about['cpu']} ({kind}, {about['cores']} cores, {about['memory_gib']:g} GiB), Linux {about['kernel']}, "
        f"DPDK {about['dpdk']}, revision {about['revision']}, {date}. All programs in one run, taking turns; medians of "
        f"{many} rounds, ratios within a round. CPU time of one core; making the packet is included.",
        "",
    ]
    if picture:
        lines += [f"![ns per packet and bytes per flow over the number of flows]({picture})", ""]
    for part in (
        packets_table(figures, "u"),
        bytes_table(figures),
        rates_table(figures),
        others_table(figures),
        appliance_table(figures),
        packets_table(figures, "z"),
    ):
        lines += list(part)
    rows = {name: figures.median("idealised", idealised_row(figures, name) or "", name) for name in figures.sizes("packet")}
    if any(rows.values()):
        used = {idealised_row(figures, flows) for flows in rows if rows[flows]}
        lines += [f"The idealised table's fastest row here, in bursts of 64: {', '.join(sorted(r.split('/')[1] for r in used))}.", ""]
    far = [
        f"{NAMES[peer]} {now:.1f} instead of {then:.1f} at {flows:,} flows"
        for peer, flows, now, then, far in relations(figures) if far
    ]
    if far:
        lines += ["Peers over the idealised table that stand to it otherwise here than where the targets were set, by more than "
                  f"{FAR_OFF:.0%}: {'; '.join(far)}. Ratios to these say little of other machines.", ""]
    for (program, what, flows, schedule), why in sorted(figures.refused.items()):
        lines.append(f"- Not possible here: {APPLIANCES.get(program) if what == 'appliance' else NAMES.get(program, program)}, "
                     f"{what}, {flows:,} flows: {why}")
    return "\n".join(lines).rstrip() + "\n"


def picture(figures, about):
    """The plot, or None if there is too little to draw."""
    sizes = figures.sizes("packet")
    if len(sizes) < 2:
        return None

    def lines(of):
        found = {program: [(flows, of(program, flows)) for flows in sizes] for program in NAMES}
        return {program: [point for point in points if point[1]] for program, points in found.items()}

    return plot.svg(
        ("Time per packet of established connections", "ns", lines(lambda p, n: value(figures, p, "packet", n))),
        ("Memory per flow", "bytes", lines(lambda p, n: figures.median(p, "bytes", n))),
        NAMES,
        f"{about['cpu']}, one core, {datetime.now(timezone.utc).strftime('%d %B %Y')}; scripts/bench",
    )


def write(folder, figures, about):
    """Puts numbers.json, numbers.md and plot.svg into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = picture(figures, about)
    (folder / "numbers.json").write_text(json.dumps(document(figures, about), indent=2) + "\n")
    (folder / "numbers.md").write_text(markdown(figures, about, "plot.svg" if drawn else None))
    if drawn:
        (folder / "plot.svg").write_text(drawn)


def into_readme(readme, folder, figures, about):
    """Replaces what stands between the two marks."""
    begin, end = "<!-- scripts/bench --publish: begin -->", "<!-- scripts/bench --publish: end -->"
    text = readme.read_text()
    if begin not in text or end not in text:
        raise SystemExit(f"{readme} has not the marks `{begin}` and `{end}`: put them where the figures belong")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    plot_path = os.path.relpath(folder / "plot.svg", readme.parent)
    readme.write_text(f"{before}{begin}\n{markdown(figures, about, plot_path)}{end}{after}")
