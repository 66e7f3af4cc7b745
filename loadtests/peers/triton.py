"""Triton's own server, as nvidia-pytriton ships it: its Python backend runs ONNX Runtime."""

from __future__ import annotations

import os
import sysconfig
from typing import TYPE_CHECKING, Final

from loadtests.peers.base import PeerUnavailable, free_ports
from loadtests.peers.running import Launch
from loadtests.peers.scripts import SERVERS, first_output, settings_environment
from loadtests.peers.server_peer import ServerPeer
from loadtests.peers.wires import OpenInference

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.peers.base import Place

_CONFIG: Final = """\
backend: "python"
max_batch_size: {max_batch_rows}
input [{{ name: "{input_name}" data_type: TYPE_FP32 dims: [{features}] }}]
output [{{ name: "{output_name}" data_type: TYPE_FP32 dims: [{columns}] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{ }}
"""


def _launch(place: Place) -> Launch:
    packages = place.venv / "lib" / "python3.11" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    if not server.is_dir():
        raise PeerUnavailable(f"nvidia-pytriton brought no server for Python 3.11: no {server}")
    _write_backend(server, place.workdir / "backends" / "python")
    _write_model(place, place.workdir / "models" / place.model.name)
    http_port, grpc_port = free_ports(2)
    options = {
        "model-repository": place.workdir / "models",
        "backend-directory": place.workdir / "backends",
        "http-address": "127.0.0.1",
        "http-port": http_port,
        "grpc-address": "127.0.0.1",
        "grpc-port": grpc_port,
        "allow-metrics": "false",
        "log-info": "false",
    }
    command = [
        str(server / "bin" / "tritonserver"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    ports = dict.fromkeys(("http-json", "http-binary"), http_port) | dict.fromkeys(
        ("grpc", "grpc-stream"), grpc_port
    )
    # The stub is linked with libpython3.11 and finds its packages through the python3 that is first in PATH.
    libraries = (str(packages / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR"))
    environment = settings_environment(place, ports) | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    return Launch(command, ports, environment)


def _write_backend(server: Path, folder: Path) -> None:
    """Put the backend together with the stub of this Python: Triton looks for it beside the library."""
    folder.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (folder / name).symlink_to(server / "backends" / "python" / name)
    stub = "triton_python_backend_stub"
    (folder / stub).symlink_to(server / "python_backend_stubs" / "3.11" / stub)


def _write_model(place: Place, folder: Path) -> None:
    (folder / "1").mkdir(parents=True)
    output_name, columns = first_output(place.model.file)
    config = _CONFIG.format(
        max_batch_rows=place.max_batch_rows,
        input_name=place.model.input_name,
        features=place.model.features,
        output_name=output_name,
        columns=columns,
    )
    (folder / "config.pbtxt").write_text(config)
    for name, script in (("model.py", "triton_model.py"), ("one_thread.py", "one_thread.py")):
        (folder / "1" / name).symlink_to(SERVERS / script)


PEER: Final = ServerPeer(
    name="triton",
    label="Triton 2.51 (nvidia-pytriton 0.7.0), its Python backend with ONNX Runtime",
    protocols=("grpc", "http-binary", "http-json", "grpc-stream"),
    packages=("nvidia-pytriton==0.7.0", "onnxruntime==1.31.1", "numpy==1.26.4"),
    settings={
        "model": "ONNX Runtime in the Python backend (no other is shipped), 1 thread, 1 instance",
        "batching": "dynamic_batching {}, up to the batch size asked for, no delay",
        "metrics": "off",
    },
    launch=_launch,
    wire=OpenInference(),
    connections=(1, 2, 4, 8, 16, 32, 64),
)
