"""What of the frames that two testpmd counted was lost."""

import types
import unittest
from unittest import mock

import packets
from hosts import Trouble
from packets import Run, Sent


class FakeTestpmd:
    """Says of each time between a start and a stop what one of `turns` is."""

    files = False

    def __init__(self, *turns):
        self.turns, self.told = iter(turns), []

    def tell(self, command):
        self.told.append(command)

    def take(self):
        self.tell("take")

    def stop(self):
        self.tell("stop")
        return next(self.turns)


APPLIANCE = types.SimpleNamespace(settled=lambda: None)
# Four of ten frames reach the other end late, and six come back late.
LATE = [(0, 10, 0), (4, 0, 0), (6, 0, 0)], [(6, 6, 0), (4, 4, 0)]


class Go(unittest.TestCase):
    def run_of(self, generator, responder, patience):
        self.generator = FakeTestpmd(*generator)
        gone = Run(self.generator, FakeTestpmd(*responder), APPLIANCE).go(0, patience)
        return Sent(gone.sent, gone.far, gone.swapped, gone.back), gone.lost

    def test_what_comes_late_is_not_lost(self):
        self.assertEqual(self.run_of(*LATE, 60), (Sent(10, 10, 10, 10), 0))
        self.assertEqual(self.generator.told, ["start", "stop", "take", "start", "stop", "start", "stop"])

    def test_a_search_does_not_wait_for_it(self):
        self.assertEqual(self.run_of(*LATE, 0), (Sent(10, 6, 6, 4), 6))

    def test_a_link_that_takes_nothing_is_tried_again_for_a_while(self):
        generator = [(0, 0, 3), (0, 0, 5), (0, 10, 0), (10, 0, 0)]
        self.assertEqual(self.run_of(generator, [(10, 10, 0)], 0), (Sent(10, 10, 10, 10), 0))
        with mock.patch.object(packets, "PATIENCE", -1), self.assertRaisesRegex(Trouble, "took nothing"):
            self.run_of(generator, [(10, 10, 0)], 0)


if __name__ == "__main__":
    unittest.main()
