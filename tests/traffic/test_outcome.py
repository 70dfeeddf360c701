"""The judgement itself: what a split flow looks like in a listing must be seen as one."""

import unittest

from outcome import Link, judge


def flow(sport=1, counts=(5, 4), **more):
    """A TCP flow of two hosts, as `list -o jsonl` gives it."""
    ends = {"src": "198.18.0.1", "dst": "198.18.0.2", "sport": sport, "dport": 80}
    back = {"src": ends["dst"], "dst": ends["src"], "sport": 80, "dport": sport}
    return {
        "proto": 6, "proto_name": "tcp", "zone": 0, "seen_reply": counts[1] > 0, "assured": True,
        "original": ends | {"packets": counts[0]}, "reply": back | {"packets": counts[1]},
    } | more  # fmt: skip


def turned(flow):
    """The entry that a worker makes which sees only the replies."""
    return flow | {"original": flow["reply"], "reply": flow["original"] | {"packets": 0}, "seen_reply": False}


class Judgement(unittest.TestCase):
    judge = staticmethod(lambda flows: judge(flows, lambda _flow: True))

    def test_whole_flows_are_none_of_them_split(self):
        listed = self.judge([flow(1), flow(2)])
        self.assertEqual((listed.flows, listed.split, listed.packets), (2, 0, 18))

    def test_halves_on_two_workers_are_one_flow_that_is_split(self):
        half = flow(1, counts=(5, 0), assured=False)
        listed = self.judge([half, turned(flow(1)), flow(2)])
        self.assertEqual((listed.flows, listed.split, listed.twice), (2, 1, 1))

    def test_one_direction_alone_is_split(self):
        listed = self.judge([flow(1, counts=(5, 0))])
        self.assertEqual((listed.flows, listed.one_sided), (1, 1))

    def test_tcp_that_is_not_assured_is_split_and_udp_is_not(self):
        listed = self.judge([flow(1, assured=False), flow(1, proto=17, proto_name="udp", assured=False)])
        self.assertEqual((listed.flows, listed.unassured), (2, 1))

    def test_equal_tuples_in_two_zones_are_two_flows(self):
        listed = self.judge([flow(1), flow(1, zone=7)])
        self.assertEqual((listed.flows, listed.split), (2, 0))

    def test_a_flow_without_an_entry_and_a_lost_packet_are_problems(self):
        self.assertTrue(self.link([flow(1), flow(2)]).good)
        self.assertFalse(self.link([flow(1)]).good)
        self.assertFalse(self.link([flow(1), flow(2)], packets_lost=1).good)
        self.assertFalse(self.link([flow(1), flow(2, assured=False)]).good)

    def link(self, flows, **more):
        link = Link("net_tap", "a test", 1, wanted=2, **more)
        link.list(self.judge(flows))
        link.judge()
        return link


if __name__ == "__main__":
    unittest.main()
