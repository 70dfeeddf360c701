"""Rounds: each program does its work once a round, one after the other, so that all of them meet the same machine.

Keeps what was measured by (program, figure, flows, schedule); gives medians, and ratios of what one round measured.
"""

import time
from statistics import median

from programs import Unavailable


class Figures:
    """Everything that was measured, and what could not be."""

    def __init__(self):
        self.samples = {}
        self.refused = {}

    def add(self, program, what, flows, schedule, turn, value):
        if value is not None:
            self.samples.setdefault((program, what, flows, schedule), {})[turn] = value

    def refuse(self, program, what, flows, schedule, why):
        self.refused[(program, what, flows, schedule)] = why

    def has(self, program, what, flows, schedule="u"):
        return (program, what, flows, schedule) in self.samples

    def median(self, program, what, flows, schedule="u"):
        values = self.samples.get((program, what, flows, schedule))
        return median(values.values()) if values else None

    def ratio(self, over, under):
        """Median over the rounds of one figure divided by another; both are (program, what, flows[, schedule])."""
        over, under = (self.samples.get((*key, "u") if len(key) == 3 else key, {}) for key in (over, under))
        both = [over[turn] / under[turn] for turn in over if turn in under and under[turn]]
        return median(both) if both else None

    def spread(self, program, what, flows, schedule="u"):
        values = self.samples.get((program, what, flows, schedule))
        return (min(values.values()), max(values.values())) if values else None

    def rounds(self):
        """The fewest and the most rounds that a figure of a packet's or a flow's time was measured in."""
        counts = [len(values) for (_, what, _, _), values in self.samples.items() if what != "bytes"]
        return (min(counts), max(counts)) if counts else (0, 0)

    def sizes(self, what, schedule="u"):
        return sorted({key[2] for key in self.samples if key[1] == what and key[3] == schedule})


class Turn:
    """One program's part of a round. `work()` gives {figure: value}."""

    def __init__(self, program, what, flows, schedule, work):
        self.program, self.what, self.flows, self.schedule, self.work = program, what, flows, schedule, work


class Deadline:
    """Ends a run in time: after it no further round begins, though every figure is measured once."""

    def __init__(self, seconds=None):
        self.at = None if seconds is None else time.monotonic() + seconds

    def passed(self):
        return self.at is not None and time.monotonic() >= self.at


def play(figures, turns, rounds, note, deadline=Deadline()):
    """Every second round goes backwards: who runs after whom must not matter. What is refused once is not asked again."""
    turns = list(turns)
    for number in range(rounds):
        if number > 0 and deadline.passed():
            return
        for turn in list(turns) if number % 2 == 0 else turns[::-1]:
            note(f"{turn.what} {turn.flows:,} {turn.schedule}  round {number + 1}  {turn.program}")
            try:
                found = turn.work()
            except Unavailable as error:
                figures.refuse(turn.program, turn.what, turn.flows, turn.schedule, str(error))
                turns.remove(turn)
                continue
            for what, value in found.items():
                figures.add(turn.program, what, turn.flows, turn.schedule, number, value)
