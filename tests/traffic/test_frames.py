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


def held(path):
    """The frames of a capture file."""
    with open(path, "rb") as file:
        content = file.read()[24:]
    while content:
        (length,) = struct.unpack("=I", content[8:12])
        yield content[16 : 16 + length]
        content = content[16 + length :]


def identification(frame):
    """By which a fragment finds its datagram; None of a frame that is whole."""
    packet = frame[14:]
    if packet[0] >> 4 == 4:
        return 4, packet[4:6]
    return (6, packet[44:48]) if packet[6] == frames.FRAGMENT else None


class Frames(unittest.TestCase):
    def test_a_swapped_datagram_is_the_reply_and_its_sum_is_right(self):
        for version in (4, 6):
            pieces = list(frames.pieces(version, 12_345, 54_321))
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
            counts = [len(list(held(path))) for path in files.paths]
        self.assertEqual((sum(counts), files.flows, files.packets), (files.frames, 48, 88))
        self.assertTrue(min(counts) > 20, counts)

    def test_what_is_left_of_one_attempt_has_no_part_in_another(self):
        with tempfile.TemporaryDirectory() as home:
            idents = []
            for attempt in range(3):
                paths = frames.write(home, 1, 40, 4, attempt).paths
                idents.append({ident for frame in held(paths[0]) if (ident := identification(frame))})
        self.assertEqual([len(each) for each in idents], [8, 8, 8])
        self.assertEqual(len(set.union(*idents)), 24)


if __name__ == "__main__":
    unittest.main()
