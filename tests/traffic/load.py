"""The traffic of real sockets, run inside a namespace: many short connections, and datagrams too long for one frame.

usage: load.py serve PORT                            answers TCP requests and echoes UDP, IPv4 and IPv6, until ended
       load.py connect HOST PORT COUNT AT_ONCE FIRST SECONDS
                                                     that many connections, each a request, an answer and an orderly end;
                                                     from the local ports that begin with FIRST; none begins after SECONDS
       load.py datagrams HOST PORT COUNT BYTES FIRST that many sockets, each sends one datagram and waits for its echo

The last two print one line of JSON: how many were done, how many failed and why the first did.
"""

import asyncio
import functools
import itertools
import json
import math
import socket
import sys
import time

REQUEST = b"what do you know of me? " * 4
ANSWER = b"as much as passed by here. " * 40
# How long one connection or echo may take: others may hold the machine's cores for seconds.
PATIENCE = 60


class Answerer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.got = transport, 0

    def data_received(self, data):
        self.got += len(data)
        if self.got >= len(REQUEST):
            self.got -= len(REQUEST)
            self.transport.write(ANSWER)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(data, peer)


class Asker(asyncio.Protocol):
    def __init__(self, ended):
        self.ended, self.got = ended, 0

    def connection_made(self, transport):
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data):
        self.got += len(data)
        if self.got >= len(ANSWER):
            # All of it was read, so this is a FIN and no reset.
            self.transport.close()

    def connection_lost(self, error):
        if not self.ended.done():
            self.ended.set_result(error or (None if self.got == len(ANSWER) else EOFError("ended too early")))


class Asked(asyncio.DatagramProtocol):
    def __init__(self, answered):
        self.answered = answered

    def datagram_received(self, data, _peer):
        if not self.answered.done():
            self.answered.set_result(data)

    def error_received(self, error):
        if not self.answered.done():
            self.answered.set_exception(error)


async def serve(port):
    loop = asyncio.get_running_loop()
    tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    server = await loop.create_server(Answerer, sock=tcp)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.bind(("::", port))
    await loop.create_datagram_endpoint(Echo, sock=udp)
    print("ready", flush=True)
    await server.serve_forever()


def local(host, port):
    """Any address of the host's family, and this port."""
    return "::" if ":" in host else "0.0.0.0", port


async def connection(host, port, own):
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    async with asyncio.timeout(PATIENCE):
        await loop.create_connection(lambda: Asker(ended), host, port, local_addr=local(host, own))
        if error := await ended:
            raise error


async def datagram(host, port, content, own):
    loop = asyncio.get_running_loop()
    answered = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: Asked(answered), local(host, own), (host, port))
    try:
        transport.sendto(content)
        async with asyncio.timeout(PATIENCE):
            if await answered != content:
                raise ValueError("the echo is not what was sent")
    finally:
        transport.close()


async def many(count, at_once, one, seconds=math.inf):
    """`one(number)` so often, so many at a time, unless the time is over; what became of them."""
    left, done, failed, first, begun = iter(range(count)), 0, 0, None, time.monotonic()

    async def line():
        nonlocal done, failed, first
        for number in itertools.takewhile(lambda _: time.monotonic() - begun < seconds, left):
            try:
                await one(number)
                done += 1
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                failed += 1
                first = first or f"{type(error).__name__} {error}".strip()

    await asyncio.gather(*(line() for _ in range(min(at_once, count))))
    return {"done": done, "failed": failed, "first": first, "seconds": time.monotonic() - begun}


def main(argv):
    match argv:
        case ["serve", port]:
            asyncio.run(serve(int(port)))
        case ["connect", host, port, count, at_once, first, seconds]:
            ask = functools.partial(connection, host, int(port))
            said = asyncio.run(many(int(count), int(at_once), lambda number: ask(int(first) + number), int(seconds)))
            print(json.dumps(said))
        case ["datagrams", host, port, count, size, first]:
            content = bytes(number % 251 for number in range(int(size)))
            said = asyncio.run(many(int(count), 4, lambda number: datagram(host, int(port), content, int(first) + number)))
            print(json.dumps(said))
        case _:
            print(__doc__.strip(), file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
