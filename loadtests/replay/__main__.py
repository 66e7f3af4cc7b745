"""`python -m loadtests.replay ORDER RESULT`: carries out an order (order.py) and writes what came of it."""

from __future__ import annotations

import base64
import gc
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtests.replay.ends import Answers, End
from loadtests.replay.grpc_calls import GrpcMessages, HeaderBlocks, StreamCalls, UnaryCalls, load_capture
from loadtests.replay.http1 import HttpConnection, HttpRequests
from loadtests.replay.loop import Connection, Loop
from loadtests.replay.order import Order, read_order
from loadtests.tally import quantiles_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.replay.loop import Timings


def main() -> None:
    """Run."""
    order = read_order(Path(sys.argv[1]))
    answers = Answers()
    make = _maker(order, answers)
    gc.disable()  # nothing here makes cycles, and a collection would be seen as latency
    loop = Loop(make, (order.host, order.port), order.connections, answers)
    dropped, cpu_s = 0, time.process_time()
    if order.in_flight:
        loop.closed(order.in_flight, order.seconds)
    else:
        dropped = loop.open(np.load(order.offsets).tolist())
    cpu_s = time.process_time() - cpu_s
    loop.close()
    result = _result(loop.timings, answers, dropped, order.seconds)
    result["generator_busy"] = cpu_s / result["seconds"]
    Path(sys.argv[2]).write_text(json.dumps(result))


def _maker(order: Order, answers: Answers) -> Callable[[], Connection]:
    if order.protocol.startswith("http"):
        return partial(HttpConnection, HttpRequests(order), answers)
    capture = load_capture(order)
    kind = StreamCalls if order.protocol == "grpc-stream" else UnaryCalls
    return partial(kind, GrpcMessages(order), HeaderBlocks(capture.templates), capture.opening, answers)


def _result(timings: Timings, answers: Answers, dropped: int, seconds: float) -> dict[str, Any]:
    """Return the fields of a tally.Tally, samples by the number of the request."""
    ends = np.array(timings.ends, np.int8)
    took_s = np.array(timings.ended_s) - np.array(timings.begun_s)
    counts = {end: int(np.count_nonzero(ends == end)) for end in End}
    rejected_ms = quantiles_ms(took_s[ends == End.REJECTED])
    return {
        "due": len(ends) + dropped,
        "good": counts[End.GOOD],
        "seconds": max(timings.last_s - timings.started_s, seconds),
        "latency_ms": quantiles_ms(took_s[ends == End.GOOD]),
        "rejected": counts[End.REJECTED],
        "rejected_p99_ms": rejected_ms.get("p99"),
        "expired": counts[End.EXPIRED],
        "failed": counts[End.FAILED],
        "dropped": dropped,
        "problems": [f"{count} times {problem}" for problem, count in answers.problems.most_common(5)],
        "samples": [
            [number, headers, base64.b64encode(body).decode()]
            for number, (headers, body) in answers.samples.items()
        ],
    }


if __name__ == "__main__":
    main()
