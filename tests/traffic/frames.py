"""UDP flows as capture files, for a testpmd to send: IPv6 in whole frames, and both families in datagrams too long for
one. Each flow is such that 5tswap makes a reply of it that belongs to it."""

import ipaddress
import random
import struct
from dataclasses import dataclass

# Both are nobody's network: RFC 2544 and RFC 5180.
CLIENTS = {4: "198.18.0.0", 6: "2001:2::1:0"}
SERVERS = {4: "198.19.0.0", 6: "2001:2::2:0"}
CLIENTS_COUNT, SERVERS_COUNT = 251, 7
FIRST_PORT = 2048
SERVER_PORT = 5353
UDP, FRAGMENT = 17, 44
MAC = bytes.fromhex("020000000002 020000000001")
# What one frame carries behind the network header: a multiple of eight, as fragments have to be, on an Ethernet of 1,500.
PIECE = {4: 1480, 6: 1448}
DATAGRAM_BYTES = 8192
# Frames of each flow that comes whole.
ROUNDS = 2


@dataclass
class Files:
    """One file for each queue, and what is in all of them together."""

    paths: list
    frames: int
    flows: int
    # As conntrack counts: a datagram is one packet, in however many frames it comes.
    packets: int


def ends(version, number):
    """Addresses of a flow's client and server."""
    client = ipaddress.ip_address(CLIENTS[version]) + 1 + number % CLIENTS_COUNT
    server = ipaddress.ip_address(SERVERS[version]) + 1 + number % SERVERS_COUNT
    return client.packed, server.packed


def port(number):
    """A flow's client port. Flows beyond that many have another client."""
    return FIRST_PORT + number % 60_000


def checksum(content):
    """RFC 1071; what would be 0 is sent as its other form, because 0 means that there is none."""
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF or 0xFFFF


def datagram(version, number, server_port, size):
    """A UDP header and `size` zeros, an even number of them."""
    client, server = ends(version, number)
    length = 8 + size
    header = struct.pack("!HHHH", port(number), server_port, length, 0)
    # The pseudo header's words, in any order; zeros add nothing.
    summed = checksum(client + server + struct.pack("!HH", UDP, length) + header)
    return header[:6] + struct.pack("!H", summed) + bytes(size)


def v4(number, content, ident, at=0, more=False):
    client, server = ends(4, number)
    place = at // 8 | (0x2000 if more else 0)
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(content), ident & 0xFFFF, place, 64, UDP)
    summed = checksum(start + client + server)
    return MAC + b"\x08\x00" + start + struct.pack("!H", summed) + client + server + content


def v6(number, content, ident=None, at=0, more=False):
    client, server = ends(6, number)
    if ident is not None:
        content = struct.pack("!BBHI", UDP, 0, at | more, ident) + content
    start = struct.pack("!IHBB", 6 << 28, len(content), UDP if ident is None else FRAGMENT, 64)
    return MAC + b"\x86\xdd" + start + client + server + content


def pieces(version, number, ident):
    """The frames of a long datagram with that identification. The responder takes the first four bytes of every IPv4 fragment
    for ports, and knows no IPv6 fragments at all. So what follows the header is zeros, and both ends have one port: swapped or
    not, it is a reply."""
    whole = datagram(version, number, port(number), DATAGRAM_BYTES)
    for at in range(0, len(whole), PIECE[version]):
        piece = whole[at : at + PIECE[version]]
        more = at + len(piece) < len(whole)
        yield (v4 if version == 4 else v6)(number, piece, ident, at, more)


def write(home, queues, flows, datagrams, attempt=0):
    """So many IPv6 flows in whole frames, and so many flows of each family that are one long datagram each. Which queue a
    frame comes by is left to a die, the same one every time: so do the worst cards. Each attempt's datagrams have other
    identifications: parts of the one before may still wait for what was lost."""
    die = random.Random(queues)
    # Numbers of their own, so that no long datagram is of a flow that came whole.
    long = range(flows, flows + datagrams)
    frames = [v6(number, datagram(6, number, SERVER_PORT, 18)) for number in range(flows)] * ROUNDS
    again = attempt * datagrams
    frames += [piece for number in long for version in (4, 6) for piece in pieces(version, number, number + again)]
    paths = [f"{home}/frames{queue}.pcap" for queue in range(queues)]
    files = [open(path, "wb") for path in paths]
    try:
        for file in files:
            file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file = die.choice(files)
            file.write(struct.pack("=IIII", 0, 0, len(frame), len(frame)))
            file.write(frame)
    finally:
        for file in files:
            file.close()
    return Files(paths, len(frames), flows + 2 * datagrams, flows * ROUNDS + 2 * datagrams)
