"""Runs `gateway serve` as a process of its own, as an operator would, and ends it by SIGTERM."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

NATIVE: Final = "native"
TRANSPORTS: Final = (NATIVE, "grpcio")
"""Of gRPC, both; what is about something else than gRPC needs the native one alone."""
ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).parent / "gateway"
PATIENCE_S = 40
"""How long tests wait for what must come; it bounds hangs alone, and is no expectation."""
_PORTS = ("--http-port", "--grpc-port", "--metrics-port", "--admin-port")


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway that has finished its start.

    Attributes:
        ready: what `--ready-json` printed.
        log: the file with its standard error.
    """

    ready: dict[str, Any]
    log: Path

    @property
    def http(self) -> str:
        """Address of HTTP, without a scheme."""
        return f"127.0.0.1:{self.ready['http_port']}"

    @property
    def grpc(self) -> str:
        """Address of gRPC."""
        return f"127.0.0.1:{self.ready['grpc_port']}"

    def states(self) -> dict[str, str]:
        """Return `model/version` -> state as it was when the start was over."""
        return {f"{m['name']}/{m['version']}": m["state"] for m in self.ready["models"]}

    def counter(self, sample: str) -> float:
        """Return the value of one line of the metrics page, named with its labels; 0 when there is none."""
        url = f"http://127.0.0.1:{self.ready['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as page:
            lines = page.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample + " ")), 0.0)

    def waiting(self, model: str) -> int:
        """Return how many requests wait in the queue of version 1 of `model`."""
        return int(self.counter(f'nv_inference_pending_request_count{{model="{model}",version="1"}}'))


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds; what never does fails the test, before its time limit ends all tests."""
    hopeless_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < hopeless_s, "it never came to hold"


@contextmanager
def serving(log: Path, *arguments: str | Path, transport: str = NATIVE) -> Iterator[RunningGateway]:
    """Start a gateway on free ports, wait until its start is over, and stop it as an operator would.

    Leaving asserts that SIGTERM ended it with exit code 0.
    """
    ports = (argument for port in _PORTS for argument in (port, "0"))
    command = [COMMAND, "serve", *arguments, "--grpc-transport", transport, "--ready-json", *ports]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the gateway ended before it was ready:\n{log.read_text()}"
            yield RunningGateway(json.loads(line), log)
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            assert code == 0, f"SIGTERM ended the gateway with exit code {code}:\n{log.read_text()[-4000:]}"
        finally:
            process.kill()


Gateways: TypeAlias = "Callable[[str], RunningGateway]"
"""Gateways by gRPC transport, each started when it is first asked for."""


@contextmanager
def started_once(start: Callable[[str], AbstractContextManager[RunningGateway]]) -> Iterator[Gateways]:
    """Give out gateways that `start` makes of a transport; leaving stops them."""
    with ExitStack() as stack:
        yield cache(lambda transport: stack.enter_context(start(transport)))
