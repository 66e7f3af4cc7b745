"""KServe's Python server: FastAPI on uvicorn and grpc.aio in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.scripts import script_launch
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import OpenInference

if TYPE_CHECKING:
    from loadtests.peers.base import Place
    from loadtests.peers.running import Launch


def _launch(place: Place) -> Launch:
    http_port, grpc_port = free_ports(2)
    ports = {"http-binary": http_port, "http-json": http_port, "grpc": grpc_port}
    return script_launch(place, "kserve_model.py", ports)


PEER: Final = ServerPeer(
    name="kserve",
    label="KServe 0.21.0 Python server (FastAPI on uvicorn; grpc.aio) with ONNX Runtime",
    protocols=("http-binary", "http-json", "grpc"),
    packages=(
        "kserve==0.21.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
        "grpcio==1.85.1",
        "protobuf==6.33.6",
        "fastapi==0.165.0",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
    ),
    settings={
        "model": "ONNX Runtime in the server's process, 1 thread",
        "processes": "1",
        "batching": "none in this server: KServe batches in its agent, a sidecar",
        "logs": "below warning off, latency logging off",
    },
    launch=_launch,
    wire=OpenInference(),
)
