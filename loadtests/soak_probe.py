"""Asks for /v2/health/live over and over from a process of its own, and prints how long each answer took.

Run as `soak_probe.py PORT`; ends when its standard input does. Prints one JSON line: `latencies_s`, and
`naps_s`, by how much the naps between the questions came out too long: the delays of the machine itself,
which the answers have in them as well.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Final

PERIOD_S: Final = 0.005
_REQUEST: Final = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
_BODY: Final = b'{"live":true}'


def probe(port: int) -> dict[str, list[float]]:
    """Ask until standard input ends; seconds of each question and of each nap beyond its period."""
    latencies_s: list[float] = []
    naps_s: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            began_s = time.perf_counter()
            connection.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(_BODY):
                answer += connection.recv(4096)
            answered_s = time.perf_counter()
            latencies_s.append(answered_s - began_s)
            if select.select([sys.stdin], [], [], PERIOD_S)[0]:
                return {"latencies_s": latencies_s, "naps_s": naps_s}
            naps_s.append(time.perf_counter() - answered_s - PERIOD_S)


if __name__ == "__main__":
    print(json.dumps(probe(int(sys.argv[1]))))
