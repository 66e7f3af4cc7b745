"""MLServer: FastAPI on uvicorn and grpc.aio in one process, with adaptive batching."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from loadtests.peers.base import free_ports
from loadtests.peers.running import Launch
from loadtests.peers.scripts import ROOT, first_output
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import OpenInference

if TYPE_CHECKING:
    from loadtests.peers.base import Place

_MAX_BATCH_TIME_S: Final = 0.001


def _launch(place: Place) -> Launch:
    http_port, grpc_port, metrics_port = free_ports(3)
    server = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        "metrics_port": metrics_port,
        "metrics_dir": str(place.workdir),
        "environments_dir": str(place.workdir / "environments"),
        "parallel_workers": 0,
        "debug": False,
        "gzip_enabled": False,
        "grpc_max_message_length": 64 << 20,
    }
    (place.workdir / "settings.json").write_text(json.dumps(server))
    folder = place.workdir / place.model.name
    folder.mkdir()
    (folder / "model-settings.json").write_text(json.dumps(_model(place)))
    command = [str(place.venv / "bin" / "mlserver"), "start", str(place.workdir)]
    return Launch(command, {"http-json": http_port, "grpc": grpc_port}, {"PYTHONPATH": str(ROOT)})


def _model(place: Place) -> dict[str, object]:
    output_name, columns = first_output(place.model.file)
    return {
        "name": place.model.name,
        "implementation": "loadtests.peers.servers.mlserver_model.OnnxModel",
        "parameters": {"uri": str(place.model.file)},
        "max_batch_size": place.max_batch_rows,
        "max_batch_time": _MAX_BATCH_TIME_S,
        "inputs": [{"name": place.model.input_name, "datatype": "FP32", "shape": [-1, place.model.features]}],
        "outputs": [{"name": output_name, "datatype": "FP32", "shape": [-1, columns]}],
    }


PEER: Final = ServerPeer(
    name="mlserver",
    label="MLServer 1.7.1 (FastAPI on uvicorn; grpc.aio), runtime class with ONNX Runtime",
    protocols=("http-json", "grpc"),
    packages=(
        "mlserver==1.7.1",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
        "grpcio==1.85.1",
        "protobuf==6.33.6",
        "fastapi==0.115.14",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
    ),
    settings={
        "model": "ONNX Runtime in the server's process, 1 thread",
        "processes": "1, parallel_workers 0: cheaper here than a worker and its queues",
        "batching": (
            f"adaptive, max_batch_size as asked for, max_batch_time {_MAX_BATCH_TIME_S * 1000:.0f} ms;"
            " it counts requests, not rows"
        ),
        "HTTP parser": "httptools, which it does not bring itself but uvicorn takes when it is there",
        "logs": "debug off, metrics endpoint off, gzip off",
    },
    launch=_launch,
    wire=OpenInference(),
)
