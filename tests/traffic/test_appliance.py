"""When a question is put to the appliance again."""

import unittest
from unittest import mock

import appliance
from hosts import Trouble

SILENT = "dpdk-conntrack: worker 1 did not answer within 2 s: see its core with `top -H`"


class FakeAppliance(appliance.Asked):
    """Answers with what one of `said` is, each time the next."""

    def __init__(self, *said):
        self.said, self.asked = iter(said), []

    def try_ask(self, *words):
        self.asked.append(words)
        return next(self.said)


class Ask(unittest.TestCase):
    def test_a_worker_that_was_silent_is_asked_again(self):
        asked = FakeAppliance((1, "", SILENT), (1, "half of", "the answer broke off (reset)"), (0, "all", ""))
        self.assertEqual((asked.ask("list", "-o", "jsonl"), asked.asked), ("all", [("list", "-o", "jsonl")] * 3))

    def test_one_that_stays_silent_is_trouble(self):
        asked = FakeAppliance((1, "", SILENT), (1, "", SILENT))
        with mock.patch.object(appliance, "PATIENCE", -1), self.assertRaisesRegex(Trouble, "`flush` failed: .* did not answer"):
            asked.ask("flush")
        self.assertEqual(len(asked.asked), 1)

    def test_anything_else_is_trouble_at_once(self):
        asked = FakeAppliance((3, "", "nothing listens"), (0, "all", ""))
        with self.assertRaisesRegex(Trouble, "nothing listens"):
            asked.ask("stats")


if __name__ == "__main__":
    unittest.main()
