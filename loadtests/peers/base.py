"""The seam between the harness and the servers it compares: what an adapter must do, and what it is given.

An adapter is a module `loadtests.peers.NAME` with a module-level `PEER`, an object that satisfies `Peer`; its
name stands in `loadtests.peers.NAMES`. ONNX Runtime called directly is no server and no adapter: the harness
measures it itself (direct.py).
"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt

    from loadtests.requests_on_file import BenchModel

    Floats = npt.NDArray[np.float32]

HTTP_PROTOCOLS = ("http-json", "http-binary", "http-raw")
"""Open Inference Protocol as JSON; its binary extension; whatever else a peer takes as bytes."""
GRPC_PROTOCOLS = ("grpc", "grpc-stream")
"""Open Inference Protocol unless `Peer.settings` says otherwise: unary, and one bidirectional stream."""

_LEAST_PORT = 12_000


class PeerUnavailable(Exception):
    """A peer cannot be installed or started here; the message is the reason, as the report will print it."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request as it goes out, the same bytes whichever generator sends it.

    Attributes:
        path: HTTP request target, or the full gRPC method (`/package.Service/Method`).
        headers: without host and content-length, which the generator adds; for gRPC, extra metadata only.
        body: HTTP body, or the serialised gRPC message without its five-byte prefix.
        method: of HTTP.
    """

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """A good answer: HTTP status 200, or gRPC status OK.

    Attributes:
        headers: of HTTP, names in lower case; empty for gRPC.
        body: HTTP body, or the serialised gRPC message without its prefix.
    """

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """What a peer is started with.

    Attributes:
        venv: made by `Peer.install`.
        model: to serve, under `model.name`; the file is `model.file`, its one input `model.input_name`, FP32
            of shape [rows, model.features].
        workdir: an empty folder of the peer's own, for configuration and logs; removed by the harness.
        cores: cores to stay on, as `taskset -c` wants them: "0".
        max_batch_rows: most rows per batch, where the peer batches.
    """

    venv: Path
    model: BenchModel
    workdir: Path
    cores: str
    max_batch_rows: int = 64


class RunningPeer(Protocol):
    """A started server. The harness asks for CPU time and memory of the whole tree below `pid`."""

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        ...

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Protocol -> host (127.0.0.1) and port."""
        ...

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return when it answers requests.

        Raises:
            PeerUnavailable: it ended, or the time is up; the message holds the end of its log.
        """
        ...


class Peer(Protocol):
    """One server to compare with.

    Attributes:
        name: as on the command line, and of its venv's folder.
        label: as printed: what it is, with version and front end (`Triton 2.51, Python backend`).
        protocols: which of `HTTP_PROTOCOLS` and `GRPC_PROTOCOLS` it speaks.
        packages: pip requirements of its own venv, pinned; empty if it runs in the project's own.
        settings: whatever influences the result, printed beside it: threads, workers, batching.
        connections: numbers of connections to try at each concurrency; the best counts.
    """

    name: str
    label: str
    protocols: tuple[str, ...]
    packages: tuple[str, ...]
    settings: dict[str, str]
    connections: tuple[int, ...]

    def install(self, venv: Path) -> None:
        """Make `venv` and install `packages`; nothing if it holds exactly those already.

        Raises:
            PeerUnavailable: it cannot be installed.
        """
        ...

    def start(self, place: Place) -> AbstractContextManager[RunningPeer]:
        """Lend a started server, perhaps not ready yet; its whole process tree is gone after the block.

        Raises:
            PeerUnavailable: it cannot be started.
        """
        ...

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        ...

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the first output of a good answer, of shape [rows, ...].

        Raises:
            ValueError: it cannot be read, which counts as a wrong answer.
        """
        ...


def free_ports(count: int) -> tuple[int, ...]:
    """Return so many ports of 127.0.0.1 that were free just now, for servers that cannot bind port 0.

    They lie below those that the kernel hands out itself: a server that opens many connections while it
    starts would meet its own port in use.
    """
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: dict[int, socket.socket] = {}
    try:
        while len(found) < count:
            port = secrets.randbelow(first_of_kernel - _LEAST_PORT) + _LEAST_PORT
            with suppress(OSError):
                found[port] = socket.create_server(("127.0.0.1", port))
        return tuple(found)
    finally:
        for listener in found.values():
            listener.close()
