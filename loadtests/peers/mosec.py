"""mosec: a Rust HTTP front end that batches, and Python worker processes behind Unix sockets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.scripts import script_launch
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import BareRows

if TYPE_CHECKING:
    from loadtests.peers.base import Place
    from loadtests.peers.running import Launch

_MAX_WAIT_MS: Final = 1
_MAX_BYTES: Final = 64 << 20


def _launch(place: Place) -> Launch:
    (port,) = free_ports(1)
    launch = script_launch(place, "mosec_worker.py", {"http-raw": port}, {"max_wait_ms": _MAX_WAIT_MS})
    options = {
        "address": "127.0.0.1",
        "port": port,
        "log-level": "warning",
        "max-request-size": _MAX_BYTES,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return replace(launch, command=[*launch.command, *flags])


PEER: Final = ServerPeer(
    name="mosec",
    label="mosec 0.9.8 (Rust front end, one Python worker)",
    protocols=("http-raw",),
    packages=("mosec==0.9.8", "onnxruntime==1.31.1", "numpy==2.4.6", "msgspec==0.22.0"),
    settings={
        "model": "ONNX Runtime in the worker, 1 thread",
        "workers": "1",
        "batching": f"its own, up to the batch size asked for, closed after {_MAX_WAIT_MS} ms",
        "payload": "bare rows; it speaks no inference protocol",
    },
    launch=_launch,
    wire=BareRows("/inference"),
)
