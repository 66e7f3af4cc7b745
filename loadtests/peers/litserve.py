"""LitServe: FastAPI on uvicorn in one process, the model in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.scripts import script_launch
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import BareRows

if TYPE_CHECKING:
    from loadtests.peers.base import Place
    from loadtests.peers.running import Launch

_BATCH_TIMEOUT_S: Final = 0.005


def _launch(place: Place) -> Launch:
    ports = {"http-raw": free_ports(1)[0]}
    return script_launch(place, "litserve_api.py", ports, {"batch_timeout_s": _BATCH_TIMEOUT_S})


PEER: Final = ServerPeer(
    name="litserve",
    label="LitServe 0.2.19 (FastAPI on uvicorn, one worker process)",
    protocols=("http-raw",),
    packages=(
        "litserve==0.2.19",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
        "fastapi==0.165.0",
        "uvicorn[standard]==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "pyzmq==27.3.0",
    ),
    settings={
        "model": "ONNX Runtime in the worker, 1 thread",
        "processes": "1 API server, 1 worker, fast_queue (ZeroMQ)",
        "batching": f"up to the batch size asked for, batch_timeout {_BATCH_TIMEOUT_S * 1000:.0f} ms",
        "payload": "bare rows; it speaks no inference protocol",
        "logs": "no access log",
    },
    launch=_launch,
    wire=BareRows("/predict"),
)
