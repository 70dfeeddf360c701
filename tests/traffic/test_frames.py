"""Whether the frames that testpmd swaps as it knows how are replies of the flows that were sent."""

import struct
import tempfile
import unittest

import frames


def swapped(frame):
    """What 5tswap of DPDK 22.11 makes of a frame: in IPv4 it takes whatever follows for ports, and of what IPv6 carries it
    knows UDP and TCP."""
    if frame[12:14] == b"\x08\x00":
        start, ends, l4 = frame[14:26], frame[26:34], frame[34:]
        knows = start[9] == frames.UDP
    else:
        start, ends, l4 = frame[14:22], frame[22:54], frame[54:]
        knows = start[6] == frames.UDP
    half = len(ends) // 2
    if knows:
        l4 = l4[2:4] + l4[:2] + l4[4:]
    return frame[:14] + start + ends[half:] + ends[:half] + l4


def joined(pieces):
    """Both ends and the datagram of all frames of one."""
    whole, last = b"", False
    for frame in pieces:
        if frame[12:14] == b"\x08\x00":
            (place,) = struct.unpack("!H", frame[20:22])
            at, more, ends, content = (place & 0x1FFF) * 8, place & 0x2000, frame[26:34], frame[34:]
        else:
            (place,) = struct.unpack("!H", frame[56:58])
            at, more, ends, content = place & ~7, place & 1, frame[22:54], frame[62:]
        assert at == len(whole) and not last, "a gap, or more behind the last"
        whole, last = whole + content, not more
    assert last, "the last is missing"
    return ends, whole


class Frames(unittest.TestCase):
    def test_a_swapped_datagram_is_the_reply_and_its_sum_is_right(self):
        for version in (4, 6):
            pieces = list(frames.pieces(version, 12_345))
            self.assertGreater(len(pieces), 5)
            ends, sent = joined(pieces)
            back_ends, back = joined(map(swapped, pieces))
            half = len(ends) // 2
            self.assertEqual(back_ends, ends[half:] + ends[:half])
            self.assertEqual(back[:4], sent[2:4] + sent[:2])
            pseudo = back_ends + struct.pack("!HH", frames.UDP, len(back))
            # Over its own field as well a right sum gives nothing, which is sent as all ones.
            self.assertEqual(frames.checksum(pseudo + back), 0xFFFF)

    def test_the_files_hold_all_frames_and_every_queue_has_some(self):
        with tempfile.TemporaryDirectory() as home:
            files = frames.write(home, 2, flows=40, datagrams=4)
            counts = []
            for path in files.paths:
                with open(path, "rb") as file:
                    content = file.read()[24:]
                counts.append(0)
                while content:
                    (length,) = struct.unpack("=I", content[8:12])
                    content, counts[-1] = content[16 + length :], counts[-1] + 1
        self.assertEqual((sum(counts), files.flows, files.packets), (files.frames, 48, 88))
        self.assertTrue(min(counts) > 20, counts)


if __name__ == "__main__":
    unittest.main()
