"""When a run of connections counts, when it is made again, and what is then said of it."""

import asyncio
import types
import unittest
from unittest import mock

import load
import sockets
from outcome import Link
from test_outcome import flow

WHOLE = [flow(1), flow(2)]
SPLIT = [flow(1), flow(2, assured=False)]


class FakeLine:
    """Two connections in each run, of which the hosts and the appliance tell what one of `runs` says."""

    inside = types.SimpleNamespace(v4="198.18.0.1", v6="2001:2::1")

    def __init__(self, *runs, late=(), tries=sockets.TRIES):
        self.runs, self.at_once, self.packets, self.syns, self.refused = iter(runs), [], (0, 0), 0, 0
        # What comes, look by look, after everything seemed quiet; and how many runs there is time for.
        self.waiting, self.tries = iter(late), tries
        self.appliance = types.SimpleNamespace(flush=lambda: None, flows=lambda: self.flows)

    def quiet(self):
        return self.packets

    def late(self):
        return len(self.at_once) >= self.tries

    def repeated_syns(self):
        return self.syns

    def settled(self):
        sent, got = self.packets
        self.packets = sent, got + next(self.waiting, 0)

    def connect(self, _address, _count, at_once):
        self.at_once.append(at_once)
        self.flows, lost, again, done = next(self.runs)
        sent, got = self.packets
        self.packets, self.syns = (sent + 20, got + 20 - lost), self.syns + again
        return {"done": done, "failed": 0, "first": None, "seconds": 1}


class Connections(unittest.TestCase):
    def run_of(self, *runs, count=2, least=1, patience=0, **more):
        line, link = FakeLine(*runs, **more), Link("net_tap", "a test", 1)
        with mock.patch.object(sockets, "LATE_SECONDS", patience):
            sockets.connections(link, line, "198.18.0.2", count, 8, least)
        link.judge()
        return line, link

    def test_a_clean_run_counts(self):
        line, link = self.run_of((WHOLE, 0, 0, 2))
        self.assertEqual((line.at_once, link.problems, link.flows, len(link.notes)), ([8], [], 2, 1))

    def test_a_repeated_syn_is_nothing_where_every_flow_is_whole(self):
        line, link = self.run_of((WHOLE, 0, 3, 2))
        self.assertEqual((line.at_once, link.problems), ([8], []))
        self.assertIn("3 SYNs were sent again", link.notes[-1])

    def test_a_repeated_syn_and_a_flow_that_is_not_whole_are_tried_again(self):
        line, link = self.run_of((SPLIT, 0, 3, 2), (WHOLE, 0, 0, 2))
        self.assertEqual((line.at_once, link.problems, link.flows), ([8, 4], [], 2))
        line, link = self.run_of(*[(SPLIT, 0, 3, 2)] * 4)
        self.assertEqual((line.at_once, link.split_flows), ([8, 4, 2, 1], 1))
        self.assertTrue(any("too busy" in problem for problem in link.problems))

    def test_a_flow_that_is_not_whole_is_a_problem_at_once_where_no_syn_was_repeated(self):
        line, link = self.run_of((SPLIT, 0, 0, 2))
        self.assertEqual((line.at_once, link.split_flows, link.good), ([8], 1, False))

    def test_a_lost_packet_is_tried_again_and_then_a_problem(self):
        line, link = self.run_of(*[(WHOLE, 1, 0, 2)] * 4)
        self.assertEqual((line.at_once, link.packets_lost, link.good), ([8, 4, 2, 1], 1, False))

    def test_a_packet_that_comes_late_is_not_lost(self):
        line, link = self.run_of((WHOLE, 3, 0, 2), late=[2, 0, 1], patience=60)
        self.assertEqual((line.at_once, link.packets_lost, link.problems), ([8], 0, []))

    def test_what_was_lost_is_a_problem_where_there_is_no_time_to_try_again(self):
        line, link = self.run_of(*[(WHOLE, 1, 0, 2)] * 4, tries=2)
        self.assertEqual((line.at_once, link.packets_lost, link.good), ([8, 4], 1, False))

    def test_fewer_connections_than_were_asked_for_are_a_problem_unless_that_is_allowed(self):
        said = "only 2 of 20 connections began in 150 s"
        _, link = self.run_of((WHOLE, 0, 0, 2), count=20)
        self.assertEqual(link.problems, [said])
        _, link = self.run_of((WHOLE, 0, 0, 2), count=20, least=0.1)
        self.assertEqual((link.problems, link.notes[-1]), ([], said))
        _, link = self.run_of((WHOLE, 0, 0, 2), count=21, least=0.1)
        self.assertFalse(link.good)


class Load(unittest.TestCase):
    def test_none_begins_once_the_time_is_over(self):
        begun = []

        async def one(number):
            begun.append(number)
            await asyncio.sleep(0)

        # Each takes a tenth of a second, and no other time passes.
        with mock.patch.object(load, "time", types.SimpleNamespace(monotonic=lambda: len(begun) / 10)):
            said = asyncio.run(load.many(1000, 3, one, 0.45))
        self.assertEqual((said, begun), ({"done": 5, "failed": 0, "first": None, "seconds": 0.5}, [0, 1, 2, 3, 4]))


if __name__ == "__main__":
    unittest.main()
