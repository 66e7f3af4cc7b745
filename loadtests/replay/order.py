"""What the replay process is told and what it answers: JSON, the bytes of requests in a file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST_ID: Final = "@request-id-here"
"""Stands in prepared bodies where each request's own id goes, of the same length."""
NO_OFFSETS: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run of the replay.

    Attributes:
        protocol: wire format.
        host: of the target.
        port: of the target.
        path: HTTP request target, or gRPC method.
        headers: of each distinct request, `name: value` lines; gRPC has none.
        bodies: file of the distinct bodies, one after the other.
        lengths: their lengths.
        connections: how many.
        in_flight: of a closed loop, over all connections; 0: an open loop.
        offsets: file of an open loop's schedule (npy, seconds); empty for a closed one.
        seconds: of a closed loop.
        ids: whether bodies hold `REQUEST_ID`.
        deadlines: whether requests carry deadlines.
        traceparent: whether they carry trace contexts.
        client: whose captured header blocks gRPC requests have.
    """

    protocol: str
    host: str
    port: int
    path: str
    headers: Sequence[Sequence[str]]
    bodies: str
    lengths: Sequence[int]
    connections: int
    in_flight: int
    offsets: str
    seconds: float
    ids: bool
    deadlines: bool
    traceparent: bool
    client: str

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self)))

    def read_bodies(self) -> list[bytes]:
        """Return the distinct bodies."""
        data, at, found = Path(self.bodies).read_bytes(), 0, []
        for length in self.lengths:
            found.append(data[at : at + length])
            at += length
        return found


def read_order(path: Path) -> Order:
    """Return the order in a file."""
    return Order(**json.loads(path.read_text()))
