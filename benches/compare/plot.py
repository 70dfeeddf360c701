"""The plot: two panels of lines over the number of flows, as an SVG written by hand. Knows nothing of what the lines are."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1060, 420
TOP, BOTTOM, LEFT, GAP, PANEL = 64, 52, 56, 220, 300
FONT = "font-family='system-ui, sans-serif'"
# Told apart without colour too: each line has its name at its end. After Okabe and Ito, "Color Universal Design".
COLOURS = {"ours": "#d55e00", "idealised": "#0072b2", "rte_hash": "#009e73", "ovs": "#6b4e9b", "kernel": "#555555"}


def words(number):
    """1024 -> 1k, 65536 -> 64k, 1000000 -> 1M."""
    if number % 1024 == 0:
        return f"{number // 1024}k"
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.0f}{unit}"
    return f"{number:g}"


def ticks(low, high):
    """1, 2 and 5 times powers of ten, from the last below `low` to the first above `high`."""
    steps = [mantissa * 10.0**power for power in range(-1, 8) for mantissa in (1, 2, 5)]
    first = max((step for step in steps if step <= low), default=steps[0])
    last = min((step for step in steps if step >= high), default=steps[-1])
    return [step for step in steps if first <= step <= last]


def panel(x, title, unit, lines, names):
    """One panel; `lines` is {program: [(flows, value), ...]}."""
    flows = sorted({at for points in lines.values() for at, _ in points})
    values = [value for points in lines.values() for _, value in points]
    if not values:
        return
    marks = ticks(min(values), max(values))
    low, high = math.log(marks[0]), math.log(marks[-1])
    near, far = math.log(flows[0]), math.log(max(flows[-1], flows[0] * 2))
    bottom = HEIGHT - BOTTOM

    def across(at):
        return x + (math.log(at) - near) / (far - near) * PANEL

    def up(value):
        return bottom - (math.log(value) - low) / ((high - low) or 1) * (bottom - TOP)

    yield f"<text x='{x}' y='{TOP - 18}' {FONT} font-size='14' font-weight='600' fill='#222'>{escape(title)}</text>"
    for mark in marks:
        y = up(mark)
        yield f"<line x1='{x}' x2='{x + PANEL}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e3e3e3'/>"
        yield f"<text x='{x - 8}' y='{y + 4:.1f}' {FONT} font-size='11' text-anchor='end' fill='#555'>{mark:g}</text>"
    for at in flows:
        yield (
            f"<text x='{across(at):.1f}' y='{bottom + 18}' {FONT} font-size='11' text-anchor='middle' "
            f"fill='#555'>{words(at)}</text>"
        )
    yield (
        f"<text x='{x + PANEL / 2}' y='{bottom + 38}' {FONT} font-size='11' text-anchor='middle' "
        f"fill='#555'>flows in the table; {escape(unit)}, logarithmic</text>"
    )
    ends = []
    for program, points in lines.items():
        if not points:
            continue
        colour = COLOURS.get(program, "#555")
        path = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in points)
        wide = 3 if program == "ours" else 1.6
        yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{wide}'/>"
        for at, value in points:
            yield (
                f"<circle cx='{across(at):.1f}' cy='{up(value):.1f}' r='{wide + 0.6}' fill='{colour}'>"
                f"<title>{escape(names.get(program, program))}: {value:.1f} {escape(unit)} at {at:,} flows</title></circle>"
            )
        at, value = points[-1]
        ends.append([up(value), across(at), value, program])
    # Names that would lie upon each other are moved apart, from the top down.
    ends.sort()
    for above, below in zip(ends, ends[1:]):
        below[0] = max(below[0], above[0] + 15)
    for y, _, value, program in ends:
        weight = 600 if program == "ours" else 400
        yield (
            f"<text x='{x + PANEL + 10}' y='{y + 4:.1f}' {FONT} font-size='12' font-weight='{weight}' "
            f"fill='{COLOURS.get(program, '#555')}'>{escape(names.get(program, program))} {value:.0f}</text>"
        )


def svg(left, right, names, caption):
    """`left` and `right` are (title, unit, lines)."""
    out = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#fff'/>",
        f"<text x='{LEFT}' y='22' {FONT} font-size='11' fill='#555'>{escape(caption)}</text>",
        *panel(LEFT, *left, names),
        *panel(LEFT + PANEL + GAP, *right, names),
        "</svg>",
    ]
    return "\n".join(out) + "\n"
