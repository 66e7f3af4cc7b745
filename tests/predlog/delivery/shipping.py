"""Deliver frames and tell how far it is: `shipping.py DIRECTORY ADDRESS`. A line of input ends it well."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from gateway.predlog.accounts import Accounts
from gateway.predlog.lane import Lane, LaneOptions
from gateway.predlog.spool.epochs import begin_epoch
from gateway.predlog.stream.options import StreamOptions
from gateway.predlog.stream.sink import StreamSink
from gateway.transport.grpc_native_duplex import open_duplex
from tests.predlog.delivery.frames import frame


def ship(directory: Path, address: str) -> None:
    """Print a line of JSON for every ten frames put, and one at the end."""
    epoch = begin_epoch(directory, time.time_ns())
    sink = StreamSink(StreamOptions(address=address, producer="gw", epoch=epoch), open_duplex)
    options = LaneOptions(
        epoch=epoch,
        memory_bytes=20_000,
        spool_directory=directory / "stream",
        backoff_s=0.005,
        max_backoff_s=0.02,
    )
    lane = Lane(sink, options, Accounts().lane("stream"))
    lane.start()
    ending = threading.Event()
    threading.Thread(target=_wait_for_input, args=(ending,), daemon=True).start()
    sequence = 0
    while not ending.is_set():
        for _ in range(10):
            sequence += 1
            lane.put(frame(sequence, rows=2, epoch=epoch))
        tell(epoch, lane)
        # Faster than the keeper gets a processor, frames would be dropped as they should, and counted.
        while lane.status().memory_bytes > options.memory_bytes:
            time.sleep(0.001)
    lane.end(20.0)
    lane.join()
    tell(epoch, lane)


def _wait_for_input(ending: threading.Event) -> None:
    sys.stdin.readline()
    ending.set()


def tell(epoch: int, lane: Lane) -> None:
    """Print the lane's figures."""
    print(json.dumps({"epoch": epoch, **asdict(lane.status())}), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    ship(Path(sys.argv[1]), sys.argv[2])
