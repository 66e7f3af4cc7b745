"""BentoML: Starlette on uvicorn in one worker process under circus, with adaptive batching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.running import Launch
from loadtests.peers.scripts import settings_environment
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import RowsAsJson

if TYPE_CHECKING:
    from loadtests.peers.base import Place

_SERVICE: Final = "loadtests.peers.servers.bentoml_service:Model"
_MAX_LATENCY_MS: Final = 10_000


def _launch(place: Place) -> Launch:
    ports = {"http-json": free_ports(1)[0]}
    options = ["--host", "127.0.0.1", "--port", str(ports["http-json"])]
    command = [str(place.venv / "bin" / "bentoml"), "serve", _SERVICE, *options]
    environment = settings_environment(place, ports, {"max_latency_ms": _MAX_LATENCY_MS})
    return Launch(
        command,
        ports,
        environment | {"BENTOML_HOME": str(place.workdir / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"},
    )


PEER: Final = ServerPeer(
    name="bentoml",
    label="BentoML 1.4.39 (Starlette on uvicorn)",
    protocols=("http-json",),
    packages=(
        "bentoml==1.4.39",  # 1.4.40 asks for a certifi that is not on the package index
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
        "starlette==1.10.0",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
    ),
    settings={
        "model": "ONNX Runtime on the worker's event loop, 1 thread",
        "processes": "1 worker, and circus, which supervises it",
        "batching": f"its own, up to the batch size asked for, max_latency_ms {_MAX_LATENCY_MS}",
        "payload": "its own JSON, nested lists; it speaks no inference protocol and batches no bytes",
        "HTTP": "uvloop and httptools, which it does not bring itself but uvicorn takes when they are there",
        "logs": "no access log, no metrics, no tracing",
    },
    launch=_launch,
    wire=RowsAsJson("/infer", "rows"),
)
