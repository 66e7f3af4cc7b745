"""Ray Serve: HAProxy before one replica, and Ray's own processes beside them."""

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

_BATCH_WAIT_TIMEOUT_S: Final = 0.005
_ENVIRONMENT: Final = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: 127.0.0.1 is this node's address
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
_OTHER_PORTS: Final = (
    "AUTOSCALER_METRIC_PORT",
    "DASHBOARD_METRIC_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
)


def _launch(place: Place) -> Launch:
    port, *others = free_ports(1 + len(_OTHER_PORTS))
    own = {"batch_wait_timeout_s": _BATCH_WAIT_TIMEOUT_S}
    launch = script_launch(place, "rayserve_app.py", {"http-raw": port}, own)
    ports = dict(zip(_OTHER_PORTS, map(str, others), strict=True))
    return replace(launch, environment={**launch.environment, **_ENVIRONMENT, **ports})


PEER: Final = ServerPeer(
    name="rayserve",
    label="Ray Serve 2.60.0 (HAProxy before one replica)",
    protocols=("http-raw",),
    packages=(
        "ray[serve]==2.60.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
        "grpcio==1.85.1",
        "fastapi==0.165.0",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
    ),
    settings={
        "model": "ONNX Runtime in the replica, 1 thread",
        "processes": "HAProxy, 1 thread (its default, a Python proxy, costs ten times as much), 1 replica,"
        " the controller, Ray's own; no dashboard",
        "batching": f"serve.batch, up to the batch size asked for, {_BATCH_WAIT_TIMEOUT_S * 1000:.0f} ms",
        "payload": "bare rows; it speaks no inference protocol",
        "logs": "no access log",
    },
    launch=_launch,
    wire=BareRows("/"),
)
