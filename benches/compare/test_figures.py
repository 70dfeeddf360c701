"""What the comparison says of made-up figures: directions of ratios, what is missing, what programs print."""

import unittest
import xml.etree.ElementTree as xml

import results
from programs import Unavailable, medians, number
from rounds import Deadline, Figures, Turn, play

ABOUT = {
    "cpu": "a <CPU> & co", "cores": 2, "memory_gib": 8.0, "virtual": True, "kernel": "6.1", "dpdk": "22.11", "revision": "abc",
}


def figures(**times):
    """Three rounds of a machine that is half as fast in the second one."""
    made = Figures()
    for program, ns in times.items():
        what = "packet/b64_t1" if program == "idealised" else "packet"
        for flows in (1024, 1_000_000):
            for turn, pace in enumerate((1.0, 2.0, 1.0)):
                made.add(program, what, flows, "u", turn, ns * pace)
    return made


class Words(unittest.TestCase):
    def test_a_line_of_the_peers_is_read_by_its_tag(self):
        text = "# fill\n  A128/.5 N=65536 pg=t flat b64 t1 +tcpwin          median    32.03 ns  [   32.03 ..    33.00]  31.22 Mpps  n=1\n"
        self.assertEqual(medians(text), {"A128/.5 N=65536 pg=t flat b64 t1 +tcpwin": 32.03})

    def test_a_number_is_found_on_a_later_line(self):
        self.assertEqual(number(r"^ *established ([\d.]+)", "# x\n  established 0.9990 live 7\n"), 0.999)
        self.assertIsNone(number(r"bytes/conn=([\d.]+)", "nothing"))


class Ratios(unittest.TestCase):
    def test_a_faster_peer_has_a_ratio_below_one_and_the_idealised_table_is_what_ours_is_divided_by(self):
        told = results.document(figures(ours=25.0, idealised=20.0, ovs=500.0, rte_hash=50.0), ABOUT)
        self.assertEqual(told["ratios"]["ovs"]["1000000"], 20.0)
        self.assertEqual(told["ratios"]["rte_hash"]["1024"], 2.0)
        self.assertEqual(told["ratios"]["idealised"]["1000000"], 1.25)
        self.assertNotIn("kernel", told["ratios"])

    def test_a_peer_far_from_where_the_targets_were_set_is_named(self):
        made = figures(ours=25.0, idealised=20.0, ovs=240.0, rte_hash=45.0)
        told = {(row["peer"], row["flows"]): row["far_off"] for row in results.document(made, ABOUT)["peers_over_idealised"]}
        self.assertEqual(told, {
            ("rte_hash", 1024): True, ("rte_hash", 1_000_000): False, ("ovs", 1024): True, ("ovs", 1_000_000): True,
        })
        words = results.markdown(made, ABOUT)
        self.assertIn("Open vSwitch 12.0 instead of 24.6 at 1,000,000 flows", words)
        self.assertNotIn("2.3 at 1,000,000", words)

    def test_a_ratio_is_taken_within_rounds(self):
        made = Figures()
        for turn, (ours, ovs) in enumerate(((10, 100), (30, 300), (11, 110))):
            made.add("ours", "packet", 1024, "u", turn, ours)
            made.add("ovs", "packet", 1024, "u", turn, ovs)
        # A round that only one of them finished says nothing.
        made.add("ovs", "packet", 1024, "u", 3, 1)
        self.assertEqual(made.ratio(("ovs", "packet", 1024), ("ours", "packet", 1024)), 10)

    def test_the_fastest_row_of_the_idealised_table_is_the_reference(self):
        made = figures(ours=25.0, idealised=20.0)
        for turn in range(3):
            made.add("idealised", "packet/b64_t0", 1024, "u", turn, 10.0)
        self.assertEqual(results.idealised_row(made, 1024), "packet/b64_t0")
        self.assertEqual(results.idealised_row(made, 1_000_000), "packet/b64_t1")

    def test_what_operators_ask_for_first_is_of_a_million_flows(self):
        made = figures(ours=25.0)
        for flows, ns in ((1_000_000, 40.0), (4_000_000, 50.0)):
            made.add("ours", "new", flows, "u", 0, ns)
        made.add("ours", "bytes", 1024, "u", 0, 2048.0)
        made.add("ours", "bytes", 1_000_000, "u", 0, 153.0)
        told = results.document(made, ABOUT)
        self.assertEqual(told["new_flows_per_second"], 25_000_000)
        self.assertEqual(told["bytes_per_flow"], 153.0)
        self.assertIsNone(told["expiries_per_second"])


class Rounds(unittest.TestCase):
    def test_what_is_refused_is_said_and_the_rest_goes_on(self):
        def refuse():
            raise Unavailable("there is none here")

        made, asked = Figures(), []
        turns = [
            Turn("ovs", "packet", 1024, "u", refuse),
            Turn("ours", "packet", 1024, "u", lambda: asked.append(1) or {"packet": 20.0}),
        ]
        play(made, turns, 3, lambda words: None)
        self.assertEqual((made.median("ours", "packet", 1024), len(asked)), (20.0, 3))
        self.assertIn("Not possible here: Open vSwitch, packet, 1,024 flows: there is none here", results.markdown(made, ABOUT))

    def test_a_deadline_leaves_one_round(self):
        asked = []
        turn = Turn("ours", "packet", 1024, "u", lambda: asked.append(1) or {"packet": 20.0})
        play(Figures(), [turn], 5, lambda words: None, Deadline(0))
        self.assertEqual(len(asked), 1)


class Paper(unittest.TestCase):
    def test_the_plot_is_well_formed_and_names_every_line(self):
        made = figures(ours=25.0, idealised=20.0, ovs=500.0)
        made.add("ours", "bytes", 1_000_000, "u", 0, 153.0)
        drawn = results.picture(made, ABOUT)
        words = "".join(xml.fromstring(drawn).itertext())
        for name in ("dpdk-conntrack", "idealised table", "Open vSwitch", "a <CPU> & co"):
            self.assertIn(name, words)

    def test_one_size_makes_no_plot(self):
        made = Figures()
        made.add("ours", "packet", 1024, "u", 0, 20.0)
        self.assertIsNone(results.picture(made, ABOUT))


if __name__ == "__main__":
    unittest.main()
